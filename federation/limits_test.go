package federation

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestLimits holds the limits between servers to section 1 of the threat model: they may become stricter, never more
// generous.
func TestLimits(t *testing.T) {
	for _, l := range []struct {
		what  string
		is    int64
		limit int64
	}{
		{"an event in bytes", matrix.MaxEventSize, 65536},
		{"nesting of JSON", maxNesting, 64},
		{"events of a transaction", maxPDUs, 50},
		{"EDUs of a transaction", maxEDUs, 100},
		{"bytes of a transaction", maxTransaction, 10 << 20},
		{"bytes of a delegation document", wellKnownBytes, 50 << 10},
		{"bytes of an answer about keys", keysBudget.bytes, 1 << 20},
		{"bytes of a list of events", listBudget.bytes, 16 << 20},
		{"bytes of a state, as it comes", stateBudget.bytes, 256 << 20},
		{"redirects of a delegation document", wellKnownHops, 3},
		{"seconds to connect", int64(dialTimeout / time.Second), 5},
		{"seconds of a TLS handshake", int64(tlsTimeout / time.Second), 5},
		{"seconds to the head of an answer", int64(headerTimeout / time.Second), 30},
		{"seconds between two parts of an answer", int64(idleTimeout / time.Second), 15},
		{"seconds of an answer", int64(totalTimeout / time.Second), 60},
		{"seconds of media", int64(mediaTimeout / time.Second), 600},
		{"bytes of the head of a request", maxHeaderBytes, 32 << 10},
		{"seconds of the head of a request", int64(inHeaderTimeout / time.Second), 10},
		{"seconds between two parts of a request", int64(inBodyIdle / time.Second), 20},
		{"seconds of a request", int64(inRequestTimeout / time.Second), 120},
		{"seconds of a delegation document", int64(wellKnownTimeout / time.Second), 10},
		{"seconds that a key is trusted beyond its document", int64(maxKeyLife / time.Second), 7 * 24 * 3600},
		{"servers of one question to a notary", maxNotaryServers, 50},
		{"events that wait in a room", store.MaxStaged, 1000},
	} {
		if l.is > l.limit || l.is <= 0 {
			t.Errorf("%s: %d, the limit is %d", l.what, l.is, l.limit)
		}
	}
	for _, r := range Routes() {
		if r.OperationID == "sendTransaction" && (r.PerOrigin != 4 || r.MaxBody != maxTransaction) {
			t.Errorf("of one server %d transactions of %d bytes are taken in at a time", r.PerOrigin, r.MaxBody)
		}
		if r.MaxBody > maxTransaction {
			t.Errorf("%s reads %d bytes", r.OperationID, r.MaxBody)
		}
	}
}

// TestOutgoingLimitsHold has a server that answers with too much of everything.
func TestOutgoingLimitsHold(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := peer.New(t, ca, peer.Options{})
	other := peer.New(t, ca, peer.Options{})
	stream := func(n int64, begin string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, begin)
			part := strings.Repeat(" ", 64<<10)
			for left := n; left > 0; left -= int64(len(part)) {
				if _, err := io.WriteString(w, part); err != nil {
					return
				}
			}
		}
	}
	key := func(reply peer.Reply) error {
		p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply { return reply })
		_, err := c.GetServerKey(t.Context(), p.Name)
		return err
	}
	for name, reply := range map[string]peer.Reply{
		"a mebibyte and more":   {Write: stream(2<<20, "{")},
		"a head of 40 KiB":      {Header: map[string]string{"X-Long": strings.Repeat("x", 40<<10)}, Body: p.KeyDocument(nil)},
		"somewhere else":        {Status: 302, Header: map[string]string{"Location": "https://" + other.Addr + "/_matrix/key/v2/server"}, Body: "{}"},
		"somewhere else, saved": {Status: 308, Header: map[string]string{"Location": "https://" + other.Addr + "/_matrix/key/v2/server"}, Body: "{}"},
		"packed":                {Header: map[string]string{"Content-Encoding": "gzip"}, Body: []byte("\x1f\x8b\x08")},
		"nested":                {Body: []byte(strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100))},
	} {
		if err := key(reply); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if len(other.Calls("/")) != 0 {
		t.Error("a redirect was followed")
	}
	if err := key(peer.Reply{Body: p.KeyDocument(nil)}); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	p.Handle("GET", v1+"/event_auth/{roomId}/{eventId}", func(*peer.Call) peer.Reply { return peer.Reply{Write: stream(17<<20, `{"auth_chain":[`)} })
	if _, err := c.GetEventAuth(t.Context(), p.Name, "!a:b", "$c"); err == nil {
		t.Error("a list of 17 MiB was taken")
	}
}

// TestRequestsHaveOneFrame is threats F25: a request whose body two readers would count differently ends its connection,
// and what is hidden behind it is nobody's request.
func TestRequestsHaveOneFrame(t *testing.T) {
	proof.Of(t, "F25")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p := peer.New(t, w.ca, peer.Options{})
		u, _ := url.Parse(us.URL)
		talk := func(text string) (statuses []int) {
			t.Helper()
			conn, err := tls.Dial("tcp", u.Host, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.WriteString(conn, text) // who is refused in the middle of it cannot write the rest, and is answered
			in := bufio.NewReader(conn)
			for {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					return statuses
				}
				statuses = append(statuses, res.StatusCode)
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if len(statuses) == 2 {
					return statuses
				}
			}
		}
		const uri = "/_matrix/test/x/put"
		body := []byte(`{"a":1}`)
		hidden := "GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
		head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n", uri, p.Authorization(us.Server, "PUT", uri, body))
		chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		plain := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
		for name, c := range map[string]struct {
			text string
			want []int
		}{
			"two plain requests":  {head + plain + hidden, []int{200, 200}},
			"both lengths":        {head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n", len(chunked)+len(hidden)) + chunked + hidden, []int{200}},
			"chunked":             {head + "Transfer-Encoding: chunked\r\n\r\n" + chunked + hidden, []int{200}},
			"two lengths":         {head + "Content-Length: 0\r\n" + plain + hidden, []int{400}},
			"a strange encoding":  {head + "Transfer-Encoding: xchunked\r\n" + plain + hidden, []int{501}},
			"encoded twice":       {head + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked + hidden, []int{501}},
			"a blank in the name": {head + "Transfer-Encoding : chunked\r\n" + plain + hidden, []int{400}},
		} {
			if got := talk(c.text); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s: answered %v, want %v", name, got, c.want)
			}
		}
		if got := talk("GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"); fmt.Sprint(got) != "[431]" {
			t.Errorf("a long head: answered %v", got)
		}
	})
}
