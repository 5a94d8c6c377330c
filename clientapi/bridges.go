package clientapi

import (
	"net/url"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var serviceRoutes = []Route{
	{
		Method: post, Path: "/_matrix/client/v1/appservice/:appserviceId/ping", OperationID: "pingAppservice", Auth: Token, Limit: LimitChange,
		Handler: (*Server).pingAppservice,
	},
	op(put, "/directory/list/appservice/:networkId/:roomId", "updateAppserviceRoomDirectoryVisibility", Token, LimitChange,
		(*Server).updateAppserviceRoomDirectoryVisibility),
	op(get, "/thirdparty/protocols", "getProtocols", Token, LimitSearch, (*Server).getProtocols),
	op(get, "/thirdparty/protocol/:protocol", "getProtocolMetadata", Token, LimitSearch, (*Server).getProtocolMetadata),
	op(get, "/thirdparty/location/:protocol", "queryLocationByProtocol", Token, LimitSearch, (*Server).queryLocationByProtocol),
	op(get, "/thirdparty/user/:protocol", "queryUserByProtocol", Token, LimitSearch, (*Server).queryUserByProtocol),
	op(get, "/thirdparty/location", "queryLocationByAlias", Token, LimitSearch, (*Server).queryLocationByAlias),
	op(get, "/thirdparty/user", "queryUserByID", Token, LimitSearch, (*Server).queryUserByID),
}

// pingAppservice is POST /appservice/{appserviceId}/ping.
func (s *Server) pingAppservice(r *Request) (any, error) {
	var body struct {
		TxnID string `json:"transaction_id"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if r.Service == nil || r.Service.ID != r.Param("appserviceId") {
		return nil, matrix.Forbidden("Only the application service itself can have itself pinged, with its as_token.")
	}
	took, err := s.Bridges.Ping(r.Ctx(), r.Service, body.TxnID)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"duration_ms": took.Milliseconds()}, nil
}

// updateAppserviceRoomDirectoryVisibility is PUT /directory/list/appservice/{networkId}/{roomId}.
func (s *Server) updateAppserviceRoomDirectoryVisibility(r *Request) (any, error) {
	var body struct {
		Visibility string `json:"visibility"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if r.Service == nil {
		return nil, matrix.Forbidden("Only application services have directories of networks.")
	}
	network := r.Param("networkId")
	if err := checkName(network, "network's ID"); err != nil {
		return nil, err
	}
	if body.Visibility != "public" && body.Visibility != "private" {
		return nil, matrix.InvalidParam(`visibility is "public" or "private".`)
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	return nil, s.Rooms.SetListed(r.Ctx(), ref, rooms.Network{Service: r.Service.ID, ID: network}, body.Visibility == "public")
}

// getProtocols is GET /thirdparty/protocols.
func (s *Server) getProtocols(r *Request) (any, error) {
	return s.Bridges.Protocols(r.Ctx()), nil
}

// getProtocolMetadata is GET /thirdparty/protocol/{protocol}.
func (s *Server) getProtocolMetadata(r *Request) (any, error) {
	found := s.Bridges.Protocol(r.Ctx(), r.Param("protocol"))
	if found == nil {
		return nil, matrix.NotFound("There is no protocol %.64q here.", r.Param("protocol"))
	}
	return Raw(found), nil
}

// queryLocationByProtocol is GET /thirdparty/location/{protocol}.
func (s *Server) queryLocationByProtocol(r *Request) (any, error) {
	return s.Bridges.Lookup(r.Ctx(), "location", r.Param("protocol"), fieldsOf(r))
}

// queryUserByProtocol is GET /thirdparty/user/{protocol}.
func (s *Server) queryUserByProtocol(r *Request) (any, error) {
	return s.Bridges.Lookup(r.Ctx(), "user", r.Param("protocol"), fieldsOf(r))
}

// fieldsOf are the fields that a service is to look by: all of the query but what is for this server.
func fieldsOf(r *Request) url.Values {
	fields := url.Values{}
	for name, values := range r.QueryParams() {
		switch name {
		case "access_token", "user_id", "device_id", "org.matrix.msc3202.device_id":
		default:
			fields[name] = values
		}
	}
	return fields
}

// queryLocationByAlias is GET /thirdparty/location.
func (s *Server) queryLocationByAlias(r *Request) (any, error) {
	alias, err := matrix.ParseAlias(r.QueryParam("alias"))
	if err != nil {
		return nil, matrix.InvalidParam("%.255q is not an alias.", r.QueryParam("alias")).With(err)
	}
	return s.Bridges.Reverse(r.Ctx(), "location", "alias", string(alias))
}

// queryUserByID is GET /thirdparty/user.
func (s *Server) queryUserByID(r *Request) (any, error) {
	user, err := matrix.ParseUserID(r.QueryParam("userid"))
	if err != nil {
		return nil, matrix.InvalidParam("%.255q is not a user ID.", r.QueryParam("userid")).With(err)
	}
	return s.Bridges.Reverse(r.Ctx(), "user", "userid", string(user))
}
