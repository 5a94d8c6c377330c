package pushrules

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Person is a user in a room: the owner of rules that are evaluated.
type Person struct {
	UserID      string
	DisplayName string // in this room; may be empty
}

// condition is a compiled condition.
type condition func(e *Event, owner Person) bool

// never is a condition that this version does not know, or that makes no sense: it matches nothing, and so disables its rule.
func never(*Event, Person) bool { return false }

// compileCondition reads a condition. The text says what it does, with the owner's ID replaced by a mark where the compiled form looks for whoever
// owns the rule; conditions with equal texts are equal. personal says that its outcome differs between owners in a way that Event.Names does
// not show.
func compileCondition(raw json.RawMessage, owner string) (c condition, text string, personal bool) {
	m, err := members(raw)
	if err != nil {
		return never, "never", false
	}
	field := func(name string) (s string, ok bool) {
		v, has := m[name]
		scalar := readScalar(v)
		return scalar.text, has && scalar.kind == 's' && len(scalar.text) <= MaxPattern
	}
	kind, _ := field("kind")
	key, hasKey := field("key")
	switch {
	case kind == "contains_display_name":
		return containsDisplayName, kind, true
	case kind == "room_member_count":
		is, ok := field("is")
		if !ok {
			return never, "never", false
		}
		return memberCount(is), text2(kind, is), false
	case !hasKey:
		return never, "never", false
	case kind == "sender_notification_permission":
		return func(e *Event, _ Person) bool { return e.MayNotify != nil && e.MayNotify(key) }, text2(kind, key), false
	case kind == "event_match":
		pattern, ok := field("pattern")
		if !ok {
			return never, "never", false
		}
		return compileMatch(parsePath(key), pattern, owner)
	case kind == "event_property_is", kind == "event_property_contains":
		return compileProperty(kind, parsePath(key), readScalar(m["value"]), owner)
	}
	return never, "never", false
}

// text2 joins texts so that no two lists give the same.
func text2(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strconv.Quote(p))
	}
	return b.String()
}

func compileMatch(p *path, pattern, owner string) (condition, string, bool) {
	if pattern == owner && p.text == stateKeyPath().text { // the invitation of the owner, in the predefined rule
		return func(e *Event, owner Person) bool {
			key := e.lookUp(p).one
			return key.kind == 's' && key.text == owner.UserID
		}, text2("event_match", p.text, ownerMark), false
	}
	g := compileGlob(pattern)
	match := g.matchAll
	if p.isBody() {
		match = g.matchWords
	}
	return func(e *Event, _ Person) bool {
		folded, ok := e.lookUp(p).fold()
		return ok && match(folded)
	}, text2("event_match", p.text, pattern), false
}

func compileProperty(kind string, p *path, want scalar, owner string) (condition, string, bool) {
	if want.kind == 0 {
		return never, "never", false
	}
	text := text2(kind, p.text, string(want.kind), want.text)
	if kind == "event_property_is" {
		return func(e *Event, _ Person) bool { return e.lookUp(p).one == want }, text, false
	}
	mine := want == scalar{'s', owner} && p.text == mentionsPath().text
	if mine {
		text = text2(kind, p.text, ownerMark)
	}
	return func(e *Event, owner Person) bool {
		want := want
		if mine {
			want.text = owner.UserID
		}
		for _, item := range e.lookUp(p).list {
			if item == want {
				return true
			}
		}
		return false
	}, text, false
}

// containsDisplayName matches a body with the owner's display name in it, as a word.
func containsDisplayName(e *Event, owner Person) bool {
	body, ok := e.lookUp(bodyPath()).fold()
	return ok && containsWord(body, foldText(owner.DisplayName))
}

// memberCount reads "==2", "<10", "3" and the like.
func memberCount(is string) condition {
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.Atoi(digits)
	if err != nil || digits[0] < '0' || digits[0] > '9' {
		return never
	}
	switch is[:len(is)-len(digits)] {
	case "", "==":
		return func(e *Event, _ Person) bool { return e.Members == n }
	case "<":
		return func(e *Event, _ Person) bool { return e.Members < n }
	case ">":
		return func(e *Event, _ Person) bool { return e.Members > n }
	case "<=":
		return func(e *Event, _ Person) bool { return e.Members <= n }
	case ">=":
		return func(e *Event, _ Person) bool { return e.Members >= n }
	}
	return never
}
