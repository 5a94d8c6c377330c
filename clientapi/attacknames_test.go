package clientapi_test

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestNamesAreNotTold asks, as somebody who is not logged in, about names that exist and names that do not: where nobody
// can register the answers are the same to the byte. How long they take is shown in the package accounts.
func TestNamesAreNotTold(t *testing.T) {
	proof.Of(t, "A08")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_REGISTRATION_MODE=closed"}})
	admin := s.RegisterAdmin("existing")
	gone := s.RegisterAdmin("deactivated")
	gone.Must("POST", "/account/deactivate", object{"auth": object{"type": "m.login.password", "user": "deactivated", "password": testserver.Password}})
	same := func(u *testserver.User, method, path string, body func(name string) any) {
		t.Helper()
		var first string
		for _, name := range []string{"existing", "deactivated", "absentee", "no-name!"} {
			var with any
			if body != nil {
				with = body(name)
			}
			a := try(t, u, method, strings.ReplaceAll(path, "NAME", escape(name)), with)
			got := strings.ReplaceAll(string(a.Raw), name, "NAME")
			if a.Status < 400 {
				t.Errorf("%s %s of %s: %d", method, path, name, a.Status)
			}
			if first == "" {
				first = got
			} else if got != first {
				t.Errorf("%s %s tells names apart: %s and %s", method, path, first, got)
			}
		}
	}
	wrong := func(identifier func(string) any) func(string) any {
		return func(name string) any {
			return object{"type": "m.login.password", "password": "a wrong password", "identifier": identifier(name)}
		}
	}
	same(s.Nobody(), "POST", "/login", wrong(func(name string) any { return object{"type": "m.id.user", "user": name} }))
	same(s.Nobody(), "POST", "/login", wrong(func(name string) any { return object{"type": "m.id.user", "user": "@" + name + ":" + string(s.Name)} }))
	same(s.Nobody(), "POST", "/login", func(name string) any {
		return object{"type": "m.login.password", "password": repeat("a", 600), "user": name}
	})
	same(s.Nobody(), "GET", "/register/available?username=NAME", nil)
	same(s.Nobody(), "POST", "/register", func(name string) any {
		return object{"username": name, "password": "a good password", "auth": object{"type": "m.login.dummy"}}
	})
	same(s.Nobody(), "GET", "/profile/@NAME:"+string(s.Name), nil)
	admin.Must("GET", "/account/whoami", nil)
}
