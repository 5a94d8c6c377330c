package rooms

import (
	"fmt"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestSlowReaderDoesNotUndoARedaction lets a reader read an event, redacts it, and lets the reader go on.
func TestSlowReaderDoesNotUndoARedaction(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		n := startNode(t, db, func(*Options) {})
		ref := n.ownRoom()
		topic := ""
		id, err := n.Send(t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.topic", StateKey: &topic, Content: []byte(`{"topic":"secret"}`)})
		if err != nil {
			t.Fatal(err)
		}
		cache := n.cache.events
		nid := n.row(ref, id).NID
		cache.changed(nid) // not in the cache, or nobody would read it
		since := cache.reading()
		slow := n.row(ref, id)
		n.redact(ref, id)
		cache.fill(since, slow)
		n.isRedacted(ref, nid)

		// A writer that is slow to tell what it wrote is no different.
		written := n.newDraft(ref, &head{})
		written.out.Events = []*store.EventRow{slow}
		cache.changed(nid)
		n.committed(n.room(ref), written, nil)
		n.isRedacted(ref, nid)

		fresh := n.row(ref, id)
		cache.fill(cache.reading(), fresh)
		if row, ok := cache.get(nid); !ok || row != fresh {
			t.Error("the cache takes nothing in any more")
		}
	})
}

func (n *node) redact(ref Ref, id matrix.EventID) {
	n.t.Helper()
	_, err := n.Send(n.t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.redaction", Redacts: id, Content: fmt.Appendf(nil, `{"redacts":%q}`, id)})
	if err != nil {
		n.t.Fatal(err)
	}
}

// isRedacted fails the test if readers may still get an event's old text.
func (n *node) isRedacted(ref Ref, nid store.EventNID) {
	n.t.Helper()
	rows, err := n.eventsByNID(n.t.Context(), ref.NID, []store.EventNID{nid})
	if err != nil {
		n.t.Fatal(err)
	}
	if text := string(rows[0].Event.JSON()); !rows[0].Flags.Has(store.FlagRedacted) || strings.Contains(text, "secret") {
		n.t.Errorf("a reader gets %s", text)
	}
}

// TestRedactionInHistory lets a redaction come with history whose target is part of the state, and at hand.
func TestRedactionInHistory(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		topic := w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "secret"})
		for i := range 150 {
			w.say(bob, fmt.Sprint(i))
		}
		w.on(event{sender: alice, typ: "m.room.redaction", content: map[string]any{"redacts": topic.ID()}, prev: []matrix.EventID{w.tip}})
		w.say(bob, "newest")
		n := newNode(t, db, w)
		ref := n.join()
		nid := n.row(ref, topic.ID()).NID
		if rows, err := n.eventsByNID(t.Context(), ref.NID, []store.EventNID{nid}); err != nil || rows[0].Flags.Has(store.FlagRedacted) {
			t.Fatal("there is nothing to test", err)
		}
		viewer, err := n.Viewer(t.Context(), ref.NID, n.sender(me))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.History(t.Context(), PageRequest{Ref: ref, Viewer: viewer, From: Newest, Backward: true, Limit: 20}); err != nil {
			t.Fatal(err)
		}
		if row := n.row(ref, topic.ID()); row.Visible() {
			t.Error("the target came with the same piece of history")
		}
		n.isRedacted(ref, nid)
	})
}
