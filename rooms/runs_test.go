package rooms

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// chain makes messages that follow one another.
func (w *world) chain(from matrix.EventID, senders ...matrix.UserID) (events []*matrix.Event) {
	for i, sender := range senders {
		ev := w.sayAfter(sender, fmt.Sprint("m", i), from)
		events, from = append(events, ev), ev.ID()
	}
	return events
}

// commits counts the transactions that brought events after a position.
func (n *node) commits(after store.Pos) (count int) {
	n.t.Helper()
	bound, err := n.db.StreamBound(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	list, ok := n.db.Committed(after, bound)
	if !ok {
		n.t.Fatal("the journal does not reach so far")
	}
	for _, c := range list {
		if len(c.Events) > 0 {
			count++
		}
	}
	return count
}

// TestRunEntersTogether brings messages that follow one another, in a wrong order and twice: they are there once, in their
// order, and came in one transaction.
func TestRunEntersTogether(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 12)
		n := newNode(t, db, w)
		ref := n.join()
		before, err := db.StreamBound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		events := w.chain(w.tip, slices.Repeat([]matrix.UserID{alice, bob, eve}, 10)...)
		mixed := slices.Clone(events)
		slices.Reverse(mixed)
		n.bring(mixed...)
		if count := n.commits(before); count != 1 {
			t.Errorf("30 events came in %d transactions", count)
		}
		n.bring(events...)
		var want []string
		for i := range events {
			want = append(want, fmt.Sprint("m", i))
		}
		if got := n.bodies(ref, me); !slices.Equal(got, want) {
			t.Errorf("timeline %q", got)
		}
		if got := n.ends(ref); !slices.Equal(got, []matrix.EventID{events[29].ID()}) {
			t.Errorf("ends are %s", got)
		}
	})
}

// TestRunAroundWhatIsRefused has an event in the middle of a run that is rejected and one that only the present does not
// allow: the others enter, and the room ends where the run does.
func TestRunAroundWhatIsRefused(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		ban := w.member(alice, eve, "ban")
		first := w.sayAfter(bob, "first", root)
		n.bring(ban, first) // from here on the state of both ends together is known
		run := w.chain(first.ID(), bob, bob, eve, bob, bob)
		stranger := w.sayAfter("@nobody:near.test", "never", run[0].ID())
		n.bring(append(run[:2:2], append([]*matrix.Event{stranger}, run[2:]...)...)...)
		if row := n.row(ref, stranger.ID()); row == nil || !row.Flags.Has(store.FlagRejected) {
			t.Errorf("a stranger's event: %+v", row)
		}
		if row := n.row(ref, run[2].ID()); row == nil || !row.Flags.Has(store.FlagSoftFailed) || row.Pos != 0 {
			t.Errorf("an event of who was banned: %+v", row)
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"first", "m0", "m1", "m3", "m4"}) {
			t.Errorf("timeline %q", got)
		}
		want := []matrix.EventID{ban.ID(), run[4].ID()}
		slices.Sort(want)
		if got := n.ends(ref); !slices.Equal(got, want) {
			t.Errorf("ends are %s, not %s", got, want)
		}
	})
}

// TestRunWithARedactionOfItsOwn has a redaction and, behind it, its target in one run.
func TestRunWithARedactionOfItsOwn(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		secret := w.sayAfter(bob, "secret", root)
		redaction := w.on(event{sender: alice, typ: "m.room.redaction", content: map[string]any{"redacts": secret.ID()}, prev: []matrix.EventID{root}})
		before, err := db.StreamBound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.bring(redaction, secret, w.sayAfter(bob, "plain", secret.ID(), redaction.ID()))
		if count := n.commits(before); count != 1 {
			t.Errorf("they came in %d transactions", count)
		}
		row := n.row(ref, secret.ID())
		if row == nil || !row.Flags.Has(store.FlagRedacted) || strings.Contains(string(row.Event.JSON()), "secret") {
			t.Errorf("the target: %+v", row)
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"plain"}) {
			t.Errorf("timeline %q", got)
		}
	})
}
