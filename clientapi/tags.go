package clientapi

import (
	"encoding/json"
	"strconv"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var tagRoutes = []Route{
	op(get, "/user/:userId/rooms/:roomId/tags", "getRoomTags", Token, LimitRead, (*Server).getRoomTags),
	op(put, "/user/:userId/rooms/:roomId/tags/:tag", "setRoomTag", Token, LimitChange, (*Server).setRoomTag),
	op(del, "/user/:userId/rooms/:roomId/tags/:tag", "deleteRoomTag", Token, LimitChange, (*Server).deleteRoomTag),
}

// maxTags bounds the tags of one room.
const maxTags = 100

// tagData is the account data that holds a room's tags (client-server API, "Room Tagging").
const tagData = "m.tag"

// tags are a room's tags by name, each with what its owner says of it.
type tags map[string]json.RawMessage

// readTags reads the tags of a room. Somebody may have set the account data to something else: that holds none.
func readTags(tx *store.Tx, user store.UserNID, room store.RoomNID) (tags, error) {
	content, err := tx.AccountData(user, room, tagData)
	if err != nil {
		return nil, err
	}
	var data struct {
		Tags tags `json:"tags"`
	}
	if content == "" || json.Unmarshal([]byte(content), &data) != nil || data.Tags == nil {
		return tags{}, nil
	}
	return data.Tags, nil
}

// getRoomTags is GET /user/{userId}/rooms/{roomId}/tags.
func (s *Server) getRoomTags(r *Request) (any, error) {
	ref, err := r.ownRoom()
	if err != nil {
		return nil, err
	}
	var found tags
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		found, err = readTags(tx, r.Session.User, ref.NID)
		return err
	})
	return map[string]tags{"tags": found}, err
}

// ownRoom is the room of a path that begins with the caller's own ID.
func (r *Request) ownRoom() (rooms.Ref, error) {
	if err := r.ownPath(); err != nil {
		return rooms.Ref{}, err
	}
	return r.Room()
}

// setRoomTag is PUT /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *Server) setRoomTag(r *Request) (any, error) {
	body, err := r.Object()
	if err != nil {
		return nil, err
	}
	if order, there := matrix.Get(body, "order"); there {
		if at, err := strconv.ParseFloat(string(order), 64); err != nil || at < 0 || at > 1 {
			return nil, matrix.InvalidParam("order is a number from 0 to 1.")
		}
	}
	return nil, s.changeTags(r, func(name string, t tags) error {
		if t[name] = body; len(t) > maxTags {
			return matrix.TooLarge("A room has at most %d tags.", maxTags)
		}
		return nil
	})
}

// deleteRoomTag is DELETE /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *Server) deleteRoomTag(r *Request) (any, error) {
	return nil, s.changeTags(r, func(name string, t tags) error {
		delete(t, name)
		return nil
	})
}

// changeTags changes the tags of the path's room. The account is locked meanwhile: of two changes at the same time none
// is lost.
func (s *Server) changeTags(r *Request, change func(name string, t tags) error) error {
	ref, err := r.ownRoom()
	if err != nil {
		return err
	}
	name := r.Param("tag")
	if err := checkName(name, "tag"); err != nil {
		return err
	}
	return s.DB.Write(r.Ctx(), func(tx *store.Tx) error {
		if err := tx.StillOpen(r.Session.User); err != nil {
			return err
		}
		t, err := readTags(tx, r.Session.User, ref.NID)
		if err != nil {
			return err
		}
		if err := change(name, t); err != nil {
			return err
		}
		content, err := json.Marshal(map[string]tags{"tags": t})
		if err != nil {
			return err
		}
		if len(content) > maxAccountData {
			return matrix.TooLarge("The tags of a room have at most %d bytes.", maxAccountData)
		}
		tx.AfterCommit(s.wake)
		return tx.PutAccountData(r.Session.User, ref.NID, tagData, string(content))
	})
}
