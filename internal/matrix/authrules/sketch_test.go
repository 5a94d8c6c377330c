package authrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"conclave/internal/matrix"
)

// A column is a family of versions with the same rules under the same numbers. The letters stand for numbers in the
// text of its specification: a test says "M.J.2" where version 12 says "5.3.2" and version 6 "4.2.2".
type column struct {
	versions []matrix.RoomVersion
	numbers  map[byte]string
}

// columns are written from the texts of the room versions, rule by rule. F: m.federate, A: auth events, M: membership
// and in it Join, Invite, Leave, Ban, Knock, Unknown; R: "otherwise" of a join; S: the sender is joined, T: third-party
// invites, P: the power to send, K: foreign state keys; L: power levels, and in it e: single levels that are no numbers,
// f: maps that are not, u: users; c: creators, n: single levels, r: removed and a: added events, x: removed and y: added users.
var columns = []column{
	{[]matrix.RoomVersion{1, 2}, letters("F3 A2 M5 J2 I3 L4 B5 U6 R6 S6 T7 P8 K9 W10 e1 f1 u1 n3 r4 a5 x6 y7")},
	{[]matrix.RoomVersion{3, 4, 5}, letters("F3 A2 M5 J2 I3 L4 B5 U6 R6 S6 T7 P8 K9 W10 e1 f1 u1 n3 r4 a5 x6 y7")},
	{[]matrix.RoomVersion{6}, letters("F3 A2 M4 J2 I3 L4 B5 U6 R6 S5 T6 P7 K8 W9 e1 f1 u1 n3 r4 a5 x6 y7")},
	{[]matrix.RoomVersion{7}, letters("F3 A2 M4 J2 I3 L4 B5 N6 U7 R6 S5 T6 P7 K8 W9 e1 f1 u1 n3 r4 a5 x6 y7")},
	{[]matrix.RoomVersion{8, 9}, letters("F3 A2 M4 J3 I4 L5 B6 N7 U8 R7 S5 T6 P7 K8 W9 e1 f1 u1 n3 r4 a5 x6 y7")},
	{[]matrix.RoomVersion{10, 11}, letters("F3 A2 M4 J3 I4 L5 B6 N7 U8 R7 S5 T6 P7 K8 W9 e1 f2 u3 n5 r6 a7 x8 y9")},
	{[]matrix.RoomVersion{12}, letters("F4 A3 M5 J3 I4 L5 B6 N7 U8 R7 S6 T7 P8 K9 W10 e1 f2 u3 c4 n6 r7 a8 x9 y10")},
}

func letters(text string) map[byte]string {
	out := map[byte]string{}
	for _, word := range strings.Fields(text) {
		out[word[0]] = word[1:]
	}
	return out
}

// rule spells a rule's number in a column.
func (c column) rule(pattern string) string {
	parts := strings.Split(pattern, ".")
	for i, p := range parts {
		if n, ok := c.numbers[p[0]]; ok && len(p) == 1 {
			parts[i] = n
		}
	}
	return strings.Join(parts, ".")
}

// event is a sketch of one; whole adds what every event has.
type event struct {
	typ, sender string
	key         *string
	content     string
	id          string   // of versions that let servers choose it
	room        string   // "" for the room of the test
	prev        []string // event IDs; nil for one that nobody knows
	redacts     string
	members     string // further members of the JSON object, such as `,"x":1`
}

func at(key string) *string { return &key }

const (
	aliceID = "@alice:one.example" // made the room
	bobID   = "@bob:one.example"   // 100 where a test gives levels
	carolID = "@carol:two.example" // 50
	daveID  = "@dave:two.example"  // nothing
	eveID   = "@eve:evil.example"  // not in the room
)

// sketch is a room in which an event is tried.
type sketch struct {
	t      *testing.T
	v      matrix.RoomVersion
	room   string
	create *matrix.Event
	state  Map
	serial int
}

// newSketch makes a room with a creation, of which more is further content.
func newSketch(t *testing.T, v matrix.RoomVersion, more string) *sketch {
	t.Helper()
	s := &sketch{t: t, v: v, state: Map{}}
	if !v.RoomIDIsCreateHash() {
		s.room = "!room:one.example"
	}
	content := fmt.Sprintf(`{"room_version":%q%s`, v.String(), more)
	if !v.CreatorInSender() {
		content += fmt.Sprintf(`,"creator":%q`, aliceID)
	}
	s.create = s.event(event{typ: "m.room.create", sender: aliceID, key: at(""), content: content + "}", prev: []string{}})
	s.room = string(s.create.RoomID())
	s.put(s.create)
	return s
}

func (s *sketch) put(e *matrix.Event) {
	key, _ := e.StateKey()
	s.state[StateKey{e.Type(), key}] = e
}

// event makes an event of a sketch. It goes through the parser, so that nothing is tried that could not arrive.
func (s *sketch) event(e event) *matrix.Event {
	s.t.Helper()
	s.serial++
	prev := e.prev
	if prev == nil {
		prev = []string{fmt.Sprintf("$unknown%d:one.example", s.serial)}
	}
	list := make([]json.RawMessage, len(prev))
	for i, id := range prev {
		list[i], _ = json.Marshal(id)
		if s.v.EventIDsInEvent() {
			list[i] = fmt.Appendf(nil, `[%q,{}]`, id)
		}
	}
	prevs, _ := json.Marshal(list)
	text := fmt.Sprintf(`{"type":%q,"sender":%q,"content":%s,"prev_events":%s,"auth_events":[],"depth":3,"origin_server_ts":%d,"hashes":{"sha256":"%d"}%s`,
		e.typ, e.sender, e.content, prevs, s.serial, s.serial, e.members)
	if e.key != nil {
		text += fmt.Sprintf(`,"state_key":%q`, *e.key)
	}
	room := e.room
	if room == "" {
		room = s.room
	}
	if room != "" {
		text += fmt.Sprintf(`,"room_id":%q`, room)
	}
	if s.v.EventIDsInEvent() {
		id := e.id
		if id == "" {
			id = fmt.Sprintf("$event%d:one.example", s.serial)
		}
		text += fmt.Sprintf(`,"event_id":%q`, id)
	}
	if e.redacts != "" {
		text += fmt.Sprintf(`,"redacts":%q`, e.redacts)
	}
	ev, err := matrix.ParseEvent([]byte(text+"}"), s.v)
	if err != nil {
		s.t.Fatalf("version %s: %v in %s", s.v, err, text)
	}
	return ev
}

// member puts somebody's membership into the state.
func (s *sketch) member(user, membership string) {
	s.t.Helper()
	s.put(s.event(event{typ: "m.room.member", sender: user, key: &user, content: fmt.Sprintf(`{"membership":%q}`, membership)}))
}

func (s *sketch) joinRule(rule string) {
	s.t.Helper()
	s.put(s.event(event{typ: "m.room.join_rules", sender: aliceID, key: at(""), content: fmt.Sprintf(`{"join_rule":%q}`, rule)}))
}

func (s *sketch) levels(content string) {
	s.t.Helper()
	s.put(s.event(event{typ: "m.room.power_levels", sender: aliceID, key: at(""), content: content}))
}

// usualLevels give bob 100 and carol 50.
const usualLevels = `{"users":{"@bob:one.example":100,"@carol:two.example":50},"invite":50,"events":{"m.room.topic":60},
	"notifications":{"room":60},"ban":50,"kick":50,"redact":50,"state_default":50,"events_default":0,"users_default":0}`

// populate brings alice, bob, carol and dave in, with the usual levels.
func (s *sketch) populate() {
	s.t.Helper()
	for _, user := range []string{aliceID, bobID, carolID, daveID} {
		s.member(user, "join")
	}
	s.levels(usualLevels)
}

// trial is an event and the rule that it breaks.
type trial struct {
	name  string
	where func(matrix.RoomVersion) bool // the versions it is for, nil for all
	room  func(s *sketch)               // on top of populate; nil for nothing
	bare  bool                          // without populate
	more  string                        // further content of the creation
	e     event
	want  string // the pattern of the rule, "" if the event is allowed
}

// run tries the event in each version.
func (c trial) run(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		tried := 0
		for _, col := range columns {
			for _, v := range col.versions {
				if c.where != nil && !c.where(v) {
					continue
				}
				tried++
				s := newSketch(t, v, c.more)
				if !c.bare {
					s.populate()
				}
				if c.room != nil {
					c.room(s)
				}
				want := ""
				if c.want != "" {
					want = col.rule(c.want)
				}
				if got := ruleOf(t, Check(s.event(c.e), s.state)); got != want {
					t.Errorf("version %s: rule %q, want %q", v, got, want)
				}
			}
		}
		if tried == 0 {
			t.Error("the trial is for no version")
		}
	})
}

// ruleOf is the rule of a refusal, "" for none.
func ruleOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var no *Refusal
	if !errors.As(err, &no) {
		t.Fatalf("an error that is no refusal: %v", err)
	}
	if no.Text == "" {
		t.Errorf("rule %s has no text", no.Rule)
	}
	return no.Rule
}

func not(f func(matrix.RoomVersion) bool) func(matrix.RoomVersion) bool {
	return func(v matrix.RoomVersion) bool { return !f(v) }
}

func both(f, g func(matrix.RoomVersion) bool) func(matrix.RoomVersion) bool {
	return func(v matrix.RoomVersion) bool { return f(v) && g(v) }
}
