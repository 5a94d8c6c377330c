package testserver

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"
	"testing"

	"conclave/internal/matrix"
)

// Net is the network between servers of a test: it stands in front of each one's federation port, knows who asks by the
// signature's origin, and can cut any two of them off from one another, or lose an answer when its request has been
// carried out. What is not signed (keys, versions) always passes.
type Net struct {
	mu   sync.Mutex
	cuts map[[2]matrix.ServerName]bool
	lose func(from, to matrix.ServerName, r *http.Request) bool
}

// NewNet makes a network for Options.Net.
func NewNet() *Net { return &Net{cuts: map[[2]matrix.ServerName]bool{}} }

// Cut keeps two servers from hearing of one another, in both directions.
func (n *Net) Cut(a, b *Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]matrix.ServerName{a.Name, b.Name}], n.cuts[[2]matrix.ServerName{b.Name, a.Name}] = true, true
}

// Heal ends all cuts.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Lose decides which answers get lost after their requests were carried out; nil loses none.
func (n *Net) Lose(which func(from, to matrix.ServerName, r *http.Request) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = which
}

// judge says what happens to a request: nothing of it arrives, or its answer does not.
func (n *Net) judge(from, to matrix.ServerName, r *http.Request) (cut, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[[2]matrix.ServerName{from, to}], n.lose != nil && n.lose(from, to, r)
}

var originOf = regexp.MustCompile(`^X-Matrix origin="([^"]*)"`)

// front listens where a server's name leads and passes on to where it really listens.
func (n *Net) front(t testing.TB, s *Server, port, behind int) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", behind)})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			DisableCompression: true, MaxIdleConnsPerHost: 32,
		},
		// A server that is down is as far away as one that is cut off.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0), // requests are meant to fail
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		from := matrix.ServerName("")
		if m := originOf.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
			from = matrix.ServerName(m[1])
		}
		cut, lost := n.judge(from, s.Name, r)
		if cut {
			panic(http.ErrAbortHandler)
		}
		if lost {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	_ = srv.Listener.Close() // its own, in whose place comes the one of the name
	srv.Listener, srv.EnableHTTP2 = l, true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{s.CA.Issue(t, "localhost", "127.0.0.1")}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
}
