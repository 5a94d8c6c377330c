package clientapi_test

import (
	"net/http"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestRefresh renews the tokens of a login, by a client that can.
func TestRefresh(t *testing.T) {
	proof.Of(t, "AN-13", "A05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		name := testserver.Unique("alice")
		if body := s.Nobody().Must("POST", "/register", object{
			"username": name, "password": testserver.Password, "auth": object{"type": "m.login.dummy"}, "refresh_token": true,
		}).Body; body["refresh_token"] == nil || body["expires_in_ms"] == nil {
			t.Errorf("a registration by a client that renews its tokens was answered %v", body)
		}
		u := s.Nobody()
		login := u.Must("POST", "/login", object{
			"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": name}, "refresh_token": true,
		}).Body
		renew := func(token any) (access, refresh string) {
			body := s.Nobody().Must("POST", "/refresh", object{"refresh_token": token}).Body
			access, _ = body["access_token"].(string)
			refresh, _ = body["refresh_token"].(string)
			if body["expires_in_ms"] == nil {
				t.Errorf("a renewal was answered %v", body)
			}
			return access, refresh
		}
		access, refresh := renew(login["refresh_token"])
		u.Token, _ = login["access_token"].(string)
		u.Must("GET", "/account/whoami", nil) // nobody has used the new one
		u.Token = access
		if body := u.Must("GET", "/account/whoami", nil).Body; body["device_id"] != login["device_id"] {
			t.Errorf("the device %v became %v", login["device_id"], body["device_id"])
		}
		u.Token, _ = login["access_token"].(string)
		u.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)

		next, _ := renew(refresh)
		u.Token = next
		u.Must("GET", "/account/whoami", nil)
		s.Nobody().Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "POST", "/refresh", object{"refresh_token": refresh})
		u.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		s.Nobody().Refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", "/refresh", object{})
	})
}
