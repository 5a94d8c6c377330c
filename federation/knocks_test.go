package federation_test

import (
	"net/url"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// door makes a room of alice's with a join rule.
func (w *two) door(rule testserver.JSON, more testserver.JSON) string {
	w.t.Helper()
	options := testserver.JSON{"preset": "private_chat", "name": "A door", "initial_state": []testserver.JSON{
		{"type": "m.room.join_rules", "state_key": "", "content": rule},
	}}
	for name, value := range more {
		options[name] = value
	}
	return w.alice.CreateRoom(options)
}

// stands waits until a user sees what another is in a room.
func (w *two) stands(who *testserver.User, room, user, want string) testserver.JSON {
	w.t.Helper()
	var content testserver.JSON
	wait.Until(w.t, user+" to be "+want, func() bool {
		a, err := who.Do("GET", testserver.Path("rooms", room, "state", "m.room.member", user), nil)
		if err == nil {
			content = a.Body
		}
		return err == nil && a.Body["membership"] == want
	})
	return content
}

func section(name, room string) func(testserver.JSON) bool {
	return func(body testserver.JSON) bool { return testserver.At(body, "rooms", name, room) != nil }
}

func TestKnocking(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(t, "RM-08", "MB-06", "MB-07", "MB-10")
		via := "?via=" + url.QueryEscape("localhost:1") + "&via=" + url.QueryEscape(string(w.a.Name)) // the first cannot be reached
		knock := func(room string) {
			t.Helper()
			a := w.bob.Must("POST", testserver.Path("knock", room)+via, testserver.JSON{"reason": "let me in"})
			if a.Body["room_id"] != room {
				t.Errorf("the knock is answered %s", a.Raw)
			}
		}
		end := func(room, verb string) {
			t.Helper()
			w.alice.Must("POST", testserver.Path("rooms", room, verb), testserver.JSON{"user_id": w.bob.ID})
		}
		rule := testserver.JSON{"join_rule": "knock"}

		accepted := w.door(rule, nil)
		knock(accepted)
		if c := w.stands(w.alice, accepted, w.bob.ID, "knock"); c["reason"] != "let me in" {
			t.Errorf("alice sees the knock %v", c)
		}
		var shown []testserver.JSON
		since := w.bob.SyncUntil("", "his knock", func(body testserver.JSON) bool {
			shown = testserver.Events(testserver.At(body, "rooms", "knock", accepted, "knock_state", "events"))
			return shown != nil
		})
		types := map[any]bool{}
		for _, e := range shown {
			types[e["type"]] = true
			for name := range e {
				if !strings.Contains(" type state_key sender content ", " "+name+" ") {
					t.Errorf("bob is shown %v, which is not stripped", e)
				}
			}
		}
		if !types["m.room.create"] || !types["m.room.name"] || !types["m.room.member"] {
			t.Errorf("bob is shown %v", shown)
		}
		knock(accepted) // again, which does no harm
		w.alice.Invite(accepted, w.bob.ID)
		w.bob.SyncUntil(since, "the invitation", section("invite", accepted))
		w.bob.Join(accepted)
		w.eventuallyMembers(w.alice, accepted, w.alice.ID, w.bob.ID)

		for _, verb := range []string{"kick", "ban"} {
			denied := w.door(rule, nil)
			knock(denied)
			w.stands(w.alice, denied, w.bob.ID, "knock")
			since = w.bob.SyncUntil("", "his knock", section("knock", denied))
			end(denied, verb)
			w.bob.SyncUntil(since, "the refusal by "+verb, section("leave", denied))
		}

		// Taken back. The room's ID names no server, so only who took the knock can be asked.
		retracted := w.door(rule, nil)
		knock(retracted)
		w.stands(w.alice, retracted, w.bob.ID, "knock")
		since = w.bob.SyncUntil("", "his knock", section("knock", retracted))
		w.bob.Must("POST", testserver.Path("rooms", retracted, "leave"), testserver.JSON{})
		w.stands(w.alice, retracted, w.bob.ID, "leave")
		w.bob.SyncUntil(since, "its end", section("leave", retracted))

		w.bob.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("knock", w.door(testserver.JSON{"join_rule": "invite"}, nil))+via, testserver.JSON{})
		w.bob.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("knock", w.door(rule, testserver.JSON{"room_version": "6"}))+via, testserver.JSON{})
		w.bob.Refused(404, "M_NOT_FOUND", "POST", testserver.Path("knock", "!none:"+string(w.a.Name)), testserver.JSON{})
		w.bob.Refused(400, "M_INVALID_PARAM", "POST", testserver.Path("knock", accepted), testserver.JSON{"reason": strings.Repeat("x", 5000)})
	})
}

func TestKnockingOnARoomOfOnesOwnServer(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "RM-08")
		w := &two{t: t, a: testserver.Start(t, testserver.Options{Engine: engine})}
		w.alice, w.bob = w.a.Register("alice"), w.a.Register("bob")
		room := w.door(testserver.JSON{"join_rule": "knock"}, testserver.JSON{"room_alias_name": "door"})
		w.bob.Must("POST", testserver.Path("knock", "#door:"+string(w.a.Name)), testserver.JSON{"reason": "please"})
		since := w.bob.SyncUntil("", "his knock", section("knock", room))
		w.alice.Must("POST", testserver.Path("rooms", room, "kick"), testserver.JSON{"user_id": w.bob.ID})
		since = w.bob.SyncUntil(since, "the refusal", section("leave", room))
		w.bob.Must("POST", testserver.Path("knock", room), testserver.JSON{})
		w.bob.Must("POST", testserver.Path("rooms", room, "leave"), testserver.JSON{})
		w.stands(w.alice, room, w.bob.ID, "leave")
		w.bob.Must("POST", testserver.Path("knock", room), testserver.JSON{})
		w.alice.Invite(room, w.bob.ID)
		w.bob.SyncUntil(since, "the invitation", section("invite", room))
		w.bob.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("knock", room), testserver.JSON{})
		w.bob.Join(room)
		w.bob.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("knock", room), testserver.JSON{})
	})
}

// TestKnocksAreEndedOnlyByTheRoom shows that a server that is not told of a knock cannot end it, and that what it shows
// of the room is checked.
func TestKnocksAreEndedOnlyByTheRoom(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "MB-06", "MB-07")
		s := testserver.Start(t, testserver.Options{Engine: engine})
		p, q := peer.New(t, s.CA, peer.Options{}), peer.New(t, s.CA, peer.Options{})
		us := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
		room, foreign := p.NewRoom(12, "host"), p.NewRoom(12, "other")
		room.Make(peer.Spec{Type: "m.room.join_rules", StateKey: peer.Key(""), Content: object{"join_rule": "knock"}})
		name := func(text string, in *peer.Room, knobs ...peer.Knob) []byte {
			return in.Make(peer.Spec{Type: "m.room.name", StateKey: peer.Key(""), Content: object{"name": text}, Apart: true}, knobs...).JSON
		}
		knocks := room.HostKnocks([][]byte{
			room.Create.JSON, name("good", room), name("forged", room, p.BadSignature()), name("foreign", foreign), []byte(`{"type":"x"}`), []byte(`7`),
			name("changed", room, peer.SetLate("content", object{"name": "changed later"})),
		})
		alice := s.Register("alice")
		alice.Must("POST", testserver.Path("knock", string(room.ID))+"?via="+url.QueryEscape(string(p.Name)), testserver.JSON{})
		var shown []testserver.JSON
		since := alice.SyncUntil("", "her knock", func(body testserver.JSON) bool {
			shown = testserver.Events(testserver.At(body, "rooms", "knock", string(room.ID), "knock_state", "events"))
			return shown != nil
		})
		if len(shown) != 3 || testserver.At(shown[1], "content", "name") != "good" {
			t.Errorf("alice is shown %v", shown)
		}
		knock := knocks()[0]
		end := func(by *peer.Peer, auth ...string) []byte {
			list := []any{}
			for _, id := range auth {
				list = append(list, id)
			}
			e := by.Seal(12, map[string]any{
				"type": "m.room.member", "room_id": string(room.ID), "sender": string(by.User("host")), "state_key": alice.ID, "content": object{"membership": "leave"},
				"prev_events": []any{string(knock.ID)}, "auth_events": list, "depth": 9, "origin_server_ts": 1,
			})
			return e.JSON
		}
		q.Send(t, us, "stranger", [][]byte{end(q)}, nil)
		q.Send(t, us, "relayed", [][]byte{end(p, string(knock.ID))}, nil)
		p.Send(t, us, "does not name it", [][]byte{end(p)}, nil)
		if body := alice.Sync(since, 0); testserver.At(body, "rooms", "leave") != nil {
			t.Errorf("the knock was ended: %v", body)
		}
		p.Send(t, us, "denied", [][]byte{end(p, string(knock.ID))}, nil)
		alice.SyncUntil(since, "the refusal", section("leave", string(room.ID)))
	})
}
