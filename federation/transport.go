package federation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Bounds of what is asked of other servers (threats §1).
const (
	headerTimeout  = 30 * time.Second
	idleTimeout    = 15 * time.Second // between two reads of a body
	totalTimeout   = 60 * time.Second
	maxHeaderBytes = 32 << 10
	maxErrorBytes  = 64 << 10

	idleConnTimeout = 90 * time.Second
	maxIdleConns    = 1024
	maxConnsPerHost = 16 // of HTTP/1.1; HTTP/2 needs one
)

// budget bounds one request.
type budget struct {
	header time.Duration // from sending to the first byte of the answer
	total  time.Duration
	bytes  int64
}

// The budgets by kind of request. The first byte of a whole room's state may take long: the server computes it.
var (
	keysBudget  = budget{headerTimeout, totalTimeout, 1 << 20}
	queryBudget = budget{headerTimeout, totalTimeout, 1 << 20}
	listBudget  = budget{headerTimeout, totalTimeout, 16 << 20}
	stateBudget = budget{90 * time.Second, 10 * time.Minute, 256 << 20}
	joinBudget  = budget{90 * time.Second, 20 * time.Minute, 512 << 20} // goes to disk as it comes
)

// transport carries requests to the servers that Discovery finds, over kept connections, HTTP/1.1 or HTTP/2.
type transport struct {
	http      *http.Transport
	discovery *Discovery
	connector *connector
	tls       *tls.Config
}

type routeKey struct{}

func newTransport(c *connector, d *Discovery, roots *x509.CertPool) *transport {
	t := &transport{
		discovery: d, connector: c,
		tls: &tls.Config{
			RootCAs:            roots,
			MinVersion:         tls.VersionTLS12,
			NextProtos:         []string{"h2", "http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(256),
		},
	}
	t.http = &http.Transport{
		DialTLSContext:         t.dial,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // an answer is as large as it looks (threats O05)
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    2,
		MaxConnsPerHost:        maxConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	return t
}

// poolName stands for a route in URLs that nobody but http.Transport sees: connections are shared by requests with the
// same route and by no others, whatever the names look like.
func poolName(r *Location) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q", r.Server, r.Host, r.TLSName)
	for _, t := range r.Targets {
		fmt.Fprintf(h, " %q", t)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// dial connects to the targets of the route in ctx, in their order. The certificate must be for the route's name.
func (t *transport) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	route, ok := ctx.Value(routeKey{}).(*Location)
	if !ok {
		return nil, errors.New("federation: a connection without a route")
	}
	config := t.tls.Clone()
	config.ServerName = route.TLSName
	var errs []error
	for _, target := range route.Targets {
		conn, err := t.connector.connect(ctx, target.Host, target.Port)
		if err == nil {
			var secured *tls.Conn
			if secured, err = handshake(ctx, conn, config); err == nil {
				return secured, nil
			}
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	t.discovery.Suspect(route.Server)
	return nil, errors.Join(errs...)
}

// request is an HTTP request to a homeserver. uri is the request target as it is signed.
type request struct {
	method, uri string
	auth        string // Authorization header, "" for none
	body        []byte // nil for none
	agent       string
	accept      string
	once        bool // a repetition does harm
	budget      budget
}

// send makes one request and returns whatever answer comes. Redirects are not followed. The body of the answer is
// bounded by the request's budget and must be closed.
func (t *transport) send(ctx context.Context, route *Location, r request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, routeKey{}, route))
	total := time.AfterFunc(r.budget.total, func() { cancel(errTotalTimeout) })
	header := time.AfterFunc(r.budget.header, func() { cancel(errHeaderTimeout) })
	stop := func() { header.Stop(); total.Stop(); cancel(context.Canceled) }
	req, err := newRequest(ctx, route, r)
	if err != nil {
		stop()
		return nil, err
	}
	res, err := t.http.RoundTrip(req)
	if err == nil && !header.Stop() {
		_ = res.Body.Close()
		err = errHeaderTimeout
	}
	if err != nil {
		stop()
		if cause := context.Cause(ctx); cause == errHeaderTimeout || cause == errTotalTimeout {
			err = cause
		}
		return nil, err
	}
	res.Body = &boundedBody{body: res.Body, left: r.budget.bytes, ctx: ctx, cancel: cancel, stop: stop}
	return res, nil
}

var (
	errHeaderTimeout = errors.New("no answer in time")
	errIdleTimeout   = errors.New("the answer stopped in the middle")
	errTotalTimeout  = errors.New("the answer took too long")
)

func newRequest(ctx context.Context, route *Location, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+poolName(route)+r.uri, body)
	if err != nil {
		return nil, err
	}
	if req.URL.RequestURI() != r.uri {
		return nil, fmt.Errorf("federation: %q is not a request target", r.uri)
	}
	req.Host = route.Host
	req.Header.Set("User-Agent", r.agent)
	req.Header.Set("Accept", r.accept)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.auth != "" {
		req.Header.Set("Authorization", r.auth)
	}
	if !r.once {
		// An empty value tells http.Transport that the request can be repeated, without sending the header; it then
		// tries a new connection when a kept one turns out to be dead.
		req.Header["X-Idempotency-Key"] = nil
	}
	return req, nil
}

// boundedBody is an answer's body that ends with an error if it is too long or too slow.
type boundedBody struct {
	body   io.ReadCloser
	left   int64
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func()
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// One more byte tells an answer that just fits from one that is too long.
		p = make([]byte, 1)
	} else if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	idle := time.AfterFunc(idleTimeout, func() { b.cancel(errIdleTimeout) })
	n, err := b.body.Read(p)
	idle.Stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause == errIdleTimeout || cause == errTotalTimeout {
			err = cause
		}
	}
	if b.left <= 0 {
		if n > 0 {
			return 0, errTooLarge
		}
		return 0, err
	}
	b.left -= int64(n)
	return n, err
}

// Close lets the connection be used again if the body was read to its end.
func (b *boundedBody) Close() error {
	err := b.body.Close()
	b.stop()
	return err
}
