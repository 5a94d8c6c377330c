package rooms

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// The recorded rooms under testdata/recorded are lives of rooms as servers signed them once: what this code makes of them must
// never change, since other servers hold the same events. They are made anew, after a change of the life below only, by
//
//	go test ./rooms -run TestRecordRooms -record
//
// Most events are by the servers of world, and some by a node of ours that joined through them.
var record = flag.Bool("record", false, "make the recorded rooms under testdata/recorded anew")

// recordedVersions are one version of each generation of rules.
var recordedVersions = []matrix.RoomVersion{1, 6, 9, 10, 11, 12}

// recording is a recorded room as its file has it. The events follow in the order in which they were made, one a line.
type recording struct {
	Version string                                        `json:"version"`
	Room    matrix.RoomID                                 `json:"room_id"`
	Keys    map[matrix.ServerName]map[matrix.KeyID]string `json:"keys"`
	Ends    []matrix.EventID                              `json:"ends"`
	Refused map[matrix.EventID]string                     `json:"refused"` // events that the rules forbid where they stand
	Late    []matrix.EventID                              `json:"late"`    // allowed where they stand, but not by the present at the time
	State   []matrix.EventID                              `json:"state"`   // at the ends, in order
	Members map[string]int                                `json:"members"` // how many stand how at the ends
	States  map[matrix.EventID]map[string]matrix.EventID  `json:"states"`  // resolved before events with several parents: what differs from the first parent's
	Events  []json.RawMessage                             `json:"-"`
}

func recordingPath(v matrix.RoomVersion) string {
	return filepath.Join("testdata", "recorded", "v"+v.String()+".jsonl")
}

// readRecording reads a file: a line about the room, then its events.
func readRecording(t *testing.T, v matrix.RoomVersion) *recording {
	t.Helper()
	text, err := os.ReadFile(recordingPath(v))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	rec := &recording{}
	for n := 0; lines.Scan(); n++ {
		if n > 0 {
			rec.Events = append(rec.Events, bytes.Clone(lines.Bytes()))
		} else if err := json.Unmarshal(lines.Bytes(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if lines.Err() != nil || len(rec.Events) == 0 {
		t.Fatalf("%s: %d events, %v", recordingPath(v), len(rec.Events), lines.Err())
	}
	return rec
}

func (rec *recording) write(t *testing.T, v matrix.RoomVersion) {
	t.Helper()
	head, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	text := append(head, '\n')
	for _, ev := range rec.Events {
		text = append(append(text, ev...), '\n')
	}
	if err := os.MkdirAll(filepath.Dir(recordingPath(v)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordingPath(v), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// life is a room's life under way.
type life struct {
	*world
	t       *testing.T
	order   []*matrix.Event
	seen    int // of order, those before our node joined
	refused map[matrix.EventID]string
	late    []matrix.EventID
}

// TestRecordRooms lets each room's life run. Only with -record is it written; without, it shows that the script still
// runs, and that a node of ours agrees with the servers of the room about each of its steps.
func TestRecordRooms(t *testing.T) {
	for _, v := range recordedVersions {
		t.Run("version "+v.String(), func(t *testing.T) {
			rec := live(t, dbtest.Open(t, "sqlite"), v)
			if *record {
				rec.write(t, v)
			}
		})
	}
}

const (
	dan  matrix.UserID = "@dan:near.test"
	zoe  matrix.UserID = "@zoe:other.test"
	yves matrix.UserID = "@yves:other.test"

	// The one that a server which replays the room stands for: it joins as the next after the room's beginning.
	watch   matrix.ServerName = "watch.test"
	watcher matrix.UserID     = "@watcher:watch.test"
	known                     = 7 // the events of the beginning
)

// live lets a room live and records it.
func live(t *testing.T, db *store.DB, v matrix.RoomVersion) *recording {
	l := &life{t: t, world: newWorldNamed(t, v, matrix.RoomID("!recorded"+v.String()+":near.test")), refused: map[matrix.EventID]string{}}
	l.made = func(ev *matrix.Event) { l.order = append(l.order, ev) }
	for _, ev := range l.all {
		l.order = append(l.order, ev)
	}
	slices.SortFunc(l.order, func(a, b *matrix.Event) int { return int(a.Depth() - b.Depth()) })
	l.keys[watch] = newKey(watch)
	l.member(watcher, watcher, "join")
	l.powers()
	l.comings()
	l.doors()
	l.redactions()
	n := l.ours(db)
	l.forks()
	l.evasion(n)
	last := l.say(alice, "the end")
	n.bring(last)
	n.sameState(n.ref(), l.tip)
	return l.recording()
}

func (l *life) redact(by matrix.UserID, target matrix.EventID) *matrix.Event {
	e := event{sender: by, typ: "m.room.redaction", content: map[string]any{}, prev: []matrix.EventID{l.tip}, redacts: target}
	if l.version.RedactsInContent() {
		e.content, e.redacts = map[string]any{"redacts": target}, ""
	}
	return l.on(e)
}

// refuse makes an event that the rules do not allow behind the newest one. The room goes on without it.
func (l *life) refuse(why string, e event) {
	l.t.Helper()
	e.prev = []matrix.EventID{l.tip}
	ev := l.build(e)
	l.order = append(l.order, ev)
	l.refused[ev.ID()] = why
}

// powers: levels of power, and who has too few.
func (l *life) powers() {
	users := map[string]any{string(bob): 50, string(eve): 10}
	if !l.version.CreatorsPrivileged() {
		users[string(alice)] = 100
	}
	levels := func(more map[string]any) map[string]any {
		content := map[string]any{"users": users, "events": map[string]any{"m.room.topic": 10, "m.room.name": 50}, "notifications": map[string]any{"room": 50}, "invite": 10}
		for name, value := range more {
			content[name] = value
		}
		return content
	}
	l.send(alice, "m.room.power_levels", key(""), levels(nil))
	l.send(bob, "m.room.name", key(""), map[string]any{"name": "Recorded"})
	l.send(eve, "m.room.topic", key(""), map[string]any{"topic": "a life"})
	l.refuse("too little power for the name", event{sender: eve, typ: "m.room.name", key: key(""), content: map[string]any{"name": "Eve's"}})
	l.refuse("more power than one's own", event{sender: bob, typ: "m.room.power_levels", key: key(""), content: levels(map[string]any{"ban": 90})})
	l.refuse("not in the room", event{sender: zoe, typ: "m.room.message", content: map[string]any{"body": "hello?"}})
	if l.version.AliasesAuthRule() {
		l.send(bob, "m.room.aliases", key("near.test"), map[string]any{"aliases": []string{"#recorded:near.test"}})
		l.refuse("another server's aliases", event{sender: bob, typ: "m.room.aliases", key: key("other.test"), content: map[string]any{"aliases": []string{}}})
	}
	if l.version.NotificationLevelsChecked() {
		l.refuse("a notification level above one's own", event{sender: bob, typ: "m.room.power_levels", key: key(""),
			content: levels(map[string]any{"notifications": map[string]any{"room": 60}})})
	}
}

// comings: invitations, kicks, bans, and leaving.
func (l *life) comings() {
	l.member(bob, dan, "invite")
	l.member(dan, dan, "join")
	l.say(dan, "here I am")
	l.refuse("kicked by somebody below", event{sender: eve, typ: "m.room.member", key: key(string(bob)), content: map[string]any{"membership": "leave"}})
	l.member(bob, dan, "leave")
	l.member(dan, dan, "join")
	l.member(bob, dan, "ban")
	l.refuse("banned", event{sender: dan, typ: "m.room.member", key: key(string(dan)), content: map[string]any{"membership": "join"}})
	l.refuse("too little power to lift the ban", event{sender: eve, typ: "m.room.member", key: key(string(dan)), content: map[string]any{"membership": "leave"}})
	l.member(bob, dan, "leave")
	l.member(zoe, zoe, "join")
	l.member(zoe, zoe, "leave")
	l.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "invite"})
	l.refuse("not invited", event{sender: zoe, typ: "m.room.member", key: key(string(zoe)), content: map[string]any{"membership": "join"}})
	l.member(eve, zoe, "invite")
	l.member(zoe, zoe, "leave") // declined
	l.invitedByAddress()
}

// invitedByAddress: an invitation to an address, redeemed with an identity server's signature.
func (l *life) invitedByAddress() {
	identity := newKey("id.test")
	l.send(bob, "m.room.third_party_invite", key("token"), map[string]any{
		"display_name": "y…", "key_validity_url": "https://id.test/valid", "public_key": matrix.EncodeBase64(identity.Public().(ed25519.PublicKey)),
	})
	redeem := func(mxid matrix.UserID) event {
		signed, err := matrix.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"token":"token"}`, mxid), "id.test", "ed25519:0", identity)
		if err != nil {
			l.t.Fatal(err)
		}
		return event{sender: bob, typ: "m.room.member", key: key(string(yves)), content: map[string]any{
			"membership": "invite", "third_party_invite": map[string]any{"display_name": "y…", "signed": json.RawMessage(signed)},
		}}
	}
	l.refuse("the token is somebody else's", redeem(zoe))
	good := redeem(yves)
	good.prev = []matrix.EventID{l.tip}
	l.on(good)
	l.member(yves, yves, "join")
}

// doors: knocking and restricted joins, in versions that have them.
func (l *life) doors() {
	knock := event{sender: zoe, typ: "m.room.member", key: key(string(zoe)), content: map[string]any{"membership": "knock"}}
	if !l.version.Knocking() {
		l.refuse("nobody knocks in this version", knock)
		return
	}
	l.refuse("knocking where the rule is another", knock)
	l.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "knock"})
	l.member(zoe, zoe, "knock")
	l.member(bob, zoe, "leave") // denied
	l.member(zoe, zoe, "knock")
	l.member(bob, zoe, "invite")
	l.member(zoe, zoe, "join")
	if !l.version.RestrictedJoins() {
		return
	}
	rule := "restricted"
	if l.version.KnockRestricted() {
		rule = "knock_restricted"
	}
	l.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": rule, "allow": []any{map[string]any{"type": "m.room_membership", "room_id": "!club:near.test"}}})
	if l.version.KnockRestricted() {
		l.member(dan, dan, "knock")
	}
	via := func(user, by matrix.UserID) event {
		return event{sender: user, typ: "m.room.member", key: key(string(user)), content: map[string]any{"membership": "join", "join_authorised_via_users_server": by}}
	}
	l.refuse("nobody lets in", event{sender: dan, typ: "m.room.member", key: key(string(dan)), content: map[string]any{"membership": "join"}})
	l.refuse("let in by somebody without the power", via(dan, "@nobody:near.test"))
	in := via("@club:other.test", bob)
	in.prev = []matrix.EventID{l.tip}
	ev, err := l.build(in).WithSignature(near, keyID, l.keys[near])
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(ev)
}

// redactions: by the sender, by somebody with the power, and of state.
func (l *life) redactions() {
	l.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "public"})
	own, other := l.say(eve, "a slip"), l.say(eve, "an insult")
	l.redact(eve, own.ID())
	l.redact(bob, other.ID())
	l.redact(alice, l.send(bob, "m.room.topic", key(""), map[string]any{"topic": "to be gone"}).ID())
	shown := l.member(eve, eve, "join")
	l.redact(eve, shown.ID())
	// What was redacted is held, and handed on, without its content by those who keep to it.
	for i, ev := range l.order {
		if ev == other {
			redacted, err := ev.Redacted()
			if err != nil {
				l.t.Fatal(err)
			}
			l.order[i], l.all[ev.ID()] = redacted, redacted
		}
	}
}

// ours: a node of ours joins, talks, changes state, leaves and comes back.
func (l *life) ours(db *store.DB) *node {
	n := newNode(l.t, db, l.world)
	ref := n.join()
	n.say(ref, "hello from here")
	l.send(bob, "m.room.avatar", key(""), map[string]any{"url": "mxc://near.test/a"})
	n.bring(l.all[l.tip])
	own := MemberRequest{Room: ref, Sender: n.sender(me)}
	if err := n.Leave(l.t.Context(), own); err != nil {
		l.t.Fatal(err)
	}
	l.add(n.row(ref, n.ends(ref)[0]).Event)
	l.say(bob, "they left")
	ref = n.join()
	n.say(ref, "and came back")
	l.seen = len(l.order)
	return n
}

// forks: servers that do not hear of each other change levels, ban, and set the same state, and find together again.
func (l *life) forks() {
	root := []matrix.EventID{l.tip}
	users := map[string]any{string(eve): 0, string(yves): 10}
	if !l.version.CreatorsPrivileged() {
		users[string(alice)] = 100
	}
	// Alice takes bob's power while bob bans yves, and eve, whose power goes as well, changes the topic.
	demoted := l.on(event{sender: alice, typ: "m.room.power_levels", key: key(""), prev: root, content: map[string]any{
		"users": users, "events": map[string]any{"m.room.topic": 10, "m.room.name": 50}, "notifications": map[string]any{"room": 50}, "invite": 10,
	}})
	ban := l.on(event{sender: bob, typ: "m.room.member", key: key(string(yves)), prev: root, content: map[string]any{"membership": "ban"}})
	ban = l.on(event{sender: bob, typ: "m.room.topic", key: key(""), prev: []matrix.EventID{ban.ID()}, content: map[string]any{"topic": "bob's"}})
	topic := l.on(event{sender: eve, typ: "m.room.topic", key: key(""), prev: root, content: map[string]any{"topic": "eve's"}})
	l.sayAfter(alice, "three ways", demoted.ID(), ban.ID(), topic.ID())
	// Two branches that agree about power, and set the same and different places.
	root = []matrix.EventID{l.tip}
	left := l.on(event{sender: alice, typ: "m.room.name", key: key(""), prev: root, content: map[string]any{"name": "left"}})
	left = l.on(event{sender: alice, typ: "org.example.left", key: key(""), prev: []matrix.EventID{left.ID()}, content: map[string]any{}})
	right := l.on(event{sender: alice, typ: "m.room.name", key: key(""), prev: root, content: map[string]any{"name": "right"}})
	right = l.on(event{sender: "@new:other.test", typ: "m.room.member", key: key("@new:other.test"), prev: []matrix.EventID{right.ID()}, content: map[string]any{"membership": "join"}})
	l.sayAfter(alice, "two ways", left.ID(), right.ID())
}

// evasion: somebody who was banned speaks as of a time before.
func (l *life) evasion(n *node) {
	past := l.tip
	l.member(alice, eve, "ban")
	for _, ev := range l.order[l.seen:] {
		n.bring(ev)
	}
	late := l.build(event{sender: eve, typ: "m.room.message", content: map[string]any{"body": "still here"}, prev: []matrix.EventID{past}})
	l.order = append(l.order, late)
	l.late = append(l.late, late.ID())
	n.deliver(other, late.JSON())
	n.settled()
}

func (l *life) recording() *recording {
	rec := &recording{Version: l.version.String(), Room: l.room, Keys: map[matrix.ServerName]map[matrix.KeyID]string{}, Ends: []matrix.EventID{l.tip},
		Refused: l.refused, Late: l.late, Members: map[string]int{}, States: map[matrix.EventID]map[string]matrix.EventID{}}
	for name, private := range l.keys {
		rec.Keys[name] = map[matrix.KeyID]string{keyID: matrix.EncodeBase64(private.Public().(ed25519.PublicKey))}
	}
	for k, id := range l.after[l.tip] {
		rec.State = append(rec.State, id)
		if k.Type == "m.room.member" {
			rec.Members[l.all[id].Membership()]++
		}
	}
	slices.Sort(rec.State)
	for _, ev := range l.order {
		rec.Events = append(rec.Events, ev.JSON())
		if prev := ev.PrevEvents(); len(prev) > 1 {
			rec.States[ev.ID()] = difference(l.after[prev[0]], l.before(prev))
		}
	}
	return rec
}

// difference is what the second state has otherwise than the first, by the name of the place; "" where it has nothing.
func difference(first, second worldState) map[string]matrix.EventID {
	out := map[string]matrix.EventID{}
	name := func(k stateres.StateKey) string { return k.Type + "|" + k.Key }
	for k, id := range second {
		if first[k] != id {
			out[name(k)] = id
		}
	}
	for k := range first {
		if _, there := second[k]; !there {
			out[name(k)] = ""
		}
	}
	return out
}
