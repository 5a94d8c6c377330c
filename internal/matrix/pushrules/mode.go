package pushrules

import (
	"encoding/json"
	"strings"
)

// Mode is what events count as for a user in a room before any single one is looked at. It is what makes it cheap to
// count for people with the usual wishes; whatever it says wrongly of an event is put right for that event.
type Mode int8

// The modes. Their numbers are stored.
const (
	AsElsewhere Mode = -1 // the room has no mode of its own
	All         Mode = 0  // as the predefined rules say
	Mentions    Mode = 1  // only what the predefined rules highlight for everybody
	Nothing     Mode = 2
)

// Counted is what an event counts as in this mode if by the predefined rules it notifies or highlights everybody.
func (m Mode) Counted(notify, highlight bool) (bool, bool) {
	switch m {
	case Mentions:
		return highlight, highlight
	case Nothing:
		return false, false
	}
	return notify, highlight
}

// Modes are the modes of one set of rules: the one of rooms in general, and those of rooms which rules name.
type Modes struct {
	General Mode
	Rooms   map[string]Mode // only what differs from General
}

// In is the mode of a room.
func (m Modes) In(room string) Mode {
	if mode, ok := m.Rooms[room]; ok {
		return mode
	}
	return m.General
}

// ModesOf finds the modes of a complete set of rules and the program made of it.
func ModesOf(r *Ruleset, p *Program) Modes {
	out := Modes{General: p.mode(""), Rooms: map[string]Mode{}}
	for _, room := range r.roomsNamed() {
		if mode := p.mode(room); mode != out.General {
			out.Rooms[room] = mode
		}
	}
	return out
}

// roomsNamed are the rooms that enabled rules name.
func (r *Ruleset) roomsNamed() (rooms []string) {
	for _, rule := range r.Room {
		if rule.Enabled {
			rooms = append(rooms, rule.ID)
		}
	}
	for _, list := range [][]Rule{r.Override, r.Underride} {
		for _, rule := range list {
			for _, raw := range rule.Conditions {
				if m, err := members(raw); err == nil && rule.Enabled && readScalar(m["key"]).text == "room_id" {
					rooms = append(rooms, readScalar(m["pattern"]).text, readScalar(m["value"]).text)
				}
			}
		}
	}
	kept := rooms[:0]
	for _, room := range rooms {
		if strings.HasPrefix(room, "!") && len(room) <= maxRuleID && !strings.ContainsRune(room, 0) {
			kept = append(kept, room)
		}
	}
	return kept
}

// mode tries what the rules do with messages that say nothing, plain and encrypted, in a large room, and with one that
// mentions everybody.
func (p *Program) mode(room string) Mode {
	try := func(form string, may bool) Actions {
		var m map[string]json.RawMessage
		if err := json.Unmarshal([]byte(form), &m); err != nil {
			return Actions{} // impossible: the forms stand below
		}
		get := func(path ...string) ([]byte, bool) { return lookInto(m, path) }
		e := &Event{Get: get, RoomID: room, Members: typicalMembers, MayNotify: func(string) bool { return may }}
		return p.Evaluate(e, Person{UserID: "@"})
	}
	quoted, err := json.Marshal(room)
	if err != nil {
		return All
	}
	form := func(typ, content string) string {
		return `{"type":"` + typ + `","room_id":` + string(quoted) + `,"sender":"","content":` + content + `}`
	}
	plain := try(form("m.room.message", `{"msgtype":"m.text","body":""}`), false).Notify
	sealed := try(form("m.room.encrypted", `{}`), false).Notify
	switch {
	case plain != sealed || plain:
		return All
	case try(form("m.room.message", `{"msgtype":"m.text","body":"","m.mentions":{"room":true}}`), true).Highlight:
		return Mentions
	}
	return Nothing
}

// typicalMembers is a number of members that no rule is likely to ask for.
const typicalMembers = 1000

// lookInto finds a value in parsed JSON.
func lookInto(m map[string]json.RawMessage, path []string) ([]byte, bool) {
	for i, name := range path {
		raw, ok := m[name]
		if !ok {
			return nil, false
		}
		if i == len(path)-1 {
			return raw, true
		}
		if m = nil; json.Unmarshal(raw, &m) != nil {
			return nil, false
		}
	}
	return nil, false
}
