package clientapi

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var roomRoutes = []Route{
	op(get, "/rooms/:roomId/state", "getRoomState", Token, LimitRead, (*Server).getRoomState),
	op(get, "/rooms/:roomId/state/:eventType", "getRoomStateWithKey", Token, LimitRead, (*Server).getRoomStateWithKey),
	op(get, "/rooms/:roomId/state/:eventType/", "getRoomStateWithKey", Token, LimitRead, (*Server).getRoomStateWithKey),
	op(get, "/rooms/:roomId/state/:eventType/:stateKey", "getRoomStateWithKey", Token, LimitRead, (*Server).getRoomStateWithKey),
	op(get, "/rooms/:roomId/members", "getMembersByRoom", Token, LimitRead, (*Server).getMembersByRoom),
	op(get, "/rooms/:roomId/joined_members", "getJoinedMembersByRoom", Token, LimitRead, (*Server).getJoinedMembersByRoom),
	op(get, "/rooms/:roomId/messages", "getRoomEvents", Token, LimitRead, (*Server).getRoomEvents),
	op(get, "/rooms/:roomId/event/:eventId", "getOneRoomEvent", Token, LimitRead, (*Server).getOneRoomEvent),
	op(get, "/rooms/:roomId/context/:eventId", "getEventContext", Token, LimitRead, (*Server).getEventContext),
	{Method: get, Path: "/_matrix/client/v1/rooms/:roomId/timestamp_to_event", OperationID: "getEventByTimestamp", Auth: Token, Limit: LimitRead, Handler: (*Server).getEventByTimestamp},
}

// reading is a room that the caller may read: now, or as it was when the caller left.
type reading struct {
	ref    rooms.Ref
	viewer rooms.Viewer
	state  store.State
	until  *rooms.Place // where the caller's view ends, nil for somebody who is in the room
}

// mayRead finds what a caller may read of the room of the path. Who was never in it may only if it is world-readable.
func (s *Server) mayRead(r *Request) (*reading, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	return s.mayReadRoom(r, ref)
}

// mayReadRoom is mayRead for a room that is known.
func (s *Server) mayReadRoom(r *Request, ref rooms.Ref) (*reading, error) {
	viewer, err := s.Rooms.Viewer(r.Ctx(), ref.NID, r.User())
	if err != nil {
		return nil, err
	}
	v := &reading{ref: ref, viewer: viewer}
	m := viewer.Member
	if m != nil && m.Membership != store.Join && m.Departed != 0 {
		v.until = &rooms.Place{Pos: m.Departed}
		v.state, err = s.Rooms.StateAt(r.Ctx(), ref.NID, m.Departed)
		return v, err
	}
	if v.state, err = s.Rooms.CurrentState(r.Ctx(), ref.NID); err != nil {
		return nil, err
	}
	if m != nil && m.Membership == store.Join {
		return v, nil
	}
	open, err := s.Rooms.WorldReadable(r.Ctx(), ref.NID, v.state)
	if err == nil && !open {
		err = matrix.Forbidden("You are not in this room.")
	}
	return v, err
}

// getRoomState is GET /rooms/{roomId}/state.
func (s *Server) getRoomState(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	rows, err := s.Rooms.AllState(r.Ctx(), v.ref.NID, v.state, true)
	if err == nil {
		rows, err = s.Rooms.StateShown(r.Ctx(), v.ref, v.viewer, rows)
	}
	if err != nil {
		return nil, err
	}
	return Raw(sync.List(sync.ClientEvents(rows))), nil
}

// getRoomStateWithKey is GET /rooms/{roomId}/state/{eventType}/{stateKey}.
func (s *Server) getRoomStateWithKey(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	row, err := s.Rooms.StateEvent(r.Ctx(), v.ref.NID, v.state, r.Param("eventType"), r.Param("stateKey"))
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, matrix.NotFound("The room has no such state.")
	}
	rows, err := s.Rooms.StateShown(r.Ctx(), v.ref, v.viewer, []*store.EventRow{row})
	if err != nil {
		return nil, err
	}
	row = rows[0]
	switch r.QueryParam("format") {
	case "", "content":
		return Raw(row.Event.Content()), nil
	case "event":
		return Raw(sync.ClientEvent(row)), nil
	}
	return nil, matrix.InvalidParam(`format is "content" or "event".`)
}

// getMembersByRoom is GET /rooms/{roomId}/members.
func (s *Server) getMembersByRoom(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	if at := r.QueryParam("at"); at != "" {
		token, err := s.Sync.ParseToken(at)
		if err != nil {
			return nil, err
		}
		if v.until == nil || token.Pos < v.until.Pos {
			if v.state, err = s.Rooms.StateAt(r.Ctx(), v.ref.NID, token.Pos); err != nil {
				return nil, err
			}
		}
	}
	rows, err := s.Rooms.Members(r.Ctx(), v.ref.NID, v.state)
	if err == nil {
		rows, err = s.Rooms.StateShown(r.Ctx(), v.ref, v.viewer, rows)
	}
	if err != nil {
		return nil, err
	}
	is, not := r.QueryParam("membership"), r.QueryParam("not_membership")
	kept := rows[:0:0]
	for _, row := range rows {
		m := row.Event.Membership()
		if (is == "" || m == is) && (not == "" || m != not) {
			kept = append(kept, row)
		}
	}
	return Raw(`{"chunk":` + string(sync.List(sync.ClientEvents(kept))) + `}`), nil
}

// joinedMember is what joined_members says of a user.
type joinedMember struct {
	DisplayName *string `json:"display_name,omitempty"`
	AvatarURL   *string `json:"avatar_url,omitempty"`
}

// getJoinedMembersByRoom is GET /rooms/{roomId}/joined_members, for members only.
func (s *Server) getJoinedMembersByRoom(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	if err := s.Rooms.RequireJoined(r.Ctx(), ref.NID, r.Session.User); err != nil {
		return nil, err
	}
	state, err := s.Rooms.CurrentState(r.Ctx(), ref.NID)
	if err != nil {
		return nil, err
	}
	rows, err := s.Rooms.Members(r.Ctx(), ref.NID, state)
	if err != nil {
		return nil, err
	}
	joined := make(map[string]joinedMember, len(rows))
	for _, row := range rows {
		if row.Event.Membership() != "join" {
			continue
		}
		key, _ := row.Event.StateKey()
		joined[key] = joinedMember{textOf(row.Event, "displayname"), textOf(row.Event, "avatar_url")}
	}
	return map[string]any{"joined": joined}, nil
}

func textOf(ev *matrix.Event, member string) *string {
	if text, ok := matrix.GetString(ev.Content(), member); ok {
		return &text
	}
	return nil
}

const (
	defaultPage = 10
	maxPage     = 1000
)

// pageSize reads a limit parameter.
func pageSize(text string) (int, error) {
	if text == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, matrix.InvalidParam("limit is a number.")
	}
	return min(n, maxPage), nil
}

// pageFilter reads a filter parameter: a room event filter as JSON.
func pageFilter(text string) (*sync.EventFilter, error) {
	f := &sync.EventFilter{}
	if text == "" {
		return f, nil
	}
	if err := matrix.Decode([]byte(text), f); err != nil {
		return nil, err
	}
	return f, nil
}

// messagesAnswer is the answer of /messages.
type messagesAnswer struct {
	Start string          `json:"start"`
	End   string          `json:"end,omitempty"`
	Chunk json.RawMessage `json:"chunk"`
	State json.RawMessage `json:"state,omitempty"`
}

// getRoomEvents is GET /rooms/{roomId}/messages.
func (s *Server) getRoomEvents(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	q := rooms.PageRequest{Ref: v.ref, Viewer: v.viewer}
	switch r.QueryParam("dir") {
	case "b":
		q.Backward, q.From = true, rooms.Newest
	case "f":
	default:
		return nil, matrix.InvalidParam(`dir is "b" or "f".`)
	}
	if from := r.QueryParam("from"); from != "" {
		if q.From, err = s.Sync.ParsePlace(from); err != nil {
			return nil, err
		}
	}
	if to := r.QueryParam("to"); to != "" {
		place, err := s.Sync.ParsePlace(to)
		if err != nil {
			return nil, err
		}
		q.To = &place
	}
	if v.until != nil && v.until.Less(q.From) {
		q.From = *v.until
	}
	if q.Limit, err = pageSize(r.QueryParam("limit")); err != nil {
		return nil, err
	}
	filter, err := pageFilter(r.QueryParam("filter"))
	if err != nil {
		return nil, err
	}
	reader, err := s.Rooms.Reader(r.Ctx(), r.Session.User, v.viewer)
	if err != nil {
		return nil, err
	}
	q.Keep = reader.Heeding(filter.Keeps)
	page, err := s.Rooms.History(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	events, err := s.Sync.BundledFor(r.Ctx(), r.viewpoint(), v.ref, reader, page.Events)
	if err != nil {
		return nil, err
	}
	answer := messagesAnswer{Start: sync.FormatPlace(q.From), Chunk: sync.List(events)}
	if !page.Done {
		answer.End = sync.FormatPlace(page.End)
	}
	if filter.LazyLoad {
		if answer.State, err = s.sendersOf(r, v, page.Events); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// sendersOf are the member events of those who sent the events, for lazy loading.
func (s *Server) sendersOf(r *Request, v *reading, events []*store.EventRow) (json.RawMessage, error) {
	rows, err := s.Rooms.MembersAmong(r.Ctx(), v.ref.NID, v.state, events)
	if err == nil {
		rows, err = s.Rooms.StateShown(r.Ctx(), v.ref, v.viewer, rows)
	}
	if err != nil {
		return nil, err
	}
	return sync.List(sync.ClientEvents(rows)), nil
}

// getOneRoomEvent is GET /rooms/{roomId}/event/{eventId}.
func (s *Server) getOneRoomEvent(r *Request) (any, error) {
	ref, viewer, id, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	row, err := s.Rooms.Visible(r.Ctx(), ref, viewer, id)
	if err != nil {
		return nil, err
	}
	events, err := s.Sync.Bundled(r.Ctx(), r.viewpoint(), ref, viewer, []*store.EventRow{row})
	if err != nil {
		return nil, err
	}
	return Raw(events[0]), nil
}

// eventOf reads the room, the caller's view and the event of the path.
func (s *Server) eventOf(r *Request) (rooms.Ref, rooms.Viewer, matrix.EventID, error) {
	ref, err := r.Room()
	if err != nil {
		return ref, rooms.Viewer{}, "", err
	}
	viewer, err := s.Rooms.Viewer(r.Ctx(), ref.NID, r.User())
	if err != nil {
		return ref, viewer, "", err
	}
	id := r.Param("eventId")
	if len(id) > 255 || !strings.HasPrefix(id, "$") {
		return ref, viewer, "", matrix.NotFound("There is no such event in this room.")
	}
	return ref, viewer, matrix.EventID(id), nil
}

// contextAnswer is the answer of /context.
type contextAnswer struct {
	Start  string          `json:"start"`
	End    string          `json:"end"`
	Event  json.RawMessage `json:"event"`
	Before json.RawMessage `json:"events_before"`
	After  json.RawMessage `json:"events_after"`
	State  json.RawMessage `json:"state"`
}

// getEventContext is GET /rooms/{roomId}/context/{eventId}.
func (s *Server) getEventContext(r *Request) (any, error) {
	ref, viewer, id, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(r.QueryParam("limit"))
	if err != nil {
		return nil, err
	}
	filter, err := pageFilter(r.QueryParam("filter"))
	if err != nil {
		return nil, err
	}
	reader, err := s.Rooms.Reader(r.Ctx(), r.Session.User, viewer)
	if err != nil {
		return nil, err
	}
	row, before, after, err := s.Rooms.Around(r.Ctx(), ref, viewer, id, limit, reader.Heeding(filter.Keeps))
	if err != nil {
		return nil, err
	}
	answer := contextAnswer{Start: sync.FormatPlace(before.End), End: sync.FormatPlace(after.End)}
	shown := slices.Concat([]*store.EventRow{row}, before.Events, after.Events)
	events, err := s.Sync.BundledFor(r.Ctx(), r.viewpoint(), ref, reader, shown)
	if err != nil {
		return nil, err
	}
	answer.Event, answer.Before, answer.After = events[0], sync.List(events[1:1+len(before.Events)]), sync.List(events[1+len(before.Events):])
	last := row
	if n := len(after.Events); n > 0 {
		last = after.Events[n-1]
	}
	state := last.StateAfter()
	var rows []*store.EventRow
	if filter.LazyLoad {
		rest, err := s.Rooms.AllState(r.Ctx(), ref.NID, state, false)
		if err != nil {
			return nil, err
		}
		members, err := s.Rooms.MembersAmong(r.Ctx(), ref.NID, state, shown)
		if err != nil {
			return nil, err
		}
		rows = append(rest, members...)
	} else if rows, err = s.Rooms.AllState(r.Ctx(), ref.NID, state, true); err != nil {
		return nil, err
	}
	if rows, err = s.Rooms.StateShown(r.Ctx(), ref, viewer, rows); err != nil {
		return nil, err
	}
	answer.State = sync.List(sync.ClientEvents(rows))
	return answer, nil
}

// viewpoint is the caller for the assembly of events: its own transaction IDs are shown to it.
func (r *Request) viewpoint() sync.Viewpoint {
	return sync.Viewpoint{User: r.User(), Device: r.Session.Device}
}
