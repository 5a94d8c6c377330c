package clientapi_test

import (
	"bytes"
	"encoding/base64"
	"html"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// smallPNG is a picture of one pixel.
const smallPNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// upload sends the form of the profile with a picture.
func (p *person) upload(csrf, kind string) {
	p.t.Helper()
	picture, err := base64.StdEncoding.DecodeString(smallPNG)
	if err != nil {
		p.t.Fatal(err)
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	_ = form.WriteField("csrf", csrf)
	part, err := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="avatar"; filename="me"`}, "Content-Type": {kind}})
	if err != nil {
		p.t.Fatal(err)
	}
	_, _ = part.Write(picture)
	_ = form.Close()
	p.open("POST", "/oauth2/avatar", body.String(), "Content-Type", form.FormDataContentType())
}

// manage opens a part of account management as somebody who signs in for it.
func (p *person) manage(section, name string) {
	p.t.Helper()
	p.open("GET", "/oauth2/account/"+section, "")
	p.sees(http.StatusOK, "Password")
	p.signIn(name)
}

var shownCode = regexp.MustCompile(`<code>([^<]+)</code>`)

// code is what a page shows to be typed elsewhere.
func (p *person) code() string {
	p.t.Helper()
	m := shownCode.FindStringSubmatch(p.page)
	if m == nil {
		p.t.Fatalf("the page shows no code: %s", p.page)
	}
	return html.UnescapeString(m[1])
}

// idOf is the ID in the form that ends something.
func (p *person) idOf() string {
	p.t.Helper()
	m := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(p.page)
	if m == nil {
		p.t.Fatalf("nothing to end on %s", p.page)
	}
	return m[1]
}

// TestAccountCare has somebody look after their profile and what protects their account, without a client that could.
func TestAccountCare(t *testing.T) {
	proof.Of(t, "OA-09", "OA-10", "A10", "A12")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		profile := func() object { return alice.Must("GET", testserver.Path("profile", alice.ID), nil).Body }
		p, other := newPerson(t, s), newPerson(t, s)
		p.open("GET", "/oauth2/account?action=org.matrix.profile", "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Display name", "You have no picture yet.")
		p.submit("/oauth2/account", "do", "displayname", "displayname", " Alice & Co ")
		p.sees(http.StatusOK, "Saved.", "Alice & Co")
		p.submit("/oauth2/account", "do", "displayname", "displayname", strings.Repeat("x", 1025))
		p.sees(http.StatusBadRequest, "That could not be saved.")
		csrf := p.csrf()
		for _, forged := range []string{"", "x", csrf + "x"} {
			if p.upload(forged, "image/png"); p.status != http.StatusForbidden {
				t.Errorf("a picture with the token %q: %d", forged, p.status)
			}
		}
		p.upload(csrf, "image/svg+xml")
		p.sees(http.StatusBadRequest, "Choose a picture")
		p.upload(csrf, "image/png")
		p.sees(http.StatusOK, "Saved.", "data:image/")
		if now := profile(); now["displayname"] != "Alice & Co" || !strings.HasPrefix(now["avatar_url"].(string), "mxc://") {
			t.Errorf("the profile is %v", now)
		}
		p.submit("/oauth2/account", "do", "avatar_remove")
		p.submit("/oauth2/account", "do", "displayname", "displayname", "")
		if now := profile(); now["displayname"] != nil || now["avatar_url"] != nil {
			t.Errorf("the profile is still %v", now)
		}

		// What is begun in one sign-in cannot be ended in another, not even of the same person.
		other.manage("security", "alice")
		other.sees(http.StatusOK, "Authenticator app", "App passwords")
		p.open("GET", "/oauth2/account/security", "")
		p.submit("/oauth2/account", "do", "totp_begin")
		secret := p.code()
		code, err := totp.GenerateCode(secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		other.submit("/oauth2/account", "do", "totp_confirm", "code", code)
		other.sees(http.StatusNotFound, "Setting it up took too long, or was begun elsewhere.")
		p.submit("/oauth2/account", "do", "totp_confirm", "code", "12345")
		p.sees(http.StatusForbidden, "The code is not right.")
		p.submit("/oauth2/account", "do", "totp_confirm", "code", code)
		p.sees(http.StatusOK, "Your authenticator app is set up.", "Recovery codes")
		recovery := regexp.MustCompile(`<li>([A-Z0-9-]{23})</li>`).FindAllStringSubmatch(p.page, -1)
		if len(recovery) != 10 {
			t.Fatalf("%d recovery codes: %s", len(recovery), p.page)
		}
		p.open("GET", "/oauth2/account/security", "") // whoever has set it up has shown it
		p.sees(http.StatusOK, "Signing in asks for a code", "Codes left: 10")
		other.open("GET", "/oauth2/account/security", "") // but nobody else has
		other.sees(http.StatusOK, "Password")

		p.submit("/oauth2/account", "do", "app_add", "name", "Reader")
		login := object{"type": "m.login.password", "password": p.code(), "identifier": object{"type": "m.id.user", "user": "alice"}}
		reader := s.Nobody()
		reader.Token, _ = reader.Must("POST", "/login", login).Body["access_token"].(string)
		p.open("GET", "/oauth2/account/security", "")
		p.submit("/oauth2/account", "do", "app_ask", "id", p.idOf())
		p.sees(http.StatusOK, "Remove this app password?", "Reader")
		p.submit("/oauth2/account", "do", "app_remove", "id", p.idOf())
		p.sees(http.StatusOK, "Removed.")
		reader.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)

		p.submit("/oauth2/account", "do", "codes_new")
		p.sees(http.StatusOK, "Keep these recovery codes")
		q := newPerson(t, s)
		q.manage("security", "alice")
		q.submit("/oauth2/factor", "type", "recovery", "code", recovery[0][1])
		q.sees(http.StatusForbidden, "This is not right, or was used already.")
		p.open("GET", "/oauth2/account/security", "")
		p.submit("/oauth2/account", "do", "totp_remove")
		p.sees(http.StatusOK, "Removed.", "Set up")
		q.open("GET", "/oauth2/account/none", "")
		q.sees(http.StatusNotFound, "This does not work")
	})
}

// TestAccountCareToTheEnd has somebody without a client that could set a new password, take all their data away, and close
// the account with all that it leaves.
func TestAccountCareToTheEnd(t *testing.T) {
	proof.Of(t, "OA-09", "A06")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		alice.Must("PUT", testserver.Path("profile", alice.ID, "displayname"), object{"displayname": "Alice"})
		p := newPerson(t, s)
		p.manage("security", "alice")
		p.submit("/oauth2/account", "do", "password", "new_password", "ninesigns")
		p.sees(http.StatusBadRequest, "It needs at least 10 characters.")
		p.submit("/oauth2/account", "do", "password", "new_password", "a password of now")
		p.sees(http.StatusOK, "Your new password is set.")
		alice.Must("GET", "/account/whoami", nil) // she did not want to be signed out
		p.manage("security", "alice")
		p.sees(http.StatusForbidden, "The name or the password is not right.")
		p.submit("/oauth2/sign_in", "name", "alice", "password", "a password of now")
		p.sees(http.StatusOK, "App passwords")
		p.submit("/oauth2/account", "do", "password", "new_password", testserver.Password, "sign_out", "yes")
		p.sees(http.StatusOK, "Your new password is set.")
		alice.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)

		// The archive is for whoever has signed in here, and nobody else.
		p.open("GET", "/oauth2/export", "")
		p.sees(http.StatusOK, "Password")
		p.signIn("alice")
		p.sees(http.StatusOK, "Put my data together")
		p.open("GET", "/oauth2/export", "")
		p.sees(http.StatusNotFound, "The archive is there no more.")
		p.submit("/oauth2/account", "do", "data_begin")
		wait.Until(t, "the archive to be ready", func() bool {
			p.submit("/oauth2/account", "do", "data")
			return strings.Contains(p.page, "/oauth2/export")
		})
		csrf := p.csrf()
		p.open("GET", "/oauth2/export", "")
		if p.status != http.StatusOK || !strings.HasPrefix(p.page, "PK") || p.header.Get("Cache-Control") != "no-store" ||
			p.header.Get("Cross-Origin-Resource-Policy") != "same-origin" || !strings.HasPrefix(p.header.Get("Content-Disposition"), "attachment;") {
			t.Errorf("the archive is answered %d with %v", p.status, p.header)
		}
		other := newPerson(t, s)
		other.open("GET", "/oauth2/export", "")
		other.sees(http.StatusOK, "Password")

		erased := url.Values{"csrf": {csrf}, "do": {"deactivate"}, "typed": {"alice"}, "erase": {"yes"}}
		p.open("POST", "/oauth2/account", erased.Encode())
		p.sees(http.StatusOK, "Your account is closed.")
		other.signIn("alice")
		other.sees(http.StatusForbidden, "The name or the password is not right.")
		bob := s.Register("bob")
		wait.Until(t, "the profile to be erased", func() bool {
			a, err := bob.Do("GET", testserver.Path("profile", alice.ID), nil)
			return err == nil && a.Body["displayname"] == nil
		})
	})
}

// TestAccountCareOverdue has somebody sign in on the pages whose second factor is overdue: they can set one up, and nothing
// else, neither for themselves nor for an app.
func TestAccountCareOverdue(t *testing.T) {
	proof.Of(t, "A10")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_AUTH_REQUIRE_2FA=all", "CONCLAVE_AUTH_GRACE_HOURS=0"}})
	alice := s.Register("alice")
	alice.Do("GET", "/account/whoami", nil) //nolint:errcheck // it begins the time of grace, which is none
	a := registerApp(t, s, webApp("Alpha"))
	p := newPerson(t, s)
	p.open("GET", a.at("PHONE"), "")
	p.signIn("alice")
	p.sees(http.StatusOK, "This server wants two-factor login from you.", "Set up two-factor login")
	p.submit("/oauth2/decide", "decision", "allow")
	p.sees(http.StatusForbidden, "This server wants two-factor login from you.")
	p.manage("profile", "alice")
	p.sees(http.StatusOK, "Until then you can do nothing else here.")
	for _, do := range []string{"displayname", "app_add", "delete", "deactivate", "list"} {
		p.submit("/oauth2/account", "do", do, "displayname", "x", "name", "x", "typed", "alice", "device_id", alice.Device)
		p.sees(http.StatusOK, "Until then you can do nothing else here.")
	}
	p.submit("/oauth2/account", "do", "totp_begin")
	code, err := totp.GenerateCode(p.code(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p.submit("/oauth2/account", "do", "totp_confirm", "code", code)
	p.sees(http.StatusOK, "Your authenticator app is set up.")
	p.open("GET", "/oauth2/account/profile", "")
	p.sees(http.StatusOK, "Display name")
}

// TestSingleSignOnHere signs in on our own page for a client that knows no OAuth (client-server API, "OAuth 2.0 aware
// clients").
func TestSingleSignOnHere(t *testing.T) {
	proof.Of(t, "OA-11", "A13")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "open"))
		alice := s.Register("alice")
		secret, _ := enrol(t, alice)
		preferred := false
		flows, _ := s.Nobody().Must("GET", "/login", nil).Body["flows"].([]any)
		for _, flow := range flows {
			preferred = preferred || testserver.At(flow, "type") == "m.login.sso" && testserver.At(flow, "oauth_aware_preferred") == true
		}
		if !preferred {
			t.Errorf("the flows are %v", flows)
		}
		at := "/_matrix/client/v3/login/sso/redirect?" + url.Values{"redirectUrl": {ssoTarget}}.Encode()
		for action, words := range map[string]string{"": "User name", "&action=login": "User name", "&action=register": "No account yet?"} {
			p := newPerson(t, s)
			p.open("GET", at+action, "")
			p.sees(http.StatusOK, "https://client.example", words)
		}
		s.Nobody().Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", at+"&action=other", nil)
		s.Nobody().Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/login/sso/redirect/oidc?redirectUrl="+url.QueryEscape(ssoTarget), nil)

		p := newPerson(t, s)
		p.open("GET", strings.Replace(at, "redirect?", "redirect/conclave?", 1), "")
		p.signIn("alice")
		p.submit("/oauth2/decide", "decision", "allow")
		p.sees(http.StatusOK, "Second step")
		code, err := totp.GenerateCode(secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p.submit("/oauth2/factor", "type", "totp", "code", code)
		p.sees(http.StatusOK, alice.ID, "https://client.example", "Go on only if you have just begun to sign in there.")
		p.submit("/oauth2/decide", "decision", "allow")
		back, err := url.Parse(p.left)
		if err != nil || back.Host != "client.example" || back.Query().Get("x") != "1" || back.Fragment != "y" {
			t.Fatalf("the browser went to %q: %d %s", p.left, p.status, p.page)
		}
		login := object{"type": "m.login.token", "token": back.Query().Get("loginToken")}
		if a := s.Nobody().Must("POST", "/login", login).Body; a["user_id"] != alice.ID {
			t.Errorf("the token is of %v", a["user_id"])
		}
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", login)
	})
}

// TestProviderForApps lets an app in as somebody who has no password here, but signs in at the organization's provider.
func TestProviderForApps(t *testing.T) {
	proof.Of(t, "AN-18", "A13")
	s, issuer := ssoServer(t, "sqlite", "ann")
	a := registerApp(t, s, webApp("Alpha"))
	b := newBrowser(t)
	left := ""
	b.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if next.URL.Host == "app.test.example" {
			left = next.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	page := b.open(s.URL + a.at("PHONE"))
	page = b.send(s.URL+"/oauth2/provider", url.Values{"csrf": {b.field(page, "csrf")}})
	page = b.send(issuer+"/login/username", url.Values{"id": {b.field(page, "id")}, "username": {"ann"}, "password": {idp.Password}})
	if !strings.Contains(page, "Allow access?") || !strings.Contains(page, "@ann:") {
		t.Fatalf("the page after the provider's: %d %s", b.last.StatusCode, page)
	}
	b.send(s.URL+"/oauth2/decide", url.Values{"csrf": {b.field(page, "csrf")}, "decision": {"allow"}})
	p := &person{t: t, s: s, left: left}
	if u := a.session(a.exchange(a.answer(p).Get("code"))); u.ID != "@ann:"+string(s.Name) {
		t.Errorf("the session is of %s", u.ID)
	}
}

// TestFallbackOfMail confirms an address on the page of its stage, for a client that knows nothing of it.
func TestFallbackOfMail(t *testing.T) {
	proof.Of(t, "AN-07", "AN-17", "A08")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		m := startMailed(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_ALLOWED_EMAIL_DOMAINS=firma.example"}})
		g := begin(t, m.Server, "alice")
		path := fallbackPath("m.login.email.identity", g.session)
		if p := visit(t, m.Server, path, nil).check(t, 200, "en"); !strings.Contains(p.text, `name="email"`) {
			t.Error(p.text)
		}
		visit(t, m.Server, path, url.Values{}).check(t, 400, "en")
		visit(t, m.Server, path, url.Values{"email": {"alice"}}).check(t, 400, "en")
		if p := visit(t, m.Server, path, url.Values{"email": {"alice@other.example"}}).check(t, 403, "en"); !strings.Contains(p.text, "No account can be made with this address here.") {
			t.Error(p.text)
		}
		if p := visit(t, m.Server, path, url.Values{"email": {"alice@firma.example"}}).check(t, 200, "en"); !strings.Contains(p.text, "A mail was sent") {
			t.Error(p.text)
		}
		if p := visit(t, m.Server, path, url.Values{}); p.status < 400 || !strings.Contains(p.text, "The address is not confirmed yet.") {
			t.Errorf("%d %s", p.status, p.text)
		}
		if p := visit(t, m.Server, path+"&again=yes", nil).check(t, 200, "en"); !strings.Contains(p.text, `name="email"`) {
			t.Error(p.text)
		}
		m.click(m.next("alice@firma.example"))
		if p := visit(t, m.Server, path, url.Values{}).check(t, 200, "en"); !strings.Contains(p.text, authDone) {
			t.Error(p.text)
		}
		if a := g.auth(object{}); a.Status != 200 {
			t.Errorf("after the mail: %d %s", a.Status, a.Raw)
		}
	})
}
