package clientapi_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// erasing closes an account and has what it leaves erased.
func erasing(u *testserver.User) {
	u.Must("POST", "/account/deactivate", object{"erase": true, "auth": object{
		"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": u.ID},
	}})
}

func closingPath(user string) string {
	return "/_synapse/admin/v1" + testserver.Path("deactivate", user)
}

// closed waits until nothing is left to be done about a closed account, and returns what became of it.
func closed(t *testing.T, admin *testserver.User, user string) (answer object) {
	t.Helper()
	wait.Until(t, "an account to be closed", func() bool {
		answer = admin.Must("GET", closingPath(user), nil).Body
		return answer["state"] == "done"
	})
	return answer
}

// TestErasure closes accounts and has what they leave erased.
func TestErasure(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		admin := s.RegisterAdmin("admin")
		t.Run("what is open", func(t *testing.T) { closedAtOnce(t, s) })
		t.Run("by administrators", func(t *testing.T) { closedByAdmins(t, s, admin) })
		t.Run("readers", func(t *testing.T) { erasedForNewcomers(t, s, admin) })
		t.Run("late bodies", func(t *testing.T) { lateBodies(t, s, admin) })
		t.Run("bodies in between", func(t *testing.T) { bodiesInBetween(t, s, admin) })
		t.Run("traces", func(t *testing.T) { erasedTraces(t, s, admin) })
	})
}

// closedAtOnce closes an account of which everything is open that can be.
func closedAtOnce(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A06", "AN-16")
	_, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	conn := bob.Socket(nil)
	frames(t, conn, "the first frame", func(object) bool { return true })
	poll, upload := make(chan *testserver.Answer, 1), make(chan int, 1)
	other := s.Login(bob.ID)
	go func() {
		a, err := other.Do("GET", "/sync?timeout=60000&since="+since, nil)
		if err != nil {
			t.Error(err)
		}
		poll <- a
	}()
	body, more := io.Pipe()
	defer more.Close() //nolint:errcheck // a pipe
	go func() { upload <- uploading(t, other, body) }()
	if _, err := more.Write([]byte("the beginning")); err != nil { // once the request is under way
		t.Fatal(err)
	}
	openID := bob.Must("POST", testserver.Path("user", bob.ID, "openid", "request_token"), object{}).Body["access_token"].(string)
	began := time.Now()
	erasing(bob)
	if code := closing(t, conn); code != 4001 {
		t.Errorf("the socket of a closed account was closed with %d", code)
	}
	// The poll may still say that the user leaves, if that comes before it hears of the end of its session.
	if a := <-poll; a == nil || testserver.At(a.Body, "rooms", "leave", room) == nil && (a.Status != 401 || a.Body["errcode"] != "M_UNKNOWN_TOKEN" || a.Body["soft_logout"] == true) {
		t.Errorf("the long poll of a closed account was answered %v", a)
	}
	if status := <-upload; status != 401 {
		t.Errorf("the upload of a closed account was answered %d", status)
	}
	if took := time.Since(began); took > stillOpen {
		t.Errorf("what was open outlived the account by %v", took)
	}
	if status := userinfo(t, s, openID); status != 401 {
		t.Errorf("the OpenID token of a closed account was answered %d", status)
	}
	for _, u := range []*testserver.User{bob, other} {
		u.Refused(401, "M_UNKNOWN_TOKEN", "PUT", testserver.Path("rooms", room, "send", "m.room.message", "1"), object{"body": "x"})
	}
	s.Nobody().Refused(403, "M_FORBIDDEN", "POST", "/login", object{
		"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": bob.ID},
	})
	name := strings.TrimPrefix(strings.Split(bob.ID, ":")[0], "@")
	s.Nobody().Refused(400, "M_USER_IN_USE", "POST", "/register", object{"username": name, "password": testserver.Password})
}

// closedByAdmins has administrators close accounts, and erase one that was closed before.
func closedByAdmins(t *testing.T, s *testserver.Server, admin *testserver.User) {
	alice, bob, room := together(t, s)
	second := s.RegisterAdmin(testserver.Unique("second"))
	bob.Refused(403, "M_FORBIDDEN", "POST", closingPath(alice.ID), object{})
	bob.Refused(403, "M_FORBIDDEN", "GET", closingPath(alice.ID), nil)
	admin.Refused(403, "M_FORBIDDEN", "POST", closingPath(admin.ID), object{"erase": true})
	admin.Refused(403, "M_FORBIDDEN", "POST", closingPath(second.ID), object{"erase": true})
	admin.Refused(404, "M_NOT_FOUND", "POST", closingPath("@nobody:"+string(s.Name)), object{})
	admin.Refused(400, "M_INVALID_PARAM", "POST", closingPath("@alice:elsewhere.test"), object{})
	admin.Refused(404, "M_NOT_FOUND", "GET", closingPath(bob.ID), nil)
	id := bob.Say(room, "something to stay")
	admin.Must("POST", closingPath(bob.ID), object{})
	bob.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	if a := closed(t, admin, bob.ID); a["erase"] != false || a["rooms_to_leave"] != 1. || a["rooms_left"] != 1. || a["error"] != nil {
		t.Errorf("the closing is told as %v", a)
	}
	carol := s.Register(testserver.Unique("carol"))
	read := func() any {
		return testserver.At(carol.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body, "content", "body")
	}
	alice.Invite(room, carol.ID)
	admin.Must("POST", closingPath(bob.ID), object{"erase": true})
	admin.Must("POST", closingPath(bob.ID), object{"erase": true}) // which does no harm
	if a := closed(t, admin, bob.ID); a["erase"] != true || a["rooms_erased"] != a["rooms_to_erase"] || a["rooms_erased"] != 1. {
		t.Errorf("the erasure is told as %v", a)
	}
	carol.Join(room)
	if got := read(); got != nil {
		t.Errorf("whoever came after the erasure reads %v", got)
	}
	var names []string
	for _, e := range admin.Must("GET", "/_synapse/admin/v1/audit_log?user_id="+bob.ID, nil).Body["entries"].([]any) {
		if by := testserver.At(e, "by"); by == admin.ID {
			names = append(names, testserver.At(e, "event").(string))
		}
	}
	if len(names) != 2 || names[0] != "erased" || names[1] != "deactivated" {
		t.Errorf("the audit log tells of %q", names)
	}
}

// erasedForNewcomers reads what an erased user has said, as somebody who was there and as somebody who came later.
func erasedForNewcomers(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "AN-16")
	alice, bob, room := together(t, s)
	bob.Must("PUT", testserver.Path("profile", bob.ID, "displayname"), object{"displayname": "Robert Secret"})
	first := bob.Say(room, "secretword of bob")
	edit := bob.Send(room, "m.room.message", object{
		"msgtype": "m.text", "body": "* secretword edited", "m.new_content": object{"msgtype": "m.text", "body": "secretword edited"},
		"m.relates_to": object{"rel_type": "m.replace", "event_id": first},
	})
	root := alice.Say(room, "a thread of alice")
	reply := bob.Send(room, "m.room.message", object{
		"msgtype": "m.text", "body": "secretword in a thread", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
	})
	erasing(bob)
	closed(t, admin, bob.ID)
	carol := s.Register(testserver.Unique("carol"))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	alice.Say(room, "after the erasure")
	texts := func(u *testserver.User) string {
		var all []string
		for _, path := range []string{
			testserver.Path("rooms", room, "messages") + "?dir=b&limit=100", testserver.Path("rooms", room, "event", first), testserver.Path("rooms", room, "context", reply),
			testserver.Path("rooms", room, "state"), testserver.Path("rooms", room, "members"), "/sync",
			"/_matrix/client/v1" + testserver.Path("rooms", room, "threads"), "/_matrix/client/v1" + testserver.Path("rooms", room, "relations", root),
			"/_matrix/client/v1" + testserver.Path("rooms", room, "relations", first), testserver.Path("rooms", room, "initialSync"),
		} {
			all = append(all, string(u.Must("GET", path, nil).Raw))
		}
		return strings.Join(all, "\n")
	}
	if got := texts(carol); strings.Contains(got, "secretword") || strings.Contains(got, "Robert Secret") || !strings.Contains(got, first) || !strings.Contains(got, edit) {
		t.Errorf("whoever came after the erasure reads %s", got)
	}
	for _, path := range []string{testserver.Path("rooms", room, "event", first), testserver.Path("rooms", room, "event", reply), testserver.Path("rooms", room, "messages") + "?dir=b&limit=100"} {
		if got := string(alice.Must("GET", path, nil).Raw); !strings.Contains(got, "secretword") {
			t.Errorf("whoever was there reads %s", got)
		}
	}
	// Nobody finds it by words any more.
	for _, u := range []*testserver.User{alice, carol} {
		a := u.Must("POST", "/search", object{"search_categories": object{"room_events": object{"search_term": "secretword"}}}).Body
		if n := testserver.At(a, "search_categories", "room_events", "count"); n != 0. {
			t.Errorf("%s finds %v", u.ID, a)
		}
	}
}

// erasedTraces looks for what an erased user has left beside messages, in a server that dies on the way.
func erasedTraces(t *testing.T, s *testserver.Server, admin *testserver.User) {
	alice, bob, room := together(t, s)
	own := bob.CreateRoom(object{"preset": "private_chat", "name": "diary"})
	var secrets []string
	for range 3 {
		secrets = append(secrets, bob.Say(own, "a note to myself"))
	}
	uri := strings.TrimPrefix(bob.Must("POST", "/_matrix/media/v3/upload?filename=holiday.txt", []byte("a picture")).Body["content_uri"].(string), "mxc://")
	bob.Must("POST", "/_matrix/media/v1/create", object{})
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "im.conclave.drafts"), object{"a": "draft"})
	bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "x"), object{"a": "draft"})
	bob.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", alice.Say(room, "hello")), object{})
	content := "/_matrix/client/v1/media/download/" + uri
	alice.Must("GET", content, nil)
	erasing(bob)
	s.Kill()
	s.Start()
	a := closed(t, admin, bob.ID)
	if a["rooms_left"] != 2. || a["rooms_erased"] != 2. || a["media_deleted"] != 2. || a["error"] != nil {
		t.Errorf("the closing is told as %v", a)
	}
	for _, id := range secrets {
		if text := s.EventJSON(id); text == "" || strings.Contains(text, "note to myself") {
			t.Errorf("what nobody else could see is kept as %s", text)
		}
	}
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", content, nil)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", testserver.Path("profile", bob.ID), nil)
	found := alice.Must("POST", "/user_directory/search", object{"search_term": strings.Split(bob.ID[1:], ":")[0]}).Body["results"].([]any)
	if len(found) != 0 {
		t.Errorf("the directory has %v", found)
	}
	for what, sql := range map[string]string{
		"settings": `SELECT content FROM account_data WHERE content LIKE '%draft%'`,
		"files":    `SELECT name FROM media WHERE name = 'holiday.txt'`,
	} {
		if rows := s.Rows(sql); len(rows) != 0 {
			t.Errorf("%s are left: %q", what, rows)
		}
	}
	s.Stop()
	if out, ok := s.Run("verify"); !ok {
		t.Errorf("what is left is not sound: %s", out)
	}
	s.Start()
}
