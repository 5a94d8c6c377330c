package rooms

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// redactAfter makes a redaction that follows some events.
func (w *world) redactAfter(by matrix.UserID, target matrix.EventID, prev ...matrix.EventID) *matrix.Event {
	w.t.Helper()
	e := event{sender: by, typ: "m.room.redaction", content: map[string]any{"reason": "spam"}, redacts: target, prev: prev}
	if w.version.RedactsInContent() {
		e.content, e.redacts = map[string]any{"redacts": target}, ""
	}
	return w.on(e)
}

// shown says whether a user of ours gets an event, and fails the test unless all ways to it say the same.
func (n *node) shown(ref Ref, id matrix.EventID) bool {
	n.t.Helper()
	viewer, err := n.Viewer(n.t.Context(), ref.NID, n.sender(me))
	if err != nil {
		n.t.Fatal(err)
	}
	ways := map[string]bool{}
	for _, backward := range []bool{false, true} {
		q := PageRequest{Ref: ref, Viewer: viewer, Backward: backward, Limit: 1000}
		if backward {
			q.From = Newest
		}
		page, err := n.Page(n.t.Context(), q)
		if err != nil {
			n.t.Fatal(err)
		}
		ways[fmt.Sprint("a page, backward ", backward)] = slices.ContainsFunc(page.Events, func(row *store.EventRow) bool { return row.Event.ID() == id })
	}
	asked := func(way string, err error) {
		var no *matrix.Error
		if err != nil && (!errors.As(err, &no) || no.Code != "M_NOT_FOUND") {
			n.t.Errorf("%s: %v", way, err)
		}
		ways[way] = err == nil
	}
	_, err = n.Visible(n.t.Context(), ref, viewer, id)
	asked("by its ID", err)
	_, _, _, err = n.Around(n.t.Context(), ref, viewer, id, 2, nil)
	asked("what is around it", err)
	asked("a receipt", n.Receipt(n.t.Context(), ref, n.sender(me), "m.read", id, ""))
	first := ways["by its ID"]
	for way, is := range ways {
		if is != first {
			n.t.Errorf("%s: shown %v, by its ID %v", way, is, first)
		}
	}
	return first
}

// streamed are the events that came into the present after a position, as far as clients may see them.
func (n *node) streamed(after store.Pos) (ids []matrix.EventID) {
	n.t.Helper()
	err := n.db.Read(n.t.Context(), func(tx *store.Tx) error {
		ids = nil
		return tx.Stream(after, 1<<60, 1000, func(row *store.EventRow) {
			if row.Visible() {
				ids = append(ids, row.Event.ID())
			}
		})
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return ids
}

// because is the redaction that clients are told of with an event.
func (n *node) because(ref Ref, id matrix.EventID) (by matrix.EventID) {
	n.t.Helper()
	err := n.db.Read(n.t.Context(), func(tx *store.Tx) error {
		row, err := tx.RedactionOf(ref.NID, id)
		if row != nil {
			by = row.Event.ID()
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return by
}

// gone fails the test unless an event is held without its secret and says who took it away.
func (n *node) gone(ref Ref, id, by matrix.EventID) {
	n.t.Helper()
	row := n.row(ref, id)
	if row == nil || !row.Flags.Has(store.FlagRedacted) || strings.Contains(string(row.Event.JSON()), "secret") {
		n.t.Errorf("the target is %+v", row)
	}
	if got := n.because(ref, id); got != by {
		n.t.Errorf("redacted by %q, not %s", got, by)
	}
}

// sound fails the test if the database is not.
func (n *node) sound() {
	n.t.Helper()
	if _, err := n.Verify(n.t.Context(), true, func(f store.Finding) { n.t.Errorf("%s: %s", f.Rule, f.Text) }); err != nil {
		n.t.Error(err)
	}
}

// TestRedactionWaitsForItsTarget brings a redaction before the event that it redacts, which then comes with a transaction
// or is fetched as missing: nobody is shown the redaction before that, the room goes on behind it meanwhile, also after a
// restart, and clients that have read past it get it with its target.
func TestRedactionWaitsForItsTarget(t *testing.T) {
	for way, version := range map[string]matrix.RoomVersion{"transaction": 3, "gap": 11} {
		for _, engine := range dbtest.Engines {
			t.Run(way+" "+engine, func(t *testing.T) {
				proof.Of(t, "RD-08")
				url := dbtest.URL(t, engine)
				db := dbtest.OpenURL(t, url)
				w := newWorld(t, version)
				n := newNode(t, db, w)
				ref := n.join()
				root := w.tip
				secret := w.sayAfter(bob, "secret", root)
				redaction := w.redactAfter(alice, secret.ID(), root)
				n.bring(redaction)
				if n.shown(ref, redaction.ID()) {
					t.Error("it is shown before its target has come")
				}
				if got := n.ends(ref); !slices.Equal(got, []matrix.EventID{redaction.ID()}) {
					t.Errorf("ends %s", got)
				}
				n.say(ref, "meanwhile")
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db = dbtest.OpenURL(t, url)
				n = newNode(t, db, w)
				if n.shown(ref, redaction.ID()) {
					t.Error("it is shown after a restart")
				}
				read := n.bound()
				if way == "transaction" {
					n.bring(secret)
				} else {
					n.bring(w.sayAfter(bob, "behind", secret.ID()))
				}
				n.gone(ref, secret.ID(), redaction.ID())
				if !n.shown(ref, redaction.ID()) || !n.shown(ref, secret.ID()) {
					t.Error("they are not shown")
				}
				if got := n.streamed(read); len(got) < 2 || !slices.Equal(got[:2], []matrix.EventID{redaction.ID(), secret.ID()}) {
					t.Errorf("who has read up to there gets %s", got)
				}
				n.bring(redaction, secret) // once more
				n.say(ref, "after all")
				n.sameState(ref, n.ends(ref)...)
				n.sound()
			})
		}
	}
}

func (n *node) bound() store.Pos {
	n.t.Helper()
	bound, err := n.db.StreamBound(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return bound
}

// TestRedactionWaitsForHistory redacts what was said before this server was in the room, by a redaction of the present
// and by one of the history itself: each is shown once its target is, and never before.
func TestRedactionWaitsForHistory(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RD-08")
		w := newWorld(t, 11)
		older, old := w.say(bob, "secret of yore"), w.say(bob, "secret")
		for i := range backfillSize {
			w.say(bob, fmt.Sprint(i))
		}
		past := w.redactAfter(alice, older.ID(), w.tip)
		w.say(bob, "newest")
		n := newNode(t, db, w)
		ref := n.join()
		present := w.redactAfter(alice, old.ID(), w.tip)
		n.bring(present)
		back := func() {
			t.Helper()
			viewer, err := n.Viewer(t.Context(), ref.NID, n.sender(me))
			if err == nil {
				_, err = n.backfill(t.Context(), ref, Place{}, Newest)
			}
			if err != nil {
				t.Fatal(err, viewer)
			}
		}
		back()
		if row := n.row(ref, past.ID()); row == nil || row.Pos == 0 || n.row(ref, old.ID()) != nil {
			t.Fatal("the history did not come in pieces")
		}
		if n.shown(ref, past.ID()) || n.shown(ref, present.ID()) {
			t.Error("shown before their targets have come")
		}
		back()
		n.gone(ref, older.ID(), past.ID())
		n.gone(ref, old.ID(), present.ID())
		if !n.shown(ref, past.ID()) || !n.shown(ref, present.ID()) || !n.shown(ref, old.ID()) {
			t.Error("they are not shown")
		}
		n.sound()
	})
}

// TestRedactionWaitsForState has the target of a redaction come as part of a state that is asked for.
func TestRedactionWaitsForState(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RD-08")
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		topic := w.on(event{sender: alice, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": "secret"}, prev: []matrix.EventID{root}})
		lost := w.sayAfter(bob, "lost", topic.ID())
		redaction := w.redactAfter(alice, topic.ID(), root)
		n.bring(redaction)
		if n.shown(ref, redaction.ID()) {
			t.Error("it is shown before its target has come")
		}
		w.spoil = func(call string, raw json.RawMessage) json.RawMessage {
			if call == "missing" {
				return nil
			}
			return raw
		}
		n.bring(w.sayAfter(bob, "behind", lost.ID()))
		n.gone(ref, topic.ID(), redaction.ID())
		if row := n.row(ref, topic.ID()); row.Pos != 0 {
			t.Error("the topic came as an event, not as state")
		}
		if !n.shown(ref, redaction.ID()) {
			t.Error("it is not shown")
		}
		w.spoil = nil
		n.bring(topic) // whole once more
		n.gone(ref, topic.ID(), redaction.ID())
		n.sound()
	})
}

// TestRedactionsWithoutEffectAreHidden has redactions whose senders may not do that, before and after their target, one
// of what was rejected and one of nothing. None is ever shown, and none stands in the way of one that counts.
func TestRedactionsWithoutEffectAreHidden(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RD-08")
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		secret := w.sayAfter(bob, "secret", root)
		early := w.redactAfter(eve, secret.ID(), root)
		n.bring(early, secret)
		late := w.redactAfter(eve, secret.ID(), secret.ID())
		refused := w.build(event{sender: bob, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": "no"}, prev: []matrix.EventID{root}})
		ofRefused := w.redactAfter(bob, refused.ID(), root)
		nothing := w.on(event{sender: bob, typ: "m.room.redaction", content: map[string]any{}, prev: []matrix.EventID{root}})
		never := w.redactAfter(alice, "$bm90aGluZyBoYXMgdGhpcyBJRCwgbm90aGluZyBoYXMgaXQ", root)
		n.bring(ofRefused)
		n.bring(late, refused, nothing, never)
		if row := n.row(ref, refused.ID()); row == nil || !row.Flags.Has(store.FlagRejected) {
			t.Fatalf("%+v", row)
		}
		for name, ev := range map[string]*matrix.Event{"early": early, "late": late, "of a rejected event": ofRefused, "of nothing": nothing, "of what never comes": never} {
			if n.shown(ref, ev.ID()) {
				t.Errorf("the redaction %s is shown", name)
			}
		}
		if row := n.row(ref, secret.ID()); row == nil || row.Flags.Has(store.FlagRedacted) || !n.shown(ref, secret.ID()) {
			t.Errorf("the target is %+v", row)
		}
		counts := w.redactAfter(alice, secret.ID(), secret.ID())
		n.bring(counts)
		n.gone(ref, secret.ID(), counts.ID())
		if !n.shown(ref, counts.ID()) || n.shown(ref, early.ID()) {
			t.Error("the wrong redaction is shown")
		}
		n.sound()
	})
}

// TestManyRedactionsOfOneEvent has more redactions wait for one event than are ever shown.
func TestManyRedactionsOfOneEvent(t *testing.T) {
	w := newWorld(t, 11)
	n := newNode(t, dbtest.Open(t, "sqlite"), w)
	ref := n.join()
	root := w.tip
	secret := w.sayAfter(bob, "secret", root)
	var all []*matrix.Event
	for range maxReleased + 5 {
		all = append(all, w.redactAfter(eve, secret.ID(), root)) // who may not
	}
	for range maxReleased + 5 {
		all = append(all, w.redactAfter(bob, secret.ID(), root))
	}
	n.bring(all...)
	read := n.bound()
	n.bring(secret)
	if got := n.streamed(read); len(got) != maxReleased+1 {
		t.Errorf("%d events", len(got))
	}
	n.gone(ref, secret.ID(), all[maxReleased+5].ID())
	n.sound()
}

// TestOldRedactionsAreNotHeldBack has a redaction come first in a version where the auth rules judge it.
func TestOldRedactionsAreNotHeldBack(t *testing.T) {
	w := newWorld(t, 2)
	n := newNode(t, dbtest.Open(t, "sqlite"), w)
	ref := n.join()
	root := w.tip
	secret := w.sayAfter(bob, "secret", root)
	redaction := w.redactAfter(alice, secret.ID(), root)
	n.bring(redaction)
	if !n.shown(ref, redaction.ID()) {
		t.Error("it is held back")
	}
	n.bring(secret)
	n.gone(ref, secret.ID(), redaction.ID())
}
