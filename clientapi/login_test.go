package clientapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	gotp "github.com/pquerna/otp/totp"

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

// TestSecondFactor signs in to an account with two-factor login: with a client that knows of it, and with one that knows
// passwords only.
func TestSecondFactor(t *testing.T) {
	proof.Of(t, "A10", "AN-09")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register(testserver.Unique("alice"))
		id := object{"type": "m.id.user", "user": alice.ID}
		password := object{"type": "m.login.password", "password": testserver.Password, "identifier": id}

		// An app password, and a token for another client, while there is one factor.
		app := alice.Must("POST", "/_matrix/client/unstable/im.conclave.account/app_passwords", object{"auth": password, "name": "old phone"}).Body
		const tokens = "/_matrix/client/v1/login/get_token"
		if a, err := alice.Do("POST", tokens, object{}); err != nil || a.Status != http.StatusUnauthorized || a.Body["flows"] == nil {
			t.Errorf("a token without confirmation: %v, %v", a, err)
		}
		token := alice.Must("POST", tokens, object{"auth": password}).Body["login_token"]
		if other := s.Nobody().Must("POST", "/login", object{"type": "m.login.token", "token": token}).Body; other["user_id"] != alice.ID {
			t.Errorf("the token opened %v", other)
		}
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", object{"type": "m.login.token", "token": token})

		const steps = "/_matrix/client/unstable/im.conclave.login"
		begun := s.Nobody().Must("POST", steps+"/sign_in", object{"identifier": id, "password": testserver.Password}).Body
		opened := s.Nobody().Must("POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": begun["sign_in"], "refresh_token": true}).Body
		if opened["refresh_token"] == nil || opened["user_id"] != alice.ID {
			t.Errorf("the sign-in opened %v", opened)
		}
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", steps+"/sign_in", object{"identifier": id, "password": "wrong"})
		s.Nobody().Refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", steps+"/sign_in", object{"identifier": id})

		old := s.Nobody().Must("POST", "/login", object{"type": "m.login.password", "password": app["password"], "identifier": id}).Body
		phone := &testserver.User{}
		*phone = *s.Nobody()
		phone.Token, _ = old["access_token"].(string)
		phone.Must("GET", "/account/whoami", nil)
		alice.Must("DELETE", "/_matrix/client/unstable/im.conclave.account/app_passwords/"+app["id"].(string), nil)
		phone.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	})
}

// TestSecondFactorIsDemanded lets somebody in who has to set up a second factor, and to nothing else.
func TestSecondFactorIsDemanded(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{
			"CONCLAVE_AUTH_REQUIRE_2FA=all", "CONCLAVE_AUTH_GRACE_HOURS=0", "CONCLAVE_PUBLIC_URL=https://chat.us.test",
		}})
		alice := s.Register(testserver.Unique("alice"))
		alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/createRoom", object{})
		alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", "/sync", nil)
		id := object{"type": "m.id.user", "user": alice.ID}
		password := object{"type": "m.login.password", "password": testserver.Password, "identifier": id}
		old, err := s.Nobody().Do("POST", "/login", password)
		if text, _ := old.Body["error"].(string); err != nil || old.Status != http.StatusForbidden || !strings.Contains(text, "https://chat.us.test") {
			t.Errorf("a client that knows passwords only is told %v, %v", old, err)
		}

		// Our own client leads there.
		const steps = "/_matrix/client/unstable/im.conclave.login"
		begun := s.Nobody().Must("POST", steps+"/sign_in", object{"identifier": id, "password": testserver.Password}).Body
		opened := s.Nobody().Must("POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": begun["sign_in"]}).Body
		alice.Token, _ = opened["access_token"].(string)
		alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/createRoom", object{})
		const account = "/_matrix/client/unstable/im.conclave.account"
		totp := alice.Must("POST", account+"/totp/begin", object{"auth": password}).Body
		secret, _ := totp["secret"].(string)
		code, err := gotp.GenerateCode(secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if codes, _ := alice.Must("POST", account+"/totp/confirm", object{"code": code}).Body["recovery_codes"].([]any); len(codes) != 10 {
			t.Errorf("recovery codes %v", codes)
		}
		alice.CreateRoom(object{})

		// From now on the way in is longer. A code that was used to set it up is used up.
		refusal, err := s.Nobody().Do("POST", "/login", password)
		if err != nil || refusal.Status != http.StatusForbidden || testserver.At(refusal.Body, "im.conclave.sign_in", "sign_in") == nil {
			t.Errorf("a password alone was answered %v, %v", refusal, err)
		}
		secretOf := testserver.At(refusal.Body, "im.conclave.sign_in", "sign_in")
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": secretOf})
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", steps+"/factor", object{"sign_in": secretOf, "type": "totp", "code": code})
		next, err := gotp.GenerateCode(secret, time.Now().Add(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		s.Nobody().Must("POST", steps+"/factor", object{"sign_in": secretOf, "type": "totp", "code": next})
		s.Nobody().Must("POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": secretOf})
	})
}
