package matrix

import (
	"encoding/json"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// HistoryVisibility says who may see a room's past.
type HistoryVisibility string

// The values of m.room.history_visibility.
const (
	Invited       HistoryVisibility = "invited"
	Joined        HistoryVisibility = "joined"
	Shared        HistoryVisibility = "shared"
	WorldReadable HistoryVisibility = "world_readable"
)

// ParseHistoryVisibility reads the content of m.room.history_visibility; Shared is the default.
func ParseHistoryVisibility(content []byte) HistoryVisibility {
	text, _ := GetString(content, "history_visibility")
	switch v := HistoryVisibility(text); v {
	case Invited, Joined, Shared, WorldReadable:
		return v
	}
	return Shared
}

// JoinRule is the content of m.room.join_rules.
type JoinRule struct {
	Rule         string   // "invite" if the content says nothing, "" if what it says is no rule
	AllowedRooms []RoomID // of restricted rules: members of these may join
}

// ParseJoinRule reads the content of m.room.join_rules.
func ParseJoinRule(content []byte) JoinRule {
	r := JoinRule{Rule: "invite"}
	if _, ok := Get(content, "join_rule"); ok {
		r.Rule, _ = GetString(content, "join_rule") // what is not text is none of the rules, by which nobody joins
	}
	allow, _ := Get(content, "allow")
	elements(allow, func(item []byte) bool {
		kind, _ := GetString(item, "type")
		room, ok := GetString(item, "room_id")
		if kind == "m.room_membership" && ok {
			r.AllowedRooms = append(r.AllowedRooms, RoomID(room))
		}
		return len(r.AllowedRooms) < 100
	})
	return r
}

// PowerLevels is the content of m.room.power_levels with its defaults filled in.
type PowerLevels struct {
	Users         map[UserID]int64
	UsersDefault  int64
	Events        map[string]int64
	EventsDefault int64
	StateDefault  int64
	Ban           int64
	Kick          int64
	Redact        int64
	Invite        int64
	Notifications map[string]int64
}

// LevelError says which part of an m.room.power_levels has something that is no power level.
type LevelError struct{ Part string }

// Error implements error.
func (e *LevelError) Error() string {
	return ErrEvent.Error() + ": " + e.Part + " of the power levels is not made of numbers"
}

// Unwrap gives ErrEvent.
func (e *LevelError) Unwrap() error { return ErrEvent }

// DefaultPowerLevels are the levels of a room without m.room.power_levels, except that its creator has 100.
func DefaultPowerLevels() PowerLevels {
	return PowerLevels{StateDefault: 50, Ban: 50, Kick: 50, Redact: 50}
}

// ParsePowerLevels reads the content of m.room.power_levels as a version understands it: integers, and before version
// 10 also text and floats. A level that is neither is a *LevelError: the event is
// then not allowed (auth rules).
func ParsePowerLevels(content []byte, v RoomVersion) (PowerLevels, error) {
	p := PowerLevels{StateDefault: 50, Ban: 50, Kick: 50, Redact: 50}
	for _, f := range []struct {
		name string
		into *int64
	}{
		{"users_default", &p.UsersDefault}, {"events_default", &p.EventsDefault}, {"state_default", &p.StateDefault},
		{"ban", &p.Ban}, {"kick", &p.Kick}, {"redact", &p.Redact}, {"invite", &p.Invite},
	} {
		raw, ok := Get(content, f.name)
		if !ok {
			continue
		}
		level, ok := powerLevel(raw, v)
		if !ok {
			return p, &LevelError{f.name}
		}
		*f.into = level
	}
	users, err := levelMap(content, "users", v)
	if err != nil {
		return p, err
	}
	p.Users = make(map[UserID]int64, len(users))
	for id, level := range users {
		p.Users[UserID(id)] = level
	}
	if p.Events, err = levelMap(content, "events", v); err != nil {
		return p, err
	}
	if p.Notifications, err = levelMap(content, "notifications", v); err != nil && !v.NotificationLevelsChecked() {
		p.Notifications, err = nil, nil // no rule of these versions looks at them
	}
	return p, err
}

func levelMap(content []byte, name string, v RoomVersion) (map[string]int64, error) {
	raw, ok := Get(content, name)
	if !ok {
		return nil, nil
	}
	if firstByte(raw) != '{' {
		return nil, &LevelError{name}
	}
	members, err := topMembers(raw)
	if err != nil {
		return nil, &LevelError{name}
	}
	levels := make(map[string]int64, len(members))
	for _, m := range members {
		level, ok := powerLevel(m.Value, v)
		if !ok {
			return nil, &LevelError{name}
		}
		levels[m.Key] = level
	}
	return levels, nil
}

// powerLevel reads one level: an integer; before version 10 also text, as Python's int() reads it; before version 6
// also a float, which is cut off (rooms, "Power level…").
func powerLevel(raw []byte, v RoomVersion) (int64, bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, raw[0] != '+'
	}
	if v.IntegerPowerLevels() {
		return 0, false
	}
	if text, ok := textValue(raw); ok {
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		return n, err == nil
	}
	if v.StrictCanonicalJSON() {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.Abs(f) > maxSafeInteger {
		return 0, false
	}
	return int64(f), true
}

// UserLevel is a user's level. That creators of version 12 rooms stand above all levels is not known here.
func (p *PowerLevels) UserLevel(u UserID) int64 {
	if level, ok := p.Users[u]; ok {
		return level
	}
	return p.UsersDefault
}

// EventLevel is the level that sending a type of event needs.
func (p *PowerLevels) EventLevel(typ string, state bool) int64 {
	if level, ok := p.Events[typ]; ok {
		return level
	}
	if state {
		return p.StateDefault
	}
	return p.EventsDefault
}

// Notification is the level that a notification such as "room" needs; 50 by default.
func (p *PowerLevels) Notification(kind string) int64 {
	if level, ok := p.Notifications[kind]; ok {
		return level
	}
	return 50
}

// CreateContent is the content of m.room.create.
type CreateContent struct {
	Version            string          `json:"room_version"`
	Creator            UserID          `json:"creator"`
	AdditionalCreators []UserID        `json:"additional_creators"`
	Federate           *bool           `json:"m.federate"`
	Type               string          `json:"type"`
	Predecessor        json.RawMessage `json:"predecessor"`
}

// Creators are the users whom a room's create event gives a creator's standing.
func Creators(create *Event) []UserID {
	v := create.Version()
	if !v.CreatorInSender() {
		creator, _ := GetString(create.Content(), "creator")
		return []UserID{UserID(creator)}
	}
	creators := []UserID{create.Sender()}
	if !v.CreatorsPrivileged() {
		return creators
	}
	more, _ := Get(create.Content(), "additional_creators")
	elements(more, func(item []byte) bool {
		if id, ok := textValue(item); ok {
			creators = append(creators, UserID(id))
		}
		return true
	})
	return creators
}

// ServerACL is the content of m.room.server_acl.
type ServerACL struct {
	allow, deny []string
	literals    bool
}

// ParseServerACL reads the content of m.room.server_acl. What is not text in its lists is left out.
func ParseServerACL(content []byte) *ServerACL {
	acl := &ServerACL{literals: true}
	if raw, ok := Get(content, "allow_ip_literals"); ok && string(raw) == "false" {
		acl.literals = false
	}
	for name, into := range map[string]*[]string{"allow": &acl.allow, "deny": &acl.deny} {
		list, _ := Get(content, name)
		elements(list, func(item []byte) bool {
			if glob, ok := textValue(item); ok {
				*into = append(*into, strings.ToLower(glob))
			}
			return true
		})
	}
	return acl
}

// Allowed reports whether a server may take part (server-server API, "Server Access Control Lists"). Ports count for
// nothing.
func (a *ServerACL) Allowed(server ServerName) bool {
	host, _, err := splitHost(string(server))
	if err != nil {
		return false
	}
	host = strings.ToLower(host)
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && !a.literals {
		return false
	}
	return !matchesGlob(a.deny, host) && matchesGlob(a.allow, host)
}

func matchesGlob(globs []string, text string) bool {
	for _, g := range globs {
		if Glob(g, text) {
			return true
		}
	}
	return false
}

// Glob matches text with a pattern in which * stands for any characters and ? for one, in time linear in the text for
// each star (appendices, "Glob-style matching"). Letters are compared as they are.
func Glob(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
