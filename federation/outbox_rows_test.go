package federation

import (
	"context"
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

// now is the position up to which everything is written.
func (w *houseWorld) nowPos() store.Pos {
	w.t.Helper()
	pos, err := w.db.StreamBound(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return pos
}

// TestServersGetWhatIsTheirs is the border of every stay: a server hears of what comes from its first user's arrival to
// its last one's departure, that one included, and of nothing else.
func TestServersGetWhatIsTheirs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		q := peer.New(t, w.ca, peer.Options{})
		ref, other := w.room(12, "public_chat"), w.room(12, "public_chat")
		bob, carol, dave := w.p.User("bob"), w.p.User("carol"), q.User("dave")
		say := func(text string) matrix.EventID { return w.say(ref, "alice", text) }

		say("nobody is here")
		start := w.nowPos()
		w.joins(w.p, ref, bob)
		both := []matrix.EventID{say("for p")}
		daves, _ := w.joins(q, ref, dave)
		both = append(both, daves.ID)
		w.say(other, "alice", "elsewhere")
		carols, _ := w.joins(w.p, ref, carol)
		left := w.leaves(w.p, ref, bob)
		again := say("carol is still here")
		kick, err := w.rooms.Kick(t.Context(), rooms.MemberRequest{Room: ref, Sender: w.user("alice"), Target: carol})
		if err != nil {
			t.Fatal(err)
		}
		last := say("p is gone")

		forP := append(slices.Clone(both), again, kick)
		forQ := []matrix.EventID{carols.ID, left.ID, again, kick, last}
		if got := w.outgoing(w.p.Name, start); !slices.Equal(got, forP) {
			t.Errorf("p is sent %v, want %v", got, forP)
		}
		if got := w.outgoing(q.Name, start); !slices.Equal(got, forQ) {
			t.Errorf("q is sent %v, want %v", got, forQ)
		}
		if got := w.outgoing("never.test", 0); len(got) != 0 {
			t.Errorf("a stranger is sent %v", got)
		}
		for _, p := range []*peer.Peer{w.p, q} {
			from, err := w.rows.Start(t.Context(), p.Name)
			if err != nil || from.PDUs < start || len(w.outgoing(p.Name, from.PDUs)) != len(w.outgoing(p.Name, 0)) {
				t.Errorf("%s is sent things from %v on (%v), want after %d", p.Name, from, err, start)
			}
		}
	})
}

func TestPagesOfTheOutbox(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ctx := t.Context()
		refs := []rooms.Ref{w.room(11, "public_chat"), w.room(11, "public_chat")}
		for _, ref := range refs {
			w.joins(w.p, ref, w.p.User("bob"))
		}
		start := w.nowPos()
		var want, latest []matrix.EventID
		for i := range 7 {
			want = append(want, w.say(refs[i%2], "alice", fmt.Sprint(i)))
		}
		latest = want[5:]
		var got []matrix.EventID
		at := start
		for range 10 {
			pdus, to, err := w.rows.PDUs(ctx, w.p.Name, PDUQuery{After: at, Limit: 2})
			if err != nil || to < at {
				t.Fatalf("a page after %d leads to %d (%v)", at, to, err)
			}
			for _, p := range pdus {
				if ev, err := matrix.ParseEvent(p.JSON, 11); err != nil || ev.ID() != p.ID {
					t.Errorf("%s is sent as %s", p.ID, p.JSON)
				}
				got = append(got, p.ID)
			}
			if at = to; len(pdus) == 0 {
				break
			}
		}
		if !slices.Equal(got, want) || at != w.nowPos() {
			t.Errorf("pages give %v up to %d, want %v up to %d", got, at, want, w.nowPos())
		}
		pdus, to, err := w.rows.PDUs(ctx, w.p.Name, PDUQuery{After: start, LatestOnly: true, Limit: 50})
		if err != nil || len(pdus) != 2 || pdus[0].ID != latest[0] || pdus[1].ID != latest[1] || to != w.nowPos() {
			t.Errorf("the latest are %v up to %d, %v", pdus, to, err)
		}
		for limit, n := range map[int]int{100: 7, 3: 3} {
			if got, bound, err := w.rows.Backlog(ctx, w.p.Name, start, limit); err != nil || got != n || bound != w.nowPos() {
				t.Errorf("the backlog is %d up to %d, %v; want %d", got, bound, err, n)
			}
		}
	})
}

// TestManyRoomsAndFewGiveTheSame compares the two ways to a destination's events and receipts.
func TestManyRoomsAndFewGiveTheSame(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		w.joins(w.p, ref, w.p.User("bob"))
		id := w.say(ref, "alice", "1")
		if err := w.rooms.Receipt(t.Context(), ref, w.user("alice"), "m.read", id, ""); err != nil {
			t.Fatal(err)
		}
		things := func() (ids []matrix.EventID, n int, receipts int) {
			_, _, err := w.rows.PDUs(t.Context(), w.p.Name, PDUQuery{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			if n, _, err = w.rows.Backlog(t.Context(), w.p.Name, 0, 1000); err != nil {
				t.Fatal(err)
			}
			edus, _, err := w.rows.EDUs(t.Context(), w.p.Name, EDUQuery{Limit: 100, Bytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			return w.outgoing(w.p.Name, 0), n, len(edus)
		}
		few, n, receipts := things()
		if n != len(few) || n == 0 || receipts != 1 {
			t.Fatalf("%v, %d, %d receipts", few, n, receipts)
		}
		// A user of the peer in more rooms than are asked one by one.
		u, err := db.User(t.Context(), w.p.User("bob"))
		if err != nil {
			t.Fatal(err)
		}
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			for i := range 201 {
				if _, err := tx.Exec(`INSERT INTO memberships (room, member, server, membership, event, pos, joined) VALUES ($1, $2, $3, 1, 0, 1, 1)`,
					1_000_000+i, u.NID, u.Server); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		many, m, more := things()
		if !slices.Equal(few, many) || m != n || more != receipts {
			t.Errorf("with many rooms: %v, %d, %d receipts; with few: %v, %d, %d", many, m, more, few, n, receipts)
		}
	})
}

func TestConcernedServers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		q := peer.New(t, w.ca, peer.Options{})
		ref, other := w.room(11, "public_chat"), w.room(11, "public_chat")
		concerned := func(after store.Pos) []matrix.ServerName {
			names, upTo, err := w.rows.Concerned(t.Context(), after)
			if err != nil || upTo != w.nowPos() {
				t.Fatalf("up to %d: %v", upTo, err)
			}
			slices.Sort(names)
			return names
		}
		want := func(what string, after store.Pos, servers ...*peer.Peer) {
			t.Helper()
			var names []matrix.ServerName
			for _, p := range servers {
				names = append(names, p.Name)
			}
			slices.Sort(names)
			if got := concerned(after); !slices.Equal(got, names) {
				t.Errorf("%s concerns %v, want %v", what, got, names)
			}
		}
		want("the beginning", 0)
		w.joins(w.p, ref, w.p.User("bob"))
		w.joins(q, other, q.User("carol"))
		want("all", 0, w.p, q)
		at := w.nowPos()
		want("nothing", at)
		id := w.say(ref, "alice", "1")
		want("a message", at, w.p)
		at = w.nowPos()
		if err := w.rooms.Receipt(t.Context(), ref, w.user("alice"), "m.read", id, ""); err != nil {
			t.Fatal(err)
		}
		want("a receipt", at, w.p)
		at = w.nowPos()
		if _, err := w.rooms.Kick(t.Context(), rooms.MemberRequest{Room: other, Sender: w.user("alice"), Target: q.User("carol")}); err != nil {
			t.Fatal(err)
		}
		want("a departure", at, q)
	})
}

func TestReceiptsAreSentTogether(t *testing.T) {
	proof.Of(t, "ED-03", "US-08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ctx := t.Context()
		ref := w.room(11, "public_chat")
		w.joins(w.p, ref, w.p.User("bob"))
		id := w.say(ref, "alice", "1")
		for _, r := range []struct{ kind, thread string }{{"m.read", ""}, {"m.read", "main"}, {"im.conclave.delivered", ""}, {"m.read.private", ""}} {
			if err := w.rooms.Receipt(ctx, ref, w.user("alice"), r.kind, id, r.thread); err != nil {
				t.Fatal(err)
			}
		}
		edus, to, err := w.rows.EDUs(ctx, w.p.Name, EDUQuery{Limit: 100, Bytes: 1 << 20})
		if err != nil || len(edus) != 2 || to.Others != w.nowPos() {
			t.Fatalf("%d EDUs up to %v, %v", len(edus), to, err)
		}
		all := string(edus[0].JSON) + string(edus[1].JSON)
		if strings.Count(all, `"m.read"`) != 2 || strings.Count(all, `"im.conclave.delivered"`) != 1 || strings.Contains(all, "private") ||
			!strings.Contains(all, `"thread_id":"main"`) {
			t.Errorf("receipts are sent as %s", all)
		}
		one, to1, err := w.rows.EDUs(ctx, w.p.Name, EDUQuery{Limit: 1, Bytes: 1 << 20})
		if err != nil || len(one) != 1 || to1.Others >= to.Others {
			t.Fatalf("one EDU: %v up to %v, %v", one, to1, err)
		}
		rest, to2, err := w.rows.EDUs(ctx, w.p.Name, EDUQuery{From: to1, Limit: 100, Bytes: 1 << 20})
		if err != nil || len(rest) != 1 || to2.Others != to.Others {
			t.Errorf("the rest: %v up to %v, %v", rest, to2, err)
		}
		if none, _, err := w.rows.EDUs(ctx, w.p.Name, EDUQuery{From: to, Limit: 100, Bytes: 1 << 20}); err != nil || len(none) != 0 {
			t.Errorf("after all: %v, %v", none, err)
		}
	})
}

// TestDeliveryCatchesUp runs the sender over committed rows while a destination is away, and when it comes back.
func TestDeliveryCatchesUp(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		w.p.Trust(ourName, w.c.own.Key().ID, w.c.own.Key().Public())
		ref := w.room(12, "public_chat")
		down := true
		got := make(chan matrix.EventID, 100)
		w.p.Handle("PUT", "/_matrix/federation/v1/send/{txn}", func(c *peer.Call) peer.Reply {
			w.mu.Lock()
			defer w.mu.Unlock()
			if down {
				return peer.Refuse(503, "M_UNKNOWN")
			}
			var body struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			c.JSON(t, &body)
			for _, raw := range body.PDUs {
				ev, err := matrix.ParseEvent(raw, 12)
				if err != nil {
					t.Errorf("sent %s: %v", raw, err)
					continue
				}
				got <- ev.ID()
			}
			return peer.Reply{Body: map[string]any{"pdus": map[string]any{}}}
		})
		signals := NewSignals(db, w.c.own, nil, w.clk.now)
		w.rows = NewRows(RowsOptions{DB: db, Identity: w.c.own, Signals: signals})
		s := NewSender(SenderOptions{DB: db, Outbox: w.rows, Client: w.c, Identity: w.c.own, Clock: w.clk.now, Alone: true, Sweep: 5 * time.Millisecond})
		signals.Wake(s.WakeServer)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })

		w.joins(w.p, ref, w.p.User("bob"))
		var want []matrix.EventID
		for i := range 60 {
			want = append(want, w.say(ref, "alice", fmt.Sprint(i)))
		}
		s.Wake()
		w.p.WaitCalls(t, "/_matrix/federation/v1/send/", 1)
		w.mu.Lock()
		down = false
		w.mu.Unlock()
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for i, id := range want {
			if next := w.next(got, again); next != id {
				t.Fatalf("event %d is %s, want %s", i, next, id)
			}
		}
		signals.Typing(ref, "@alice:us.test", true)
		calls := w.p.WaitCalls(t, "/_matrix/federation/v1/send/", len(w.p.Calls("/_matrix/federation/v1/send/"))+1)
		if last := string(calls[len(calls)-1].Body); !strings.Contains(last, `"m.typing"`) || !strings.Contains(last, "@alice:us.test") {
			t.Errorf("typing is sent as %s", last)
		}
	})
}

// next waits for an event while time passes for the server.
func (w *houseWorld) next(got chan matrix.EventID, passes *time.Ticker) matrix.EventID {
	for limit := time.After(30 * time.Second); ; { // much longer than it takes
		select {
		case id := <-got:
			return id
		case <-passes.C:
			w.clk.add(time.Second)
		case <-limit:
			return ""
		}
	}
}
