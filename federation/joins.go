package federation

import (
	"encoding/json"
	"net/http"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// maxEventBody is the limit of a body that holds one event, which may be written less tightly than it counts.
const maxEventBody = 128 << 10

var roomRoutes = []Route{
	// Transactions
	{Method: "PUT", Path: v1 + "/send/{txnId}", OperationID: "sendTransaction", Auth: AuthServer, MaxBody: maxTransaction, PerOrigin: 4, Handler: (*Server).sendTransaction},
	// Joining, leaving, inviting
	{Method: "GET", Path: v1 + "/make_join/{roomId}/{userId}", OperationID: "makeJoin", Auth: AuthServer, Handler: propose("join")},
	{Method: "PUT", Path: v2 + "/send_join/{roomId}/{eventId}", OperationID: "sendJoinV2", Auth: AuthServer, MaxBody: maxEventBody, PerOrigin: 4, Handler: (*Server).sendJoinV2},
	{Method: "GET", Path: v1 + "/make_knock/{roomId}/{userId}", OperationID: "makeKnock", Auth: AuthServer, Handler: propose("knock")},
	{Method: "PUT", Path: v1 + "/send_knock/{roomId}/{eventId}", OperationID: "sendKnock", Auth: AuthServer, MaxBody: maxEventBody, Handler: (*Server).sendKnock},
	{Method: "GET", Path: v1 + "/make_leave/{roomId}/{userId}", OperationID: "makeLeave", Auth: AuthServer, Handler: propose("leave")},
	{Method: "PUT", Path: v2 + "/send_leave/{roomId}/{eventId}", OperationID: "sendLeaveV2", Auth: AuthServer, MaxBody: maxEventBody, Handler: (*Server).sendLeaveV2},
	{Method: "PUT", Path: v2 + "/invite/{roomId}/{eventId}", OperationID: "sendInviteV2", Auth: AuthServer, MaxBody: 2 * maxEventBody, Handler: (*Server).sendInviteV2},
	{Method: "PUT", Path: v1 + "/invite/{roomId}/{eventId}", OperationID: "sendInviteV1", Auth: AuthServer, MaxBody: 2 * maxEventBody, Handler: (*Server).sendInviteV1},
	// Reading
	{Method: "GET", Path: v1 + "/event/{eventId}", OperationID: "getEvent", Auth: AuthServer, Handler: (*Server).getEvent},
	{Method: "GET", Path: v1 + "/state/{roomId}", OperationID: "getRoomState", Auth: AuthServer, PerOrigin: 2, Handler: (*Server).getRoomState},
	{Method: "GET", Path: v1 + "/state_ids/{roomId}", OperationID: "getRoomStateIds", Auth: AuthServer, PerOrigin: 4, Handler: (*Server).getRoomStateIDs},
	{Method: "GET", Path: v1 + "/event_auth/{roomId}/{eventId}", OperationID: "getEventAuth", Auth: AuthServer, PerOrigin: 4, Handler: (*Server).getEventAuth},
	{Method: "GET", Path: v1 + "/timestamp_to_event/{roomId}", OperationID: "getEventByTimestamp", Auth: AuthServer, Handler: (*Server).getEventByTimestamp},
	{Method: "GET", Path: v1 + "/backfill/{roomId}", OperationID: "backfillRoom", Auth: AuthServer, PerOrigin: 4, Handler: (*Server).backfillRoom},
	{Method: "POST", Path: v1 + "/get_missing_events/{roomId}", OperationID: "getMissingPreviousEvents", Auth: AuthServer, MaxBody: 64 << 10, PerOrigin: 4, Handler: (*Server).getMissingEvents},
}

// room is the room ID of the path.
func (r *Request) room() (matrix.RoomID, error) {
	id, err := matrix.ParseRoomID(r.Param("roomId"))
	if err != nil {
		return "", matrix.InvalidParam("The path does not name a room.").With(err)
	}
	return id, nil
}

// event is the event ID of the path.
func (r *Request) event() (matrix.EventID, error) { return parseEventID(r.Param("eventId")) }

func parseEventID(s string) (matrix.EventID, error) {
	id, err := matrix.ParseEventID(s)
	if err != nil {
		return "", matrix.InvalidParam("An event ID is missing or malformed.").With(err)
	}
	return id, nil
}

// propose answers makeJoin, makeLeave and makeKnock.
func propose(membership string) func(*Server, *Request) (any, error) {
	return func(s *Server, r *Request) (any, error) {
		room, err := r.room()
		if err != nil {
			return nil, err
		}
		user, err := matrix.ParseUserID(r.Param("userId"))
		if err != nil {
			return nil, matrix.InvalidParam("The path does not name a user.").With(err)
		}
		var versions []string
		if membership != "leave" {
			if versions = r.URL.Query()["ver"]; len(versions) == 0 {
				versions = []string{matrix.FirstRoomVersion.String()} // the default of the specification
			}
		}
		p, err := s.options.Rooms.Propose(r.Context(), r.Origin, room, user, membership, versions)
		if err != nil {
			return nil, err
		}
		var event map[string]json.RawMessage
		if err := json.Unmarshal(p.Event.JSON(), &event); err != nil {
			return nil, err
		}
		if event["origin"], err = json.Marshal(s.own.Name()); err != nil {
			return nil, err
		}
		return map[string]any{"room_version": p.Version.String(), "event": event}, nil
	}
}

// accept takes in the event of sendJoin, sendLeave and sendKnock.
func (s *Server) accept(r *Request, membership string) (*rooms.Accepted, error) {
	room, err := r.room()
	if err != nil {
		return nil, err
	}
	id, err := r.event()
	if err != nil {
		return nil, err
	}
	return s.options.Rooms.Accept(r.Context(), r.Origin, room, id, membership, r.Body)
}

func (s *Server) sendLeaveV2(r *Request) (any, error) {
	_, err := s.accept(r, "leave")
	return struct{}{}, err
}

func (s *Server) sendKnock(r *Request) (any, error) {
	a, err := s.accept(r, "knock")
	if err != nil {
		return nil, err
	}
	state, err := s.options.Rooms.KnockState(r.Context(), a)
	if err != nil {
		return nil, err
	}
	return map[string]any{"knock_room_state": state}, nil
}

func (s *Server) sendJoinV2(r *Request) (any, error) {
	a, err := s.accept(r, "join")
	if err != nil {
		return nil, err
	}
	omit := r.URL.Query().Get("omit_members") == "true"
	servers, err := s.options.Rooms.ServersBefore(r.Context(), a)
	if err != nil {
		return nil, err
	}
	out := newEventStream(r.Writer)
	out.field("event", json.RawMessage(a.Event.JSON()))
	out.field("members_omitted", omit)
	out.field("servers_in_room", servers)
	err = s.options.Rooms.Welcome(r.Context(), a, omit, out.into("state"), out.into("auth_chain"))
	return Done, out.end(err, "state", "auth_chain")
}

func (s *Server) sendInviteV2(r *Request) (any, error) {
	var body struct {
		Version string            `json:"room_version"`
		Event   json.RawMessage   `json:"event"`
		State   []json.RawMessage `json:"invite_room_state"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	version, ok := matrix.ParseRoomVersion(body.Version)
	if !ok {
		return nil, matrix.Errorf(http.StatusBadRequest, "M_INCOMPATIBLE_ROOM_VERSION", "This server does not support room version %.32q.", body.Version).
			WithField("room_version", body.Version)
	}
	signed, err := s.invited(r, version, body.Event, body.State)
	if err != nil {
		return nil, err
	}
	return map[string]any{"event": json.RawMessage(signed.JSON())}, nil
}

// sendInviteV1 is for rooms of versions 1 and 2, which look the same from here.
func (s *Server) sendInviteV1(r *Request) (any, error) {
	var body struct {
		Unsigned struct {
			State []json.RawMessage `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	signed, err := s.invited(r, matrix.FirstRoomVersion, r.Body, body.Unsigned.State)
	if err != nil {
		return nil, err
	}
	return []any{http.StatusOK, map[string]any{"event": json.RawMessage(signed.JSON())}}, nil
}

func (s *Server) invited(r *Request, version matrix.RoomVersion, event json.RawMessage, state []json.RawMessage) (*matrix.Event, error) {
	room, err := r.room()
	if err != nil {
		return nil, err
	}
	id, err := r.event()
	if err != nil {
		return nil, err
	}
	if event == nil {
		return nil, matrix.MissingParam("The event is missing.")
	}
	return s.options.Rooms.Invited(r.Context(), rooms.Invitation{
		Origin: r.Origin, Room: room, ID: id, Version: version, Event: event, State: state,
	})
}
