package matrix

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
)

// Error is what a client or another server is told: the spec's error code, an HTTP status, and a sentence that is safe
// to show. Cause is for the log alone.
type Error struct {
	Code   string
	Status int
	Text   string
	Fields map[string]any // further members, such as retry_after_ms
	Cause  error
}

// Errorf makes an Error. The text must hold nothing secret.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Code: code, Status: status, Text: fmt.Sprintf(format, args...)}
}

// Error implements error, for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Text, e.Cause)
	}
	return e.Code + ": " + e.Text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is compare by code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// With returns a copy that wraps a cause for the log.
func (e *Error) With(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// WithField returns a copy with one more member.
func (e *Error) WithField(name string, value any) *Error {
	c := *e
	c.Fields = maps.Clone(e.Fields)
	if c.Fields == nil {
		c.Fields = map[string]any{}
	}
	c.Fields[name] = value
	return &c
}

// MarshalJSON is the standard error response (client-server API, "Standard error response").
func (e *Error) MarshalJSON() ([]byte, error) {
	out := map[string]any{}
	maps.Copy(out, e.Fields)
	out["errcode"], out["error"] = e.Code, e.Text
	return json.Marshal(out)
}

// Forbidden is M_FORBIDDEN.
func Forbidden(format string, args ...any) *Error {
	return Errorf(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

// NotFound is M_NOT_FOUND.
func NotFound(format string, args ...any) *Error {
	return Errorf(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

// BadJSON is M_BAD_JSON: JSON, but not of the form that was asked for.
func BadJSON(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "M_BAD_JSON", format, args...)
}

// NotJSON is M_NOT_JSON.
func NotJSON(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "M_NOT_JSON", format, args...)
}

// InvalidParam is M_INVALID_PARAM.
func InvalidParam(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "M_INVALID_PARAM", format, args...)
}

// MissingParam is M_MISSING_PARAM.
func MissingParam(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "M_MISSING_PARAM", format, args...)
}

// Unrecognized is M_UNRECOGNIZED: no such endpoint here.
func Unrecognized(format string, args ...any) *Error {
	return Errorf(http.StatusNotFound, "M_UNRECOGNIZED", format, args...)
}

// Exclusive is M_EXCLUSIVE: the name belongs to an application service.
func Exclusive(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "M_EXCLUSIVE", format, args...)
}

// TooLarge is M_TOO_LARGE.
func TooLarge(format string, args ...any) *Error {
	return Errorf(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", format, args...)
}

// Unauthorized is M_UNAUTHORIZED, for requests between servers.
func Unauthorized(format string, args ...any) *Error {
	return Errorf(http.StatusUnauthorized, "M_UNAUTHORIZED", format, args...)
}

// MissingToken is M_MISSING_TOKEN.
func MissingToken() *Error {
	return Errorf(http.StatusUnauthorized, "M_MISSING_TOKEN", "An access token is needed: Authorization: Bearer ….")
}

// UnknownToken is M_UNKNOWN_TOKEN. With soft the device still exists and may log in again.
func UnknownToken(soft bool) *Error {
	e := Errorf(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "The access token is not known, or its session has ended.")
	if soft {
		e = e.WithField("soft_logout", true)
	}
	return e
}

// LimitExceeded is M_LIMIT_EXCEEDED with how long to wait, in ms.
func LimitExceeded(retryAfterMS int64) *Error {
	return Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too many requests. Try again in %d ms.", retryAfterMS).
		WithField("retry_after_ms", retryAfterMS)
}

// UserLocked is M_USER_LOCKED: an administrator has locked the account, whose sessions stay (client-server API, "Account
// locking").
func UserLocked() *Error {
	return Errorf(http.StatusUnauthorized, "M_USER_LOCKED", "This account has been locked by an administrator of the server.").
		WithField("soft_logout", true)
}

// UserSuspended is M_USER_SUSPENDED: the account may read and leave, and little else (client-server API, "Account
// suspension").
func UserSuspended() *Error {
	return Errorf(http.StatusForbidden, "M_USER_SUSPENDED", "You cannot do this while your account is suspended.")
}
