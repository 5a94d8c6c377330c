package clientapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/appservice"
	"conclave/internal/matrix"
	"conclave/internal/store"
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
	read    bool
}

// Raw is an answer that is JSON already.
type Raw []byte

// Status is an answer with another status than 200.
type Status struct {
	Code int
	Body any
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
		answer, err := s.call(r)
		s.respond(c, route.OperationID, answer, err)
		s.Metrics.Request("client", route.OperationID, c.Response().Status, time.Since(began))
		return nil
	}
}

func (s *Server) call(r *Request) (any, error) {
	if err := r.checkParams(); err != nil {
		return nil, err
	}
	if err := s.authenticate(r); err != nil {
		return nil, err
	}
	if err := s.limits.allow(r); err != nil {
		return nil, err
	}
	if !storable(r.Request().URL) {
		return nil, matrix.InvalidParam("An address is UTF-8 without NUL.")
	}
	answer, err := r.route.Handler(s, r)
	if err == nil {
		s.active(r, r.route.Limit)
	}
	return answer, err
}

// storable says whether all that an address holds is text that identifiers and a database can have.
func storable(u *url.URL) bool {
	query, err := url.QueryUnescape(u.RawQuery) // as a whole: what is malformed in it the routes that read it say
	for _, text := range []string{u.Path, query} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return false
		}
	}
	return err == nil || !strings.Contains(u.RawQuery, "%00")
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

// Body reads the request's body once; a missing one reads as {}.
func (r *Request) Body() ([]byte, error) {
	if r.read {
		return r.body, nil
	}
	body, err := io.ReadAll(r.Request().Body)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		body = empty
	}
	r.body, r.read = body, true
	return body, nil
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
		if !isText(r.Param(name)) {
			return matrix.InvalidParam("%s in the path is not text.", name)
		}
	}
	if !strings.ContainsFunc(r.Request().URL.RawQuery, func(c rune) bool { return c == '%' || c >= utf8.RuneSelf }) {
		return nil // nothing in it stands for another byte
	}
	for name, values := range r.QueryParams() {
		if !isText(name) || slices.ContainsFunc(values, func(value string) bool { return !isText(value) }) {
			return matrix.InvalidParam("The parameter %.64q is not text.", name)
		}
	}
	return nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

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
