package clientapi

import "conclave/internal/matrix"

// What administrators may do with all that a room shows. That it can be given back together is ours; the rest is of
// Synapse's administration API. What is sent after the call is not in it.
var adminRoomMediaRoutes = []Route{
	{Method: get, Path: "/_synapse/admin/v1/room/:roomId/media", OperationID: "im.conclave.admin.roomMedia", Auth: Admin, Limit: LimitSearch,
		Handler: (*Server).roomMedia},
	{Method: post, Path: "/_synapse/admin/v1/room/:roomId/media/quarantine", OperationID: "im.conclave.admin.quarantineRoomMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).quarantineRoomMedia},
	{Method: get, Path: "/_synapse/admin/v1/room/:roomId/media/quarantine", OperationID: "im.conclave.admin.quarantinedRoomMedia",
		Auth: Admin, Limit: LimitRead, Handler: (*Server).quarantinedRoomMedia},
	{Method: post, Path: "/_synapse/admin/v1/room/:roomId/media/unquarantine", OperationID: "im.conclave.admin.unquarantineRoomMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).unquarantineRoomMedia},
}

// roomMedia is GET /_synapse/admin/v1/room/{room_id}/media.
func (s *Server) roomMedia(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	list, err := s.Media.OfRoom(r.Ctx(), ref.NID)
	if err != nil {
		return nil, err
	}
	local, remote := []string{}, []string{}
	for _, name := range list {
		uri := "mxc://" + string(name.Origin) + "/" + name.ID
		if s.Rooms.Identity().IsOurs(name.Origin) {
			local = append(local, uri)
		} else {
			remote = append(remote, uri)
		}
	}
	return map[string][]string{"local": local, "remote": remote}, nil
}

// quarantineRoomMedia is POST /_synapse/admin/v1/room/{room_id}/media/quarantine.
func (s *Server) quarantineRoomMedia(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	n, err := s.Media.WithdrawRoom(r.Ctx(), r.Session.User, ref.NID)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"num_quarantined": n}, nil
}

// unquarantineRoomMedia is POST /_synapse/admin/v1/room/{room_id}/media/unquarantine.
func (s *Server) unquarantineRoomMedia(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	n, err := s.Media.GiveBackRoom(r.Ctx(), r.Session.User, ref.NID)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"num_unquarantined": n}, nil
}

// quarantinedContent is a content that was withdrawn because of a room.
type quarantinedContent struct {
	Origin matrix.ServerName `json:"media_origin"`
	ID     string            `json:"media_id"`
	By     matrix.UserID     `json:"quarantined_by"`
	At     int64             `json:"quarantined_ts"` // ms
}

// quarantinedRoomMedia is GET /_synapse/admin/v1/room/{room_id}/media/quarantine.
func (s *Server) quarantinedRoomMedia(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	from, limit, err := mediaPageOf(r)
	if err != nil {
		return nil, err
	}
	page, total, err := s.Media.WithdrawnOfRoom(r.Ctx(), ref.NID, from, limit)
	if err != nil {
		return nil, err
	}
	list := make([]quarantinedContent, len(page))
	for i, c := range page {
		list[i] = quarantinedContent{c.Origin, c.ID, c.By, c.At}
	}
	answer := map[string]any{"media": list, "total": total}
	if next := from + len(page); int64(next) < total && len(page) > 0 {
		answer["next_token"] = next
	}
	return answer, nil
}
