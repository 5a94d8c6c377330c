package clientapi

import (
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

var loginRoutes = []Route{
	op(get, "/login", "getLoginFlows", NoAuth, LimitRead, (*Server).getLoginFlows),
	op(post, "/login", "login", NoAuth, LimitLogin, (*Server).login),
	op(post, "/refresh", "refresh", NoAuth, LimitRefresh, (*Server).refresh),
	op(post, "/logout", "logout", Token, LimitChange, (*Server).logout),
	op(post, "/logout/all", "logout_all", Token, LimitChange, (*Server).logoutAll),
}

// loginAnswer is what a client keeps of a login or registration.
type loginAnswer struct {
	UserID     matrix.UserID   `json:"user_id"`
	DeviceID   matrix.DeviceID `json:"device_id,omitempty"`
	HomeServer string          `json:"home_server"` // deprecated, still read by old clients
	tokenAnswer
}

// tokenAnswer is what a client speaks with from now on.
type tokenAnswer struct {
	AccessToken  string `json:"access_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresInMS  int64  `json:"expires_in_ms,omitempty"`
}

func tokensOf(l *accounts.Login) tokenAnswer {
	return tokenAnswer{l.Token, l.RefreshToken, l.Lasts.Milliseconds()}
}

func (s *Server) loggedIn(l *accounts.Login, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return loginAnswer{l.UserID, l.DeviceID, s.Config.ServerName, tokensOf(l)}, nil
}

// getLoginFlows is GET /login.
func (s *Server) getLoginFlows(*Request) (any, error) {
	if len(s.Services.All()) > 0 {
		return Raw(`{"flows":[{"type":"m.login.password"},{"type":"m.login.application_service"}]}`), nil
	}
	return Raw(`{"flows":[{"type":"m.login.password"}]}`), nil
}

// login is POST /login.
func (s *Server) login(r *Request) (any, error) {
	var body struct {
		Type       string `json:"type"`
		Password   string `json:"password"`
		User       string `json:"user"` // deprecated form of identifier
		DeviceID   string `json:"device_id"`
		DeviceName string `json:"initial_device_display_name"`
		Renews     bool   `json:"refresh_token"`

		Identifier accounts.Identifier `json:"identifier"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Type != "m.login.password" && body.Type != serviceLogin {
		return nil, matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "This server does not know the login type %q.", body.Type)
	}
	by := body.Identifier
	switch by.Type {
	case "":
		by = accounts.Identifier{User: body.User}
	case "m.id.user", "m.id.thirdparty":
	case "m.id.phone":
		return nil, matrix.Forbidden("Accounts have no telephone numbers on this server.")
	default:
		return nil, matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "People log in by their name or address here, not by %.64q.", by.Type)
	}
	device := accounts.NewDevice{
		ID: matrix.DeviceID(body.DeviceID), Name: body.DeviceName, Address: s.address(r.Request()), Renews: body.Renews,
	}
	if body.Type == serviceLogin {
		return s.loginByService(r, by.User, device)
	}
	if by.User == "" && !by.IsAddress() || body.Password == "" {
		return nil, matrix.MissingParam("A name and a password are needed.")
	}
	return s.loggedIn(s.Accounts.LoginPasswordBy(r.Ctx(), by, body.Password, device))
}

// refresh is POST /refresh.
func (s *Server) refresh(r *Request) (any, error) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.RefreshToken == "" {
		return nil, matrix.MissingParam("A refresh token is needed.")
	}
	l, err := s.Accounts.Refresh(r.Ctx(), body.RefreshToken, "")
	if err != nil {
		return nil, err
	}
	return tokensOf(l), nil
}

// logout is POST /logout.
func (s *Server) logout(r *Request) (any, error) {
	return nil, s.Accounts.Logout(r.Ctx(), r.Session)
}

// logoutAll is POST /logout/all.
func (s *Server) logoutAll(r *Request) (any, error) {
	return nil, s.Accounts.LogoutAll(r.Ctx(), r.Session.User)
}
