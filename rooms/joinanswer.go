package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The answer to a join may be most of a gigabyte. Its events go to staged rows as they come, and only what their order
// needs stays in memory: about 200 bytes for each.

// Bounds of a join's answer.
const (
	maxJoinEvents = 500_000 // events, and events that are only named
	maxJoinBytes  = 512 << 20
	maxCreations  = 10 // looked at
)

var errJoinTooLarge = errors.New("rooms: the answer to a join is too large")

// joinAnswer knows the events of an answer by number, in order of their first being named, and which rest on which.
type joinAnswer struct {
	stage   int64
	numbers map[matrix.EventID]int32
	events  []answered
	bytes   int
	rows    int64 // written and to be written
	held    int   // events that came

	creations []*matrix.Event // in the state
	waiting   []store.JoinEvent
}

// answered is an event of an answer.
type answered struct {
	place int64   // its row in the stage, 0 if it was only named
	auth  []int32 // what it rests on
	state bool
}

func newJoinAnswer(stage int64) *joinAnswer {
	return &joinAnswer{stage: stage, numbers: map[matrix.EventID]int32{}}
}

// number is an event's number. The ID is copied: it may be part of a long text.
func (a *joinAnswer) number(id matrix.EventID) (int32, error) {
	if n, ok := a.numbers[id]; ok {
		return n, nil
	}
	if len(a.events) >= maxJoinEvents {
		return 0, errJoinTooLarge
	}
	n := int32(len(a.events))
	a.numbers[matrix.EventID(strings.Clone(string(id)))] = n
	a.events = append(a.events, answered{})
	return n, nil
}

// note takes an event into the order and returns the row that stages it; nil if nothing about it is new.
func (a *joinAnswer) note(ev *matrix.Event, state bool) (*store.JoinEvent, error) {
	n, err := a.number(ev.ID())
	if err != nil {
		return nil, err
	}
	known := a.events[n]
	if known.place != 0 && (known.state || !state) {
		return nil, nil
	}
	row := &store.JoinEvent{Place: a.rows + 1, State: state, ID: ev.ID()}
	a.rows++
	if state && ev.Type() == "m.room.create" && len(a.creations) < maxCreations {
		a.creations = append(a.creations, ev)
	}
	if known.place == 0 {
		row.JSON, known.place = ev.JSON(), row.Place
		a.held++
		for _, id := range ev.AuthEvents() {
			on, err := a.number(id)
			if err != nil {
				return nil, err
			}
			known.auth = append(known.auth, on)
		}
	}
	known.state = state
	a.events[n] = known
	return row, nil
}

// take takes one event of the answer to the stage. What is malformed is left out.
func (j *join) take(ctx context.Context, raw json.RawMessage, auth bool) error {
	a := j.answer
	if a.bytes += len(raw); a.bytes > maxJoinBytes {
		return errJoinTooLarge
	}
	one := Admitted{Ref: j.ref}
	if one.parse(raw); one.Err != nil || !one.Event.IsState() {
		return nil
	}
	row, err := a.note(one.Event, !auth)
	if err != nil || row == nil {
		return err
	}
	if a.waiting = append(a.waiting, *row); len(a.waiting) == evidenceChunk {
		return j.flush(ctx)
	}
	return nil
}

// flush writes what waits to be staged.
func (j *join) flush(ctx context.Context) error {
	rows := j.answer.waiting
	j.answer.waiting = rows[:0]
	return j.r.db.Write(ctx, func(tx *store.Tx) error { return tx.StageJoin(j.answer.stage, rows) })
}

// reread makes the order anew from the stage, after a crash.
func (j *join) reread(ctx context.Context, stage int64) error {
	j.answer = newJoinAnswer(stage)
	known := map[matrix.EventID]*matrix.Event{} // creations in the auth chain that the state may name too
	for last := int64(0); ; {
		var rows []store.JoinEvent
		err := j.r.db.Read(ctx, func(tx *store.Tx) error {
			rows = rows[:0]
			return tx.JoinEventsAfter(stage, last, evidenceChunk, func(row store.JoinEvent) { rows = append(rows, row) })
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			last = row.Place
			ev := known[row.ID]
			if len(row.JSON) > 0 {
				if ev, err = matrix.TrustedEvent(row.JSON, row.ID, j.ref.Version); err != nil {
					return corrupt("staged event %s: %v", row.ID, err)
				}
				if ev.Type() == "m.room.create" && len(known) < maxCreations {
					known[row.ID] = ev
				}
			}
			if err := j.answer.restore(row, ev); err != nil {
				return err
			}
		}
	}
}

// restore notes a row of the stage. ev is nil for an event that came before and makes no room.
func (a *joinAnswer) restore(row store.JoinEvent, ev *matrix.Event) error {
	a.rows = row.Place - 1
	if ev != nil {
		_, err := a.note(ev, row.State)
		return err
	}
	if n, ok := a.numbers[row.ID]; ok {
		a.events[n].state = true
	}
	return nil
}

// order lists the places of all events in the stage, each behind those that it rests on, and first the room's creation,
// on which all rest. Events of a circle, which only ill will can make, are left out.
func (a *joinAnswer) order(create matrix.EventID) []int64 {
	waiting := make([]int32, len(a.events))
	children := make([][]int32, len(a.events))
	ready := make([]int32, 0, a.held)
	first, ok := a.numbers[create]
	if ok {
		ready = append(ready, first)
	}
	for n, ev := range a.events {
		if ev.place == 0 || ok && int32(n) == first {
			continue
		}
		for _, on := range ev.auth {
			if a.events[on].place != 0 {
				waiting[n]++
				children[on] = append(children[on], int32(n))
			}
		}
		if waiting[n] == 0 {
			ready = append(ready, int32(n))
		}
	}
	places := make([]int64, 0, a.held)
	for i := 0; i < len(ready); i++ {
		n := ready[i]
		places = append(places, a.events[n].place)
		for _, child := range children[n] {
			if waiting[child]--; waiting[child] == 0 {
				ready = append(ready, child)
			}
		}
	}
	return places
}

// inState says whether an event is named in the state.
func (a *joinAnswer) inState(id matrix.EventID) bool {
	n, ok := a.numbers[id]
	return ok && a.events[n].state
}
