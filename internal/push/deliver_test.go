package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/netguard"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// world is a deliverer with a clock of its own, one pusher, and a gateway that a test makes behave.
type world struct {
	t    *testing.T
	db   *store.DB
	user store.User
	log  wait.Log
	gate *httptest.Server

	mu      sync.Mutex
	now     time.Time
	answer  func(w http.ResponseWriter, r *http.Request) // nil: takes it
	told    []string                                     // what the gateway was told, in order: event IDs, "=" and the count for counts alone
	notices []Notice
	unread  int64
}

const testKey = "the-secret-pushkey"

func newWorld(t *testing.T, db *store.DB) *world {
	w := &world{t: t, db: db, now: time.UnixMilli(1_700_000_000_000)}
	var err error
	if w.user, err = db.User(t.Context(), "@bob:one.example"); err != nil {
		t.Fatal(err)
	}
	w.gate = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.gate.Close)
	w.set()
	return w
}

// set makes the pusher, or makes it anew.
func (w *world) set() {
	w.t.Helper()
	w.write(func(tx *store.Tx) error {
		return tx.SetPusher(store.Pusher{
			NID: 1, User: w.user.NID, Device: 1, Kind: "http", AppID: "app", Key: testKey, Created: 1000,
			Data: fmt.Sprintf(`{"url":%q}`, w.gate.URL+gatewayPath),
		}, false)
	})
}

func (w *world) write(do func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(w.t.Context(), do); err != nil {
		w.t.Fatal(err)
	}
}

// serve is the gateway.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	var b body
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		w.t.Errorf("the gateway cannot read what it is told: %v", err)
	}
	what := string(b.Notification.EventID)
	if what == "" {
		what = fmt.Sprintf("=%d", b.Notification.Counts.Unread)
	}
	w.mu.Lock()
	w.told = append(w.told, what)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		fmt.Fprint(rw, `{"rejected":[]}`)
		return
	}
	answer(rw, r)
}

// behave makes the gateway answer in some way from now on.
func (w *world) behave(answer func(rw http.ResponseWriter, r *http.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// Notices implements Source.
func (w *world) Notices(_ context.Context, _ store.UserNID, _ matrix.UserID, after, upTo store.Pos) (list []Notice, reached store.Pos, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.notices {
		if n.Pos > after && n.Pos <= upTo {
			list = append(list, n)
		}
	}
	return list, upTo, nil
}

// Unread implements Source.
func (w *world) Unread(context.Context, store.UserNID) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unread, nil
}

// happen lets an event come that the user is to be told of.
func (w *world) happen(id string) {
	w.t.Helper()
	ev, err := matrix.TrustedEvent([]byte(`{"type":"m.room.message","sender":"@alice:one.example","room_id":"!r","content":{"body":"the secret text"},"depth":1,"origin_server_ts":1,"auth_events":[],"prev_events":[],"hashes":{},"signatures":{}}`), matrix.EventID(id), 10)
	if err != nil {
		w.t.Fatal(err)
	}
	w.move(func(pos store.Pos) {
		w.notices = append(w.notices, Notice{Pos: pos, Room: "!r", Event: ev, Actions: pushrules.Actions{Notify: true}})
		w.unread++
	})
}

// move moves the stream by a change that concerns the user.
func (w *world) move(with func(store.Pos)) {
	w.t.Helper()
	w.write(func(tx *store.Tx) error {
		pos, err := tx.AddChange(store.ChangeReceipt, 0, w.user.NID)
		w.mu.Lock()
		defer w.mu.Unlock()
		with(pos)
		return err
	})
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(by)
}

// run lets a deliverer work until the test ends or the returned function is called.
func (w *world) run(change ...func(*DelivererOptions)) (d *Deliverer, stop func()) {
	o := DelivererOptions{
		DB: w.db, Source: w, Clock: w.clock, Sweep: 5 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Client: &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	for _, f := range change {
		f(&o)
	}
	d = NewDeliverer(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil && ctx.Err() == nil {
			w.t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(stop)
	return d, stop
}

// row is the pusher as it is stored, nil if it is gone.
func (w *world) row() (p *store.Pusher) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(tx *store.Tx) (err error) {
		p, err = tx.Pusher(1)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) untilTold(want ...string) {
	w.t.Helper()
	var got []string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the gateway was told %q, want %q", got, want)
		}
	}()
	wait.Until(w.t, fmt.Sprintf("the gateway to be told %q", want), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		got = slices.Clone(w.told)
		return slices.Equal(got, want)
	})
}

// untilFailed waits until as many attempts in a row have failed, and checks how long the next wait is.
func (w *world) untilFailed(fails int, pause time.Duration) {
	w.t.Helper()
	wait.Until(w.t, fmt.Sprintf("%d failures", fails), func() bool { return w.row().Fails == fails })
	if got := time.UnixMilli(w.row().RetryAt).Sub(w.clock()); got != pause {
		w.t.Errorf("after %d failures the next attempt is in %v, want %v", fails, got, pause)
	}
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
}

func TestAGatewayThatFailsIsTriedAgain(t *testing.T) {
	proof.Of(t, "PU-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.behave(status(500))
		_, stop := w.run()
		w.happen("$1")
		w.untilFailed(1, 10*time.Second)
		w.happen("$2")
		w.advance(10 * time.Second)
		w.untilFailed(2, 20*time.Second)
		stop() // what is stored is all that there is to go on from
		w.run()
		w.advance(20 * time.Second)
		w.untilFailed(3, 40*time.Second)
		w.behave(nil)
		w.advance(40 * time.Second)
		w.untilTold("$1", "$1", "$1", "$1", "$2")
		wait.Until(t, "success to be stored", func() bool { return w.row().Fails == 0 && w.row().RetryAt == 0 })
		w.behave(status(500))
		w.happen("$3")
		for i := range 9 {
			w.untilFailed(i+1, min(10*time.Second<<i, time.Hour))
			w.advance(time.Hour)
		}
		w.untilFailed(10, time.Hour)
		w.advance(25 * time.Hour) // what is so old is no news
		w.behave(nil)
		wait.Until(t, "success to be stored", func() bool { return w.row().Fails == 0 })
		w.happen("$4")
		wait.Until(t, "the next event to be told of", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Equal(w.told[len(w.told)-2:], []string{"=3", "$4"})
		})
	})
}

func TestHostileGateways(t *testing.T) {
	proof.Of(t, "PU-11")
	hang := make(chan struct{})
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"it hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"its answer does not end": func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		},
		"its answer is no JSON": func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `<html>`) },
		"it leads elsewhere": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"it wants a password": status(401),
	} {
		t.Run(name, func(t *testing.T) {
			dbtest.Each(t, func(t *testing.T, db *store.DB) {
				w := newWorld(t, db)
				w.behave(answer)
				w.run(func(o *DelivererOptions) { o.Client.Timeout = 300 * time.Millisecond })
				w.happen("$1")
				w.untilFailed(1, 10*time.Second)
				w.behave(nil)
				w.advance(10 * time.Second)
				w.untilTold("$1", "$1")
				for _, secret := range []string{testKey, "secret text", w.gate.URL} {
					if strings.Contains(w.log.String(), secret) {
						t.Errorf("the log shows %q", secret)
					}
				}
			})
		})
	}
	close(hang)
}

func TestWhatAGatewayRefusesDoesNotHoldUpTheRest(t *testing.T) {
	proof.Of(t, "PU-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.behave(status(413))
		w.run()
		w.happen("$1")
		w.happen("$2")
		w.untilFailed(1, 10*time.Second)
		w.advance(10 * time.Second)
		w.untilFailed(2, 20*time.Second)
		w.advance(20 * time.Second)
		w.untilFailed(3, 40*time.Second)
		w.behave(nil)
		w.advance(40 * time.Second)
		w.untilTold("$1", "$1", "$1", "$2")
	})
}

func TestARejectedKeyEndsItsPusherAlone(t *testing.T) {
	proof.Of(t, "PU-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.behave(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"rejected":["another"]}`) })
		w.run()
		w.happen("$1")
		w.untilTold("$1")
		w.behave(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"rejected":["another",%q]}`, testKey) })
		w.happen("$2")
		wait.Until(t, "the pusher to be removed", func() bool { return w.row() == nil })
		w.happen("$3")
		w.untilTold("$1", "$2")
	})
}

// TestAPusherSetAnewOutlivesItsOldGateway: a client changes its pusher while a gateway is about to reject the key as it was.
func TestAPusherSetAnewOutlivesItsOldGateway(t *testing.T) {
	proof.Of(t, "PU-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		var once sync.Once
		w.behave(func(rw http.ResponseWriter, _ *http.Request) {
			rejected := false
			once.Do(func() {
				w.set()
				rejected = true
			})
			if rejected {
				fmt.Fprintf(rw, `{"rejected":[%q]}`, testKey)
				return
			}
			fmt.Fprint(rw, `{}`)
		})
		w.run()
		w.happen("$1")
		w.untilTold("$1", "$1")
		w.happen("$2")
		w.untilTold("$1", "$1", "$2")
	})
}

// TestNodesShareAPusher: several nodes tell of each event once; one that dies in the middle repeats rather than loses.
func TestNodesShareAPusher(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		var want []string
		for range 3 {
			w.run()
		}
		for i := range 20 {
			w.happen(fmt.Sprintf("$%d", i))
			want = append(want, fmt.Sprintf("$%d", i))
		}
		w.untilTold(want...)
	})
}

// TestALeaseOfADeadProcess is waited for by other nodes, and taken at once by the only one.
func TestALeaseOfADeadProcess(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.write(func(tx *store.Tx) error {
			_, err := tx.LeasePusher(1, w.clock().UnixMilli(), 60_000, false)
			return err
		})
		w.happen("$1")
		d, stop := w.run()
		if p, err := d.lease(t.Context(), 1); err != nil || p != nil {
			t.Errorf("a lease of somebody else was taken: %v, %v", p, err)
		}
		stop()
		w.run(func(o *DelivererOptions) { o.Alone = true })
		w.untilTold("$1")
	})
}

// TestNothingIsWrittenWhileThereIsNothingToTell: a conversation that notifies nobody costs no row (law 6).
func TestNothingIsWrittenWhileThereIsNothingToTell(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		d, _ := w.run()
		before := *w.row()
		var last store.Pos
		for range 50 {
			w.move(func(pos store.Pos) { last = pos })
		}
		wait.Until(t, "the deliverer to look", func() bool { return d.lookedAt(1) >= last })
		if after := *w.row(); after != before {
			t.Errorf("the pusher was %+v and is %+v", before, after)
		}
		w.happen("$1")
		w.untilTold("$1")
		w.move(func(store.Pos) { w.unread = 0 })
		w.untilTold("$1", "=0")
	})
}

// TestGatewaysAreReachedThroughTheGuard: a gateway at an address that nobody allowed gets no connection (threats O08).
func TestGatewaysAreReachedThroughTheGuard(t *testing.T) {
	proof.Of(t, "O08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		_, stop := w.run(func(o *DelivererOptions) { o.Client = NewClient(netguard.NewDialer(nil, nil)) })
		w.happen("$1")
		w.untilFailed(1, 10*time.Second)
		stop()
		w.untilTold()
		w.run(func(o *DelivererOptions) {
			o.Client = NewClient(netguard.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil))
		})
		w.advance(10 * time.Second)
		w.untilTold("$1")
	})
}
