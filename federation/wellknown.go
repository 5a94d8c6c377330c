package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/work"
)

// Times and sizes of well-known documents (threats O04; the spec recommends 24 h, at most 48 h, errors up to 1 h).
const (
	wellKnownPath     = "/.well-known/matrix/server"
	wellKnownTimeout  = 10 * time.Second
	wellKnownBytes    = 50 << 10
	wellKnownHops     = 3
	wellKnownLife     = 24 * time.Hour
	wellKnownMinLife  = time.Hour
	wellKnownMaxLife  = 48 * time.Hour
	wellKnownMinRetry = 5 * time.Minute // after an error, doubling
	wellKnownMaxRetry = time.Hour
	wellKnownDoubt    = 10 * time.Minute // a document older than this is fetched again when its server cannot be reached
)

// wellKnown fetches and remembers delegation documents.
type wellKnown struct {
	client  *http.Client
	port    string // 443, except in tests
	now     func() time.Time
	entries *otter.Cache[string, delegation]
	flights work.Flights[string, delegation]
}

// delegation is what is known about a host's document: where it delegates to, or why it does not.
type delegation struct {
	server   matrix.ServerName
	err      error
	fetched  time.Time
	expires  time.Time
	failures int
}

func newWellKnown(c *connector, roots *x509.CertPool, port string, now func() time.Time) *wellKnown {
	if port == "" {
		port = "443"
	}
	return &wellKnown{
		client: newPlainClient(c, roots, wellKnownHops, wellKnownTimeout), port: port, now: now,
		entries: otter.Must(&otter.Options[string, delegation]{MaximumSize: 20_000}),
	}
}

// newPlainClient makes an HTTPS client for what is not the federation API: ordinary names and certificates, few
// redirects, never to plain HTTP, no compression (a small answer cannot become a large one).
func newPlainClient(c *connector, roots *x509.CertPool, hops int, timeout time.Duration) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return c.connect(ctx, host, portNumber(port))
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
		DisableKeepAlives:      true,
	}
	return &http.Client{
		Transport: transport,
		Timeout:   timeout,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > hops {
				return errors.New("too many redirects")
			}
			if req.URL.Scheme != "https" {
				return errors.New("a redirect leads away from https")
			}
			return nil
		},
	}
}

// get returns where host delegates to, or why it does not; both are remembered. An error is the end of ctx.
func (w *wellKnown) get(ctx context.Context, host string) (delegation, error) {
	e, ok := w.entries.GetIfPresent(host)
	if ok && w.now().Before(e.expires) {
		return e, nil
	}
	return w.flights.Do(ctx, host, func(ctx context.Context) (delegation, error) {
		fresh := w.fetch(ctx, host)
		if fresh.err != nil {
			fresh.failures = e.failures + 1
			fresh.expires = fresh.fetched.Add(jitter(retryAfter(fresh.failures)))
		}
		w.entries.Set(host, fresh)
		return fresh, nil
	})
}

// suspect makes an older document expire, because the server it leads to does not answer.
func (w *wellKnown) suspect(host string) {
	if e, ok := w.entries.GetIfPresent(host); ok && e.err == nil && w.now().Sub(e.fetched) > wellKnownDoubt {
		w.entries.Invalidate(host)
	}
}

func (w *wellKnown) fetch(ctx context.Context, host string) delegation {
	d := delegation{fetched: w.now()}
	ctx, cancel := context.WithTimeout(ctx, wellKnownTimeout)
	defer cancel()
	url := "https://" + net.JoinHostPort(host, w.port) + wellKnownPath
	if w.port == "443" {
		url = "https://" + host + wellKnownPath
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		d.err = err
		return d
	}
	res, err := w.client.Do(req)
	if err != nil {
		d.err = err
		return d
	}
	defer func() { _ = res.Body.Close() }()
	if d.server, d.err = readDelegation(res); d.err == nil {
		d.expires = d.fetched.Add(lifetime(res.Header, d.fetched))
	}
	return d
}

func readDelegation(res *http.Response) (matrix.ServerName, error) {
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, wellKnownBytes+1))
	if err != nil {
		return "", err
	}
	if len(body) > wellKnownBytes {
		return "", fmt.Errorf("more than %d bytes", wellKnownBytes)
	}
	var doc struct {
		Server string `json:"m.server"`
	}
	if err := matrix.Decode(body, &doc); err != nil {
		return "", err
	}
	name, err := matrix.ParseServerName(doc.Server)
	if err != nil {
		return "", fmt.Errorf("m.server: %w", err)
	}
	return name, nil
}

// lifetime is how long a good document is kept, from its cache headers within our bounds.
func lifetime(h http.Header, now time.Time) time.Duration {
	life := wellKnownLife
	if at, err := http.ParseTime(h.Get("Expires")); err == nil {
		life = at.Sub(now)
	}
	for _, directive := range strings.Split(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			life = 0
		case "max-age":
			if s, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32); err == nil {
				life = time.Duration(s) * time.Second
			}
		}
	}
	return min(max(life, wellKnownMinLife), wellKnownMaxLife)
}

// retryAfter is the time until the next attempt after so many failures in a row.
func retryAfter(failures int) time.Duration {
	return min(wellKnownMinRetry<<min(failures-1, 10), wellKnownMaxRetry)
}

// jitter shortens d by up to a tenth, so that many do not return at the same moment.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/10+1)) }
