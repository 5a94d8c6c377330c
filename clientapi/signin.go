package clientapi

import (
	"encoding/json"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// signInPath is where our own pages sign people in: step by step, with a second factor or a passkey alone. What they get
// in the end opens a session (im.conclave.login.sign_in).
const signInPath = "/_matrix/client/unstable/im.conclave.login"

var signInRoutes = []Route{
	{Method: post, Path: signInPath + "/sign_in", OperationID: "im.conclave.signIn", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).signIn},
	{Method: post, Path: signInPath + "/factor", OperationID: "im.conclave.signInFactor", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).signInFactor},
	{Method: post, Path: signInPath + "/factor/challenge", OperationID: "im.conclave.signInChallenge", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).signInChallenge},
	{Method: post, Path: signInPath + "/passkey/challenge", OperationID: "im.conclave.passkeySignInChallenge", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).passkeySignInChallenge},
	{Method: post, Path: signInPath + "/passkey", OperationID: "im.conclave.passkeySignIn", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).passkeySignIn},
	own(post, "/passkeys/challenge", "passkeys.challenge", LimitLogin, (*Server).passkeyChallenge),
	own(get, "/app_passwords", "appPasswords", LimitRead, (*Server).getAppPasswords),
	own(post, "/app_passwords", "appPasswords.add", LimitLogin, (*Server).addAppPassword),
	own(del, "/app_passwords/:id", "appPasswords.remove", LimitChange, (*Server).deleteAppPassword),
}

// signInAnswer says how a sign-in goes on.
type signInAnswer struct {
	SignIn    string              `json:"sign_in"`
	Needs     []accounts.Evidence `json:"needs"` // any of them; none: it opens a session
	ExpiresIn int64               `json:"expires_in_ms"`
}

func signingIn(s *accounts.SigningIn, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	needs := s.Needs
	if needs == nil {
		needs = []accounts.Evidence{}
	}
	return signInAnswer{s.Secret, needs, s.Lasts.Milliseconds()}, nil
}

// signIn begins with a name and a password.
func (s *Server) signIn(r *Request) (any, error) {
	var body struct {
		whoBody
		Password string `json:"password"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	name, err := body.name()
	if err != nil {
		return nil, err
	}
	if name == "" || body.Password == "" {
		return nil, matrix.MissingParam("A name and a password are needed.")
	}
	return signingIn(s.Accounts.SignInPassword(r.Ctx(), name, body.Password))
}

// factorBody is a second factor as clients show it.
type factorBody struct {
	Type       string          `json:"type"`
	Code       string          `json:"code"`
	Credential json.RawMessage `json:"credential"` // of a passkey
	Challenge  string          `json:"challenge"`
}

// signInFactor goes on with a second factor.
func (s *Server) signInFactor(r *Request) (any, error) {
	var body struct {
		factorBody
		SignIn string `json:"sign_in"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	answer := accounts.FactorAnswer{Type: body.Type, Code: body.Code, Passkey: body.Credential, Challenge: body.Challenge}
	return signingIn(s.Accounts.SignInFactor(r.Ctx(), body.SignIn, answer))
}

// challengeAnswer is what a browser is asked for a passkey with.
func challengeAnswer(options any, challenge string, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return map[string]any{"options": options, "challenge": challenge}, nil
}

// signInChallenge asks for a passkey as the second factor.
func (s *Server) signInChallenge(r *Request) (any, error) {
	var body struct {
		SignIn string `json:"sign_in"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return challengeAnswer(s.Accounts.SignInChallenge(r.Ctx(), body.SignIn))
}

// passkeyChallenge asks somebody who is logged in for a passkey, to confirm a request with.
func (s *Server) passkeyChallenge(r *Request) (any, error) {
	return challengeAnswer(s.Accounts.BeginPasskey(r.Ctx(), r.Session.User))
}

// passkeySignInChallenge asks whoever it may be for a passkey.
func (s *Server) passkeySignInChallenge(r *Request) (any, error) {
	return challengeAnswer(s.Accounts.BeginPasskeySignIn(r.Ctx()))
}

// passkeySignIn begins with a passkey, which needs nothing more.
func (s *Server) passkeySignIn(r *Request) (any, error) {
	var body struct {
		Credential json.RawMessage `json:"credential"`
		Challenge  string          `json:"challenge"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return signingIn(s.Accounts.SignInPasskey(r.Ctx(), body.Challenge, body.Credential))
}

// appPasswordAnswer is an app password as its owner sees it afterwards.
type appPasswordAnswer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Created int64  `json:"created_ts"`
	Used    int64  `json:"last_used_ts,omitempty"`
}

// getAppPasswords lists one's app passwords. There are so few that they come at once.
func (s *Server) getAppPasswords(r *Request) (any, error) {
	list, err := s.Accounts.AppPasswords(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	answer := make([]appPasswordAnswer, len(list))
	for i, p := range list {
		answer[i] = appPasswordAnswer{p.ID, p.Name, p.Created, p.Used}
	}
	return map[string]any{"app_passwords": answer}, nil
}

// addAppPassword makes an app password, which is told this once.
func (s *Server) addAppPassword(r *Request) (any, error) {
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
		Name string             `json:"name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if _, err := s.confirmedHow(r, body.Auth); err != nil {
		return nil, err
	}
	id, password, err := s.Accounts.NewAppPassword(r.Ctx(), r.Session, body.Name)
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": id, "password": password}, nil
}

// deleteAppPassword removes an app password and ends its session.
func (s *Server) deleteAppPassword(r *Request) (any, error) {
	return nil, s.Accounts.RemoveAppPassword(r.Ctx(), r.Session, r.Param("id"))
}
