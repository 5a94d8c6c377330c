package accounts

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"testing"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/store"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
)

const ssoTarget = "https://client.example/"

// withProvider gives a world a provider that knows people by their names.
func (w *world) withProvider(t *testing.T, register bool, names ...string) *idp.Provider {
	t.Helper()
	p := idp.New(t, names...)
	p.Serve("https://chat.us.test" + SSOCallback)
	w.provider = newProvider(&config.Config{PublicURL: "https://chat.us.test", OIDC: config.OIDC{
		Issuer: p.Issuer, ClientID: idp.ClientID, ClientSecret: observe.Secret(idp.Secret), Scopes: "openid profile", UsernameClaim: "preferred_username", Register: register,
	}}, http.DefaultClient)
	return p
}

// comeBack lets somebody sign in at the provider, and returns what the browser keeps and comes back with.
func (w *world) comeBack(t *testing.T, p *idp.Provider, name string) (browser, state, code string) {
	t.Helper()
	location, browser, err := w.BeginSSO(t.Context(), ssoTarget)
	must(t, err)
	state, code = atProvider(t, p, location, name)
	return browser, state, code
}

// atProvider lets somebody sign in at the provider whom we have sent there, and returns what the browser comes back with.
func atProvider(t *testing.T, p *idp.Provider, location, name string) (state, code string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	var back *url.URL
	client := &http.Client{Jar: jar, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Host == "chat.us.test" {
			back = next.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Get(location)
	must(t, err)
	page, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, res.Body.Close())
	id := regexp.MustCompile(`name="id" value="([^"]*)"`).FindSubmatch(page)
	if id == nil {
		t.Fatalf("the provider shows %s", page)
	}
	res, err = client.PostForm(p.Issuer+"/login/username", url.Values{"id": {html.UnescapeString(string(id[1]))}, "username": {name}, "password": {idp.Password}})
	must(t, err)
	must(t, res.Body.Close())
	if back == nil {
		t.Fatal("the provider does not send the browser back")
	}
	return back.Query().Get("state"), back.Query().Get("code")
}

func TestSingleSignOnAndTheSecondFactor(t *testing.T) {
	proof.Of(t, "A10", "A13")
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, false, "alice", "stranger")
		alice := w.session(w.register("alice"))
		app, _ := w.enrol(alice)
		w.pass(ssoSkew) // the provider's clock is the real one: to this server it asked too long ago to have asked anew
		w.link(p, "id-of-alice", alice.User)
		browser, state, code := w.comeBack(t, p, "alice")
		back, err := w.FinishSSO(t.Context(), browser, state, code, "")
		must(t, err)
		s := back.SignIn
		_, who, _, err := w.SignInTarget(t.Context(), s.Secret)
		must(t, err)
		if who != alice.UserID || !slices.Equal(s.Needs, []Evidence{ByTOTP, ByRecoveryCode}) {
			t.Errorf("%s needs %v", who, s.Needs)
		}
		_, _, err = w.TokenSignIn(t.Context(), s.Secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.SignInFactor(t.Context(), s.Secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		_, err = w.loginSignIn(s.Secret) // it is for the client at the target
		wantCode(t, err, 403, "M_FORBIDDEN")
		token, target, err := w.TokenSignIn(t.Context(), s.Secret)
		must(t, err)
		login, err := w.LoginToken(t.Context(), token, NewDevice{})
		must(t, err)
		if target != ssoTarget || !slices.Equal(w.session(login).Shown, []Evidence{BySSO, ByTOTP}) {
			t.Errorf("%s by %v", target, w.session(login).Shown)
		}

		// Whom nobody has linked, where nobody gets an account that way; and whose account is closed.
		browser, state, code = w.comeBack(t, p, "stranger")
		_, err = w.FinishSSO(t.Context(), browser, state, code, "")
		wantCode(t, err, 403, "M_FORBIDDEN")
		browser, state, code = w.comeBack(t, p, "alice")
		must(t, w.Deactivate(t.Context(), alice.User))
		_, err = w.FinishSSO(t.Context(), browser, state, code, "")
		wantCode(t, err, 403, "M_USER_DEACTIVATED")

		// A code that another browser has fetched: what proves the browser to the provider is another's.
		ann, annState, _ := w.comeBack(t, p, "stranger")
		_, _, eveCode := w.comeBack(t, p, "stranger")
		_, err = w.FinishSSO(t.Context(), ann, annState, eveCode, "")
		wantCode(t, err, 502, "M_UNKNOWN")
	})
}

// TestNamesThatTheProviderCannotGiveAway: whoever calls themselves at the provider what the server itself speaks by, or
// an application service's user is called, gets no account by that name.
func TestNamesThatTheProviderCannotGiveAway(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, true, "notices", "_irc_bob", "early", "carol")
		w.config.ServerNotices.Localpart = "notices"
		w.exclusive = func(id matrix.UserID) bool { return id == "@_irc_bob:us.test" }
		finish := func(name string) error {
			browser, state, code := w.comeBack(t, p, name)
			_, err := w.FinishSSO(t.Context(), browser, state, code, "")
			return err
		}
		for _, name := range []string{"notices", "_irc_bob"} {
			wantCode(t, finish(name), 403, "M_FORBIDDEN")
			if account, err := w.find(t.Context(), name); err != nil || account != nil {
				t.Errorf("%s: %v %v", name, account, err)
			}
		}
		must(t, finish("carol"))

		// An account of before the configuration named it is a person's, though it has no password.
		must(t, finish("early"))
		_, err := w.System(t.Context(), "early")
		wantCode(t, err, 409, "M_USER_IN_USE")
		var notices *store.Account
		for range 2 {
			notices, err = w.System(t.Context(), "notices")
			must(t, err)
		}
		for what, err := range map[string]error{
			"closed":   w.Close(t.Context(), Closing{User: notices.User, By: "operator"}),
			"opened":   w.ResetPassword(t.Context(), "operator", notices.User, password),
			"a person": w.Link(t.Context(), "operator", notices.User, "id-of-carol-2"),
		} {
			if err == nil {
				t.Errorf("the server's own account is %s", what)
				continue
			}
			wantCode(t, err, 403, "M_FORBIDDEN")
		}
		_, err = w.System(t.Context(), "notices")
		must(t, err)
	})
}

func TestNamesOfElsewhere(t *testing.T) {
	proof.Of(t, "ID-04")
	for name, want := range map[string]string{
		"alice": "alice", "Alice.B@staff.example": "alice.b", "á#=": "=c3=a1=23=3d", "a b": "a=20b", "": "", "@x": "", "A_B-C/D+E": "a_b-c/d+e",
	} {
		if got := mappedLocalpart(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

// TestTargetsAreAddresses names places to send a login token to that are none, or that would say more in a header than where.
func TestTargetsAreAddresses(t *testing.T) {
	proof.Of(t, "A13", "A14")
	for target, want := range map[string]bool{
		"https://client.example/": true, "http://localhost:8080/?a=1;b=2#x": true, "https://[::1]:1/": true, "https://münchen.example/": true, "com.example.app:/": true,
		"https://x;sandbox/": false, "https://x,script-src/": false, "https://*/": false, "https://x'y/": false, "https://x%3By/": false, "https://x=y/": false,
		"https://": false, "https:x": false, "https://u@x/": false, "javascript:alert(1)": false, "//x/": false,
	} {
		if _, err := SSOVisit(target, ""); (err == nil) != want {
			t.Errorf("a token may go to %q: %v", target, err)
		}
	}
}

// TestSubjectsAreText has a provider call somebody what no database keeps.
func TestSubjectsAreText(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const name = "e\x00ve" // who is id-of-… there
		browser, state, code := w.comeBack(t, w.withProvider(t, true, name), name)
		_, err := w.FinishSSO(t.Context(), browser, state, code, "")
		wantCode(t, err, 502, "M_UNKNOWN")
	})
}
