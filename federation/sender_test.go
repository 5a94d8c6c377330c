package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
)

// outbox is a stream of things for one destination, in memory.
type outbox struct {
	mu    sync.Mutex
	dest  matrix.ServerName
	items []item
	brief []EDU // ephemeral
	start store.Cursors
	fail  error
}

type item struct {
	pos  store.Pos
	room string
	edu  string // its type; "" for an event
}

func (o *outbox) add(room, edu string, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		o.put(room, edu)
	}
}

// put is add for one thing, by who holds o.mu.
func (o *outbox) put(room, edu string) {
	o.items = append(o.items, item{store.Pos(len(o.items) + 1), room, edu})
}

func (o *outbox) head() store.Pos { return store.Pos(len(o.items)) }

func (o *outbox) Concerned(_ context.Context, after store.Pos) ([]matrix.ServerName, store.Pos, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if after < o.head() || after == 0 {
		return []matrix.ServerName{o.dest}, o.head(), o.fail
	}
	return nil, after, o.fail
}

func (o *outbox) Start(context.Context, matrix.ServerName) (store.Cursors, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.start, nil
}

func (o *outbox) Backlog(_ context.Context, _ matrix.ServerName, after store.Pos, limit int) (int, store.Pos, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, it := range o.items {
		if it.pos > after && it.edu == "" && n < limit {
			n++
		}
	}
	return n, o.head(), nil
}

func (o *outbox) PDUs(_ context.Context, _ matrix.ServerName, q PDUQuery) ([]PDU, store.Pos, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	end := q.UpTo
	if end == 0 {
		end = o.head()
	}
	latest := map[string]store.Pos{}
	for _, it := range o.items {
		if it.edu == "" && it.pos <= end {
			latest[it.room] = it.pos
		}
	}
	var out []PDU
	for _, it := range o.items {
		if it.pos <= q.After || it.pos > end || it.edu != "" || q.LatestOnly && latest[it.room] != it.pos {
			continue
		}
		if len(out) == q.Limit {
			return out, out[len(out)-1].Pos, nil
		}
		out = append(out, PDU{it.pos, roomNumber(it.room), eventIDAt(it.pos), fmt.Appendf(nil, `{"id":%q,"room":%q}`, eventIDAt(it.pos), it.room)})
	}
	return out, end, nil
}

// roomNumber numbers rooms by their names.
func roomNumber(name string) (n store.RoomNID) {
	for _, c := range name {
		n = n<<8 | store.RoomNID(c)
	}
	return n
}

func eventIDAt(pos store.Pos) matrix.EventID { return matrix.EventID(fmt.Sprintf("$%d", pos)) }

func (o *outbox) EDUs(_ context.Context, _ matrix.ServerName, q EDUQuery) ([]EDU, store.Cursors, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	end := q.UpTo.ToDevice
	if end == 0 {
		end = o.head()
	}
	to := q.From
	to.DeviceLists, to.Others = end, end
	var out []EDU
	for _, it := range o.items {
		if it.edu == "" || it.pos <= q.From.ToDevice || it.pos > end {
			continue
		}
		if len(out) == q.Limit {
			return out, to, nil
		}
		out = append(out, EDU{it.edu, fmt.Appendf(nil, `{"edu_type":%q,"content":{"n":%d}}`, it.edu, it.pos)})
		to.ToDevice = it.pos
	}
	to.ToDevice = end
	return out, to, nil
}

func (o *outbox) Ephemeral(_ matrix.ServerName, limit int) []EDU {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(limit, len(o.brief))
	out := o.brief[:n]
	o.brief = o.brief[n:]
	return out
}

// sendWorld is a sender with one real peer.
type sendWorld struct {
	t   *testing.T
	db  *store.DB
	clk *clock
	own *Identity
	c   *Client
	box *outbox
	p   *peer.Peer
	s   *Sender

	patience time.Duration // with events of suspects, if it is not 0

	stop func()

	mu       sync.Mutex
	got      []string // what the peer has accepted, in order
	txns     []sentTxn
	judge    func(sentTxn) peer.Reply
	inFlight int
	most     int
}

type sentTxn struct {
	id   string
	pdus []string
	edus []string
}

func newSendWorld(t *testing.T, db *store.DB) *sendWorld {
	w := &sendWorld{t: t, db: db, clk: newClock()}
	ca := peer.NewCA(t)
	w.c = testClient(t, ca, nil)
	w.own = w.c.own
	w.p = trusting(t, ca, w.c, peer.Options{})
	w.box = &outbox{dest: w.p.Name}
	w.p.Handle("PUT", "/_matrix/federation/v1/send/{txn}", w.receive)
	return w
}

// run starts a new sender, as after a restart.
func (w *sendWorld) run() {
	w.s = NewSender(SenderOptions{DB: w.db, Outbox: w.box, Client: w.c, Identity: w.own, Clock: w.clk.now, Alone: true, Sweep: 5 * time.Millisecond})
	if w.patience != 0 {
		w.s.suspectTimeout = w.patience
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the sender ended with %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

func (w *sendWorld) receive(c *peer.Call) peer.Reply {
	var body struct {
		Origin string `json:"origin"`
		PDUs   []struct {
			ID string `json:"id"`
		} `json:"pdus"`
		EDUs []struct {
			Type    string `json:"edu_type"`
			Content struct {
				N int `json:"n"`
			} `json:"content"`
		} `json:"edus"`
	}
	if err := json.Unmarshal(c.Body, &body); err != nil || body.Origin != ourName || c.Origin != ourName {
		w.t.Errorf("a transaction that cannot be right: %s, signed by %q", c.Body, c.Origin)
	}
	txn := sentTxn{id: c.Path[strings.LastIndexByte(c.Path, '/')+1:]}
	for _, p := range body.PDUs {
		txn.pdus = append(txn.pdus, p.ID)
	}
	for _, e := range body.EDUs {
		txn.edus = append(txn.edus, fmt.Sprintf("%s%d", e.Type, e.Content.N))
	}
	w.mu.Lock()
	w.inFlight++
	w.most = max(w.most, w.inFlight)
	judge := w.judge
	w.mu.Unlock()
	reply := peer.Reply{Body: map[string]any{"pdus": map[string]any{}}}
	if judge != nil {
		reply = judge(txn)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight--
	w.txns = append(w.txns, txn)
	if reply.Status == 0 && reply.Write == nil {
		w.got = append(append(w.got, txn.pdus...), txn.edus...)
	}
	return reply
}

func (w *sendWorld) setJudge(f func(sentTxn) peer.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge = f
}

// until waits for a condition over what the peer got, letting time pass for the sender if pass is not 0.
func (w *sendWorld) until(what string, pass time.Duration, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("waited in vain until %s; %d transactions, accepted %.300v", what, len(w.txns), w.got)
		}
		w.clk.add(pass)
		<-time.After(time.Millisecond)
	}
}

// row is what is stored about the peer as a destination.
func (w *sendWorld) row() store.Destination {
	w.t.Helper()
	nid, err := w.db.Server(w.t.Context(), w.p.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	var d store.Destination
	if err := w.db.Read(w.t.Context(), func(tx *store.Tx) error { d, _, err = tx.Destination(nid); return err }); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func ids(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("$%d", i))
	}
	return out
}

func TestSenderDeliversInOrderOneAtATime(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.box.add("a", "", 120)
		w.run()
		w.until("the first 120 came", 0, func() bool { return len(w.got) == 120 })
		for range 30 {
			w.box.add("b", "", 1)
			w.s.Wake()
		}
		w.until("all came", 0, func() bool { return len(w.got) == 150 })
		if !slices.Equal(w.got, ids(1, 150)) {
			t.Errorf("got %v", w.got)
		}
		if w.most != 1 {
			t.Errorf("%d transactions at a time", w.most)
		}
		seen := map[string]bool{}
		for _, txn := range w.txns {
			if len(txn.pdus) > maxPDUs || seen[txn.id] {
				t.Errorf("transaction %s with %d events, seen before: %v", txn.id, len(txn.pdus), seen[txn.id])
			}
			seen[txn.id] = true
		}
	})
}

func TestSenderSendsEDUsWithoutWaitingForEvents(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.box.add("a", "", 120)
		w.box.add("", "m.direct_to_device", 150)
		w.box.brief = []EDU{{"m.typing", []byte(`{"edu_type":"m.typing","content":{"n":0}}`)}}
		w.run()
		w.until("all came", 0, func() bool { return len(w.got) == 120+150+1 })
		first := w.txns[0]
		if len(first.pdus) != 50 || len(first.edus) != 100 {
			t.Errorf("the first transaction has %d events and %d EDUs", len(first.pdus), len(first.edus))
		}
		if !slices.Contains(w.got, "m.typing0") {
			t.Error("what is fleeting did not come")
		}
		w.box.mu.Lock()
		w.box.brief = []EDU{{"m.typing", []byte(`{"edu_type":"m.typing","content":{"n":1}}`)}}
		w.box.mu.Unlock()
		w.s.WakeServer(w.p.Name)
		w.until("the second fleeting thing came", 0, func() bool { return slices.Contains(w.got, "m.typing1") })
	})
}

func TestSenderRepeatsWhatFailedUnderTheSameName(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.setJudge(func(sentTxn) peer.Reply { return peer.Refuse(502, "M_UNKNOWN") })
		w.box.add("a", "", 3)
		w.run()
		w.until("it failed once", 0, func() bool { return len(w.txns) == 1 })
		w.box.add("a", "", 5)
		w.stop() // a restart does not change the name either
		w.run()
		w.until("it failed three times", time.Second, func() bool { return len(w.txns) == 3 })
		w.setJudge(nil)
		w.until("all came", time.Second, func() bool { return len(w.got) == 8 })
		if !slices.Equal(w.got, ids(1, 8)) {
			t.Errorf("got %v", w.got)
		}
		for i := range 4 {
			if w.txns[i].id != w.txns[0].id || len(w.txns[i].pdus) != 3 {
				t.Errorf("attempt %d is %v, the first was %v", i, w.txns[i], w.txns[0])
			}
		}
		if w.txns[4].id == w.txns[0].id {
			t.Error("another transaction has the same name")
		}
	})
}

func TestSenderBacksOff(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		start := w.clk.now()
		var at []time.Duration
		w.setJudge(func(sentTxn) peer.Reply {
			at = append(at, w.clk.now().Sub(start))
			return peer.Refuse(503, "M_UNKNOWN")
		})
		w.box.add("a", "", 1)
		w.run()
		w.until("12 attempts were made", 5*time.Second, func() bool { return len(w.txns) == 12 })
		w.until("the failure is stored", 0, func() bool { return w.row().Fails == 12 })
		w.stop()
		for i := 1; i < len(at); i++ {
			want := min(minBackOff<<(i-1), maxBackOff)
			if gap := at[i] - at[i-1]; gap < want {
				t.Errorf("attempt %d came after %s, want at least %s", i, gap, want)
			}
		}
		d := w.row()
		if d.Fails != 12 || d.FailingSince == 0 || !strings.Contains(d.Failure, "503") || d.RetryAt == 0 {
			t.Errorf("the row is %+v", d)
		}
	})
}

func TestARequestFromAServerEndsItsBackOff(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.setJudge(func(sentTxn) peer.Reply { return peer.Refuse(503, "M_UNKNOWN") })
		w.box.add("a", "", 1)
		w.run()
		w.until("8 attempts were made", 5*time.Second, func() bool { return len(w.txns) == 8 })
		w.setJudge(nil)
		w.until("the failure is stored", 0, func() bool { return w.row().Fails == 8 })
		w.s.Alive(w.p.Name)
		w.until("it came", 0, func() bool { return len(w.got) == 1 })
	})
}

func TestSenderHonoursRetryAfter(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.setJudge(func(sentTxn) peer.Reply {
			return peer.Reply{Status: 429, Body: map[string]any{"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 300_000}}
		})
		w.box.add("a", "", 1)
		start := w.clk.now()
		w.run()
		w.until("the failure is stored", 0, func() bool { return w.row().Fails == 1 })
		if wait := time.UnixMilli(w.row().RetryAt).Sub(start); wait < 299*time.Second {
			t.Errorf("it waits %s", wait)
		}
	})
}

func TestSenderFindsAndSetsAsideWhatIsRefused(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		bad := []string{"$17", "m.receipt130"}
		w.setJudge(func(txn sentTxn) peer.Reply {
			for _, b := range bad {
				if slices.Contains(txn.pdus, b) || slices.Contains(txn.edus, b) {
					return peer.Refuse(400, "M_BAD_JSON")
				}
			}
			return peer.Reply{Body: map[string]any{"pdus": map[string]any{}}}
		})
		w.box.add("a", "", 120)
		w.box.add("", "m.receipt", 20)
		w.run()
		w.until("all but the culprits came", 2*time.Second, func() bool { return len(w.got) == 120+20-2 })
		want := slices.DeleteFunc(ids(1, 120), func(id string) bool { return id == "$17" })
		if got := slices.DeleteFunc(slices.Clone(w.got), func(s string) bool { return s[0] != '$' }); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		var aside []string
		nid, _ := db.Server(t.Context(), w.p.Name)
		err := db.Read(t.Context(), func(tx *store.Tx) error {
			aside = nil
			return tx.SetAsideItems(nid, 10, func(a store.SetAside) { aside = append(aside, a.Item) })
		})
		slices.Sort(aside)
		if err != nil || !slices.Equal(aside, []string{"$17", "m.receipt"}) {
			t.Errorf("set aside: %v, %v", aside, err)
		}
		if n := len(w.txns); n > 120 {
			t.Errorf("it took %d transactions", n)
		}
	})
}

func TestAServerThatRefusesEverythingLosesNothing(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, status := range []int{400, 401, 403, 404, 500} {
			w := newSendWorld(t, db)
			w.setJudge(func(sentTxn) peer.Reply { return peer.Refuse(status, "M_UNKNOWN") })
			w.box.add("a", "", 60)
			w.run()
			w.until("it failed many times", 20*time.Second, func() bool { return len(w.txns) >= 12 })
			w.setJudge(nil)
			w.until("all came", time.Minute, func() bool { return len(w.got) == 60 })
			if !slices.Equal(w.got, ids(1, 60)) {
				t.Errorf("status %d: got %v", status, w.got)
			}
			w.stop()
		}
	})
}

func TestSenderCatchesUpWithTheLatestOfEachRoom(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		for i := range maxBacklog + 500 {
			w.box.add(fmt.Sprintf("room%d", i%70), "", 1)
		}
		w.run()
		w.until("the latest of each room came", 0, func() bool { return len(w.got) == 70 })
		w.box.add("room0", "", 1)
		w.box.add("room1", "", 1)
		w.s.Wake()
		w.until("what is new came", 0, func() bool { return len(w.got) == 72 })
		if want := ids(maxBacklog+500-69, maxBacklog+502); !slices.Equal(w.got, want) {
			t.Errorf("got %v", w.got)
		}
		w.until("the cursor stands behind it", 0, func() bool { return w.row().At.PDUs == maxBacklog+502 })
		if d := w.row(); d.CatchUp != 0 {
			t.Errorf("the row is %+v", d)
		}
	})
}

func TestABacklogIsSentWhole(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.box.add("a", "", 1000)
		w.run()
		w.until("all came", 0, func() bool { return len(w.got) == 1000 })
		if !slices.Equal(w.got, ids(1, 1000)) {
			t.Error("not in order")
		}
	})
}

func TestANewDestinationStartsWhereItIsTold(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.box.add("a", "", 10)
		w.box.start = store.Cursors{PDUs: 7, DeviceLists: 7, ToDevice: 7, Others: 7}
		w.run()
		w.until("the rest came", 0, func() bool { return len(w.got) == 3 })
		if !slices.Equal(w.got, ids(8, 10)) {
			t.Errorf("got %v", w.got)
		}
	})
}

func TestSenderLeavesDeniedServersAlone(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		s := NewSender(SenderOptions{DB: db, Outbox: w.box, Client: w.c, Identity: w.own, Policy: NewPolicy(nil, []string{"localhost"})})
		s.ctx = t.Context()
		s.WakeServer(w.p.Name)
		s.WakeServer(ourName)
		if len(s.working) != 0 {
			t.Errorf("working for %v", s.working)
		}
	})
}

func TestBlame(t *testing.T) {
	for status, want := range map[int]bool{0: false, 400: true, 401: false, 403: false, 404: false, 413: true, 429: false, 500: true, 502: false, 503: false, 504: false} {
		if got := blamesContent(&Error{Status: status}); got != want {
			t.Errorf("status %d: %v", status, got)
		}
	}
	if r := reason(errors.New("a\x00b\xff" + strings.Repeat("é", 400))); strings.ContainsRune(r, 0) || len(r) > 310 {
		t.Errorf("reason %q", r)
	}
}
