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
	{Method: post, Path: "/_matrix/client/v1/login/get_token", OperationID: "generateLoginToken", Auth: Token, Limit: LimitLogin, Handler: (*Server).generateLoginToken},
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

// The types of login that this server knows beside that of application services (bridges.go).
const (
	passwordLogin = "m.login.password"
	tokenLogin    = "m.login.token"
	signInLogin   = "im.conclave.login.sign_in" // after signing in with what an account asks for (signin.go)
)

// getLoginFlows is GET /login.
func (s *Server) getLoginFlows(*Request) (any, error) {
	flows := []map[string]any{{"type": passwordLogin}, {"type": tokenLogin, "get_login_token": true}, {"type": signInLogin}, s.ssoFlow()}
	if len(s.Services.All()) > 0 {
		flows = append(flows, map[string]any{"type": serviceLogin})
	}
	return map[string]any{"flows": flows}, nil
}

// whoBody is how clients name who they are.
type whoBody struct {
	User       string              `json:"user"` // deprecated form of identifier
	Identifier accounts.Identifier `json:"identifier"`
}

// who says whose account is meant; its User is "" if nobody's is.
func (w whoBody) who() (by accounts.Identifier, err error) {
	switch w.Identifier.Type {
	case "":
		return accounts.Identifier{User: w.User}, nil
	case "m.id.user", "m.id.thirdparty":
		return w.Identifier, nil
	case "m.id.phone":
		return by, matrix.Forbidden("Accounts have no telephone numbers on this server. Log in by your name or e-mail address.")
	}
	return by, matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "People log in by their name or address here, not by %.64q.", w.Identifier.Type)
}

// login is POST /login.
func (s *Server) login(r *Request) (any, error) {
	var body struct {
		whoBody
		Type       string `json:"type"`
		Password   string `json:"password"`
		Token      string `json:"token"`
		SignIn     string `json:"sign_in"`
		DeviceID   string `json:"device_id"`
		DeviceName string `json:"initial_device_display_name"`
		Renews     bool   `json:"refresh_token"`
		Enrols     bool   `json:"im.conclave.enrols"` // who comes by single sign-on can set up a second factor in this client
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	by, err := body.who()
	if err != nil {
		return nil, err
	}
	device := accounts.NewDevice{
		ID: matrix.DeviceID(body.DeviceID), Name: body.DeviceName, Address: s.address(r.Request()), Renews: body.Renews, Mark: r.mark, Enrols: body.Enrols,
	}
	switch body.Type {
	case passwordLogin:
		if by.User == "" && !by.IsAddress() || body.Password == "" {
			return nil, matrix.MissingParam("A name and a password are needed.")
		}
		return s.loggedIn(s.Accounts.LoginPasswordBy(r.Ctx(), by, body.Password, device))
	case tokenLogin:
		return s.loggedIn(s.Accounts.LoginToken(r.Ctx(), body.Token, device))
	case signInLogin:
		return s.loggedIn(s.Accounts.LoginSignIn(r.Ctx(), body.SignIn, device))
	case serviceLogin:
		return s.loginByService(r, by.User, device)
	}
	return nil, matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "This server does not know the login type %.64q: GET /login names those that it knows.", body.Type)
}

// generateLoginToken is POST /login/get_token. It is confirmed each time, by application services too.
func (s *Server) generateLoginToken(r *Request) (any, error) {
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	how, err := s.confirmedHow(r, body.Auth)
	if err != nil {
		return nil, err
	}
	token, lasts, err := s.Accounts.NewLoginToken(r.Ctx(), r.Session, how)
	if err != nil {
		return nil, err
	}
	return map[string]any{"login_token": token, "expires_in_ms": lasts.Milliseconds()}, nil
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
