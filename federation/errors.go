package federation

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"conclave/internal/matrix"
)

// ErrNotAllowed is the cause of requests that the federation policy of this server forbids.
var ErrNotAllowed = errors.New("federation with this server is not allowed by the configuration")

// errTooLarge is the cause of answers that are longer than we are willing to read.
var errTooLarge = errors.New("the answer is too large")

// Error is why a request to another homeserver gave no result.
type Error struct {
	Server     matrix.ServerName
	Operation  string        // the spec's operationId
	Status     int           // 0 if there was no answer
	Code       string        // errcode of the answer, "" if it has none
	Text       string        // error of the answer; written by a stranger
	Body       []byte        // the answer, if it is a JSON object
	RetryAfter time.Duration // what a 429 or 503 asks for, 0 if nothing
	Cause      error         // why there was no answer or none that can be used
}

// Error does not repeat the stranger's text: it goes to logs.
func (e *Error) Error() string {
	switch {
	case e.Status == 0:
		return fmt.Sprintf("%s at %s: %v", e.Operation, e.Server, e.Cause)
	case e.Cause != nil:
		return fmt.Sprintf("%s at %s: the answer with status %d cannot be used: %v", e.Operation, e.Server, e.Status, e.Cause)
	default:
		return fmt.Sprintf("%s at %s: status %d %s", e.Operation, e.Server, e.Status, safeCode(e.Code))
	}
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Answered reports whether the server itself refused, so that it is alive and has understood.
func (e *Error) Answered() bool {
	switch e.Status {
	case 0, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// ShutsOut reports whether the server holds that we have no part in the room (M_FORBIDDEN): for good, or because it has not
// yet heard of our join.
func (e *Error) ShutsOut() bool { return e.Status == http.StatusForbidden }

// Retryable reports whether the same request may succeed later: no answer, time-outs, rate limits, trouble inside the
// server. A refusal by our own policy and an answer that makes no sense are not.
func (e *Error) Retryable() bool {
	if errors.Is(e.Cause, ErrNotAllowed) {
		return false
	}
	return e.Status == 0 || e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests ||
		e.Status >= 500
}

// ForClient is what a client may be told: the server's own refusal if it is about the request (status 4xx), and 502 if
// the server cannot be reached or blames what we made of the request (M_MISSING_PARAM and M_INVALID_PARAM in a
// handshake, which the client can do nothing about).
func (e *Error) ForClient() *matrix.Error {
	internal := e.Code == "" || e.Code == "M_MISSING_PARAM" || e.Code == "M_INVALID_PARAM" || e.Code == "M_UNRECOGNIZED" ||
		e.Code == "M_BAD_JSON" || e.Code == "M_NOT_JSON"
	if e.Status < 400 || e.Status >= 500 || e.Status == http.StatusUnauthorized || internal {
		return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The server %s cannot be reached or did not answer as it should.", e.Server).With(e)
	}
	out := matrix.Errorf(e.Status, e.Code, "%s", e.Text).With(e)
	if version, ok := matrix.GetString(e.Body, "room_version"); ok {
		out.Fields = map[string]any{"room_version": version}
	}
	return out
}

// safeCode keeps an errcode out of the log if it is not one.
func safeCode(code string) string {
	if len(code) > 64 {
		return "(no errcode)"
	}
	for i := range len(code) {
		if ch := code[i]; (ch < 'A' || ch > 'Z') && (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '_' && ch != '.' {
			return "(no errcode)"
		}
	}
	return code
}

// read takes an error answer into e.
func (e *Error) read(header http.Header, body []byte) {
	if s := header.Get("Retry-After"); s != "" {
		e.RetryAfter = retryDelay(s)
	}
	var answer struct {
		Code    string `json:"errcode"`
		Text    string `json:"error"`
		RetryMS int64  `json:"retry_after_ms"`
	}
	if matrix.Decode(body, &answer) != nil {
		return
	}
	e.Code, e.Text, e.Body = answer.Code, answer.Text, body
	if e.RetryAfter == 0 && answer.RetryMS > 0 {
		e.RetryAfter = min(time.Duration(min(answer.RetryMS, maxRetryAfter.Milliseconds()))*time.Millisecond, maxRetryAfter)
	}
}

// maxRetryAfter bounds how long another server can make us wait.
const maxRetryAfter = time.Hour

func retryDelay(s string) time.Duration {
	seconds, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
