package federation_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// ward is a server whose user alice is in rooms of one other server; the last of them may be poisoned.
type ward struct {
	t     *testing.T
	s     *testserver.Server
	p     *peer.Peer
	us    peer.Target
	alice *testserver.User
	bob   matrix.UserID
	rooms []*peer.Room
	since string
	txns  int
	took  []time.Duration // of each round
}

// newWard makes a ward with some healthy rooms and one more.
func newWard(t *testing.T, engine string, healthy int) *ward {
	t.Helper()
	w := &ward{t: t, s: testserver.Start(t, testserver.Options{Engine: engine})}
	w.p = peer.New(t, w.s.CA, peer.Options{})
	w.us = peer.Target{Server: w.s.Name, URL: "https://" + string(w.s.Name)}
	w.alice, w.bob = w.s.Register("alice"), w.p.User("bob")
	for range healthy + 1 {
		room := w.p.NewRoom(11, "mallory")
		room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(w.bob)), Sender: w.bob, Content: object{"membership": "join"}})
		room.Host(nil)
		w.alice.Join(string(room.ID), string(w.p.Name))
		w.rooms = append(w.rooms, room)
	}
	w.since, _ = w.alice.Sync("", 0)["next_batch"].(string)
	return w
}

// silence makes the peer's answers about missing events hang until they are let go.
func (w *ward) silence() (letGo func()) {
	silent, end := context.WithCancel(w.t.Context())
	w.p.Handle("POST", peer.V1+"/get_missing_events/{roomId}", func(*peer.Call) peer.Reply {
		<-silent.Done()
		return peer.Refuse(http.StatusInternalServerError, "M_UNKNOWN")
	})
	return end
}

// refuse makes the peer's answers about missing events come at once and be of no use.
func (w *ward) refuse() {
	for _, path := range []string{"/get_missing_events/{roomId}", "/state_ids/{roomId}", "/state/{roomId}", "/event/{eventId}"} {
		for _, method := range []string{"GET", "POST"} {
			w.p.Handle(method, peer.V1+path, func(*peer.Call) peer.Reply { return peer.Refuse(http.StatusInternalServerError, "M_UNKNOWN") })
		}
	}
}

// message makes a message of bob in a room.
func (w *ward) message(room *peer.Room, poisoned bool) *peer.Event {
	s := peer.Spec{Type: "m.room.message", Sender: w.bob, Content: object{"msgtype": "m.text", "body": fmt.Sprint("round ", w.txns)}}
	if poisoned { // it follows what nobody has
		s.Prev, s.Apart = []matrix.EventID{matrix.EventID(fmt.Sprintf("$%043d", w.txns))}, true
	}
	return room.Make(s)
}

// round sends one message to each room in one transaction, the poison first, and notes how long it takes until alice has
// those of the healthy rooms.
func (w *ward) round(poisoned bool) {
	w.t.Helper()
	w.txns++
	pdus := [][]byte{w.message(w.rooms[len(w.rooms)-1], poisoned).JSON}
	missing := map[string]bool{}
	for _, room := range w.rooms[:len(w.rooms)-1] {
		e := w.message(room, false)
		pdus = append(pdus, e.JSON)
		missing[string(e.ID)] = true
	}
	began := time.Now()
	w.p.Send(w.t, w.us, fmt.Sprint("round", w.txns), pdus, nil)
	w.since = w.alice.SyncUntil(w.since, "the messages of the healthy rooms", func(body testserver.JSON) bool {
		joined, _ := testserver.At(body, "rooms", "join").(testserver.JSON)
		for room := range joined {
			for _, e := range testserver.Timeline(body, room) {
				delete(missing, fmt.Sprint(e["event_id"]))
			}
		}
		return len(missing) == 0
	})
	w.took = append(w.took, time.Since(began))
}

// middle is the median.
func middle(took []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)/2]
}

// TestAPoisonedRoomSlowsNoOther: all rooms come from one server, in common transactions. In one of them every event
// follows something that nobody has: at first the server that should know does not answer at all, then it answers that it
// does not work. The other rooms take no longer than those of a server beside it that gets the same without the poison,
// and it is not paid for with processor time either. Noise goes in both directions, so that more rounds cure it.
func TestAPoisonedRoomSlowsNoOther(t *testing.T) {
	proof.Of(t, "F14")
	healthy, rounds, most := 9, 12, 1.6 // beside other tests
	if os.Getenv("CONCLAVE_LONG") != "" {
		healthy, rounds, most = 49, 300, 1.05
	}
	testserver.Each(t, func(t *testing.T, engine string) {
		sick, well := newWard(t, engine, healthy), newWard(t, engine, healthy)
		turns := func(n int) (slower float64) {
			for i := range n {
				if i%2 == 0 {
					sick.round(true)
					well.round(false)
				} else {
					well.round(false)
					sick.round(true)
				}
			}
			return float64(middle(sick.took)) / float64(middle(well.took))
		}
		again := func(n int, what string) {
			sick.took, well.took = nil, nil
			slower := turns(n)
			for i := 0; slower > most && i < 3; i++ {
				slower = turns(n)
			}
			t.Logf("%s: beside a poisoned room %s, without %s: %.3f", what, middle(sick.took), middle(well.took), slower)
			if slower > most {
				t.Errorf("%s: beside a poisoned room messages take %s, without %s", what, middle(sick.took), middle(well.took))
			}
		}
		letGo := sick.silence()
		sick.round(true)
		wait.Until(t, "the question about the poison", func() bool { return len(sick.p.Calls(peer.V1+"/get_missing_events/")) > 0 })
		again(max(4, rounds/10), "no answer")
		sick.refuse()
		letGo()
		busySick, busyWell := cpu(t, sick.s), cpu(t, well.s)
		again(rounds, "errors")
		busySick, busyWell = cpu(t, sick.s)-busySick, cpu(t, well.s)-busyWell
		t.Logf("%s of processor with the poison, %s without", busySick, busyWell)
		if busySick > busyWell*5/4+500*time.Millisecond {
			t.Errorf("%s of processor with the poison, %s without", busySick, busyWell)
		}
	})
}
