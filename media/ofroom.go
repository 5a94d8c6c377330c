package media

import (
	"context"
	"encoding/json"
	"math"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of going through a room.
const (
	roomPage  = 200    // events that are looked at in one transaction
	maxInRoom = 50_000 // contents that are listed of a room
)

// shown finds the contents that an event shows: the URIs that stand in its content under url or thumbnail_url, however
// deep. People's pictures are theirs, not the room's.
func shown(event []byte, each func(store.MediaName)) {
	var e struct {
		Type    string `json:"type"`
		Content any    `json:"content"`
	}
	if json.Unmarshal(event, &e) != nil || e.Type == "m.room.member" {
		return
	}
	var look func(any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if text, ok := value.(string); !ok {
					look(value)
				} else if key == "url" || key == "thumbnail_url" {
					if name, ok := parseURI(text); ok {
						each(name)
					}
				}
			}
		case []any:
			for _, value := range v {
				look(value)
			}
		}
	}
	look(e.Content)
}

// parseURI reads an mxc URI.
func parseURI(text string) (store.MediaName, bool) {
	rest, ok := strings.CutPrefix(text, "mxc://")
	server, id, _ := strings.Cut(rest, "/")
	name := store.MediaName{Origin: matrix.ServerName(server), ID: id}
	return name, ok && named(name.Origin, name.ID) == nil
}

// eachInRoom gives the contents that the events of a room show, page by page; one may come on several pages. It ends when
// page says that it is enough.
func (m *Media) eachInRoom(ctx context.Context, room store.RoomNID, page func([]store.MediaName) (more bool, err error)) error {
	for after := (store.EventPlace{Pos: math.MinInt64}); ; {
		n := 0
		seen := map[store.MediaName]bool{}
		var list []store.MediaName
		last := after
		err := m.o.DB.Read(ctx, func(tx *store.Tx) error {
			n, list, last = 0, nil, after
			clear(seen)
			return tx.EventsNamingMedia(room, after, roomPage, func(at store.EventPlace, event []byte) {
				n, last = n+1, at
				shown(event, func(name store.MediaName) {
					if !seen[name] {
						seen[name] = true
						list = append(list, name)
					}
				})
			})
		})
		if err != nil {
			return err
		}
		after = last
		if len(list) > 0 {
			if more, err := page(list); err != nil || !more {
				return err
			}
		}
		if n < roomPage {
			return nil
		}
	}
}

// OfRoom lists the contents that the events of a room show, ours and those of other servers, each once and at most maxInRoom.
// What is encrypted shows nothing to this server.
func (m *Media) OfRoom(ctx context.Context, room store.RoomNID) (list []store.MediaName, err error) {
	seen := map[store.MediaName]bool{}
	err = m.eachInRoom(ctx, room, func(page []store.MediaName) (bool, error) {
		for _, name := range page {
			if !seen[name] && len(list) < maxInRoom {
				seen[name] = true
				list = append(list, name)
			}
		}
		return len(list) < maxInRoom, nil
	})
	return list, err
}

// WithdrawRoom puts everything that the events of a room show into quarantine, and returns how much was not there before.
// It goes on in short transactions: who repeats a call that was cut off goes on where it ended.
func (m *Media) WithdrawRoom(ctx context.Context, by store.UserNID, room store.RoomNID) (total int64, err error) {
	err = m.eachInRoom(ctx, room, func(page []store.MediaName) (bool, error) {
		var n int64
		err := m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.WithdrawWith(room, page, by, m.nowMS())
			return err
		})
		total += n
		return true, err
	})
	if total > 0 {
		m.wake()
		m.o.Log.Info("the contents of a room were put into quarantine", "administrator", by, "room", room, "contents", total)
	}
	return total, err
}

// GiveBackRoom takes out of quarantine what WithdrawRoom has put there, unless it was withdrawn for another reason too, and
// returns how much that was.
func (m *Media) GiveBackRoom(ctx context.Context, by store.UserNID, room store.RoomNID) (n int64, err error) {
	err = m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.GiveBackWith(room)
		return err
	})
	if err == nil {
		m.o.Log.Info("the contents of a room were taken out of quarantine", "administrator", by, "room", room, "contents", n)
	}
	return n, err
}

// WithdrawnOfRoom reads a page of what is in quarantine because of a room, and how much that is in all.
func (m *Media) WithdrawnOfRoom(ctx context.Context, room store.RoomNID, from, limit int) (page []store.WithdrawnContent, total int64, err error) {
	err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		page = nil
		total, err = tx.WithdrawnWith(room, from, limit, func(c store.WithdrawnContent) { page = append(page, c) })
		return err
	})
	return page, total, err
}
