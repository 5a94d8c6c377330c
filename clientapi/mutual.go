package clientapi

import (
	"conclave/internal/matrix"
)

var mutualRoutes = []Route{
	{Method: get, Path: "/_matrix/client/v1/mutual_rooms", OperationID: "getMutualRooms", Auth: Token, Limit: LimitRead, Handler: (*Server).getMutualRooms},
}

// mutualRooms is what getMutualRooms answers.
type mutualRooms struct {
	Joined    []matrix.RoomID `json:"joined"`
	Count     int             `json:"count"`
	NextBatch string          `json:"next_batch,omitempty"`
}

// getMutualRooms is GET /mutual_rooms.
func (s *Server) getMutualRooms(r *Request) (any, error) {
	query := r.Request().URL.Query()
	other, err := matrix.ParseUserID(query.Get("user_id"))
	if err != nil || !other.Compliant() {
		return nil, matrix.InvalidParam("user_id is %.64q, which is not a user ID.", query.Get("user_id")).With(err)
	}
	if query.Has("from") && query.Get("from") == "" {
		return nil, matrix.InvalidParam("from is empty.")
	}
	page, err := s.Rooms.Mutual(r.Ctx(), r.User(), other, query.Get("from"))
	if err != nil {
		return nil, err
	}
	return mutualRooms{page.Rooms, page.Count, page.Next}, nil
}
