package clientapi_test

import (
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

// sendingLate sets somebody's account data. The body is sent as soon as the server wants to read it.
func sendingLate(t *testing.T, u *testserver.User, body io.Reader) (int, error) {
	req, err := http.NewRequestWithContext(t.Context(), "PUT", u.Server.URL+"/_matrix/client/v3"+testserver.Path("user", u.ID, "account_data", "late"), body)
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
