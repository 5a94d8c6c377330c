package federation

import (
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// joinVia makes a join of a user of a peer which says that another user lets it in, and cites what such a join cites.
func (w *houseWorld) joinVia(p *peer.Peer, ref rooms.Ref, user matrix.UserID, via any, knobs ...peer.Knob) *peer.Event {
	w.t.Helper()
	content := map[string]any{"membership": "join", "displayname": "let in"}
	places := [][2]string{{"m.room.create", ""}, {"m.room.power_levels", ""}, {"m.room.join_rules", ""}, {"m.room.member", string(user)}}
	if via != nil {
		content["join_authorised_via_users_server"] = via
		if by, _ := via.(string); by != string(user) {
			places = append(places, [2]string{"m.room.member", by})
		}
	}
	state, err := w.rooms.CurrentState(w.t.Context(), ref.NID)
	if err != nil {
		w.t.Fatal(err)
	}
	auth := []any{}
	for _, place := range places {
		row, err := w.rooms.StateEvent(w.t.Context(), ref.NID, state, place[0], place[1])
		if err != nil {
			w.t.Fatal(err)
		}
		if row != nil {
			auth = append(auth, string(row.Event.ID()))
		}
	}
	var head *store.EventRow
	err = w.db.Read(w.t.Context(), func(tx *store.Tx) (err error) {
		head, err = tx.Head(ref.NID)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Seal(ref.Version, map[string]any{
		"type": "m.room.member", "sender": string(user), "state_key": string(user), "room_id": string(ref.ID), "content": content, "auth_events": auth,
		"prev_events": []any{string(head.Event.ID())}, "depth": head.Event.Depth() + 1, "origin_server_ts": w.clk.now().UnixMilli(),
	}, knobs...)
}

// TestFalseConsentInTransactions is threats F22 for joins that another server just sends: who lets the joiner in must be
// in the room, may invite, and its server has signed that. Of who is in the room already nothing but the signature counts.
func TestFalseConsentInTransactions(t *testing.T) {
	proof.Of(t, "F22", "AU-08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		q, third := peer.New(t, w.ca, peer.Options{}), peer.New(t, w.ca, peer.Options{})
		ref := w.room(11, "public_chat")
		host, weak, inside := w.p.User("host"), w.p.User("weak"), q.User("inside")
		w.joins(w.p, ref, host)
		w.joins(w.p, ref, weak)
		w.setState(ref, "m.room.power_levels", "", fmt.Sprintf(`{"users":{"@alice:us.test":100,%q:60,%q:60},"invite":50}`, host, w.p.User("absent")))
		g := w.guestIn(q, ref, inside)
		w.setState(ref, "m.room.join_rules", "", `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!club:other.test"}]}`)
		by := func(p *peer.Peer) peer.Knob { return q.Countersigned(p.Name, p.KeyID, p.Key) }
		forged := func(name matrix.ServerName, id matrix.KeyID) peer.Knob { return q.Countersigned(name, id, third.Key) }
		serial := 0
		for name, c := range map[string]struct {
			via  any
			knob []peer.Knob
		}{
			"nobody":                              {nil, nil},
			"who may, and has not signed":         {string(host), nil},
			"who may, by a forged signature":      {string(host), []peer.Knob{forged(w.p.Name, w.p.KeyID)}},
			"who may, by an unknown key":          {string(host), []peer.Knob{forged(w.p.Name, "ed25519:none")}},
			"who may, signed by another server":   {string(host), []peer.Knob{by(third)}},
			"who may, without the joiner's own":   {string(host), []peer.Knob{peer.SignedWith(w.p.Name, w.p.KeyID, w.p.Key)}},
			"who may, and is not there":           {string(w.p.User("absent")), []peer.Knob{by(w.p)}},
			"who may not":                         {string(weak), []peer.Knob{by(w.p)}},
			"who is in the room and may not, its": {string(inside), nil},
			"one of ours, unsigned":               {"@alice:" + ourName, nil},
			"one of ours, forged":                 {"@alice:" + ourName, []peer.Knob{forged(ourName, "ed25519:ours")}},
			"no user":                             {"alice", nil},
			"a list":                              {[]any{string(host)}, []peer.Knob{by(w.p)}},
			"an object":                           {map[string]any{"user": string(host)}, []peer.Knob{by(w.p)}},
		} {
			serial++
			user := q.User(fmt.Sprint("new", serial))
			e := w.joinVia(q, ref, user, c.via, c.knob...)
			good := g.message("beside " + name)
			verdicts := accepted(t, w.send(q, name, []string{string(e.JSON), string(good.JSON)}, nil))
			if v := verdicts[good.ID]; v == nil || v["error"] != nil {
				t.Errorf("beside a join that %s lets in: %v", name, verdicts)
			}
			w.arrives(ref, good.ID)
			if got := w.stands(ref, user); got == "join" {
				t.Errorf("a join that %s lets in: %s is %q", name, user, got)
			}
			if row, err := w.rooms.EventInRoom(t.Context(), ref.NID, e.ID); err == nil && !row.Flags.Has(store.FlagRejected) {
				t.Errorf("a join that %s lets in is held with flags %d", name, row.Flags)
			}
		}
		own := w.joinVia(q, ref, q.User("self"), string(q.User("self")))
		right := w.joinVia(q, ref, q.User("right"), string(host), by(w.p))
		w.send(q, "right", []string{string(own.JSON), string(right.JSON)}, nil)
		w.arrives(ref, right.ID)
		if w.stands(ref, q.User("right")) != "join" || w.stands(ref, q.User("self")) == "join" {
			t.Errorf("let in by who may: %q, by itself: %q", w.stands(ref, q.User("right")), w.stands(ref, q.User("self")))
		}
		unsigned := w.joinVia(q, ref, inside, string(host))
		renamed := w.joinVia(q, ref, inside, string(q.User("nobody")))
		w.send(q, "renamed", []string{string(unsigned.JSON), string(renamed.JSON)}, nil)
		w.arrives(ref, renamed.ID)
		if row, err := w.rooms.EventInRoom(t.Context(), ref.NID, unsigned.ID); err == nil && !row.Flags.Has(store.FlagRejected) {
			t.Errorf("of a member, without the signature that it claims: flags %d", row.Flags)
		}
		if w.stands(ref, inside) != "join" {
			t.Errorf("the member is %q", w.stands(ref, inside))
		}
	})
}
