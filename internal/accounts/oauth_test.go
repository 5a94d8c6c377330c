package accounts

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// redirects are redirect URIs of a client of https://example.com/, and whether one of a type may have them.
var redirects = []struct {
	uri         string
	web, native bool
}{
	// Of the specification.
	{"https://example.com/callback", true, true},
	{"https://app.example.com/callback", true, true},
	{"https://example.com:5173/?query=value", true, true},
	{"com.example.app:/callback", false, true},
	{"com.example:/", false, true},
	{"com.example:callback", false, true},
	{"http://localhost/callback", false, true},
	{"http://127.0.0.1/callback", false, true},
	{"http://[::1]/callback", false, true},
	{"https://example.com/callback#fragment", false, false},
	{"http://example.com/callback", false, false},
	{"http://localhost/", false, true},
	{"example:/callback", false, false},
	{"com.example.app://callback", false, false},
	{"https://localhost/callback", false, false},
	{"http://localhost:1234/callback", false, false},
	// Of people who wish us ill.
	{"https://evil.test/callback", false, false},
	{"https://example.com.evil.test/", false, false},
	{"https://evilexample.com/", false, false},
	{"https://example.com@evil.test/", false, false},
	{"https://example.com:pass@evil.test/", false, false},
	{"https://user@example.com/", false, false},
	{`https://evil.test\.example.com/`, false, false},
	{"https://evil.test%2f.example.com/", false, false},
	{"https://evil.test%00.example.com/", false, false},
	{"https://.example.com/", false, false},
	{"https://a..example.com/", false, false},
	{"https://example.com./", false, false},
	{"https://EXAMPLE.com/", false, false},
	{"HTTPS://example.com/", false, false},
	{"https://example.com:0/", false, false},
	{"https://example.com:99999/", false, false},
	{"https://example.com:/", false, false},
	{"https:example.com/", false, false},
	{"https:///example.com/", false, false},
	{"//example.com/", false, false},
	{"/callback", false, false},
	{"", false, false},
	{"https://example.com/ x", false, false},
	{"https://example.com/\r\nSet-Cookie: a=b", false, false},
	{"https://example.com/\u202e", false, false},
	{"https://exаmple.com/", false, false}, // with a Cyrillic letter
	{"https://example.com/#", false, false},
	{"javascript:alert(1)", false, false},
	{"data:text/html,<script>", false, false},
	{"file:///etc/passwd", false, false},
	{"com.examples:/", false, false},
	{"com.example-evil:/", false, false},
	{"com:/", false, false},
	{"COM.example:/", false, false},
	{"com.example://evil.test/", false, false},
	{"http://localhost.evil.test/", false, false},
	{"http://user@localhost/", false, false},
	{"http://127.0.0.2/", false, false},
	{"http://2130706433/", false, false},
	{"https://x;script-src.example.com/", false, false},
	{"https://example.com/" + strings.Repeat("a", maxClientURI), false, false},
}

func TestRedirectURIs(t *testing.T) {
	proof.Of(t, "OA-03", "A13")
	for _, c := range redirects {
		if got := validRedirect(c.uri, "example.com", false); got != c.web {
			t.Errorf("a web client may have %q: %v", c.uri, got)
		}
		if got := validRedirect(c.uri, "example.com", true); got != c.native {
			t.Errorf("a native client may have %q: %v", c.uri, got)
		}
	}
	for _, c := range []struct {
		registered, given string
		same              bool
	}{
		{"http://localhost/a", "http://localhost:1234/a", true},
		{"http://[::1]/a", "http://[::1]:1/a", true},
		{"http://127.0.0.1", "http://127.0.0.1:65535", true},
		{"http://localhost/a", "http://localhost/a", true},
		{"http://localhost/a", "http://localhost:1234/b", false},
		{"http://localhost/a", "http://localhost:/a", false},
		{"http://localhost/a", "http://localhost:0/a", false},
		{"http://localhost/a", "http://localhost:65536/a", false},
		{"http://localhost/a", "http://127.0.0.1:1/a", false},
		{"http://localhost", "http://localhost:80@evil.test", false},
		{"http://localhost/a", "http://localhost:80.evil.test/a", false},
		{"http://localhost/a", "https://localhost:1/a", false},
		{"https://example.com/a", "https://example.com:1/a", false},
		{"https://example.com/a", "https://example.com/a?b", false},
		{"https://example.com/a", "https://example.com/a/", false},
		{"https://example.com/a", "https://example.com/%61", false},
	} {
		if got := sameRedirect(c.registered, c.given); got != c.same {
			t.Errorf("%q registered, %q given: %v", c.registered, c.given, got)
		}
	}
	for uri, want := range map[string]bool{
		"https://example.com/": true, "https://example.com:8443/about?x": true, "https://localhost/": true, "https://192.0.2.1/": true, "https://[2001:db8::1]/": true,
		"http://example.com/": false, "https://co.uk/": false, "https://com/": false, "https://github.io/": false, "https://u:p@example.com/": false, "example.com": false,
	} {
		if _, ok := clientHost(uri); ok != want {
			t.Errorf("client_uri %q: %v", uri, ok)
		}
	}
}

// FuzzRedirectURI holds what is let through against what programs make of it that send people there.
func FuzzRedirectURI(f *testing.F) {
	for _, c := range redirects {
		f.Add(c.uri, true)
		f.Add(c.uri, false)
	}
	f.Fuzz(func(t *testing.T, uri string, native bool) {
		if !validRedirect(uri, "example.com", native) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.User != nil || u.Fragment != "" || strings.ContainsAny(uri, "#\\\r\n\t <>\"") {
			t.Fatalf("%q is let through", uri)
		}
		host := u.Hostname()
		switch {
		case u.Scheme == "https" && (host == "example.com" || strings.HasSuffix(host, ".example.com")):
		case native && u.Scheme == "http" && u.Port() == "" && (host == "localhost" || host == "127.0.0.1" || host == "::1"):
		case native && u.Host == "" && (u.Scheme == "com.example" || strings.HasPrefix(u.Scheme, "com.example.")):
		default:
			t.Fatalf("%q is let through: it leads to %q", uri, host)
		}
	})
}

func isOAuth(err error, code string) bool {
	var fault *OAuthError
	return errors.As(err, &fault) && fault.Code == code
}

func wantOAuth(t testing.TB, err error, code string) {
	t.Helper()
	if !isOAuth(err, code) {
		t.Errorf("error %v, want %s", err, code)
	}
}

func TestClientMetadata(t *testing.T) {
	proof.Of(t, "OA-02")
	const good = `"client_uri":"https://example.com/","redirect_uris":["https://example.com/a"]`
	for text, code := range map[string]string{
		`{` + good + `}`: "",
		`{` + good + `,"unknown":{"a":1.5},"grant_types":["authorization_code","x"],"response_types":["x","code"],"logo_uri":"https://cdn.example.com/x.png"}`: "",
		`{` + good + `,"grant_types":["urn:ietf:params:oauth:grant-type:device_code"],"response_types":[]}`:                                                    "",
		`[]`:                                    "invalid_client_metadata",
		`{"client_uri":1}`:                      "invalid_client_metadata",
		`{"redirect_uris":["https://a"]}`:       "invalid_client_metadata",
		`{"client_uri":"https://example.com/"}`: "invalid_redirect_uri",
		`{"client_uri":"https://example.com/","redirect_uris":["https://evil.test/"]}`: "invalid_redirect_uri",
		`{` + good + `,"token_endpoint_auth_method":"client_secret_basic"}`:            "invalid_client_metadata",
		`{` + good + `,"application_type":"x"}`:                                        "invalid_client_metadata",
		`{` + good + `,"response_types":["token"]}`:                                    "invalid_client_metadata",
		`{` + good + `,"grant_types":["password"]}`:                                    "invalid_client_metadata",
		`{` + good + `,"logo_uri":"https://evil.test/x.png"}`:                          "invalid_client_metadata",
		`{` + good + `,"tos_uri":"http://example.com/"}`:                               "invalid_client_metadata",
		`{` + good + `,"policy_uri":"javascript:alert(1)"}`:                            "invalid_client_metadata",
		`{` + good + `,"policy_uri#de":"https://evil.test/"}`:                          "invalid_client_metadata",
		`{` + good + `,"client_name":"` + strings.Repeat("n", maxClientName+1) + `"}`:  "invalid_client_metadata",
		`{` + good + `,"client_name":"a\u202eb"}`:                                      "invalid_client_metadata",
		`{` + good + `,"client_name":"a\nb"}`:                                          "invalid_client_metadata",
		`{"client_uri":"https://example.com/","redirect_uris":[` + strings.Repeat(`"https://example.com/a",`, maxRedirects) + `"https://example.com/b"]}`: "invalid_redirect_uri",
	} {
		c, err := readClient([]byte(text))
		switch {
		case code != "":
			wantOAuth(t, err, code)
		case err != nil:
			t.Errorf("%s: %v", text, err)
		case c.Metadata()["token_endpoint_auth_method"] != "none" || c.Metadata()["unknown"] != nil:
			t.Errorf("%s became %v", text, c.Metadata())
		}
	}
}

const (
	verifier   = "a-verifier-that-is-long-enough-for-RFC-7636-to-take-it"
	nativeBack = "http://localhost:5173/back"
)

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// oauthClient registers a native client that may use every grant.
func (w *world) oauthClient(name string) *Client {
	w.t.Helper()
	c, err := w.RegisterClient(w.t.Context(), []byte(`{"client_uri":"https://example.com/","client_name":"`+name+`","application_type":"native",
		"redirect_uris":["http://localhost/back"],"grant_types":["authorization_code","refresh_token","`+GrantDevice+`"]}`))
	must(w.t, err)
	return c
}

// request is an authorization request, changed by pairs.
func request(c *Client, device string, change ...string) url.Values {
	q := url.Values{
		"client_id": {c.ID}, "redirect_uri": {nativeBack}, "response_type": {"code"}, "state": {"s"}, "scope": {Scope(matrix.DeviceID(device))},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(change); i += 2 {
		q.Set(change[i], change[i+1])
	}
	return q
}

// signedIn signs somebody in by password.
func (w *world) signedIn(name string) string {
	w.t.Helper()
	s, err := w.SignInPassword(w.t.Context(), Identifier{User: name}, password)
	must(w.t, err)
	return s.Secret
}

// code gets an authorization code for somebody.
func (w *world) code(c *Client, name, device string) string {
	w.t.Helper()
	v, err := w.Authorization(w.t.Context(), request(c, device))
	must(w.t, err)
	visit, err := w.BeginVisit(w.t.Context(), v)
	must(w.t, err)
	_, code, err := w.Allow(w.t.Context(), visit, w.signedIn(name))
	must(w.t, err)
	return code
}

func (w *world) redeem(c *Client, code string) (*Login, error) {
	return w.RedeemCode(w.t.Context(), c.ID, code, nativeBack, verifier, "192.0.2.1")
}

func TestAuthorizationRequests(t *testing.T) {
	proof.Of(t, "OA-04", "OA-05")
	eachFactor(t, func(t *testing.T, w *world) {
		c := w.oauthClient("app")
		for _, bad := range []struct{ name, value, code string }{
			{"response_type", "token", "unsupported_response_type"}, {"response_type", "", "unsupported_response_type"},
			{"response_mode", "form_post", "invalid_request"}, {"code_challenge", "", "invalid_request"}, {"code_challenge", "short", "invalid_request"},
			{"code_challenge_method", "plain", "invalid_request"}, {"code_challenge_method", "", "invalid_request"}, {"prompt", "none", "login_required"},
			{"scope", "", "invalid_scope"}, {"scope", scopeAPI, "invalid_scope"}, {"scope", scopeDevice + "A", "invalid_scope"},
			{"scope", scopeAPI + " " + scopeDevice + "A " + scopeDevice + "B", "invalid_scope"}, {"scope", scopeAPI + " " + scopeDevice, "invalid_scope"},
			{"scope", scopeAPI + " " + scopeDevice + "a/b", "invalid_scope"},
			{"scope", scopeAPI + " " + scopeDevice + base64.RawStdEncoding.EncodeToString(make([]byte, 32)), "invalid_scope"},
			{"request_uri", "https://example.com/", "request_not_supported"}, {"state", strings.Repeat("s", maxState+1), "invalid_request"},
		} {
			v, err := w.Authorization(t.Context(), request(c, "DEVICE", bad.name, bad.value))
			wantOAuth(t, err, bad.code)
			if v == nil || v.Redirect != nativeBack {
				t.Errorf("with %s %q the client cannot be told", bad.name, bad.value)
			}
		}
		twice := request(c, "DEVICE")
		twice.Add("scope", "x")
		_, err := w.Authorization(t.Context(), twice)
		wantOAuth(t, err, "invalid_request")
		for _, q := range []url.Values{request(c, "D", "client_id", "none"), request(c, "D", "redirect_uri", "http://localhost:1/other"), {}} {
			if v, err := w.Authorization(t.Context(), q); v != nil || err == nil {
				t.Errorf("%v is taken: %v, %v", q, v, err)
			}
		}
		old := "openid urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:OLD"
		if v, err := w.Authorization(t.Context(), request(c, "", "scope", old)); err != nil || v.Device != "OLD" {
			t.Errorf("the scope of older clients: %v, %v", v, err)
		}
	})
}

func TestAuthorizationCodes(t *testing.T) {
	proof.Of(t, "OA-05", "OA-06")
	eachFactor(t, func(t *testing.T, w *world) {
		w.register("alice")
		c, other := w.oauthClient("app"), w.oauthClient("other")
		if again := w.oauthClient("app"); again.ID != c.ID || other.ID == c.ID {
			t.Errorf("the same words are the client %s, then %s; others %s", c.ID, again.ID, other.ID)
		}
		for name, redeem := range map[string]func(code string) (*Login, error){
			"a wrong verifier": func(code string) (*Login, error) {
				return w.RedeemCode(t.Context(), c.ID, code, nativeBack, verifier+"x", "")
			},
			"no verifier":    func(code string) (*Login, error) { return w.RedeemCode(t.Context(), c.ID, code, nativeBack, "", "") },
			"another client": func(code string) (*Login, error) { return w.redeem(other, code) },
			"another redirect": func(code string) (*Login, error) {
				return w.RedeemCode(t.Context(), c.ID, code, "http://localhost:5174/back", verifier, "")
			},
			"too late": func(code string) (*Login, error) { w.pass(codeTime + time.Second); return w.redeem(c, code) },
		} {
			code := w.code(c, "alice", "SPOILT")
			if l, err := redeem(code); l != nil || !isOAuth(err, "invalid_grant") {
				t.Errorf("%s: %v, %v", name, l, err)
			}
			if _, err := w.redeem(c, code); !isOAuth(err, "invalid_grant") {
				t.Errorf("after %s the code is still good: %v", name, err)
			}
		}
		_, err := w.redeem(c, "cca_made-up")
		wantOAuth(t, err, "invalid_grant")

		// Many at once: one session, and that one ends, because there is more than one who has the code.
		code := w.code(c, "alice", "PHONE")
		var group sync.WaitGroup
		var made atomic.Int64
		var login atomic.Pointer[Login]
		for range 20 {
			group.Go(func() {
				l, err := w.redeem(c, code)
				if err == nil {
					made.Add(1)
					login.Store(l)
				} else if !isOAuth(err, "invalid_grant") {
					t.Errorf("refused as %v", err)
				}
			})
		}
		group.Wait()
		if made.Load() != 1 {
			t.Fatalf("one code opened %d sessions", made.Load())
		}
		wantCode(t, w.speaks(login.Load().Token), 401, "M_UNKNOWN_TOKEN")

		// A session of its own; a later one on the same device is not ended by an older code.
		code = w.code(c, "alice", "LAPTOP")
		first, err := w.redeem(c, code)
		must(t, err)
		if s := w.session(first); s.Client != c.ID || s.DeviceID != "LAPTOP" || first.RefreshToken == "" || first.Lasts == 0 {
			t.Errorf("the session is %+v of %+v", s, first)
		}
		second, err := w.redeem(c, w.code(c, "alice", "LAPTOP"))
		must(t, err)
		wantCode(t, w.speaks(first.Token), 401, "M_UNKNOWN_TOKEN")
		_, err = w.redeem(c, code)
		wantOAuth(t, err, "invalid_grant")
		must(t, w.speaks(second.Token))
	})
}

func TestOAuthAsksForTheSecondFactor(t *testing.T) {
	proof.Of(t, "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		c := w.oauthClient("app")
		early := w.code(c, "alice", "EARLY")
		app, _ := w.enrol(alice)
		_, err := w.redeem(c, early) // also too late by now, whichever comes first
		wantOAuth(t, err, "invalid_grant")

		v, err := w.Authorization(t.Context(), request(c, "PHONE"))
		must(t, err)
		visit, err := w.BeginVisit(t.Context(), v)
		must(t, err)
		secret := w.signedIn("alice")
		_, _, err = w.Allow(t.Context(), visit, secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if who, err := w.SignedIn(t.Context(), secret); err != nil || who.Ready() {
			t.Errorf("the password alone is enough: %+v, %v", who, err)
		}
		_, err = w.SignInFactor(t.Context(), secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		_, code, err := w.Allow(t.Context(), visit, secret)
		must(t, err)
		login, err := w.redeem(c, code)
		must(t, err)
		if got := w.session(login).Shown; len(got) != 2 {
			t.Errorf("the session was opened by %v", got)
		}
		// Visit and sign-in are used up.
		_, _, err = w.Allow(t.Context(), visit, secret)
		wantCode(t, err, 403, "M_FORBIDDEN")

		// Whatever was allowed before a new password is over with it.
		_, err = w.SignInPassword(t.Context(), Identifier{User: "alice"}, password)
		must(t, err)
		pending, err := w.Authorization(t.Context(), request(c, "LATE"))
		must(t, err)
		visit, err = w.BeginVisit(t.Context(), pending)
		must(t, err)
		w.pass(2 * totpStep * time.Second)
		secret = w.signedIn("alice")
		_, err = w.SignInFactor(t.Context(), secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		_, code, err = w.Allow(t.Context(), visit, secret)
		must(t, err)
		must(t, w.ResetPassword(t.Context(), "operator", alice.User, password+"!"))
		_, err = w.redeem(c, code)
		wantOAuth(t, err, "invalid_grant")
	})
}

func TestOAuthTokens(t *testing.T) {
	proof.Of(t, "OA-06", "OA-08", "A05")
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		c, other := w.oauthClient("app"), w.oauthClient("other")
		open := func(device string) *Login {
			l, err := w.redeem(c, w.code(c, "alice", device))
			must(t, err)
			return l
		}
		first := open("A")
		_, err := w.RefreshOAuth(t.Context(), first.RefreshToken, other.ID)
		wantOAuth(t, err, "invalid_grant")
		_, err = w.RefreshOAuth(t.Context(), first.RefreshToken, "")
		wantOAuth(t, err, "invalid_grant")
		_, err = w.refresh(first.RefreshToken) // of the legacy API
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		second, err := w.RefreshOAuth(t.Context(), first.RefreshToken, c.ID)
		must(t, err)
		lost, err := w.RefreshOAuth(t.Context(), first.RefreshToken, c.ID) // the answer was lost
		must(t, err)
		must(t, w.speaks(lost.Token))
		_, err = w.RefreshOAuth(t.Context(), second.RefreshToken, c.ID)
		wantOAuth(t, err, "invalid_grant")
		must(t, w.speaks(lost.Token))
		_, err = w.RefreshOAuth(t.Context(), first.RefreshToken, c.ID) // a copy
		wantOAuth(t, err, "invalid_grant")
		wantCode(t, w.speaks(lost.Token), 401, "M_UNKNOWN_TOKEN")

		for _, token := range []func(*Login) string{func(l *Login) string { return l.Token }, func(l *Login) string { return l.RefreshToken }} {
			l := open("B")
			must(t, w.Revoke(t.Context(), token(l)))
			wantCode(t, w.speaks(l.Token), 401, "M_UNKNOWN_TOKEN")
			_, err = w.RefreshOAuth(t.Context(), l.RefreshToken, c.ID)
			wantOAuth(t, err, "invalid_grant")
			if _, err := w.Device(t.Context(), alice.User, l.DeviceID); err == nil {
				t.Error("the device of a revoked session is still there")
			}
			must(t, w.Revoke(t.Context(), token(l)))
		}
		must(t, w.Revoke(t.Context(), "never heard of"))

		locked := open("C")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(`UPDATE accounts SET locked = TRUE`); return err }))
		_, err = w.RefreshOAuth(t.Context(), locked.RefreshToken, c.ID)
		wantCode(t, err, 401, "M_USER_LOCKED") // and not the end of it
	})
}

func TestOldClientsAreForgotten(t *testing.T) {
	proof.Of(t, "OA-02")
	eachFactor(t, func(t *testing.T, w *world) {
		w.register("alice")
		used, visited, idle := w.oauthClient("used"), w.oauthClient("visited"), w.oauthClient("idle")
		_, err := w.redeem(used, w.code(used, "alice", "A"))
		must(t, err)
		w.pass(clientIdle + time.Hour)
		_, err = w.BeginVisit(t.Context(), &Visit{Purpose: ToAuthorize, Client: visited})
		must(t, err)
		w.oauthClient("new")
		for _, c := range []struct {
			*Client
			kept bool
		}{{used, true}, {visited, true}, {idle, false}} {
			if found, err := w.OAuthClient(t.Context(), c.ID); err != nil || (found != nil) != c.kept {
				t.Errorf("the client %q is kept: %v, %v", c.Name, found != nil, err)
			}
		}
		w.pass(time.Second)
		w.oauthClient("newest")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.PruneOAuthClients(0, 0, 1) }))
		var left int
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT count(*) FROM oauth_clients`, func(r *store.Row) error { left = int(r.Int64(0)); return nil })
		}))
		if left != 3 { // the new one is one too many
			t.Errorf("%d clients are left", left)
		}
	})
}
