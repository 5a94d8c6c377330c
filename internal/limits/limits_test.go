package limits_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/limits"
	"conclave/internal/observe"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/redis"
	"conclave/internal/testserver/wait"
)

// clock is one that stands still until a test moves it.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(1_700_000_000_000)
	return c
}

func (c *clock) now() time.Time       { return time.UnixMilli(c.ms.Load()) }
func (c *clock) pass(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// count is how often a log has something.
func count(out *wait.Log, part string) int { return strings.Count(out.String(), part) }

// node is the counter of one node.
func node(t *testing.T, r *limits.Redis, c *clock, out *wait.Log) *limits.Counter {
	t.Helper()
	if r != nil && r.Wait == 0 {
		r.Wait = time.Minute // a busy machine is no reason to count alone
	}
	o := limits.Options{Enabled: true, Key: []byte("the same for all nodes"), Redis: r, Log: slog.New(slog.NewTextHandler(out, nil))}
	if c != nil {
		o.Clock = c.now
	}
	n, err := limits.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

var login = limits.Budget{Every: 3 * time.Minute, Burst: 10}

func TestBudget(t *testing.T) {
	c := newClock()
	n := node(t, nil, c, &wait.Log{})
	for i := range 10 {
		if wait := n.Spend(t.Context(), login, "a"); wait != 0 {
			t.Fatalf("call %d waits for %v", i, wait)
		}
	}
	for range 3 { // a refusal costs nothing
		if wait := n.Spend(t.Context(), login, "a"); wait != 3*time.Minute {
			t.Fatalf("the eleventh waits for %v", wait)
		}
	}
	if wait := n.Spend(t.Context(), login, "b"); wait != 0 {
		t.Errorf("somebody else waits for %v", wait)
	}
	c.pass(3*time.Minute - time.Millisecond)
	if wait := n.Spend(t.Context(), login, "a"); wait != time.Millisecond {
		t.Errorf("a moment too early: %v", wait)
	}
	c.pass(time.Millisecond)
	if wait := n.Spend(t.Context(), login, "a"); wait != 0 {
		t.Errorf("in time: %v", wait)
	}
	off, err := limits.New(limits.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if wait := off.Spend(t.Context(), login, "a"); wait != 0 {
			t.Fatal("a counter that is off refuses")
		}
	}
}

// TestManyNamesPushOutFew spends as somebody with very many addresses would, whose aim is that an exhausted budget is
// forgotten.
func TestManyNamesPushOutFew(t *testing.T) {
	n := node(t, nil, newClock(), &wait.Log{})
	const targets = 1000
	once := limits.Budget{Every: time.Hour, Burst: 1}
	for i := range targets {
		n.Spend(t.Context(), once, fmt.Sprint("target ", i))
	}
	for i := range 110_000 {
		n.Spend(t.Context(), once, fmt.Sprint("address ", i))
	}
	kept := 0
	for i := range targets {
		if n.Spend(t.Context(), once, fmt.Sprint("target ", i)) > 0 {
			kept++
		}
	}
	if kept < targets*3/4 { // one in ten was pushed out, by chance
		t.Errorf("of %d exhausted budgets %d are remembered", targets, kept)
	}
}

// guess tries ten thousand times within an hour, at all nodes in turn, and counts what was allowed.
func guess(t *testing.T, c *clock, name string, during func(i int), nodes ...*limits.Counter) (allowed int) {
	t.Helper()
	const tries = 10_000
	for i := range tries {
		if during != nil {
			during(i)
		}
		if nodes[i%len(nodes)].Spend(t.Context(), login, name) == 0 {
			allowed++
		}
		c.pass(time.Hour / tries)
	}
	return allowed
}

func TestNodesCountTogether(t *testing.T) {
	s, c, out := redis.Start(t), newClock(), &wait.Log{}
	shared := &limits.Redis{URL: observe.Secret(s.URL)}
	a, b := node(t, shared, c, out), node(t, shared, c, out)
	if n := guess(t, c, "@alice:example.org", nil, a, b); n < 29 || n > 30 {
		t.Errorf("two nodes allowed %d within an hour", n)
	}
	for key, value := range s.Kept() {
		if !strings.HasPrefix(key, "conclave:limit:") || strings.Contains(key+value, "alice") || strings.Contains(key+value, "example") {
			t.Errorf("Redis holds %q: %q", key, value)
		}
	}
	if len(s.Kept()) == 0 {
		t.Error("Redis holds nothing: the test has gone blind")
	}
	// A node that starts anew begins with what the others know.
	a.Spend(t.Context(), login, "@alice:example.org") // what the last moment of the hour may have left
	if wait := node(t, shared, c, out).Spend(t.Context(), login, "@alice:example.org"); wait == 0 {
		t.Error("a node that starts anew gives a new budget")
	}
	// Redis goes in the middle of an hour, comes back empty, and is not missed.
	n := guess(t, c, "bob", func(i int) {
		switch i {
		case 100:
			s.Kill()
		case 5000:
			s.Start()
			wait.Until(t, "the nodes find Redis again", func() bool { return count(out, "Redis answers again") == 2 })
		}
	}, a, b)
	if n < 29 || n > 2*30 { // without it each node counts for itself, from where it was
		t.Errorf("two nodes with a Redis that was away allowed %d within an hour", n)
	}
	if n := count(out, "Redis does not answer"); n != 2 {
		t.Errorf("two nodes have told %d times that Redis is away:\n%s", n, out.String())
	}
	if count(out, redis.Password) > 0 {
		t.Error("the log holds the password of Redis")
	}
	if n := guess(t, c, "carol", nil, a, b); n < 29 || n > 30 {
		t.Errorf("after that two nodes allowed %d within an hour", n)
	}
}

// TestNobodyWaitsForRedis freezes it, as a network does that loses every packet.
func TestNobodyWaitsForRedis(t *testing.T) {
	s, out := redis.Start(t), &wait.Log{}
	n := node(t, &limits.Redis{URL: observe.Secret(s.URL), Wait: time.Second}, nil, out)
	fast := limits.Budget{Every: time.Millisecond, Burst: 1000}
	for n.Spend(t.Context(), fast, "a"); count(out, "does not answer") != count(out, "answers again"); n.Spend(t.Context(), fast, "a") {
	}
	s.Freeze()
	began := time.Now()
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			for range 50 {
				n.Spend(t.Context(), fast, "a")
			}
		})
	}
	calls.Wait()
	if took := time.Since(began); took > 20*time.Second { // 50 if each waited
		t.Errorf("a thousand calls took %v while Redis is frozen", took)
	}
	told := count(out, "Redis does not answer")
	if told < 1 || told > 2 { // once more if the machine was that busy before
		t.Errorf("it was told %d times", told)
	}
	s.Thaw()
	wait.Until(t, "Redis is found again", func() bool { return count(out, "Redis answers again") == told })
	// Somebody who goes away says nothing about Redis.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		n.Spend(gone, fast, "a")
	}
	if n := count(out, "Redis does not answer"); n > told+1 {
		t.Error("a client that went away was taken for a Redis that does not answer")
	}
}

func TestRedisOverTLS(t *testing.T) {
	ca, c := peer.NewCA(t), newClock()
	s := redis.StartTLS(t, ca)
	out := &wait.Log{}
	r := &limits.Redis{URL: observe.Secret(s.URL), Roots: ca.Pool()}
	if n := guess(t, c, "alice", nil, node(t, r, c, out), node(t, r, c, out)); n > 30 || count(out, "does not answer") > 0 {
		t.Errorf("over TLS two nodes allowed %d:\n%s", n, out.String())
	}
	node(t, &limits.Redis{URL: observe.Secret(s.URL)}, c, out).Spend(t.Context(), login, "alice")
	if count(out, "certificate") == 0 {
		t.Error("a certificate of an unknown authority was taken")
	}
	wrong := strings.Replace(s.URL, redis.Password, "not-the-password", 1)
	node(t, &limits.Redis{URL: observe.Secret(wrong), Roots: ca.Pool()}, c, out).Spend(t.Context(), login, "alice")
	if count(out, "WRONGPASS") == 0 || count(out, "not-the-password") > 0 {
		t.Errorf("a wrong password:\n%s", out.String())
	}
	for _, url := range []string{"http://x", "redis://", "unix:///tmp/x", "redis://:pass word@x", "://"} {
		if _, err := limits.ParseRedis(limits.Redis{URL: observe.Secret(url)}); (err == nil) != (url == "redis://") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestBlock(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "@": "@", "": "",
	} {
		if got := limits.Block(address); got != want {
			t.Errorf("Block(%q) = %q, want %q", address, got, want)
		}
	}
}
