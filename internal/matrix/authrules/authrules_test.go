package authrules

import (
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// TestCreate is rule 1. Its trials have no room: the event makes one.
func TestCreate(t *testing.T) {
	proof.Of(t, "AU-01", "F07")
	creation := func(v matrix.RoomVersion, content string) event {
		e := event{typ: "m.room.create", sender: aliceID, key: at(""), content: content, prev: []string{}}
		if !v.RoomIDIsCreateHash() {
			e.room = "!room:one.example"
		}
		return e
	}
	plain := func(v matrix.RoomVersion, more string) string {
		content := fmt.Sprintf(`{"room_version":%q%s`, v.String(), more)
		if !v.CreatorInSender() {
			content += fmt.Sprintf(`,"creator":%q`, aliceID)
		}
		return content + "}"
	}
	old := not(matrix.RoomVersion.RoomIDIsCreateHash)
	for _, c := range []struct {
		name, want string
		where      func(matrix.RoomVersion) bool
		e          func(v matrix.RoomVersion) event
	}{
		{"allowed", "", nil, func(v matrix.RoomVersion) event { return creation(v, plain(v, "")) }},
		{"with parents", "1.1", nil, func(v matrix.RoomVersion) event {
			e := creation(v, plain(v, ""))
			e.prev = []string{"$parent:one.example"}
			return e
		}},
		{"room of another server", "1.2", old, func(v matrix.RoomVersion) event {
			e := creation(v, plain(v, ""))
			e.room = "!room:two.example"
			return e
		}},
		{"room without a server", "1.2", old, func(v matrix.RoomVersion) event {
			e := creation(v, plain(v, ""))
			e.room = "!room"
			return e
		}},
		{"with a room and a state key", "1.2", matrix.RoomVersion.RoomIDIsCreateHash, func(v matrix.RoomVersion) event {
			e := creation(v, plain(v, ""))
			e.room, e.key = "!room", at("x")
			return e
		}},
		{"with a room and no state key", "1.2", matrix.RoomVersion.RoomIDIsCreateHash, func(v matrix.RoomVersion) event {
			e := creation(v, plain(v, ""))
			e.room, e.key = "!room", nil
			return e
		}},
		{"unknown version", "1.3", nil, func(v matrix.RoomVersion) event {
			return creation(v, `{"room_version":"org.example.new","creator":"@alice:one.example"}`)
		}},
		{"version that is a number", "1.3", nil, func(v matrix.RoomVersion) event {
			return creation(v, fmt.Sprintf(`{"room_version":%s,"creator":"@alice:one.example"}`, v))
		}},
		{"version 13", "1.3", nil, func(v matrix.RoomVersion) event {
			return creation(v, `{"room_version":"13","creator":"@alice:one.example"}`)
		}},
		{"no version means version 1", "1.3", func(v matrix.RoomVersion) bool { return v > 1 }, func(v matrix.RoomVersion) event {
			return creation(v, `{"creator":"@alice:one.example"}`)
		}},
		{"no version in version 1", "", func(v matrix.RoomVersion) bool { return v == 1 }, func(v matrix.RoomVersion) event {
			return creation(v, `{"creator":"@alice:one.example"}`)
		}},
		{"no creator", "1.4", not(matrix.RoomVersion.CreatorInSender), func(v matrix.RoomVersion) event {
			return creation(v, fmt.Sprintf(`{"room_version":%q}`, v.String()))
		}},
		{"additional creators", "", matrix.RoomVersion.CreatorsPrivileged, func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":["@bob:one.example"]`))
		}},
		{"additional creators that are no list", "1.4", matrix.RoomVersion.CreatorsPrivileged, func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":"@bob:one.example"`))
		}},
		{"additional creators that are null", "1.4", matrix.RoomVersion.CreatorsPrivileged, func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":null`))
		}},
		{"additional creators with a number", "1.4", matrix.RoomVersion.CreatorsPrivileged, func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":["@bob:one.example",1]`))
		}},
		{"additional creators with a name", "1.4", matrix.RoomVersion.CreatorsPrivileged, func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":["bob"]`))
		}},
		{"additional creators mean nothing", "", not(matrix.RoomVersion.CreatorsPrivileged), func(v matrix.RoomVersion) event {
			return creation(v, plain(v, `,"additional_creators":7`))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range matrix.RoomVersions() {
				if c.where != nil && !c.where(v) {
					continue
				}
				s := &sketch{t: t, v: v}
				if got := ruleOf(t, Check(s.event(c.e(v)), Map{})); got != c.want {
					t.Errorf("version %s: rule %q, want %q", v, got, c.want)
				}
			}
		})
	}
}

// TestRoom are the rules on the room as a whole: its creation and m.federate.
func TestRoom(t *testing.T) {
	proof.Of(t, "AU-02", "AU-05", "F07")
	message := event{typ: "m.room.message", sender: daveID, content: "{}"}
	for _, c := range []trial{
		{name: "message", e: message},
		{name: "federated", more: `,"m.federate":true`, e: message},
		{name: "not federated, other server", more: `,"m.federate":false`, e: message, want: "F"},
		{name: "not federated, own server", more: `,"m.federate":false`, e: event{typ: "m.room.message", sender: bobID, content: "{}"}},
		{name: "federate that is no truth value", more: `,"m.federate":"false"`, e: message},
		{
			name: "creation unknown", e: message, want: "A.4", where: not(matrix.RoomVersion.RoomIDIsCreateHash),
			room: func(s *sketch) { delete(s.state, StateKey{"m.room.create", ""}) },
		},
		{
			name: "creation unknown", e: message, want: "2", where: matrix.RoomVersion.RoomIDIsCreateHash,
			room: func(s *sketch) { delete(s.state, StateKey{"m.room.create", ""}) },
		},
		{name: "creation of another room", e: event{typ: "m.room.message", sender: daveID, content: "{}", room: "!other:one.example"}, want: "A.5"},
	} {
		c.run(t)
	}
}

func TestAliases(t *testing.T) {
	proof.Of(t, "AU-06", "F07")
	old := matrix.RoomVersion.AliasesAuthRule
	for _, c := range []trial{
		{name: "own server", where: old, e: event{typ: "m.room.aliases", sender: eveID, key: at("evil.example"), content: "{}"}},
		{name: "no state key", where: old, e: event{typ: "m.room.aliases", sender: eveID, content: "{}"}, want: "4.1"},
		{name: "other server", where: old, e: event{typ: "m.room.aliases", sender: eveID, key: at("one.example"), content: "{}"}, want: "4.2"},
		{name: "like any other event", where: not(old), e: event{typ: "m.room.aliases", sender: eveID, key: at("evil.example"), content: "{}"}, want: "S"},
	} {
		c.run(t)
	}
}

// TestOther are the rules after membership.
func TestOther(t *testing.T) {
	proof.Of(t, "AU-15", "AU-18", "F07")
	all := func(sender, typ string, key *string) event {
		return event{typ: typ, sender: sender, key: key, content: "{}"}
	}
	quiet := func(s *sketch) {
		s.levels(`{"users":{"@bob:one.example":100},"events_default":10,"events":{"m.room.message":20}}`)
	}
	for _, c := range []trial{
		{name: "sender never joined", e: all(eveID, "m.room.message", nil), want: "S"},
		{name: "sender invited", room: func(s *sketch) { s.member(eveID, "invite") }, e: all(eveID, "m.room.message", nil), want: "S"},
		{name: "sender left", room: func(s *sketch) { s.member(daveID, "leave") }, e: all(daveID, "m.room.message", nil), want: "S"},
		{name: "sender banned", room: func(s *sketch) { s.member(daveID, "ban") }, e: all(daveID, "m.room.message", nil), want: "S"},
		{name: "third-party invite with the power to invite", e: all(carolID, "m.room.third_party_invite", at("token"))},
		{name: "third-party invite without", e: all(daveID, "m.room.third_party_invite", at("token")), want: "T.1"},
		{name: "level of the type", room: quiet, e: all(daveID, "m.room.message", nil), want: "P"},
		{name: "level of the type reached", room: quiet, e: all(bobID, "m.room.message", nil)},
		{name: "events_default", room: quiet, e: all(daveID, "org.example", nil), want: "P"},
		{name: "state_default", e: all(daveID, "m.room.name", at("")), want: "P"},
		{name: "state_default reached", e: all(carolID, "m.room.name", at(""))},
		{name: "no levels: state for the creator", bare: true, room: func(s *sketch) { s.member(aliceID, "join") }, e: all(aliceID, "m.room.name", at(""))},
		{
			name: "no levels: state for others", bare: true, e: all(bobID, "m.room.name", at("")), want: "P",
			room: func(s *sketch) { s.member(bobID, "join") },
		},
		{
			name: "no levels: messages for all", bare: true, e: all(bobID, "m.room.message", nil),
			room: func(s *sketch) { s.member(bobID, "join") },
		},
		{name: "state of somebody else", e: all(bobID, "org.example", at(daveID)), want: "K"},
		{name: "state that begins with @", e: all(bobID, "org.example", at("@")), want: "K"},
		{name: "own state", room: func(s *sketch) { s.levels(`{"state_default":0}`) }, e: all(daveID, "org.example", at(daveID))},
		{
			name: "creators stand above every level", where: matrix.RoomVersion.CreatorsPrivileged, e: all(aliceID, "org.example", at("")),
			room: func(s *sketch) { s.levels(`{"state_default":9007199254740991}`) },
		},
		{
			name: "so do additional creators", where: matrix.RoomVersion.CreatorsPrivileged, more: `,"additional_creators":["@dave:two.example"]`,
			e: all(daveID, "org.example", at("")), room: func(s *sketch) { s.levels(`{"state_default":9007199254740991}`) },
		},
		{
			name: "additional creators are nobody", where: not(matrix.RoomVersion.CreatorsPrivileged), more: `,"additional_creators":["@dave:two.example"]`,
			e: all(daveID, "org.example", at("")), want: "P",
		},
		{
			name: "the creator is who the content names", where: not(matrix.RoomVersion.CreatorInSender), bare: true,
			room: func(s *sketch) {
				s.put(s.event(event{typ: "m.room.create", sender: aliceID, key: at(""), prev: []string{},
					content: fmt.Sprintf(`{"room_version":%q,"creator":%q}`, s.v.String(), bobID)}))
				s.member(bobID, "join")
			},
			e: all(bobID, "m.room.name", at("")),
		},
	} {
		c.run(t)
	}
}

func TestRedactionRule(t *testing.T) {
	proof.Of(t, "RD-06", "F07")
	redaction := func(sender, id, target string) event {
		return event{typ: "m.room.redaction", sender: sender, content: "{}", id: id, redacts: target}
	}
	old := matrix.RoomVersion.RedactionAuthRule
	for _, c := range []trial{
		{name: "with the power", where: old, e: redaction(carolID, "$a:two.example", "$b:one.example")},
		{name: "of an event of the same server", where: old, e: redaction(daveID, "$a:two.example", "$b:two.example")},
		{name: "of another server's", where: old, e: redaction(daveID, "$a:two.example", "$b:one.example"), want: "11.3"},
		{name: "of nothing", where: old, e: redaction(daveID, "$a:two.example", ""), want: "11.3"},
		{name: "later versions let it be", where: not(old), e: redaction(daveID, "", "$b:one.example")},
		{
			name: "but for the level of its type", e: redaction(daveID, "$a:two.example", "$b:two.example"), want: "P",
			room: func(s *sketch) { s.levels(`{"events":{"m.room.redaction":50}}`) },
		},
	} {
		c.run(t)
	}
}

// TestAuthEvents are the rules on an event's auth_events.
func TestAuthEvents(t *testing.T) {
	proof.Of(t, "AU-03", "AU-04", "F07", "F08")
	for _, col := range columns {
		for _, v := range col.versions {
			s := newSketch(t, v, "")
			s.populate()
			s.joinRule("public")
			message := s.event(event{typ: "m.room.message", sender: daveID, content: "{}"})
			need := []*matrix.Event{s.state.Get("m.room.power_levels", ""), s.state.Get("m.room.member", daveID)}
			withCreate := append([]*matrix.Event{s.create}, need...)
			full := withCreate
			if v.RoomIDIsCreateHash() {
				full = need
			}
			never := func(matrix.EventID) bool { return false }
			try := func(name, want string, e *matrix.Event, auth []*matrix.Event, rejected func(matrix.EventID) bool) {
				t.Helper()
				if want != "" {
					want = col.rule(want)
				}
				if got := ruleOf(t, CheckAuthEvents(e, auth, rejected)); got != want {
					t.Errorf("version %s: %s: rule %q, want %q", v, name, got, want)
				}
			}
			plus := func(more ...*matrix.Event) []*matrix.Event {
				return append(append([]*matrix.Event{}, full...), more...)
			}
			try("complete", "", message, full, never)
			try("less than complete", "", message, full[:len(full)-1], never)
			other := s.event(event{typ: "m.room.member", sender: daveID, key: at(daveID), content: `{"membership":"join"}`})
			try("twice the same place", "A.1", message, plus(other), never)
			try("twice the same event", "A.1", message, plus(need[0]), never)
			try("not selected", "A.2", message, plus(s.state.Get("m.room.join_rules", "")), never)
			try("somebody else's membership", "A.2", message, plus(s.state.Get("m.room.member", bobID)), never)
			try("a message", "A.2", message, plus(s.event(event{typ: "m.room.member", sender: daveID, content: `{"membership":"join"}`})), never)
			try("rejected", "A.3", message, full, func(id matrix.EventID) bool { return id == need[1].ID() })
			foreign := s.event(event{typ: "m.room.power_levels", sender: aliceID, key: at(""), content: "{}", room: "!other:one.example"})
			try("of another room", "A.5", message, append([]*matrix.Event{foreign}, full[:len(full)-2]...), never)
			if v.RoomIDIsCreateHash() {
				try("creation named", "A.2", message, withCreate, never)
			} else {
				try("no creation", "A.4", message, need, never)
				try("none at all", "A.4", message, nil, never)
			}
			try("a creation needs none", "", s.create, nil, never)
		}
	}
}

// TestNeeded is the selection of auth events.
func TestNeeded(t *testing.T) {
	proof.Of(t, "AU-20")
	for _, v := range matrix.RoomVersions() {
		names := func(typ string, key *string, content string) string {
			text := ""
			for _, k := range NeededFor(v, typ, key, bobID, []byte(content)) {
				text += " " + k.Type[len("m.room."):] + "/" + k.Key
			}
			return text
		}
		first := " create/"
		if v.RoomIDIsCreateHash() {
			first = ""
		}
		base := first + " power_levels/ member/@bob:one.example"
		via := ""
		if v.RestrictedJoins() {
			via = " member/@carol:two.example"
		}
		for _, c := range []struct{ typ, key, content, want string }{
			{"m.room.create", "", "{}", ""},
			{"m.room.message", "-", "{}", base},
			{"m.room.topic", "", "{}", base},
			{"m.room.member", "-", `{"membership":"join"}`, base},
			{"m.room.member", bobID, `{"membership":"join"}`, base + " join_rules/"},
			{"m.room.member", daveID, `{"membership":"invite"}`, base + " member/@dave:two.example join_rules/"},
			{"m.room.member", bobID, `{"membership":"knock"}`, base + " join_rules/"},
			{"m.room.member", daveID, `{"membership":"leave"}`, base + " member/@dave:two.example"},
			{"m.room.member", daveID, `{"membership":"ban"}`, base + " member/@dave:two.example"},
			{"m.room.member", daveID, `{"membership":"invite","third_party_invite":{"signed":{"token":"tok"}}}`,
				base + " member/@dave:two.example join_rules/ third_party_invite/tok"},
			{"m.room.member", bobID, `{"membership":"join","third_party_invite":{"signed":{"token":"tok"}}}`, base + " join_rules/"},
			{"m.room.member", bobID, `{"membership":"join","join_authorised_via_users_server":"@carol:two.example"}`, base + " join_rules/" + via},
			{"m.room.member", bobID, `{"membership":"leave","join_authorised_via_users_server":"@carol:two.example"}`, base},
		} {
			key := &c.key
			if c.key == "-" {
				key = nil
			}
			if got := names(c.typ, key, c.content); got != c.want {
				t.Errorf("version %s: %s %s %s needs%s, want%s", v, c.typ, c.key, c.content, got, c.want)
			}
		}
	}
}
