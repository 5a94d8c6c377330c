package matrix

import (
	"strconv"
)

// Member is a member of a JSON object: its name and the bytes of its value.
type Member struct {
	Key   string
	Value []byte
}

// Get finds a value in checked JSON by a path of exact member names. The result is part of data.
func Get(data []byte, path ...string) ([]byte, bool) {
	for _, name := range path {
		value, ok := find(data, name)
		if !ok {
			return nil, false
		}
		data = value
	}
	return data, true
}

// find looks one member of an object up.
func find(obj []byte, name string) (value []byte, ok bool) {
	s := scanner{data: obj}
	s.space()
	if !s.take('{') {
		return nil, false
	}
	for {
		s.space()
		if s.take(',') {
			continue
		}
		if s.pos >= len(obj) || obj[s.pos] != '"' {
			return nil, false
		}
		key, plain, err := s.text()
		if err == nil && !plain {
			key, err = unquote(key)
		}
		if err != nil {
			return nil, false
		}
		s.space()
		s.take(':')
		s.space()
		start := s.pos
		if !s.skip() {
			return nil, false
		}
		if string(key) == name {
			return obj[start:s.pos], true
		}
	}
}

// skip passes over one value of checked JSON without looking closely.
func (s *scanner) skip() bool {
	depth := 0
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case '"':
			if !s.skipString() {
				return false
			}
		case '{', '[':
			depth++
			s.pos++
		case '}', ']':
			if depth == 0 {
				return true
			}
			depth--
			s.pos++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return true
			}
			s.pos++
			continue
		default:
			for s.pos < len(s.data) && !ends(s.data[s.pos]) {
				s.pos++
			}
		}
		if depth == 0 {
			return true
		}
	}
	return depth == 0
}

func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\n', '\r', ':':
		return true
	}
	return false
}

func (s *scanner) skipString() bool {
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch s.data[s.pos] {
		case '\\':
			s.pos++
		case '"':
			s.pos++
			return true
		}
	}
	return false
}

// GetString finds a string; false if there is none at the path or it is something else.
func GetString(data []byte, path ...string) (string, bool) {
	raw, ok := Get(data, path...)
	if !ok {
		return "", false
	}
	return textValue(raw)
}

func textValue(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	s := scanner{data: raw}
	inner, plain, err := s.text()
	if err == nil && !plain {
		inner, err = unquote(inner)
	}
	return string(inner), err == nil
}

// GetInt finds an integer; false if there is none at the path or it is something else.
func GetInt(data []byte, path ...string) (int64, bool) {
	raw, ok := Get(data, path...)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil
}

// Members are the top-level members of an object in their order. The text is checked on the way.
func Members(obj []byte) ([]Member, error) {
	if err := CheckJSON(obj, Limits{}); err != nil {
		return nil, err
	}
	if firstByte(obj) != '{' {
		return nil, errNoObject
	}
	var members []Member
	s := scanner{data: obj}
	s.space()
	s.take('{')
	for {
		s.space()
		if s.take(',') {
			continue
		}
		if s.take('}') {
			return members, nil
		}
		key, plain, err := s.text()
		if err == nil && !plain {
			key, err = unquote(key)
		}
		if err != nil {
			return nil, err
		}
		s.space()
		s.take(':')
		s.space()
		start := s.pos
		s.skip()
		members = append(members, Member{string(key), obj[start:s.pos]})
	}
}

// elements calls each for the elements of an array of checked JSON; false if it is no array or each says so.
func elements(raw []byte, each func([]byte) bool) bool {
	s := scanner{data: raw}
	s.space()
	if !s.take('[') {
		return false
	}
	for {
		s.space()
		if s.take(',') {
			continue
		}
		if s.take(']') {
			return true
		}
		start := s.pos
		if !s.skip() || s.pos == start || !each(raw[start:s.pos]) {
			return false
		}
	}
}
