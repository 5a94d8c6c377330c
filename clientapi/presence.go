package clientapi

import (
	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
)

// The route that sets it is none of LimitSend, whose use shows that somebody is there.
var presenceRoutes = []Route{
	op(get, "/presence/:userId/status", "getPresence", Token, LimitRead, (*Server).getPresence),
	op(put, "/presence/:userId/status", "setPresence", Token, LimitChange, (*Server).setPresence),
}

// getPresence is GET /presence/{userId}/status. Only who shares a room with a user learns whether the user exists.
func (s *Server) getPresence(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	user := r.Session.User
	if id != r.Session.UserID {
		err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
			user, err = tx.SharesRoomWith(r.Session.User, id)
			return err
		})
		if err == nil && user == 0 {
			err = matrix.Forbidden("You share no room with %s.", id)
		}
		if err != nil {
			return nil, err
		}
	}
	status, err := s.Presence.Of(r.Ctx(), user, id)
	if err != nil {
		return nil, err
	}
	content := status.Content(s.Presence.Now())
	content.Name, content.Avatar = "", "" // these are of the event alone
	return content, nil
}

// setPresence is PUT /presence/{userId}/status.
func (s *Server) setPresence(r *Request) (any, error) {
	var body presenceBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	return nil, s.SetPresence(r, body)
}

// presenceBody is what a client sets.
type presenceBody struct {
	Presence string `json:"presence"`
	Message  string `json:"status_msg"`
}

// SetPresence sets what the caller's device is shown as, and the caller's status message, for a request or a socket's
// frame.
func (s *Server) SetPresence(r *Request, in presenceBody) error {
	if in.Presence == "" {
		return matrix.MissingParam("The body says as what to be shown, in presence.")
	}
	state, ok := presence.ParseState(in.Presence)
	if !ok {
		return matrix.InvalidParam("presence is online, unavailable or offline.")
	}
	if len(in.Message) > presence.MaxMessage {
		return matrix.InvalidParam("status_msg has at most %d bytes.", presence.MaxMessage)
	}
	s.Presence.Set(r.Session.User, r.Session.UserID, r.Session.Device, state, presence.Shorten(in.Message))
	return nil
}

// wish reads set_presence of /sync and the socket; nil if it is absent.
func wish(text string) (*presence.State, error) {
	if text == "" {
		return nil, nil
	}
	state, ok := presence.ParseState(text)
	if !ok {
		return nil, matrix.InvalidParam("set_presence is online, unavailable or offline.")
	}
	return &state, nil
}

// present notes that the caller's client waits for what happens, until the function that it returns is called.
func (s *Server) present(r *Request, wish *presence.State) (leave func()) {
	return s.Presence.Connect(r.Session.User, r.Session.UserID, r.Session.Device, wish)
}

// active notes that the caller has done something of a class that people do.
func (s *Server) active(r *Request, class Limit) {
	if class == LimitSend && r.Session != nil {
		s.Presence.Active(r.Session.User, r.Session.UserID, r.Session.Device)
	}
}
