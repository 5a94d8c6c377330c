package clientapi

import (
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// pageRoutes are our pages (oauthpages.go).
var pageRoutes = []Route{
	pageRoute(get, "/oauth2/authorize", "im.conclave.page.authorize", LimitRefresh, (*Server).authorize),
	pageRoute(get, "/oauth2/sign_in", "im.conclave.page.signIn", LimitRead, (*Server).signInPage),
	pageRoute(post, "/oauth2/sign_in", "im.conclave.page.password", LimitLogin, (*Server).pagePassword),
	pageRoute(post, "/oauth2/factor", "im.conclave.page.factor", LimitLogin, (*Server).pageFactor),
	pageRoute(post, "/oauth2/passkey", "im.conclave.page.passkey", LimitLogin, (*Server).pagePasskey),
	pageRoute(post, "/oauth2/decide", "im.conclave.page.decide", LimitChange, (*Server).decide),
	pageRoute(get, "/oauth2/sso", "im.conclave.page.sso", LimitRefresh, (*Server).ssoPage),
	pageRoute(post, "/oauth2/provider", "im.conclave.page.provider", LimitLogin, (*Server).toProvider),
	pageRoute(get, "/oauth2/link", "im.conclave.page.link", LimitRefresh, (*Server).linkPage),
	pageRoute(post, "/oauth2/link", "im.conclave.page.userCode", LimitLogin, (*Server).enterUserCode),
	pageRoute(get, "/oauth2/account", "im.conclave.page.account", LimitRefresh, (*Server).accountPage),
	pageRoute(get, "/oauth2/account/:section", "im.conclave.page.section", LimitRefresh, (*Server).accountSection),
	pageRoute(get, "/oauth2/export", "im.conclave.page.export", LimitMedia, (*Server).exportFile),
	pageRoute(post, "/oauth2/account", "im.conclave.page.manage", LimitChange, (*Server).manage),
	{Method: post, Path: "/oauth2/avatar", OperationID: "im.conclave.page.avatar", Auth: NoAuth, Limit: LimitChange, Body: maxAvatar + maxOAuthBody, Page: true, Fail: (*Server).failPage, Handler: (*Server).newAvatar},
}

func pageRoute(method, path, id string, limit Limit, handler func(*Server, *Request) (any, error)) Route {
	return Route{
		Method: method, Path: path, OperationID: id, Auth: NoAuth, Limit: limit, Body: maxOAuthBody, Handler: handler,
		Page: true, Fail: (*Server).failPage,
	}
}

const signInPageAt = "/oauth2/sign_in"

// authorize is the authorization endpoint: a client has sent somebody here.
func (s *Server) authorize(r *Request) (any, error) {
	v, err := s.Accounts.Authorization(r.Ctx(), r.QueryParams())
	var fault *accounts.OAuthError
	if errors.As(err, &fault) {
		return s.badAuthorization(r, v, fault)
	}
	if err != nil {
		return nil, err
	}
	return s.receive(r, v, signInPageAt)
}

// badAuthorization tells of a request that is wrong. Anybody can register a client: nobody is sent on to its address
// without having seen where that is (RFC 9700, section 4.11.2; threats A13).
func (s *Server) badAuthorization(r *Request, v *accounts.Visit, fault *accounts.OAuthError) (any, error) {
	if v == nil {
		return s.show(r, "error", page{Status: http.StatusBadRequest, Title: "failed_title", Error: words(r).say("unknown_app")})
	}
	back := v.Return(url.Values{"error": {fault.Code}, "error_description": {fault.Text}, "iss": {s.issuer()}})
	return s.show(r, "error", page{
		Status: http.StatusBadRequest, Title: "failed_title", Error: words(r).say("bad_request") + " " + fault.Text, // which is for the app's makers
		Data: wayBack{template.URL(back), v.Client.Host()}, //nolint:gosec // a redirect URI that was checked when it was registered
	})
}

// wayBack is where a page leads that goes no further.
type wayBack struct {
	Address template.URL
	Name    string
}

// receive begins a visit.
func (s *Server) receive(r *Request, v *accounts.Visit, where string) (any, error) {
	secret, err := s.Accounts.BeginVisit(r.Ctx(), v)
	if err != nil {
		return nil, err
	}
	s.keepVisit(r, secret, "")
	return turnTo(r, where)
}

// signInPage shows whatever comes next.
func (s *Server) signInPage(r *Request) (any, error) {
	b, err := s.browser(r)
	if err != nil {
		return nil, err
	}
	switch {
	case b.Visit.Purpose == accounts.ToLink && b.Visit.Grant == nil:
		return turnTo(r, "/oauth2/link")
	case b.signedIn() && b.Visit.Purpose == accounts.ToManage:
		return turnTo(r, "/oauth2/account")
	}
	return s.step(r, http.StatusOK, b, "")
}

// passwordData is what the page asks a name and a password with.
type passwordData struct {
	Name     string
	Passkeys bool
	Provider string // the name of the organization's, "" for none
	Target   string // of single sign-on: where the client is
	SignUp   string // where people make an account, "" if they cannot or do not want to
}

// factorData are the kinds of second factor that are asked for.
type factorData struct{ TOTP, Passkey, Recovery bool }

// step shows the page of the step that a sign-in has come to. refused says what was wrong, "" if nothing was.
func (s *Server) step(r *Request, status int, b *browser, refused string) (any, error) {
	p := page{Status: status, Error: refused}
	switch {
	case b.Who == nil:
		data := passwordData{Name: b.Visit.Hint, Passkeys: s.Accounts.HasPasskeys()}
		if s.Accounts.HasSSO() {
			data.Provider = s.Config.OIDC.Name
		}
		if b.Visit.Purpose == accounts.ToSSO {
			data.Target = clientOf(b.Visit.Redirect)
		}
		if b.Visit.Action == "register" && s.Config.Registration.Mode != "closed" {
			data.SignUp = s.issuer() + "#/register"
		}
		p.Title, p.Data = "password_title", data
		return s.visitPage(r, b, "password", p)
	case !b.Who.Ready():
		wants := func(kind accounts.Evidence) bool { return slices.Contains(b.Who.Needs, kind) }
		p.Title, p.Data = "factor_title", factorData{wants(accounts.ByTOTP), wants(accounts.ByPasskey), wants(accounts.ByRecoveryCode)}
		return s.visitPage(r, b, "factor", p)
	case b.Visit.Purpose == accounts.ToSSO:
		p.Title, p.Data = "sso.title", ssoData{User: b.Who.UserID, Host: clientOf(b.Visit.Redirect), Action: "/oauth2/decide"}
		return s.visitPage(r, b, "sso", p)
	case b.Visit.Client == nil:
		return turnTo(r, signInPageAt)
	}
	return s.consent(r, b, p)
}

// consentData is what the page asks with whether a client may have a session.
type consentData struct {
	Target   string // where the browser goes then
	UserCode string
	Device   matrix.DeviceID
	Replaces bool // a session with the same ID
	Terms    string
	Policy   string
	Enrol    string // the action by which a second factor is set up that is demanded first
}

// consent asks whether a client may have a session.
func (s *Server) consent(r *Request, b *browser, p page) (any, error) {
	tag, client := languageOf(r.Request()).String(), b.Visit.Client
	data := consentData{Device: b.Visit.Device, Terms: client.In(tag, "tos_uri", client.Terms), Policy: client.In(tag, "policy_uri", client.Policy)}
	if b.Visit.Purpose == accounts.ToLink {
		data.UserCode = accounts.ReadableUserCode(b.Visit.Code)
	} else if u, err := url.Parse(b.Visit.Redirect); err == nil {
		data.Target = u.Host
		if u.Scheme != "https" {
			data.Target = words(r).say("target_app")
		}
	}
	device, err := s.Accounts.Device(r.Ctx(), b.Who.User, b.Visit.Device)
	if err != nil && !errors.Is(err, matrix.NotFound("")) {
		return nil, err
	}
	data.Replaces = device != nil
	if b.Who.MustEnrol {
		data.Enrol = actionFactors
		if p.Error == "" {
			p.Error = words(r).say("must_enrol")
		}
	}
	p.Title, p.Data = "consent_title", data
	return s.visitPage(r, b, "consent", p)
}

// goOn goes on with a sign-in that a step has brought forward.
func (s *Server) goOn(r *Request, b *browser, signIn *accounts.SigningIn) (any, error) {
	s.keepVisit(r, b.Secret, signIn.Secret)
	return turnTo(r, signInPageAt)
}

// again shows a step again that was not passed.
func (s *Server) again(r *Request, b *browser, err error, refused string) (any, error) {
	var known *matrix.Error
	if !errors.As(err, &known) {
		return nil, err
	}
	if b.SignIn != "" && b.Who != nil { // it may be over
		if b.Who, err = s.Accounts.SignedIn(r.Ctx(), b.SignIn); err != nil {
			return nil, err
		}
	}
	return s.step(r, known.Status, b, words(r).say(problem(known, refused)))
}

// refusal is what a page says of an error, which may give its reason; refused is the key for what is simply wrong.
func (s *Server) refusal(r *Request, err error, refused string) string {
	var why *accounts.Refusal
	if errors.As(err, &why) {
		if why.What != "" {
			return words(r).say("refusal."+why.Why, why.What)
		}
		return words(r).say("refusal." + why.Why)
	}
	return words(r).say(problem(err, refused))
}

// identifierOf is whom somebody means by what they type: a user name, a user ID, or an e-mail address.
func identifierOf(typed string) accounts.Identifier {
	if strings.Index(typed, "@") > 0 {
		return accounts.Identifier{Type: "m.id.thirdparty", Medium: "email", Address: typed}
	}
	return accounts.Identifier{Type: "m.id.user", User: typed}
}

// pagePassword begins with a name and a password.
func (s *Server) pagePassword(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	b.Who, b.Visit.Hint = nil, form.Get("name")
	signIn, err := s.Accounts.SignInPassword(r.Ctx(), identifierOf(form.Get("name")), form.Get("password"))
	if err != nil {
		return s.again(r, b, err, "wrong_password")
	}
	return s.goOn(r, b, signIn)
}

// pageFactor goes on with a code.
func (s *Server) pageFactor(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	if b.Who == nil {
		return turnTo(r, signInPageAt)
	}
	kind := form.Get("type")
	if kind != string(accounts.ByTOTP) {
		kind = string(accounts.ByRecoveryCode)
	}
	signIn, err := s.Accounts.SignInFactor(r.Ctx(), b.SignIn, accounts.FactorAnswer{Type: kind, Code: form.Get("code")})
	if err != nil {
		return s.again(r, b, err, "wrong_factor")
	}
	return s.goOn(r, b, signIn)
}

// pagePasskey asks for a passkey, as the second factor of whoever has shown a password and else alone, and takes it.
func (s *Server) pagePasskey(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	second := b.Who != nil
	credential, challenge := json.RawMessage(form.Get("credential")), form.Get("challenge")
	if len(credential) == 0 {
		return s.askPasskey(r, b)
	}
	var signIn *accounts.SigningIn
	if second {
		answer := accounts.FactorAnswer{Type: string(accounts.ByPasskey), Passkey: credential, Challenge: challenge}
		signIn, err = s.Accounts.SignInFactor(r.Ctx(), b.SignIn, answer)
	} else {
		signIn, err = s.Accounts.SignInPasskey(r.Ctx(), challenge, credential)
	}
	if err != nil {
		return s.again(r, b, err, "wrong_passkey")
	}
	return s.goOn(r, b, signIn)
}

func (s *Server) askPasskey(r *Request, b *browser) (any, error) {
	begin := func() (any, string, error) { return s.Accounts.BeginPasskeySignIn(r.Ctx()) }
	if b.Who != nil {
		begin = func() (any, string, error) { return s.Accounts.SignInChallenge(r.Ctx(), b.SignIn) }
	}
	options, challenge, err := begin()
	if err != nil {
		return s.again(r, b, err, "wrong_passkey")
	}
	raw, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	return s.visitPage(r, b, "passkey", page{
		Title: "passkey_title", Script: "passkey.js",
		Data: passkeyData{Action: "/oauth2/passkey", Options: string(raw), Challenge: challenge, Back: signInPageAt},
	})
}

// passkeyData is what a script asks the browser for a passkey with, or to make one.
type passkeyData struct {
	Action    string // where the form goes
	Options   string // JSON
	Challenge string
	Make      bool
	Name      string // of a new one
	Back      string // for those who would rather not
}

// decide ends a visit with a yes or a no, or goes back to the question who it is.
func (s *Server) decide(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	switch form.Get("decision") {
	case "allow":
		if b.signedIn() && (b.Visit.Client != nil || b.Visit.Purpose == accounts.ToSSO) {
			return s.allow(r, b, form)
		}
	case "other":
		s.keepVisit(r, b.Secret, "")
	case "deny":
		return s.refuse(r, b)
	}
	return turnTo(r, signInPageAt)
}

func (s *Server) allow(r *Request, b *browser, form url.Values) (any, error) {
	link := b.Visit.Purpose == accounts.ToLink
	if link && form.Get("mine") != "yes" {
		return s.step(r, http.StatusBadRequest, b, words(r).say("not_mine"))
	}
	v, code, err := s.Accounts.Allow(r.Ctx(), b.Secret, b.SignIn)
	var known *matrix.Error
	if errors.As(err, &known) { // such as: the account has to have a second factor first
		return s.step(r, known.Status, b, s.refusal(r, err, "visit_over"))
	}
	if err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	if link {
		return s.endPage(r, "linked_title", "linked")
	}
	if v.Purpose == accounts.ToSSO {
		address, err := withToken(v.Redirect, code)
		if err != nil {
			return nil, err
		}
		return turnTo(r, string(address))
	}
	return turnTo(r, v.Return(url.Values{"code": {code}, "iss": {s.issuer()}}))
}

func (s *Server) refuse(r *Request, b *browser) (any, error) {
	v, err := s.Accounts.Refuse(r.Ctx(), b.Secret, b.SignIn)
	if err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	switch v.Purpose {
	case accounts.ToAuthorize:
		return turnTo(r, v.Return(url.Values{"error": {"access_denied"}, "error_description": {"The user did not allow it."}, "iss": {s.issuer()}}))
	case accounts.ToLink, accounts.ToSSO:
		return s.endPage(r, "denied_title", "denied")
	}
	return s.endPage(r, "closed_title", "closed")
}

// linkPage asks for the user code of a device. One that is in the address is shown, to be compared with the device's own
// (RFC 8628, section 3.3.1).
func (s *Server) linkPage(r *Request) (any, error) {
	b, err := s.browser(r)
	if err != nil || b.Visit.Purpose != accounts.ToLink || b.Visit.Grant != nil {
		b = &browser{Visit: &accounts.Visit{Purpose: accounts.ToLink}}
		if b.Secret, err = s.Accounts.BeginVisit(r.Ctx(), b.Visit); err != nil {
			return nil, err
		}
		s.keepVisit(r, b.Secret, "")
	}
	code := accounts.ReadableUserCode(accounts.PlainUserCode(r.QueryParam("user_code")))
	return s.visitPage(r, b, "link", page{Title: "link_title", Data: code})
}

// enterUserCode takes a user code.
func (s *Server) enterUserCode(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	err = s.Accounts.EnterUserCode(r.Ctx(), b.Secret, form.Get("user_code"))
	var known *matrix.Error
	if errors.As(err, &known) {
		wrong := words(r).say(problem(known, "wrong_code"))
		return s.visitPage(r, b, "link", page{Status: known.Status, Title: "link_title", Error: wrong, Data: form.Get("user_code")})
	}
	if err != nil {
		return nil, err
	}
	return turnTo(r, signInPageAt)
}
