package matrix

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Limits bound JSON from outside (threats.md section 1). Zero fields mean the defaults.
type Limits struct {
	Bytes   int // of the whole text; 0 = no bound
	Depth   int // of nesting; 0 = 64
	Members int // of one object or array; 0 = 10,000
	// CanonicalNumbers refuses floats, exponents and integers beyond ±(2^53-1).
	CanonicalNumbers bool
}

const (
	defaultDepth   = 64
	defaultMembers = 10_000
	maxSafeInteger = 1<<53 - 1
)

// ErrJSON is what every refusal of the scanner wraps.
var ErrJSON = errors.New("not usable JSON")

// ErrDuplicateName is the refusal of an object that has a name twice, which two readers may understand differently.
var ErrDuplicateName = fmt.Errorf("%w: a name stands twice", ErrJSON)

// scanner walks over JSON strictly: no duplicate names, no byte order mark, nothing after the value, valid UTF-8, no
// lone surrogates, bounded depth and size.
type scanner struct {
	data  []byte
	pos   int
	depth int
	lim   Limits
	names [][]byte // names of the objects being scanned, decoded; a stack
}

// CheckJSON scans data strictly and allocates next to nothing.
func CheckJSON(data []byte, l Limits) error {
	if l.Depth == 0 {
		l.Depth = defaultDepth
	}
	if l.Members == 0 {
		l.Members = defaultMembers
	}
	if l.Bytes != 0 && len(data) > l.Bytes {
		return fmt.Errorf("%w: longer than %d bytes", ErrJSON, l.Bytes)
	}
	var room [32][]byte
	s := scanner{data: data, lim: l, names: room[:0]}
	s.space()
	if err := s.value(); err != nil {
		return err
	}
	s.space()
	if s.pos != len(data) {
		return s.fail("something follows the value")
	}
	return nil
}

// CheckObject is CheckJSON with the default limits for a body that must be an object: M_NOT_JSON or M_BAD_JSON.
func CheckObject(data []byte) error {
	if err := CheckJSON(data, Limits{}); err != nil {
		return NotJSON("The body is not valid JSON.").With(err)
	}
	if first := firstByte(data); first != '{' {
		return BadJSON("The body is not a JSON object.")
	}
	return nil
}

func firstByte(data []byte) byte {
	for _, c := range data {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
	return 0
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrJSON, what, s.pos)
}

func (s *scanner) twice() error {
	return fmt.Errorf("%w at byte %d", ErrDuplicateName, s.pos)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) value() error {
	if s.pos >= len(s.data) {
		return s.fail("the text ends too early")
	}
	switch c := s.data[s.pos]; {
	case c == '{':
		return s.object()
	case c == '[':
		return s.array()
	case c == '"':
		_, _, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return s.fail("no value begins like this")
}

func (s *scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return s.fail("no value begins like this")
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > s.lim.Depth {
		return s.fail("nested too deeply")
	}
	s.pos++
	s.space()
	return nil
}

func (s *scanner) object() error {
	if err := s.enter(); err != nil {
		return err
	}
	base := len(s.names)
	defer func() { s.names, s.depth = s.names[:base], s.depth-1 }()
	if s.take('}') {
		return nil
	}
	var seen map[string]struct{}
	for {
		if s.pos >= len(s.data) || s.data[s.pos] != '"' {
			return s.fail("a member's name is missing")
		}
		name, plain, err := s.text()
		if err != nil {
			return err
		}
		if !plain {
			if name, err = unquote(name); err != nil {
				return err
			}
		}
		if seen, err = s.unique(base, name, seen); err != nil {
			return err
		}
		s.space()
		if !s.take(':') {
			return s.fail("a colon is missing")
		}
		s.space()
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.fail("a comma is missing")
		}
		s.space()
	}
}

// unique refuses a name that the object has already. Small objects are compared name by name, large ones by a map.
func (s *scanner) unique(base int, name []byte, seen map[string]struct{}) (map[string]struct{}, error) {
	const small = 16
	have := s.names[base:]
	if len(have) >= s.lim.Members {
		return seen, s.fail("too many members")
	}
	switch {
	case seen != nil:
		if _, twice := seen[string(name)]; twice {
			return seen, s.twice()
		}
		seen[string(name)] = struct{}{}
	case len(have) < small:
		for _, other := range have {
			if string(other) == string(name) {
				return seen, s.twice()
			}
		}
	default:
		seen = make(map[string]struct{}, 4*small)
		for _, other := range have {
			seen[string(other)] = struct{}{}
		}
		if _, twice := seen[string(name)]; twice {
			return seen, s.twice()
		}
		seen[string(name)] = struct{}{}
	}
	s.names = append(s.names, name)
	return seen, nil
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) array() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	if s.take(']') {
		return nil
	}
	for n := 1; ; n++ {
		if n > s.lim.Members {
			return s.fail("too many elements")
		}
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.fail("a comma is missing")
		}
		s.space()
	}
}

// text scans a string and returns what is between its quotes, and whether that has no escapes.
func (s *scanner) text() (inner []byte, plain bool, err error) {
	s.pos++
	start := s.pos
	plain = true
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			inner = s.data[start:s.pos]
			s.pos++
			return inner, plain, nil
		case c == '\\':
			plain = false
			if err := s.escape(); err != nil {
				return nil, false, err
			}
		case c < 0x20:
			return nil, false, s.fail("a control character in a string")
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				return nil, false, s.fail("not UTF-8")
			}
			s.pos += size
		}
	}
	return nil, false, s.fail("a string does not end")
}

func (s *scanner) escape() error {
	if s.pos+1 >= len(s.data) {
		return s.fail("an escape does not end")
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
		r, err := s.hex(s.pos)
		if err != nil {
			return err
		}
		s.pos += 6
		switch {
		case r >= 0xdc00 && r < 0xe000:
			return s.fail("a lone surrogate")
		case r >= 0xd800 && r < 0xdc00:
			low, err := s.hex(s.pos)
			if err != nil || low < 0xdc00 || low >= 0xe000 {
				return s.fail("a lone surrogate")
			}
			s.pos += 6
		}
		return nil
	}
	return s.fail("an unknown escape")
}

// hex reads \uXXXX at a position.
func (s *scanner) hex(at int) (rune, error) {
	if at+6 > len(s.data) || s.data[at] != '\\' || s.data[at+1] != 'u' {
		return 0, s.fail("an escape does not end")
	}
	var r rune
	for _, c := range s.data[at+2 : at+6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, s.fail("an escape is not hexadecimal")
		}
	}
	return r, nil
}

// number scans a number by JSON's grammar.
func (s *scanner) number() error {
	start := s.pos
	s.take('-')
	switch {
	case s.take('0'):
	case s.digits() == 0:
		return s.fail("not a number")
	}
	integer := true
	if s.take('.') {
		integer = false
		if s.digits() == 0 {
			return s.fail("not a number")
		}
	}
	if s.pos < len(s.data) && (s.data[s.pos] == 'e' || s.data[s.pos] == 'E') {
		integer = false
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		if s.digits() == 0 {
			return s.fail("not a number")
		}
	}
	if !s.lim.CanonicalNumbers {
		return nil
	}
	text := string(s.data[start:s.pos])
	n, err := strconv.ParseInt(text, 10, 64)
	if !integer || err != nil || n > maxSafeInteger || n < -maxSafeInteger || text == "-0" {
		return s.fail("a number that canonical JSON does not have")
	}
	return nil
}

func (s *scanner) digits() (n int) {
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
		n++
	}
	return n
}

// unquote decodes the escapes of what is between a string's quotes. The text was scanned before.
func unquote(inner []byte) ([]byte, error) {
	out := make([]byte, 0, len(inner))
	s := scanner{data: inner}
	for s.pos < len(inner) {
		c := inner[s.pos]
		if c != '\\' {
			out = append(out, c)
			s.pos++
			continue
		}
		if s.pos+1 >= len(inner) {
			return nil, s.fail("an escape does not end")
		}
		switch e := inner[s.pos+1]; e {
		case 'u':
			r, err := s.hex(s.pos)
			if err != nil {
				return nil, err
			}
			s.pos += 6
			if r >= 0xd800 && r < 0xdc00 {
				low, err := s.hex(s.pos)
				if err != nil {
					return nil, err
				}
				s.pos += 6
				r = (r-0xd800)<<10 + (low - 0xdc00) + 0x10000
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, unescaped(e))
			s.pos += 2
		}
	}
	return out, nil
}

func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
