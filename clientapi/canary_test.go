package clientapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/internal/mail/catcher"
	"conclave/internal/testserver"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/redis"
)

// canaries are secrets by what they are, that can be told from everything else, and what they were answered with when
// something went wrong.
type canaries struct {
	t       *testing.T
	s       *testserver.Server
	secrets map[string]string
	errors  []string // bodies
	calls   int
}

// keep notes a secret and returns it.
func (c *canaries) keep(what string, value any) string {
	c.t.Helper()
	text, _ := value.(string)
	if len(text) < 6 {
		c.t.Fatalf("there is no %s: %v", what, value)
	}
	if old, known := c.secrets[what]; known && old != text {
		what = fmt.Sprintf("%s (%d)", what, len(c.secrets))
	}
	c.secrets[what] = text
	return text
}

// word makes a secret up.
func (c *canaries) word(what string) string {
	return c.keep(what, "Canary-"+strings.ReplaceAll(what, " ", "-")+"-9f3aZ")
}

// call makes a request from an address of its own, so that limits count each by itself.
func (c *canaries) call(method, path, token string, body any) (status int, answer object) {
	c.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	if text, ok := body.([]byte); ok {
		raw = text
	}
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/_") && !strings.HasPrefix(path, "/oauth2") {
		path = "/_matrix/client/v3" + path
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.s.URL+path, strings.NewReader(string(raw)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.calls++
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("198.18.%d.%d", c.calls/250, c.calls%250))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if _, bare := body.([]byte); !bare && body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if text, ok := body.(string); ok {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode >= 400 && res.StatusCode != http.StatusUnauthorized || strings.Contains(string(text), `"errcode"`) {
		c.errors = append(c.errors, method+" "+path[:min(len(path), 40)]+": "+string(text))
	}
	_ = json.Unmarshal(text, &answer) // a page is none
	return res.StatusCode, answer
}

// must makes a request that has to be answered 200.
func (c *canaries) must(method, path, token string, body any) object {
	c.t.Helper()
	status, answer := c.call(method, path, token, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// confirmed makes a request that the owner of a session confirms by password.
func (c *canaries) confirmed(method, path, token, password string, body object) object {
	c.t.Helper()
	_, asked := c.call(method, path, token, body)
	body["auth"] = object{"type": "m.login.password", "session": c.keep("session of a confirmation", asked["session"]), "password": password}
	return c.must(method, path, token, body)
}

const loginSteps = "/_matrix/client/unstable/im.conclave.login"

// TestSecretsStayWhereTheyBelong uses secrets of every kind, rightly and wrongly, and looks for them in everything that the
// server has written: its log, metrics, errors, database, Redis, and what it prints when it is made to crash.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	proof.Of(t, "A04", "A05", "A18")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		c := &canaries{t: t, secrets: map[string]string{}}
		store := redis.Start(t)
		smtp := catcher.Options{User: "conclave", Password: c.word("password of the mail server"), Insecure: true}
		post, err := catcher.Start(smtp)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = post.Close() })
		provider := idp.New(t, "sam")
		key := base64.StdEncoding.EncodeToString([]byte(c.keep("secret key", "Canary-secret-key-of-32-bytes-ok")))
		c.s = testserver.Start(t, testserver.Options{Engine: engine, Env: []string{
			"CONCLAVE_RATE_LIMITS_ENABLED=true", "CONCLAVE_TRUSTED_PROXIES=127.0.0.0/8", "CONCLAVE_REDIS_URL=" + store.URL,
			"CONCLAVE_EMAIL_SMTP_URL=smtp://conclave:" + smtp.Password + "@" + post.Address(), "CONCLAVE_EMAIL_FROM=conclave@example.org",
			"CONCLAVE_REGISTRATION_SHARED_SECRET=" + c.word("shared secret"), "CONCLAVE_AUTH_SECRET_KEY=" + key,
			"CONCLAVE_OIDC_ISSUER=" + provider.Issuer, "CONCLAVE_OIDC_CLIENT_ID=" + idp.ClientID, "CONCLAVE_OIDC_CLIENT_SECRET=" + idp.Secret,
		}})
		provider.Serve(c.s.URL + "/_matrix/client/unstable/im.conclave.sso/callback")
		c.keep("client secret of single sign-on", idp.Secret)
		c.keep("password of Redis", redis.Password)
		box := &mailed{c.s, t, post, map[string]int{}}
		token, password := c.accounts(box)
		c.factors(token, password)
		c.rooms(token)
		c.signOn(provider.Issuer)
		c.oauth()
		c.mistakes(token)
		c.look(store)
		// The program's own last words.
		if err := syscall.Kill(c.s.Pid(), syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if code, err := c.s.Wait(ctx); code == 0 || err != nil {
			t.Errorf("a crash ended with %d, %v", code, err)
		}
		c.lookAt("the log after a crash", c.log())
		if !strings.Contains(c.log(), "goroutine ") {
			t.Error("the test has gone blind: there is no crash in the log")
		}
	})
}

// accounts makes an account, whose address is confirmed, with tokens of all kinds.
func (c *canaries) accounts(box *mailed) (token, password string) {
	first := c.word("password of registration")
	made := c.must("POST", "/register", "", object{"username": "alice", "password": first, "auth": object{"type": "m.login.dummy"}, "refresh_token": true})
	c.keep("access token", made["access_token"])
	next := c.must("POST", "/refresh", "", object{"refresh_token": c.keep("refresh token", made["refresh_token"])})
	token = c.keep("renewed access token", next["access_token"])
	c.keep("renewed refresh token", next["refresh_token"])
	password = c.word("changed password")
	c.confirmed("POST", "/account/password", token, first, object{"new_password": password, "logout_devices": false})
	secret := c.keep("client secret of a validation", "Canary.client.secret.of.mail")
	asked := c.must("POST", "/account/3pid/email/requestToken", token, object{"client_secret": secret, "email": c.keep("e-mail address", "canary.mail@alice.example"), "send_attempt": 1})
	link, err := url.Parse(box.next("canary.mail@alice.example").Link())
	if err != nil {
		c.t.Fatal(err)
	}
	proved := c.keep("token of a link", link.Query().Get("token"))
	sid, _ := asked["sid"].(string)
	const submit = "/_matrix/client/unstable/im.conclave/email/submit_token"
	c.call("POST", submit, "", object{"sid": sid, "client_secret": secret, "token": sid + ".Canary-wrong-token-of-a-link"})
	c.must("POST", submit, "", object{"sid": sid, "client_secret": secret, "token": proved})
	c.confirmed("POST", "/account/3pid/add", token, password, object{"sid": sid, "client_secret": secret})
	c.keep("login token", c.confirmed("POST", "/_matrix/client/v1/login/get_token", token, password, object{})["login_token"])
	used := c.must("POST", "/login", "", object{"type": "m.login.token", "token": c.secrets["login token"]})
	c.keep("access token of a login token", used["access_token"])
	c.keep("app password", c.confirmed("POST", account+"/app_passwords", token, password, object{"name": "old phone"})["password"])
	id := object{"type": "m.id.user", "user": "alice"}
	c.must("POST", "/login", "", object{"type": "m.login.password", "identifier": id, "password": c.secrets["app password"]})
	c.call("POST", "/login", "", object{"type": "m.login.password", "identifier": id, "password": c.word("wrong password")})
	c.call("POST", "/login", "", object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": c.word("password in the place of a name")}, "password": "x"})
	c.call("POST", "/login", "", object{"type": "m.login.password", "identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": "nobody.canary@alice.example"}, "password": "x"})
	c.keep("ticket of a socket", c.must("POST", "/_matrix/client/unstable/im.conclave.ws/ticket", token, object{})["ticket"])
	return token, password
}

// factors sets up an authenticator app, and signs in with it and without.
func (c *canaries) factors(token, password string) {
	seed := c.keep("seed of an authenticator app", c.confirmed("POST", account+"/totp/begin", token, password, object{})["secret"])
	status, set := c.call("POST", account+"/totp/confirm", token, object{"code": code(c.t, seed, -1)})
	if status != http.StatusOK { // a new step began in between
		set = c.must("POST", account+"/totp/confirm", token, object{"code": code(c.t, seed, -1)})
	}
	for i, recovery := range names(set["recovery_codes"]) {
		c.keep(fmt.Sprintf("recovery code %d", i), recovery)
	}
	begun := c.must("POST", loginSteps+"/sign_in", "", object{"identifier": object{"type": "m.id.user", "user": "alice"}, "password": password})
	signIn := c.keep("sign-in", begun["sign_in"])
	c.call("POST", loginSteps+"/factor", "", object{"sign_in": signIn, "type": "recovery", "code": c.word("wrong recovery code")})
	c.must("POST", loginSteps+"/factor", "", object{"sign_in": signIn, "type": "recovery", "code": c.secrets["recovery code 0"]})
	c.must("POST", "/login", "", object{"type": "im.conclave.login.sign_in", "sign_in": signIn})
}

// rooms writes what only members may read, and keys.
func (c *canaries) rooms(token string) {
	room, _ := c.must("POST", "/createRoom", token, object{"topic": c.word("topic")})["room_id"].(string)
	c.must("PUT", "/rooms/"+url.PathEscape(room)+"/send/m.room.message/1", token, object{"msgtype": "m.text", "body": c.word("text of a message")})
	c.must("GET", "/sync?timeout=0", token, nil)
	c.must("PUT", "/user/"+url.PathEscape("@alice:"+string(c.s.Name))+"/account_data/org.example.notes", token, object{"note": c.word("account data")})
	c.must("PUT", "/sendToDevice/m.room.encrypted/1", token, object{"messages": object{"@alice:" + string(c.s.Name): object{"*": object{"ciphertext": c.word("message to a device")}}}})
}

// signOn goes through the organization's provider.
func (c *canaries) signOn(issuer string) {
	b := newBrowser(c.t)
	page := b.signOn(c.s, issuer, "sam", ssoTarget)
	done := b.send(c.s.URL+"/_matrix/client/unstable/im.conclave.sso/continue", url.Values{"sign_in": {c.keep("sign-in by the provider", b.field(page, "sign_in"))}})
	login := c.must("POST", "/login", "", object{"type": "m.login.token", "token": c.keep("login token by the provider", tokenOf(c.t, done))})
	c.keep("access token by the provider", login["access_token"])
}

// oauth asks for the grant of a device, and shows codes that nobody has.
func (c *canaries) oauth() {
	metadata := webApp("Canary app")
	status, client := c.call("POST", "/oauth2/register", "", metadata)
	if status != http.StatusCreated {
		c.t.Fatalf("registering a client: %d %v", status, client)
	}
	id, _ := client["client_id"].(string)
	grant := c.must("POST", "/oauth2/device", "", url.Values{"client_id": {id}, "scope": {scopeOf("CANARYTV")}}.Encode())
	c.keep("device code", grant["device_code"])
	c.call("POST", "/oauth2/token", "", url.Values{"grant_type": {deviceGrant}, "client_id": {id}, "device_code": {c.secrets["device code"]}}.Encode())
	c.call("POST", "/oauth2/token", "", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {id}, "code": {c.keep("made-up code", "cca_Canary-authorization-code")}, "redirect_uri": {"https://app.test.example/back"}, "code_verifier": {c.word("verifier of a code")},
	}.Encode())
	c.call("POST", "/oauth2/revoke", "", url.Values{"token": {c.secrets["renewed access token"] + "x"}}.Encode())
}

// mistakes puts secrets where they do not belong.
func (c *canaries) mistakes(token string) {
	stray := c.word("password where it does not belong")
	for _, path := range []string{
		"/account/whoami?password=" + stray, "/no/such/path/" + stray, "/rooms/" + stray + "/state", "/profile/" + stray, "/login?token=" + stray, "/account/whoami?access_token=" + token,
	} {
		c.call("GET", path, "", nil)
		c.call("GET", path, token, nil)
	}
	c.call("GET", "/account/whoami", "ccl_"+c.word("made-up token"), nil)
	c.call("POST", "/login", "", []byte(`{"type":"m.login.password","password":"`+stray+`"`))
	c.call("POST", "/login", "", []byte(`{"type":"m.login.password","password":["`+stray+`"]}`))
	c.call("POST", "/_synapse/admin/v1/register", "", object{"nonce": "x", "username": "bob", "password": stray, "mac": c.word("wrong mac")})
	c.call("POST", "/account/password", token, object{"new_password": stray, "auth": object{"type": "m.login.password", "password": stray}})
	c.call("POST", "/delete_devices", token, object{"devices": []string{"x"}, "auth": object{"type": stray}})
}

func (c *canaries) log() string {
	c.t.Helper()
	text, err := os.ReadFile(c.s.LogFile())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// mayHold says which columns may hold what, because somebody has to read it again. Everything else stands nowhere, but for
// hashes of it.
var mayHold = map[string][]string{
	"e-mail address":            {"threepids.address", "validations.address", "mails.address", "pushers.key"},
	"topic":                     {"events.json", "search.body"},
	"text of a message":         {"events.json", "search.body"},
	"account data":              {"account_data.content"},
	"message to a device":       {"to_device.event"},
	"session of a confirmation": {"uia_sessions.id"}, // opens nothing without the session of the account that it is of
}

// echoed are what an error may repeat to whoever has sent it: names and paths, which people mistype.
func echoed(what string) bool {
	return strings.HasPrefix(what, "password where it does not belong") || strings.HasPrefix(what, "session of a confirmation")
}

func (c *canaries) lookAt(where, text string) {
	c.t.Helper()
	for what, secret := range c.secrets {
		if testserver.Holds(text, secret) {
			c.t.Errorf("%s holds a %s", where, what)
		}
	}
}

// look searches everything that was written.
func (c *canaries) look(store *redis.Service) {
	c.t.Helper()
	for name, text := range c.s.Columns() {
		for what, secret := range c.secrets {
			kind, _, _ := strings.Cut(what, " (")
			if testserver.Holds(text, secret) && !slices.Contains(mayHold[kind], name) {
				c.t.Errorf("the column %s holds a %s", name, what)
			}
		}
	}
	c.lookAt("the log", c.log())
	res, metrics := browse(c.t, "GET", c.s.Admin+"/metrics", "")
	if res.StatusCode != http.StatusOK || !strings.Contains(metrics, "conclave_passwords_checked_total") {
		c.t.Errorf("the metrics are %d", res.StatusCode)
	}
	c.lookAt("a metric", metrics)
	kept := store.Kept()
	for key, value := range kept {
		c.lookAt("Redis", key+value)
		if strings.Contains(key+value, "alice") || strings.Contains(key+value, "198.18.") {
			c.t.Errorf("Redis holds a name or an address: %q", key)
		}
	}
	for _, text := range c.errors {
		for what, secret := range c.secrets {
			if testserver.Holds(text, secret) && !echoed(what) {
				c.t.Errorf("an error holds a %s: %s", what, text)
			}
		}
	}
	message := testserver.Holds(c.s.Columns()["events.json"], c.secrets["text of a message"])
	if logged := strings.Contains(c.log(), "security event"); !message || !logged || len(kept) == 0 || len(c.errors) < 10 {
		c.t.Errorf("the test has gone blind: message %v, log %v, %d keys, %d errors", message, logged, len(kept), len(c.errors))
	}
}
