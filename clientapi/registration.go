package clientapi

import (
	"context"
	"errors"
	"fmt"

	"conclave/internal/accounts"
	"conclave/internal/config"
	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// Making accounts by oneself (client-server API, "Account registration").
var registrationRoutes = []Route{
	op(get, "/register/available", "checkUsernameAvailability", NoAuth, LimitLogin, (*Server).checkUsernameAvailability),
	{
		Method: get, Path: "/_matrix/client/v1/register/m.login.registration_token/validity", OperationID: "registrationTokenValidity",
		Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).registrationTokenValidity,
	},
}

// mayRegister refuses (M_FORBIDDEN) where nobody can make an account by themselves.
func (s *Server) mayRegister() error {
	if len(s.Accounts.RegistrationFlows()) == 0 {
		return matrix.Forbidden("Registration is closed on this server. Ask its administrator for an account.")
	}
	return nil
}

// mayChoose refuses names that nobody can choose. taken says whether those are refused too that somebody has: where not
// everybody can make an account that is told only to who can (threats A08).
func (s *Server) mayChoose(r *Request, name string, taken bool) error {
	if err := accounts.CheckLocalpart(name, matrix.ServerName(s.Config.ServerName)); err != nil {
		return err
	}
	if err := s.reservedName(name, nil); err != nil {
		return err
	}
	if err := s.Accounts.CheckChosenName(name); err != nil || !taken {
		return err
	}
	return s.Accounts.CheckUsername(r.Ctx(), name)
}

// checkUsernameAvailability is GET /register/available. Where not everybody can register it tells nothing of who is here
// (threats A08): there the answer comes with the registration.
func (s *Server) checkUsernameAvailability(r *Request) (any, error) {
	if err := s.mayRegister(); err != nil {
		return nil, err
	}
	if err := s.mayChoose(r, r.QueryParam("username"), s.Config.Registration.Mode == config.RegistrationOpen); err != nil {
		return nil, err
	}
	return Raw(`{"available":true}`), nil
}

// registrationTokenValidity is GET /register/m.login.registration_token/validity.
func (s *Server) registrationTokenValidity(r *Request) (any, error) {
	if err := s.mayRegister(); err != nil {
		return nil, err
	}
	if !r.QueryParams().Has("token") {
		return nil, matrix.MissingParam("token is needed.")
	}
	valid := false
	if s.Config.Registration.Mode == config.RegistrationToken {
		var err error
		if valid, err = s.Accounts.TokenValid(r.Ctx(), r.QueryParam("token"), limits.Block(s.address(r.Request()))); err != nil {
			return nil, err
		}
	}
	return map[string]bool{"valid": valid}, nil
}

// registered makes the account of a registration that is confirmed, or the request for one.
func (s *Server) registered(r *Request, q accounts.Registration) (any, error) {
	q.Asks = s.Config.Registration.Mode == config.RegistrationApproval
	login, err := s.Accounts.Register(r.Ctx(), q)
	var asked *accounts.Asked
	if !errors.As(err, &asked) {
		return s.loggedIn(login, err)
	}
	if err := s.tellAdmins(r.Ctx(), asked.Waiting); err != nil {
		s.Log.Warn("telling the administrators of a request for an account failed; it stands in the queue", "err", err)
	}
	return nil, err
}

// toldEvery is how many requests wait, more than the last time, when administrators are told of them again.
const toldEvery = 10

// maxTold bounds how many administrators are told.
const maxTold = 20

// tellAdmins lets the administrators know that somebody waits: at the first request in an empty queue, and then from time to
// time, so that many requests are no flood of notices. The queue itself they see in the administration. waiting is how many there
// were with this request: of several that come at once one has to be the first, whoever looks when.
func (s *Server) tellAdmins(ctx context.Context, waiting int) error {
	if waiting%toldEvery != 1 {
		return nil
	}
	var admins []store.Account
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		admins = nil
		return tx.Admins(maxTold, func(a store.Account) { admins = append(admins, a) })
	})
	if err != nil {
		return err
	}
	text := "Somebody asks for an account on this server. Approve or deny it in the administration."
	if waiting > 1 {
		text = fmt.Sprintf("%d people ask for an account on this server. Approve or deny them in the administration.", waiting)
	}
	content, err := matrix.Encode(map[string]string{"msgtype": "m.server_notice", "body": text})
	if err != nil {
		return err
	}
	for i := range admins {
		room, sender, failed := s.noticeRoom(ctx, &admins[i])
		if failed == nil {
			_, failed = s.Rooms.Send(ctx, rooms.SendRequest{Type: "m.room.message", Room: room, Sender: sender, Content: content})
		}
		err = errors.Join(err, failed)
	}
	return err
}
