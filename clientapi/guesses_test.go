package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestABrowserIsKnownAgain guesses at an account from many addresses until nobody is looked at any more, but for the
// browser in which its owner was logged in before, and a session of the account.
func TestABrowserIsKnownAgain(t *testing.T) {
	proof.Of(t, "A08", "A09")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_RATE_LIMITS_ENABLED=true", "CONCLAVE_TRUSTED_PROXIES=127.0.0.0/8"}})
		alice := s.Register("alice")
		addresses := 0
		login := func(name, password, cookie string) (int, *http.Cookie) {
			t.Helper()
			addresses++
			raw, err := json.Marshal(object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": name}, "password": password})
			if err != nil {
				t.Fatal(err)
			}
			headers := []string{"X-Forwarded-For", fmt.Sprintf("198.51.100.%d", addresses)}
			if cookie != "" {
				headers = append(headers, "Cookie", cookie)
			}
			res, _ := browse(t, "POST", s.URL+"/_matrix/client/v3/login", string(raw), headers...)
			for _, c := range res.Cookies() {
				return res.StatusCode, c
			}
			return res.StatusCode, nil
		}
		status, mark := login("alice", testserver.Password, "")
		if status != http.StatusOK || mark == nil || !mark.HttpOnly || mark.SameSite != http.SameSiteLaxMode || mark.Path != "/" || mark.Domain != "" || mark.MaxAge < 300*24*3600 {
			t.Fatalf("a login is answered %d with the cookie %+v", status, mark)
		}
		cookie := mark.Name + "=" + mark.Value
		if status, again := login("alice", testserver.Password, cookie); status != http.StatusOK || again != nil {
			t.Errorf("a known browser is answered %d with the cookie %+v", status, again)
		}
		for range 10 { // the answers are the same for a name that nobody has
			mine, _ := login("alice", "a wrong password", "")
			if nobodys, _ := login("nobody", "a wrong password", ""); nobodys != mine || mine != http.StatusForbidden {
				t.Errorf("a wrong password of somebody is answered %d, and of nobody %d", mine, nobodys)
			}
		}
		if status, _ := login("alice", testserver.Password, ""); status != http.StatusForbidden {
			t.Errorf("a stranger's guess that is right is answered %d when all guesses are used up", status)
		}
		if status, _ := login("alice", testserver.Password, mark.Name+"="+strings.Repeat("A", 32)); status != http.StatusForbidden {
			t.Errorf("a made-up mark is answered %d", status)
		}
		if status, _ := login("alice", testserver.Password, cookie); status != http.StatusOK {
			t.Errorf("the owner's browser is answered %d", status)
		}
		alice.Must("POST", "/account/password", object{"new_password": "another password", "auth": passwordOf(alice)})
	})
}
