package clientapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestOAuth takes an app through everything: metadata, registration, a code for somebody who signs in, refresh, revocation.
func TestOAuth(t *testing.T) {
	proof.Of(t, "AN-01", "OA-01", "OA-02", "OA-04", "OA-05", "OA-06", "OA-08", "A05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		meta := s.Nobody().Must("GET", "/_matrix/client/v1/auth_metadata", nil).Body
		for name, path := range map[string]string{
			"authorization_endpoint": "authorize", "token_endpoint": "token", "revocation_endpoint": "revoke", "registration_endpoint": "register",
			"device_authorization_endpoint": "device", "account_management_uri": "account",
		} {
			if meta[name] != s.URL+"/oauth2/"+path {
				t.Errorf("%s is %v", name, meta[name])
			}
		}
		if same := s.Nobody().Must("GET", "/.well-known/openid-configuration", nil).Body; same["issuer"] != s.URL+"/" || meta["issuer"] != same["issuer"] {
			t.Errorf("the issuer is %v and %v", meta["issuer"], same["issuer"])
		}
		a := registerApp(t, s, webApp("Alpha"))
		if again := registerApp(t, s, webApp("Alpha")); again.id != a.id {
			t.Errorf("the same app is %s and %s", a.id, again.id)
		}

		p := newPerson(t, s)
		p.open("GET", a.at("PHONE"), "")
		p.sees(http.StatusOK, "Sign in", "Alpha", "app.test.example")
		for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Access-Control-Allow-Origin": ""} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		policy := p.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "form-action 'self' https://app.test.example") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "script-src") {
			t.Errorf("the policy is %q", policy)
		}
		p.submit("/oauth2/sign_in", "name", "alice", "password", "wrong")
		p.sees(http.StatusForbidden, "The name or the password is not right.")
		p.signIn("alice")
		p.sees(http.StatusOK, "Allow access?", "Alpha", "app.test.example", alice.ID, "PHONE", "https://app.test.example/terms")
		p.submit("/oauth2/decide", "decision", "allow")
		code := a.answer(p).Get("code")
		if got := p.header.Get("Set-Cookie"); !strings.Contains(got, "Max-Age=0") {
			t.Errorf("the browser keeps %q", got)
		}
		status, tokens := a.exchange(code)
		phone := a.session(status, tokens)
		if phone.ID != alice.ID || phone.Device != "PHONE" {
			t.Errorf("the session is of %s on %s", phone.ID, phone.Device)
		}
		alice.Must("GET", "/account/whoami", nil) // side by side

		other := registerApp(t, s, webApp("Other"))
		for name, refresh := range map[string][]string{
			"another app": {"refresh_token", tokens["refresh_token"].(string), "client_id", other.id}, "a made-up token": {"refresh_token", "ccr_x", "client_id", a.id},
		} {
			if status, body := a.call("/oauth2/token", append(refresh, "grant_type", "refresh_token")...); status != http.StatusBadRequest || body["error"] != "invalid_grant" {
				t.Errorf("%s is answered %d %v", name, status, body)
			}
		}
		renew := []string{"grant_type", "refresh_token", "client_id", a.id, "refresh_token", tokens["refresh_token"].(string)}
		renewed := a.session(a.call("/oauth2/token", renew...))
		phone.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		if status, body := a.call("/oauth2/token", renew...); status != http.StatusBadRequest || body["error"] != "invalid_grant" {
			t.Errorf("a used refresh token is answered %d %v", status, body)
		}
		renewed.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)

		next := a.loginBy("alice", "LAPTOP")
		for range 2 { // the second time it is known no more
			if status, _ := a.call("/oauth2/revoke", "token", next.Token, "token_type_hint", "access_token"); status != http.StatusOK {
				t.Errorf("revocation is answered %d", status)
			}
		}
		next.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		alice.Must("GET", "/account/whoami", nil)
		if status, body := a.call("/oauth2/revoke"); status != http.StatusBadRequest || body["error"] != "invalid_request" {
			t.Errorf("the revocation of nothing is answered %d %v", status, body)
		}
		for _, bad := range []struct{ kind, body, code string }{
			{"application/json", `{"client_uri":"https://app.test.example/","redirect_uris":["https://evil.test/"]}`, "invalid_redirect_uri"},
			{"text/plain", `{"client_uri":"https://app.test.example/"}`, "invalid_client_metadata"},
			{"application/json", `{"client_uri":"https://app.test.example/","x":"` + strings.Repeat("x", 20<<10) + `"}`, "invalid_request"},
		} {
			if res, text := oauthCall(t, s.URL+"/oauth2/register", bad.kind, bad.body); res.StatusCode/100 != 4 || !strings.Contains(text, `"`+bad.code+`"`) {
				t.Errorf("a registration is answered %d %s, want %s", res.StatusCode, text, bad.code)
			}
		}
		for _, bad := range [][]string{{"grant_type", "password", "client_id", a.id}, {"client_id", a.id}, {"grant_type", "authorization_code", "client_id", a.id}} {
			if status, body := a.call("/oauth2/token", bad...); status != http.StatusBadRequest || body["error_description"] == nil {
				t.Errorf("%v is answered %d %v", bad, status, body)
			}
		}
		// Clients in a browser are pages of other sites.
		wrong := url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {"x"}}.Encode()
		if res, text := oauthCall(t, s.URL+"/oauth2/token", "application/x-www-form-urlencoded", wrong, "Origin", "https://app.test.example", "Sec-Fetch-Site", "cross-site"); !strings.Contains(text, `"invalid_grant"`) {
			t.Errorf("an app in a browser is answered %d %s", res.StatusCode, text)
		}
		twice := url.Values{"grant_type": {"refresh_token", "refresh_token"}, "client_id": {a.id}, "refresh_token": {"x"}}.Encode()
		if res, text := oauthCall(t, s.URL+"/oauth2/token", "application/x-www-form-urlencoded", twice); res.StatusCode != http.StatusBadRequest || !strings.Contains(text, "invalid_request") {
			t.Errorf("a parameter that is there twice is answered %d %s", res.StatusCode, text)
		}
	})
}

// TestOAuthCodesOverHTTP shows codes wrongly, twice, and many times at once.
func TestOAuthCodesOverHTTP(t *testing.T) {
	proof.Of(t, "OA-05", "A11")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		s.Register("alice")
		a, other := registerApp(t, s, webApp("Alpha")), registerApp(t, s, webApp("Other"))
		code := func(device string) string {
			p := newPerson(t, s)
			p.open("GET", a.at(device), "")
			p.signIn("alice")
			p.submit("/oauth2/decide", "decision", "allow")
			return a.answer(p).Get("code")
		}
		for name, change := range map[string][]string{
			"a wrong verifier": {"code_verifier", a.verifier + "x"}, "no verifier": {"code_verifier", ""}, "another client": {"client_id", other.id},
			"another redirect": {"redirect_uri", "https://app.test.example/"}, "another code": {"code", "cca_x"},
		} {
			if status, body := a.exchange(code("SPOILT"), change...); status != http.StatusBadRequest || body["access_token"] != nil {
				t.Errorf("%s is answered %d %v", name, status, body)
			}
		}
		for _, change := range [][]string{{"code_challenge", ""}, {"code_challenge_method", "plain"}} {
			p := newPerson(t, s)
			p.open("GET", a.at("NONE", change...), "")
			p.sees(http.StatusBadRequest, "PKCE", "error=invalid_request")
			if p.left != "" {
				t.Errorf("without PKCE the browser is sent to %q", p.left)
			}
		}
		mine := code("MANY")
		var group sync.WaitGroup
		var made atomic.Int64
		for range 30 {
			group.Go(func() {
				if status, _ := a.exchange(mine); status == http.StatusOK {
					made.Add(1)
				}
			})
		}
		group.Wait()
		if made.Load() != 1 {
			t.Errorf("one code was exchanged %d times", made.Load())
		}
		once := code("TWICE")
		u := a.session(a.exchange(once))
		if status, body := a.exchange(once); status != http.StatusBadRequest || body["error"] != "invalid_grant" {
			t.Errorf("a used code is answered %d %v", status, body)
		}
		u.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	})
}

// TestOAuthSecondFactor signs in with an authenticator app and with a recovery code; a password alone leads nowhere.
func TestOAuthSecondFactor(t *testing.T) {
	proof.Of(t, "A10")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		secret, recovery := enrol(t, alice)
		a := registerApp(t, s, webApp("Alpha"))
		p := newPerson(t, s)
		p.open("GET", a.at("PHONE"), "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Second step", "Code of your authenticator app", "Recovery code")
		p.submit("/oauth2/decide", "decision", "allow") // too early
		p.sees(http.StatusOK, "Second step")
		p.submit("/oauth2/factor", "type", "recovery", "code", "wrong")
		p.sees(http.StatusForbidden, "Second step", "This is not right, or was used already.")
		code, err := totp.GenerateCode(secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p.submit("/oauth2/factor", "type", "totp", "code", code)
		p.sees(http.StatusOK, "Allow access?")
		p.submit("/oauth2/decide", "decision", "allow")
		a.session(a.exchange(a.answer(p).Get("code")))

		q := newPerson(t, s)
		q.open("GET", a.at("LAPTOP"), "")
		q.signIn("alice")
		q.submit("/oauth2/factor", "type", "totp", "code", code)
		q.sees(http.StatusForbidden, "This is not right, or was used already.")
		q.submit("/oauth2/factor", "type", "recovery", "code", recovery[0])
		q.sees(http.StatusOK, "Allow access?")
		q.submit("/oauth2/decide", "decision", "other")
		q.sees(http.StatusOK, "Password")
		q.submit("/oauth2/decide", "decision", "deny")
		if back := a.answer(q); back.Get("error") != "access_denied" || back.Has("code") {
			t.Errorf("a no is told as %v", back)
		}
	})
}

// evilRedirects are addresses to which a client of https://app.test.example/ wants somebody to be sent who has registered
// only https://app.test.example/back.
var evilRedirects = []string{
	"", "https://evil.test/", "https://evil.test/back", "//evil.test/back", "https:evil.test", "javascript:alert(1)", "data:text/html,x",
	"https://app.test.example/back/", "https://app.test.example/back?x", "https://app.test.example/back#x", "https://app.test.example/back/../x",
	"https://app.test.example/BACK", "https://app.test.example/%62ack", "https://APP.test.example/back", "https://app.test.example:443/back",
	"https://app.test.example:8443/back", "http://app.test.example/back", "https://app.test.example", "https://app.test.example./back",
	"https://app.test.example@evil.test/back", "https://evil.test@app.test.example/back", "https://app.test.example.evil.test/back",
	"https://evil.app.test.example/back", "https://app.test.example\\@evil.test/back", "https://app.test.example%2eevil.test/back",
	" https://app.test.example/back", "https://app.test.example/back ", "https://app.test.example/back\r\nLocation: https://evil.test/",
	"https://app.test.example/back\x00", "https://app.test.example/bаck", "http://localhost/back", "http://127.0.0.1:80/back", "example.test.app:/back", "/back",
}

// TestNobodyIsSentElsewhere asks to be sent where the client has not registered an address.
func TestNobodyIsSentElsewhere(t *testing.T) {
	proof.Of(t, "A13", "OA-05")
	s := testserver.Start(t, testserver.Options{})
	a := registerApp(t, s, webApp("Alpha"))
	if len(evilRedirects) < 30 {
		t.Fatalf("only %d payloads", len(evilRedirects))
	}
	for _, evil := range evilRedirects {
		p := newPerson(t, s)
		p.open("GET", a.at("PHONE", "redirect_uri", evil), "")
		if p.status != http.StatusBadRequest || p.left != "" || p.header.Get("Location") != "" || strings.Contains(p.page, "evil.test") {
			t.Errorf("%q is answered %d, sent to %q: %s", evil, p.status, p.left, p.page)
		}
	}
	for _, change := range [][]string{{"client_id", "none"}, {"client_id", ""}, {"client_id", a.id + "x"}} {
		p := newPerson(t, s)
		p.open("GET", a.at("PHONE", change...), "")
		if p.status != http.StatusBadRequest || p.left != "" {
			t.Errorf("%v is answered %d, sent to %q", change, p.status, p.left)
		}
	}
	for _, more := range []string{"&redirect_uri=https://app.test.example/back", "&client_id=" + a.id, "&redirect_uri=https://evil.test/"} {
		p := newPerson(t, s)
		p.open("GET", a.at("PHONE")+more, "")
		if p.status != http.StatusBadRequest || p.left != "" {
			t.Errorf("with %q twice it is answered %d, sent to %q", more, p.status, p.left)
		}
	}
	// What is wrong otherwise is told to the client only by a link that says where it leads.
	p := newPerson(t, s)
	p.open("GET", a.at("PHONE", "scope", "x"), "")
	p.sees(http.StatusBadRequest, "Back to app.test.example", "error=invalid_scope")
	if p.left != "" {
		t.Errorf("the browser is sent to %q", p.left)
	}
}

// TestOtherSitesDecideNothing sends our forms as pages of other sites can: without the token, with another visit's, with
// another origin, without the cookie, without signing in.
func TestOtherSitesDecideNothing(t *testing.T) {
	proof.Of(t, "A12", "A13")
	s := testserver.Start(t, testserver.Options{})
	s.Register("alice")
	a := registerApp(t, s, webApp("Alpha"))
	ready := func() *person {
		p := newPerson(t, s)
		p.open("GET", a.at("PHONE"), "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Allow access?")
		return p
	}
	p, other := ready(), ready()
	form := func(csrf string) string { return url.Values{"csrf": {csrf}, "decision": {"allow"}}.Encode() }
	mine := p.csrf()
	for name, forge := range map[string]func(){
		"no token":        func() { p.open("POST", "/oauth2/decide", "decision=allow") },
		"a wrong token":   func() { p.open("POST", "/oauth2/decide", form("x")) },
		"another's token": func() { p.open("POST", "/oauth2/decide", form(other.csrf())) },
		"another origin": func() {
			p.open("POST", "/oauth2/decide", form(mine), "Origin", "https://evil.test", "Sec-Fetch-Site", "")
		},
		"a hidden origin":  func() { p.open("POST", "/oauth2/decide", form(mine), "Origin", "null", "Sec-Fetch-Site", "") },
		"another site":     func() { p.open("POST", "/oauth2/decide", form(mine), "Sec-Fetch-Site", "cross-site") },
		"a sibling":        func() { p.open("POST", "/oauth2/decide", form(mine), "Sec-Fetch-Site", "same-site") },
		"another encoding": func() { p.open("POST", "/oauth2/decide", form(mine), "Content-Type", "text/plain") },
		"two tokens":       func() { p.open("POST", "/oauth2/decide", form(mine)+"&csrf="+mine) },
		"a stranger":       func() { newPerson(t, s).open("POST", "/oauth2/decide", form(mine)) },
	} {
		forge()
		if p.left != "" || name != "a stranger" && p.status != http.StatusForbidden {
			t.Errorf("%s: %d, sent to %q", name, p.status, p.left)
		}
	}
	for _, path := range []string{"/oauth2/sign_in", "/oauth2/factor", "/oauth2/passkey", "/oauth2/link", "/oauth2/account"} {
		if p.open("POST", path, "do=reset"); p.status != http.StatusForbidden {
			t.Errorf("%s without a token: %d", path, p.status)
		}
	}
	p.open("POST", "/oauth2/decide", form(mine)) // it is still ours to decide
	if a.answer(p).Get("code") == "" {
		t.Error("the real form does not work")
	}
	p.open("POST", "/oauth2/decide", form(mine))
	if p.status != http.StatusForbidden {
		t.Errorf("a decision can be made twice: %d", p.status)
	}
	if early := newPerson(t, s); true {
		early.open("GET", a.at("PHONE"), "")
		early.submit("/oauth2/decide", "decision", "allow")
		early.sees(http.StatusOK, "Password")
	}
}

// TestVisitCookies looks at the cookie where there is TLS, as a browser would keep it.
func TestVisitCookies(t *testing.T) {
	proof.Of(t, "A12", "A14")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_PUBLIC_URL=https://chat.test.example"}})
	p := newPerson(t, s)
	p.open("GET", "/oauth2/link?user_code=%3Cscript%3E", "", "Accept-Language", "de-AT,de;q=0.9,en;q=0.8")
	cookie := p.header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-") || !strings.HasSuffix(cookie, "; Path=/; HttpOnly; Secure; SameSite=Lax") || strings.Contains(cookie, "Domain") || strings.Contains(cookie, "Max-Age") {
		t.Errorf("the cookie is %q", cookie)
	}
	p.sees(http.StatusOK, `Gerät verbinden`, "Gib den Code ein")
	if p.header.Get("Content-Language") != "de" || !strings.Contains(p.page, `<html lang="de">`) || strings.Contains(p.page, "<script>") {
		t.Errorf("the page is %v %s", p.header, p.page)
	}
}

// TestDeviceGrant lets a device in by the code that it shows.
func TestDeviceGrant(t *testing.T) {
	proof.Of(t, "OA-07")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		a := registerApp(t, s, webApp("Television"))
		begin := func() object {
			status, g := a.call("/oauth2/device", "client_id", a.id, "scope", scopeOf("TV"))
			if status != http.StatusOK || g["expires_in"] == nil || g["interval"] == nil || g["verification_uri"] != s.URL+"/oauth2/link" {
				t.Fatalf("the device is told %d %v", status, g)
			}
			return g
		}
		poll := func(g object) (int, object) {
			return a.call("/oauth2/token", "grant_type", deviceGrant, "device_code", g["device_code"].(string), "client_id", a.id)
		}
		wants := func(g object, code string) {
			t.Helper()
			if status, body := poll(g); status != http.StatusBadRequest || body["error"] != code {
				t.Errorf("the device is answered %d %v, want %s", status, body, code)
			}
		}
		g := begin()
		wants(g, "authorization_pending")
		wants(g, "slow_down")
		p := newPerson(t, s)
		p.open("GET", g["verification_uri_complete"].(string), "")
		p.sees(http.StatusOK, "Link a device", g["user_code"].(string))
		p.submit("/oauth2/link", "user_code", "BBBB-BBBB")
		p.sees(http.StatusForbidden, "No device waits with this code.")
		p.submit("/oauth2/link", "user_code", strings.ToLower(g["user_code"].(string)))
		p.sees(http.StatusOK, "Sign in", "Television")
		p.signIn("alice")
		p.sees(http.StatusOK, "Allow access?", "Television", "app.test.example", g["user_code"].(string), "I have this device in front of me")
		p.submit("/oauth2/decide", "decision", "allow")
		p.sees(http.StatusBadRequest, "Confirm that you have the device in front of you.")
		if status, body := poll(g); status != http.StatusBadRequest || body["error"] != "slow_down" && body["error"] != "authorization_pending" { // by how long all that took
			t.Errorf("before the yes the device is answered %d %v", status, body)
		}
		p.submit("/oauth2/decide", "decision", "allow", "mine", "yes")
		p.sees(http.StatusOK, "Your device is let in.")
		if u := a.session(poll(g)); u.ID != alice.ID || u.Device != "TV" {
			t.Errorf("the device is %s of %s", u.Device, u.ID)
		}
		wants(g, "invalid_grant")

		g = begin()
		p = newPerson(t, s)
		p.open("GET", "/oauth2/link", "")
		p.submit("/oauth2/link", "user_code", g["user_code"].(string))
		p.signIn("alice")
		p.sees(http.StatusOK, "You have a session with this ID already.")
		p.submit("/oauth2/decide", "decision", "deny")
		p.sees(http.StatusOK, "Nothing was let in.")
		wants(g, "access_denied")
	})
}

// TestAccountPages manages an account: sessions, and the approval of what an app's session asks for.
func TestAccountPages(t *testing.T) {
	proof.Of(t, "OA-09", "OA-10", "AN-05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		s.Register("bob")
		a := registerApp(t, s, webApp("Alpha"))
		phone := a.loginBy("alice", "PHONE")

		// What asks for a password elsewhere is not for sessions of OAuth.
		phone.Refused(http.StatusForbidden, "M_FORBIDDEN", "DELETE", "/devices/"+alice.Device, object{})
		phone.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/account/deactivate", object{"auth": object{"type": "m.login.password", "user": "alice", "password": testserver.Password}})

		keys := func(seed byte) object { return object{"master_key": masterKey(alice.ID, seed)} }
		phone.Must("POST", "/keys/device_signing/upload", keys(1))
		replace := func(session any) (int, object) {
			body := keys(2)
			if session != nil {
				body["auth"] = object{"session": session}
			}
			answer, err := phone.Do("POST", "/keys/device_signing/upload", body)
			if err != nil {
				t.Fatal(err)
			}
			return answer.Status, answer.Body
		}
		status, challenge := replace(nil)
		where, _ := testserver.At(challenge, "params", "m.oauth", "url").(string)
		if status != http.StatusUnauthorized || !strings.HasPrefix(where, s.URL+"/oauth2/account?action=org.matrix.cross_signing_reset") {
			t.Fatalf("new keys are answered %d %v", status, challenge)
		}
		if status, _ := replace(challenge["session"]); status != http.StatusUnauthorized {
			t.Errorf("what nobody has approved is answered %d", status)
		}
		stranger := newPerson(t, s)
		stranger.open("GET", where, "")
		stranger.signIn("bob")
		stranger.submit("/oauth2/account", "do", "reset")
		stranger.sees(http.StatusForbidden, "belongs to another account")
		p := newPerson(t, s)
		p.open("GET", where, "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Reset your identity", alice.ID)
		if status, _ := replace(challenge["session"]); status != http.StatusUnauthorized {
			t.Errorf("before the yes it is answered %d", status)
		}
		p.submit("/oauth2/account", "do", "reset")
		p.sees(http.StatusOK, "Approved")
		if status, body := replace(challenge["session"]); status != http.StatusOK {
			t.Errorf("what was approved is answered %d %v", status, body)
		}

		p = newPerson(t, s)
		p.open("GET", "/oauth2/account?action=org.matrix.devices_list", "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Your sessions", "PHONE", "app.test.example", alice.Device)
		p.submit("/oauth2/account", "do", "leave")
		p.sees(http.StatusOK, "You are signed out of these pages.")
		p.open("GET", "/oauth2/account?action=org.matrix.device_delete&device_id=PHONE", "")
		p.signIn("alice")
		p.sees(http.StatusOK, "Sign this session out?", "PHONE")
		phone.Must("GET", "/account/whoami", nil)
		p.submit("/oauth2/account", "do", "delete", "device_id", "PHONE")
		p.sees(http.StatusOK, "The session is signed out.")
		phone.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		p.open("GET", "/oauth2/account?action=org.matrix.device_view&device_id="+alice.Device, "")
		p.signIn("alice")
		p.sees(http.StatusOK, alice.Device)

		p.open("GET", "/oauth2/account?action=org.matrix.account_deactivate", "")
		p.signIn("bob")
		p.submit("/oauth2/account", "do", "deactivate", "typed", "alice")
		p.sees(http.StatusBadRequest, "That is not the name of this account.")
		p.submit("/oauth2/account", "do", "deactivate", "typed", "bob")
		p.sees(http.StatusOK, "Your account is closed.")
		if a, err := s.Nobody().Do("POST", "/login", object{"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": "bob"}}); err != nil || a.Status != http.StatusForbidden {
			t.Errorf("whoever is deactivated is answered %v %v", a, err)
		}
	})
}
