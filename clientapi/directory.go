package clientapi

import (
	"cmp"
	"context"

	"conclave/internal/matrix"
)

var directoryRoutes = []Route{
	op(get, "/directory/room/:roomAlias", "getRoomIdByAlias", OptionalToken, LimitRead, (*Server).getRoomIDByAlias),
	op(put, "/directory/room/:roomAlias", "setRoomAlias", Token, LimitChange, (*Server).setRoomAlias),
	op(del, "/directory/room/:roomAlias", "deleteRoomAlias", Token, LimitChange, (*Server).deleteRoomAlias),
	op(get, "/rooms/:roomId/aliases", "getLocalAliases", Token, LimitRead, (*Server).getLocalAliases),
	op(get, "/directory/list/room/:roomId", "getRoomVisibilityOnDirectory", NoAuth, LimitRead, (*Server).getRoomVisibilityOnDirectory),
	op(put, "/directory/list/room/:roomId", "setRoomVisibilityOnDirectory", Token, LimitChange, (*Server).setRoomVisibilityOnDirectory),
	op(get, "/profile/:userId", "getUserProfile", Token, LimitRead, (*Server).getUserProfile),
	op(get, "/profile/:userId/:keyName", "getProfileField", Token, LimitRead, (*Server).getProfileField),
	op(put, "/profile/:userId/:keyName", "setProfileField", Token, LimitChange, (*Server).setProfileField),
	op(del, "/profile/:userId/:keyName", "deleteProfileField", Token, LimitChange, (*Server).deleteProfileField),
}

// aliasOf reads the alias of the path.
func (r *Request) aliasOf() (matrix.RoomAlias, error) {
	alias, err := matrix.ParseAlias(r.Param("roomAlias"))
	if err != nil {
		return "", matrix.InvalidParam("%.64q is not an alias.", r.Param("roomAlias")).With(err)
	}
	return alias, nil
}

// resolveAlias finds an alias's room and servers to join it through, asking the alias's server if it is another.
func (s *Server) resolveAlias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if !s.Rooms.Identity().IsOurs(alias.Server()) {
		if s.Federation == nil {
			return "", nil, matrix.NotFound("There is no alias %s.", alias)
		}
		return s.Federation.QueryDirectory(ctx, alias)
	}
	id, err := s.Rooms.ResolveAlias(ctx, alias)
	if err != nil {
		return "", nil, err
	}
	ref, err := s.Rooms.Lookup(ctx, id)
	if err != nil {
		return "", nil, err
	}
	servers, err := s.Rooms.Servers(ctx, ref.NID)
	return id, servers, err
}

// getRoomIDByAlias is GET /directory/room/{roomAlias}. Who is not logged in learns of this server's aliases: no other
// server is asked for strangers.
func (s *Server) getRoomIDByAlias(r *Request) (any, error) {
	alias, err := r.aliasOf()
	if err != nil {
		return nil, err
	}
	if r.Session == nil && !s.Rooms.Identity().IsOurs(alias.Server()) {
		return nil, matrix.NotFound("There is no alias %s here.", alias)
	}
	id, servers, err := s.resolveAlias(r.Ctx(), alias)
	if servers == nil {
		servers = []matrix.ServerName{}
	}
	return map[string]any{"room_id": id, "servers": servers}, err
}

// setRoomAlias is PUT /directory/room/{roomAlias}.
func (s *Server) setRoomAlias(r *Request) (any, error) {
	var body struct {
		Room string `json:"room_id"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	alias, err := r.aliasOf()
	if err != nil {
		return nil, err
	}
	if !s.Rooms.Identity().IsOurs(alias.Server()) {
		return nil, matrix.InvalidParam("Aliases of this server end with :%s.", s.Config.ServerName)
	}
	if err := s.reservedAlias(r, alias); err != nil {
		return nil, err
	}
	id, err := matrix.ParseRoomID(body.Room)
	if err != nil {
		return nil, matrix.InvalidParam("%.64q is not a room ID.", body.Room).With(err)
	}
	ref, err := s.Rooms.Lookup(r.Ctx(), id)
	if err != nil {
		return nil, err
	}
	return nil, s.Rooms.AddAlias(r.Ctx(), alias, ref, r.User())
}

// deleteRoomAlias is DELETE /directory/room/{roomAlias}.
func (s *Server) deleteRoomAlias(r *Request) (any, error) {
	alias, err := r.aliasOf()
	if err != nil {
		return nil, err
	}
	if err := s.reservedAlias(r, alias); err != nil {
		return nil, err
	}
	return nil, s.Rooms.RemoveAlias(r.Ctx(), alias, r.User(), r.Session.Admin || r.Service != nil)
}

// getLocalAliases is GET /rooms/{roomId}/aliases.
func (s *Server) getLocalAliases(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	if v.until != nil { // aliases are of the present: whoever has left is a stranger
		state, err := s.Rooms.CurrentState(r.Ctx(), v.ref.NID)
		if err != nil {
			return nil, err
		}
		if open, err := s.Rooms.WorldReadable(r.Ctx(), v.ref.NID, state); err != nil || !open {
			return nil, cmp.Or(err, error(matrix.Forbidden("You are not in this room.")))
		}
	}
	aliases, err := s.Rooms.Aliases(r.Ctx(), v.ref.NID)
	if aliases == nil {
		aliases = []matrix.RoomAlias{}
	}
	return map[string]any{"aliases": aliases}, err
}

// getRoomVisibilityOnDirectory is GET /directory/list/room/{roomId}.
func (s *Server) getRoomVisibilityOnDirectory(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	public, err := s.Rooms.IsPublic(r.Ctx(), ref.NID)
	visibility := "private"
	if public {
		visibility = "public"
	}
	return map[string]string{"visibility": visibility}, err
}

// setRoomVisibilityOnDirectory is PUT /directory/list/room/{roomId}.
func (s *Server) setRoomVisibilityOnDirectory(r *Request) (any, error) {
	var body struct {
		Visibility string `json:"visibility"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	switch body.Visibility {
	case "", "public", "private":
		return nil, s.Rooms.SetPublic(r.Ctx(), ref, r.User(), body.Visibility != "private")
	}
	return nil, matrix.InvalidParam(`visibility is "public" or "private".`)
}
