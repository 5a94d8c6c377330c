package federation

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"conclave/internal/matrix"
)

// Bounds of a streamed answer.
const (
	maxItemBytes   = 256 << 10 // one event as it comes, with blanks and unsigned; canonical form: 64 KiB
	maxMemberBytes = 1 << 20   // any other member
	maxMembers     = 64
	maxItems       = 1_000_000
	maxNesting     = 64
)

var errStream = errors.New("the answer is not a JSON object as expected")

// splitObject reads a JSON object of any size, keeping one item in memory at a time. The items of the arrays that are
// named in lists go to item one by one; every other member goes to member whole. Raw texts are the callee's to keep.
// Whole members are checked to be strict JSON; items are only taken apart, because each is judged on its own.
func splitObject(r io.Reader, lists []string, item, member func(name string, raw []byte) error) error {
	s := &splitter{r: bufio.NewReaderSize(r, 64<<10)}
	if err := s.expect('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for first := true; ; first = false {
		done, err := s.next('}', first)
		if err != nil {
			return err
		}
		if done {
			return s.end()
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if seen[name] || len(seen) == maxMembers {
			return errStream
		}
		seen[name] = true
		if err := s.member(name, lists, item, member); err != nil {
			return err
		}
	}
}

type splitter struct {
	r     *bufio.Reader
	items int
}

func (s *splitter) member(name string, lists []string, item, member func(string, []byte) error) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	for _, list := range lists {
		if list == name && c == '[' {
			return s.list(name, item)
		}
	}
	raw, err := s.value(maxMemberBytes)
	if err != nil {
		return err
	}
	if err := matrix.CheckJSON(raw, matrix.Limits{Bytes: maxMemberBytes, Depth: maxNesting, Members: 10_000}); err != nil {
		return fmt.Errorf("%w: %w", errStream, err)
	}
	return member(name, raw)
}

func (s *splitter) list(name string, item func(string, []byte) error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		done, err := s.next(']', first)
		if err != nil || done {
			return err
		}
		if s.items++; s.items > maxItems {
			return errTooLarge
		}
		raw, err := s.value(maxItemBytes)
		if err != nil {
			return err
		}
		if err := item(name, raw); err != nil {
			return err
		}
	}
}

// next consumes what stands before the next member or item: nothing, a comma, or the closing bracket.
func (s *splitter) next(closing byte, first bool) (done bool, err error) {
	c, err := s.peek()
	if err != nil {
		return false, err
	}
	if c == closing {
		_, err = s.r.Discard(1)
		return true, err
	}
	if first {
		return false, nil
	}
	if err = s.expect(','); err != nil {
		return false, err
	}
	if c, err = s.peek(); err == nil && c == closing {
		err = errStream // a comma before the end
	}
	return false, err
}

// peek skips blanks and looks at the next byte.
func (s *splitter) peek() (byte, error) {
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c, s.r.UnreadByte()
		}
	}
}

func (s *splitter) expect(want byte) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != want {
		return errStream
	}
	_, err = s.r.Discard(1)
	return err
}

func (s *splitter) name() (string, error) {
	c, err := s.peek()
	if err != nil {
		return "", err
	}
	if c != '"' {
		return "", errStream
	}
	raw, err := s.value(1024)
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		return "", errStream // no member of the API needs an escape
	}
	return string(raw[1 : len(raw)-1]), s.expect(':')
}

// value reads one value of at most limit bytes: brackets are matched, strings end, nothing else is looked at.
func (s *splitter) value(limit int) ([]byte, error) {
	if _, err := s.peek(); err != nil {
		return nil, err
	}
	var raw []byte
	var open [maxNesting]byte
	depth := 0
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		if depth == 0 && len(raw) > 0 && endsScalar(c) {
			return raw, s.r.UnreadByte()
		}
		if len(raw) == 0 && (endsScalar(c) || c == ':') {
			return nil, errStream
		}
		if raw = append(raw, c); len(raw) > limit {
			return nil, errTooLarge
		}
		switch c {
		case '"':
			if raw, err = s.text(raw, limit); err != nil {
				return nil, err
			}
		case '{', '[':
			if depth == maxNesting {
				return nil, errStream
			}
			open[depth] = c + 2 // the matching bracket in ASCII
			depth++
			continue
		case '}', ']':
			if depth == 0 || open[depth-1] != c {
				return nil, errStream
			}
			depth--
		default:
			continue
		}
		if depth == 0 {
			return raw, nil
		}
	}
}

// text reads the rest of a string after its opening quote.
func (s *splitter) text(raw []byte, limit int) ([]byte, error) {
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		if raw = append(raw, c); len(raw) > limit {
			return nil, errTooLarge
		}
		switch c {
		case '"':
			return raw, nil
		case '\\':
			if c, err = s.r.ReadByte(); err != nil {
				return nil, unexpected(err)
			}
			raw = append(raw, c)
		}
	}
}

// end makes sure that nothing follows.
func (s *splitter) end() error {
	_, err := s.peek()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	if err == nil {
		err = errStream
	}
	return err
}

func endsScalar(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
