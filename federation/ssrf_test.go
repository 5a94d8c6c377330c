package federation

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// canary listens on loopback and counts who gets through.
func canary(t *testing.T) (port uint16, reached *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	reached = new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	return uint16(listener.Addr().(*net.TCPAddr).Port), reached
}

// inner are spellings of addresses that are nobody's business from outside.
var inner = strings.Fields(`127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 192.0.0.1 192.168.0.1 198.18.0.1 224.0.0.1
	255.255.255.255 [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::]
	[2002:7f00:0001::1] [2001:0:7f00:1::] [2001::80ff:fffe] [fc00::1] [fd00::1] [fe80::1] [fec0::1] [ff02::1] [::ffff:169.254.169.254] [2002:a9fe:a9fe::1]
	127.1 0177.0.0.1 0x7f.0.0.1 2130706433 017700000001 127.0.0.001 localhost LOCALHOST inner.test ten.test mapped.test`)

// TestNoNameLeadsInside is threats O01: spellings of inner addresses as a server's name, as the target of its delegation
// and as the target of its SRV record. Nothing arrives there.
func TestNoNameLeadsInside(t *testing.T) {
	proof.Of(t, "O01")
	if len(inner) < 40 {
		t.Fatalf("only %d forms", len(inner))
	}
	ca := peer.NewCA(t)
	port, reached := canary(t)
	guard := netguard.NewDialer(nil, nil)
	var hosts []string
	for i := range inner {
		hosts = append(hosts, fmt.Sprintf("wk%d.test", i))
	}
	docs := serveDocuments(t, ca, hosts...)
	addrs := map[string][]netip.Addr{
		"inner.test": {netip.MustParseAddr("127.0.0.1")}, "ten.test": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("127.0.0.1")},
		"mapped.test": {netip.MustParseAddr("::ffff:127.0.0.1")}, "LOCALHOST": {netip.MustParseAddr("127.0.0.1")},
	}
	d := &dns{srv: map[string][]*net.SRV{}, addrs: addrs}
	c := testClient(t, ca, func(o *ClientOptions) {
		o.Resolver, o.WellKnownPort = d, docs.port
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasSuffix(address, ":"+docs.port) { // stands for the outside
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
			return guard.DialContext(ctx, network, address)
		}
	})
	for i, form := range inner {
		names := []matrix.ServerName{matrix.ServerName(fmt.Sprintf("%s:%d", form, port)), matrix.ServerName(hosts[i])}
		docs.set(hosts[i], delegate(fmt.Sprintf("%s:%d", form, port)))
		srv := fmt.Sprintf("srv%d.test", i)
		d.mu.Lock()
		d.srv["matrix-fed "+srv] = []*net.SRV{{Target: strings.Trim(form, "[]") + ".", Port: port}}
		d.mu.Unlock()
		for _, name := range append(names, matrix.ServerName(srv)) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := c.GetServerKey(ctx, name)
			cancel()
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s (%s): %v", name, form, err)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
}

// TestRedirectsLeadNowhereInside is threats O02 for delegation documents: a public host that redirects to an inner one.
func TestRedirectsLeadNowhereInside(t *testing.T) {
	proof.Of(t, "O02")
	ca := peer.NewCA(t)
	port, reached := canary(t)
	guard := netguard.NewDialer(nil, nil)
	docs := serveDocuments(t, ca, "out.test")
	conn := &connector{resolver: &dns{}, dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasSuffix(address, ":"+docs.port) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return guard.DialContext(ctx, network, address)
	}}
	disc := newDiscovery(&dns{}, newWellKnown(conn, ca.Pool(), docs.port, time.Now), time.Now)
	for _, to := range []string{
		fmt.Sprintf("https://127.0.0.1:%d/", port), fmt.Sprintf("http://127.0.0.1:%d/", port), "https://169.254.169.254/latest/meta-data", fmt.Sprintf("https://[::ffff:127.0.0.1]:%d/", port),
		fmt.Sprintf("https://inner.test:%d/", port), "file:///etc/passwd", "gopher://127.0.0.1/",
	} {
		docs.set("out.test", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		disc.wellKnown.entries.InvalidateAll()
		if r, err := disc.Explain(t.Context(), "out.test"); err != nil || r.Step != "6" {
			t.Errorf("%s: %+v, %v", to, r, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
}

// TestHostileDelegationDocuments is threats O04: endless, slow, looping, nested and packed documents cost little time and
// memory, and what they are worth is remembered.
func TestHostileDelegationDocuments(t *testing.T) {
	proof.Of(t, "O04", "O05", "FD-06")
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "bad.test")
	part := []byte(strings.Repeat(" ", 64<<10))
	var sent atomic.Int64
	endless := func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"m.server":"d.test:1"`))
		for range 1 << 14 { // a gibibyte
			n, err := w.Write(part)
			if sent.Add(int64(n)); err != nil || r.Context().Err() != nil {
				return
			}
		}
	}
	bomb := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte(`{"m.server":"d.test:1","x":"`))
		for range 160 { // ten mebibytes in ten kibibytes
			_, _ = z.Write(part)
		}
		_, _ = z.Write([]byte(`"}`))
		_ = z.Close()
	}
	slow := func(w http.ResponseWriter, r *http.Request) {
		for i := 0; r.Context().Err() == nil; i++ {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(100 * time.Millisecond): // as slow as it may be without being idle
			case <-r.Context().Done():
			}
		}
	}
	loop := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("https://bad.test:%s/%d", docs.port, sent.Add(1)), http.StatusFound)
	}
	cases := map[string]http.HandlerFunc{
		"endless": endless, "a bomb": bomb, "redirects without end": loop,
		"nested": body(`{"m.server":"d.test:1","x":` + strings.Repeat(`[`, 20_000) + strings.Repeat(`]`, 20_000) + `}`),
		"many":   body(`{"m.server":"d.test:1","x":[` + strings.Repeat(`0,`, 20_000) + `0]}`),
	}
	limit := time.Second
	if os.Getenv("CONCLAVE_LONG") != "" {
		limit = wellKnownTimeout
	}
	cases["slow"] = slow
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for name, h := range cases {
		docs.set("bad.test", h)
		disc := testDiscovery(&dns{}, docs, ca, time.Now)
		if name == "slow" { // the others are cut off by what they are, however slow this machine is
			disc.wellKnown.client.Timeout = limit
		}
		hits := docs.count("bad.test")
		began := time.Now()
		for range 20 {
			r, err := disc.Explain(t.Context(), "bad.test")
			if err != nil || r.Step != "6" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		}
		if took := time.Since(began); took > limit+5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		want := 1
		if name == "redirects without end" {
			want = 1 + wellKnownHops
		}
		if n := docs.count("bad.test") - hits; n != want {
			t.Errorf("%s: %d requests for 20 questions, want %d", name, n, want)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d bytes were read of an endless document", n)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 5<<20 {
		t.Errorf("%d bytes are held", grown)
	}
}

// TestPackedBodiesStayPacked is threats O05 for the API: nothing is asked for in packed form, a packed answer is none,
// and of a packed request nothing is unpacked.
func TestPackedBodiesStayPacked(t *testing.T) {
	proof.Of(t, "O05")
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := peer.New(t, ca, peer.Options{})
	var asked http.Header
	p.Handle("GET", v1+"/event_auth/{roomId}/{eventId}", func(call *peer.Call) peer.Reply {
		asked = call.Header
		return peer.Reply{Write: func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(`{"auth_chain":[` + strings.Repeat(" ", 1<<20)))
			for range 255 { // a quarter of a gibibyte
				_, _ = z.Write([]byte(strings.Repeat(" ", 1<<20)))
			}
			_, _ = z.Write([]byte(`]}`))
			_ = z.Close()
		}}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if events, err := c.GetEventAuth(t.Context(), p.Name, "!a:b", "$c"); err == nil {
		t.Errorf("a packed answer gives %d events", len(events))
	}
	runtime.ReadMemStats(&after)
	if asked == nil || asked.Get("Accept-Encoding") != "" {
		t.Errorf("asked with Accept-Encoding %q", asked.Get("Accept-Encoding"))
	}
	if made := after.Sys - before.Sys; made > 32<<20 {
		t.Errorf("the process grew by %d MiB", made>>20)
	}
}
