package rooms

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// parking remembers, of the events that wait in rooms, those that were put off: what they lack and how long nobody need
// look at them again. A room in which hundreds of events wait for something that nobody has then costs one look at the
// numbers of its rows whenever one more comes, not a look at each event. It is a memory only: what it forgets is looked at
// once more.
type parking struct {
	mu    sync.Mutex
	rooms map[store.RoomNID]map[int64]*spot // by the number of the staged row
	total int
	looks map[store.RoomNID]*look // that are under way
}

// look is one at what waits in a room. What comes to be held meanwhile by another way may be what an event was just found to
// lack that is parked only then: nobody would tell that event again.
type look struct {
	came map[matrix.EventID]int // in which order
	n    int
	many int // the last of those that are not remembered
}

// maxCame bounds what a look remembers to have come.
const maxCame = 10_000

// spot is one event that was put off.
type spot struct {
	id    matrix.EventID
	from  matrix.ServerName
	lacks map[matrix.EventID]bool // its parents and auth events, of which some are not held
	until time.Time               // for an event in a paused room: the end of the pause; else delays knows
	ready bool                    // something that it lacks came
}

// maxParked bounds the events in the parking, of all rooms together.
const maxParked = 20_000

func newParking() *parking {
	return &parking{rooms: map[store.RoomNID]map[int64]*spot{}, looks: map[store.RoomNID]*look{}}
}

// look begins one at a room, of which there is one at a time; the function that it returns ends it.
func (p *parking) look(room store.RoomNID) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks[room] = &look{came: map[matrix.EventID]int{}}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.looks, room)
	}
}

// mark is a moment of the look at a room.
func (p *parking) mark(room store.RoomNID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.looks[room]; l != nil {
		return l.n
	}
	return 0
}

// park takes in an event that was put off, unless there are too many. until is zero where delays knows when it is due. It says
// whether something that the event was found to lack may have come since a moment: then it is to be looked at again.
func (p *parking) park(room store.RoomNID, row int64, ev *matrix.Event, from matrix.ServerName, until time.Time, since int) (again bool) {
	s := &spot{id: matrix.EventID(strings.Clone(string(ev.ID()))), from: from, until: until, lacks: map[matrix.EventID]bool{}}
	for _, list := range [][]matrix.EventID{ev.PrevEvents(), ev.AuthEvents()} {
		for _, id := range list {
			s.lacks[matrix.EventID(strings.Clone(string(id)))] = true // not a part of the event's text, which would stay with it
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.looks[room]; l != nil {
		s.ready = l.many > since
		for id := range s.lacks {
			s.ready = s.ready || l.came[id] > since
		}
	}
	if p.rooms[room] == nil {
		p.rooms[room] = map[int64]*spot{}
	}
	if p.rooms[room][row] == nil {
		if p.total >= maxParked {
			return s.ready
		}
		p.total++
	}
	p.rooms[room][row] = s
	return s.ready
}

// sift says which of the rows that wait in a room are to be looked at now, in their order; when the first of the others is
// due, 0 if there is none; and which of those wait for the end of a pause. wait is how long an event is still to be left
// alone. Rows that do not wait any more are forgotten.
func (p *parking) sift(room store.RoomNID, rows []int64, now time.Time, wait func(matrix.EventID, matrix.ServerName) time.Duration) (due []int64, again time.Duration, paused map[matrix.EventID]*pausedError) {
	p.mu.Lock()
	defer p.mu.Unlock()
	paused = map[matrix.EventID]*pausedError{}
	spots := p.rooms[room]
	kept := make(map[int64]*spot, len(spots))
	for _, row := range rows {
		s := spots[row]
		var left time.Duration
		switch {
		case s == nil || s.ready:
		case !s.until.IsZero():
			left = s.until.Sub(now)
		default:
			left = wait(s.id, s.from)
		}
		if left <= 0 {
			due = append(due, row)
			continue
		}
		kept[row] = s
		again = sooner(again, left)
		if !s.until.IsZero() {
			paused[s.id] = &pausedError{left, s.until}
		}
	}
	p.total -= len(spots) - len(kept)
	if p.rooms[room] = kept; len(kept) == 0 {
		delete(p.rooms, room)
	}
	return due, again, paused
}

// came notes that events of a room are held now and says whether one that is parked lacked any of them.
func (p *parking) came(room store.RoomNID, ids []matrix.EventID) (wanted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.looks[room]; l != nil {
		for _, id := range ids {
			if l.n++; len(l.came) < maxCame {
				l.came[id] = l.n
			} else {
				l.many = l.n
			}
		}
	}
	for _, s := range p.rooms[room] {
		if !s.ready && slices.ContainsFunc(ids, func(id matrix.EventID) bool { return s.lacks[id] }) {
			s.ready, wanted = true, true
		}
	}
	return wanted
}

// broughtBy are the rooms with parked events that a server brought.
func (p *parking) broughtBy(server matrix.ServerName) (rooms []store.RoomNID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for room, spots := range p.rooms {
		for _, s := range spots {
			if s.from == server {
				rooms = append(rooms, room)
				break
			}
		}
	}
	return rooms
}

// any says whether an event of a room is parked.
func (p *parking) any(room store.RoomNID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rooms[room]) > 0
}

// matters says whether it matters to anybody what comes to be held in a room.
func (p *parking) matters(room store.RoomNID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rooms[room]) > 0 || p.looks[room] != nil
}

// unpark notes that events of a room are held now, or have a place: what was put off because it lacked them is looked at.
func (r *Rooms) unpark(ref Ref, rows ...*store.EventRow) {
	if len(rows) == 0 || !r.parked.matters(ref.NID) {
		return
	}
	ids := make([]matrix.EventID, len(rows))
	for i, row := range rows {
		ids[i] = row.Event.ID()
	}
	if r.parked.came(ref.NID, ids) {
		r.wake(ref)
	}
}

// heardOf notes that a server has sent something: what it brought before, and what could not be had of it then, may be had
// now.
func (r *Rooms) heardOf(ctx context.Context, server matrix.ServerName) {
	if !r.delays.hear(server, r.now()) {
		return
	}
	for _, room := range r.parked.broughtBy(server) {
		ref, err := r.LookupNID(ctx, room)
		if err != nil {
			r.log.Warn("a room whose events wait was not looked at", "err", err)
			continue
		}
		r.wake(ref)
	}
}
