package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// byHand is the canonical JSON of an object without some of its members, as far as the events of these tests need it, by
// the standard library alone.
func byHand(t *testing.T, members map[string]any, without ...string) []byte {
	t.Helper()
	rest := maps.Clone(members)
	for _, name := range without {
		delete(rest, name)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(rest); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(out.Bytes())
}

// TestOutgoingEventsAreHashedAndSigned checks what leaves this server against a calculation that shares no code with it.
func TestOutgoingEventsAreHashedAndSigned(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "SG-05")
		w := newHouse(t, db)
		policyKey, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		var ours []string // the signatures that the policy server saw
		w.p.Handle("POST", "/_matrix/policy/v1/sign", func(c *peer.Call) peer.Reply {
			var seen struct {
				Signatures map[string]map[string]string `json:"signatures"`
			}
			ev, err := matrix.ParseEvent(c.Body, 11)
			if err != nil || json.Unmarshal(c.Body, &seen) != nil {
				return peer.Refuse(400, "M_BAD_JSON")
			}
			ours = append(ours, slices.Collect(maps.Values(seen.Signatures[string(ourName)]))...)
			sig := matrix.EncodeBase64(ed25519.Sign(private, ev.SigningBytes()))
			return peer.Reply{Body: map[string]any{string(w.p.Name): map[string]any{"ed25519:policy_server": sig}}}
		})
		ref := w.room(11, "public_chat")
		w.guestIn(w.p, ref, w.p.User("bob"))
		w.setState(ref, "m.room.policy", "", fmt.Sprintf(`{"via":%q,"public_keys":{"ed25519":%q}}`, w.p.Name, matrix.EncodeBase64(policyKey)))
		own := w.c.own.Key()
		for i, id := range []matrix.EventID{
			w.say(ref, "alice", "said <aloud> & \"clear\""),
			w.setState(ref, "m.room.topic", "", `{"topic":"of the day","extra":{"b":1,"a":[true,null]}}`),
		} {
			a := w.p.Do(t, w.us, "GET", v1+"/event"+seg(string(id)), nil)
			var answer struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			if err := json.Unmarshal(a.Body, &answer); err != nil || len(answer.PDUs) != 1 {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			dec := json.NewDecoder(bytes.NewReader(answer.PDUs[0]))
			dec.UseNumber()
			var members map[string]any
			if err := dec.Decode(&members); err != nil {
				t.Fatal(err)
			}
			unpadded := base64.RawStdEncoding.EncodeToString
			hash := sha256.Sum256(byHand(t, members, "unsigned", "signatures", "hashes"))
			if hashes, _ := members["hashes"].(map[string]any); hashes["sha256"] != unpadded(hash[:]) {
				t.Errorf("%s has hash %v, want %s", id, hashes, unpadded(hash[:]))
			}
			members["content"] = map[string]any{} // all that redaction leaves of these two types
			signed := byHand(t, members, "unsigned", "signatures")
			reference := sha256.Sum256(signed)
			if want := "$" + base64.RawURLEncoding.EncodeToString(reference[:]); string(id) != want {
				t.Errorf("the event ID is %s, want %s", id, want)
			}
			signatures, _ := members["signatures"].(map[string]any)
			verify := func(server matrix.ServerName, keyID string, public ed25519.PublicKey) string {
				by, _ := signatures[string(server)].(map[string]any)
				text, _ := by[keyID].(string)
				sig, err := base64.RawStdEncoding.DecodeString(text)
				if err != nil || !ed25519.Verify(public, signed, sig) {
					t.Errorf("the signature of %s by %s does not hold: %v", server, keyID, signatures)
				}
				return text
			}
			first := verify(ourName, string(own.ID), own.Private.Public().(ed25519.PublicKey))
			verify(w.p.Name, "ed25519:policy_server", policyKey)
			if len(ours) != 2 || ours[i] != first {
				t.Errorf("the policy server saw %q, the event has %q", ours, first)
			}
		}
	})
}

// TestRelayOfMembership: what one server hands in is told to the others in the room, and not to itself.
func TestRelayOfMembership(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "PD-10")
		w := newHouse(t, db)
		q := peer.New(t, w.ca, peer.Options{})
		ref := w.room(11, "public_chat")
		w.joins(q, ref, q.User("witness"))
		relayed := func(what string, by *peer.Peer, e *peer.Event, from store.Pos) {
			t.Helper()
			if !slices.Contains(w.outgoing(q.Name, from), e.ID) {
				t.Errorf("the %s is not told to the other server in the room", what)
			}
			if slices.Contains(w.outgoing(by.Name, from), e.ID) {
				t.Errorf("the %s is told to the server that handed it in", what)
			}
		}
		from := w.nowPos()
		join, _ := w.joins(w.p, ref, w.p.User("bob"))
		relayed("join", w.p, join, from)
		from = w.nowPos()
		relayed("leave", w.p, w.leaves(w.p, ref, w.p.User("bob")), from)
		w.setState(ref, "m.room.join_rules", "", `{"join_rule":"knock"}`)
		from = w.nowPos()
		members, a := w.proposal(w.p, "make_knock", ref, w.p.User("carol"))
		if a.Status != 200 {
			t.Fatalf("make_knock: %d %s", a.Status, a.Body)
		}
		knock := w.p.Seal(ref.Version, members)
		if a := w.hand(w.p, v1+"/send_knock", ref, knock); a.Status != 200 {
			t.Fatalf("send_knock: %d %s", a.Status, a.Body)
		}
		relayed("knock", w.p, knock, from)
	})
}

// TestJoinsTryOneServerAfterTheOther: a server that cannot let the user in by a restricted room's conditions, or does not
// know whether it may, is not the last word; where we are in the room, the conditions are ours to check.
func TestJoinsTryOneServerAfterTheOther(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RM-07")
		w := newHouse(t, db)
		hosted := w.p.NewRoom(11, "host")
		hosted.Host(nil)
		asked := map[matrix.ServerName]*peer.Peer{}
		refuser := func(code string) *peer.Peer {
			p := peer.New(t, w.ca, peer.Options{})
			p.Handle("GET", "/_matrix/federation/v1/make_join/{room}/{user}", func(*peer.Call) peer.Reply { return peer.Refuse(400, code) })
			asked[p.Name] = p
			return p
		}
		unsure, unable := refuser("M_UNABLE_TO_AUTHORISE_JOIN"), refuser("M_UNABLE_TO_GRANT_JOIN")
		gone := peer.New(t, w.ca, peer.Options{})
		gone.Stop()
		alice := w.user("alice")
		err := w.rooms.Join(t.Context(), rooms.JoinRequest{Room: hosted.ID, User: alice, Via: []matrix.ServerName{gone.Name, unsure.Name, unable.Name, w.p.Name}})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := w.rooms.Lookup(t.Context(), hosted.ID)
		if err != nil || w.stands(ref, alice.ID) != "join" {
			t.Errorf("alice is %q: %v", w.stands(ref, alice.ID), err)
		}
		for name, p := range asked {
			if n := len(p.Calls("/_matrix/federation/v1/make_join/")); n != 1 {
				t.Errorf("%s was asked %d times", name, n)
			}
		}
		other := w.p.NewRoom(12, "host") // whose ID names no server
		err = w.rooms.Join(t.Context(), rooms.JoinRequest{Room: other.ID, User: alice, Via: []matrix.ServerName{unsure.Name, gone.Name}})
		var told *matrix.Error
		if !errors.As(err, &told) || told.Code != "M_UNABLE_TO_AUTHORISE_JOIN" {
			t.Errorf("where nobody lets in, the client is told %v", err)
		}

		club, private := w.room(11, "public_chat"), w.room(11, "private_chat")
		w.setState(private, "m.room.join_rules", "", fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, club.ID))
		dave := w.user("dave")
		if err := w.rooms.Join(t.Context(), rooms.JoinRequest{Room: private.ID, User: dave, Via: []matrix.ServerName{unsure.Name}}); err == nil {
			t.Error("who is not in the club came in")
		}
		for _, room := range []rooms.Ref{club, private} {
			if err := w.rooms.Join(t.Context(), rooms.JoinRequest{Room: room.ID, User: dave}); err != nil {
				t.Error(err)
			}
		}
		if n := len(unsure.Calls("/_matrix/federation/v1/make_join/")); n != 2 {
			t.Errorf("another server was asked about a room of ours: %d calls", n)
		}
	})
}
