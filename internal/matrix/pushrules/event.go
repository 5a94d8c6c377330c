package pushrules

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Event is a view of one event and its room for evaluating rules. It remembers what was looked up, so one Event serves all programs; it
// is not safe for concurrent use.
type Event struct {
	// Get looks up a property by its path in the event's client form, as raw JSON; matrix.Get over that form does.
	Get func(path ...string) (raw []byte, ok bool)
	// RoomID and Sender are those of the event.
	RoomID, Sender string
	// Members is the number of joined members of the room.
	Members int
	// MayNotify reports whether the sender's power level suffices for a kind of notification ("room"), by the room's power levels. Nil: no.
	MayNotify func(key string) bool

	values map[string]*value
}

// value is a property that was looked up.
type value struct {
	one    scalar
	list   []scalar // of an array: its scalars
	folded *string  // of a string, when a pattern first asks for it
}

// scalar is a JSON value that conditions can compare; kind 0 is none of these.
type scalar struct {
	kind byte // 's'tring, 'n'umber, 't'rue, 'f'alse, nu'0'll
	text string
}

// maxSafe is the largest integer of canonical JSON, 2^53-1, in digits.
const maxSafe = "9007199254740991"

// readScalar reads a string, an integer in the range of canonical JSON, a boolean or null.
func readScalar(raw []byte) (s scalar) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return s
	}
	switch c := raw[0]; {
	case c == '"' && len(raw) > 1 && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw): // as nearly all are
		s.kind, s.text = 's', string(raw[1:len(raw)-1])
	case c == '"':
		if json.Unmarshal(raw, &s.text) == nil {
			s.kind = 's'
		}
	case string(raw) == "true":
		s.kind = 't'
	case string(raw) == "false":
		s.kind = 'f'
	case string(raw) == "null":
		s.kind = '0'
	case isInteger(string(raw)):
		s.kind, s.text = 'n', string(raw)
	}
	return s
}

func isInteger(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || (digits[0] == '0' && text != "0") {
		return false
	}
	return len(digits) < len(maxSafe) || (len(digits) == len(maxSafe) && digits <= maxSafe)
}

// lookUp returns the property at a path.
func (e *Event) lookUp(p *path) *value {
	if v, ok := e.values[p.text]; ok {
		return v
	}
	v := &value{}
	if raw, ok := e.Get(p.names...); ok {
		if trimmed := bytes.TrimSpace(raw); len(trimmed) > 0 && trimmed[0] == '[' {
			var items []json.RawMessage
			if json.Unmarshal(trimmed, &items) == nil {
				for _, item := range items {
					v.list = append(v.list, readScalar(item))
				}
			}
		} else {
			v.one = readScalar(raw)
		}
	}
	if e.values == nil {
		e.values = make(map[string]*value, 16)
	}
	e.values[p.text] = v
	return v
}

// fold returns a string property in folded form; ok is false if it is no string.
func (v *value) fold() (string, bool) {
	if v.one.kind != 's' {
		return "", false
	}
	if v.folded == nil {
		folded := foldText(v.one.text)
		v.folded = &folded
	}
	return *v.folded, true
}

// path is a dot-separated property path (appendices).
type path struct {
	text  string
	names []string
}

// parsePath splits a path. A backslash escapes a dot or a backslash, and before anything else is itself.
func parsePath(text string) *path {
	p := &path{text: text}
	var name strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == '.' || text[i+1] == '\\'):
			i++
			name.WriteByte(text[i])
		case c == '.':
			p.names = append(p.names, name.String())
			name.Reset()
		default:
			name.WriteByte(c)
		}
	}
	p.names = append(p.names, name.String())
	return p
}

// isBody reports whether the path is content.body, whose patterns match words rather than the whole.
func (p *path) isBody() bool {
	return len(p.names) == 2 && p.names[0] == "content" && p.names[1] == "body"
}

// Paths that the module itself names.
var ownPaths = struct{ body, mentions, stateKey *path }{
	parsePath("content.body"), parsePath(`content.m\.mentions.user_ids`), parsePath("state_key"),
}

func bodyPath() *path     { return ownPaths.body }
func mentionsPath() *path { return ownPaths.mentions }
func stateKeyPath() *path { return ownPaths.stateKey }

// Names returns the users whom an event names in the places where a predefined rule looks for its owner: m.mentions and the state key. For everybody
// else the rules of equal Fingerprint have an equal outcome.
func (e *Event) Names() []string {
	var users []string
	for _, s := range e.lookUp(mentionsPath()).list {
		if s.kind == 's' {
			users = append(users, s.text)
		}
	}
	if key := e.lookUp(stateKeyPath()).one; key.kind == 's' && strings.HasPrefix(key.text, "@") {
		users = append(users, key.text)
	}
	return users
}
