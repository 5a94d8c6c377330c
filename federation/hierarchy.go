package federation

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var spaceRoutes = []Route{
	{Method: "GET", Path: v1 + "/hierarchy/{roomId}", OperationID: "getSpaceHierarchy", Auth: AuthServer, Handler: (*Server).getSpaceHierarchy},
}

// getSpaceHierarchy tells another server of a space and of those of its children that are here.
func (s *Server) getSpaceHierarchy(r *Request) (any, error) {
	id, err := matrix.ParseRoomID(r.Param("roomId"))
	if err != nil {
		return nil, matrix.InvalidParam("%.255q is not a room ID.", r.Param("roomId")).With(err)
	}
	return s.options.Rooms.SpaceForServer(r.Context(), r.Origin, id, r.URL.Query().Get("suggested_only") == "true")
}

// SpaceView asks another server for its view of a room and its children. Children that make no sense are left out.
func (r Remote) SpaceView(ctx context.Context, server matrix.ServerName, room matrix.RoomID) (*rooms.SpaceView, error) {
	answer, err := r.Client.GetSpaceHierarchy(ctx, server, room, false)
	if err != nil {
		return nil, err
	}
	var parent struct {
		rooms.Summary
		Children []json.RawMessage `json:"children_state"`
	}
	if err := json.Unmarshal(answer.Room, &parent); err != nil {
		return nil, &Error{Server: server, Operation: "getSpaceHierarchy", Status: 200, Cause: err}
	}
	view := &rooms.SpaceView{Room: rooms.SpaceRoom{Summary: parent.Summary}}
	for _, raw := range parent.Children {
		var child rooms.SpaceChild
		if json.Unmarshal(raw, &child) == nil {
			view.Room.Children = append(view.Room.Children, child)
		}
	}
	for _, raw := range answer.Children {
		child := &rooms.Summary{}
		if json.Unmarshal(raw, child) == nil {
			view.Children = append(view.Children, child)
		}
	}
	for _, id := range answer.Inaccessible {
		view.Inaccessible = append(view.Inaccessible, matrix.RoomID(id))
	}
	return view, nil
}
