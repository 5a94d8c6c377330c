package clientapi

import (
	"strconv"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var publicRoomRoutes = []Route{
	op(get, "/publicRooms", "getPublicRooms", Token, LimitRead, (*Server).getPublicRooms),
	op(post, "/publicRooms", "queryPublicRooms", Token, LimitRead, (*Server).queryPublicRooms),
	op(post, "/user/:userId/openid/request_token", "requestOpenIdToken", Token, LimitChange, (*Server).requestOpenIDToken),
}

// getPublicRooms is GET /publicRooms. The specification lets everybody read it; here it is for people who are logged in:
// what an organization's rooms are called is nobody else's business (threats A20).
func (s *Server) getPublicRooms(r *Request) (any, error) {
	query := r.Request().URL.Query()
	q := rooms.DirectoryQuery{Since: query.Get("since")}
	if query.Has("limit") {
		n, err := strconv.Atoi(query.Get("limit"))
		if err != nil || n < 0 {
			return nil, matrix.InvalidParam("limit is not a number.").With(err)
		}
		q.Limit = n
	}
	return s.publicRooms(r, query.Get("server"), q)
}

// queryPublicRooms is POST /publicRooms.
func (s *Server) queryPublicRooms(r *Request) (any, error) {
	var body rooms.DirectoryBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	q := body.Query()
	if q.AllNetworks && q.Network != "" {
		return nil, matrix.InvalidParam("third_party_instance_id names one network, include_all_networks has all: ask for one of both.")
	}
	return s.publicRooms(r, r.Request().URL.Query().Get("server"), q)
}

// publicRooms answers with a page of our directory or of another server's.
func (s *Server) publicRooms(r *Request, server string, q rooms.DirectoryQuery) (any, error) {
	name := matrix.ServerName(server)
	if server == "" || s.Rooms.Identity().IsOurs(name) {
		return s.Rooms.Published(r.Ctx(), q)
	}
	if _, err := matrix.ParseServerName(server); err != nil {
		return nil, matrix.InvalidParam("%.255q is not a server name.", server).With(err)
	}
	if s.Federation == nil {
		return nil, matrix.Forbidden("This server does not talk to other servers.")
	}
	return s.Federation.PublicRooms(r.Ctx(), name, q)
}

// requestOpenIDToken is POST /user/{userId}/openid/request_token.
func (s *Server) requestOpenIDToken(r *Request) (any, error) {
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	return s.Accounts.NewOpenIDToken(r.Ctx(), r.Session.User)
}
