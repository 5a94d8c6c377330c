package sync

import (
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
)

// AppendJSON writes the response as JSON, as its tags say. Events are JSON already: they are taken over as they are, where
// package json would read and copy each of them once more.
func (r *Response) AppendJSON(out []byte) ([]byte, error) {
	w := &jsonWriter{out: slices.Grow(out, r.size())}
	w.object(func() {
		w.value("next_batch", r.NextBatch)
		w.list("account_data", r.AccountData)
		w.list("presence", r.Presence)
		if r.Rooms != nil {
			w.member("rooms", func() { r.Rooms.write(w) })
		}
		w.list("to_device", r.ToDevice)
		if r.DeviceLists != nil {
			w.value("device_lists", r.DeviceLists)
		}
		if len(r.KeyCounts) > 0 {
			w.value("device_one_time_keys_count", r.KeyCounts)
		}
		w.value("device_unused_fallback_key_types", r.Fallback)
	})
	return w.out, w.err
}

func (r *roomsAnswer) write(w *jsonWriter) {
	w.object(func() {
		writeRooms(w, "join", r.Join, func(j *joinedRoom) { j.write(w) })
		writeRooms(w, "invite", r.Invite, func(i *invitedRoom) { w.list("invite_state", &i.State) })
		writeRooms(w, "knock", r.Knock, func(k *knockedRoom) { w.list("knock_state", &k.State) })
		writeRooms(w, "leave", r.Leave, func(l *leftRoom) {
			writePiece(w, l.State, l.StateAfter, l.OldAfter, &l.Timeline)
		})
	})
}

// writeRooms writes rooms by their IDs, if there are any; each writes the members of one.
func writeRooms[T any](w *jsonWriter, name string, rooms map[matrix.RoomID]*T, each func(*T)) {
	if len(rooms) == 0 {
		return
	}
	w.member(name, func() {
		w.object(func() {
			for _, id := range slices.Sorted(maps.Keys(rooms)) {
				w.member(string(id), func() { w.object(func() { each(rooms[id]) }) })
			}
		})
	})
}

func (j *joinedRoom) write(w *jsonWriter) {
	if j.Summary != nil {
		w.value("summary", j.Summary)
	}
	writePiece(w, j.State, j.StateAfter, j.OldAfter, &j.Timeline)
	w.list("ephemeral", j.Ephemeral)
	w.list("account_data", j.AccountData)
	if j.Unread != nil {
		w.value("unread_notifications", j.Unread)
	}
	if len(j.UnreadThreads) > 0 {
		w.value("unread_thread_notifications", j.UnreadThreads)
	}
}

// writePiece writes a room's timeline, and its state under whichever name it has.
func writePiece(w *jsonWriter, state, after, oldAfter *eventList, t *timeline) {
	w.list("state", state)
	w.list("state_after", after)
	w.list("org.matrix.msc4222.state_after", oldAfter)
	w.member("timeline", func() {
		w.object(func() {
			w.events("events", t.Events)
			if t.Limited {
				w.value("limited", true)
			}
			if t.PrevBatch != "" {
				w.value("prev_batch", t.PrevBatch)
			}
		})
	})
}

// size is roughly how long the response is as JSON.
func (r *Response) size() int {
	n := 1000
	for _, list := range []*eventList{r.AccountData, r.Presence, r.ToDevice} {
		n += list.size()
	}
	if r.Rooms == nil {
		return n
	}
	for _, j := range r.Rooms.Join {
		n += 700 + j.State.size() + j.StateAfter.size() + j.OldAfter.size() + j.Ephemeral.size() + j.AccountData.size()
		n += (&eventList{j.Timeline.Events}).size()
	}
	return n
}

func (l *eventList) size() (n int) {
	if l != nil {
		for _, event := range l.Events {
			n += len(event) + 1
		}
	}
	return n
}

// jsonWriter writes objects member by member.
type jsonWriter struct {
	out   []byte
	begun bool // a member stands before the next one
	err   error
}

func (w *jsonWriter) object(members func()) {
	w.out = append(w.out, '{')
	w.begun = false
	members()
	w.out = append(w.out, '}')
	w.begun = true
}

// member writes a name and has its value written.
func (w *jsonWriter) member(name string, value func()) {
	if w.begun {
		w.out = append(w.out, ',')
	}
	w.out = append(matrix.AppendString(w.out, name), ':')
	value()
	w.begun = true
}

// value writes a member that package json writes.
func (w *jsonWriter) value(name string, v any) {
	w.member(name, func() {
		raw, err := json.Marshal(v)
		if err != nil && w.err == nil {
			w.err = err
		}
		w.out = append(w.out, raw...)
	})
}

// list writes an object with events, unless it is nil.
func (w *jsonWriter) list(name string, l *eventList) {
	if l != nil {
		w.member(name, func() { w.object(func() { w.events("events", l.Events) }) })
	}
}

func (w *jsonWriter) events(name string, events []json.RawMessage) {
	w.member(name, func() {
		w.out = append(w.out, '[')
		for i, event := range events {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.out = append(w.out, event...)
		}
		w.out = append(w.out, ']')
	})
}
