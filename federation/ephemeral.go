package federation

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/rooms"
)

// Signals holds what is worth something to other servers only now: who types, who is online. It lives in memory; what a
// destination does not fetch soon is forgotten.
type Signals struct {
	db     *store.DB
	own    *Identity
	log    *slog.Logger
	now    func() time.Time
	wake   func(matrix.ServerName)
	people *presence.Presence // nil: nobody is told who is online

	mu       sync.Mutex
	queue    map[matrix.ServerName][]signal
	presence map[matrix.ServerName]*awaited
	waits    int // users in presence, of all servers
}

// signal is a user's typing in a room, as of a time.
type signal struct {
	room   matrix.RoomID
	user   matrix.UserID
	typing bool
	at     time.Time
}

// Bounds of what waits in memory.
const (
	signalLife     = 20 * time.Second
	signalsPerPeer = 200
	signalPeers    = 5000
	signalRead     = 5 * time.Second // for finding out who is in a room
)

// NewSignals makes an empty one. clock is time.Now if nil.
func NewSignals(db *store.DB, own *Identity, log *slog.Logger, clock func() time.Time) *Signals {
	if clock == nil {
		clock = time.Now
	}
	return &Signals{
		db: db, own: own, log: log, now: clock,
		queue: map[matrix.ServerName][]signal{}, presence: map[matrix.ServerName]*awaited{},
	}
}

// Show tells it who knows who is online; it must be called before the first signal.
func (s *Signals) Show(people *presence.Presence) { s.people = people }

// Wake tells it whom to tell that there is something for a server; it must be called before the first signal.
func (s *Signals) Wake(wake func(matrix.ServerName)) { s.wake = wake }

// Typing tells the servers of a room that a user of ours types or has stopped. It waits for nobody.
func (s *Signals) Typing(room rooms.Ref, user matrix.UserID, typing bool) {
	ctx, cancel := context.WithTimeout(context.Background(), signalRead)
	defer cancel()
	var servers []matrix.ServerName
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		var nids []store.ServerNID
		if err := tx.ServerNIDsIn(room.NID, func(nid store.ServerNID) { nids = append(nids, nid) }); err != nil {
			return err
		}
		servers = nil
		return tx.ServerNames(nids, func(_ store.ServerNID, name matrix.ServerName) { servers = append(servers, name) })
	})
	if err != nil {
		s.log.Warn("typing is not sent to other servers", "err", err)
		return
	}
	for _, server := range servers {
		if s.own.IsOurs(server) {
			continue
		}
		s.put(server, signal{room.ID, user, typing, s.now()})
		if s.wake != nil {
			s.wake(server)
		}
	}
}

// put queues a signal in the place of an older one of the same user and room.
func (s *Signals) put(server matrix.ServerName, sig signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, known := s.queue[server]
	if !known && len(s.queue) >= signalPeers {
		s.forget()
	}
	q = slices.DeleteFunc(q, func(o signal) bool {
		return o.room == sig.room && o.user == sig.user || sig.at.Sub(o.at) > signalLife
	})
	if len(q) >= signalsPerPeer {
		q = q[1:]
	}
	s.queue[server] = append(q, sig)
}

// forget drops the queues of servers that did not fetch them; all, if that does not help. The caller holds s.mu.
func (s *Signals) forget() {
	now := s.now()
	for server, q := range s.queue {
		if len(q) == 0 || now.Sub(q[len(q)-1].at) > signalLife {
			delete(s.queue, server)
		}
	}
	if len(s.queue) >= signalPeers {
		clear(s.queue)
	}
}

// take removes and returns at most limit EDUs for a server.
func (s *Signals) take(server matrix.ServerName, limit int) []EDU {
	edus := s.takeTyping(server, limit)
	if len(edus) < limit {
		if edu, ok := s.takePresence(server); ok {
			edus = append(edus, edu)
		}
	}
	return edus
}

func (s *Signals) takeTyping(server matrix.ServerName, limit int) []EDU {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue[server]
	var edus []EDU
	for len(q) > 0 && len(edus) < limit {
		sig := q[0]
		q = q[1:]
		if s.now().Sub(sig.at) > signalLife {
			continue
		}
		text, err := json.Marshal(map[string]any{"edu_type": "m.typing", "content": map[string]any{
			"room_id": sig.room, "user_id": sig.user, "typing": sig.typing,
		}})
		if err == nil {
			edus = append(edus, EDU{"m.typing", text})
		}
	}
	if len(q) == 0 {
		delete(s.queue, server)
	} else {
		s.queue[server] = q
	}
	return edus
}
