package federation

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

func TestPolicyServers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "PS-01", "PS-02", "PS-03", "PS-04")
		w := newHouse(t, db)
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		var refuses atomic.Bool
		w.p.Handle("POST", "/_matrix/policy/v1/sign", func(c *peer.Call) peer.Reply {
			if refuses.Load() {
				return peer.Reply{Status: 400, Body: map[string]string{"errcode": "M_FORBIDDEN", "error": "looks like spam"}}
			}
			ev, err := matrix.ParseEvent(c.Body, 11)
			if err != nil {
				return peer.Refuse(400, "M_BAD_JSON")
			}
			sig := matrix.EncodeBase64(ed25519.Sign(key, ev.SigningBytes()))
			return peer.Reply{Body: map[string]any{string(w.p.Name): map[string]any{"ed25519:policy_server": sig}}}
		})
		asked := func() int { return len(w.p.Calls("/_matrix/policy/v1/sign")) }
		signatures := func(ref rooms.Ref, id matrix.EventID, server matrix.ServerName) int {
			row, err := w.rooms.EventInRoom(t.Context(), ref.NID, id)
			if err != nil {
				t.Fatal(err)
			}
			return len(row.Event.SignatureKeys(server))
		}
		ref := w.room(11, "public_chat")
		policy := fmt.Sprintf(`{"via":%q,"public_keys":{"ed25519":%q}}`, w.p.Name, matrix.EncodeBase64(key.Public().(ed25519.PublicKey)))
		w.setState(ref, "m.room.policy", "", policy)
		w.say(ref, "alice", "nobody of the policy server is here")
		if asked() != 0 {
			t.Errorf("asked %d times before its user joined", asked())
		}
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		id := w.say(ref, "alice", "hello")
		if asked() != 1 || signatures(ref, id, w.p.Name) != 1 {
			t.Errorf("asked %d times, %d signatures", asked(), signatures(ref, id, w.p.Name))
		}
		w.setState(ref, "m.room.policy", "other", policy)
		w.setState(ref, "m.room.name", "", `{"name":"Guarded"}`)
		if asked() != 3 {
			t.Errorf("asked %d times after two state events, want 3", asked())
		}
		w.setState(ref, "m.room.policy", "", policy)
		if asked() != 3 {
			t.Error("asked about the event that names it")
		}

		// Of other servers: asked once for what is missing; its own signature as a homeserver stays.
		e := g.message("without a recommendation")
		w.send(w.p, "one", []string{string(e.JSON)}, nil)
		w.arrives(ref, e.ID)
		if asked() != 4 || signatures(ref, e.ID, w.p.Name) != 2 {
			t.Errorf("asked %d times, %d signatures of the origin", asked(), signatures(ref, e.ID, w.p.Name))
		}

		refuses.Store(true)
		_, err = w.rooms.Send(t.Context(), rooms.SendRequest{Room: ref, Sender: w.user("alice"), Type: "m.room.message", Content: []byte(`{"body":"spam"}`)})
		var told *matrix.Error
		if !errors.As(err, &told) || told.Status != 400 || told.Code != "M_FORBIDDEN" || told.Text != "looks like spam" {
			t.Errorf("a refusal became %v", err)
		}
		bad := g.message("spam")
		w.send(w.p, "two", []string{string(bad.JSON)}, nil)
		w.p.WaitCalls(t, "/_matrix/policy/v1/sign", 6)
		wait.Until(t, "the refused event to be kept", func() bool {
			_, err := w.rooms.EventInRoom(t.Context(), ref.NID, bad.ID)
			return err == nil
		})
		refuses.Store(false)
		good := g.message("not spam") // beside it
		w.send(w.p, "three", []string{string(good.JSON)}, nil)
		w.arrives(ref, good.ID)
		if row, err := w.rooms.EventInRoom(t.Context(), ref.NID, bad.ID); err != nil || row.Visible() || !row.Flags.Has(store.FlagSoftFailed) {
			t.Errorf("the event that is not recommended: %v", err)
		}
		before := asked()
		w.leaves(w.p, ref, w.p.User("bob"))
		w.say(ref, "alice", "alone again")
		if asked() != before+1 { // about the leave
			t.Errorf("asked %d times after its user left", asked()-before)
		}
	})
}

// TestPolicyServersThatAreNone: a room uses a policy server only if the event that names it is in its place and whole, and
// if somebody of that server is in the room, who can take it out again. Nobody else is asked, by us or about others.
func TestPolicyServersThatAreNone(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "PS-01")
		w := newHouse(t, db)
		public, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		outside := peer.New(t, w.ca, peer.Options{})
		sign := func(p *peer.Peer) {
			p.Handle("POST", "/_matrix/policy/v1/sign", func(c *peer.Call) peer.Reply {
				ev, err := matrix.ParseEvent(c.Body, 11)
				if err != nil {
					return peer.Refuse(400, "M_BAD_JSON")
				}
				return peer.Reply{Body: map[string]any{string(p.Name): map[string]any{"ed25519:policy_server": matrix.EncodeBase64(ed25519.Sign(key, ev.SigningBytes()))}}}
			})
		}
		sign(w.p)
		sign(outside)
		w.signs(outside)
		asked := func() int {
			return len(w.p.Calls("/_matrix/policy/v1/sign")) + len(outside.Calls("/_matrix/policy/v1/sign"))
		}
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		w.joins(outside, ref, outside.User("left"))
		w.leaves(outside, ref, outside.User("left"))
		text := matrix.EncodeBase64(public)
		policy := func(via, keys any) string {
			content := map[string]any{}
			if via != nil {
				content["via"] = via
			}
			if keys != nil {
				content["public_keys"] = keys
			}
			raw, _ := matrix.Encode(content)
			return string(raw)
		}
		good := map[string]any{"ed25519": text}
		for _, c := range []struct{ name, key, content string }{
			{"under another state key", "other", policy(string(w.p.Name), good)},
			{"without a server", "", policy(nil, good)},
			{"of a server that is a number", "", policy(1, good)},
			{"of a list of servers", "", policy([]string{string(w.p.Name)}, good)},
			{"without keys", "", policy(string(w.p.Name), nil)},
			{"with keys that are text", "", policy(string(w.p.Name), text)},
			{"with keys of another kind", "", policy(string(w.p.Name), map[string]any{"rsa": text})},
			{"with a key that is a list", "", policy(string(w.p.Name), map[string]any{"ed25519": []string{text}})},
			{"of a server whose user has left", "", policy(string(outside.Name), good)},
			{"of a server that is nowhere", "", policy("nowhere.test", good)},
		} {
			w.setState(ref, "m.room.policy", c.key, c.content)
			w.say(ref, "alice", "a policy server "+c.name)
			e := g.message("a policy server " + c.name)
			w.send(w.p, c.name, []string{string(e.JSON)}, nil)
			w.arrives(ref, e.ID)
			if n := asked(); n != 0 {
				t.Fatalf("a policy server %s was asked %d times", c.name, n)
			}
		}
		w.setState(ref, "m.room.policy", "", policy(string(w.p.Name), good))
		w.say(ref, "alice", "to the point")
		if asked() != 1 || len(w.p.Calls("/_matrix/policy/v1/sign")) != 1 {
			t.Errorf("the one that is in use was asked %d times", asked())
		}
		w.setState(ref, "m.room.policy", "", policy(string(outside.Name), good))
		invite := rooms.MemberRequest{Room: ref, Sender: w.user("alice"), Target: outside.User("new")}
		if _, err := w.rooms.Invite(t.Context(), invite); err != nil {
			t.Fatal(err)
		}
		w.say(ref, "alice", "whose user is invited and has not decided")
		if n := len(outside.Calls("/_matrix/policy/v1/sign")); n != 0 {
			t.Errorf("the server of who is invited was asked %d times", n)
		}
	})
}
