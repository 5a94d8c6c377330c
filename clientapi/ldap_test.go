package clientapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/ldap"
	"conclave/internal/testserver/proof"
)

// TestPeopleOfTheDirectory signs in by a real directory, as clients do.
func TestPeopleOfTheDirectory(t *testing.T) {
	proof.Of(t, "A04", "AN-09")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		const password = "a password of the directory"
		directory := ldap.Start(t)
		directory.Add("Ann.Bee", password)
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: append(directory.Env(), "CONCLAVE_LDAP_ADMIN_GROUP="+ldap.AdminGroup)})
		directory.SetAdmins("Ann.Bee")
		local := s.Register("local")
		login := func(name, password string) object {
			return object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": name}, "password": password}
		}
		anybody := s.Nobody()
		for _, wrong := range []string{"\x00", "wrong"} {
			anybody.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", login("ann.bee", wrong))
		}
		body := anybody.Must("POST", "/login", login("ann.bee", password)).Body
		ann := s.Nobody()
		ann.ID, _ = body["user_id"].(string)
		ann.Token, _ = body["access_token"].(string)
		ann.Device, _ = body["device_id"].(string)
		if ann.ID != "@ann.bee:"+string(s.Name) {
			t.Errorf("signed in as %s", ann.ID)
		}
		other, _ := anybody.Must("POST", "/login", login(ann.ID, password)).Body["device_id"].(string)
		ann.Must("GET", testserver.Path("admin", "whois", local.ID), nil) // as an administrator

		// The password is the organization's, and confirms what is to be confirmed.
		capable := fmt.Sprint(ann.Must("GET", "/capabilities", nil).Body["capabilities"])
		if !strings.Contains(capable, "m.change_password:map[enabled:false]") {
			t.Errorf("clients are told %s", capable)
		}
		auth := func(session, password string) object {
			return object{"type": "m.login.password", "session": session, "identifier": object{"type": "m.id.user", "user": ann.ID}, "password": password}
		}
		challenge := asked(t, ann, "/devices/"+other, object{})
		session, _ := challenge.Body["session"].(string)
		for _, wrong := range []string{"", "wrong", testserver.Password} {
			if no := asked(t, ann, "/devices/"+other, object{"auth": auth(session, wrong)}); no.Status != http.StatusUnauthorized || no.Body["completed"] != nil {
				t.Errorf("confirmed by %q: %d %v", wrong, no.Status, no.Body)
			}
		}
		ann.Must("DELETE", "/devices/"+other, object{"auth": auth(session, password)})
		ann.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/account/password", object{"new_password": "another password", "auth": auth("", password)})

		// Out of reach: told as what it is, and nobody else's matter.
		directory.Stop()
		anybody.Refused(http.StatusBadGateway, "M_UNKNOWN", "POST", "/login", login("ann.bee", password))
		anybody.Must("POST", "/login", login("local", testserver.Password))
		ann.Must("GET", "/account/whoami", nil)
		directory.Resume()
		anybody.Must("POST", "/login", login("ann.bee", password))
	})
}
