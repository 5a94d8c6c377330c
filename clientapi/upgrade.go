package clientapi

import (
	"net/http"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// upgradeRoom is POST /rooms/{roomId}/upgrade.
func (s *Server) upgradeRoom(r *Request) (any, error) {
	var body struct {
		Version  string   `json:"new_version"`
		Creators []string `json:"additional_creators"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	q := rooms.UpgradeRequest{Room: ref, User: r.User()}
	var ok bool
	if q.Version, ok = matrix.ParseRoomVersion(body.Version); !ok {
		return nil, matrix.Errorf(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "This server has no room version %.64q.", body.Version)
	}
	if len(body.Creators) > maxInvites {
		return nil, matrix.InvalidParam("At most %d people can be additional creators.", maxInvites)
	}
	for _, name := range body.Creators {
		id, err := matrix.ParseUserID(name)
		if err != nil {
			return nil, matrix.InvalidParam("%.255q is not a user ID.", name).With(err)
		}
		q.Creators = append(q.Creators, id)
	}
	if q.Profile, err = s.profileOf(r); err != nil {
		return nil, err
	}
	id, err := s.Rooms.Upgrade(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	s.carryOver(r, id)
	return map[string]any{"replacement_room": id}, nil
}
