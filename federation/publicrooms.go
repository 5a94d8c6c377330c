package federation

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var directoryRoutes = []Route{
	{Method: "GET", Path: v1 + "/publicRooms", OperationID: "getPublicRooms", Auth: AuthServer, Handler: (*Server).getPublicRooms},
	{Method: "POST", Path: v1 + "/publicRooms", OperationID: "queryPublicRooms", Auth: AuthServer, MaxBody: 64 << 10, Handler: (*Server).queryPublicRooms},
	{Method: "GET", Path: v1 + "/openid/userinfo", OperationID: "exchangeOpenIdToken", Auth: AuthNone, Handler: (*Server).exchangeOpenIDToken},
	{Method: "GET", Path: v1 + "/query/{queryType}", OperationID: "queryInfo", Auth: AuthServer, Handler: (*Server).queryInfo},
}

// getPublicRooms tells another server which rooms are published here.
func (s *Server) getPublicRooms(r *Request) (any, error) {
	query := r.URL.Query()
	limit, err := pageLimit(query)
	if err != nil {
		return nil, err
	}
	return s.options.Rooms.Published(r.Context(), rooms.DirectoryQuery{
		Limit: limit, Since: query.Get("since"), Network: query.Get("third_party_instance_id"), Federation: true,
		AllNetworks: query.Get("include_all_networks") == "true",
	})
}

// pageLimit reads how many of something are wanted; 0 if the query does not say.
func pageLimit(query url.Values) (int, error) {
	if !query.Has("limit") {
		return 0, nil
	}
	n, err := strconv.Atoi(query.Get("limit"))
	if err != nil || n < 0 {
		return 0, matrix.InvalidParam("limit is not a number.").With(err)
	}
	return n, nil
}

// queryPublicRooms is getPublicRooms with a filter.
func (s *Server) queryPublicRooms(r *Request) (any, error) {
	var body rooms.DirectoryBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	q := body.Query()
	q.Federation = true
	return s.options.Rooms.Published(r.Context(), q)
}

// PublicRooms asks another server for a page of its directory.
func (r Remote) PublicRooms(ctx context.Context, server matrix.ServerName, q rooms.DirectoryQuery) (*rooms.DirectoryPage, error) {
	ask := PublicRoomsQuery{Limit: q.Limit, Since: q.Since, ThirdPartyInstanceID: q.Network, IncludeAllNetworks: q.AllNetworks}
	if f := q.Filter(); f != nil {
		raw, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		ask.Filter = raw
	}
	raw, err := r.Client.PublicRooms(ctx, server, ask)
	if err != nil {
		return nil, forClient(err)
	}
	page, err := rooms.ReadDirectory(raw, q)
	if err != nil {
		return nil, forClient(&Error{Server: server, Operation: "getPublicRooms", Status: 200, Cause: err})
	}
	return page, nil
}

// exchangeOpenIDToken tells whose OpenID token it is. Whoever holds the token may ask.
func (s *Server) exchangeOpenIDToken(r *Request) (any, error) {
	token := r.URL.Query().Get("access_token")
	if token == "" {
		return nil, matrix.MissingToken()
	}
	user, err := s.options.Accounts.OpenIDUser(r.Context(), token)
	return map[string]any{"sub": user}, err
}

// queryInfo answers questions of kinds that the specification does not name: there are none here.
func (s *Server) queryInfo(r *Request) (any, error) {
	return nil, matrix.Unrecognized("This server does not answer questions about %.64q.", r.Param("queryType"))
}
