package federation_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestHostileTemplates is threats F05: whatever a resident server proposes to sign, it gets our signature on nothing but
// the membership event that the user asked for.
func TestHostileTemplates(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "F05", "MB-01", "MB-11")
		s := testserver.Start(t, testserver.Options{Engine: engine})
		p := peer.New(t, s.CA, peer.Options{})
		alice := s.Register("alice")
		room, foreign := p.NewRoom(11, "host"), p.NewRoom(11, "other")
		us := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
		// A leave is asked for once: the user is out of the room whatever is answered. So there is an invitation for each.
		invited := func() *peer.Room {
			r := p.NewRoom(11, "inviter")
			e := r.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(alice.ID), Content: object{"membership": "invite"}})
			body, err := json.Marshal(object{"room_version": "11", "event": json.RawMessage(e.JSON), "invite_room_state": []any{}})
			if err != nil {
				t.Fatal(err)
			}
			if a := p.Do(t, us, "PUT", peer.V2+testserver.Path("invite", string(r.ID), string(e.ID)), body); a.Status != 200 {
				t.Fatalf("the invitation: %d %s", a.Status, a.Body)
			}
			return r
		}
		var spoil func(object)
		in := room
		for _, membership := range []string{"join", "knock", "leave"} {
			p.Handle("GET", peer.V1+"/make_"+membership+"/{roomId}/{userId}", func(*peer.Call) peer.Reply {
				template := in.Template(membership, matrix.UserID(alice.ID))
				spoil(template)
				return peer.Reply{Body: object{"room_version": "11", "event": template}}
			})
			for _, version := range []string{peer.V1, peer.V2} {
				p.Handle("PUT", version+"/send_"+membership+"/{roomId}/{eventId}", func(*peer.Call) peer.Reply {
					return peer.Refuse(400, "M_INVALID_PARAM")
				})
			}
		}
		set := func(name string, value any) func(object) { return func(m object) { m[name] = value } }
		content := func(name string, value any) func(object) {
			return func(m object) { m["content"].(object)[name] = value }
		}
		// ask makes the server ask for a template and returns what alice is answered. If it goes wrong a leave is
		// taken for done.
		ask := func(membership string, change func(object), body object) (a *testserver.Answer, as int) {
			t.Helper()
			spoil, in, as = change, room, 502
			path := testserver.Path(membership, string(in.ID)) + "?via=" + url.QueryEscape(string(p.Name))
			if membership == "leave" {
				in, as = invited(), 200
				path = testserver.Path("rooms", string(in.ID), "leave")
			}
			before := len(p.Calls(peer.V1 + "/make_" + membership))
			a, err := alice.Do("POST", path, body)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Calls(peer.V1+"/make_"+membership)) == before {
				t.Fatalf("no template of a %s was asked for", membership)
			}
			return a, as
		}
		for name, change := range map[string]func(object){
			"power levels":       set("type", "m.room.power_levels"),
			"another sender":     set("sender", "@admin:"+string(s.Name)),
			"another user":       set("state_key", "@admin:"+string(s.Name)),
			"a stranger":         func(m object) { m["sender"], m["state_key"] = "@x:x.test", "@x:x.test" },
			"no state":           func(m object) { delete(m, "state_key") },
			"another room":       set("room_id", string(foreign.ID)),
			"a ban":              content("membership", "ban"),
			"an invitation":      content("membership", "invite"),
			"too many parents":   set("prev_events", many(21)),
			"no references":      set("auth_events", []any{7}),
			"a negative depth":   set("depth", -1),
			"a depth in letters": set("depth", "1"),
		} {
			for _, membership := range []string{"join", "knock", "leave"} {
				if a, want := ask(membership, change, object{}); a.Status != want {
					t.Errorf("%s for a %s: answered %d %s", name, membership, a.Status, a.Raw)
				}
				if got := p.SignedBy(s.Name); len(got) != 0 {
					t.Fatalf("%s for a %s was signed: %v", name, membership, got)
				}
			}
		}
		// Who lets a user into a restricted room signs the join: for a user of ours only this server itself says so.
		if a, want := ask("join", content("join_authorised_via_users_server", "@admin:"+string(s.Name)), object{}); a.Status != want || len(p.SignedBy(s.Name)) != 0 {
			t.Errorf("let in by one of ours: answered %d %s, signed %v", a.Status, a.Raw, p.SignedBy(s.Name))
		}
		// What does not belong into the event is left out, and what the other server says of the event itself is not told
		// to the client as if it had made it.
		for _, membership := range []string{"join", "knock", "leave"} {
			a, want := ask(membership, func(m object) {
				m["content"].(object)["displayname"] = "Mallory"
				m["content"].(object)["m.evil"] = object{"a": 1}
				m["redacts"], m["unsigned"], m["origin_server_ts"] = "$x", object{"a": 1}, 1
				m["hashes"], m["signatures"], m["event_id"] = object{"sha256": "x"}, object{}, "$chosen"
				m["extra"] = true
			}, object{"reason": "mine"})
			if a.Status != want {
				t.Errorf("a %s that is refused for its parameters: %d %s", membership, a.Status, a.Raw)
			}
		}
		signed := 0
		for _, c := range append(p.Calls(peer.V1+"/send_"), p.Calls(peer.V2+"/send_")...) {
			signed++
			var got object
			c.JSON(t, &got)
			names, _ := got["content"].(object)
			for name := range names {
				if !strings.Contains(" membership displayname reason ", " "+name+" ") {
					t.Errorf("signed with %s: %s", name, c.Body)
				}
			}
			if got["type"] != "m.room.member" || got["sender"] != alice.ID || got["state_key"] != alice.ID || names["displayname"] == "Mallory" ||
				got["extra"] != nil || got["redacts"] != nil || got["unsigned"] != nil || got["origin_server_ts"] == 1.0 || !strings.Contains(c.Path, fmt.Sprint("/send_", names["membership"], "/")) {
				t.Errorf("signed: %s to %s", c.Body, c.Path)
			}
		}
		if signed != 3 || len(p.SignedBy(s.Name)) != signed {
			t.Errorf("%d events were sent and %d signed, want the three that were asked for", signed, len(p.SignedBy(s.Name)))
		}
	})
}

func many(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = fmt.Sprint("$e", i)
	}
	return list
}

// TestBlockedInvitations shows that who wants no invitations gets none, from here or from another server.
func TestBlockedInvitations(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(t, "MB-09")
		carol := w.a.Register("carol")
		room := w.alice.CreateRoom(testserver.JSON{"preset": "private_chat"})
		earlier := w.alice.CreateRoom(testserver.JSON{"preset": "private_chat", "invite": []string{w.bob.ID, carol.ID}})
		w.bob.SyncUntil("", "an invitation", section("invite", earlier))
		for _, u := range []*testserver.User{w.bob, carol} {
			config := testserver.Path("user", u.ID, "account_data", "m.invite_permission_config")
			u.Must("PUT", config, testserver.JSON{"default_action": "block"})
			w.alice.Refused(403, "M_INVITE_BLOCKED", "POST", testserver.Path("rooms", room, "invite"), testserver.JSON{"user_id": u.ID})
			w.alice.Refused(403, "M_INVITE_BLOCKED", "PUT", testserver.Path("rooms", room, "state", "m.room.member", u.ID), testserver.JSON{"membership": "invite"})
			made := w.alice.CreateRoom(testserver.JSON{"invite": []string{u.ID}})
			w.alice.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("rooms", made, "state", "m.room.member", u.ID), nil)
			if body := u.Sync("", 0); testserver.At(body, "rooms", "invite") != nil {
				t.Errorf("%s is shown invitations: %v", u.ID, body)
			}
			u.Must("PUT", config, testserver.JSON{"default_action": "ask somebody"}) // means nothing
			w.alice.Invite(room, u.ID)
			u.SyncUntil("", "both invitations", func(body testserver.JSON) bool {
				return section("invite", room)(body) && section("invite", earlier)(body)
			})
		}
	})
}
