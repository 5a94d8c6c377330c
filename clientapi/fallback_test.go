package clientapi_test

import (
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	gotp "github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// page is a page as a browser gets it.
type page struct {
	status int
	header http.Header
	text   string
}

// visit makes a request as a browser does; form nil is a GET.
func visit(t *testing.T, s *testserver.Server, path string, form url.Values, headers ...string) page {
	t.Helper()
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	p := page{res.StatusCode, res.Header, string(text)}
	for _, m := range regexp.MustCompile(`<script src="([^"]+)"`).FindAllStringSubmatch(p.text, -1) {
		p.text += "\n" + visit(t, s, m[1], nil).text
	}
	return p
}

var (
	loaded = regexp.MustCompile(`<(?:script src|link rel="stylesheet" href)="/oauth2/page/[a-z]+\.[0-9a-f]{16}\.(js|css)" nonce="([^"]+)"`)
	nonce  = regexp.MustCompile(`nonce="[^"]+"`)
	inline = regexp.MustCompile(`(?i)<script>|<style|\son[a-z]+=|\sstyle=|javascript:`)
)

// check looks at what holds for every page: its policy allows its own script and style and no others, nothing stands in the
// page itself, and it can be used with a screen reader.
func (p page) check(t *testing.T, status int, lang string) page {
	t.Helper()
	policy := p.header.Get("Content-Security-Policy")
	if p.status != status || !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") || p.header.Get("Cache-Control") != "no-store" ||
		!strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("%d %v\n%s", p.status, p.header, p.text)
	}
	own := loaded.FindAllStringSubmatch(p.text, -1)
	for _, m := range own {
		directive := map[string]string{"js": "script", "css": "style"}[m[1]] + "-src 'nonce-" + m[2] + "'"
		if !strings.Contains(policy, directive) {
			t.Errorf("the policy %q does not allow the page's own %s", policy, m[0])
		}
	}
	markup, _, _ := strings.Cut(p.text, "</html>")
	if len(own) == 0 || inline.MatchString(markup) {
		t.Errorf("the page has no style sheet, or something stands in it:\n%s", p.text)
	}
	if !strings.Contains(p.text, `<html lang="`+lang+`">`) || strings.Count(p.text, "<h1>") != 1 {
		t.Errorf("the page is not in %s:\n%s", lang, p.text)
	}
	for _, m := range regexp.MustCompile(`<input id="([a-z_]+)"`).FindAllStringSubmatch(p.text, -1) {
		if !strings.Contains(p.text, `<label for="`+m[1]+`">`) {
			t.Errorf("the field %s has no label", m[1])
		}
	}
	return p
}

func fallbackPath(stage, session string) string {
	return testserver.Path("_matrix", "client", "v3", "auth", stage, "fallback", "web") + "?session=" + url.QueryEscape(session)
}

const authDone = "window.opener.postMessage(\"authDone\", \"*\")"

// TestFallbackPages passes stages on pages, and goes on in the client with nothing but the session.
func TestFallbackPages(t *testing.T) {
	proof.Of(t, "AN-07", "AN-11", "AN-05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "token", "CONCLAVE_REGISTRATION_TERMS=house 3 en https://a.example/h House rules,house 3 de https://a.example/d Hausordnung"))
		admin := s.RegisterAdmin("boss")
		admin.Must("POST", registrationTokens+"/new", object{"token": "choir", "uses_allowed": 1})
		alice := begin(t, s, "alice")
		token, terms := fallbackPath("m.login.registration_token", alice.session), fallbackPath("m.login.terms", alice.session)

		visit(t, s, token, nil).check(t, 200, "en")
		if p := visit(t, s, token, nil, "Accept-Language", "de-AT,de;q=0.9,en;q=0.5").check(t, 200, "de"); !strings.Contains(p.text, "Einladung") {
			t.Error(p.text)
		}
		visit(t, s, terms, url.Values{"agree": {"house"}}).check(t, 400, "en") // the token comes first
		if p := visit(t, s, token, url.Values{"token": {`"><script>alert(1)</script>`}}).check(t, 403, "en"); strings.Contains(p.text, "alert(1)") || !strings.Contains(p.text, `role="alert"`) {
			t.Error(p.text)
		}
		want(t, "before anything is passed", alice.auth(object{}), 401, "")
		if p := visit(t, s, token, url.Values{"token": {"choir"}}, "Sec-Fetch-Site", "cross-site"); p.status != 403 {
			t.Errorf("a form of another site: %d", p.status)
		}
		if p := visit(t, s, token, url.Values{"token": {"choir"}}, "Sec-Fetch-Site", "same-origin").check(t, 200, "en"); !strings.Contains(p.text, authDone) {
			t.Error(p.text)
		}
		if a := alice.auth(object{}); a.Status != 401 || len(a.Body["completed"].([]any)) != 1 {
			t.Errorf("after the token: %d %s", a.Status, a.Raw)
		}
		if pending := admin.Must("GET", registrationTokens+"/choir", nil).Body["pending"]; pending != 1.0 {
			t.Errorf("%v registrations are under way", pending)
		}
		if p := visit(t, s, terms, nil, "Accept-Language", "de").check(t, 200, "de"); !strings.Contains(p.text, "Hausordnung") || strings.Contains(p.text, "House rules") {
			t.Error(p.text)
		}
		visit(t, s, terms, url.Values{}).check(t, 403, "en")
		if p := visit(t, s, terms, url.Values{"agree": {"house"}}).check(t, 200, "en"); !strings.Contains(p.text, authDone) {
			t.Error(p.text)
		}
		if a := alice.auth(object{}); a.Status != 200 || a.Body["user_id"] != "@alice:"+string(s.Name) {
			t.Fatalf("with everything passed: %d %s", a.Status, a.Raw)
		}
		for _, path := range []string{token, terms, fallbackPath("m.login.dummy", alice.session), fallbackPath("m.login.terms", "unknown"), fallbackPath("m.none", "")} {
			visit(t, s, path, nil).check(t, 404, "en")
			visit(t, s, path, url.Values{"token": {"choir"}}).check(t, 404, "en")
		}
		want(t, "the session again", alice.auth(object{}), 401, "")
	})
}

// TestFallbackOfOwners confirms changes of an account on a page, where the password counts that is the session's own user's.
func TestFallbackOfOwners(t *testing.T) {
	proof.Of(t, "AN-07", "A03")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		second := s.Login("alice")
		remove := object{"devices": []string{second.Device}}
		session, _ := try(t, alice, "POST", "/delete_devices", remove).Body["session"].(string)
		path := fallbackPath("m.login.password", session)
		if p := visit(t, s, path, nil).check(t, 200, "en"); !strings.Contains(p.text, alice.ID) {
			t.Error(p.text)
		}
		visit(t, s, path, url.Values{"password": {"wrong"}}).check(t, 403, "en")
		visit(t, s, path, url.Values{}).check(t, 403, "en")
		visit(t, s, path, url.Values{"password": {testserver.Password}}).check(t, 200, "en")
		remove["auth"] = object{"session": session}
		bob := s.Register("bob")
		if a := try(t, bob, "POST", "/delete_devices", remove); a.Status != 401 {
			t.Errorf("somebody else with the session: %d %s", a.Status, a.Raw)
		}
		alice.Must("POST", "/delete_devices", remove)
		second.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)

		// Dummies, and work that the page's own script does in a browser.
		g := begin(t, s, "carol")
		visit(t, s, fallbackPath("m.login.dummy", g.session), url.Values{}).check(t, 200, "en")
		if a := g.auth(object{}); a.Status != 200 {
			t.Errorf("after the dummy: %d %s", a.Status, a.Raw)
		}
	})
}

// TestFallbackOfWork does the work of a session on its page.
func TestFallbackOfWork(t *testing.T) {
	proof.Of(t, "AN-07")
	s := testserver.Start(t, withRegistration("sqlite", "open", "CONCLAVE_REGISTRATION_CHALLENGE=pow"))
	g := begin(t, s, "alice")
	path := fallbackPath("im.conclave.login.pow", g.session)
	p := visit(t, s, path, nil).check(t, 200, "en")
	seed, _ := testserver.At(g.params, "im.conclave.login.pow", "seed").(string)
	if seed == "" || !strings.Contains(p.text, `data-seed="`+seed+`"`) {
		t.Errorf("the page does not know the seed %q:\n%s", seed, p.text)
	}
	visit(t, s, path, url.Values{"nonce": {"x"}}).check(t, 403, "en")
	if p := visit(t, s, path, url.Values{"nonce": {solve(g.params)}}).check(t, 200, "en"); !strings.Contains(p.text, authDone) {
		t.Error(p.text)
	}
	if a := g.auth(object{}); a.Status != 200 {
		t.Errorf("after the work: %d %s", a.Status, a.Raw)
	}
}

// TestLoginFallback logs in on the page for clients that know no way to.
func TestLoginFallback(t *testing.T) {
	proof.Of(t, "AN-09")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		const path = "/_matrix/static/client/login/"
		visit(t, s, path, nil).check(t, 200, "en")
		visit(t, s, path, nil, "Accept-Language", "de").check(t, 200, "de")
		wrong := visit(t, s, path, url.Values{"user": {"alice"}, "password": {"wrong"}}).check(t, 403, "en")
		if nobody := visit(t, s, path, url.Values{"user": {"nobody"}, "password": {"wrong"}}).check(t, 403, "en"); nonce.ReplaceAllString(strings.ReplaceAll(nobody.text, "nobody", "alice"), "") != nonce.ReplaceAllString(wrong.text, "") {
			t.Error("the page tells who exists")
		}
		p := visit(t, s, path+"?device_id=GHTYAJCE&initial_device_display_name=old", url.Values{"user": {"alice"}, "password": {testserver.Password}}).check(t, 200, "en")
		m := regexp.MustCompile(`data-response="([^"]*)"`).FindStringSubmatch(p.text)
		if m == nil || !strings.Contains(p.text, "window.matrixLogin.onLogin") {
			t.Fatal(p.text)
		}
		var answer struct {
			Token  string `json:"access_token"`
			Device string `json:"device_id"`
			User   string `json:"user_id"`
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &answer); err != nil || answer.Device != "GHTYAJCE" || answer.User != alice.ID {
			t.Errorf("the client gets %q: %v", m[1], err)
		}
		u := s.Nobody()
		u.Token = answer.Token
		u.Must("GET", "/account/whoami", nil)
		visit(t, s, path, url.Values{"sign_in": {"ccs_unknown"}, "code": {"123456"}}).check(t, 403, "en")
	})
}

// TestFallbackOfSecondFactors shows codes on the pages: to log in, and to confirm a change.
func TestFallbackOfSecondFactors(t *testing.T) {
	proof.Of(t, "AN-07", "AN-09", "A10")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		const account = "/_matrix/client/unstable/im.conclave.account"
		totp := alice.Must("POST", account+"/totp/begin", object{"auth": object{"type": "m.login.password", "user": "alice", "password": testserver.Password}}).Body
		secret, _ := totp["secret"].(string)
		code, err := gotp.GenerateCode(secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		codes, _ := alice.Must("POST", account+"/totp/confirm", object{"code": code}).Body["recovery_codes"].([]any)

		const path = "/_matrix/static/client/login/"
		p := visit(t, s, path, url.Values{"user": {"alice"}, "password": {testserver.Password}}).check(t, 200, "en")
		m := regexp.MustCompile(`name="sign_in" value="([^"]*)"`).FindStringSubmatch(p.text)
		if m == nil || strings.Contains(p.text, "access_token") {
			t.Fatal(p.text)
		}
		visit(t, s, path, url.Values{"sign_in": {m[1]}, "code": {code[:3] + " " + code[3:]}}).check(t, 403, "en") // it was used
		if p := visit(t, s, path, url.Values{"sign_in": {m[1]}, "code": {codes[0].(string)}}).check(t, 200, "en"); !strings.Contains(p.text, "access_token") {
			t.Error(p.text)
		}

		remove := object{"devices": []string{"NONE"}}
		session, _ := try(t, alice, "POST", "/delete_devices", remove).Body["session"].(string)
		password, factor := fallbackPath("m.login.password", session), fallbackPath("im.conclave.second_factor", session)
		visit(t, s, factor, url.Values{"code": {codes[1].(string)}}).check(t, 400, "en") // the password comes first
		visit(t, s, password, url.Values{"password": {testserver.Password}}).check(t, 200, "en")
		remove["auth"] = object{"session": session}
		want(t, "the password alone", try(t, alice, "POST", "/delete_devices", remove), 401, "")
		visit(t, s, factor, url.Values{"code": {codes[0].(string)}}).check(t, 403, "en") // it was used
		if p := visit(t, s, factor, url.Values{"code": {codes[1].(string)}}).check(t, 200, "en"); !strings.Contains(p.text, authDone) {
			t.Error(p.text)
		}
		alice.Must("POST", "/delete_devices", remove)
	})
}
