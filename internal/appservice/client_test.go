package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// client makes a client with little patience for one service that answers with a handler.
func client(t *testing.T, answer http.HandlerFunc) (*Client, *Service) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	text := strings.Replace(registration, "http://127.0.0.1:9000/path/", s.URL, 1)
	all, err := Load(write(t, text), "example.org")
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(all, netguard.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil), slog.New(slog.DiscardHandler))
	c.callTime, c.pingTime, c.askTime = 2*time.Second, time.Second, 4*time.Second
	return c, all.ByID("irc")
}

func wantCode(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
}

// A service that never answers questions keeps whoever wants something for a bounded time, and whoever comes then for none
// at all. Transactions do not wait behind the questions.
func TestSilentService(t *testing.T) {
	proof.Of(t, "AP-09")
	var asked atomic.Int64
	end := make(chan struct{})
	defer close(end)
	c, s := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			fmt.Fprint(w, "{}")
			return
		}
		asked.Add(1)
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	began := time.Now()
	var all sync.WaitGroup
	for i := range 3 * perService {
		all.Go(func() {
			_, err := c.HasUser(t.Context(), matrix.UserID(fmt.Sprintf("@_irc_%d:example.org", i)))
			wantCode(t, err, 408, "M_UNKNOWN")
		})
	}
	wait.Until(t, "all connections for questions are taken", func() bool { return asked.Load() >= perService })
	push := func() {
		ctx, cancel := context.WithTimeout(t.Context(), c.callTime)
		defer cancel()
		if a, err := c.do(ctx, s, call{method: http.MethodPut, path: "/_matrix/app/v1/transactions/1", body: []byte("{}")}); err != nil || !a.ok() {
			t.Errorf("a transaction meanwhile: %v", err)
		}
	}
	push()
	all.Wait()
	push()
	if took := time.Since(began); took > 3*c.askTime {
		t.Errorf("it took %v", took)
	}
	before := asked.Load()
	_, err := c.HasUser(t.Context(), "@_irc_late:example.org")
	wantCode(t, err, 408, "M_UNKNOWN")
	if found := c.Protocols(t.Context()); len(found) != 0 || asked.Load() != before {
		t.Errorf("a silent service was asked %d times, and said %v", asked.Load()-before, found)
	}
}

// One name that a service chokes on does not keep others from what they want.
func TestOneNameThatHangs(t *testing.T) {
	proof.Of(t, "AP-09")
	c, s := client(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "_irc_hangs") {
			<-r.Context().Done()
		}
	})
	for range silentAfter {
		c.callTime, c.askTime = 200*time.Millisecond, 300*time.Millisecond
		_, err := c.HasUser(t.Context(), "@_irc_hangs:example.org")
		wantCode(t, err, 408, "M_UNKNOWN")
		c.callTime, c.askTime = time.Minute, time.Minute // which the other answers in, however slow this machine is
		if found, err := c.HasUser(t.Context(), "@_irc_other:example.org"); !found || err != nil {
			t.Errorf("another name: %v %v", found, err)
		}
	}
	for range silentAfter {
		c.missed(s)
	}
	if !c.isSilent(s) {
		t.Error("a service that never answers is not taken for silent")
	}
}

// A service without an address cannot be pinged.
func TestPingWithoutAddress(t *testing.T) {
	proof.Of(t, "AP-10")
	all, err := Load(write(t, strings.Replace(registration, `"http://127.0.0.1:9000/path/"`, "null", 1)), "example.org")
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(all, netguard.NewDialer(nil, nil), slog.New(slog.DiscardHandler))
	_, err = c.Ping(t.Context(), all.ByID("irc"), "")
	wantCode(t, err, 400, "M_URL_NOT_SET")
	if found, err := c.HasUser(t.Context(), "@_irc_x:example.org"); found || err != nil {
		t.Errorf("a service without an address has a user: %v", err)
	}
}

// One item that is no JSON does not keep a service from the others.
func TestUnusableItems(t *testing.T) {
	b := &batch{events: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"unsigned":}`), json.RawMessage(`{"b":1}`)}}
	if _, err := json.Marshal(b.body()); err == nil {
		t.Fatal("nothing is wrong with the batch")
	}
	if n := b.usable(); n != 1 {
		t.Errorf("%d items were dropped", n)
	}
	if body, err := json.Marshal(b.body()); err != nil || string(body) != `{"events":[{"a":1},{"b":1}]}` {
		t.Errorf("left is %s, %v", body, err)
	}
}
