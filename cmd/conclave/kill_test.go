package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/testserver"
)

// kills is how often a server is killed in the short form and in the long one.
func kills() int {
	if os.Getenv("CONCLAVE_LONG") != "" {
		return 20
	}
	return 3
}

// TestKilledServerLosesNothing kills the server again and again while messages are sent. Whoever did not hear the
// answer sends the same transaction again. In the end every acknowledged message is there, each transaction made one
// event, every sender's messages stand in the order in which they were sent, and the database passes its own check.
func TestKilledServerLosesNothing(t *testing.T) {
	testserver.Each(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		w := newKillWork(t, s, 8)
		for round := range kills() {
			w.round(round, 40+rand.IntN(200))
		}
		w.finish()
		w.check()
		s.Stop()
		if out, ok := s.Run("verify", "-full"); !ok {
			t.Errorf("after the kills: %s", out)
		}
	})
}

// killWork is a stream of messages by several senders into rooms of their own and one that they share.
type killWork struct {
	t       *testing.T
	s       *testserver.Server
	shared  string
	senders []*killSender
}

type killSender struct {
	user  *testserver.User
	rooms []string
	next  int               // the first transaction that is not acknowledged
	acked map[string]string // transaction → event
}

func newKillWork(t *testing.T, s *testserver.Server, n int) *killWork {
	w := &killWork{t: t, s: s}
	for i := range n {
		u := s.Register(fmt.Sprintf("sender%d", i))
		if i == 0 {
			w.shared = u.CreateRoom(testserver.JSON{"preset": "public_chat"})
		} else {
			u.Join(w.shared)
		}
		w.senders = append(w.senders, &killSender{user: u, rooms: []string{w.shared, u.CreateRoom(testserver.JSON{})}, acked: map[string]string{}})
	}
	return w
}

// round sends until the server is killed after some acknowledgements, and starts it again.
func (w *killWork) round(round, after int) {
	var acks atomic.Int64
	enough := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	for _, s := range w.senders {
		wg.Go(func() {
			for s.send(w.t) == nil {
				if acks.Add(1) >= int64(after) {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	<-enough
	w.s.Kill()
	wg.Wait()
	w.t.Logf("round %d: killed after %d acknowledged messages", round, acks.Load())
	w.s.Start()
}

// send sends the next message, or the last one again if its answer was not heard. An error means that the server is
// gone.
func (s *killSender) send(t *testing.T) error {
	txn := fmt.Sprintf("txn%d", s.next)
	room := s.rooms[s.next%2]
	a, err := s.user.Do("PUT", testserver.Path("rooms", room, "send", "m.room.message", txn), testserver.JSON{"msgtype": "m.text", "body": txn})
	if err != nil {
		return err
	}
	if a.Status != 200 {
		t.Errorf("sending was answered %d %s", a.Status, a.Raw)
		return fmt.Errorf("status %d", a.Status)
	}
	id, _ := a.Body["event_id"].(string)
	s.acked[txn] = id
	s.next++
	return nil
}

// finish sends what is not acknowledged, and everything acknowledged once more: the answers have to be the same.
func (w *killWork) finish() {
	for _, s := range w.senders {
		if err := s.send(w.t); err != nil {
			w.t.Fatal(err)
		}
		for n := max(0, s.next-5); n < s.next; n++ {
			txn := fmt.Sprintf("txn%d", n)
			a := s.user.Must("PUT", testserver.Path("rooms", s.rooms[n%2], "send", "m.room.message", txn), testserver.JSON{"msgtype": "m.text", "body": txn})
			if a.Body["event_id"] != s.acked[txn] {
				w.t.Errorf("transaction %s made %s and %v", txn, s.acked[txn], a.Body["event_id"])
			}
		}
	}
}

// check reads every room backwards and compares.
func (w *killWork) check() {
	for _, s := range w.senders {
		mine := map[string]int{}
		for i, room := range s.rooms {
			last := -1
			for _, e := range history(s.user, room) {
				if e["sender"] != s.user.ID || e["type"] != "m.room.message" {
					continue
				}
				txn, _ := testserver.At(e, "content", "body").(string)
				mine[txn]++
				if s.acked[txn] != e["event_id"] {
					w.t.Errorf("%s of %s is %v but %s was acknowledged", txn, s.user.ID, e["event_id"], s.acked[txn])
				}
				var n int
				if _, err := fmt.Sscanf(txn, "txn%d", &n); err != nil || n <= last || n%2 != i {
					w.t.Errorf("%s of %s comes after txn%d", txn, s.user.ID, last)
				}
				last = n
			}
		}
		for txn := range s.acked {
			if mine[txn] != 1 {
				w.t.Errorf("%s of %s was acknowledged and is there %d times", txn, s.user.ID, mine[txn])
			}
		}
	}
}

// history reads a whole room, oldest first.
func history(u *testserver.User, room string) []testserver.JSON {
	var all []testserver.JSON
	for from := ""; ; {
		body := u.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=f&limit=500&from="+from, nil).Body
		all = append(all, testserver.Events(body["chunk"])...)
		next, _ := body["end"].(string)
		if next == "" {
			return all
		}
		from = next
	}
}
