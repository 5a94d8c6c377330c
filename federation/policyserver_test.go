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
