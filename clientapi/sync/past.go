package sync

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// leftRoom is a room of the response that the user is in no more.
type leftRoom struct {
	State      *eventList `json:"state,omitempty"`
	StateAfter *eventList `json:"state_after,omitempty"`
	OldAfter   *eventList `json:"org.matrix.msc4222.state_after,omitempty"`
	Timeline   timeline   `json:"timeline"`
}

// left adds a room that the user is in no more: as it was until the user's departure, and the event by which it is over
// where that is a later one. Who was never in the room, as after an invitation that was refused, gets that event alone.
func (a *assembly) left(ref rooms.Ref, m store.MemberRow) error {
	out := &joinedRoom{Timeline: timeline{Events: []json.RawMessage{}}}
	if m.Departed > a.from {
		piece, err := a.piece(ref, m, a.from == 0, m.Departed)
		if err != nil {
			return err
		}
		if err := a.fill(ref, m, piece, a.from == 0, out); err != nil {
			return err
		}
	}
	if m.Pos > m.Departed {
		if err := a.over(ref, m, out); err != nil {
			return err
		}
	}
	answer := a.roomsAnswer()
	if answer.Leave == nil {
		answer.Leave = map[matrix.RoomID]*leftRoom{}
	}
	answer.Leave[ref.ID] = &leftRoom{out.State, out.StateAfter, out.OldAfter, out.Timeline}
	return nil
}

// over adds the event that made the user's membership what it is and came after the user's time in the room: last in the
// timeline, or in the state for a client that wants no such events there.
func (a *assembly) over(ref rooms.Ref, m store.MemberRow, out *joinedRoom) error {
	row, err := a.e.memberEvent(a.ctx, m)
	if err != nil || row == nil {
		return err
	}
	rows := []*store.EventRow{row}
	keep := &a.filter().Timeline
	shown := keep.limit() > 0 && keep.Keeps(row)
	if shown {
		events, err := a.e.Timeline(a.ctx, a.q.Viewpoint, ref, rows)
		if err != nil {
			return err
		}
		out.Timeline.Events = append(out.Timeline.Events, a.q.Filter.shape(events, rows)...)
	}
	state := a.q.Filter.shape(ClientEvents(rows), rows)
	if !a.filter().State.Keeps(row) {
		state = []json.RawMessage{}
	}
	switch {
	case a.q.StateAfter:
		out.StateAfter = out.StateAfter.with(state)
	case a.q.OldStateAfter:
		out.OldAfter = out.OldAfter.with(state)
	case !shown && len(state) > 0:
		out.State = out.State.with(state)
	}
	return nil
}

// with is a list with more events.
func (l *eventList) with(events []json.RawMessage) *eventList {
	if l != nil {
		events = append(l.Events, events...)
	}
	return &eventList{events}
}
