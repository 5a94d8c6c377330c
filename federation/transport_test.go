package federation

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestServersAreNamedInTheHandshake looks at what a connection asks for: the name, where the server has one, none for an
// IP literal, and never an older protocol than TLS 1.2; and at the content types of a request.
func TestServersAreNamedInTheHandshake(t *testing.T) {
	proof.Of(t, "FD-01")
	ca := peer.NewCA(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	type hello struct {
		name   string
		oldest uint16
	}
	hellos := make(chan hello, 10)
	requests := make(chan *http.Request, 10)
	srv := &http.Server{ //nolint:gosec // of a test
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests <- r
			w.Header().Set("Content-Type", "text/plain") // a peer that is careless about it is understood
			_, _ = w.Write([]byte(`{"pdus":{}}`))
		}),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{ca.Issue(t, "name.test", "127.0.0.1")},
			GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				oldest := uint16(tls.VersionTLS13)
				for _, v := range h.SupportedVersions {
					oldest = min(oldest, v)
				}
				hellos <- hello{h.ServerName, oldest}
				return nil, nil
			},
		},
	}
	go func() { _ = srv.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	c := testClient(t, ca, nil)
	for name, sni := range map[matrix.ServerName]string{
		matrix.ServerName("name.test:" + port): "name.test", matrix.ServerName("127.0.0.1:" + port): "",
	} {
		if _, err := c.SendTransaction(t.Context(), name, "1", []byte(`{"pdus":[]}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if h := <-hellos; h.name != sni || h.oldest < tls.VersionTLS12 {
			t.Errorf("%s: the handshake names %q and goes down to version %x", name, h.name, h.oldest)
		}
		r := <-requests
		if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Accept") != "application/json" || r.Host != string(name) {
			t.Errorf("%s: requested with %v from %s", name, r.Header, r.Host)
		}
	}
}
