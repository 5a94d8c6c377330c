package sync

import (
	"encoding/json"
	"slices"
	gosync "sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// typing is who is typing where. It lives in memory only: every change of a room has a number, which clients keep in
// their token as the ephemeral position.
type typing struct {
	now func() time.Time

	mu    gosync.Mutex
	last  int64
	rooms map[store.RoomNID]*typingRoom
}

type typingRoom struct {
	changed int64
	users   map[matrix.UserID]time.Time // until when
	timer   *time.Timer                 // for the next one who stops by time
}

// maxTyping bounds how long one message of typing lasts, and typingUsers how many are shown of one room.
const (
	maxTyping   = 60 * time.Second
	typingUsers = 100
)

func (t *typing) init(now func() time.Time) {
	t.now = now
	t.last = now().UnixMilli() // above what this node gave out before a restart
	t.rooms = map[store.RoomNID]*typingRoom{}
}

func (t *typing) position() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// SetTyping notes that a user types in a room for a while, or has stopped if lasts is zero, and tells the room. It
// reports whether that changed anything.
func (e *Engine) SetTyping(room store.RoomNID, user matrix.UserID, lasts time.Duration) bool {
	if !e.typing.set(room, user, min(lasts, maxTyping), func() { e.typingEnds(room) }) {
		return false
	}
	e.listeners.wakeRoom(room)
	return true
}

func (e *Engine) typingEnds(room store.RoomNID) {
	if e.typing.expire(room, func() { e.typingEnds(room) }) {
		e.listeners.wakeRoom(room)
	}
}

func (t *typing) set(room store.RoomNID, user matrix.UserID, lasts time.Duration, ends func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if r == nil {
		if lasts <= 0 {
			return false
		}
		r = &typingRoom{users: map[matrix.UserID]time.Time{}}
		t.rooms[room] = r
	}
	_, was := r.users[user]
	if lasts <= 0 {
		delete(r.users, user)
	} else if was || len(r.users) < typingUsers {
		r.users[user] = t.now().Add(lasts)
	}
	_, is := r.users[user]
	t.arm(r, ends)
	if was == is {
		return false
	}
	t.last++
	r.changed = t.last
	return true
}

// arm sets a room's timer to when the next user stops. The caller holds t.mu.
func (t *typing) arm(r *typingRoom, ends func()) {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	var next time.Time
	for _, until := range r.users {
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	if !next.IsZero() {
		r.timer = time.AfterFunc(max(next.Sub(t.now()), time.Millisecond), ends)
	}
}

// expire ends the typing of those whose time is up.
func (t *typing) expire(room store.RoomNID, ends func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if r == nil {
		return false
	}
	now, gone := t.now(), false
	for user, until := range r.users {
		if !until.After(now) {
			delete(r.users, user)
			gone = true
		}
	}
	t.arm(r, ends)
	if gone {
		t.last++
		r.changed = t.last
	}
	return gone
}

// changed are the rooms whose typing changed after a position.
func (t *typing) changed(after int64) map[store.RoomNID]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	rooms := map[store.RoomNID]bool{}
	if after >= t.last {
		return rooms
	}
	for nid, r := range t.rooms {
		if r.changed > after {
			rooms[nid] = true
		}
	}
	return rooms
}

// event is m.typing of a room, nil if it did not change after a position; to a client that does not know the room,
// only if somebody types.
func (t *typing) event(room store.RoomNID, after int64, fresh bool) json.RawMessage {
	t.mu.Lock()
	r := t.rooms[room]
	var users []matrix.UserID
	if r != nil {
		for user := range r.users {
			users = append(users, user)
		}
	}
	skip := r == nil || fresh && len(users) == 0 || !fresh && r.changed <= after
	t.mu.Unlock()
	if skip {
		return nil
	}
	slices.Sort(users)
	if users == nil {
		users = []matrix.UserID{}
	}
	content, err := json.Marshal(map[string]any{"user_ids": users})
	if err != nil {
		return nil
	}
	return typedEvent("m.typing", string(content))
}
