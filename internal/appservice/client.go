package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/work"
)

// Bounds of a call of an application service.
const (
	callTime     = 20 * time.Second // of one call
	tries        = 3                // of a question that blocks somebody
	tryPause     = 500 * time.Millisecond
	pingTime     = 5 * time.Second
	legacyTime   = time.Hour // how long a service that knows only the old paths is spared the new ones
	maxAnswer    = 1 << 20
	maxErrorBody = 4096 // of an answer that is shown to the service's owner
	perService   = 16   // connections for questions, and as many for transactions

	// askTime is how long somebody waits for the answer to a question, tries and all. A service that has not given silentAfter
	// answers in a row is not asked again for silentTime: whoever comes meanwhile is told so at once. One alone is no reason:
	// it may be about one name that the service chokes on.
	askTime     = 25 * time.Second
	silentTime  = 30 * time.Second
	silentAfter = 3
)

// Client asks application services.
type Client struct {
	services *Services
	ask, put *http.Client // for questions, which anybody can cause, and for transactions, which must not wait behind them
	log      *slog.Logger
	callTime time.Duration
	pingTime time.Duration
	askTime  time.Duration
	asking   work.Flights[string, bool]

	mu     sync.Mutex
	legacy map[string]time.Time // services that know only the old paths, by ID: until when that is believed
	silent map[string]silence   // services that did not answer, by ID
}

// silence is how often in a row a service did not answer a question, and until when it is not asked because of that.
type silence struct {
	missed int
	until  time.Time
}

// NewClient makes a Client, whose connections go through a dialer.
func NewClient(services *Services, d *netguard.Dialer, log *slog.Logger) *Client {
	connect := func() *http.Client {
		return d.HTTPClient(netguard.HTTPOptions{Total: 2 * callTime, Idle: callTime, PerHost: perService})
	}
	return &Client{
		services: services, ask: connect(), put: connect(), log: log, callTime: callTime, pingTime: pingTime, askTime: askTime,
		legacy: map[string]time.Time{}, silent: map[string]silence{},
	}
}

// call is one request to an application service.
type call struct {
	method string
	path   string // below the service's address
	old    string // where services older than the specification have it; "" for nowhere ("Legacy routes")
	query  url.Values
	body   []byte
}

// answer is what a service said.
type answer struct {
	status int
	body   []byte
}

// ok says whether it is a success.
func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// errcode is the code of an error, "" if it has none.
func (a *answer) errcode() string {
	code, _ := matrix.GetString(a.body, "errcode")
	return code
}

// strange says whether the answer is one of a service that does not know the path at all.
func (a *answer) strange() bool {
	switch a.status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		code := a.errcode()
		return code == "M_UNRECOGNIZED" || code == ""
	}
	return false
}

// do makes a call, at the old path if the service does not know the new one.
func (c *Client) do(ctx context.Context, s *Service, q call) (*answer, error) {
	if q.old != "" && c.isLegacy(s) {
		return c.once(ctx, s, q, true)
	}
	a, err := c.once(ctx, s, q, false)
	if err != nil || q.old == "" || !a.strange() {
		return a, err
	}
	old, err := c.once(ctx, s, q, true)
	if err != nil || old.strange() {
		return a, nil // it knows neither
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.legacy[s.ID] = time.Now().Add(legacyTime)
	return old, nil
}

func (c *Client) isLegacy(s *Service) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.legacy[s.ID])
}

// once makes one request. Its errors name neither the address nor the token (law 16, threats O06).
func (c *Client) once(ctx context.Context, s *Service, q call, old bool) (*answer, error) {
	target, query := s.url+q.path, q.query
	if old {
		// Such services look for the token here alone.
		target, query = s.url+q.old, url.Values{"access_token": {s.hsToken.Reveal()}}
		for name, values := range q.query {
			query[name] = values
		}
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, bytes.NewReader(q.body))
	if err != nil {
		return nil, errors.New("the address of the application service cannot be called")
	}
	req.Header.Set("Authorization", "Bearer "+s.hsToken.Reveal())
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	by := c.ask
	if q.method == http.MethodPut {
		by = c.put
	}
	res, err := by.Do(req)
	if err != nil {
		return nil, failure(ctx, err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing is left to be read
	body, err := netguard.ReadAll(res, maxAnswer)
	if err != nil {
		return nil, failure(ctx, err)
	}
	if q.method != http.MethodPut { // many take transactions and know nothing of questions
		c.heard(s)
	}
	return &answer{res.StatusCode, body}, nil
}

// isSilent says whether a service did not answer a moment ago.
func (c *Client) isSilent(s *Service) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.silent[s.ID].until)
}

// heard notes that a service answers questions, and missed that it did not answer a question in time.
func (c *Client) heard(s *Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.silent, s.ID)
}

func (c *Client) missed(s *Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.silent[s.ID]
	if q.missed++; q.missed >= silentAfter {
		q.until = time.Now().Add(silentTime)
	}
	c.silent[s.ID] = q
}

var (
	errTimeout     = errors.New("the application service did not answer in time")
	errDenied      = errors.New("the application service is at an address to which no connections are made (network.allow_private)")
	errTooLarge    = errors.New("the answer of the application service is too large")
	errUnreachable = errors.New("the application service cannot be reached")
)

// failure says in general words why there is no answer.
func failure(ctx context.Context, err error) error {
	var slow net.Error
	switch {
	case errors.Is(err, netguard.ErrDenied):
		return errDenied
	case errors.Is(err, netguard.ErrTooLarge):
		return errTooLarge
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Canceled
	case errors.Is(err, netguard.ErrTooSlow), errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return errTimeout
	}
	return errUnreachable
}

// Ping shows whether a service can be reached, and how long it takes (client-server API, appservice/{id}/ping).
func (c *Client) Ping(ctx context.Context, s *Service, txnID string) (time.Duration, error) {
	if !s.Reachable() {
		return 0, matrix.Errorf(http.StatusBadRequest, "M_URL_NOT_SET", "The application service has no url in its registration.")
	}
	content := map[string]string{}
	if txnID != "" {
		content["transaction_id"] = txnID
	}
	body, err := json.Marshal(content)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.pingTime)
	defer cancel()
	began := time.Now()
	a, err := c.once(ctx, s, call{method: http.MethodPost, path: "/_matrix/app/v1/ping", body: body}, false)
	switch {
	case errors.Is(err, errTimeout):
		return 0, matrix.Errorf(http.StatusGatewayTimeout, "M_CONNECTION_TIMEOUT", "The application service did not answer in time.")
	case err != nil:
		return 0, matrix.Errorf(http.StatusBadGateway, "M_CONNECTION_FAILED", "%s.", sentence(err))
	case !a.ok():
		text := strings.ToValidUTF8(string(a.body[:min(len(a.body), maxErrorBody)]), "")
		return 0, matrix.Errorf(http.StatusBadGateway, "M_BAD_STATUS", "The application service answered the ping with status %d.", a.status).
			WithField("status", a.status).WithField("body", text)
	}
	return time.Since(began), nil
}

func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// asker is the key of the service whose own request is being answered.
type asker struct{}

// By marks the work on a request of a service: it is not asked for what it is about to make.
func By(ctx context.Context, s *Service) context.Context { return context.WithValue(ctx, asker{}, s) }

// HasUser asks the service in whose namespace an unknown user of ours is whether it wants to make it, and waits. It reports
// whether the user should be there now. A service that does not answer is M_UNKNOWN with status 408 ("Querying").
func (c *Client) HasUser(ctx context.Context, user matrix.UserID) (bool, error) {
	if user.Server() != c.services.server {
		return false, nil
	}
	return c.has(ctx, func(s *Service) bool { return s.users.match(string(user), false) }, "/users/", string(user))
}

// HasAlias is HasUser for an alias of ours.
func (c *Client) HasAlias(ctx context.Context, alias matrix.RoomAlias) (bool, error) {
	if alias.Server() != c.services.server {
		return false, nil
	}
	return c.has(ctx, func(s *Service) bool { return s.MayHave(alias) }, "/rooms/", string(alias))
}

// has asks the services that may have something one after the other until one has it.
func (c *Client) has(ctx context.Context, mine func(*Service) bool, path, name string) (bool, error) {
	by, _ := ctx.Value(asker{}).(*Service)
	for _, s := range c.services.list {
		if s == by || !s.Reachable() || !mine(s) {
			continue
		}
		q := call{method: http.MethodGet, path: "/_matrix/app/v1" + path + url.PathEscape(name), old: path + url.PathEscape(name)}
		if c.isSilent(s) {
			return false, noAnswer()
		}
		found, err := c.asking.Do(ctx, s.ID+"\x00"+q.path, func(ctx context.Context) (bool, error) { return c.question(ctx, s, q) })
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// noAnswer is what somebody is told whom a silent service keeps from what they want ("Querying").
func noAnswer() *matrix.Error {
	return matrix.Errorf(http.StatusRequestTimeout, "M_UNKNOWN", "The application service that may have this does not answer. Try again later.")
}

// question asks a service whether it has something, several times if it does not answer.
func (c *Client) question(ctx context.Context, s *Service, q call) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.askTime)
	defer cancel()
	var last error
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(tryPause << (try - 1)):
			case <-ctx.Done():
			}
		}
		a, err := c.attempt(ctx, s, q)
		switch {
		case err != nil:
			last = err
		case a.ok():
			return true, nil
		case a.status >= 500 && a.status != http.StatusNotImplemented || a.status == http.StatusTooManyRequests:
			last = fmt.Errorf("it answered with status %d", a.status)
		default:
			return false, nil
		}
	}
	if errors.Is(last, errTimeout) {
		c.missed(s)
	}
	c.log.Warn("an application service did not say whether it has something", "service", s.ID, "err", last)
	return false, noAnswer().With(last)
}

// attempt makes one attempt at a question.
func (c *Client) attempt(ctx context.Context, s *Service, q call) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTime/2)
	defer cancel()
	return c.do(ctx, s, q)
}
