package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"conclave/internal/matrix"
)

// ClientOptions are what a Client needs from the process that it lives in.
type ClientOptions struct {
	Identity  *Identity
	Dial      DialFunc       // netguard's
	Resolver  Resolver       // net.DefaultResolver if nil
	Roots     *x509.CertPool // certificate authorities; the system's if nil
	Policy    *Policy        // everybody if nil
	UserAgent string
	Clock     func() time.Time // time.Now if nil
	Log       *slog.Logger

	// WellKnownPort is where delegation documents are asked for; "" is 443. Tests cannot listen there.
	WellKnownPort string
}

// Client makes requests to other homeservers. It is safe for concurrent use. Its methods carry the spec's operationIds;
// their errors are *Error, apart from the end of the caller's context.
type Client struct {
	own       *Identity
	policy    *Policy
	discovery *Discovery
	transport *transport
	failures  *failures
	plain     *http.Client // for the places that media redirect to
	agent     string
	log       *slog.Logger
	now       func() time.Time
}

// NewClient makes a Client. No connection is made before the first request.
func NewClient(o ClientOptions) *Client {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UserAgent == "" {
		o.UserAgent = "Conclave"
	}
	if o.Resolver == nil {
		o.Resolver = defaultResolver()
	}
	c := &connector{resolver: o.Resolver, dial: o.Dial}
	d := newDiscovery(o.Resolver, newWellKnown(c, o.Roots, o.WellKnownPort, o.Clock), o.Clock)
	return &Client{
		own: o.Identity, policy: o.Policy, discovery: d, transport: newTransport(c, d, o.Roots), failures: newFailures(o.Clock),
		plain: newPlainClient(c, o.Roots, 1, mediaTimeout), agent: o.UserAgent, log: o.Log, now: o.Clock,
	}
}

// Discovery is how this client finds servers.
func (c *Client) Discovery() *Discovery { return c.discovery }

// CloseIdle closes connections that no request uses.
func (c *Client) CloseIdle() { c.transport.http.CloseIdleConnections() }

// call is one operation at one server.
type call struct {
	operation string // operationId
	server    matrix.ServerName
	method    string
	path      string // escaped
	query     url.Values
	body      []byte // JSON, nil for none
	unsigned  bool   // the operation takes no X-Matrix
	once      bool   // repeating it does harm
	accept    string // application/json if ""
	budget    budget
}

// path joins the segments of a path below prefix, escaping each.
func path(prefix string, segments ...string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// do makes a call and returns its answer if the status is 200. Closing the body is the caller's.
func (c *Client) do(ctx context.Context, in call) (*http.Response, error) {
	fail := &Error{Server: in.server, Operation: in.operation}
	if !c.policy.Allowed(in.server) {
		fail.Cause = ErrNotAllowed
		return nil, fail
	}
	if c.own.IsOurs(in.server) {
		fail.Cause = errors.New("a request to ourselves")
		return nil, fail
	}
	if err := c.failures.check(in.server, in.operation); err != nil {
		fail.Cause = err
		return nil, fail
	}
	began := c.now()
	res, err := c.exchange(ctx, in)
	switch {
	case err == nil && res.StatusCode == http.StatusOK:
		c.failures.note(in.server, in.operation, 0, nil)
		return res, nil
	case err == nil:
		c.readError(res, fail)
	default:
		fail.Cause = err
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // whoever went away may not have waited long enough
		c.failures.note(in.server, in.operation, c.now().Sub(began), fail)
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fail
}

// readError takes an answer that says no into an error.
func (c *Client) readError(res *http.Response, fail *Error) {
	defer func() { _ = res.Body.Close() }()
	fail.Status = res.StatusCode
	if body, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)); err == nil {
		fail.read(res.Header, body)
	}
}

func (c *Client) exchange(ctx context.Context, in call) (*http.Response, error) {
	route, err := c.discovery.Locate(ctx, in.server)
	if err != nil {
		return nil, err
	}
	r := request{method: in.method, uri: in.path, body: in.body, agent: c.agent, accept: in.accept, once: in.once, budget: in.budget}
	if r.accept == "" {
		r.accept = "application/json"
	}
	if len(in.query) > 0 {
		r.uri += "?" + in.query.Encode()
	}
	if !in.unsigned {
		if r.auth, err = c.sign(r, in.server); err != nil {
			return nil, err
		}
	}
	return c.transport.send(ctx, route, r)
}

// sign makes the Authorization header of a request.
func (c *Client) sign(r request, destination matrix.ServerName) (string, error) {
	message, err := signedRequest(r.method, r.uri, c.own.Name(), destination, r.body)
	if err != nil {
		return "", fmt.Errorf("signing a request: %w", err)
	}
	key := c.own.Key()
	return Credentials{c.own.Name(), destination, key.ID, ed25519.Sign(key.Private, message)}.String(), nil
}

// json makes a call and decodes its answer into out; nil if only success matters.
func (c *Client) json(ctx context.Context, in call, out any) error {
	body, err := c.raw(ctx, in)
	if err != nil || out == nil {
		return err
	}
	if err := matrix.Decode(body, out); err != nil {
		return unusable(in, err)
	}
	return nil
}

// raw makes a call and returns its answer, which is a JSON object in strict form.
func (c *Client) raw(ctx context.Context, in call) ([]byte, error) {
	body, err := c.rawAny(ctx, in)
	if err == nil && !isObject(body) {
		err = unusable(in, errors.New("it is not an object"))
	}
	return body, err
}

func isObject(checked []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(checked, " \t\r\n"), []byte{'{'})
}

// rawAny makes a call and returns its answer, which is strict JSON of any kind.
func (c *Client) rawAny(ctx context.Context, in call) ([]byte, error) {
	res, err := c.do(ctx, in)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, readFailed(ctx, in, err)
	}
	if err := matrix.CheckJSON(body, matrix.Limits{Bytes: int(in.budget.bytes), Depth: maxNesting, Members: 100_000}); err != nil {
		return nil, unusable(in, err)
	}
	return body, nil
}

// events makes a call whose answer holds lists of events, and takes it apart as it comes.
func (c *Client) events(ctx context.Context, in call, lists []string, item, member func(string, []byte) error) error {
	res, err := c.do(ctx, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	var own error // the callee's, which is not the other server's fault
	err = splitObject(res.Body, lists, func(name string, raw []byte) error {
		own = item(name, raw)
		return own
	}, member)
	switch {
	case own != nil:
		return own
	case err == nil:
		return nil
	case errors.Is(err, errStream):
		return unusable(in, err)
	default:
		return readFailed(ctx, in, err)
	}
}

// list makes a call whose answer holds one list of events.
func (c *Client) list(ctx context.Context, in call, name string) ([]json.RawMessage, error) {
	var pdus []json.RawMessage
	err := c.events(ctx, in, []string{name}, func(_ string, raw []byte) error {
		pdus = append(pdus, raw)
		return nil
	}, notLists(name))
	return pdus, err
}

// unusable is the error of an answer that came whole and makes no sense.
func unusable(in call, err error) error {
	return &Error{Server: in.server, Operation: in.operation, Status: http.StatusOK, Cause: err}
}

// readFailed is the error of an answer that broke off.
func readFailed(ctx context.Context, in call, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errTooLarge) {
		return unusable(in, err)
	}
	return &Error{Server: in.server, Operation: in.operation, Cause: err}
}
