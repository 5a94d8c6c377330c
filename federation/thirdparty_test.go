package federation

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// identities asks identity services of the test, which are on loopback unless nothing there may be reached.
func identities(ca *peer.CA, policy *Policy, allow ...string) *IdentityServices {
	var prefixes []netip.Prefix
	for _, a := range allow {
		prefixes = append(prefixes, netip.MustParsePrefix(a))
	}
	return NewIdentityServices(IdentityServicesOptions{Dialer: netguard.NewDialer(prefixes, nil), Roots: ca.Pool(), Policy: policy})
}

const onLoopback = "127.0.0.0/8"

// swap is a room of alice's with an invitation to an address, and the peer whose user has that address.
type swap struct {
	*houseWorld
	id  *peer.IdentityServer
	ref rooms.Ref
	bob matrix.UserID
}

func newSwap(t *testing.T, db *store.DB, v matrix.RoomVersion) *swap {
	t.Helper()
	w := &swap{houseWorld: newHouse(t, db)}
	w.id = peer.NewIdentityServer(t, w.ca)
	w.rooms.SetIdentityServices(identities(w.ca, nil, onLoopback))
	w.ref, w.bob = w.room(v, "private_chat"), w.p.User("bob")
	w.offer("token", nil)
	w.signs(w.p)
	return w
}

// offer has alice invite an address; change makes something else of it than the identity server said.
func (w *swap) offer(token string, change func(map[string]any)) {
	w.t.Helper()
	o := w.id.Offer(token)
	keys, _ := o["public_keys"].([]any)
	first, _ := keys[0].(map[string]any)
	content := map[string]any{"display_name": o["display_name"], "public_keys": keys, "public_key": first["public_key"], "key_validity_url": first["key_validity_url"]}
	if change != nil {
		change(content)
	}
	raw, err := json.Marshal(content)
	if err != nil {
		w.t.Fatal(err)
	}
	w.setState(w.ref, "m.room.third_party_invite", token, string(raw))
}

// signs makes a peer sign the invitations of its users.
func (w *houseWorld) signs(p *peer.Peer) {
	sign := func(raw []byte, v matrix.RoomVersion) any {
		ev, err := matrix.ParseEvent(raw, v)
		if err == nil {
			ev, err = ev.WithSignature(p.Name, p.KeyID, p.Key)
		}
		if err != nil {
			w.t.Error(err)
			return map[string]any{}
		}
		return map[string]any{"event": json.RawMessage(ev.JSON())}
	}
	p.Handle("PUT", v2+"/invite/{roomId}/{eventId}", func(c *peer.Call) peer.Reply {
		var body struct {
			Event   json.RawMessage `json:"event"`
			Version string          `json:"room_version"`
		}
		c.JSON(w.t, &body)
		v, _ := matrix.ParseRoomVersion(body.Version)
		return peer.Reply{Body: sign(body.Event, v)}
	})
}

// template is what a peer asks for bob, changed.
func (w *swap) template(token string, change func(event, third map[string]any)) map[string]any {
	third := map[string]any{"display_name": "whatever", "signed": w.id.Signed(token, string(w.bob), 1)}
	event := map[string]any{
		"type": "m.room.member", "room_id": string(w.ref.ID), "sender": "@alice:" + ourName, "state_key": string(w.bob),
		"content": map[string]any{"membership": "invite", "third_party_invite": third},
	}
	if change != nil {
		change(event, third)
	}
	return event
}

func (w *swap) exchange(p *peer.Peer, token string, change func(event, third map[string]any)) peer.Answer {
	w.t.Helper()
	return w.exchangeIn(p, string(w.ref.ID), w.template(token, change))
}

func (w *swap) exchangeIn(p *peer.Peer, room string, event map[string]any) peer.Answer {
	w.t.Helper()
	body, err := json.Marshal(event)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Do(w.t, w.us, "PUT", v1+"/exchange_third_party_invite"+seg(room), body)
}

func (w *swap) invited() int { return len(w.p.Calls(v2 + "/invite")) }
func (w *swap) asked() int   { return len(w.id.Calls("/_matrix/identity/v2/pubkey")) }

// TestExchangesThatAreRefused is threat F04 for exchange_third_party_invite: whatever does not fit together leads to no
// invitation, and to no question to anybody.
func TestExchangesThatAreRefused(t *testing.T) {
	proof.Of(t, "F04", "RM-10", "AU-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSwap(t, db, 11)
		q := peer.New(t, w.ca, peer.Options{})
		stranger := peer.NewIdentityServer(t, w.ca)
		elsewhere := w.room(11, "private_chat")
		set := func(name string, value any) func(map[string]any, map[string]any) {
			return func(event, _ map[string]any) { event[name] = value }
		}
		signed := func(value any) func(map[string]any, map[string]any) {
			return func(_, third map[string]any) { third["signed"] = value }
		}
		bare := map[string]any{"mxid": string(w.bob), "token": "token"}
		tampered := w.id.Signed("token", string(w.p.User("mallory")), 1)
		tampered["mxid"] = string(w.bob)
		large := w.id.Signed("token", string(w.bob), 1)
		large["more"] = strings.Repeat("x", 9<<10)
		w.id.Sign(large, 1)
		for name, c := range map[string]struct {
			status int
			answer peer.Answer
		}{
			"asked by another server":      {403, w.exchange(q, "token", nil)},
			"of another room in the path":  {400, w.exchangeIn(w.p, string(elsewhere.ID), w.template("token", nil))},
			"of another room":              {400, w.exchange(w.p, "token", set("room_id", string(elsewhere.ID)))},
			"in another room of ours":      {403, w.exchangeIn(w.p, string(elsewhere.ID), w.template("token", set("room_id", string(elsewhere.ID))))},
			"in a room that we are not in": {404, w.exchangeIn(w.p, "!none:us.test", w.template("token", set("room_id", "!none:us.test")))},
			"no member event":              {400, w.exchange(w.p, "token", set("type", "m.room.message"))},
			"no invitation":                {400, w.exchange(w.p, "token", set("content", map[string]any{"membership": "join"}))},
			"nothing":                      {400, w.exchange(w.p, "token", set("content", map[string]any{"membership": "invite"}))},
			"for nobody":                   {400, w.exchange(w.p, "token", set("state_key", "bob"))},
			"for another of its users":     {403, w.exchange(w.p, "token", set("state_key", string(w.p.User("mallory"))))},
			"for another server's user": {403, w.exchange(w.p, "token", func(event, third map[string]any) {
				event["state_key"] = string(q.User("x"))
				third["signed"] = w.id.Signed("token", string(q.User("x")), 1)
			})},
			"for a user of ours": {403, w.exchange(w.p, "token", func(event, third map[string]any) {
				event["state_key"] = "@carol:" + ourName
				third["signed"] = w.id.Signed("token", "@carol:"+ourName, 1)
			})},
			"by another of our users":       {403, w.exchange(w.p, "token", set("sender", "@carol:"+ourName))},
			"by a user of its own":          {403, w.exchange(w.p, "token", set("sender", string(w.p.User("mallory"))))},
			"by nobody":                     {400, w.exchange(w.p, "token", set("sender", ""))},
			"of another token":              {403, w.exchange(w.p, "other", nil)},
			"of a token that is none":       {400, w.exchange(w.p, "to/ken", nil)},
			"not signed":                    {403, w.exchange(w.p, "token", signed(bare))},
			"signed by another":             {403, w.exchange(w.p, "token", signed(stranger.Signed("token", string(w.bob), 1)))},
			"signed for another user":       {403, w.exchange(w.p, "token", signed(tampered))},
			"with a signature of two bytes": {403, w.exchange(w.p, "token", signed(map[string]any{"mxid": string(w.bob), "token": "token", "signatures": map[string]any{"x": map[string]any{"ed25519:1": "AAA"}}}))},
			"with too much signed":          {400, w.exchange(w.p, "token", signed(large))},
			"with something else signed":    {400, w.exchange(w.p, "token", signed("signed"))},
		} {
			if c.answer.Status != c.status {
				t.Errorf("an exchange %s: %d %s, want %d", name, c.answer.Status, c.answer.Body, c.status)
			}
		}
		if w.invited() != 0 || w.asked() != 0 || len(stranger.Calls("")) != 0 || w.stands(w.ref, w.bob) != "" {
			t.Errorf("bob was invited %d times, the identity server asked %d times, bob is %q", w.invited(), w.asked(), w.stands(w.ref, w.bob))
		}
		if a := w.exchange(w.p, "token", nil); a.Status != 200 || w.stands(w.ref, w.bob) != "invite" || w.asked() != 1 {
			t.Errorf("an exchange as it should be: %d %s, bob is %q", a.Status, a.Body, w.stands(w.ref, w.bob))
		}
		w.setState(w.ref, "m.room.server_acl", "", fmt.Sprintf(`{"allow":["*"],"deny":[%q]}`, strings.Split(string(w.p.Name), ":")[0]))
		if a := w.exchange(w.p, "token", nil); a.Status != 403 {
			t.Errorf("asked by a server that the room shuts out: %d %s", a.Status, a.Body)
		}
	})
}

// TestAnInvitationByAddressIsUsedOnce replays what was signed: while the invitation stands nothing happens, once it was
// taken up nobody comes in by it again or is put out.
func TestAnInvitationByAddressIsUsedOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range []matrix.RoomVersion{3, 12} {
			t.Run("version "+v.String(), func(t *testing.T) {
				proof.Of(t, "RM-10", "AU-11")
				w := newSwap(t, db, v)
				again := func(status, invited int, stands string) {
					t.Helper()
					if a := w.exchange(w.p, "token", nil); a.Status != status || w.invited() != invited || w.stands(w.ref, w.bob) != stands {
						t.Errorf("%d %s after %d invitations, bob is %q; want %d, %d, %q", a.Status, a.Body, w.invited(), w.stands(w.ref, w.bob), status, invited, stands)
					}
				}
				again(200, 1, "invite")
				again(200, 1, "invite") // its answer got lost
				state, err := w.rooms.CurrentState(t.Context(), w.ref.NID)
				if err != nil {
					t.Fatal(err)
				}
				row, err := w.rooms.StateEvent(t.Context(), w.ref.NID, state, "m.room.member", string(w.bob))
				if err != nil || row == nil {
					t.Fatal(row, err)
				}
				if name, _ := matrix.GetString(row.Event.Content(), "third_party_invite", "display_name"); name != "b…@e…" || row.Event.Sender() != w.user("alice").ID {
					t.Errorf("%s invites %q", row.Event.Sender(), name)
				}
				w.joins(w.p, w.ref, w.bob)
				again(403, 1, "join")
				_, err = w.rooms.Kick(t.Context(), rooms.MemberRequest{Room: w.ref, Sender: w.user("alice"), Target: w.bob})
				if err != nil {
					t.Fatal(err)
				}
				again(403, 1, "leave")
				_, err = w.rooms.Ban(t.Context(), rooms.MemberRequest{Room: w.ref, Sender: w.user("alice"), Target: w.bob})
				if err != nil {
					t.Fatal(err)
				}
				again(403, 1, "ban")
			})
		}
	})
}

// TestKeysOfInvitationsByAddress asks whether a key is good where the invitation says, and nowhere inside.
func TestKeysOfInvitationsByAddress(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RM-10", "O01", "O02")
		w := newSwap(t, db, 11)
		port, reached := canary(t)
		refused := func(status int, what string) {
			t.Helper()
			if a := w.exchange(w.p, "token", nil); a.Status != status || w.invited() != 0 {
				t.Errorf("%s: %d %s", what, a.Status, a.Body)
			}
		}
		at := func(url any) {
			w.offer("token", func(content map[string]any) {
				content["key_validity_url"] = url
				keys, _ := content["public_keys"].([]any)
				for _, k := range keys {
					k.(map[string]any)["key_validity_url"] = url
				}
			})
		}
		w.rooms.SetIdentityServices(identities(w.ca, nil)) // nothing on loopback
		for _, url := range []any{
			fmt.Sprintf("http://127.0.0.1:%d/", port), fmt.Sprintf("https://127.0.0.1:%d/", port), fmt.Sprintf("https://[::ffff:127.0.0.1]:%d/", port),
			fmt.Sprintf("https://localhost:%d/", port), fmt.Sprintf("https://user@127.0.0.1:%d/", port), "https://169.254.169.254/latest/meta-data",
			"file:///etc/passwd", "https:opaque", "://", "https://" + strings.Repeat("a", 3000), "https://id.test/#fragment",
		} {
			at(url)
			refused(403, fmt.Sprintf("asking at %.60v", url))
		}
		if n := reached.Load(); n != 0 {
			t.Errorf("the canary was reached %d times", n)
		}
		w.rooms.SetIdentityServices(identities(w.ca, NewPolicy(nil, []string{"localhost"}), onLoopback))
		at(w.id.URL("/pubkey/isvalid"))
		refused(403, "an identity server that may not be asked")
		if w.asked() != 0 {
			t.Error("it was asked")
		}
		w.rooms.SetIdentityServices(identities(w.ca, nil, onLoopback))
		answers := map[string]peer.Reply{
			"no answer that makes sense": {Body: []byte("yes")}, "a list": {Body: []byte("[true]")}, "trouble": peer.Refuse(500, "M_UNKNOWN"), "text": {Body: []byte(`{"valid":"true"}`)},
			"a redirect": {Status: 302, Header: map[string]string{"Location": fmt.Sprintf("https://127.0.0.1:%d/", port)}}, "too much": {Body: []byte(`{"valid":true,"x":"` + strings.Repeat("x", 100<<10) + `"}`)},
		}
		for what, reply := range answers {
			w.id.Handle("GET", "/_matrix/identity/v2/odd", func(*peer.Call) peer.Reply { return reply })
			at(w.id.URL("/odd"))
			refused(502, what) // to be tried again
		}
		for what, reply := range map[string]peer.Reply{"unknown": peer.Refuse(404, "M_NOT_FOUND"), "bad": {Body: []byte(`{"valid":false}`)}, "nothing": {Body: []byte(`{}`)}} {
			w.id.Handle("GET", "/_matrix/identity/v2/odd", func(*peer.Call) peer.Reply { return reply })
			refused(403, what)
		}
		w.offer("token", nil)
		w.id.Revoke()
		refused(403, "revoked keys")
		if n := reached.Load(); n != 0 {
			t.Errorf("the canary was reached %d times", n)
		}
		at(nil) // a key without a place to ask is good for ever
		if a := w.exchange(w.p, "token", nil); a.Status != 200 || w.stands(w.ref, w.bob) != "invite" {
			t.Errorf("a key that nobody can be asked about: %d %s", a.Status, a.Body)
		}
	})
}

// TestBindingsOfOurUsers takes up invitations by address for users of ours, in a room where somebody of another server made
// them. What is wrong about them leads nowhere, and only the inviter's server asks about keys.
func TestBindingsOfOurUsers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RM-10", "AU-11")
		w := newSwap(t, db, 11)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.bob)
		raw, err := json.Marshal(w.id.Offer("theirs"))
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := json.Unmarshal(raw, &content); err != nil {
			t.Fatal(err)
		}
		offer := g.message("", peer.Set("type", "m.room.third_party_invite"), peer.Set("state_key", "theirs"), peer.Set("content", content))
		w.send(w.p, "offer", []string{string(offer.JSON)}, nil)
		w.arrives(ref, offer.ID)
		before := w.nowPos()

		carol, dave := w.user("carol"), w.user("dave")
		stranger := peer.NewIdentityServer(t, w.ca)
		invite := func(by *peer.IdentityServer, user matrix.UserID, token string) map[string]any {
			return map[string]any{
				"medium": "email", "address": "x@example.com", "mxid": string(user), "room_id": string(ref.ID), "sender": string(w.bob),
				"signed": by.Signed(token, string(user), 0),
			}
		}
		notice := func(user matrix.UserID, invites ...any) map[string]any {
			return map[string]any{"medium": "email", "address": "x@example.com", "mxid": string(user), "invites": invites}
		}
		go func() { _ = w.rooms.RunClaims(t.Context()) }()
		wrong := invite(w.id, dave.ID, "theirs")
		wrong["sender"] = string(w.user("alice").ID)
		for _, c := range []struct {
			what   string
			status int
			notice map[string]any
		}{
			{"of another server's user", 404, notice(w.bob)}, {"of a user that is not", 403, notice("@nobody:" + ourName)}, {"of nobody", 400, notice("")},
			{"with too many invitations", 413, notice(carol.ID, slices.Repeat([]any{invite(w.id, carol.ID, "theirs")}, 51)...)},
			{"with nothing usable", 200, notice(carol.ID, "text", map[string]any{}, invite(w.id, dave.ID, "theirs"))},
			{"signed by another", 200, notice(dave.ID, invite(stranger, dave.ID, "theirs"))},
			{"of another token", 200, notice(dave.ID, invite(w.id, dave.ID, "none"))},
			{"of another sender", 200, notice(dave.ID, wrong)},
			{"as it should be", 200, notice(carol.ID, 7, invite(w.id, carol.ID, "theirs"))},
		} {
			if a := w.id.Tell(t, w.us, c.notice); a.Status != c.status {
				t.Errorf("a binding %s: %d %s, want %d", c.what, a.Status, a.Body, c.status)
			}
		}
		wait.Until(t, "all to be taken up", func() bool { return w.count("jobs") == 0 })
		if w.stands(ref, carol.ID) != "invite" || w.stands(ref, dave.ID) != "" {
			t.Errorf("carol is %q, dave is %q", w.stands(ref, carol.ID), w.stands(ref, dave.ID))
		}
		if w.asked() != 0 {
			t.Error("the identity server was asked about a key although the inviter is another server's")
		}
		// The invitation is in the name of who made it by address, signed by us, and goes to the others.
		if sent := w.outgoing(w.p.Name, before); len(sent) != 1 {
			t.Errorf("sent to the other server: %v", sent)
		}
	})
}
