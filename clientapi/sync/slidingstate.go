package sync

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"conclave/internal/store"
)

// slidingState is what the client of a connection knows as of a position. It is never changed once it is settled.
type slidingState struct {
	number int64 // 0 before there is one
	rooms  map[roomNID]known
	sets   map[string]*requiredSet // that rooms name
	data   bool                    // it has the user's own data that is of no room
	lists  store.Pos               // how far it was told of changes of devices; 0 for as far as its position
}

// known is what a client knows of a room.
type known struct {
	asOf  store.Pos // how far it was told of the room; 0 for as far as its position
	limit int       // how many of the newest events of the timeline it was given at least, as of then
	state string    // which state it was given (required.text)
	flags knownFlags
}

type knownFlags uint8

const (
	knownDM       knownFlags = 1 << iota // it was told that the room is for direct messages
	knownData                            // it has the user's own data of the room
	knownReceipts                        // it has the room's receipts
	knownTyping                          // it was told who types
	knownOutside                         // it knows the room from outside alone: by an invitation or a knock
)

// Bounds of what is kept: connections of a device, rooms of a connection.
const (
	maxConnections = 16
	maxKnownRooms  = 5000
)

// maxStoredSets bounds the texts of what is required in a state. What has no place there counts as not given.
const maxStoredSets = 128 << 10

// required finds what a key of required names, as far as it is known.
func (s *slidingState) required(key string) (r required) {
	for part := range strings.SplitSeq(key, ",") {
		if set := s.sets[part]; set != nil {
			r = append(r, set)
		}
	}
	return r
}

// give notes which state the client is given of rooms, and returns its key.
func (s *slide) give(r required) string {
	for _, set := range r {
		if s.now.sets[set.key] == nil {
			s.change().sets[set.key] = set
		}
	}
	return r.key()
}

// set notes what the client knows of a room by the answer.
func (s *slide) set(room roomNID, k known) {
	if had, ok := s.now.rooms[room]; ok && had == k {
		return
	}
	s.change().rooms[room] = k
}

// drop notes that the client needs to know a room no more.
func (s *slide) drop(room roomNID) {
	if _, ok := s.now.rooms[room]; ok {
		delete(s.change().rooms, room)
	}
}

// change is the state by the answer, to be changed.
func (s *slide) change() *slidingState {
	if s.now == s.had {
		s.now = &slidingState{rooms: maps.Clone(s.had.rooms), sets: maps.Clone(s.had.sets), data: s.had.data, lists: s.had.lists}
		if s.now.rooms == nil {
			s.now.rooms, s.now.sets = map[roomNID]known{}, map[string]*requiredSet{}
		}
	}
	return s.now
}

// storedSliding is a state as its row has it. Rooms are number, position, timeline, index of the state, flags.
type storedSliding struct {
	Data   bool          `json:"data,omitempty"`
	Lists  store.Pos     `json:"lists,omitempty"`
	Sets   [][][2]string `json:"sets"`
	States []string      `json:"states"`
	Rooms  [][5]int64    `json:"rooms"`
}

// encode writes a state for its row, and leaves of it what is stored. Beyond maxKnownRooms those rooms are forgotten that the
// client was told of longest ago: they come as new rooms if they come again.
func (s *slidingState) encode() string {
	if over := len(s.rooms) - maxKnownRooms; over > 0 {
		oldest := slices.SortedFunc(maps.Keys(s.rooms), func(a, b roomNID) int {
			x, y := s.rooms[a].asOf, s.rooms[b].asOf
			return cmp.Or(cmp.Compare(min(y, 1), min(x, 1)), cmp.Compare(x, y), cmp.Compare(a, b)) // 0 is the newest
		})
		for _, room := range oldest[:over] {
			delete(s.rooms, room)
		}
	}
	out := storedSliding{Data: s.data, Lists: s.lists, Sets: [][][2]string{}, States: []string{}, Rooms: make([][5]int64, 0, len(s.rooms))}
	index, sets, size := map[string]int64{}, map[string]*requiredSet{}, 0
	for _, room := range slices.Sorted(maps.Keys(s.rooms)) {
		k := s.rooms[room]
		at, ok := index[k.state]
		if !ok {
			at = int64(len(out.States))
			index[k.state] = at
			out.States = append(out.States, k.state)
			for _, set := range s.required(k.state) {
				if sets[set.key] == nil && size+len(set.text) <= maxStoredSets {
					size += len(set.text)
					sets[set.key] = set
					out.Sets = append(out.Sets, set.pairs)
				}
			}
		}
		out.Rooms = append(out.Rooms, [5]int64{int64(room), int64(k.asOf), int64(k.limit), at, int64(k.flags)})
	}
	s.sets = sets
	return string(raw(out))
}

func decodeSlidingState(text string, number int64) (*slidingState, error) {
	var in storedSliding
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, fmt.Errorf("sync: the state of a sliding connection cannot be read: %w", err)
	}
	s := &slidingState{number: number, data: in.Data, lists: in.Lists, rooms: make(map[roomNID]known, len(in.Rooms)), sets: map[string]*requiredSet{}}
	for _, pairs := range in.Sets {
		set := newRequiredSet(pairs)
		s.sets[set.key] = set
	}
	for _, r := range in.Rooms {
		if r[3] < 0 || r[3] >= int64(len(in.States)) {
			return nil, fmt.Errorf("sync: the state of a sliding connection has no states %d", r[3])
		}
		s.rooms[roomNID(r[0])] = known{store.Pos(r[1]), int(r[2]), in.States[r[3]], knownFlags(r[4])}
	}
	return s, nil
}

// slidingKey is a connection of a user's device.
type slidingKey struct {
	device int64
	conn   string
}

// slidingState finds what a connection knew at its client's position: in memory, or in its row, which any node has written.
func (e *Engine) slidingState(ctx context.Context, l *listener, q SlidingRequest) (*slidingState, error) {
	key := slidingKey{q.Device, q.Body.ConnID}
	l.mu.Lock()
	for _, s := range l.sliding[key] {
		if s.number == q.Pos.State {
			l.mu.Unlock()
			return s, nil
		}
	}
	l.mu.Unlock()
	var text string
	err := e.db.Read(ctx, func(tx *store.Tx) (err error) {
		text, err = tx.SlidingState(q.Device, key.conn, q.Pos.State)
		return err
	})
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, UnknownPos()
	}
	s, err := decodeSlidingState(text, q.Pos.State)
	if err != nil {
		return nil, err
	}
	l.rememberSliding(key, 0, s)
	return s, nil
}

// keepSlidingState stores a state under a new number, which it returns. follows is the number of the one before it, which
// stays too: the answer may be lost, and is then asked for again.
func (e *Engine) keepSlidingState(ctx context.Context, l *listener, device int64, conn string, follows int64, s *slidingState) (int64, error) {
	s = &slidingState{rooms: s.rooms, sets: s.sets, data: s.data, lists: s.lists, number: newSlidingNumber()}
	row := store.SlidingState{Device: device, Conn: conn, Number: s.number, Text: s.encode()}
	var kept bool
	err := e.db.Write(ctx, func(tx *store.Tx) (err error) {
		kept, err = tx.PutSlidingState(row, follows, e.now().UnixMilli(), maxConnections)
		return err
	})
	if err != nil {
		return 0, err
	}
	if !kept {
		return 0, ErrGone
	}
	l.rememberSliding(slidingKey{device, conn}, follows, s)
	return s.number, nil
}

// newSlidingNumber draws a number for a state.
func newSlidingNumber() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return int64(binary.BigEndian.Uint64(b[:])>>2) + 1
}

// rememberSliding keeps a state in memory beside the one that it follows.
func (l *listener) rememberSliding(key slidingKey, follows int64, s *slidingState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := []*slidingState{s}
	for _, had := range l.sliding[key] {
		if had.number == follows {
			kept = append(kept, had)
		}
	}
	if _, known := l.sliding[key]; !known && len(l.sliding) >= 2*maxConnections {
		clear(l.sliding) // they are read again
	}
	if l.sliding == nil {
		l.sliding = map[slidingKey][]*slidingState{}
	}
	l.sliding[key] = kept
}
