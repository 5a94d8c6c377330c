package federation_test

import (
	"encoding/json"
	"net/url"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// by is how a client invites an address.
func by(s *peer.IdentityServer, address string) testserver.JSON {
	return testserver.JSON{"id_server": string(s.Name), "id_access_token": s.Token, "medium": "email", "address": address}
}

func federationOf(s *testserver.Server) peer.Target {
	return peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
}

// offers are the tokens of the invitations to addresses in a room.
func offers(t *testing.T, u *testserver.User, room string) map[string]testserver.JSON {
	t.Helper()
	var state []testserver.JSON
	if err := json.Unmarshal(u.Must("GET", testserver.Path("rooms", room, "state"), nil).Raw, &state); err != nil {
		t.Fatal(err)
	}
	found := map[string]testserver.JSON{}
	for _, e := range state {
		if e["type"] == "m.room.third_party_invite" {
			found[e["state_key"].(string)], _ = e["content"].(testserver.JSON)
		}
	}
	return found
}

// TestInvitationsByAddress has alice invite people of whom she knows only addresses: one that is bound already, one that
// its owner binds on another server, one that its owner binds on hers.
func TestInvitationsByAddress(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(t, "RM-10", "ID-12")
		id := peer.NewIdentityServer(t, w.a.CA)
		invite := func(room, address string) {
			t.Helper()
			w.alice.Must("POST", testserver.Path("rooms", room, "invite"), by(id, address))
		}
		// What is no address, and who may not invite, is told to nobody.
		quiet := w.alice.CreateRoom(testserver.JSON{"power_level_content_override": testserver.JSON{"invite": 50}, "preset": "public_chat"})
		w.bob.Join(quiet, string(w.a.Name))
		toQuiet := testserver.Path("rooms", quiet, "invite")
		both := by(id, "x@example.com")
		both["user_id"] = w.bob.ID
		server, token := by(id, "x@example.com"), by(id, "x@example.com")
		server["id_server"], token["id_access_token"] = "https://"+string(id.Name)+"/x", "two words"
		for _, body := range []testserver.JSON{by(id, "x"), by(id, "x y@example.com"), both, server, token} {
			w.alice.Refused(400, "M_INVALID_PARAM", "POST", toQuiet, body)
		}
		w.alice.Refused(400, "M_MISSING_PARAM", "POST", toQuiet, testserver.JSON{"medium": "email", "address": "x@example.com"})
		w.alice.Refused(400, "M_INVALID_PARAM", "POST", "/createRoom", testserver.JSON{"invite_3pid": []testserver.JSON{by(id, "x")}})
		w.bob.Refused(403, "M_FORBIDDEN", "POST", toQuiet, by(id, "x@example.com"))
		if n := len(id.Calls("/_matrix/identity")); n != 0 {
			t.Errorf("the identity server was asked %d times", n)
		}

		// Bound: the invitation is as any other. The address is written as its owner does not.
		id.Knows("email", "strauss@example.com", w.bob.ID)
		known := w.alice.CreateRoom(testserver.JSON{})
		invite(known, "Strauß@EXAMPLE.com")
		w.bob.SyncUntil("", "the invitation", section("invite", known))
		if n := len(id.Calls("/_matrix/identity/v2/store-invite")); n != 0 || len(offers(t, w.alice, known)) != 0 {
			t.Errorf("%d invitations were left for an address that is bound", n)
		}

		// Bound later, on the other server.
		room := w.alice.CreateRoom(testserver.JSON{"name": "By address", "invite_3pid": []testserver.JSON{by(id, "Bob@Example.com")}})
		kept := map[string]any{}
		id.WaitCalls(t, "/_matrix/identity/v2/store-invite", 1)[0].JSON(t, &kept)
		if kept["address"] != "bob@example.com" || kept["sender"] != w.alice.ID || kept["room_id"] != room || kept["room_name"] != "By address" {
			t.Errorf("the identity server is told %v", kept)
		}
		left := offers(t, w.alice, room)
		if len(left) != 1 {
			t.Fatalf("invitations left in the room: %v", left)
		}
		if a := id.Tell(t, federationOf(w.b), id.Binding("bob@example.com", w.bob.ID)); a.Status != 200 {
			t.Fatalf("the notice of the binding: %d %s", a.Status, a.Body)
		}
		w.bob.SyncUntil("", "the invitation", section("invite", room))
		for token, offer := range left {
			third := testserver.At(w.stands(w.alice, room, w.bob.ID, "invite"), "third_party_invite")
			if testserver.At(third, "signed", "token") != token || testserver.At(third, "display_name") != offer["display_name"] {
				t.Errorf("the invitation says %v, the one by address %v", third, offer)
			}
		}
		if len(id.Calls("/_matrix/identity/v2/pubkey/ephemeral/isvalid")) != 1 {
			t.Error("alice's server has not asked whether the key is good")
		}
		w.bob.Join(room, string(w.a.Name))
		w.eventuallyMembers(w.alice, room, w.alice.ID, w.bob.ID)

		// Shown by its owner, who joins with it.
		erin := w.b.Register("erin")
		invite(room, "erin@example.com")
		notice := id.Binding("erin@example.com", erin.ID)
		shown, _ := notice["invites"].([]any)[0].(map[string]any)["signed"].(map[string]any)
		shown["sender"] = w.alice.ID
		id.Sign(shown, 1)
		other := w.alice.CreateRoom(testserver.JSON{})
		wait.Until(t, "erin's invitation by address at the other server", func() bool { return len(offers(t, w.bob, room)) == 2 })
		erin.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("rooms", other, "join")+"?via="+url.QueryEscape(string(w.a.Name)), testserver.JSON{"third_party_signed": shown})
		erin.Must("POST", testserver.Path("rooms", room, "join"), testserver.JSON{"third_party_signed": shown})
		w.stands(w.alice, room, erin.ID, "join")

		// Bound later, on the server of who invited; and on one that is in the room, but not the inviter's.
		carol, dora := w.a.Register("carol"), w.b.Register("dora")
		invite(room, "carol@example.com")
		invite(room, "dora@example.com")
		for user, at := range map[*testserver.User]*testserver.Server{carol: w.a, dora: w.b} {
			wait.Until(t, "the invitation by address at "+string(at.Name), func() bool { return len(offers(t, w.bob, room)) == 4 })
			name := map[*testserver.User]string{carol: "carol", dora: "dora"}[user]
			if a := id.Tell(t, federationOf(at), id.Binding(name+"@example.com", user.ID)); a.Status != 200 {
				t.Fatalf("the notice of %s's binding: %d %s", name, a.Status, a.Body)
			}
			user.SyncUntil("", "the invitation", section("invite", room))
			user.Join(room)
		}
		w.eventuallyMembers(w.alice, room, w.alice.ID, w.bob.ID, carol.ID, dora.ID, erin.ID)
		w.eventuallyMembers(w.bob, room, w.alice.ID, w.bob.ID, carol.ID, dora.ID, erin.ID)
		// The server of dora and erin was in the room by then, so that it did without the other, and may not ask about the key.
		if n := len(id.Calls("/_matrix/identity/v2/pubkey/ephemeral/isvalid")); n != 2 {
			t.Errorf("asked %d times whether a key is good, want for bob and carol", n)
		}
	})
}
