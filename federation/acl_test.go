package federation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// numeric makes a peer whose name is an IP literal.
func (w *houseWorld) numeric() *peer.Peer {
	q := peer.New(w.t, w.ca, peer.Options{})
	q.Name = matrix.ServerName(q.Addr)
	return q
}

// protected are the operations that a room's access list protects, by a server with a user in the room.
func (w *houseWorld) protected(p *peer.Peer, ref rooms.Ref, user matrix.UserID, at matrix.EventID) map[string]peer.Answer {
	member := func(membership string, target matrix.UserID) *peer.Event {
		return p.Seal(ref.Version, map[string]any{
			"type": "m.room.member", "sender": string(user), "state_key": string(target), "room_id": string(ref.ID), "depth": 20,
			"content": map[string]any{"membership": membership}, "prev_events": []any{string(at)}, "auth_events": []any{string(at)},
			"origin_server_ts": w.clk.now().UnixMilli(),
		})
	}
	get := func(path string) peer.Answer { return p.Do(w.t, w.us, "GET", path, nil) }
	ver := "?ver=" + ref.Version.String()
	all := map[string]peer.Answer{}
	for name, read := range w.reads(ref.ID, at) {
		all[name] = read(p)
	}
	for _, verb := range []string{"make_join", "make_leave", "make_knock"} {
		all[verb] = get(v1 + "/" + verb + seg(string(ref.ID), string(user)) + ver)
	}
	all["send_join"] = w.hand(p, v2+"/send_join", ref, member("join", user))
	all["send_leave"] = w.hand(p, v2+"/send_leave", ref, member("leave", user))
	all["send_knock"] = w.hand(p, v1+"/send_knock", ref, member("knock", user))
	invite := member("invite", "@alice:us.test")
	body, _ := json.Marshal(map[string]any{"room_version": ref.Version.String(), "event": json.RawMessage(invite.JSON), "invite_room_state": []any{}})
	all["invite v2"] = p.Do(w.t, w.us, "PUT", v2+"/invite"+seg(string(ref.ID), string(invite.ID)), body)
	return all
}

// TestAccessListsShutServersOut is threats F20: a server that a room's access list denies tries every operation, and its
// events in transactions of its own and of others; in another room it goes on.
func TestAccessListsShutServersOut(t *testing.T) {
	proof.Of(t, "F20", "FD-16", "FD-17", "FD-18", "FD-23", "PD-09")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		q := w.numeric()
		shut, open := w.room(11, "public_chat"), w.room(11, "public_chat")
		bob, carol := w.p.User("bob"), q.User("carol")
		in := map[rooms.Ref]*guest{shut: w.guestIn(w.p, shut, bob), open: w.guestIn(w.p, open, bob)}
		other := w.guestIn(q, shut, carol)
		id := w.say(shut, "alice", "here")
		for list, denied := range map[string]*peer.Peer{
			`{"allow":["*"],"deny":["LOCALhost"]}`:                w.p,
			`{"allow":["127.*","us.test"]}`:                       w.p,
			`{"allow":["*"],"deny":["l?calh*t"]}`:                 w.p,
			`{"allow":["*"],"deny":[],"allow_ip_literals":false}`: q,
		} {
			user, allowed := bob, q
			if denied == q {
				user, allowed = carol, w.p
			}
			w.setState(shut, "m.room.server_acl", "", list)
			for name, a := range w.protected(denied, shut, user, id) {
				if a.Status != 403 || a.Code() != "M_FORBIDDEN" {
					t.Errorf("%s: %s by a server that is shut out: %d %s", list, name, a.Status, a.Body)
				}
			}
			for name, read := range w.reads(shut.ID, id) {
				if a := read(allowed); a.Status != 200 {
					t.Errorf("%s: %s by a server that is not: %d %s", list, name, a.Status, a.Body)
				}
			}
		}
		w.setState(shut, "m.room.server_acl", "", `{"allow":["*"],"deny":["localhost"]}`)
		mine, theirs, fine := in[shut].message("shut out"), in[open].message("let in"), other.message("of another server")
		both := accepted(t, w.send(w.p, "both rooms", []string{string(mine.JSON), string(theirs.JSON)}, nil))
		if both[mine.ID]["error"] == nil || len(both[theirs.ID]) != 0 {
			t.Errorf("judged %v", both)
		}
		carried := accepted(t, w.send(q, "for another", []string{string(mine.JSON), string(fine.JSON)}, nil))
		if carried[mine.ID]["error"] == nil || len(carried[fine.ID]) != 0 {
			t.Errorf("carried by another server it is judged %v", carried)
		}
		w.arrives(open, theirs.ID)
		w.arrives(shut, fine.ID)
		if _, err := w.rooms.EventInRoom(t.Context(), shut.NID, mine.ID); err == nil {
			t.Error("the event of the server that is shut out is held")
		}
		typing := func(ref rooms.Ref) string {
			return fmt.Sprintf(`{"edu_type":"m.typing","content":{"room_id":%q,"user_id":%q,"typing":true}}`, ref.ID, bob)
		}
		accepted(t, w.send(w.p, "typing", nil, []string{typing(shut), typing(open)}))
		if got := w.typed(); !slices.Equal(got, []string{string(bob)}) {
			t.Errorf("typing are %v", got)
		}
		old := w.room(1, "public_chat")
		w.setState(old, "m.room.server_acl", "", `{"allow":["*"],"deny":["localhost"]}`)
		invite := w.p.Seal(1, map[string]any{
			"type": "m.room.member", "sender": string(bob), "state_key": "@alice:us.test", "room_id": string(old.ID), "depth": 20, "event_id": "$invite:" + string(w.p.Name),
			"content": map[string]any{"membership": "invite"}, "prev_events": []any{}, "auth_events": []any{}, "origin": string(w.p.Name), "origin_server_ts": w.clk.now().UnixMilli(),
		})
		if a := w.p.Do(t, w.us, "PUT", v1+"/invite"+seg(string(old.ID), string(invite.ID)), invite.JSON); a.Status != 403 || a.Code() != "M_FORBIDDEN" {
			t.Errorf("an invitation by the first version: %d %s", a.Status, a.Body)
		}
		// Its members are still members, so it goes on getting what is said.
		said := w.say(shut, "alice", "still sent")
		if !slices.Contains(w.outgoing(w.p.Name, 0), said) {
			t.Error("a server that is shut out does not get events any more")
		}
	})
}

// TestLongAccessListsCostLittle fills an access list with as many patterns as an event holds.
func TestLongAccessListsCostLittle(t *testing.T) {
	proof.Of(t, "F20")
	long := strings.Repeat("a", 200) + ".test"
	many := slices.Repeat([]string{"*a*a*a*a*b"}, 10_000)
	content, _ := json.Marshal(map[string]any{"allow": []string{"*"}, "deny": many})
	acl := matrix.ParseServerACL(content)
	fastest := time.Hour
	for range 3 {
		began := time.Now()
		if !acl.Allowed(matrix.ServerName(long)) {
			t.Error("a server that no pattern matches is shut out")
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > time.Second { // 8 ms; a pattern matcher that goes back would take years
		t.Errorf("one look takes %s", fastest)
	}
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		content, _ := json.Marshal(map[string]any{"allow": []string{"*"}, "deny": many[:4500]})
		w.setState(ref, "m.room.server_acl", "", string(content))
		w.say(ref, "alice", "after it: each look reads the newest event, and the list is a long one")
		plain := w.room(11, "public_chat")
		look := func(ref rooms.Ref) time.Duration {
			began := time.Now()
			if ok, err := w.rooms.ServerAllowed(t.Context(), ref, matrix.ServerName(long)); err != nil || !ok {
				t.Fatal(ok, err)
			}
			return time.Since(began)
		}
		look(ref)
		var withList, without []time.Duration // by turns, so that a busy machine disturbs both
		for range 200 {
			withList, without = append(withList, look(ref)), append(without, look(plain))
		}
		slices.Sort(withList)
		slices.Sort(without)
		// The list's verdict is remembered: 36 ms of matching are not repeated (the race detector makes that 300).
		if long, short := withList[100], without[100]; long > 2*short+5*time.Millisecond {
			t.Errorf("a look takes %s with the list and %s without one", long, short)
		}
		e := g.message("through it")
		accepted(t, w.send(w.p, "long", []string{string(e.JSON)}, nil))
		w.arrives(ref, e.ID)
	})
}
