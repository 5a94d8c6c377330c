package clientapi

import (
	"html/template"
	"net/http"
	"net/url"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// loginFallback is GET /_matrix/static/client/login/: a page on which people log in whose client knows no way to. What a
// login takes that is no secret comes in its address (client-server API, "Login Fallback").
func (s *Server) loginFallback(r *Request) (any, error) {
	return s.newPage(r).askPassword(r, "")
}

func (p *shownPage) askPassword(r *Request, user string) (any, error) {
	p.Form, p.Title, p.Button = true, p.say("login"), p.say("login.button")
	p.Fields = []pageField{
		{Name: "user", Value: user, Label: p.say("user"), Type: "text", Complete: "username"},
		{Name: "password", Label: p.say("password"), Type: "password", Complete: "current-password"},
	}
	return p.show(r)
}

func (p *shownPage) askCode(r *Request, signIn string) (any, error) {
	p.Form, p.Title, p.Text = true, p.say(accounts.StageFactor), p.say(accounts.StageFactor+".text")
	p.Hidden = []pageField{{Name: "sign_in", Value: signIn}}
	p.Fields = []pageField{{Name: "code", Label: p.say("code"), Type: "text", Complete: "one-time-code"}}
	return p.show(r)
}

// loginFallbackForm is the form of that page: first a name and a password, then a second factor where the account has one.
func (s *Server) loginFallbackForm(r *Request) (any, error) {
	form, err := r.form()
	if err != nil {
		return nil, err
	}
	p := s.newPage(r)
	if form.Has("sign_in") {
		return s.loginFallbackCode(r, p, form)
	}
	if form.Get("user") == "" || form.Get("password") == "" {
		p.Status, p.Error = http.StatusBadRequest, p.say("login.missing")
		return p.askPassword(r, form.Get("user"))
	}
	begun, err := s.Accounts.SignInPassword(r.Ctx(), accounts.Identifier{User: form.Get("user")}, form.Get("password"))
	if err != nil {
		if err := p.refuse(err, ""); err != nil {
			return nil, err
		}
		return p.askPassword(r, form.Get("user"))
	}
	return s.loginFallbackNext(r, p, begun)
}

func (s *Server) loginFallbackCode(r *Request, p *shownPage, form url.Values) (any, error) {
	kind, code := factorOf(form.Get("code"))
	signIn := form.Get("sign_in")
	next, err := s.Accounts.SignInFactor(r.Ctx(), signIn, accounts.FactorAnswer{Type: string(kind), Code: code})
	if err != nil {
		if err := p.refuse(err, p.say(accounts.StageFactor+".wrong")); err != nil {
			return nil, err
		}
		return p.askCode(r, signIn)
	}
	return s.loginFallbackNext(r, p, next)
}

// loginFallbackNext asks for what is missing, or opens the session and hands it to the client around the page.
func (s *Server) loginFallbackNext(r *Request, p *shownPage, signIn *accounts.SigningIn) (any, error) {
	if len(signIn.Needs) > 0 {
		return p.askCode(r, signIn.Secret)
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
		if err := p.refuse(err, ""); err != nil {
			return nil, err
		}
		return p.askPassword(r, "")
	}
	raw, err := matrix.Encode(answer)
	if err != nil {
		return nil, err
	}
	p.Title, p.Text, p.Response = p.say("login.done"), p.say("done.text"), string(raw)
	p.Script = template.JS(loginScript) //nolint:gosec // a file of ours
	return p.show(r)
}
