package clientapi_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// lockPath and suspendPath are where administrators lock and suspend a user.
func lockPath(user string) string {
	return "/_matrix/client/v1/admin" + testserver.Path("lock", user)
}

func suspendPath(user string) string {
	return "/_matrix/client/v1/admin" + testserver.Path("suspend", user)
}

func TestModeration(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		admin := s.RegisterAdmin("admin")
		t.Run("rights", func(t *testing.T) { moderationRights(t, s, admin) })
		t.Run("locked", func(t *testing.T) { lockedAccounts(t, s, admin) })
		t.Run("suspended", func(t *testing.T) { suspendedAccounts(t, s, admin) })
		t.Run("who is", func(t *testing.T) { whoIs(t, s, admin) })
		t.Run("list", func(t *testing.T) { listOfUsers(t, s, admin) })
	})
}

// moderationRights asks everything that is refused.
func moderationRights(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "AN-21")
	other := s.RegisterAdmin(testserver.Unique("admin"))
	alice, gone := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("gone"))
	deactivate(gone)
	nobody := "@nobody:" + string(s.Name)
	for _, path := range []func(string) string{lockPath, suspendPath} {
		body := object{"locked": true, "suspended": true}
		for who, want := range map[string]struct {
			status int
			code   string
		}{
			other.ID: {403, "M_FORBIDDEN"}, nobody: {404, "M_NOT_FOUND"}, gone.ID: {404, "M_NOT_FOUND"},
			"@alice:elsewhere.test": {400, "M_INVALID_PARAM"}, "nonsense": {400, "M_INVALID_PARAM"},
		} {
			admin.Refused(want.status, want.code, "GET", path(who), nil)
			admin.Refused(want.status, want.code, "PUT", path(who), body)
		}
		admin.Refused(403, "M_FORBIDDEN", "PUT", path(admin.ID), body)
		admin.Refused(400, "M_MISSING_PARAM", "PUT", path(alice.ID), object{})
		admin.Refused(400, "M_INVALID_PARAM", "PUT", path(alice.ID), object{"locked": "yes", "suspended": 1})
		// Whoever is no administrator does not learn who has an account.
		for _, who := range []string{alice.ID, admin.ID, nobody, gone.ID, "@alice:elsewhere.test", "nonsense"} {
			alice.Refused(403, "M_FORBIDDEN", "GET", path(who), nil)
			alice.Refused(403, "M_FORBIDDEN", "PUT", path(who), body)
		}
	}
	moderation := func(u *testserver.User) any {
		return testserver.At(u.Must("GET", "/capabilities", nil).Body, "capabilities", "m.account_moderation")
	}
	if m := moderation(admin); testserver.At(m, "lock") != true || testserver.At(m, "suspend") != true {
		t.Errorf("an administrator is told %v of moderation", m)
	}
	if m := moderation(alice); m != nil {
		t.Errorf("alice is told %v of moderation", m)
	}
}

// stillOpen is how long nothing stays open of a session that has ended: a second on a machine that is not busy with tests.
// Without being told an upload would end after twenty, and a long poll after sixty.
const stillOpen = 15 * time.Second

// lockedAccounts locks somebody who has everything open that can be.
func lockedAccounts(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "AN-19", "A06", "CG-03")
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	conn := bob.Socket(nil)
	frames(t, conn, "the first frame", func(object) bool { return true })
	poll, upload := make(chan *testserver.Answer, 1), make(chan int, 1)
	go func() {
		a, err := bob.Do("GET", "/sync?timeout=60000&since="+since, nil)
		if err != nil {
			t.Error(err)
		}
		poll <- a
	}()
	body, more := io.Pipe()
	defer more.Close() //nolint:errcheck // a pipe
	go func() { upload <- uploading(t, bob, body) }()
	if _, err := more.Write([]byte("the beginning")); err != nil { // once the request is under way
		t.Fatal(err)
	}
	openID := bob.Must("POST", testserver.Path("user", bob.ID, "openid", "request_token"), object{}).Body["access_token"].(string)
	began := time.Now()
	if a := admin.Must("PUT", lockPath(bob.ID), object{"locked": true}); a.Body["locked"] != true {
		t.Errorf("locking was answered %v", a.Body)
	}
	if code := closing(t, conn); code != 4001 {
		t.Errorf("the socket of a locked account was closed with %d", code)
	}
	if a := <-poll; a == nil || a.Status != 401 || a.Body["errcode"] != "M_USER_LOCKED" || a.Body["soft_logout"] != true {
		t.Errorf("the long poll of a locked account was answered %v", a)
	}
	if status := <-upload; status != 401 {
		t.Errorf("the upload of a locked account was answered %d", status)
	}
	if took := time.Since(began); took > stillOpen {
		t.Errorf("what was open outlived the lock by %v", took)
	}
	if a := admin.Must("GET", lockPath(bob.ID), nil); a.Body["locked"] != true {
		t.Errorf("the lock reads %v", a.Body)
	}
	// No road is open: neither with the token nor with the password.
	for _, path := range []string{"/account/whoami", "/sync", "/_matrix/client/versions", testserver.Path("profile", alice.ID)} {
		a, err := bob.Do("GET", path, nil)
		if err != nil || a.Status != 401 || a.Body["errcode"] != "M_USER_LOCKED" || a.Body["soft_logout"] != true {
			t.Errorf("a locked account gets %s: %v %v", path, a, err)
		}
	}
	bob.Refused(401, "M_USER_LOCKED", "PUT", testserver.Path("rooms", room, "send", "m.room.message", "1"), object{"body": "x"})
	login := object{"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": bob.ID}}
	s.Nobody().Refused(401, "M_USER_LOCKED", "POST", "/login", login)
	login["password"] = "wrong"
	s.Nobody().Refused(403, "M_FORBIDDEN", "POST", "/login", login) // who does not know the password learns nothing
	if status := userinfo(t, s, openID); status != 401 {
		t.Errorf("the OpenID token of a locked account was answered %d", status)
	}

	// Tokens are kept, and end only by logging out.
	admin.Must("PUT", lockPath(bob.ID), object{"locked": false})
	bob.Must("GET", "/account/whoami", nil)
	second := s.Login(bob.ID)
	admin.Must("PUT", lockPath(bob.ID), object{"locked": true})
	second.Must("POST", "/logout", object{})
	second.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	bob.Must("POST", "/logout/all", object{})
	bob.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
}

// userinfo shows an OpenID token to the server, as a third party does, and returns the status of the answer.
func userinfo(t *testing.T, s *testserver.Server, openID string) int {
	pem, err := os.ReadFile(s.CA.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	url := "https://" + string(s.Name) + "/_matrix/federation/v1/openid/userinfo?access_token=" + openID
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// uploading makes an upload of a body and returns the status that it was answered.
func uploading(t *testing.T, u *testserver.User, body io.Reader) int {
	req, err := http.NewRequestWithContext(t.Context(), "POST", u.Server.URL+"/_matrix/media/v3/upload", body)
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// suspendedAccounts suspends somebody who has a socket open and goes through what is left.
func suspendedAccounts(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "AN-20", "A06")
	alice, bob, room := together(t, s)
	other := alice.CreateRoom(object{"preset": "public_chat", "invite": []string{bob.ID}})
	mine, theirs := bob.Say(room, "of bob"), alice.Say(room, "of alice")
	alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.power_levels", ""), object{"users": object{bob.ID: 50}})
	alice.Say(room, "to be read")
	conn := bob.Socket(nil)
	frames(t, conn, "the first frame", func(object) bool { return true })
	if a := admin.Must("PUT", suspendPath(bob.ID), object{"suspended": true}); a.Body["suspended"] != true {
		t.Errorf("suspending was answered %v", a.Body)
	}
	suspendedCalls(t, conn, room, mine)

	send := func(kind string) string {
		return testserver.Path("rooms", room, "send", kind, testserver.Unique("txn"))
	}
	redact := func(event string) string {
		return testserver.Path("rooms", room, "redact", event, testserver.Unique("txn"))
	}
	to := func(user string) object { return object{"messages": object{user: object{"*": object{}}}} }
	for _, c := range []struct {
		method, path string
		body         object
	}{
		{"POST", testserver.Path("join", other), object{}},
		{"POST", testserver.Path("knock", other), object{}},
		{"POST", testserver.Path("rooms", room, "invite"), object{"user_id": admin.ID}},
		{"POST", testserver.Path("rooms", room, "kick"), object{"user_id": alice.ID}},
		{"POST", "/createRoom", object{}},
		{"PUT", send("m.room.message"), object{"body": "x"}},
		{"PUT", send("m.room.redaction"), object{"redacts": theirs}},
		{"PUT", redact(theirs), object{}},
		{"PUT", testserver.Path("rooms", room, "state", "m.room.topic", ""), object{"topic": "x"}},
		{"PUT", testserver.Path("rooms", room, "typing", bob.ID), object{"typing": true}},
		{"PUT", testserver.Path("profile", bob.ID, "displayname"), object{"displayname": "x"}},
		{"DELETE", testserver.Path("profile", bob.ID, "displayname"), nil},
		{"POST", "/_matrix/media/v3/upload", object{}},
		{"PUT", testserver.Path("sendToDevice", "m.test", "1"), to(alice.ID)},
	} {
		bob.Refused(403, "M_USER_SUSPENDED", c.method, c.path, c.body)
	}
	second := s.Login(bob.ID)
	body := second.Sync("", 0)
	if got := bodies(testserver.Timeline(body, room)); len(got) == 0 || got[len(got)-1] != "to be read" {
		t.Errorf("somebody who is suspended reads %q", got)
	}
	for _, c := range []struct {
		method, path string
		body         object
	}{
		{"GET", testserver.Path("rooms", room, "messages") + "?dir=b", nil},
		{"POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}},
		{"PUT", testserver.Path("sendToDevice", "m.key.verification.request", "2"), to(bob.ID)},
		{"PUT", testserver.Path("user", bob.ID, "account_data", "m.secret"), object{"a": 1}},
		{"POST", testserver.Path("rooms", room, "receipt", "m.read", theirs), object{}},
		{"PUT", redact(mine), object{}},
		{"POST", testserver.Path("rooms", other, "leave"), object{}},
		{"POST", testserver.Path("rooms", room, "leave"), object{}},
		{"POST", "/logout", object{}},
	} {
		second.Must(c.method, c.path, c.body)
	}
	admin.Must("PUT", suspendPath(bob.ID), object{"suspended": false})
	bob.Join(other)
	bob.Say(other, "back again")
}

// suspendedCalls makes the calls of a socket that was opened before its account was suspended.
func suspendedCalls(t *testing.T, conn *websocket.Conn, room, mine string) {
	t.Helper()
	message := object{"room_id": room, "type": "m.room.message", "txn_id": "1", "content": object{"body": "x"}}
	for method, params := range map[string]object{"send": message, "typing": {"room_id": room, "typing": true}} {
		if a := ask(t, conn, method, params); testserver.At(a, "error", "errcode") != "M_USER_SUSPENDED" {
			t.Errorf("%s was answered %v", method, a)
		}
	}
	receipt := object{"room_id": room, "type": "m.read", "event_id": mine}
	if a := ask(t, conn, "receipt", receipt); a["error"] != nil {
		t.Errorf("a receipt was answered %v", a)
	}
}

// whoIs asks from where people use their devices.
func whoIs(t *testing.T, s *testserver.Server, admin *testserver.User) {
	alice := s.Register(testserver.Unique("alice"))
	path := testserver.Path("admin", "whois", alice.ID)
	for _, who := range []*testserver.User{alice, admin} {
		body := who.Must("GET", path, nil).Body
		sessions, _ := testserver.At(body, "devices", alice.Device, "sessions").([]any)
		if body["user_id"] != alice.ID || len(sessions) != 1 || !strings.Contains(string(who.Must("GET", path, nil).Raw), "127.0.0.1") {
			t.Errorf("whois answers %v", body)
		}
	}
	alice.Refused(403, "M_FORBIDDEN", "GET", testserver.Path("admin", "whois", admin.ID), nil)
	alice.Refused(403, "M_FORBIDDEN", "GET", testserver.Path("admin", "whois", "@nobody:"+string(s.Name)), nil)
	admin.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("admin", "whois", "@nobody:"+string(s.Name)), nil)
}

// listOfUsers pages through the accounts.
func listOfUsers(t *testing.T, s *testserver.Server, admin *testserver.User) {
	for _, name := range []string{"list_a", "list_b", "list-c", "listxd"} {
		s.Register(name)
	}
	admin.Must("PUT", suspendPath("@list_b:"+string(s.Name)), object{"suspended": true})
	deactivate(s.Login("listxd"))
	page := func(query string) (names []string, body object) {
		body = admin.Must("GET", "/_synapse/admin/v2/users?"+query, nil).Body
		for _, u := range testserver.Events(body["users"]) {
			name, _ := u["name"].(string)
			names = append(names, strings.TrimSuffix(name, ":"+string(s.Name)))
			if suspended := strings.HasPrefix(name, "@list_b"); u["suspended"] != suspended {
				t.Errorf("suspended is %v of %v", u["suspended"], name)
			}
		}
		return names, body
	}
	for query, want := range map[string]string{
		"name=LIST_": "@list_a @list_b", "name=list": "@list-c @list_a @list_b", "name=list&deactivated=true": "@list-c @list_a @list_b @listxd",
	} {
		if got, body := page(query); strings.Join(got, " ") != want || body["total"] != float64(len(got)) || body["next_token"] != nil {
			t.Errorf("%s finds %v", query, body)
		}
	}
	first, body := page("name=list&limit=2")
	next, _ := body["next_token"].(string)
	rest, last := page("name=list&limit=2&from=" + next)
	if strings.Join(append(first, rest...), " ") != "@list-c @list_a @list_b" || last["next_token"] != nil || body["total"] != float64(3) {
		t.Errorf("pages hold %v and %v", body, last)
	}
	s.Login("list_a").Refused(403, "M_FORBIDDEN", "GET", "/_synapse/admin/v2/users", nil)
}
