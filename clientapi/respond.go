package clientapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/appservice"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/rooms"
)

// Request is one call of an operation, after authentication.
type Request struct {
	echo.Context
	Session *accounts.Session   // nil where the route asks for none and none was given
	Service *appservice.Service // whose token the request has, nil for all others
	server  *Server
	route   *Route
	body    []byte
	mark    string // of the browser (caller.go), "" for none
	read    bool
	since   time.Time // when it was found whom the request speaks for
}

// Raw is an answer that is JSON already.
type Raw []byte

// Status is an answer with another status than 200.
type Status struct {
	Code int
	Body any
}

// jsonAppender is an answer that writes itself as JSON.
type jsonAppender interface {
	AppendJSON(out []byte) ([]byte, error)
}

// Done is the answer of a handler that has written to the connection itself.
type Done struct{}

var empty = Raw(`{}`)

// handle wraps an operation: body bound, authentication, rate limit, answer.
func (s *Server) handle(route Route) echo.HandlerFunc {
	limit := route.Body
	if limit == 0 {
		limit = maxClientJSON
	}
	return func(c echo.Context) error {
		began := time.Now()
		r := &Request{Context: c, server: s, route: &route}
		req := c.Request()
		req.Body = http.MaxBytesReader(c.Response(), req.Body, limit)
		answer, err := s.contained(r)
		if err != nil && route.Fail != nil {
			route.Fail(s, r, err)
		} else {
			s.respond(c, route.OperationID, answer, err)
		}
		s.Metrics.Request("client", route.OperationID, c.Response().Status, time.Since(began))
		return nil
	}
}

// contained is call, but that a fault of ours, which panics, is an error like others, in the log and in the answer. An answer
// that has begun is cut, so that its reader sees that it is not whole.
func (s *Server) contained(r *Request) (answer any, err error) {
	panicked := true
	err = work.Contain(func() error {
		answer, err = s.call(r)
		panicked = false
		return err
	})
	if panicked && r.Response().Committed {
		s.Log.Error("request failed", "operation", r.route.OperationID, "err", err)
		panic(http.ErrAbortHandler)
	}
	return answer, err
}

func (s *Server) call(r *Request) (any, error) {
	if err := r.checkParams(); err != nil {
		return nil, err
	}
	if err := s.authenticate(r); err != nil {
		return nil, err
	}
	r.since = time.Now()
	if err := s.mayCall(r); err != nil {
		return nil, err
	}
	s.noteCaller(r)
	if r.Session != nil && r.route.takesTurn() {
		leave, err := s.turns.take(r.Ctx(), r.Session.User)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	answer, err := s.run(r)
	if err == nil {
		s.active(r, r.route.Limit)
	}
	return answer, err
}

// run calls the handler. An upload can last for hours: it ends with its session (threats A06).
func (s *Server) run(r *Request) (any, error) {
	if r.Session == nil || r.route.Limit != LimitMedia || r.Request().Method == http.MethodGet {
		return r.route.Handler(s, r)
	}
	ctx, leave := s.hub.enter(r.Ctx(), r.Session)
	defer leave()
	r.Request().Body = sessionBody{r.Request().Body, ctx}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errSessionEnded) {
			_ = http.NewResponseController(r.Response()).SetReadDeadline(time.Now()) // ends a read that waits
		}
	})
	defer stop()
	answer, err := r.route.Handler(s, r)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errSessionEnded) {
		return nil, cause
	}
	return answer, err
}

// sessionBody is a request's body that can be read as long as the session stands.
type sessionBody struct {
	io.ReadCloser
	session context.Context
}

// Read implements io.Reader.
func (b sessionBody) Read(p []byte) (int, error) {
	if cause := context.Cause(b.session); errors.Is(cause, errSessionEnded) {
		return 0, cause
	}
	return b.ReadCloser.Read(p)
}

// respond writes an answer or an error. It is the only place that does (apart from media and sockets).
func (s *Server) respond(c echo.Context, operation string, answer any, err error) {
	if err != nil {
		s.fail(c, operation, err)
		return
	}
	status := http.StatusOK
	if with, ok := answer.(Status); ok {
		status, answer = with.Code, with.Body
	}
	switch body := answer.(type) {
	case Done:
	case Raw:
		write(c, status, body)
	case nil:
		write(c, status, empty)
	case jsonAppender:
		raw, err := body.AppendJSON(nil)
		if err != nil {
			s.fail(c, operation, err)
			return
		}
		write(c, status, raw)
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			s.fail(c, operation, err)
			return
		}
		write(c, status, raw)
	}
}

func write(c echo.Context, status int, body []byte) {
	h := c.Response().Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	c.Response().WriteHeader(status)
	c.Response().Write(body) //nolint:errcheck // a client that went away is nobody to tell
}

// fail writes an error. What is not a matrix.Error is ours to fix: it is logged once and the client learns nothing.
func (s *Server) fail(c echo.Context, operation string, err error) {
	if c.Response().Committed {
		return
	}
	var challenge *accounts.Challenge
	if errors.As(err, &challenge) {
		s.respond(c, operation, Status{http.StatusUnauthorized, challenge}, nil)
		return
	}
	known := s.known(c, operation, err)
	if ms, ok := known.Fields["retry_after_ms"].(int64); ok {
		c.Response().Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10)) // in whole seconds
	}
	raw, err := json.Marshal(known)
	if err != nil {
		raw = []byte(`{"errcode":"M_UNKNOWN","error":"Something went wrong on the server."}`)
	}
	write(c, known.Status, raw)
}

// known is what the client learns of an error.
func (s *Server) known(c echo.Context, operation string, err error) *matrix.Error {
	var known *matrix.Error
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &big):
		return matrix.TooLarge("The request is larger than %d bytes.", big.Limit)
	case c.Request().Context().Err() != nil:
		return matrix.Errorf(499, "M_UNKNOWN", "The client went away.")
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrUnknown):
		s.Log.Error("request failed", "operation", operation, "err", err)
		return matrix.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "The database is not available. Try again soon.")
	default:
		s.Log.Error("request failed", "operation", operation, "err", err)
		return matrix.Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Something went wrong on the server.")
	}
}

// unrouted answers what no route takes: 404 for an unknown path, 405 for a known one with another method.
func (s *Server) unrouted(err error, c echo.Context) {
	status := http.StatusNotFound
	var he *echo.HTTPError
	if errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed {
		status = he.Code
	}
	s.fail(c, "", matrix.Errorf(status, "M_UNRECOGNIZED", "There is no such endpoint."))
}

// How long a body may take to arrive, content aside, and after how long whoever sends it is looked at again.
const (
	bodyTime = time.Minute
	bodyLate = time.Second
)

// Body reads the request's body once; a missing one reads as {}. Who sends a body slowly sends it in time, or not at all, and
// outlives no session by it (threats A06).
func (r *Request) Body() ([]byte, error) {
	if r.read {
		return r.body, nil
	}
	control := http.NewResponseController(r.Response())
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has deadlines
	body, err := io.ReadAll(r.Request().Body)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, matrix.Errorf(http.StatusRequestTimeout, "M_UNKNOWN", "The request did not come whole within %d seconds.", int(bodyTime.Seconds()))
	}
	if err != nil {
		return nil, err // the deadline stays: what is left of the body is not waited for
	}
	_ = control.SetReadDeadline(time.Time{})
	if err := r.still(); err != nil {
		return nil, err
	}
	if len(body) == 0 {
		body = empty
	}
	r.body, r.read = body, true
	return body, nil
}

// still looks again at whom a request speaks for whose body came late: the session may have ended, the account may be closed,
// locked or suspended by now.
func (r *Request) still() error {
	if r.Session == nil || time.Since(r.since) < bodyLate || slices.Contains(lockedMay, r.route.OperationID) {
		return nil
	}
	now, err := r.server.Accounts.Again(r.Ctx(), r.Session)
	if err != nil {
		return err
	}
	r.Session = now
	return r.gate()
}

// Decode reads the body into v, strictly.
func (r *Request) Decode(v any) error {
	body, err := r.Body()
	if err != nil {
		return err
	}
	return matrix.Decode(body, v)
}

// Object reads the body as a JSON object and returns its checked bytes.
func (r *Request) Object() ([]byte, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	if err := matrix.CheckObject(body); err != nil {
		return nil, err
	}
	return body, nil
}

// checkParams refuses parameters that no database keeps: what is not UTF-8, or has a NUL (law 13).
func (r *Request) checkParams() error {
	for _, name := range r.ParamNames() {
		if !matrix.IsText(r.Param(name)) {
			return matrix.InvalidParam("%s in the path is not text.", name)
		}
	}
	return matrix.CheckQuery(r.Request().URL)
}

// Param is a path parameter, decoded: once, also where the path came without anything that has to stay escaped, so that
// the router decoded it.
func (r *Request) Param(name string) string {
	value := r.Context.Param(name)
	if r.Request().URL.RawPath == "" {
		return value
	}
	if plain, err := url.PathUnescape(value); err == nil {
		return plain
	}
	return value
}

// User is who calls, as the rooms domain knows it.
func (r *Request) User() rooms.Sender {
	return rooms.Sender{NID: r.Session.User, ID: r.Session.UserID}
}

// Room is the room of the path.
func (r *Request) Room() (rooms.Ref, error) {
	id, err := matrix.ParseRoomID(r.Param("roomId"))
	if err != nil {
		return rooms.Ref{}, matrix.InvalidParam("%q is not a room ID.", r.Param("roomId")).With(err)
	}
	return r.server.Rooms.Lookup(r.Ctx(), id)
}

// Ctx is the request's context.
func (r *Request) Ctx() context.Context { return r.Request().Context() }
