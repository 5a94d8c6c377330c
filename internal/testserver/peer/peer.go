package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// Options say how a Peer differs from an ordinary one.
type Options struct {
	// Name is its server name; "" is localhost and the port it listens on, which needs no DNS to be found.
	Name matrix.ServerName

	// CertNames are what its certificate is for; none means localhost, 127.0.0.1 and the host of Name.
	CertNames []string

	// HTTP1 turns HTTP/2 off.
	HTTP1 bool
}

// Peer is a homeserver double. Its methods are safe for concurrent use.
type Peer struct {
	Name  matrix.ServerName
	KeyID matrix.KeyID
	Key   ed25519.PrivateKey
	Addr  string // where it listens
	CA    *CA

	t   testing.TB
	srv *httptest.Server

	mu      sync.Mutex
	changed chan struct{} // closed and renewed at every call
	rules   []rule
	calls   []*Call
	trusted map[string]ed25519.PublicKey // by server and key ID
	hosted  []*host                      // rooms that it answers for
	serial  int
}

// Call is one request that a Peer got.
type Call struct {
	Method, Path string // Path is unescaped
	URI          string // the request target as it came
	Host         string
	Proto        string
	Header       http.Header
	Query        map[string][]string
	Body         []byte

	// Origin is who signed it, "" if the signature was missing or not by a key that the Peer was told to Trust.
	Origin matrix.ServerName
}

// JSON decodes the body into v.
func (c *Call) JSON(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(c.Body, v); err != nil {
		t.Fatalf("body of %s %s: %v", c.Method, c.URI, err)
	}
}

// Reply is an answer. Body is JSON text as []byte, or anything that encodes to JSON. Status 0 is 200.
type Reply struct {
	Status int
	Header map[string]string
	Body   any

	// Write, if it is not nil, writes the answer itself, however wrong.
	Write func(http.ResponseWriter)
}

// Refuse is an error answer of Matrix.
func Refuse(status int, code string) Reply {
	return Reply{Status: status, Body: map[string]string{"errcode": code, "error": "refused by the test"}}
}

type rule struct {
	method string
	path   *regexp.Regexp
	answer func(*Call) Reply
}

// New starts a Peer that ends with the test.
func New(t testing.TB, ca *CA, o Options) *Peer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{Name: o.Name, KeyID: "ed25519:peer1", Key: key, CA: ca, t: t, changed: make(chan struct{}), trusted: map[string]ed25519.PublicKey{}}
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.srv.EnableHTTP2 = !o.HTTP1
	p.Addr = p.srv.Listener.Addr().String()
	if p.Name == "" {
		_, port, _ := net.SplitHostPort(p.Addr)
		p.Name = matrix.ServerName("localhost:" + port)
	}
	names := o.CertNames
	if names == nil {
		names = []string{"localhost", "127.0.0.1", strings.Split(string(p.Name), ":")[0]}
	}
	p.srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, names...)}}
	p.srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are meant to fail in some tests
	p.srv.StartTLS()
	t.Cleanup(func() {
		p.srv.CloseClientConnections()
		p.srv.Close()
	})
	p.Handle("GET", "/_matrix/key/v2/server", func(*Call) Reply { return Reply{Body: p.KeyDocument(nil)} })
	p.Handle("GET", "/_matrix/federation/v1/version", func(*Call) Reply {
		return Reply{Body: map[string]any{"server": map[string]string{"name": "peer", "version": "0"}}}
	})
	p.Handle("PUT", "/_matrix/federation/v1/send/{txnId}", func(*Call) Reply {
		return Reply{Body: map[string]any{"pdus": map[string]any{}}}
	})
	return p
}

// Stop makes the Peer unreachable.
func (p *Peer) Stop() {
	p.srv.CloseClientConnections()
	p.srv.Close()
}

// Handle scripts the answers to a method and a path, in which {name} stands for one segment. The newest rule counts.
func (p *Peer) Handle(method, path string, answer func(*Call) Reply) {
	pattern := regexp.MustCompile(`\\\{[^/]*\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `.+`)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, rule{method, regexp.MustCompile("^" + pattern + "$"), answer})
}

// Trust tells the Peer a key by which requests to it are signed.
func (p *Peer) Trust(server matrix.ServerName, id matrix.KeyID, key ed25519.PublicKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trusted[string(server)+" "+string(id)] = key
}

func (p *Peer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // who asked has ended or given up in the middle: that is no request
	}
	call := &Call{
		Method: r.Method, Path: r.URL.Path, URI: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header.Clone(),
		Query: r.URL.Query(), Body: body,
	}
	proof.Called(p.t, r.Method, r.URL.EscapedPath())
	p.mu.Lock()
	call.Origin = p.origin(call)
	p.calls = append(p.calls, call)
	close(p.changed)
	p.changed = make(chan struct{})
	var answer func(*Call) Reply
	for _, rule := range p.rules {
		if rule.method == r.Method && rule.path.MatchString(r.URL.Path) {
			answer = rule.answer
		}
	}
	p.mu.Unlock()
	reply := Refuse(http.StatusNotFound, "M_UNRECOGNIZED")
	if answer != nil {
		reply = answer(call)
	}
	if reply.Write != nil {
		reply.Write(w)
		return
	}
	write(w, reply)
}

func write(w http.ResponseWriter, reply Reply) {
	data, ok := reply.Body.([]byte)
	if !ok {
		data = encode(reply.Body)
	}
	w.Header().Set("Content-Type", "application/json")
	for name, value := range reply.Header {
		w.Header().Set(name, value)
	}
	if reply.Status == 0 {
		reply.Status = http.StatusOK
	}
	w.WriteHeader(reply.Status)
	_, _ = w.Write(data)
}

// Calls are the requests so far whose path begins with prefix.
func (p *Peer) Calls(prefix string) []*Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.matching(prefix)
}

func (p *Peer) matching(prefix string) []*Call {
	var out []*Call
	for _, c := range p.calls {
		if strings.HasPrefix(c.Path, prefix) {
			out = append(out, c)
		}
	}
	return out
}

// WaitCalls waits until there have been at least n requests whose path begins with prefix.
func (p *Peer) WaitCalls(t testing.TB, prefix string, n int) []*Call {
	t.Helper()
	limit := time.After(time.Minute) // far longer than anything takes, on a machine that is busy with other tests
	for {
		p.mu.Lock()
		found, changed := p.matching(prefix), p.changed
		p.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s got %d requests to %s, want %d", p.Name, len(found), prefix, n)
		}
	}
}

var authorization = regexp.MustCompile(`^X-Matrix origin="([^"]*)",destination="([^"]*)",key="([^"]*)",sig="([^"]*)"$`)

// origin verifies a request's signature; the caller holds p.mu.
func (p *Peer) origin(c *Call) matrix.ServerName {
	m := authorization.FindStringSubmatch(c.Header.Get("Authorization"))
	if m == nil || m[2] != string(p.Name) {
		return ""
	}
	key, ok := p.trusted[m[1]+" "+m[3]]
	sig, err := base64.RawStdEncoding.DecodeString(m[4])
	if !ok || err != nil || !ed25519.Verify(key, signedRequest(c.Method, c.URI, m[1], m[2], c.Body), sig) {
		return ""
	}
	return matrix.ServerName(m[1])
}

func signedRequest(method, uri, origin, destination string, body []byte) []byte {
	object := map[string]any{"method": method, "uri": uri, "origin": origin, "destination": destination}
	if len(body) > 0 {
		object["content"] = decode(body)
	}
	return encode(object)
}

// KeyDocument is the Peer's answer to getServerKey; change, if not nil, alters it before it is signed.
func (p *Peer) KeyDocument(change func(map[string]any)) []byte {
	doc := map[string]any{
		"server_name":     string(p.Name),
		"verify_keys":     map[string]any{string(p.KeyID): map[string]any{"key": unpadded(p.Key.Public().(ed25519.PublicKey))}},
		"old_verify_keys": map[string]any{},
		"valid_until_ts":  time.Now().Add(24 * time.Hour).UnixMilli(),
	}
	if change != nil {
		change(doc)
	}
	Sign(doc, p.Name, p.KeyID, p.Key)
	return encode(doc)
}

// Sign adds a signature to a JSON object.
func Sign(object map[string]any, name matrix.ServerName, id matrix.KeyID, key ed25519.PrivateKey) {
	bare := map[string]any{}
	for k, v := range object {
		if k != "signatures" && k != "unsigned" {
			bare[k] = v
		}
	}
	addSignature(object, name, id, ed25519.Sign(key, encode(bare)))
}

func addSignature(object map[string]any, name matrix.ServerName, id matrix.KeyID, sig []byte) {
	signatures, _ := object["signatures"].(map[string]any)
	if signatures == nil {
		signatures = map[string]any{}
		object["signatures"] = signatures
	}
	mine, _ := signatures[string(name)].(map[string]any)
	if mine == nil {
		mine = map[string]any{}
		signatures[string(name)] = mine
	}
	mine[string(id)] = unpadded(sig)
}

// Authorization is the header value for a request of the Peer.
func (p *Peer) Authorization(destination matrix.ServerName, method, uri string, body []byte) string {
	sig := ed25519.Sign(p.Key, signedRequest(method, uri, string(p.Name), string(destination), body))
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, p.Name, destination, p.KeyID, unpadded(sig))
}

// Target is a server under test: its name and the base URL where it really is.
type Target struct {
	Server matrix.ServerName
	URL    string
}

// Answer is what a server under test answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Code is the errcode of an error answer.
func (a Answer) Code() string {
	var e struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(a.Body, &e)
	return e.Code
}

// Do makes a signed request to a server under test. uri begins with a slash; body is JSON text, nil for none.
func (p *Peer) Do(t testing.TB, to Target, method, uri string, body []byte) Answer {
	t.Helper()
	return p.DoWith(t, to, method, uri, body, http.Header{"Authorization": {p.Authorization(to.Server, method, uri, body)}})
}

// DoWith is Do with headers of the caller's choice.
func (p *Peer) DoWith(t testing.TB, to Target, method, uri string, body []byte, header http.Header) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to.URL+uri, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.CA.Pool(), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, uri, err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, uri, err)
	}
	proof.Served(t, method, req.URL.EscapedPath(), res.StatusCode)
	shapes.Check(t, method, req.URL.RequestURI(), res.StatusCode, res.Header, data)
	return Answer{res.StatusCode, res.Header, data}
}

// User is a user of the Peer.
func (p *Peer) User(localpart string) matrix.UserID {
	return matrix.UserID("@" + localpart + ":" + string(p.Name))
}

func (p *Peer) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	return p.serial
}

// DoAndHangUp makes a signed request over a connection of its own and never reads the answer: the function that it
// returns cuts the connection.
func (p *Peer) DoAndHangUp(t testing.TB, to Target, method, uri string, body []byte) (hangUp func()) {
	t.Helper()
	address := strings.TrimPrefix(to.URL, "https://")
	host, _, _ := net.SplitHostPort(address)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: p.CA.Pool(), ServerName: host, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAuthorization: %s\r\n\r\n%s",
		method, uri, address, len(body), p.Authorization(to.Server, method, uri, body), body)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close() }
}
