// Package authrules decides whether an event may be: the authorisation rules of every room version, as pure functions
// over events that the caller has fetched (rooms, "Authorisation rules"). A refusal carries the number of the rule in
// the text of the room's version.
package authrules

import (
	"fmt"
	"strings"

	"conclave/internal/matrix"
)

// StateKey names a place in a room's state.
type StateKey struct{ Type, Key string }

// State is the state that an event is checked against; nil where a place is empty.
type State interface {
	Get(typ, stateKey string) *matrix.Event
}

// Map is a State held in a map.
type Map map[StateKey]*matrix.Event

// Get implements State.
func (m Map) Get(typ, stateKey string) *matrix.Event { return m[StateKey{typ, stateKey}] }

// Refusal says which rule an event breaks.
type Refusal struct {
	Rule string // such as "5.3.7", in the numbering of the room's version
	Text string // a sentence for people
}

// Error implements error.
func (r *Refusal) Error() string { return "rule " + r.Rule + ": " + r.Text }

func refuse(rule, format string, args ...any) error {
	return &Refusal{rule, fmt.Sprintf(format, args...)}
}

// numbers are the numbers of the main rules, which moved when rules came and went.
type numbers struct{ auth, federate, aliases, member, joined, thirdParty, power, atKey, levels, redaction int }

func numbersOf(v matrix.RoomVersion) numbers {
	switch {
	case v.AliasesAuthRule():
		return numbers{2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	case v.RoomIDIsCreateHash():
		return numbers{3, 4, 0, 5, 6, 7, 8, 9, 10, 0}
	}
	return numbers{2, 3, 0, 4, 5, 6, 7, 8, 9, 0}
}

// check is one event on trial.
type check struct {
	e      *matrix.Event
	state  State
	v      matrix.RoomVersion
	n      numbers
	create *matrix.Event
	levels Levels
}

// Check applies the rules to an event against a state, all but those on its own auth_events (CheckAuthEvents). The
// state has to hold what NeededFor names, and the create event, also in versions whose events do not name it.
func Check(e *matrix.Event, state State) error {
	v := e.Version()
	c := &check{e: e, state: state, v: v, n: numbersOf(v)}
	if e.Type() == "m.room.create" {
		return c.createEvent()
	}
	c.create = state.Get("m.room.create", "")
	if c.create == nil {
		if v.RoomIDIsCreateHash() {
			return refuse("2", "the room's creation is not known")
		}
		return refuse(fmt.Sprintf("%d.4", c.n.auth), "the room has no creation event")
	}
	if c.create.RoomID() != e.RoomID() {
		return refuse(fmt.Sprintf("%d.5", c.n.auth), "the event and the room's creation are of different rooms")
	}
	if federate, ok := matrix.Get(c.create.Content(), "m.federate"); ok && string(federate) == "false" &&
		e.Sender().Server() != c.create.Sender().Server() {
		return refuse(fmt.Sprint(c.n.federate), "this room is for users of one server alone")
	}
	c.levels = LevelsOf(v, state)
	switch e.Type() {
	case "m.room.aliases":
		if v.AliasesAuthRule() {
			return c.aliases()
		}
	case "m.room.member":
		return c.member()
	}
	return c.other()
}

// createEvent is rule 1.
func (c *check) createEvent() error {
	e := c.e
	if len(e.PrevEvents()) > 0 {
		return refuse("1.1", "a creation event follows nothing")
	}
	if c.v.RoomIDIsCreateHash() {
		// An ID that stands in the event cannot be the event's own hash: the room's was made from that.
		if string(e.RoomID()) != "!"+strings.TrimPrefix(string(e.ID()), "$") {
			return refuse("1.2", "a creation event names no room: it makes one")
		}
	} else if server, ok := e.RoomID().Server(); !ok || server != e.Sender().Server() {
		return refuse("1.2", "the room's ID names another server than the creator's")
	}
	version := "1" // of rooms whose creation says nothing
	if raw, ok := matrix.Get(e.Content(), "room_version"); ok {
		if version, ok = matrix.GetString(e.Content(), "room_version"); !ok {
			return refuse("1.3", "the room version %.20s is not text", raw)
		}
	}
	if parsed, known := matrix.ParseRoomVersion(version); !known || parsed != c.v {
		return refuse("1.3", "the room version %.20s is not this room's", version)
	}
	if _, ok := matrix.Get(e.Content(), "creator"); !ok && !c.v.CreatorInSender() {
		return refuse("1.4", "the creation event does not name the creator")
	}
	if raw, ok := matrix.Get(e.Content(), "additional_creators"); ok && c.v.CreatorsPrivileged() {
		var ids []string
		if matrix.Decode(raw, &ids) != nil || ids == nil {
			return refuse("1.4", "additional_creators is not a list of user IDs")
		}
		for _, id := range ids {
			if _, err := matrix.ParseUserID(id); err != nil {
				return refuse("1.4", "additional_creators has something that is not a user ID")
			}
		}
	}
	return nil
}

// aliases is rule 4 of the older versions.
func (c *check) aliases() error {
	key, ok := c.e.StateKey()
	if !ok {
		return refuse("4.1", "m.room.aliases is a state event")
	}
	if key != string(c.e.Sender().Server()) {
		return refuse("4.2", "a server sends its own aliases only")
	}
	return nil
}

// other are the rules after membership.
func (c *check) other() error {
	e, n := c.e, c.n
	sender := e.Sender()
	if c.membership(sender) != "join" {
		return refuse(fmt.Sprint(n.joined), "you are not in this room")
	}
	level := c.levels.UserLevel(sender)
	if e.Type() == "m.room.third_party_invite" {
		if level < c.levels.Invite {
			return refuse(fmt.Sprintf("%d.1", n.thirdParty), "you need more power to invite")
		}
		return nil
	}
	if c.levels.EventLevel(e.Type(), e.IsState()) > level {
		return refuse(fmt.Sprint(n.power), "you need more power to send %.64s here", e.Type())
	}
	if key, ok := e.StateKey(); ok && strings.HasPrefix(key, "@") && key != string(sender) {
		return refuse(fmt.Sprint(n.atKey), "that state belongs to somebody else")
	}
	switch e.Type() {
	case "m.room.power_levels":
		return c.powerLevels(level)
	case "m.room.redaction":
		if c.v.RedactionAuthRule() {
			return c.redaction(level)
		}
	}
	return nil
}

// redaction is rule 11 of versions 1 and 2.
func (c *check) redaction(level int64) error {
	if level >= c.levels.Redact {
		return nil
	}
	target, _ := c.e.Redacts()
	theirs, ok1 := target.Server()
	ours, ok2 := c.e.ID().Server()
	if ok1 && ok2 && theirs == ours {
		return nil
	}
	return refuse("11.3", "you may only remove your own messages in this room")
}

// membership is a user's membership in the state, "leave" if there is none.
func (c *check) membership(user matrix.UserID) string {
	if ev := c.state.Get("m.room.member", string(user)); ev != nil {
		return ev.Membership()
	}
	return "leave"
}
