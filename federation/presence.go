package federation

import (
	"context"
	"encoding/json"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/presence"
)

// Bounds of m.presence.
const (
	maxPresenceIn  = 500 // entries of one EDU that are looked at
	maxPresenceOut = 100 // entries of one EDU
	presenceLife   = 30 * time.Minute
	presencePeers  = 5000    // servers that something waits for
	presenceQueue  = 5000    // users that wait for one server
	presenceWaits  = 500_000 // users that wait for servers, all together
)

// pushed is an entry of m.presence (server-server API, "Presence").
type pushed struct {
	User    matrix.UserID `json:"user_id"`
	State   string        `json:"presence"`
	Message string        `json:"status_msg,omitempty"`
	Ago     *int64        `json:"last_active_ago"` // ms
	Current bool          `json:"currently_active"`
}

// takePresence takes in m.presence: of the sending server's own users. Each entry is judged on its own; one that is not
// usable is passed over (threats F18), also where the text of it is no JSON that we take: a server relays what its users
// write, and one of them is not to silence the others.
func (s *Server) takePresence(ctx context.Context, origin matrix.ServerName, content []byte) ([]effect, error) {
	if s.options.Presence == nil {
		return nil, nil
	}
	push, err := splitPush(content)
	if err != nil {
		return nil, err
	}
	now := s.now()
	updates := make([]presence.Update, 0, len(push))
	for _, raw := range push {
		if u, ok := readPushed(origin, raw, now); ok {
			updates = append(updates, u)
		} else {
			s.log.Debug("what a server says of a user's presence has no effect", "origin", origin)
		}
	}
	return nil, s.options.Presence.Take(ctx, updates)
}

// splitPush takes the list of m.presence apart, as far as it is looked at, without judging its entries.
func splitPush(content []byte) (push []json.RawMessage, err error) {
	list, _ := matrix.Get(content, "push")
	push, _, err = splitList(list, maxPresenceIn)
	if err != nil {
		return nil, matrix.BadJSON("push is not a list.").With(err)
	}
	return push, nil
}

// readPushed reads one entry, unless it is malformed or about somebody else's user.
func readPushed(origin matrix.ServerName, raw []byte, now time.Time) (u presence.Update, ok bool) {
	var entry pushed
	if matrix.Decode(raw, &entry) != nil {
		return u, false
	}
	id, err := matrix.ParseUserID(string(entry.User))
	if err != nil || !id.Compliant() || id.Server() != origin {
		return u, false
	}
	u.User = id
	if u.State, ok = presence.ParseState(entry.State); !ok || entry.Ago != nil && *entry.Ago < 0 {
		return u, false
	}
	if entry.Ago != nil && *entry.Ago <= now.UnixMilli() {
		u.Active = now.Add(-time.Duration(*entry.Ago) * time.Millisecond)
	}
	u.Message, u.Current = presence.Shorten(entry.Message), entry.Current
	return u, true
}

// awaited are the users whose presence a server is to be told.
type awaited struct {
	since time.Time // when the first was put there
	users map[matrix.UserID]struct{}
}

// Presence notes that a server is to be told of users of ours, and wakes what sends. What the users are shown as is asked
// for when a transaction is made: the newest is what counts. It implements presence.Remote.
func (s *Signals) Presence(server matrix.ServerName, users []matrix.UserID) {
	if s.own.IsOurs(server) {
		return
	}
	now := s.now()
	s.mu.Lock()
	a := s.presence[server]
	if a == nil || now.Sub(a.since) > presenceLife {
		s.dropPresence(server)
		if len(s.presence) >= presencePeers {
			s.forgetPresence(now)
		}
		a = &awaited{since: now, users: map[matrix.UserID]struct{}{}}
		s.presence[server] = a
	}
	s.await(a, users)
	s.mu.Unlock()
	if s.wake != nil {
		s.wake(server)
	}
}

// await adds users to those whom a server is to be told of, as far as there is room. The caller holds s.mu.
func (s *Signals) await(a *awaited, users []matrix.UserID) {
	for _, id := range users {
		if _, there := a.users[id]; there || len(a.users) >= presenceQueue {
			continue
		}
		if s.waits >= presenceWaits {
			s.waits = 0 // what is forgotten here is told again before long
			for _, other := range s.presence {
				clear(other.users)
			}
		}
		a.users[id] = struct{}{}
		s.waits++
	}
}

// dropPresence forgets what waits for a server. The caller holds s.mu.
func (s *Signals) dropPresence(server matrix.ServerName) {
	if a := s.presence[server]; a != nil {
		s.waits -= len(a.users)
		delete(s.presence, server)
	}
}

// forgetPresence drops what was not fetched for long; all, if that does not help: who is there is told again before long.
// The caller holds s.mu.
func (s *Signals) forgetPresence(now time.Time) {
	for server, a := range s.presence {
		if now.Sub(a.since) > presenceLife {
			s.dropPresence(server)
		}
	}
	if len(s.presence) >= presencePeers {
		clear(s.presence)
		s.waits = 0
	}
}

// takePresence removes and returns at most one EDU about presence for a server.
func (s *Signals) takePresence(server matrix.ServerName) (edu EDU, ok bool) {
	var ids []matrix.UserID
	now := s.now()
	s.mu.Lock()
	if a := s.presence[server]; a != nil {
		for id := range a.users {
			if len(ids) == maxPresenceOut || now.Sub(a.since) > presenceLife {
				break
			}
			ids = append(ids, id)
			delete(a.users, id)
		}
		s.waits -= len(ids)
		if len(a.users) == 0 || len(ids) == 0 {
			s.dropPresence(server)
		}
	}
	s.mu.Unlock()
	if len(ids) == 0 || s.people == nil {
		return edu, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalRead)
	defer cancel()
	statuses, err := s.people.Statuses(ctx, server, ids)
	if err != nil {
		s.log.Warn("presence is not sent to another server", "server", server, "err", err)
		return edu, false
	}
	var push []pushed
	for _, u := range statuses {
		c := u.Content(now)
		if c.LastActiveAgo == nil {
			c.LastActiveAgo = new(int64)
		}
		push = append(push, pushed{User: u.User, State: c.Presence, Message: c.Message, Ago: c.LastActiveAgo, Current: c.Current})
	}
	if len(push) == 0 {
		return edu, false
	}
	text, err := json.Marshal(map[string]any{"edu_type": "m.presence", "content": map[string]any{"push": push}})
	return EDU{"m.presence", text}, err == nil
}
