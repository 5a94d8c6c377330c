package sync

import (
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// TypingSince gives the content of m.typing of every room where it changed after an ephemeral position, and the position
// up to which that is. With a negative position it gives no rooms.
func (e *Engine) TypingSince(after int64) (map[store.RoomNID]json.RawMessage, int64) {
	t := &e.typing
	t.mu.Lock()
	defer t.mu.Unlock()
	if after < 0 || after >= t.last {
		return nil, t.last
	}
	out := map[store.RoomNID]json.RawMessage{}
	for room, r := range t.rooms {
		if r.changed <= after {
			continue
		}
		users := make([]matrix.UserID, 0, len(r.users))
		for user := range r.users {
			users = append(users, user)
		}
		slices.Sort(users)
		if content, err := json.Marshal(map[string]any{"user_ids": users}); err == nil {
			out[room] = content
		}
	}
	return out, t.last
}
