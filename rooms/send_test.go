package rooms_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// TestStateAndPower sends state with and without the power for it.
func TestStateAndPower(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice, bob := l.user("alice"), l.user("bob")
		for _, v := range matrix.RoomVersions() {
			ref := l.create(alice, func(q *rooms.CreateRequest) { q.Version = v })
			l.join(ref, bob)
			_, err := l.state(ref, bob, "m.room.name", "", `{"name":"bob's"}`)
			l.refused("name without power", err, "M_FORBIDDEN")
			_, err = l.state(ref, alice, "m.room.name", "", `{"name":"alice's"}`)
			l.must(err)
			if got := l.current(ref, "m.room.name", ""); got != `{"name":"alice's"}` {
				l.t.Errorf("version %s: the name is %s", v, got)
			}
			_, err = l.state(ref, bob, "m.room.power_levels", "", `{"users":{"@bob:one.example":100}}`)
			l.refused("levels without power", err, "M_FORBIDDEN")
			_, err = l.state(ref, alice, "m.room.create", "", `{}`)
			l.refused("another creation", err, "M_FORBIDDEN")
			_, err = l.state(ref, bob, "org.example", string(alice.ID), `{}`)
			l.refused("state of somebody else", err, "M_FORBIDDEN")
			_, err = l.state(ref, alice, "m.room.server_acl", "", `{"allow":["*"],"deny":["one.example"]}`)
			l.refused("a list that shuts us out", err, "M_FORBIDDEN")
			_, err = l.state(ref, alice, "m.room.canonical_alias", "", `{"alias":"#nowhere:one.example"}`)
			l.refused("an alias that leads nowhere", err, "M_BAD_ALIAS")
			for _, content := range []string{`{"n":1.5}`, `{"n":9007199254740992}`, `[]`, `{"a":1,"a":2}`} {
				_, err = l.rooms.Send(l.t.Context(), rooms.SendRequest{Room: ref, Sender: bob, Type: "m.x", Content: []byte(content)})
				l.refused(content, err, "M_BAD_JSON")
			}
			_, err = l.rooms.Send(l.t.Context(), message(ref, bob, strings.Repeat("x", 65_536)))
			l.refused("a message that is too long", err, "M_TOO_LARGE")
			_, err = l.state(ref, alice, strings.Repeat("x", 256), "", `{}`)
			l.refused("a type that is too long", err, "M_BAD_JSON")
		}
	})
}

// TestRedact removes messages: one's own, and others' with the power; never somebody else's without.
func TestRedact(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice, bob := l.user("alice"), l.user("bob")
		for _, v := range matrix.RoomVersions() {
			ref := l.create(alice, func(q *rooms.CreateRequest) { q.Version = v })
			l.join(ref, bob)
			redact := func(who rooms.Sender, target matrix.EventID) error {
				_, err := l.rooms.Send(l.t.Context(), rooms.SendRequest{
					Room: ref, Sender: who, Type: "m.room.redaction", Redacts: target, Content: fmt.Appendf(nil, `{"redacts":%q}`, target)})
				return err
			}
			hers, his, kept := l.text(ref, alice, "hers"), l.text(ref, bob, "his"), l.text(ref, bob, "kept")
			if !v.RedactionAuthRule() { // those versions ask only whether both events are of one server
				l.refused("somebody else's", redact(bob, hers), "M_FORBIDDEN")
			}
			l.must(redact(bob, his))
			l.must(redact(alice, l.text(ref, bob, "his too")))
			row := l.row(ref, his)
			if !row.Flags.Has(store.FlagRedacted) || string(row.Event.Content()) != "{}" || row.Event.ID() != his {
				l.t.Errorf("version %s: the redacted message is %s", v, row.Event.JSON())
			}
			if body, _ := matrix.GetString(l.row(ref, kept).Event.Content(), "body"); body != "kept" {
				l.t.Errorf("version %s: the other message is %q", v, body)
			}
			created := l.timeline(ref)[0]
			l.must(redact(alice, created.Event.ID()))
			if l.row(ref, created.Event.ID()).Flags.Has(store.FlagRedacted) {
				l.t.Errorf("version %s: the creation is redacted", v)
			}
		}
	})
}

// TestSameTransactionIsOneEvent sends the same transaction 50 times at once, then again from a fresh process.
func TestSameTransactionIsOneEvent(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		ref := l.create(alice)
		before := len(l.timeline(ref))
		req := message(ref, alice, "once")
		req.Txn = rooms.TxnKey(1, "send", ref.ID, req.Type, "txn")
		var mu sync.Mutex
		seen := map[matrix.EventID]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				id, err := l.rooms.Send(l.t.Context(), req)
				mu.Lock()
				defer mu.Unlock()
				if seen[id]++; err != nil {
					l.t.Error(err)
				}
			})
		}
		all.Wait()
		id, err := newLocal(l.t, l.db).rooms.Send(l.t.Context(), req)
		l.must(err)
		seen[id]++
		if len(seen) != 1 || len(l.timeline(ref)) != before+1 {
			l.t.Errorf("one transaction made %v", seen)
		}
		for what, key := range map[string]store.TxnKey{
			"another device": rooms.TxnKey(2, "send", ref.ID, req.Type, "txn"), "another ID": rooms.TxnKey(1, "send", ref.ID, req.Type, "txn2"),
			"another type": rooms.TxnKey(1, "send", ref.ID, "m.x", "txn"), "another room": rooms.TxnKey(1, "send", "!other", req.Type, "txn"),
		} {
			req.Txn = key
			if again, err := l.rooms.Send(l.t.Context(), req); err != nil || again == id {
				l.t.Errorf("%s is the same transaction: %v", what, err)
			}
		}
	})
}

// TestOrderPerSender has many senders write into one room at once: each one's messages stand in the order in which they
// were acknowledged, and none is lost or doubled.
func TestOrderPerSender(t *testing.T) {
	eachLocal(t, func(l *local) {
		const senders, each = 8, 25
		alice := l.user("alice")
		ref := l.create(alice)
		sent := make([][]matrix.EventID, senders)
		var all sync.WaitGroup
		for n := range senders {
			who := l.user(fmt.Sprint("u", n))
			l.join(ref, who)
			all.Go(func() {
				for i := range each {
					id, err := l.rooms.Send(l.t.Context(), message(ref, who, fmt.Sprint(i)))
					if err != nil {
						l.t.Error(err)
						return
					}
					sent[n] = append(sent[n], id)
				}
			})
		}
		all.Wait()
		got := map[matrix.UserID][]matrix.EventID{}
		last := store.Pos(0)
		for _, row := range l.timeline(ref) {
			if row.Pos <= last {
				l.t.Errorf("position %d after %d", row.Pos, last)
			}
			last = row.Pos
			if len(row.Extremities) > 0 {
				l.t.Errorf("event %s leaves %d ends, although nobody else writes", row.Event.ID(), len(row.Extremities))
			}
			if row.Event.Type() == "m.room.message" {
				got[row.Event.Sender()] = append(got[row.Event.Sender()], row.Event.ID())
			}
		}
		for n, want := range sent {
			if have := got[l.user(fmt.Sprint("u", n)).ID]; fmt.Sprint(have) != fmt.Sprint(want) {
				l.t.Errorf("sender %d: %v, want %v", n, have, want)
			}
		}
	})
}
