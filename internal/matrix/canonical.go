package matrix

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// CanonicalJSON rewrites JSON canonically (appendices, "Canonical JSON"): members sorted by code point, no white space,
// the shortest escapes, integers as digits. It scans as strictly as CheckJSON. Numbers that canonical JSON does not
// have, which only room versions 1 to 5 allow, keep the text that they came with.
func CanonicalJSON(data []byte) ([]byte, error) { return canonical(data, false) }

// StrictCanonicalJSON is CanonicalJSON that refuses numbers which canonical JSON does not have.
func StrictCanonicalJSON(data []byte) ([]byte, error) { return canonical(data, true) }

func canonical(data []byte, strict bool) ([]byte, error) {
	return canonicalWithin(data, Limits{CanonicalNumbers: strict})
}

func canonicalWithin(data []byte, limits Limits) ([]byte, error) {
	if err := CheckJSON(data, limits); err != nil {
		return nil, err
	}
	w := canonicalWriter{in: scanner{data: data}, out: make([]byte, 0, len(data))}
	w.in.space()
	w.value()
	return w.out, nil
}

// canonicalWriter rewrites text that was checked, so nothing in it can fail.
type canonicalWriter struct {
	in    scanner
	out   []byte
	spare []byte
}

func (w *canonicalWriter) value() {
	switch c := w.in.data[w.in.pos]; c {
	case '{':
		w.object()
	case '[':
		w.array()
	case '"':
		w.string()
	case 't', 'f', 'n':
		start := w.in.pos
		for w.in.pos < len(w.in.data) && w.in.data[w.in.pos] >= 'a' && w.in.data[w.in.pos] <= 'z' {
			w.in.pos++
		}
		w.out = append(w.out, w.in.data[start:w.in.pos]...)
	default:
		w.number()
	}
}

// member is where a member stands in the output, and its name without escapes.
type member struct {
	name       []byte
	start, end int
}

func (w *canonicalWriter) object() {
	w.in.pos++
	w.out = append(w.out, '{')
	base := len(w.out)
	var room [16]member
	members := room[:0]
	sorted := true
	for {
		w.in.space()
		if w.in.take('}') {
			break
		}
		if w.in.take(',') {
			continue
		}
		if len(members) > 0 {
			w.out = append(w.out, ',')
		}
		start := len(w.out)
		name := w.string()
		w.in.space()
		w.in.take(':')
		w.out = append(w.out, ':')
		w.in.space()
		w.value()
		if n := len(members); n > 0 && bytes.Compare(members[n-1].name, name) > 0 {
			sorted = false
		}
		members = append(members, member{name, start, len(w.out)})
	}
	if !sorted {
		w.reorder(base, members)
	}
	w.out = append(w.out, '}')
}

// reorder sorts the members that were written since base.
func (w *canonicalWriter) reorder(base int, members []member) {
	slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	w.spare = append(w.spare[:0], w.out[base:]...)
	w.out = w.out[:base]
	for i, m := range members {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = append(w.out, w.spare[m.start-base:m.end-base]...)
	}
}

func (w *canonicalWriter) array() {
	w.in.pos++
	w.out = append(w.out, '[')
	first := true
	for {
		w.in.space()
		if w.in.take(']') {
			break
		}
		if w.in.take(',') {
			continue
		}
		if !first {
			w.out = append(w.out, ',')
		}
		first = false
		w.value()
	}
	w.out = append(w.out, ']')
}

// string writes a string and returns what it says, without escapes.
func (w *canonicalWriter) string() []byte {
	inner, plain, err := w.in.text()
	if err == nil && !plain {
		inner, err = unquote(inner)
	}
	if err != nil {
		return nil // the text was checked
	}
	if plain {
		w.out = append(append(append(w.out, '"'), inner...), '"')
	} else {
		w.out = appendString(w.out, inner)
	}
	return inner
}

// appendString writes text as a JSON string with the shortest escapes.
func appendString(out, text []byte) []byte {
	const digits = "0123456789abcdef"
	out = append(out, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= 0x20:
			out = append(out, c)
		case c == '\b':
			out = append(out, '\\', 'b')
		case c == '\f':
			out = append(out, '\\', 'f')
		case c == '\n':
			out = append(out, '\\', 'n')
		case c == '\r':
			out = append(out, '\\', 'r')
		case c == '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(out, '"')
}

func (w *canonicalWriter) number() {
	start := w.in.pos
	if w.in.number() != nil {
		return // the text was checked
	}
	text := w.in.data[start:w.in.pos]
	if isInteger(text) {
		w.out = append(w.out, text...)
		return
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err == nil && f == math.Trunc(f) && math.Abs(f) <= maxSafeInteger {
		w.out = strconv.AppendInt(w.out, int64(f), 10)
		return
	}
	w.out = append(w.out, text...)
}

// isInteger reports whether a number is written as an integer that is not "-0".
func isInteger(text []byte) bool {
	if len(text) == 2 && text[0] == '-' && text[1] == '0' {
		return false
	}
	return !bytes.ContainsAny(text, ".eE")
}

// Encode gives the canonical JSON of a Go value.
func Encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return CanonicalJSON(raw)
}

// AppendString appends text as a canonical JSON string.
func AppendString(out []byte, text string) []byte { return appendString(out, []byte(text)) }
