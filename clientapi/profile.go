package clientapi

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/rooms"
)

// userOf reads the user of the path.
func (r *Request) userOf() (matrix.UserID, error) {
	id, err := matrix.ParseUserID(r.Param("userId"))
	if err != nil {
		return "", matrix.InvalidParam("%.64q is not a user ID.", r.Param("userId")).With(err)
	}
	return id, nil
}

// ownPath refuses paths of other users.
func (r *Request) ownPath() error {
	id, err := r.userOf()
	if err == nil && id != r.Session.UserID {
		err = matrix.Forbidden("That belongs to another user.")
	}
	return err
}

// profile reads a user's profile, from the user's server if that is another one.
func (s *Server) profile(r *Request, field string) (map[string]any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	if !s.Rooms.Identity().IsOurs(id.Server()) {
		if s.Federation == nil {
			return nil, matrix.NotFound("There is no profile of %s here.", id)
		}
		return s.Federation.QueryProfile(r.Ctx(), id, field)
	}
	account, err := s.Accounts.Find(r.Ctx(), id)
	if err != nil {
		return nil, err
	}
	p, err := s.Accounts.Profile(r.Ctx(), account.User)
	if err != nil {
		return nil, err
	}
	out := make(map[string]any, len(p))
	for name, value := range p {
		if field == "" || field == name {
			out[name] = value
		}
	}
	return out, nil
}

// getUserProfile is GET /profile/{userId}. The specification lets everybody ask and a server refuse; here it is for people
// who are logged in (threats A20).
func (s *Server) getUserProfile(r *Request) (any, error) { return s.profile(r, "") }

// getProfileField is GET /profile/{userId}/{keyName}.
func (s *Server) getProfileField(r *Request) (any, error) {
	name := r.Param("keyName")
	p, err := s.profile(r, name)
	if err != nil {
		return nil, err
	}
	value, ok := p[name]
	if !ok {
		return nil, matrix.NotFound("The profile has no %.64q.", name)
	}
	return map[string]any{name: value}, nil
}

// setProfileField is PUT /profile/{userId}/{keyName}.
func (s *Server) setProfileField(r *Request) (any, error) {
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	body, err := r.Object()
	if err != nil {
		return nil, err
	}
	name := r.Param("keyName")
	value, ok := matrix.Get(body, name)
	if !ok {
		return nil, matrix.MissingParam("The body has the field under its name, %.64q.", name)
	}
	if name == accounts.DisplayName || name == accounts.AvatarURL {
		var text *string
		if json.Unmarshal(value, &text) != nil || text != nil && len(*text) > 1024 {
			return nil, matrix.InvalidParam("%s is text of at most 1024 bytes.", name)
		}
		if name == accounts.AvatarURL && text != nil && *text != "" && !strings.HasPrefix(*text, "mxc://") {
			return nil, matrix.InvalidParam("avatar_url is an mxc:// URI.")
		}
		if text == nil {
			value = nil
		}
	}
	return nil, s.changeProfile(r, name, value)
}

// deleteProfileField is DELETE /profile/{userId}/{keyName}.
func (s *Server) deleteProfileField(r *Request) (any, error) {
	return nil, s.changeProfile(r, r.Param("keyName"), nil)
}

// spreadTime bounds how long the rooms of a user are told of a new profile.
const spreadTime = 5 * time.Minute

// changeProfile changes a field and, for the two that member events repeat, tells the user's rooms.
func (s *Server) changeProfile(r *Request, field string, value json.RawMessage) error {
	if err := r.ownPath(); err != nil {
		return err
	}
	return s.putProfile(r, field, value)
}

// putProfile changes a field of the profile of whoever calls.
func (s *Server) putProfile(r *Request, field string, value json.RawMessage) error {
	if slices.Contains(s.Config.Profiles.Fixed, field) {
		return matrix.Forbidden("This server does not let its users change %s.", field)
	}
	// Once the profile is another the rooms are told to the end, also when the client goes meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Ctx()), spreadTime)
	defer cancel()
	before := r.Request()
	defer r.SetRequest(before)
	r.SetRequest(before.WithContext(ctx))
	changed, err := s.Accounts.SetProfile(r.Ctx(), r.Session.User, field, value)
	if err != nil || !changed || field != accounts.DisplayName && field != accounts.AvatarURL {
		return err
	}
	profile, err := s.profileOf(r)
	if err != nil {
		return err
	}
	return s.spreadProfile(r, profile)
}

// spreadProfile repeats the profile in the member events of the user's rooms. A room that refuses does not keep it from
// the others.
func (s *Server) spreadProfile(r *Request, profile rooms.Profile) error {
	ids, err := s.Rooms.JoinedRooms(r.Ctx(), r.Session.User)
	if err != nil {
		return err
	}
	for _, id := range ids {
		ref, err := s.Rooms.Lookup(r.Ctx(), id)
		if err == nil {
			err = s.Rooms.Rename(r.Ctx(), ref, r.User(), profile)
		}
		var refused *matrix.Error
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}
