package clientapi

import (
	"strconv"
	"strings"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var spaceRoutes = []Route{
	{Method: get, Path: "/_matrix/client/v1/rooms/:roomId/hierarchy", OperationID: "getSpaceHierarchy", Auth: Token, Limit: LimitRead, Handler: (*Server).getSpaceHierarchy},
	{Method: get, Path: "/_matrix/client/v1/room_summary/:roomIdOrAlias", OperationID: "getRoomSummary", Auth: OptionalToken, Limit: LimitRead,
		Handler: (*Server).getRoomSummary},
}

// askSpace asks other servers of rooms, nil without federation.
func (s *Server) askSpace() rooms.AskSpace {
	if s.Federation == nil {
		return nil
	}
	return s.Federation.SpaceView
}

// getSpaceHierarchy is GET /rooms/{roomId}/hierarchy.
func (s *Server) getSpaceHierarchy(r *Request) (any, error) {
	query := r.Request().URL.Query()
	id, err := matrix.ParseRoomID(r.Param("roomId"))
	if err != nil {
		return nil, matrix.InvalidParam("%.255q is not a room ID.", r.Param("roomId")).With(err)
	}
	q := rooms.HierarchyRequest{Room: id, User: r.User(), SuggestedOnly: query.Get("suggested_only") == "true", MaxDepth: -1, From: query.Get("from"), Ask: s.askSpace()}
	if query.Has("limit") {
		if q.Limit, err = strconv.Atoi(query.Get("limit")); err != nil || q.Limit <= 0 {
			return nil, matrix.InvalidParam("limit is a number greater than zero.").With(err)
		}
	}
	if query.Has("max_depth") {
		if q.MaxDepth, err = strconv.Atoi(query.Get("max_depth")); err != nil || q.MaxDepth < 0 {
			return nil, matrix.InvalidParam("max_depth is a number, zero or greater.").With(err)
		}
	}
	return s.Rooms.Hierarchy(r.Ctx(), q)
}

// roomSummary is what getRoomSummary answers.
type roomSummary struct {
	*rooms.Summary
	Membership string `json:"membership,omitempty"`
}

// getRoomSummary is GET /room_summary/{roomIdOrAlias}. Who is not logged in learns of rooms that are here and open to all;
// no other server is asked for them.
func (s *Server) getRoomSummary(r *Request) (any, error) {
	via, err := serverNames(r.Request().URL.Query()["via"])
	if err != nil {
		return nil, err
	}
	ask, user := s.askSpace(), rooms.Sender{}
	if r.Session != nil {
		user = r.User()
	} else {
		ask = nil
	}
	name := r.Param("roomIdOrAlias")
	id := matrix.RoomID(name)
	if strings.HasPrefix(name, "#") {
		alias, err := matrix.ParseAlias(name)
		if err != nil {
			return nil, matrix.InvalidParam("%.255q is not an alias.", name).With(err)
		}
		if r.Session == nil && !s.Rooms.Identity().IsOurs(alias.Server()) {
			return nil, matrix.NotFound("There is no alias %s.", alias)
		}
		var servers []matrix.ServerName
		if id, servers, err = s.resolveAlias(r.Ctx(), alias); err != nil {
			return nil, err
		}
		via = append(via, servers...)
	} else if _, err := matrix.ParseRoomID(name); err != nil {
		return nil, matrix.InvalidParam("%.255q is neither a room ID nor an alias.", name).With(err)
	}
	summary, stands, err := s.Rooms.RoomSummary(r.Ctx(), id, user, via[:min(len(via), 5)], ask)
	if err != nil {
		return nil, err
	}
	out := roomSummary{Summary: summary}
	if r.Session != nil && stands != 0 {
		out.Membership = stands.String()
	}
	return out, nil
}

// getEventByTimestamp is GET /rooms/{roomId}/timestamp_to_event.
func (s *Server) getEventByTimestamp(r *Request) (any, error) {
	query := r.Request().URL.Query()
	ts, err := strconv.ParseInt(query.Get("ts"), 10, 64)
	if err != nil {
		return nil, matrix.InvalidParam("ts is missing or not a number of milliseconds.").With(err)
	}
	if dir := query.Get("dir"); dir != "f" && dir != "b" {
		return nil, matrix.InvalidParam(`dir is "f" or "b".`)
	}
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	var ask rooms.AskMoment
	if s.Federation != nil {
		ask = s.Federation.EventNear
	}
	return s.Rooms.EventNear(r.Ctx(), v.ref, v.viewer, ts, query.Get("dir") == "f", ask)
}
