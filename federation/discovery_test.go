package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// dns is a fake resolver: every name that ends in .test is this machine, and SRV records are as set.
type dns struct {
	mu      sync.Mutex
	srv     map[string][]*net.SRV // by "service name"
	addrs   map[string][]netip.Addr
	broken  bool
	lookups int
}

func (d *dns) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups++
	if d.broken {
		return "", nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if records, ok := d.srv[service+" "+name]; ok {
		return name, records, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (d *dns) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if addrs, ok := d.addrs[host]; ok {
		return addrs, nil
	}
	if host == "localhost" || strings.HasSuffix(host, ".test") {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// clock is a time that only tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// documents serves delegation documents for many host names on one port.
type documents struct {
	mu     sync.Mutex
	byHost map[string]http.HandlerFunc
	hits   map[string]int
	port   string
}

func serveDocuments(t *testing.T, ca *peer.CA, hosts ...string) *documents {
	d := &documents{byHost: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proof.Called(t, r.Method, r.URL.Path)
		host, _, _ := net.SplitHostPort(r.Host)
		d.mu.Lock()
		d.hits[host]++
		handler := d.byHost[host]
		d.mu.Unlock()
		if handler == nil {
			handler = http.NotFound
		}
		handler(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are meant to fail in some tests
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, append(hosts, "localhost")...)}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, d.port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return d
}

func (d *documents) set(host string, h http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byHost[host] = h
}

func (d *documents) count(host string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hits[host]
}

func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

func delegate(name string) http.HandlerFunc { return body(fmt.Sprintf(`{"m.server": %q}`, name)) }

func testDiscovery(d *dns, docs *documents, ca *peer.CA, now func() time.Time) *Discovery {
	c := &connector{resolver: d, dial: loopback}
	return newDiscovery(d, newWellKnown(c, ca.Pool(), docs.port, now), now)
}

func TestRouteFollowsTheStepsOfTheSpec(t *testing.T) {
	proof.Of(t, "FD-03", "FD-04", "FD-05")
	ca := peer.NewCA(t)
	hosts := []string{"ip.test", "ipport.test", "port.test", "fed.test", "old.test", "plain.test", "six.test"}
	docs := serveDocuments(t, ca, append(hosts, "nowk-fed.test", "nowk-old.test", "nowk.test", "dot.test", "both.test")...)
	docs.set("ip.test", delegate("127.0.0.9"))
	docs.set("ipport.test", delegate("127.0.0.9:99"))
	docs.set("six.test", delegate("[::9]"))
	docs.set("port.test", delegate("d.test:555"))
	docs.set("fed.test", delegate("dfed.test"))
	docs.set("old.test", delegate("dold.test"))
	docs.set("plain.test", delegate("d.test"))
	d := &dns{srv: map[string][]*net.SRV{
		"matrix-fed dfed.test":     {{Target: "s1.test.", Port: 1}, {Target: "s2.test.", Port: 2}},
		"matrix dold.test":         {{Target: "s3.test.", Port: 3}},
		"matrix-fed nowk-fed.test": {{Target: "s4.test.", Port: 4}},
		"matrix nowk-old.test":     {{Target: "s5.test.", Port: 5}},
		"matrix-fed both.test":     {{Target: "s6.test.", Port: 6}},
		"matrix both.test":         {{Target: "s7.test.", Port: 7}},
		"matrix-fed dot.test":      {{Target: ".", Port: 0}},
		"matrix-fed port.test":     {{Target: "wrong.test.", Port: 1}},
	}}
	disc := testDiscovery(d, docs, ca, time.Now)
	for _, c := range []struct {
		name, step, host, tls, targets string
	}{
		{"127.0.0.5", "1", "127.0.0.5", "127.0.0.5", "127.0.0.5:8448"},
		{"127.0.0.5:80", "1", "127.0.0.5:80", "127.0.0.5", "127.0.0.5:80"},
		{"[::1]", "1", "[::1]", "::1", "[::1]:8448"},
		{"[::1]:80", "1", "[::1]:80", "::1", "[::1]:80"},
		{"two.test:1234", "2", "two.test:1234", "two.test", "two.test:1234"},
		{"fed.test:443", "2", "fed.test:443", "fed.test", "fed.test:443"},
		{"ip.test", "3.1", "127.0.0.9", "127.0.0.9", "127.0.0.9:8448"},
		{"ipport.test", "3.1", "127.0.0.9:99", "127.0.0.9", "127.0.0.9:99"},
		{"six.test", "3.1", "[::9]", "::9", "[::9]:8448"},
		{"port.test", "3.2", "d.test:555", "d.test", "d.test:555"},
		{"fed.test", "3.3", "dfed.test", "dfed.test", "s1.test:1 s2.test:2"},
		{"old.test", "3.4", "dold.test", "dold.test", "s3.test:3"},
		{"plain.test", "3.5", "d.test", "d.test", "d.test:8448"},
		{"nowk-fed.test", "4", "nowk-fed.test", "nowk-fed.test", "s4.test:4"},
		{"both.test", "4", "both.test", "both.test", "s6.test:6"},
		{"nowk-old.test", "5", "nowk-old.test", "nowk-old.test", "s5.test:5"},
		{"nowk.test", "6", "nowk.test", "nowk.test", "nowk.test:8448"},
		{"dot.test", "6", "dot.test", "dot.test", "dot.test:8448"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := disc.Locate(t.Context(), matrix.ServerName(c.name))
			if err != nil {
				t.Fatal(err)
			}
			var targets []string
			for _, target := range r.Targets {
				targets = append(targets, target.String())
			}
			if got := strings.Join(targets, " "); r.Step != c.step || r.Host != c.host || r.TLSName != c.tls || got != c.targets {
				t.Errorf("step %s Host %q TLS %q targets %q, want %q", r.Step, r.Host, r.TLSName, got, c)
			}
			if last := r.Steps[len(r.Steps)-1]; last.Number != c.step || last.Did == "" || last.Found == "" {
				t.Errorf("the last explanation is %+v", last)
			}
		})
	}
}

func TestBadDelegationDocumentsDoNotCount(t *testing.T) {
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "bad.test", "other.test")
	disc := testDiscovery(&dns{}, docs, ca, time.Now)
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"not JSON":        body("nonsense"),
		"no member":       body(`{"server": "d.test:1"}`),
		"other case":      body(`{"M.Server": "d.test:1"}`),
		"not a name":      body(`{"m.server": "https://d.test:1/"}`),
		"not text":        body(`{"m.server": 5}`),
		"given twice":     body(`{"m.server": "a.test:1", "m.server": "d.test:1"}`),
		"too large":       body(`{"m.server": "d.test:1", "x": "` + strings.Repeat("x", wellKnownBytes) + `"}`),
		"too deep":        body(`{"m.server": "d.test:1", "x": ` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`),
		"not found":       http.NotFound,
		"redirect loop":   redirect("https://bad.test:" + docs.port + wellKnownPath),
		"to plain HTTP":   redirect("http://other.test:" + docs.port + wellKnownPath),
		"to another port": redirect("https://other.test:1" + wellKnownPath),
	} {
		t.Run(name, func(t *testing.T) {
			docs.set("bad.test", h)
			disc.wellKnown.entries.InvalidateAll()
			r, err := disc.Explain(t.Context(), "bad.test")
			if err != nil {
				t.Fatal(err)
			}
			if r.Step != "6" || r.Host != "bad.test" {
				t.Errorf("step %s Host %s, want the fallback of step 6", r.Step, r.Host)
			}
			if r.Steps[0].Number != "3" || r.Steps[0].Fix == "" {
				t.Errorf("the explanation is %+v", r.Steps[0])
			}
		})
	}
}

func TestDelegationFollowsRedirects(t *testing.T) {
	proof.Of(t, "FD-06")
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "a.test", "b.test")
	docs.set("a.test", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://b.test:"+docs.port+"/elsewhere", http.StatusMovedPermanently)
	})
	docs.set("b.test", delegate("d.test:1"))
	r, err := testDiscovery(&dns{}, docs, ca, time.Now).Locate(t.Context(), "a.test")
	if err != nil || r.Host != "d.test:1" {
		t.Errorf("route %+v, %v", r, err)
	}
}

func TestDelegationIsRememberedAsTheServerAsks(t *testing.T) {
	proof.Of(t, "FD-06")
	ca := peer.NewCA(t)
	for name, c := range map[string]struct {
		header [2]string
		life   time.Duration
	}{
		"default":     {[2]string{"X-None", ""}, 24 * time.Hour},
		"max-age":     {[2]string{"Cache-Control", "public, max-age=7200"}, 2 * time.Hour},
		"too short":   {[2]string{"Cache-Control", "max-age=1"}, time.Hour},
		"not at all":  {[2]string{"Cache-Control", "no-store"}, time.Hour},
		"too long":    {[2]string{"Cache-Control", "max-age=100000000"}, 48 * time.Hour},
		"expires":     {[2]string{"Expires", time.Now().Add(5 * time.Hour).UTC().Format(http.TimeFormat)}, 5 * time.Hour},
		"nonsensical": {[2]string{"Cache-Control", "max-age=soon"}, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			docs := serveDocuments(t, ca, "a.test")
			docs.set("a.test", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(c.header[0], c.header[1])
				_, _ = w.Write([]byte(`{"m.server": "d.test:1"}`))
			})
			clk := newClock()
			disc := testDiscovery(&dns{}, docs, ca, clk.now)
			ask := func() {
				if _, err := disc.Locate(t.Context(), "a.test"); err != nil {
					t.Fatal(err)
				}
			}
			ask()
			clk.add(c.life - time.Minute)
			if ask(); docs.count("a.test") != 1 {
				t.Errorf("fetched %d times before its life ended", docs.count("a.test"))
			}
			clk.add(2 * time.Minute)
			if ask(); docs.count("a.test") != 2 {
				t.Errorf("fetched %d times after its life ended, want 2", docs.count("a.test"))
			}
		})
	}
}

func TestMissingDelegationIsAskedForLessAndLess(t *testing.T) {
	proof.Of(t, "FD-06")
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "a.test")
	clk := newClock()
	disc := testDiscovery(&dns{}, docs, ca, clk.now)
	var gaps []time.Duration
	last, hits := clk.now(), 0
	for range 5 * 60 {
		if _, err := disc.Locate(t.Context(), "a.test"); err != nil {
			t.Fatal(err)
		}
		if n := docs.count("a.test"); n != hits {
			hits = n
			gaps = append(gaps, clk.now().Sub(last))
			last = clk.now()
		}
		clk.add(time.Minute)
	}
	if len(gaps) < 6 || len(gaps) > 9 {
		t.Errorf("asked %d times in 5 hours: %v", len(gaps), gaps)
	}
	for i := 2; i < len(gaps); i++ {
		if gaps[i] > time.Hour+time.Minute || gaps[i] < gaps[i-1]-6*time.Minute {
			t.Errorf("the gaps do not grow up to an hour: %v", gaps)
		}
	}
}

func TestUnreachableDelegateIsLookedUpAgain(t *testing.T) {
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "a.test")
	docs.set("a.test", delegate("d.test:1"))
	clk := newClock()
	disc := testDiscovery(&dns{}, docs, ca, clk.now)
	for i, step := range []struct {
		wait time.Duration
		want int
	}{{0, 1}, {time.Minute, 1}, {wellKnownDoubt, 2}, {time.Minute, 2}} {
		clk.add(step.wait)
		disc.Suspect("a.test")
		if _, err := disc.Locate(t.Context(), "a.test"); err != nil {
			t.Fatal(err)
		}
		if n := docs.count("a.test"); n != step.want {
			t.Errorf("step %d: fetched %d times, want %d", i, n, step.want)
		}
	}
}

func TestBrokenDNSFallsBack(t *testing.T) {
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "a.test")
	r, err := testDiscovery(&dns{broken: true}, docs, ca, time.Now).Locate(t.Context(), "a.test")
	if err != nil || r.Step != "6" {
		t.Fatalf("route %+v, %v", r, err)
	}
	if !strings.Contains(r.Steps[1].Found, "failed") {
		t.Errorf("the failed look-up is not told: %+v", r.Steps[1])
	}
}

func TestRouteRefusesWhatIsNotAServerName(t *testing.T) {
	disc := testDiscovery(&dns{}, &documents{port: "1"}, peer.NewCA(t), time.Now)
	for _, name := range []matrix.ServerName{"", "a b", "a/b", "a.test:99999999", "[::1", "http://a.test", "a@b", "a.test:", "[fe80::1%25eth0]"} {
		if r, err := disc.Locate(t.Context(), name); err == nil {
			t.Errorf("%q got a route to %v", name, r.Targets)
		}
	}
}

func TestManyCallersShareOneLookUp(t *testing.T) {
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "a.test")
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	docs.set("a.test", func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		delegate("d.test:1")(w, r)
	})
	disc := testDiscovery(&dns{}, docs, ca, time.Now)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := disc.Locate(t.Context(), "a.test"); err != nil {
				t.Error(err)
			}
		})
	}
	<-arrived
	close(release)
	wg.Wait()
	if n := docs.count("a.test"); n != 1 {
		t.Errorf("the document was fetched %d times, want once", n)
	}
}

// loopback is the guarded dialler, allowed to reach this machine and nothing else that is private.
func loopback(ctx context.Context, network, address string) (net.Conn, error) {
	allowed := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsLoopback() {
		return nil, fmt.Errorf("the test dials %s", address)
	}
	return netguard.NewDialer(allowed, nil).DialContext(ctx, network, address)
}

func tlsFor(ca *peer.CA, t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "localhost", "127.0.0.1")}, MinVersion: tls.VersionTLS12}
}

func verifyLeaf(c *tls.Certificate, roots *x509.CertPool, name string) error {
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
	return err
}
