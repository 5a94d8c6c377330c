package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// heldSource lets whoever asks for missing events wait, and with it the room that they are missing in.
type heldSource struct {
	rooms.EventSource
	asked, open chan struct{}
	once        sync.Once
}

func (h *heldSource) MissingEvents(ctx context.Context, _ matrix.ServerName, _ matrix.RoomID, _, _ []matrix.EventID, _ int) ([]json.RawMessage, error) {
	h.once.Do(func() { close(h.asked) })
	select {
	case <-h.open:
		return nil, errors.New("the events are nowhere")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// chain makes messages of the guest's, each behind the one before, the first on the room's present.
func (g *guest) chain(texts []string) (pdus []string, last matrix.EventID) {
	g.w.t.Helper()
	var depth int64
	for i, text := range texts {
		var knobs []peer.Knob
		if i > 0 {
			depth++
			knobs = []peer.Knob{peer.Set("prev_events", []any{string(last)}), peer.Set("depth", depth)}
		}
		e := g.message(text, knobs...)
		if i == 0 {
			depth, _ = e.Members["depth"].(int64)
		}
		pdus, last = append(pdus, string(e.JSON)), e.ID
	}
	return pdus, last
}

// TestCrowdedRoomAnswersLater brings a room more events than may wait in it while it is held up. Whoever brings them is
// answered once there is room, or after five seconds; another room of the same server is not held up; and in the end
// every event has its place, in order and once, although transactions came twice.
func TestCrowdedRoomAnswersLater(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		held := &heldSource{EventSource: verifier{ring: w.ring}, asked: make(chan struct{}), open: make(chan struct{})}
		w.rooms.SetSource(held)
		ref, beside := w.room(11, "public_chat"), w.room(11, "public_chat")
		g, h := w.guestIn(w.p, ref, w.p.User("bob")), w.guestIn(w.p, beside, w.p.User("bob"))
		texts := make([]string, 600)
		for i := range texts {
			texts[i] = fmt.Sprint(i)
		}
		pdus, last := g.chain(texts)
		transaction := func(i int) peer.Answer { return w.send(w.p, fmt.Sprint("t", i), pdus[50*i:50*i+50], nil) }

		hole := g.message("hole", peer.Set("prev_events", []any{"$nobodyhasthisone"}))
		accepted(t, w.send(w.p, "hole", []string{string(hole.JSON)}, nil))
		<-held.asked // the room waits for what nobody has
		for i := range 10 {
			accepted(t, transaction(i))
		}

		began := time.Now()
		var opened atomic.Bool
		type late struct {
			answer peer.Answer
			early  bool
		}
		answers := make(chan late, 4)
		for _, i := range []int{10, 10, 11} {
			go func() {
				a := transaction(i)
				answers <- late{a, !opened.Load() && time.Since(began) < 4*time.Second}
			}()
		}
		aside := h.message("beside")
		accepted(t, w.send(w.p, "beside", []string{string(aside.JSON)}, nil))
		w.arrives(beside, aside.ID)
		opened.Store(true)
		close(held.open)
		for range 3 {
			a := <-answers
			accepted(t, a.answer)
			if a.early {
				t.Error("a transaction for a crowded room is answered at once")
			}
		}
		w.arrives(ref, last)
		accepted(t, transaction(11)) // once more
		if got := w.bodies(ref); !slices.Equal(got, texts) {
			t.Errorf("%d messages are there, from %q", len(got), got[:min(10, len(got))])
		}
		// An event is there before its row is cleared away.
		wait.Until(t, "nothing to wait but what nobody can place", func() bool { return w.count("staged") == 1 })
	})
}

// bodies are the texts of the messages of a room, in their order.
func (w *houseWorld) bodies(ref rooms.Ref) (all []string) {
	w.t.Helper()
	viewer, err := w.rooms.Viewer(w.t.Context(), ref.NID, w.user("alice"))
	if err != nil {
		w.t.Fatal(err)
	}
	page, err := w.rooms.Page(w.t.Context(), rooms.PageRequest{Ref: ref, Viewer: viewer, Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, row := range page.Events {
		if body, ok := matrix.GetString(row.Event.Content(), "body"); ok {
			all = append(all, body)
		}
	}
	return all
}
