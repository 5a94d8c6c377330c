package clientapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// lateBodies begins requests and sends the rest of their bodies when the sessions have ended (TestErasure).
func lateBodies(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "A06")
	type late struct {
		name   string
		more   *io.PipeWriter
		status chan int
		want   int
	}
	var all []late
	for name, c := range map[string]struct {
		end  func(*testserver.User)
		want int
	}{
		"nothing": {func(*testserver.User) {}, 200},
		"logout":  {func(u *testserver.User) { u.Must("POST", "/logout", object{}) }, 401},
		"closing": {erasing, 401},
		"locking": {func(u *testserver.User) {
			admin.Must("PUT", "/_matrix/client/v1/admin/lock/"+u.ID, object{"locked": true})
		}, 401},
	} {
		u := s.Register(testserver.Unique("late"))
		body, more := io.Pipe()
		l := late{name, more, make(chan int, 1), c.want}
		go func() {
			status, err := sendingLate(t, u, body)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			l.status <- status
		}()
		if _, err := more.Write([]byte(`{"a":`)); err != nil { // which the server wants to read: it has let the request in
			t.Fatal(err)
		}
		c.end(u)
		all = append(all, l)
	}
	began := time.Now() // after which none is let in
	wait.Until(t, "the bodies to be late", func() bool { return time.Since(began) > 3*time.Second/2 })
	for _, l := range all {
		if _, err := fmt.Fprintf(l.more, `"late after %s"}`, l.name); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
		_ = l.more.Close()
		if status := <-l.status; status != l.want {
			t.Errorf("after %s the end of a request is answered %d, want %d", l.name, status, l.want)
		}
	}
	if rows := s.Rows(`SELECT content FROM account_data WHERE content LIKE '%late after%'`); len(rows) != 1 {
		t.Errorf("what came late is kept: %q", rows)
	}
}

// bodiesInBetween closes and erases an account while requests of it are under way that were let in before. Their bodies come so soon
// that nobody looks again whom they are of; on a slow machine somebody does, with the same answer.
func bodiesInBetween(t *testing.T, s *testserver.Server, admin *testserver.User) {
	proof.Of(t, "A06")
	alice, bob, room := together(t, s)
	read, err := json.Marshal(object{"m.fully_read": alice.Say(room, "hello")})
	if err != nil {
		t.Fatal(err)
	}
	requests := []struct{ method, path, body string }{
		{"PUT", testserver.Path("user", bob.ID, "account_data", "between"), `{"a":"between"}`},
		{"PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "between"), `{"a":"between"}`},
		{"PUT", testserver.Path("user", bob.ID, "rooms", room, "tags", "u.between"), `{}`},
		{"POST", testserver.Path("user", bob.ID, "filter"), `{"room":{"rooms":["!between"]}}`},
		{"PUT", testserver.Path("profile", bob.ID, "displayname"), `{"displayname":"between"}`},
		{"PUT", testserver.Path("pushrules", "global", "content", "between"), `{"actions":[],"pattern":"between"}`},
		{"POST", testserver.Path("rooms", room, "read_markers"), string(read)},
		{"POST", "/pushers/set", `{"kind":"http","app_id":"between","pushkey":"x","app_display_name":"x","device_display_name":"x","lang":"en","data":{"url":"https://push.example/_matrix/push/v1/notify"}}`},
	}
	bodies, statuses := make([]*io.PipeWriter, len(requests)), make([]chan int, len(requests))
	for i, q := range requests {
		body, more := io.Pipe()
		bodies[i], statuses[i] = more, make(chan int, 1)
		go func() {
			status, err := sending(t, bob, q.method, q.path, body)
			if err != nil {
				t.Errorf("%s: %v", q.path, err)
			}
			statuses[i] <- status
		}()
		if _, err := more.Write([]byte(q.body[:1])); err != nil { // which the server wants to read: it has let the request in
			t.Fatal(q.path, err)
		}
	}
	admin.Must("POST", closingPath(bob.ID), object{"erase": true})
	closed(t, admin, bob.ID)
	for i, q := range requests {
		if _, err := io.WriteString(bodies[i], q.body[1:]); err != nil {
			t.Errorf("%s: %v", q.path, err)
		}
		_ = bodies[i].Close()
		if status := <-statuses[i]; status < 400 {
			t.Errorf("%s of an account that is erased is answered %d", q.path, status)
		}
	}
	for what, sql := range map[string]string{
		"settings": `SELECT type || ' ' || content FROM account_data WHERE member = (SELECT nid FROM users WHERE user_id = '` + bob.ID + `')`,
		"filters":  `SELECT content FROM filters WHERE content LIKE '%between%'`,
		"profiles": `SELECT fields FROM profiles WHERE fields LIKE '%between%'`,
		"pushers":  `SELECT app_id FROM pushers WHERE app_id = 'between'`,
	} {
		if rows := s.Rows(sql); len(rows) != 0 {
			t.Errorf("%s are left of an account that is erased: %q", what, rows)
		}
	}
}

// sendingLate sets somebody's account data. The body is sent as soon as the server wants to read it.
func sendingLate(t *testing.T, u *testserver.User, body io.Reader) (int, error) {
	return sending(t, u, "PUT", testserver.Path("user", u.ID, "account_data", "late"), body)
}

// sending makes a request whose body is sent as soon as the server wants to read it.
func sending(t *testing.T, u *testserver.User, method, path string, body io.Reader) (int, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, u.Server.URL+"/_matrix/client/v3"+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	req.Header.Set("Expect", "100-continue")
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
