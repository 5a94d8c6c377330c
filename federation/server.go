package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/keys"
	"conclave/media"
	"conclave/rooms"
)

// Auth is how a route knows who asks. The zero value is none of them, so that a route cannot forget to say it.
type Auth int

// The kinds of authentication.
const (
	AuthNone   Auth = iota + 1 // anybody
	AuthServer                 // a homeserver, by X-Matrix
)

// Route is one operation of the server-server API.
type Route struct {
	Method      string
	Path        string // as in the spec, with {names}
	OperationID string
	Auth        Auth
	MaxBody     int64 // bytes; 0 for operations without a body
	PerOrigin   int   // requests of one server at a time; 0 is defaultPerOrigin
	Handler     func(*Server, *Request) (any, error)
}

// Request is what a handler gets: the HTTP request, authenticated, its body read.
type Request struct {
	*http.Request
	Origin matrix.ServerName // who asks; "" with AuthNone
	Body   []byte
	Writer http.ResponseWriter // for answers that are not JSON

	params echo.Context
}

// Param is a part of the path by its name in the route, unescaped.
func (r *Request) Param(name string) string {
	value := r.params.Param(name)
	if r.URL.RawPath == "" {
		return value // net/http has unescaped it
	}
	plain, err := url.PathUnescape(value)
	if err != nil {
		return ""
	}
	return plain
}

// Decode reads the body into v, strictly; its errors are for the client.
func (r *Request) Decode(v any) error { return matrix.Decode(r.Body, v) }

// Done is what a handler returns that has written its answer itself.
var Done = new(struct{ _ byte })

// Bounds of inbound requests (threats §1).
const (
	inHeaderTimeout  = 10 * time.Second
	inRequestTimeout = 120 * time.Second
	inIdleTimeout    = 3 * time.Minute // of a connection between requests
	inBodyIdle       = 20 * time.Second
	defaultPerOrigin = 32
	maxURIBytes      = 16 << 10
)

// ServerOptions are what a Server needs from the process that it lives in.
type ServerOptions struct {
	Identity *Identity
	Keyring  *Keyring
	Policy   *Policy
	Log      *slog.Logger
	Clock    func() time.Time // time.Now if nil

	// AnyDestination takes requests that do not say whom they are for, as the specification recommends and threats F25
	// advises against: they may have been made for somebody else, who sends them on.
	AnyDestination bool

	// The domains that the operations read and change.
	DB       *store.DB
	Rooms    *rooms.Rooms
	Accounts *accounts.Accounts
	Keys     *keys.Keys
	Media    *media.Media
	Bus      cluster.Bus
	Metrics  *observe.Metrics // nil: nothing is counted

	// Software and Version are what getVersion tells.
	Software, Version string

	// WellKnown is the m.server of the delegation document, "" if there is none to serve.
	WellKnown string

	// Typing, if it is not nil, is told that a user of another server types in a room, for a while or (0) no more.
	Typing func(room store.RoomNID, user matrix.UserID, lasts time.Duration)

	// Presence takes in who is online on other servers; nil: nobody wants to know.
	Presence *presence.Presence

	// Alive, if it is not nil, hears of every server that has authenticated itself.
	Alive func(matrix.ServerName)
}

// Server answers the server-server API. It is an http.Handler.
type Server struct {
	own     *Identity
	keyring *Keyring
	auth    *Authenticator
	log     *slog.Logger
	now     func() time.Time
	options ServerOptions
	echo    *echo.Echo
	busy    originLimits

	strangers strangers
	txns      work.Flights[txnKey, json.RawMessage] // transactions that are being taken in
	swept     atomic.Int64                          // when old ones were last forgotten, ms
}

// NewServer makes a server of all routes. A route that does not declare all it must is an error.
func NewServer(o ServerOptions) (*Server, error) { return newServer(o, Routes()) }

func newServer(o ServerOptions, routes []Route) (*Server, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		own: o.Identity, keyring: o.Keyring, log: o.Log, now: o.Clock, options: o, echo: echo.New(),
		auth: NewAuthenticator(o),
	}
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.HTTPErrorHandler = s.writeError
	for _, r := range routes {
		if err := r.check(); err != nil {
			return nil, err
		}
		s.echo.Add(r.Method, echoPath(r.Path), s.handle(r))
	}
	if n := len(s.echo.Routes()); n != len(routes) {
		return nil, fmt.Errorf("federation: %d routes are declared but %d are served; two have the same method and path", len(routes), n)
	}
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// HTTP is a server for a listener, with the time-outs and limits that face the world.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: inHeaderTimeout,
		WriteTimeout:      0, // each request has a deadline of its own (handle)
		IdleTimeout:       inIdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// check reports what a route forgot to declare.
func (r Route) check() error {
	missing := ""
	switch {
	case !strings.HasPrefix(r.Path, "/"):
		missing = "path"
	case r.OperationID == "":
		missing = "operationId"
	case r.Auth != AuthNone && r.Auth != AuthServer:
		missing = "authentication"
	case r.Handler == nil:
		missing = "handler"
	case (r.Method == http.MethodPut || r.Method == http.MethodPost) != (r.MaxBody > 0):
		missing = "limit of its body"
	case r.Method != http.MethodGet && r.Method != http.MethodPut && r.Method != http.MethodPost:
		missing = "method"
	default:
		return nil
	}
	return fmt.Errorf("federation: route %s %s does not declare its %s", r.Method, r.Path, missing)
}

// echoPath writes a path of the spec as echo wants it.
func echoPath(path string) string {
	return strings.ReplaceAll(strings.ReplaceAll(path, "{", ":"), "}", "")
}

// handle answers an operation and counts it.
func (s *Server) handle(route Route) echo.HandlerFunc {
	answer := s.answer(route)
	return func(c echo.Context) error {
		began := time.Now()
		if err := answer(c); err != nil {
			c.Error(err) // written now, so that its status is known
		}
		s.options.Metrics.Request("federation", route.OperationID, c.Response().Status, time.Since(began))
		return nil
	}
}

// answer is the way of every request: bounded, read, authenticated, answered.
func (s *Server) answer(route Route) echo.HandlerFunc {
	limit := route.PerOrigin
	if limit == 0 {
		limit = defaultPerOrigin
	}
	return func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), inRequestTimeout)
		defer cancel()
		_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(inRequestTimeout))
		r := &Request{Request: c.Request().WithContext(ctx), Writer: c.Response(), params: c}
		if len(r.RequestURI) > maxURIBytes || !strings.HasPrefix(r.RequestURI, "/") {
			return matrix.InvalidParam("The request target is too long or not a path.")
		}
		if !matrix.IsText(r.URL.Path) {
			return matrix.InvalidParam("The path is not text.")
		}
		if err := matrix.CheckQuery(r.URL); err != nil {
			return err
		}
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			// Whoever stands in front of us may have counted the body by another header than net/http does (threats F25):
			// what follows it on this connection is not read as a request.
			c.Response().Header().Set("Connection", "close")
		}
		body := s.strangers.body(c.Response(), r.Request, route.MaxBody)
		defer body.release()
		var err error
		if r.Body, err = body.read(); err != nil {
			return err
		}
		if route.Auth == AuthServer {
			if r.Origin, err = s.auth.Authenticate(ctx, r.Request, r.Body); err != nil {
				return err
			}
			body.release() // from here on the bounds of its server count
			if s.options.Alive != nil {
				s.options.Alive(r.Origin)
			}
			release, ok := s.busy.take(ctx, r.Origin, route.OperationID, limit)
			if !ok {
				return matrix.LimitExceeded(1000)
			}
			defer release()
		}
		answer, err := s.contained(c, route, r)
		if err != nil || answer == Done {
			return err
		}
		return writeJSON(c.Response(), http.StatusOK, answer)
	}
}

// contained calls a route's handler. A fault of ours, which panics, is an error like others, in the log and in the answer; an
// answer that has begun is cut, so that its reader sees that it is not whole.
func (s *Server) contained(c echo.Context, route Route, r *Request) (answer any, err error) {
	panicked := true
	err = work.Contain(func() error {
		answer, err = route.Handler(s, r)
		panicked = false
		return err
	})
	if panicked && c.Response().Committed {
		s.log.Error("federation request failed", "method", r.Method, "route", route.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	return answer, err
}

// writeError is the only place that turns an error into an answer.
func (s *Server) writeError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	var out *matrix.Error
	var routing *echo.HTTPError
	switch {
	case errors.As(err, &out):
	case errors.As(err, &routing) && routing.Code == http.StatusMethodNotAllowed:
		out = matrix.Errorf(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "This path does not know the method %s.", c.Request().Method)
	case errors.As(err, &routing) && routing.Code == http.StatusNotFound:
		out = matrix.Errorf(http.StatusNotFound, "M_UNRECOGNIZED", "There is no such operation.")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		out = matrix.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "The request took too long.").With(err)
	default:
		s.log.Error("federation request failed", "method", c.Request().Method, "route", c.Path(), "err", err)
		out = matrix.Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Something went wrong in this server.")
	}
	if err := writeJSON(c.Response(), out.Status, out); err != nil {
		s.log.Debug("an error could not be written", "err", err)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err = w.Write(data)
	return err
}

func (s *Server) getVersion(*Request) (any, error) {
	return map[string]any{"server": map[string]string{"name": s.options.Software, "version": s.options.Version}}, nil
}

func (s *Server) getWellKnown(*Request) (any, error) {
	if s.options.WellKnown == "" {
		return nil, matrix.NotFound("This server delegates nothing.")
	}
	return map[string]string{"m.server": s.options.WellKnown}, nil
}
