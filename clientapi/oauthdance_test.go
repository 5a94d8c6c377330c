package clientapi_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"conclave/internal/testserver"
)

// person is somebody in front of a browser: it keeps cookies, follows redirects within the server, and stops where one
// leads away from it.
type person struct {
	t      *testing.T
	s      *testserver.Server
	client http.Client

	page   string // that is shown
	status int
	header http.Header
	left   string // where the browser was sent that is not the server
}

func newPerson(t *testing.T, s *testserver.Server) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, s: s}
	p.client = http.Client{Jar: jar, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if !strings.HasPrefix(req.URL.String(), s.URL+"/") || len(via) > 5 {
			p.left = req.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return p
}

// open makes a request with a browser's headers, changed by pairs, and reads the page.
func (p *person) open(method, where, body string, headers ...string) {
	p.t.Helper()
	if strings.HasPrefix(where, "/") {
		where = p.s.URL + where
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, where, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", p.s.URL)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	p.left = ""
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	p.page, p.status, p.header = string(text), res.StatusCode, res.Header
}

var hidden = regexp.MustCompile(`<input type="hidden" name="csrf" value="([^"]+)">`)

// csrf is what the forms of the page carry.
func (p *person) csrf() string {
	p.t.Helper()
	m := hidden.FindStringSubmatch(p.page)
	if m == nil {
		p.t.Fatalf("the page has no form: %d %s", p.status, p.page)
	}
	return html.UnescapeString(m[1])
}

// submit sends a form of the page.
func (p *person) submit(where string, pairs ...string) {
	p.t.Helper()
	form := url.Values{"csrf": {p.csrf()}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	p.open("POST", where, form.Encode())
}

// sees wants a page with some words.
func (p *person) sees(status int, words ...string) {
	p.t.Helper()
	for _, w := range words {
		if p.status != status || !strings.Contains(p.page, html.EscapeString(w)) {
			p.t.Fatalf("the page is %d without %q: %s", p.status, w, p.page)
		}
	}
}

func (p *person) signIn(name string) {
	p.t.Helper()
	p.submit("/oauth2/sign_in", "name", name, "password", testserver.Password)
}

// app is an OAuth client.
type app struct {
	t        *testing.T
	s        *testserver.Server
	id       string
	redirect string
	verifier string
}

// call is a request to an OAuth endpoint, answered in JSON.
func (a *app) call(path string, pairs ...string) (int, object) {
	a.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	res, text := oauthCall(a.t, a.s.URL+path, "application/x-www-form-urlencoded", form.Encode())
	if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		a.t.Errorf("%s is answered with the headers %v", path, res.Header)
	}
	var body object
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		a.t.Fatalf("%s: %d %s", path, res.StatusCode, text)
	}
	return res.StatusCode, body
}

func oauthCall(t *testing.T, where, kind, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", where, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
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
	return res, string(text)
}

// register registers a client that calls itself something.
func registerApp(t *testing.T, s *testserver.Server, metadata object) *app {
	t.Helper()
	raw, err := json.Marshal(metadata)
	if err != nil {
		t.Fatal(err)
	}
	res, text := oauthCall(t, s.URL+"/oauth2/register", "application/json", string(raw))
	var body object
	if err := json.Unmarshal([]byte(text), &body); err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("registration: %d %s", res.StatusCode, text)
	}
	a := &app{t: t, s: s, verifier: "a-verifier-that-is-long-enough-for-RFC-7636-to-take-it"}
	a.id, _ = body["client_id"].(string)
	if list, _ := body["redirect_uris"].([]any); len(list) > 0 {
		a.redirect, _ = list[0].(string)
	}
	return a
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// webApp is the metadata of a client with a name.
func webApp(name string) object {
	return object{
		"client_uri": "https://app.test.example/", "client_name": name, "redirect_uris": []string{"https://app.test.example/back"},
		"grant_types": []string{"authorization_code", "refresh_token", deviceGrant}, "response_types": []string{"code"},
		"token_endpoint_auth_method": "none", "tos_uri": "https://app.test.example/terms",
	}
}

func scopeOf(device string) string {
	return "urn:matrix:client:api:* urn:matrix:client:device:" + device
}

// at is where the app sends somebody, changed by pairs.
func (a *app) at(device string, change ...string) string {
	sum := sha256.Sum256([]byte(a.verifier))
	q := url.Values{
		"client_id": {a.id}, "redirect_uri": {a.redirect}, "response_type": {"code"}, "response_mode": {"fragment"}, "state": {"state & more"},
		"scope": {scopeOf(device)}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(change); i += 2 {
		q.Set(change[i], change[i+1])
	}
	return "/oauth2/authorize?" + q.Encode()
}

// answer is what the browser has brought back.
func (a *app) answer(p *person) url.Values {
	a.t.Helper()
	tail, ok := strings.CutPrefix(p.left, a.redirect+"#")
	if !ok {
		tail, ok = strings.CutPrefix(p.left, a.redirect+"?")
	}
	q, err := url.ParseQuery(tail)
	if !ok || err != nil || q.Get("state") != "state & more" || q.Get("iss") != a.s.URL+"/" {
		a.t.Fatalf("the browser went to %q: %d %s", p.left, p.status, p.page)
	}
	return q
}

// exchange exchanges a code.
func (a *app) exchange(code string, change ...string) (int, object) {
	a.t.Helper()
	pairs := []string{"grant_type", "authorization_code", "code", code, "redirect_uri", a.redirect, "client_id", a.id, "code_verifier", a.verifier}
	return a.call("/oauth2/token", append(pairs, change...)...)
}

// session makes a client of the Matrix API of an answer of the token endpoint.
func (a *app) session(status int, tokens object) *testserver.User {
	a.t.Helper()
	u := a.s.Nobody()
	u.Token, _ = tokens["access_token"].(string)
	if status != http.StatusOK || tokens["token_type"] != "Bearer" || tokens["refresh_token"] == nil || tokens["expires_in"] == nil {
		a.t.Fatalf("the tokens are %d %v", status, tokens)
	}
	who := u.Must("GET", "/account/whoami", nil).Body
	u.ID, _ = who["user_id"].(string)
	u.Device, _ = who["device_id"].(string)
	if tokens["scope"] != scopeOf(u.Device) {
		a.t.Errorf("the scope is %v", tokens["scope"])
	}
	return u
}

// loginBy opens a session of somebody without a second factor.
func (a *app) loginBy(name, device string) *testserver.User {
	a.t.Helper()
	p := newPerson(a.t, a.s)
	p.open("GET", a.at(device), "")
	p.signIn(name)
	p.submit("/oauth2/decide", "decision", "allow")
	return a.session(a.exchange(a.answer(p).Get("code")))
}

// enrol sets up an authenticator app, and gives its codes: one for each 30 seconds, of which the first is used up.
func enrol(t *testing.T, u *testserver.User) (secret string, recovery []string) {
	t.Helper()
	const path = "/_matrix/client/unstable/im.conclave.account"
	auth := object{"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": u.ID}}
	secret, _ = u.Must("POST", path+"/totp/begin", object{"auth": auth}).Body["secret"].(string)
	a := try(t, u, "POST", path+"/totp/confirm", object{"code": code(t, secret, -1)}) // so that the present one is still good
	if a.Status != http.StatusOK {                                                    // a new step began in between
		a = try(t, u, "POST", path+"/totp/confirm", object{"code": code(t, secret, -1)})
	}
	list, _ := ok(t, a)["recovery_codes"].([]any)
	for _, c := range list {
		text, _ := c.(string)
		recovery = append(recovery, text)
	}
	return secret, recovery
}

// masterKey is a cross-signing key of a user.
func masterKey(user string, seed byte) object {
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	name := base64.RawStdEncoding.EncodeToString(public)
	return object{"user_id": user, "usage": []string{"master"}, "keys": object{"ed25519:" + name: name}}
}
