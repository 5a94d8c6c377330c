package clientapi

import (
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// The IDs of what people can sign on with: the organization's provider, of which there is at most one, and our own pages.
const (
	ssoProvider = "oidc"
	ssoHere     = "conclave"
)

var ssoRoutes = []Route{
	op(get, "/login/sso/redirect", "redirectToSSO", NoAuth, LimitLogin, (*Server).redirectToSSO),
	op(get, "/login/sso/redirect/:idpId", "redirectToIdP", NoAuth, LimitLogin, (*Server).redirectToIdP),
	{Method: get, Path: accounts.SSOCallback, OperationID: "im.conclave.ssoCallback", Auth: NoAuth, Limit: LimitLogin, Page: true, Fail: (*Server).failPage, Handler: (*Server).ssoCallback},
	{Method: post, Path: ssoContinue, OperationID: "im.conclave.ssoContinue", Auth: NoAuth, Limit: LimitLogin, Page: true, Fail: (*Server).failPage, Handler: (*Server).ssoContinue},
}

// ssoContinue is where the page of the callback sends its form.
const ssoContinue = "/_matrix/client/unstable/im.conclave.sso/continue"

// ssoFlow is what GET /login says of single sign-on. It leads to our own pages, where people can do all that they can with a
// password alone and more, and is preferred for that (client-server API, "OAuth 2.0 aware clients").
func (s *Server) ssoFlow() map[string]any {
	flow := map[string]any{"type": "m.login.sso", "oauth_aware_preferred": true}
	if s.Accounts.HasSSO() { // clients show only those that are named
		flow["identity_providers"] = []map[string]any{{"id": ssoProvider, "name": s.Config.OIDC.Name}, {"id": ssoHere, "name": s.Config.ServerName}}
	}
	return flow
}

// ssoTarget is where the client wants the login token that asks for single sign-on, as a visit.
func ssoTarget(r *Request) (*accounts.Visit, error) {
	target := r.QueryParam("redirectUrl")
	if target == "" {
		return nil, matrix.MissingParam("redirectUrl is needed.")
	}
	return accounts.SSOVisit(target, r.QueryParam("action"))
}

// redirectToIdP is GET /login/sso/redirect/{idpId}.
func (s *Server) redirectToIdP(r *Request) (any, error) {
	v, err := ssoTarget(r)
	if err != nil {
		return nil, err
	}
	switch r.Param("idpId") {
	case ssoHere:
		return s.redirectToSSO(r)
	case ssoProvider:
		location, browser, err := s.Accounts.BeginSSO(r.Ctx(), v.Redirect)
		return s.leaveForProvider(r, location, browser, err)
	}
	return nil, matrix.NotFound("This server knows no provider of that ID.")
}

// redirectToSSO is GET /login/sso/redirect: our own page, on which people choose how they sign in.
func (s *Server) redirectToSSO(r *Request) (any, error) {
	v, err := ssoTarget(r)
	if err != nil {
		return nil, err
	}
	h := r.Response().Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Location", s.issuer()+"oauth2/sso?"+url.Values{"redirectUrl": {v.Redirect}, "action": {v.Action}}.Encode())
	r.Response().WriteHeader(http.StatusFound)
	return Done{}, nil
}

// ssoPage begins to sign somebody in there.
func (s *Server) ssoPage(r *Request) (any, error) {
	v, err := ssoTarget(r)
	if err != nil {
		return nil, err
	}
	return s.receive(r, v, signInPageAt)
}

// toProvider sends somebody who visits one of our pages to the organization's provider, to come back to the same visit.
func (s *Server) toProvider(r *Request) (any, error) {
	b, _, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	location, browser, err := s.Accounts.BeginSSOHere(r.Ctx(), b.Visit.Purpose == accounts.ToManage)
	return s.leaveForProvider(r, location, browser, err)
}

// leaveForProvider sends a browser to the provider.
func (s *Server) leaveForProvider(r *Request, location, browser string, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	h := r.Response().Header()
	http.SetCookie(r.Response(), s.ssoCookie(browser, 0))
	h.Set("Cache-Control", "no-store")
	h.Set("Location", location)
	r.Response().WriteHeader(http.StatusFound)
	return Done{}, nil
}

// ssoCookie is the cookie by which a browser that comes back is known to be the one that left. It is this host's alone,
// and goes with links from the provider, but with nothing that other sites' pages do by themselves (threats A12).
func (s *Server) ssoCookie(value string, age int) *http.Cookie {
	c := &http.Cookie{Name: "conclave_sso", Value: value, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if strings.HasPrefix(s.Config.PublicURL, "https:") {
		c.Name, c.Secure = "__Host-"+c.Name, true
	}
	return c
}

// ssoCallback is where the provider sends people back to. The page asks them whether they mean to sign in where they are
// about to be sent, and for a second factor if the account has one.
func (s *Server) ssoCallback(r *Request) (any, error) {
	left := s.ssoCookie("", -1)
	browser := ""
	if c, err := r.Request().Cookie(left.Name); err == nil {
		browser = c.Value
	}
	http.SetCookie(r.Response(), left)
	back, err := s.Accounts.FinishSSO(r.Ctx(), browser, r.QueryParam("state"), r.QueryParam("code"), r.QueryParam("error"))
	switch {
	case err != nil:
		return s.ssoRefused(r, err)
	case back.Stage != nil:
		return s.stage(r, back.Stage, page{})
	}
	signIn := back.SignIn
	target, _, _, err := s.Accounts.SignInTarget(r.Ctx(), signIn.Secret)
	if err != nil {
		return nil, err
	}
	if target != "" {
		return s.showSSO(r, signIn.Secret, "")
	}
	b, err := s.browser(r)
	if err != nil {
		return nil, err
	}
	if back.NotAnew != nil && b.Visit.Purpose == accounts.ToManage {
		return s.ssoRefused(r, back.NotAnew)
	}
	return s.goOn(r, b, signIn)
}

// ssoRefused says why the provider's word is not enough.
func (s *Server) ssoRefused(r *Request, err error) (any, error) {
	var known *matrix.Error
	if !errors.As(err, &known) {
		return nil, err
	}
	if known.Cause != nil {
		s.Log.Warn("a page shows an error", "operation", r.route.OperationID, "err", known.Cause)
	}
	return s.show(r, "error", page{Status: known.Status, Title: "failed_title", Error: s.refusal(r, err, "sso_refused")})
}

// ssoData is what people are asked with whether they mean to sign in at a client.
type ssoData struct {
	User   matrix.UserID
	Host   string // where the client is
	SignIn string
	Factor bool // a code is wanted
	Action string
}

func (s *Server) showSSO(r *Request, secret, alert string) (any, error) {
	target, user, needs, err := s.Accounts.SignInTarget(r.Ctx(), secret)
	if err != nil {
		return s.ssoRefused(r, err)
	}
	p := page{Title: "sso.title", Error: alert, Data: ssoData{user, clientOf(target), secret, len(needs) > 0, ssoContinue}}
	if alert != "" {
		p.Status = http.StatusForbidden
	}
	return s.show(r, "sso", p)
}

// clientOf is what people can tell a client's address by.
func clientOf(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	if u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + ":"
}

// ssoContinue is the form of that page: the token goes to the client.
func (s *Server) ssoContinue(r *Request) (any, error) {
	form, err := s.pageForm(r)
	if err != nil {
		return nil, err
	}
	secret := form.Get("sign_in")
	_, _, needs, err := s.Accounts.SignInTarget(r.Ctx(), secret)
	if err != nil {
		return s.ssoRefused(r, err)
	}
	if len(needs) > 0 {
		_, err := s.Accounts.SignInFactor(r.Ctx(), secret, codeOf(form.Get("code"), needs))
		if err != nil {
			return s.wrongCode(r, secret, err)
		}
	}
	token, target, err := s.Accounts.TokenSignIn(r.Ctx(), secret)
	if err != nil {
		return s.ssoRefused(r, err)
	}
	address, err := withToken(target, token)
	if err != nil {
		return nil, err
	}
	// A link, because browsers do not let the answer to a form lead to another site that the policy does not name.
	return s.show(r, "ssodone", page{Title: "ssodone.title", Refresh: address, Data: address})
}

// wrongCode shows the page once more, with what was wrong.
func (s *Server) wrongCode(r *Request, secret string, err error) (any, error) {
	var e *matrix.Error
	if !errors.As(err, &e) {
		return nil, err
	}
	return s.showSSO(r, secret, words(r).say(problem(e, "wrong_factor")))
}

// codeOf takes what was typed as a code of an authenticator app, which are digits only, or as a recovery code.
func codeOf(code string, needs []accounts.Evidence) accounts.FactorAnswer {
	code = strings.TrimSpace(code)
	digits := strings.Trim(strings.ReplaceAll(code, " ", ""), "0123456789") == ""
	if digits && slices.Contains(needs, accounts.ByTOTP) {
		return accounts.FactorAnswer{Type: string(accounts.ByTOTP), Code: strings.ReplaceAll(code, " ", "")}
	}
	return accounts.FactorAnswer{Type: string(accounts.ByRecoveryCode), Code: code}
}

// withToken adds a login token to the address of a client, which BeginSSO has checked.
func withToken(target, token string) (template.URL, error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	pairs := strings.Split(u.RawQuery, "&") // as they are: what the client has there is its own affair
	pairs = slices.DeleteFunc(pairs, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		return pair == "" || err == nil && plain == "loginToken"
	})
	u.RawQuery = strings.Join(append(pairs, "loginToken="+url.QueryEscape(token)), "&")
	return template.URL(u.String()), nil //nolint:gosec // its scheme runs nothing
}
