package federation

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"conclave/internal/matrix"
)

// A body has to be read before its signature can be checked, so that until then nobody knows whom it is to be charged to.
// What is held of all such bodies together is bounded: beyond that only small ones are read on (threats section 12).
const (
	maxStrangers = 256 << 20 // bytes of bodies whose sender is not known yet
	smallBody    = 64 << 10  // that is read whatever others hold
)

var errCrowded = errors.New("too much is held of requests whose sender is not known yet")

// strangers count what is held of bodies whose sender is not known yet.
type strangers struct{ held atomic.Int64 }

// inBody is one of them: each part of it has to come in time.
type inBody struct {
	of       *strangers
	r        *http.Request
	control  *http.ResponseController
	limit    int64
	end      time.Time
	held     int64
	released bool
}

// body begins to read a request's body of at most limit bytes.
func (s *strangers) body(w http.ResponseWriter, r *http.Request, limit int64) *inBody {
	return &inBody{of: s, r: r, control: http.NewResponseController(w), limit: limit, end: time.Now().Add(inRequestTimeout)}
}

// read reads the body whole. Without a limit the operation has no body: what comes is not read, and what a stranger sends
// with a GET is not part of what is signed.
func (b *inBody) read() ([]byte, error) {
	if b.limit == 0 {
		return nil, nil
	}
	if b.r.ContentLength > b.limit {
		return nil, matrix.TooLarge("The body is larger than %d bytes.", b.limit)
	}
	data, err := io.ReadAll(io.LimitReader(b, b.limit+1))
	switch {
	case errors.Is(err, errCrowded):
		return nil, matrix.LimitExceeded(1000).With(err)
	case err != nil:
		return nil, matrix.NotJSON("The body did not come whole.").With(err)
	case int64(len(data)) > b.limit:
		return nil, matrix.TooLarge("The body is larger than %d bytes.", b.limit)
	}
	return data, nil
}

// Read implements io.Reader. It sets a new deadline for every part, none later than end.
func (b *inBody) Read(p []byte) (int, error) {
	if b.held > smallBody && b.of.held.Load() > maxStrangers {
		return 0, errCrowded
	}
	deadline := time.Now().Add(inBodyIdle)
	if deadline.After(b.end) {
		deadline = b.end
	}
	_ = b.control.SetReadDeadline(deadline) // not every connection has deadlines
	n, err := b.r.Body.Read(p)
	b.held += int64(n)
	b.of.held.Add(int64(n))
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// release says that the body is no stranger's any more, or is done with. It can be called again.
func (b *inBody) release() {
	if !b.released {
		b.released = true
		b.of.held.Add(-b.held)
	}
}
