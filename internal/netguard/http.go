package netguard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// Time-outs and limits of outgoing requests, which HTTPOptions may change.
const (
	tlsTimeout     = 5 * time.Second
	headerTimeout  = 30 * time.Second
	idleTimeout    = 15 * time.Second
	totalTimeout   = 60 * time.Second
	maxHeaderBytes = 32 << 10
)

// HTTPOptions describe a client; the zero value is right for a request that is answered by a small document.
type HTTPOptions struct {
	TLS       *tls.Config   // nil: the system's certificates
	Redirects int           // how many are followed; otherwise the redirecting answer itself is returned
	Total     time.Duration // from the start to the last byte of the body; 60 s if 0
	Idle      time.Duration // between two reads that yield bytes of the body; 15 s if 0
	MinRate   int64         // bytes per second that a body must reach after Idle; 0: any
	PerHost   int           // connections to one host; 0: no limit
}

// HTTPClient builds a client whose connections go through the dialer. It uses no proxy (which would connect for it, unchecked), no cookies, and asks for no
// compression; redirects, if allowed, never leave https, and never take credentials to another host.
func (d *Dialer) HTTPClient(o HTTPOptions) *http.Client {
	if o.Total == 0 {
		o.Total = totalTimeout
	}
	if o.Idle == 0 {
		o.Idle = idleTimeout
	}
	transport := &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        o.TLS,
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxConnsPerHost:        o.PerHost,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{
		Transport:     &watched{next: transport, idle: o.Idle, minRate: o.MinRate},
		Timeout:       o.Total,
		CheckRedirect: redirects(o.Redirects),
	}
}

// redirects is the policy for following up to most redirects.
func redirects(most int) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		last := via[len(via)-1]
		if len(via) > most || (last.URL.Scheme == "https" && next.URL.Scheme != "https") {
			return http.ErrUseLastResponse
		}
		if slices.ContainsFunc(via, func(r *http.Request) bool { return r.URL.Host != next.URL.Host }) {
			for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
				next.Header.Del(name)
			}
		}
		next.Header.Del("Referer") // would tell the next host a path that may hold a secret
		return nil
	}
}

// ErrTooSlow is the cause when a body comes in too slowly or stops.
var ErrTooSlow = errors.New("the answer comes in too slowly")

// watched is a RoundTripper that ends answers whose body stops, or drips.
type watched struct {
	next    http.RoundTripper
	idle    time.Duration
	minRate int64
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	response, err := w.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(w.idle, func() { cancel(ErrTooSlow) })
	timer.Stop() // runs only while somebody reads
	response.Body = &watchedBody{
		body: response.Body, ctx: ctx, cancel: cancel, timer: timer, idle: w.idle, minRate: w.minRate, began: time.Now(),
	}
	return response, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (w *watched) CloseIdleConnections() {
	if t, ok := w.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// watchedBody is the body of an answer with a timer that every read starts anew.
type watchedBody struct {
	body    io.ReadCloser
	ctx     context.Context // of the one request whose body this is
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	idle    time.Duration
	minRate int64
	began   time.Time
	read    int64
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.body.Read(p)
	b.timer.Stop() // a reader may take its time with what it has
	b.read += int64(n)
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), ErrTooSlow) {
		err = ErrTooSlow
	}
	if took := time.Since(b.began); err == nil && took > b.idle && float64(b.read) < float64(b.minRate)*took.Seconds() {
		err = ErrTooSlow
	}
	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// ErrTooLarge is the cause when an answer is larger than its reader allows; ErrEncoding when its Content-Encoding is none we read.
var (
	ErrTooLarge = errors.New("the answer is too large")
	ErrEncoding = errors.New("the answer has an encoding that was not asked for")
)

// ReadAll reads an answer's body of at most limit bytes. A body in gzip is unpacked, and the limit then holds for both forms, so a small
// answer cannot become a large one in memory. The caller closes the body.
func ReadAll(response *http.Response, limit int64) ([]byte, error) {
	if response.ContentLength > limit {
		return nil, fmt.Errorf("%d bytes announced, %d allowed: %w", response.ContentLength, limit, ErrTooLarge)
	}
	body, err := Decoded(response, limit)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return data, nil
}
