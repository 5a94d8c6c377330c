package clientapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// What came before /sync, and what room previews still stand on (client-server API, "Room previews").
var legacyRoutes = []Route{
	op(get, "/events", "getEvents", Token, LimitRead, (*Server).getEvents),
	op(get, "/events/:eventId", "getOneEvent", Token, LimitRead, (*Server).getOneEvent),
	op(get, "/initialSync", "initialSync", Token, LimitChange, (*Server).initialSync),
	op(get, "/rooms/:roomId/initialSync", "roomInitialSync", Token, LimitRead, (*Server).roomInitialSync),
}

// Bounds of an initial sync of this kind. Who is in more rooms has /sync.
const (
	maxInitialRooms    = 100
	maxInitialMessages = 50
)

// getEvents is GET /events: of all rooms that the caller is in, or with room_id of one that the caller may read (peekEvents).
func (s *Server) getEvents(r *Request) (any, error) {
	q := sync.ListenRequest{Viewpoint: sync.Viewpoint{User: r.User(), Device: r.Session.Device, DeviceID: r.Session.DeviceID}}
	var err error
	if q.Timeout, err = milliseconds(r.QueryParam("timeout")); err != nil {
		return nil, err
	}
	if from := r.QueryParam("from"); from != "" {
		token, err := s.Sync.ParseToken(from)
		if err != nil {
			return nil, err
		}
		q.Since = &token
	}
	if id := r.QueryParam("room_id"); id != "" {
		room, err := matrix.ParseRoomID(id)
		if err != nil {
			return nil, matrix.InvalidParam("%.64q is not a room ID.", id).With(err)
		}
		ref, err := s.Rooms.Lookup(r.Ctx(), room)
		if err != nil {
			return nil, err
		}
		if _, err := s.mayReadRoom(r, ref); err != nil {
			return nil, err
		}
		q.Room = &ref
	}
	ctx, leave, err := s.hub.wait(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := s.Sync.Listen(ctx, q)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return answer, nil
	case errors.Is(cause, errDraining) && q.Since != nil:
		from := r.QueryParam("from") // nothing happened: the client comes back, to this node's successor
		return sync.Heard{Start: from, End: from, Chunk: []json.RawMessage{}}, nil
	case errors.Is(cause, errSessionEnded):
		return nil, matrix.UnknownToken(false)
	}
	return nil, err
}

// getOneEvent is GET /events/{eventId}.
func (s *Server) getOneEvent(r *Request) (any, error) {
	none := matrix.NotFound("There is no such event.")
	id := r.Param("eventId")
	if len(id) > 255 || !strings.HasPrefix(id, "$") {
		return nil, none
	}
	var nid store.RoomNID
	err := s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		nid, err = tx.RoomOfEvent(matrix.EventID(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	if nid == 0 {
		return nil, none
	}
	ref, err := s.Rooms.LookupNID(r.Ctx(), nid)
	if err != nil {
		return nil, err
	}
	viewer, err := s.Rooms.Viewer(r.Ctx(), nid, r.User())
	if err != nil {
		return nil, err
	}
	row, err := s.Rooms.Visible(r.Ctx(), ref, viewer, matrix.EventID(id))
	if err != nil {
		var hidden *matrix.Error
		if errors.As(err, &hidden) {
			err = none.With(err)
		}
		return nil, err
	}
	events, err := s.Sync.Bundled(r.Ctx(), r.viewpoint(), ref, viewer, []*store.EventRow{row})
	if err != nil {
		return nil, err
	}
	return Raw(events[0]), nil
}

// roomInfo is a room as these endpoints describe it.
type roomInfo struct {
	Room        matrix.RoomID   `json:"room_id"`
	Membership  string          `json:"membership,omitempty"`
	Invite      json.RawMessage `json:"invite,omitempty"`
	Messages    *roomMessages   `json:"messages,omitempty"`
	State       json.RawMessage `json:"state,omitempty"`
	Visibility  string          `json:"visibility,omitempty"`
	AccountData json.RawMessage `json:"account_data,omitempty"`
}

type roomMessages struct {
	Start string          `json:"start,omitempty"`
	End   string          `json:"end"`
	Chunk json.RawMessage `json:"chunk"`
}

// roomInitialSync is GET /rooms/{roomId}/initialSync, also for whoever may read the room without being in it.
func (s *Server) roomInitialSync(r *Request) (any, error) {
	now, err := s.Sync.Now(r.Ctx())
	if err != nil {
		return nil, err
	}
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	limit, err := initialLimit(r)
	if err != nil {
		return nil, err
	}
	return s.roomInfo(r, v, now, limit)
}

// initialLimit reads how many messages of a room are wanted.
func initialLimit(r *Request) (int, error) {
	limit, err := number(r.QueryParam("limit"), 20, maxInitialMessages)
	if err != nil {
		return 0, matrix.InvalidParam("limit is a number.")
	}
	return limit, nil
}

// roomInfo describes a room up to a token.
func (s *Server) roomInfo(r *Request, v *reading, now sync.Token, limit int) (*roomInfo, error) {
	out := &roomInfo{Room: v.ref.ID, Visibility: "private"}
	if m := v.viewer.Member; m != nil {
		out.Membership = m.Membership.String()
	}
	from := rooms.Place{Pos: now.Pos}
	if v.until != nil {
		from = *v.until
	}
	reader, err := s.Rooms.Reader(r.Ctx(), r.Session.User, v.viewer)
	if err != nil {
		return nil, err
	}
	page, err := s.Rooms.Page(r.Ctx(), rooms.PageRequest{Ref: v.ref, Viewer: v.viewer, From: from, Backward: true, Limit: limit, Keep: reader.Heeding(nil)})
	if err != nil {
		return nil, err
	}
	slices.Reverse(page.Events)
	events, err := s.Sync.Timeline(r.Ctx(), r.viewpoint(), v.ref, page.Events)
	if err != nil {
		return nil, err
	}
	out.Messages = &roomMessages{End: now.String(), Chunk: sync.List(events)}
	if !page.Done {
		out.Messages.Start = sync.FormatPlace(page.End)
	}
	state, err := s.Rooms.AllState(r.Ctx(), v.ref.NID, v.state, true)
	if err == nil {
		state, err = s.Rooms.StateShown(r.Ctx(), v.ref, v.viewer, state)
	}
	if err != nil {
		return nil, err
	}
	out.State = sync.List(sync.ClientEvents(state))
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) error {
		err := tx.RoomsByNID([]store.RoomNID{v.ref.NID}, func(i store.RoomInfo) {
			if i.Public {
				out.Visibility = "public"
			}
		})
		if err != nil {
			return err
		}
		out.AccountData, err = ownData(tx, r.Session.User, v.ref.NID)
		return err
	})
	return out, err
}

// ownData is a user's data of a room (0: global) as a list of events.
func ownData(tx *store.Tx, user store.UserNID, room store.RoomNID) (json.RawMessage, error) {
	list := []json.RawMessage{}
	err := tx.AccountDataSince(user, room, 0, rooms.Newest.Pos, func(typ, content string) {
		event := matrix.AppendString([]byte(`{"content":`+content+`,"type":`), typ)
		list = append(list, append(event, '}'))
	})
	return sync.List(list), err
}

// initialAnswer is the answer of /initialSync.
type initialAnswer struct {
	End         string            `json:"end"`
	Presence    []json.RawMessage `json:"presence"`
	Rooms       []*roomInfo       `json:"rooms"`
	AccountData json.RawMessage   `json:"account_data"`
}

// initialSync is GET /initialSync.
func (s *Server) initialSync(r *Request) (any, error) {
	archived, err := flag(r.QueryParam("archived"))
	if err != nil {
		return nil, err
	}
	limit, err := initialLimit(r)
	if err != nil {
		return nil, err
	}
	now, err := s.Sync.Now(r.Ctx())
	if err != nil {
		return nil, err
	}
	out := initialAnswer{End: now.String(), Presence: []json.RawMessage{}, Rooms: []*roomInfo{}}
	var members []store.MemberRow
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		members = nil
		if out.AccountData, err = ownData(tx, r.Session.User, 0); err != nil {
			return err
		}
		return tx.MembershipsOf(r.Session.User, func(m store.MemberRow) {
			gone := m.Membership != store.Join && m.Membership != store.Invite
			if !m.Forgotten && (!gone || archived && m.Joined != 0) {
				members = append(members, m)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if len(members) > maxInitialRooms {
		return nil, matrix.Errorf(http.StatusBadRequest, "M_TOO_LARGE", "You are in more than %d rooms: use /sync.", maxInitialRooms)
	}
	for _, m := range members {
		info, err := s.initialRoom(r, m, now, limit)
		if err != nil {
			return nil, err
		}
		if info != nil {
			out.Rooms = append(out.Rooms, info)
		}
	}
	return out, nil
}

// initialRoom describes one of the caller's rooms; nil for an invitation that is kept from the caller.
func (s *Server) initialRoom(r *Request, m store.MemberRow, now sync.Token, limit int) (*roomInfo, error) {
	ref, err := s.Rooms.LookupNID(r.Ctx(), m.Room)
	if err != nil {
		return nil, err
	}
	if m.Membership != store.Invite {
		v, err := s.mayReadRoom(r, ref)
		if err != nil {
			return nil, err
		}
		return s.roomInfo(r, v, now, limit)
	}
	if blocks, err := s.Rooms.BlocksInvites(r.Ctx(), r.Session.User); err != nil || blocks {
		return nil, err
	}
	row, err := s.Rooms.MemberEvent(r.Ctx(), m)
	if err != nil {
		return nil, err
	}
	ignored, err := s.Rooms.Ignored(r.Ctx(), r.Session.User)
	if err != nil || ignored[row.Event.Sender()] {
		return nil, err
	}
	shown, err := s.Rooms.StrippedState(r.Ctx(), ref, m)
	if err != nil {
		return nil, err
	}
	// Whoever is only invited has no state of the room: what the invitation shows of it stands in the event.
	unsigned := append(append([]byte(`{"invite_room_state":`), sync.List(shown)...), '}')
	return &roomInfo{Room: ref.ID, Membership: "invite", Invite: matrix.ClientEvent(row.Event, unsigned, true)}, nil
}
