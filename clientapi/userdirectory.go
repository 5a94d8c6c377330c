package clientapi

import (
	"encoding/json"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// A search may go through thousands of names: it has the budget of what changes things, not of what reads them.
var userDirectoryRoutes = []Route{
	op(post, "/user_directory/search", "searchUserDirectory", Token, LimitChange, (*Server).searchUserDirectory),
}

// Bounds of a search for people.
const (
	defaultPeople = 10
	maxPeople     = 100
	maxPeopleTerm = 512 // bytes
)

// foundPerson is somebody whom a search found.
type foundPerson struct {
	ID     matrix.UserID `json:"user_id"`
	Name   string        `json:"display_name,omitempty"`
	Avatar string        `json:"avatar_url,omitempty"`
}

// searchUserDirectory is POST /user_directory/search.
func (s *Server) searchUserDirectory(r *Request) (any, error) {
	var body struct {
		Term  *string `json:"search_term"`
		Limit *int    `json:"limit"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	limit := defaultPeople
	switch {
	case body.Term == nil:
		return nil, matrix.MissingParam("search_term is needed.")
	case len(*body.Term) > maxPeopleTerm:
		return nil, matrix.InvalidParam("search_term has at most %d bytes.", maxPeopleTerm)
	case body.Limit != nil && *body.Limit < 0:
		return nil, matrix.InvalidParam("limit is not negative.")
	case body.Limit != nil:
		limit = min(*body.Limit, maxPeople)
	}
	ignored, err := s.ignoredBy(r)
	if err != nil {
		return nil, err
	}
	people, limited, err := s.Rooms.SearchPeople(r.Ctx(), r.Session.User, strings.ToValidUTF8(*body.Term, " "), limit, ignored)
	if err != nil {
		return nil, err
	}
	results := make([]foundPerson, len(people))
	for i, p := range people {
		results[i] = foundPerson{p.ID, p.Name, p.Avatar}
	}
	return map[string]any{"results": results, "limited": limited}, nil
}

// ignoredBy are the users whom the caller ignores. What is no list ignores nobody.
func (s *Server) ignoredBy(r *Request) (map[matrix.UserID]bool, error) {
	var content string
	err := s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		content, err = tx.AccountData(r.Session.User, 0, "m.ignored_user_list")
		return err
	})
	var list struct {
		Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
	}
	ignored := map[matrix.UserID]bool{}
	if err == nil && json.Unmarshal([]byte(content), &list) == nil {
		for id := range list.Users {
			ignored[id] = true
		}
	}
	return ignored, err
}
