package federation

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
)

// Questions that somebody waits for (a profile, a directory, keys, media) are not put to a server that was silent when it
// was asked the same kind of thing a moment ago: whoever waits is told at once. Each kind has its own memory, so that a
// server whose media hang is still asked for keys; any authenticated request of the server ends it (Client.Alive). What
// fails at once costs nobody time and is simply tried again. Transactions, gaps in rooms, keys that sign and delegation
// documents have waits of their own; joins, invitations and what else somebody means to do are always tried.
var patientKinds = map[string]string{
	"queryProfile":            "profiles",
	"queryRoomDirectory":      "directory",
	"getPublicRooms":          "directory",
	"queryPublicRooms":        "directory",
	"getSpaceHierarchy":       "directory",
	"getEventByTimestamp":     "history",
	"getUserDevices":          "keys",
	"queryUserEncryptionKeys": "keys",
	"claimUserEncryptionKeys": "keys",
	"getContent":              "media",
	"getContentThumbnail":     "media",
}

const (
	slowFailure = 2 * time.Second // a failure that came sooner is no reason to wait
	firstRepose = 5 * time.Second // doubling with each failure in a row
	lastRepose  = 5 * time.Minute
	maxFailures = 20_000 // kinds of servers
)

// failures remember which servers were silent, by kind of question.
type failures struct {
	now   func() time.Time
	known *otter.Cache[failureKey, failure]
}

type failureKey struct {
	server matrix.ServerName
	kind   string
}

type failure struct {
	inARow int
	until  time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{now, otter.Must(&otter.Options[failureKey, failure]{MaximumSize: maxFailures})}
}

// silentError is the cause of questions that were not put.
type silentError struct{ wait time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("the server gave no answer to such questions lately; it is asked again in %s", e.wait.Round(time.Second))
}

// check says whether a question may be put now.
func (f *failures) check(server matrix.ServerName, operation string) error {
	kind := patientKinds[operation]
	if kind == "" {
		return nil
	}
	known, ok := f.known.GetIfPresent(failureKey{server, kind})
	if wait := known.until.Sub(f.now()); ok && wait > 0 {
		return &silentError{wait}
	}
	return nil
}

// note looks at how a question ended that took some time; e is nil if it was answered.
func (f *failures) note(server matrix.ServerName, operation string, took time.Duration, e *Error) {
	kind := patientKinds[operation]
	if kind == "" {
		return
	}
	key := failureKey{server, kind}
	asked := time.Duration(0) // to wait, by the server itself
	if e != nil && (e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable) {
		asked = min(e.RetryAfter, lastRepose)
	}
	if e == nil || asked == 0 && (e.Answered() || e.Code != "") { // a proxy has no errcode; content that is not there yet has
		f.known.Invalidate(key)
		return
	}
	if took < slowFailure && asked == 0 || errors.Is(e.Cause, ErrNotAllowed) {
		return
	}
	known, _ := f.known.GetIfPresent(key)
	wait := asked
	if took >= slowFailure {
		wait = max(asked, min(firstRepose<<min(known.inARow, 20), lastRepose))
		known.inARow++
	}
	known.until = f.now().Add(wait)
	f.known.Set(key, known)
}

// alive forgets what is held against a server.
func (f *failures) alive(server matrix.ServerName) {
	if f.known.EstimatedSize() == 0 {
		return // as nearly always: this is asked with every request that comes in
	}
	for _, kind := range patientKinds {
		f.known.Invalidate(failureKey{server, kind})
	}
}

// Alive says that a server has made an authenticated request: what it did not answer before it may answer now.
func (c *Client) Alive(server matrix.ServerName) { c.failures.alive(server) }
