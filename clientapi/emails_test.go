package clientapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/mail/catcher"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// mailed is a server with a mail server beside it.
type mailed struct {
	*testserver.Server
	t    *testing.T
	smtp *catcher.Server
	seen map[string]int // how many mails to an address were looked at
}

func startMailed(t *testing.T, o testserver.Options) *mailed {
	t.Helper()
	m, err := catcher.Start(catcher.Options{UTF8: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	o.Env = append(o.Env, "CONCLAVE_EMAIL_SMTP_URL="+m.URL(), "CONCLAVE_EMAIL_FROM=Conclave <conclave@example.org>")
	return &mailed{testserver.Start(t, o), t, m, map[string]int{}}
}

// next waits for the next mail to an address.
func (m *mailed) next(to string) *catcher.Mail {
	m.t.Helper()
	wait.Until(m.t, "mail to "+to, func() bool { return len(m.smtp.Mails(to)) > m.seen[to] })
	m.seen[to]++
	return m.smtp.Mails(to)[m.seen[to]-1]
}

// ask asks for a mail to an address and returns the session's ID.
func (m *mailed) ask(u *testserver.User, path, address, secret string) string {
	m.t.Helper()
	a := u.Must("POST", path+"/email/requestToken", object{"client_secret": secret, "email": address, "send_attempt": 1})
	sid, _ := a.Body["sid"].(string)
	if sid == "" || a.Body["submit_url"] != nil || len(a.Body) != 1 {
		m.t.Errorf("%s is answered %s", path, a.Raw)
	}
	return sid
}

// browse makes a request as a browser does, or whoever else.
func browse(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
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

var formToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

// click opens the link of a mail and presses the button of the page.
func (m *mailed) click(mail *catcher.Mail, headers ...string) string {
	m.t.Helper()
	res, page := browse(m.t, "GET", mail.Link(), "", headers...)
	found := formToken.FindStringSubmatch(page)
	if res.StatusCode != http.StatusOK || found == nil {
		m.t.Fatalf("the link's page: %d %s", res.StatusCode, page)
	}
	res, page = browse(m.t, "POST", mail.Link(), url.Values{"token": {found[1]}}.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
	if res.StatusCode != http.StatusOK {
		m.t.Fatalf("the button: %d %s", res.StatusCode, page)
	}
	return page
}

func creds(sid, secret string) object {
	return object{"type": "m.login.email.identity", "threepid_creds": object{"sid": sid, "client_secret": secret}}
}

func passwordOf(u *testserver.User) object {
	return object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": u.ID}, "password": testserver.Password}
}

// addressOf gives an account an address.
func (m *mailed) addressOf(u *testserver.User, address string) {
	m.t.Helper()
	sid := m.ask(u, "/account/3pid", address, "s3cret")
	m.click(m.next(address))
	u.Must("POST", "/account/3pid/add", object{"sid": sid, "client_secret": "s3cret", "auth": passwordOf(u)})
}

// TestRegistrationByMail makes an account where only addresses of the organization may: by a client that tells of the
// confirmed address, and by one that comes again with nothing but the session.
func TestRegistrationByMail(t *testing.T) {
	proof.Of(t, "AN-05", "AN-17", "A08")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		m := startMailed(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_ALLOWED_EMAIL_DOMAINS=Firma.example"}})
		nobody := m.Nobody()
		body := func(name string, auth any) object {
			return object{"username": name, "password": testserver.Password, "auth": auth}
		}
		first := try(t, nobody, "POST", "/register", object{"username": "alice", "password": testserver.Password})
		if first.Status != 401 || fmt.Sprint(first.Body["flows"]) != "[map[stages:[m.login.email.identity]]]" {
			t.Fatalf("%d %s", first.Status, first.Raw)
		}
		nobody.Refused(403, "M_THREEPID_DENIED", "POST", "/register/email/requestToken", object{"client_secret": "s3cret", "email": "alice@firma.example.evil.test", "send_attempt": 1})
		sid := m.ask(nobody, "/register", "Alice@FIRMA.example", "s3cret")
		auth := creds(sid, "s3cret")
		auth["session"] = first.Body["session"]
		if a := try(t, nobody, "POST", "/register", body("alice", auth)); a.Status != 401 || a.Body["errcode"] != "M_THREEPID_AUTH_FAILED" {
			t.Errorf("before the link was opened: %d %s", a.Status, a.Raw)
		}
		for _, wrong := range []object{creds(sid, "other"), creds("other", "s3cret"), {"type": "m.login.email.identity"}, {"type": "m.login.dummy"}} {
			if a := try(t, nobody, "POST", "/register", body("alice", wrong)); a.Status != 401 || a.Body["errcode"] == nil {
				t.Errorf("with %v: %d %s", wrong, a.Status, a.Raw)
			}
		}
		m.click(m.next("alice@firma.example"))
		a := nobody.Must("POST", "/register", body("alice", object{"session": first.Body["session"]}))
		alice := &testserver.User{}
		*alice = *m.Login("alice")
		if id, _ := a.Body["user_id"].(string); id != alice.ID {
			t.Errorf("%s", a.Raw)
		}
		list, _ := alice.Must("GET", "/account/3pid", nil).Body["threepids"].([]any)
		if len(list) != 1 || testserver.At(list[0], "address") != "alice@firma.example" || testserver.At(list[0], "medium") != "email" {
			t.Errorf("%v", list)
		}
		// Once more with the same address: the answer is as before, and the mail says what is the matter.
		m.ask(nobody, "/register", "alice@firma.example", "another")
		if mail := m.next("alice@firma.example"); strings.Contains(mail.Link(), "token=") || !strings.Contains(mail.Text, alice.ID) {
			t.Errorf("%s", mail.Text)
		}
		// What has made one account makes no other.
		if a := try(t, nobody, "POST", "/register", body("second", creds(sid, "s3cret"))); a.Status != 401 {
			t.Errorf("a second account: %d %s", a.Status, a.Raw)
		}
		for _, path := range []string{"/register", "/account/password", "/account/3pid"} {
			nobody.Refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", path+"/msisdn/requestToken", object{
				"client_secret": "s3cret", "country": "GB", "phone_number": "07700900001", "send_attempt": 1,
			})
			proof.Refused(t, "POST", "/_matrix/client/v3"+path+"/msisdn/requestToken")
			for _, wrong := range []object{
				{}, {"client_secret": "s3cret", "email": "bob", "send_attempt": 1}, {"client_secret": "s cret", "email": "b@firma.example", "send_attempt": 1},
				{"client_secret": "s3cret", "email": "b@firma.example", "send_attempt": -1}, {"client_secret": "s3cret", "email": "b@firma.example\r\nBcc: c@firma.example", "send_attempt": 1},
				{"client_secret": "s3cret", "email": "b@firma.example", "send_attempt": 1, "next_link": "javascript:alert(1)"},
			} {
				if a := try(t, nobody, "POST", path+"/email/requestToken", wrong); a.Status != 400 {
					t.Errorf("%s with %v: %d %s", path, wrong, a.Status, a.Raw)
				}
			}
		}
	})
}

// TestAccountsByMail takes one account through all that an address does, with a browser and a proxy that lie about where
// they are, and looks at the end whether anything secret was kept.
func TestAccountsByMail(t *testing.T) {
	proof.Of(t, "A07", "A05", "AN-08", "AN-17", "CG-09", "A13")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		m := startMailed(t, testserver.Options{Engine: engine})
		alice := m.Register("alice")
		if c := alice.Must("GET", "/capabilities", nil).Body; testserver.At(c, "capabilities", "m.3pid_changes", "enabled") != true {
			t.Errorf("%v", c)
		}
		// The link leads to public_url, whatever host the request was for.
		res, text := browse(t, "POST", m.URL+"/_matrix/client/v3/account/3pid/email/requestToken",
			`{"client_secret":"s3cret","email":"Alice@A.example","send_attempt":1,"next_link":"`+m.URL+`/#/settings"}`,
			"Host", "evil.test", "X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "https", "Authorization", "Bearer "+alice.Token, "Accept-Language", "de-DE,de;q=0.9")
		var answer struct{ SID string }
		if res.StatusCode != 200 || json.Unmarshal([]byte(text), &answer) != nil {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
		mail := m.next("alice@a.example")
		token := mail.Link()[strings.LastIndexByte(mail.Link(), '=')+1:]
		if !strings.HasPrefix(mail.Link(), m.URL+"/_matrix/") || strings.Contains(mail.Text, "evil") || !strings.Contains(mail.Text, "hinzugefügt") ||
			strings.Contains(mail.Subject, token) || strings.Contains(string(mail.Header["Message-Id"][0]), token) {
			t.Errorf("%s\n%s", mail.Subject, mail.Text)
		}
		add := object{"sid": answer.SID, "client_secret": "s3cret"}
		alice.Refused(400, "M_THREEPID_AUTH_FAILED", "POST", "/account/3pid/add", add)
		for range 3 { // programs that look through mails follow links
			browse(t, "GET", mail.Link(), "")
			browse(t, "HEAD", mail.Link(), "")
		}
		alice.Refused(400, "M_THREEPID_AUTH_FAILED", "POST", "/account/3pid/add", add)
		res, page := browse(t, "GET", mail.Link(), "", "Accept-Language", "de")
		if !strings.Contains(page, `lang="de"`) || !strings.Contains(page, alice.ID) || res.Header.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self'") || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v %s", res.Header, page)
		}
		if page := m.click(mail); !strings.Contains(page, `href="`+m.URL+`/#/settings"`) {
			t.Errorf("the page does not lead on: %s", page)
		}
		if res, _ := browse(t, "GET", mail.Link(), ""); res.StatusCode != 400 {
			t.Errorf("a used link: %d", res.StatusCode)
		}
		if a := try(t, alice, "POST", "/account/3pid/add", add); a.Status != 401 {
			t.Errorf("without a password: %d %s", a.Status, a.Raw)
		}
		add["auth"] = passwordOf(alice)
		alice.Must("POST", "/account/3pid/add", add)

		// A page of another host is not followed.
		m.Nobody().Must("POST", "/account/password/email/requestToken", object{"client_secret": "s3cret", "email": "alice@a.example", "send_attempt": 1, "next_link": "https://evil.test/"})
		if page := m.click(m.next("alice@a.example")); strings.Contains(page, "evil.test") {
			t.Errorf("the page leads elsewhere: %s", page)
		}

		byMail := func(address, password string) *testserver.Answer {
			return try(t, m.Nobody(), "POST", "/login", object{"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": address}})
		}
		if a := byMail("ALICE@a.example", testserver.Password); a.Status != 200 || a.Body["user_id"] != alice.ID {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		if a := byMail("bob@a.example", testserver.Password); a.Status != 403 || a.Body["errcode"] != "M_FORBIDDEN" {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		phone := object{"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.phone", "country": "GB", "phone": "1"}}
		m.Nobody().Refused(403, "M_FORBIDDEN", "POST", "/login", phone)
		admin := m.RegisterAdmin("admin")
		users := admin.Must("GET", "/_synapse/admin/v2/users?name=alice", nil).Body["users"].([]any)
		if len(users) != 1 || testserver.At(users[0].(object)["threepids"].([]any)[0], "address") != "alice@a.example" {
			t.Errorf("%v", users)
		}
		m.resets(alice, "alice@a.example")
		for where, text := range m.Kept() {
			for _, canary := range []string{token, "s3cret", "r3set"} {
				if strings.Contains(text, canary) {
					t.Errorf("%s holds %s", where, canary)
				}
			}
			if strings.Contains(where, "log") && strings.Contains(text, "a.example") {
				t.Errorf("%s names an address", where)
			}
		}
	})
}

// resets resets a password by mail.
func (m *mailed) resets(u *testserver.User, address string) {
	m.t.Helper()
	nobody, other := m.Nobody(), m.Login(u.ID)
	m.ask(nobody, "/account/password", "nobody@a.example", "r3set")
	if mail := m.next("nobody@a.example"); strings.Contains(mail.Text, "token=") {
		m.t.Errorf("%s", mail.Text)
	}
	sid := m.ask(nobody, "/account/password", address, "r3set")
	body := object{"new_password": "quite another password"}
	challenge := try(m.t, nobody, "POST", "/account/password", body)
	if challenge.Status != 401 || fmt.Sprint(challenge.Body["flows"]) != "[map[stages:[m.login.email.identity]]]" {
		m.t.Errorf("%d %s", challenge.Status, challenge.Raw)
	}
	body["auth"] = object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": u.ID}, "password": testserver.Password, "session": challenge.Body["session"]}
	if a := try(m.t, nobody, "POST", "/account/password", body); a.Status != 401 {
		m.t.Errorf("by password, without a session: %d %s", a.Status, a.Raw)
	}
	body["auth"] = creds(sid, "r3set")
	if a := try(m.t, nobody, "POST", "/account/password", body); a.Status != 401 || a.Body["errcode"] != "M_THREEPID_AUTH_FAILED" {
		m.t.Errorf("before the link was opened: %d %s", a.Status, a.Raw)
	}
	m.click(m.next(address))
	var good atomic.Int64
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if a := try(m.t, nobody, "POST", "/account/password", body); a.Status == 200 {
				good.Add(1)
			} else if a.Status != 400 && a.Status != 401 {
				m.t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	group.Wait()
	if good.Load() != 1 {
		m.t.Errorf("%d of 20 resets succeeded", good.Load())
	}
	for _, ended := range []*testserver.User{u, other} {
		ended.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	}
	nobody.Must("POST", "/login", object{"type": "m.login.password", "password": "quite another password", "identifier": object{"type": "m.id.user", "user": u.ID}})
	if mail := m.next(address); !strings.Contains(mail.Text, "changed") && !strings.Contains(mail.Text, "geändert") {
		m.t.Errorf("%s", mail.Text)
	}
}

// TestPublishedAddresses binds an address at an identity server and has it forgotten: one address by itself, one when the
// account is closed.
func TestPublishedAddresses(t *testing.T) {
	proof.Of(t, "AN-16")
	ca := peer.NewCA(t)
	m := startMailed(t, testserver.Options{CA: ca})
	id := peer.NewIdentityServer(t, ca)
	alice := m.Register("alice")
	m.addressOf(alice, "alice@a.example")
	var mu sync.Mutex
	var bound []string
	refuse := ""
	id.Handle("POST", "/_matrix/identity/v2/3pid/bind", func(c *peer.Call) peer.Reply {
		mu.Lock()
		defer mu.Unlock()
		var q object
		if json.Unmarshal(c.Body, &q) != nil || c.Header.Get("Authorization") != "Bearer "+id.Token || q["client_secret"] != "s3cret" {
			return peer.Refuse(401, "M_UNAUTHORIZED")
		}
		if refuse != "" {
			return peer.Refuse(400, refuse)
		}
		address, _ := q["sid"].(string)
		bound = append(bound, address)
		return peer.Reply{Body: object{"medium": "email", "address": address, "mxid": q["mxid"]}}
	})
	id.Handle("POST", "/_matrix/identity/v2/3pid/unbind", func(c *peer.Call) peer.Reply {
		mu.Lock()
		defer mu.Unlock()
		var q object
		address, _ := "", json.Unmarshal(c.Body, &q)
		address, _ = testserver.At(q, "threepid", "address").(string)
		signed := c.Header.Get("Authorization")
		if !strings.HasPrefix(signed, "X-Matrix ") || !strings.Contains(signed, `origin="`+string(m.Name)+`",destination="`+string(id.Name)+`"`) || q["mxid"] != alice.ID {
			return peer.Refuse(403, "M_FORBIDDEN")
		}
		bound = slices.DeleteFunc(bound, func(b string) bool { return b == address })
		return peer.Reply{Body: object{}}
	})
	bind := func(address string) object {
		return object{"client_secret": "s3cret", "sid": address, "id_server": id.Name, "id_access_token": id.Token}
	}
	holds := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(bound, want) {
			t.Errorf("bound are %v, want %v", bound, want)
		}
	}
	refuse = "M_SESSION_NOT_VALIDATED"
	alice.Refused(400, refuse, "POST", "/account/3pid/bind", bind("alice@a.example"))
	alice.Refused(403, "M_THREEPID_AUTH_FAILED", "POST", "/account/3pid", object{"three_pid_creds": bind("alice@a.example")})
	refuse = ""
	alice.Refused(400, "M_MISSING_PARAM", "POST", "/account/3pid/bind", object{})
	alice.Must("POST", "/account/3pid/bind", bind("alice@a.example"))
	alice.Must("POST", "/account/3pid", object{"three_pid_creds": bind("more@a.example")})
	holds("alice@a.example", "more@a.example")
	list, _ := alice.Must("GET", "/account/3pid", nil).Body["threepids"].([]any)
	if len(list) != 1 {
		t.Errorf("what is published was added to the account: %v", list)
	}
	unbind := func(path string, body object, want string) {
		t.Helper()
		if a := alice.Must("POST", "/account/3pid/"+path, body); a.Body["id_server_unbind_result"] != want {
			t.Errorf("%s %v: %s", path, body, a.Raw)
		}
	}
	unbind("unbind", object{"medium": "email", "address": "More@a.example"}, "success")
	unbind("unbind", object{"medium": "email", "address": "more@a.example"}, "no-support")
	holds("alice@a.example")
	unbind("delete", object{"medium": "email", "address": "Alice@a.example"}, "success")
	holds()
	unbind("delete", object{"medium": "email", "address": "alice@a.example"}, "no-support")
	alice.Must("POST", "/account/3pid/bind", bind("alice@a.example"))
	if a := alice.Must("POST", "/account/deactivate", object{"auth": passwordOf(alice)}); a.Body["id_server_unbind_result"] != "success" {
		t.Errorf("%s", a.Raw)
	}
	holds()
}

// TestAMailServerThatIsDown asks for mail while the mail server refuses everything: the answer is the same, and the mail
// comes later. Without a mail server the server says so.
func TestAMailServerThatIsDown(t *testing.T) {
	t.Parallel() // it mostly waits
	m := startMailed(t, testserver.Options{})
	m.smtp.Refuse(func(string) error { return catcher.Error(451, "not now, a@a.example") }, nil)
	m.ask(m.Nobody(), "/account/password", "a@a.example", "s3cret")
	wait.Until(t, "an attempt", func() bool { return m.smtp.Tried() > 0 })
	m.smtp.Refuse(nil, nil)
	m.next("a@a.example")
	if strings.Contains(m.Kept()["/log"], "a.example") {
		t.Error("the log names the address")
	}
	s := testserver.Start(t, testserver.Options{})
	for _, path := range []string{"/register", "/account/password", "/account/3pid"} {
		s.Nobody().Refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", path+"/email/requestToken", object{"client_secret": "s", "email": "a@a.example", "send_attempt": 1})
	}
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "POST", "/account/password", object{"new_password": "quite another password"})
}
