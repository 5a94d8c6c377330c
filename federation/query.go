package federation

import (
	"encoding/json"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

var queryRoutes = []Route{
	{Method: "GET", Path: v1 + "/query/profile", OperationID: "queryProfile", Auth: AuthServer, Handler: (*Server).queryProfile},
	{Method: "GET", Path: v1 + "/query/directory", OperationID: "queryRoomDirectory", Auth: AuthServer, Handler: (*Server).queryRoomDirectory},
}

// queryProfile tells the profile of a user of ours.
func (s *Server) queryProfile(r *Request) (any, error) {
	query := r.URL.Query()
	user, err := matrix.ParseUserID(query.Get("user_id"))
	if err != nil {
		return nil, matrix.InvalidParam("user_id is missing or not a user ID.").With(err)
	}
	if !s.own.IsOurs(user.Server()) {
		return nil, matrix.NotFound("%s is not a user of this server.", user)
	}
	account, err := s.options.Accounts.Find(r.Context(), user)
	if err != nil {
		return nil, err
	}
	profile, err := s.options.Accounts.Profile(r.Context(), account.User)
	if err != nil {
		return nil, err
	}
	if !query.Has("field") {
		return profile, nil
	}
	field := query.Get("field")
	answer := accounts.Profile{}
	if value, ok := profile[field]; ok {
		answer[field] = value
	}
	return answer, nil
}

// queryRoomDirectory tells the room behind an alias of ours and the servers in it.
func (s *Server) queryRoomDirectory(r *Request) (any, error) {
	alias, err := matrix.ParseAlias(r.URL.Query().Get("room_alias"))
	if err != nil {
		return nil, matrix.InvalidParam("room_alias is missing or not an alias.").With(err)
	}
	if !s.own.IsOurs(alias.Server()) {
		return nil, matrix.NotFound("%s is not an alias of this server.", alias)
	}
	room, err := s.options.Rooms.ResolveAlias(r.Context(), alias)
	if err != nil {
		return nil, err
	}
	ref, err := s.options.Rooms.Lookup(r.Context(), room)
	if err != nil {
		return nil, err
	}
	servers, err := s.options.Rooms.Servers(r.Context(), ref.NID)
	if err != nil {
		return nil, err
	}
	return map[string]any{"room_id": room, "servers": nonNil(servers)}, nil
}

// profileOf is a profile as another server answers it.
func profileOf(raw json.RawMessage) (map[string]any, error) {
	var profile map[string]any
	if err := json.Unmarshal(raw, &profile); err != nil {
		return nil, err
	}
	return profile, nil
}
