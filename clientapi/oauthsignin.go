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
	pageRoute(get, "/oauth2/link", "im.conclave.page.link", LimitRefresh, (*Server).linkPage),
	pageRoute(post, "/oauth2/link", "im.conclave.page.userCode", LimitLogin, (*Server).enterUserCode),
	pageRoute(get, "/oauth2/account", "im.conclave.page.account", LimitRefresh, (*Server).accountPage),
	pageRoute(post, "/oauth2/account", "im.conclave.page.manage", LimitChange, (*Server).manage),
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
		return s.visitPage(r, http.StatusBadRequest, "error", nil, map[string]any{"Title": "failed_title", "Error": words(r).say("unknown_app")})
	}
	back := v.Return(url.Values{"error": {fault.Code}, "error_description": {fault.Text}, "iss": {s.issuer()}})
	return s.visitPage(r, http.StatusBadRequest, "error", nil, map[string]any{
		"Title": "failed_title", "Error": words(r).say("bad_request") + " " + fault.Text,
		"Return": template.URL(back), "ClientHost": v.Client.Host(), //nolint:gosec // a redirect URI that was checked when it was registered
	})
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

// step shows the page of the step that a sign-in has come to. refused says what was wrong, "" if nothing was.
func (s *Server) step(r *Request, status int, b *browser, refused string) (any, error) {
	data := map[string]any{}
	if refused != "" {
		data["Error"] = words(r).say(refused)
	}
	switch {
	case b.Who == nil:
		data["Passkeys"], data["Name"] = s.Accounts.HasPasskeys(), b.Visit.Hint
		return s.visitPage(r, status, "password", b, data)
	case !b.Who.Ready():
		for name, kind := range map[string]accounts.Evidence{"TOTP": accounts.ByTOTP, "Passkey": accounts.ByPasskey, "Recovery": accounts.ByRecoveryCode} {
			data[name] = slices.Contains(b.Who.Needs, kind)
		}
		return s.visitPage(r, status, "factor", b, data)
	case b.Visit.Client == nil:
		return turnTo(r, signInPageAt)
	}
	return s.consent(r, status, b, data)
}

// consent asks whether a client may have a session.
func (s *Server) consent(r *Request, status int, b *browser, data map[string]any) (any, error) {
	tag, client := languageOf(r.Request()).String(), b.Visit.Client
	data["Terms"], data["Policy"] = client.In(tag, "tos_uri", client.Terms), client.In(tag, "policy_uri", client.Policy)
	if b.Visit.Purpose == accounts.ToLink {
		data["UserCode"] = accounts.ReadableUserCode(b.Visit.Code)
	} else if u, err := url.Parse(b.Visit.Redirect); err == nil {
		data["Target"] = u.Host
		if u.Scheme != "https" {
			data["Target"] = words(r).say("target_app")
		}
	}
	device, err := s.Accounts.Device(r.Ctx(), b.Who.User, b.Visit.Device)
	if err != nil && !errors.Is(err, matrix.NotFound("")) {
		return nil, err
	}
	data["Replaces"] = device != nil
	return s.visitPage(r, status, "consent", b, data)
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
	return s.step(r, known.Status, b, problem(known, refused))
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
	return s.visitPage(r, http.StatusOK, "passkey", b, map[string]any{"Options": string(raw), "Challenge": challenge})
}

// decide ends a visit with a yes or a no, or goes back to the question who it is.
func (s *Server) decide(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	switch form.Get("decision") {
	case "allow":
		if b.signedIn() && b.Visit.Client != nil {
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
		return s.step(r, http.StatusBadRequest, b, "not_mine")
	}
	v, code, err := s.Accounts.Allow(r.Ctx(), b.Secret, b.SignIn)
	var known *matrix.Error
	if errors.As(err, &known) { // such as: the account has to have a second factor first
		return s.step(r, known.Status, b, known.Text)
	}
	if err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	if link {
		return s.visitPage(r, http.StatusOK, "end", nil, map[string]any{"Title": "linked_title", "Text": "linked"})
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
	case accounts.ToLink:
		return s.visitPage(r, http.StatusOK, "end", nil, map[string]any{"Title": "denied_title", "Text": "denied"})
	}
	return s.visitPage(r, http.StatusOK, "end", nil, map[string]any{"Title": "closed_title", "Text": "closed"})
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
	return s.visitPage(r, http.StatusOK, "link", b, map[string]any{"UserCode": code})
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
		data := map[string]any{"UserCode": form.Get("user_code"), "Error": words(r).say(problem(known, "wrong_code"))}
		return s.visitPage(r, known.Status, "link", b, data)
	}
	if err != nil {
		return nil, err
	}
	return turnTo(r, signInPageAt)
}
