package clientapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"conclave/internal/matrix"
)

// tickets let a browser open a socket, to which it cannot give a header: each is good for one use within half a
// minute, so that what a proxy logs of it opens nothing.
type tickets struct {
	now func() time.Time
	mu  sync.Mutex
	of  map[[32]byte]ticket
}

type ticket struct {
	token string
	until time.Time
}

const (
	ticketTime = 30 * time.Second
	maxTickets = 20_000
)

func newTickets() *tickets { return &tickets{now: time.Now, of: map[[32]byte]ticket{}} }

// make gives out a ticket for an access token.
func (t *tickets) make(token string) (string, error) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: the runtime ends the process instead
	text := base64.RawURLEncoding.EncodeToString(random[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.of) >= maxTickets {
		for key, old := range t.of {
			if now.After(old.until) {
				delete(t.of, key)
			}
		}
		if len(t.of) >= maxTickets {
			return "", matrix.LimitExceeded(ticketTime.Milliseconds())
		}
	}
	t.of[sha256.Sum256([]byte(text))] = ticket{token, now.Add(ticketTime)}
	return text, nil
}

// take exchanges a ticket for the access token that it stands for, once.
func (t *tickets) take(text string) (string, bool) {
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.of[key]
	delete(t.of, key)
	return found.token, ok && !t.now().After(found.until)
}

// socketTicket is POST …/im.conclave.ws/ticket.
func (s *Server) socketTicket(r *Request) (any, error) {
	token, err := credential(r.Request())
	if err != nil {
		return nil, err
	}
	text, err := s.tickets.make(token)
	return map[string]any{"ticket": text, "expires_in_ms": ticketTime.Milliseconds()}, err
}
