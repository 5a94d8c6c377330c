package federation_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// bodies are the texts of a user's messages in a room as somebody reads them, oldest first.
func bodies(reader *testserver.User, room, sender string) (all []string) {
	for from := ""; ; {
		a, err := reader.Do("GET", testserver.Path("rooms", room, "messages")+"?dir=f&limit=500&from="+from, nil)
		if err != nil || a.Status != http.StatusOK {
			return nil
		}
		for _, e := range testserver.Events(a.Body["chunk"]) {
			if body, ok := testserver.At(e, "content", "body").(string); ok && e["sender"] == sender {
				all = append(all, body)
			}
		}
		if from, _ = a.Body["end"].(string); from == "" {
			return all
		}
	}
}

// mailbox gathers what a device gets.
type mailbox struct {
	owner *testserver.User
	since string
	got   []string
}

// look adds what has come since the last look. Asking on from a token says that what came with it is here, and so it
// would be lost if the server forgot it too early.
func (m *mailbox) look() []string {
	for {
		body := m.owner.Sync(m.since, 0)
		m.since, _ = body["next_batch"].(string)
		events := testserver.Events(testserver.At(body, "to_device", "events"))
		for _, e := range events {
			m.got = append(m.got, fmt.Sprint(testserver.At(e, "content", "n")))
		}
		if len(events) == 0 {
			return m.got
		}
	}
}

// numbers are 0 to n-1 in words.
func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// soon waits for a condition, and fails the test if it holds later than healing may take from a time on.
func soon(t *testing.T, began time.Time, what string, holds func() bool) {
	t.Helper()
	wait.Until(t, what, holds)
	took := time.Since(began)
	if took > healTime {
		t.Errorf("%s: after %s, later than %s", what, took, healTime)
	}
	t.Logf("%s: after %s", what, took.Round(time.Millisecond))
}

// TestAPartnerComesBack: what is said and sent to a server while it is down is there soon after its return, all of it and
// in order, without anybody doing anything there.
func TestAPartnerComesBack(t *testing.T) {
	const roomCount = 5
	perRoom, letters := 20, 40
	if os.Getenv("CONCLAVE_LONG") != "" {
		perRoom, letters = 100, 200
	}
	eachTwo(t, func(w *two) {
		t := w.t
		proof.Of(t, "FD-15")
		var rooms []string
		for range roomCount {
			rooms = append(rooms, w.together())
		}
		w.b.Kill()
		for i := range perRoom {
			for _, room := range rooms {
				w.alice.Say(room, fmt.Sprint(i))
			}
		}
		for i := range letters {
			post(w.alice, w.bob, fmt.Sprint("letter", i), i)
		}
		w.b.Start()
		back, box := time.Now(), mailbox{owner: w.bob}
		soon(t, back, "all messages to devices", func() bool { return len(box.look()) >= letters })
		if !slices.Equal(box.got, numbers(letters)) {
			t.Errorf("bob's device got %q", box.got)
		}
		soon(t, back, "all events", func() bool {
			return !slices.ContainsFunc(rooms, func(room string) bool { return len(bodies(w.bob, room, w.alice.ID)) < perRoom })
		})
		for _, room := range rooms {
			if got := bodies(w.bob, room, w.alice.ID); !slices.Equal(got, numbers(perRoom)) {
				t.Errorf("bob reads %q", got)
			}
		}
	})
}

// post sends a numbered message to a device and reports whether it was taken.
func post(from, to *testserver.User, txn string, n int) bool {
	a, err := from.Do("PUT", testserver.Path("sendToDevice", "m.test", txn),
		testserver.JSON{"messages": testserver.JSON{to.ID: testserver.JSON{to.Device: testserver.JSON{"n": n}}}})
	return err == nil && a.Status == http.StatusOK
}

// talk says numbered things in a room and sends numbered letters, each again until it is taken, as clients do.
func talk(t *testing.T, from, to *testserver.User, room string, n int, said *atomic.Int64) {
	for i := range n {
		txn := fmt.Sprint(from.ID, i)
		wait.Until(t, "a message to be taken", func() bool {
			a, err := from.Do("PUT", testserver.Path("rooms", room, "send", "m.room.message", txn), testserver.JSON{"msgtype": "m.text", "body": fmt.Sprint(i)})
			return err == nil && a.Status == http.StatusOK
		})
		wait.Until(t, "a letter to be taken", func() bool { return post(from, to, txn, i) })
		said.Add(1)
	}
}

// TestAnswersGetLost: two servers talk in both directions while every second answer to their transactions gets lost after
// the other side has carried it out, and both are killed in the middle. Nothing is doubled, nothing is lost, and all stays
// in the order in which it was said.
func TestAnswersGetLost(t *testing.T) {
	count, kills := 40, 1
	if os.Getenv("CONCLAVE_LONG") != "" {
		count, kills = 400, 6
	}
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "FD-15", "F26")
		net := testserver.NewNet()
		w := &two{t: t}
		w.a = testserver.Start(t, testserver.Options{Engine: engine, Net: net})
		w.b = testserver.Start(t, testserver.Options{Engine: engine, Net: net, CA: w.a.CA})
		w.alice, w.bob = w.a.Register("alice"), w.b.Register("bob")
		room := w.together()
		sent := map[matrix.ServerName]int{} // Net asks one at a time
		net.Lose(func(from, _ matrix.ServerName, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/") {
				return false
			}
			sent[from]++
			return sent[from]%2 == 1
		})
		var said atomic.Int64
		var all sync.WaitGroup
		all.Go(func() { talk(t, w.alice, w.bob, room, count, &said) })
		all.Go(func() { talk(t, w.bob, w.alice, room, count, &said) })
		for i := range 2 * kills {
			at := int64((i + 1) * 2 * count / (2*kills + 1))
			wait.Until(t, "enough to be said", func() bool { return said.Load() >= at })
			victim := []*testserver.Server{w.a, w.b}[i%2]
			victim.Kill()
			victim.Start()
		}
		all.Wait()
		over := time.Now()
		for _, pair := range [][2]*testserver.User{{w.alice, w.bob}, {w.bob, w.alice}} {
			from, to := pair[0], pair[1]
			box := mailbox{owner: to}
			soon(t, over, "all letters to "+to.ID, func() bool { return len(box.look()) >= count })
			soon(t, over, "all messages to "+to.ID, func() bool { return len(bodies(to, room, from.ID)) >= count })
			if !slices.Equal(box.got, numbers(count)) {
				t.Errorf("%s got letters %q", to.ID, box.got)
			}
			for _, reader := range []*testserver.User{to, from} {
				if got := bodies(reader, room, from.ID); !slices.Equal(got, numbers(count)) {
					t.Errorf("%s reads of %s %q", reader.ID, from.ID, got)
				}
			}
		}
		for _, s := range []*testserver.Server{w.a, w.b} {
			s.Stop()
			if out, ok := s.Run("verify", "-full"); !ok {
				t.Errorf("%s: %s", s.Name, out)
			}
		}
	})
}
