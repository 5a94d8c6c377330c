package federation

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
)

// choosy makes the peer refuse transactions with events that it does not like.
type choosy struct {
	mu     sync.Mutex
	likes  func(id string) bool
	answer func() peer.Reply // to what it does not like; nil: it does not work
}

func (c *choosy) set(likes func(id string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.likes = likes
}

func (c *choosy) judge(txn sentTxn) peer.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range txn.pdus {
		switch {
		case c.likes(id):
		case c.answer != nil:
			return c.answer()
		default:
			return peer.Refuse(500, "M_UNKNOWN")
		}
	}
	return peer.Reply{Body: map[string]any{"pdus": map[string]any{}}}
}

// TestARoomThatAServerRefusesSlowsNoOther: a server chokes on every event of one room. Once the room is known for it the
// events of the other 49 do not wait for anything, nor are they halved; what is refused is set aside; and the room is one
// like others again once something of it is taken.
func TestARoomThatAServerRefusesSlowsNoOther(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		const poisoned, rounds = 25, 20
		poison := func(id string) bool { // one event of each room in turn
			n, err := strconv.Atoi(id[1:])
			return err != nil || (n-1)%50 == poisoned
		}
		c := &choosy{likes: func(id string) bool { return !poison(id) }}
		w.setJudge(c.judge)
		say := func(rounds int) { // all at once: what the sender finds in the middle of it would cost more transactions
			w.box.mu.Lock()
			defer w.box.mu.Unlock()
			for i := range 50 * rounds {
				w.box.put(string(rune('A'+i%50)), "")
			}
		}
		say(1)
		w.run()
		w.until("the first culprit is found", time.Second, func() bool { return len(w.got) == 49 })
		w.until("it is over", time.Second, func() bool { return w.row().RetryAt == 0 && w.row().At.PDUs == 50 })
		before := len(w.txns)
		say(rounds)
		w.s.Wake()
		w.until("the others came while no time passed", 0, func() bool { return w.row().At.PDUs == 50*(1+rounds) })
		if want := slices.DeleteFunc(ids(1, 50*(1+rounds)), poison); !slices.Equal(w.got, want) {
			t.Errorf("%d came, want %d", len(w.got), len(want))
		}
		if sent := len(w.txns) - before; sent > 2*rounds+5 {
			t.Errorf("it took %d transactions", sent)
		}
		c.set(func(string) bool { return true })
		before = len(w.txns)
		say(2)
		w.s.Wake()
		w.until("all came", 0, func() bool { return len(w.got) == 49*(1+rounds)+2*50 && w.s.suspicion(w.p.Name) == nil })
		if sent := len(w.txns) - before; sent > 4 {
			t.Errorf("with a room that is like others again it took %d transactions", sent)
		}
	})
}

// TestSuspectsAreNotSetAsideWhereNothingIsTaken: a server that begins to refuse everything but empty transactions loses no
// more of a suspected room than of others.
func TestSuspectsAreNotSetAsideWhereNothingIsTaken(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		c := &choosy{likes: func(id string) bool { return id != "$2" }}
		w.setJudge(c.judge)
		w.box.add("a", "", 1)
		w.box.add("b", "", 1)
		w.run()
		w.until("the culprit is set aside", time.Second, func() bool { return w.s.suspicion(w.p.Name) != nil })
		w.until("that is stored", 0, func() bool { return w.row().At.PDUs == 2 }) // with one failure more
		w.clk.add(proofTime + time.Second)                                        // what was taken before that shows nothing any more
		c.set(func(string) bool { return false })
		fails := w.row().Fails
		w.box.add("b", "", 20)
		w.s.Wake()
		w.until("it failed again", time.Second, func() bool { return w.row().Fails > fails })
		c.set(func(string) bool { return true })
		w.until("the last came", time.Second, func() bool { return slices.Contains(w.got, "$22") })
		if lost := 21 - len(w.got); lost > 2 {
			t.Errorf("got %v", w.got)
		}
	})
}

// TestAnEventThatAServerChokesOn: a server that gets a transaction with one event and never answers it is like one that
// refuses it, since it takes everything else.
func TestAnEventThatAServerChokesOn(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.patience = 100 * time.Millisecond
		poison := func(id string) bool { return id == "$3" || id == "$23" }
		c := &choosy{likes: func(id string) bool { return !poison(id) }, answer: func() peer.Reply { return peer.Refuse(504, "") }}
		w.setJudge(c.judge)
		say := func() {
			for i := range 20 {
				w.box.add(string(rune('A'+i)), "", 1)
			}
		}
		say()
		w.run()
		w.until("the culprit is set aside", time.Second, func() bool { return len(w.got) == 19 && w.s.suspicion(w.p.Name) != nil })
		w.until("it is over", time.Second, func() bool { return w.row().RetryAt == 0 && w.row().At.PDUs == 20 })
		c.mu.Lock()
		c.answer = func() peer.Reply {
			return peer.Reply{Write: func(http.ResponseWriter) { <-t.Context().Done() }}
		}
		c.mu.Unlock()
		say()
		w.s.Wake()
		w.until("the others came while no time passed", 0, func() bool { return w.row().At.PDUs == 40 })
		if want := slices.DeleteFunc(ids(1, 40), poison); !slices.Equal(w.got, want) {
			t.Errorf("got %v", w.got)
		}
		w.stop()
	})
}
