package clientapi

import (
	"errors"
	"net/http"
	"net/url"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// loginFallback is GET /_matrix/static/client/login/: a page on which people log in whose client knows no way to. What a
// login takes that is no secret comes in its address (client-server API, "Login Fallback").
func (s *Server) loginFallback(r *Request) (any, error) {
	return s.askPassword(r, "", page{})
}

func (s *Server) askPassword(r *Request, user string, p page) (any, error) {
	p.Title = "password_title"
	p.Data = fallbackData{Button: "sign_in", Fields: []pageField{
		{Name: "user", Value: user, Label: "name", Type: "text", Complete: "username"},
		{Name: "password", Label: "password", Type: "password", Complete: "current-password"},
	}}
	return s.show(r, "fallback", p)
}

func (s *Server) askCode(r *Request, signIn string, p page) (any, error) {
	p.Title = "stage." + accounts.StageFactor
	p.Data = fallbackData{
		Text: words(r).say(p.Title + ".text"), Button: "continue", Hidden: []pageField{{Name: "sign_in", Value: signIn}},
		Fields: []pageField{{Name: "code", Label: "factor.code", Type: "text", Complete: "one-time-code"}},
	}
	return s.show(r, "fallback", p)
}

// refused is a page that is shown again because of an error of whoever filled it in; nil for other errors.
func (s *Server) refused(r *Request, err error, wrong string) *page {
	var known *matrix.Error
	if !errors.As(err, &known) {
		return nil
	}
	return &page{Status: known.Status, Error: s.refusal(r, err, wrong)}
}

// loginFallbackForm is the form of that page: first a name and a password, then a second factor where the account has one.
func (s *Server) loginFallbackForm(r *Request) (any, error) {
	form, err := s.pageForm(r)
	if err != nil {
		return nil, err
	}
	if form.Has("sign_in") {
		return s.loginFallbackCode(r, form)
	}
	user := form.Get("user")
	if user == "" || form.Get("password") == "" {
		return s.askPassword(r, user, page{Status: http.StatusBadRequest, Error: words(r).say("name_missing")})
	}
	begun, err := s.Accounts.SignInPassword(r.Ctx(), identifierOf(user), form.Get("password"))
	if err != nil {
		if p := s.refused(r, err, "wrong_password"); p != nil {
			return s.askPassword(r, user, *p)
		}
		return nil, err
	}
	return s.loginFallbackNext(r, begun)
}

func (s *Server) loginFallbackCode(r *Request, form url.Values) (any, error) {
	kind, code := factorOf(form.Get("code"))
	signIn := form.Get("sign_in")
	next, err := s.Accounts.SignInFactor(r.Ctx(), signIn, accounts.FactorAnswer{Type: string(kind), Code: code})
	if err != nil {
		if p := s.refused(r, err, "wrong_factor"); p != nil {
			return s.askCode(r, signIn, *p)
		}
		return nil, err
	}
	return s.loginFallbackNext(r, next)
}

// loginFallbackNext asks for what is missing, or opens the session and hands it to the client around the page.
func (s *Server) loginFallbackNext(r *Request, signIn *accounts.SigningIn) (any, error) {
	if len(signIn.Needs) > 0 {
		return s.askCode(r, signIn.Secret, page{})
	}
	renews, err := flag(r.QueryParam("refresh_token"))
	if err != nil {
		return nil, err
	}
	login, err := s.Accounts.LoginSignIn(r.Ctx(), signIn.Secret, accounts.NewDevice{
		ID: matrix.DeviceID(r.QueryParam("device_id")), Name: r.QueryParam("initial_device_display_name"), Address: s.address(r.Request()), Renews: renews, Mark: r.mark,
	})
	answer, err := s.loggedIn(login, err)
	if err != nil {
		if p := s.refused(r, err, "login_failed"); p != nil {
			return s.askPassword(r, "", *p)
		}
		return nil, err
	}
	raw, err := matrix.Encode(answer)
	if err != nil {
		return nil, err
	}
	return s.show(r, "loggedin", page{Title: "logged_in", Data: string(raw), Script: "login.js"})
}
