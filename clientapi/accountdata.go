package clientapi

import (
	"crypto/sha256"
	"encoding/base64"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

var accountDataRoutes = []Route{
	op(get, "/user/:userId/account_data/:type", "getAccountData", Token, LimitRead, (*Server).getAccountData),
	op(put, "/user/:userId/account_data/:type", "setAccountData", Token, LimitChange, (*Server).setAccountData),
	op(get, "/user/:userId/rooms/:roomId/account_data/:type", "getAccountDataPerRoom", Token, LimitRead, (*Server).getAccountData),
	op(put, "/user/:userId/rooms/:roomId/account_data/:type", "setAccountDataPerRoom", Token, LimitChange, (*Server).setAccountData),
	op(post, "/user/:userId/filter", "defineFilter", Token, LimitChange, (*Server).defineFilter),
	op(get, "/user/:userId/filter/:filterId", "getFilter", Token, LimitRead, (*Server).getFilter),
}

// Bounds of account data (threats.md section 1).
const (
	maxAccountData      = 64 << 10
	maxAccountDataTypes = 1000
	maxFilters          = 1000 // of a user, each at most as large as account data
)

// dataPlace reads whose data and of which room (0 = global) the path means.
func (s *Server) dataPlace(r *Request) (store.RoomNID, string, error) {
	typ := r.Param("type")
	if err := r.ownPath(); err != nil {
		return 0, typ, err
	}
	if r.Param("roomId") == "" {
		return 0, typ, checkName(typ, "event type")
	}
	ref, err := r.Room()
	if err != nil {
		return 0, typ, err
	}
	return ref.NID, typ, checkName(typ, "event type")
}

// getAccountData is GET /user/{userId}/account_data/{type} and its form for a room.
func (s *Server) getAccountData(r *Request) (any, error) {
	room, typ, err := s.dataPlace(r)
	if err != nil {
		return nil, err
	}
	if room == 0 && typ == store.PushRulesType {
		return s.getPushRules(r)
	}
	var content string
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		content, err = tx.AccountData(r.Session.User, room, typ)
		return err
	})
	if err == nil && content == "" {
		err = matrix.NotFound("There is no such account data.")
	}
	return Raw(content), err
}

// setAccountData is PUT /user/{userId}/account_data/{type} and its form for a room.
func (s *Server) setAccountData(r *Request) (any, error) {
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	room, typ, err := s.dataPlace(r)
	if err != nil {
		return nil, err
	}
	switch typ {
	case "m.fully_read", store.PushRulesType:
		return nil, matrix.Errorf(405, "M_BAD_JSON", "%s is set by endpoints of its own.", typ)
	}
	if len(content) > maxAccountData {
		return nil, matrix.TooLarge("Account data has at most %d bytes.", maxAccountData)
	}
	return nil, s.DB.Write(r.Ctx(), func(tx *store.Tx) error {
		if err := tx.StillOpen(r.Session.User); err != nil {
			return err
		}
		n, err := tx.OtherAccountData(r.Session.User, room, typ)
		if err != nil {
			return err
		}
		if n >= maxAccountDataTypes {
			return matrix.TooLarge("There are at most %d types of account data.", maxAccountDataTypes)
		}
		tx.AfterCommit(s.wake)
		return tx.PutAccountData(r.Session.User, room, typ, string(content))
	})
}

// defineFilter is POST /user/{userId}/filter. The same filter has the same ID.
func (s *Server) defineFilter(r *Request) (any, error) {
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	if _, err := sync.ParseFilter(content); err != nil {
		return nil, err
	}
	if len(content) > maxAccountData {
		return nil, matrix.TooLarge("A filter has at most %d bytes.", maxAccountData)
	}
	hash := sha256.Sum256(content)
	id := base64.RawURLEncoding.EncodeToString(hash[:12])
	err = s.DB.Write(r.Ctx(), func(tx *store.Tx) error {
		if err := tx.StillOpen(r.Session.User); err != nil {
			return err
		}
		n, err := tx.OtherFilters(r.Session.User, id)
		if err != nil {
			return err
		}
		if n >= maxFilters {
			return matrix.TooLarge("You have %d filters. Use one of them, or put the filter into each request.", n)
		}
		return tx.PutFilter(r.Session.User, id, string(content))
	})
	if err != nil {
		return nil, err
	}
	return map[string]string{"filter_id": id}, nil
}

// getFilter is GET /user/{userId}/filter/{filterId}.
func (s *Server) getFilter(r *Request) (any, error) {
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	content, err := s.storedFilter(r, r.Param("filterId"))
	return Raw(content), err
}

func (s *Server) storedFilter(r *Request, id string) (content string, err error) {
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		content, err = tx.Filter(r.Session.User, id)
		return err
	})
	if err == nil && content == "" {
		err = matrix.NotFound("There is no such filter.")
	}
	return content, err
}
