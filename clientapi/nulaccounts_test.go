package clientapi_test

import (
	"net/http"
	"testing"

	"conclave/internal/testserver"
)

// TestNULInWhatAccountsAreAskedFor is TestNULIsTextInContentAlone for what people log in with and confirm requests by:
// nothing that databases cannot keep comes as far as them.
func TestNULInWhatAccountsAreAskedFor(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		m := startMailed(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_MODE=open"}})
		alice := m.Register(testserver.Unique("alice"))
		const nul = "a\x00b"
		for what, request := range map[string]struct {
			by   *testserver.User
			path string
			body object
		}{
			"name":             {m.Nobody(), "/login", object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": nul}, "password": nul}},
			"address":          {m.Nobody(), "/login", object{"type": "m.login.password", "identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": "a\x00@b.example"}, "password": nul}},
			"medium":           {m.Nobody(), "/login", object{"type": "m.login.password", "identifier": object{"type": "m.id.thirdparty", "medium": nul, "address": "a@b.example"}, "password": nul}},
			"device":           {m.Nobody(), "/login", object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": alice.ID}, "password": testserver.Password, "device_id": nul}},
			"token":            {m.Nobody(), "/login", object{"type": "m.login.token", "token": nul}},
			"refresh token":    {m.Nobody(), "/refresh", object{"refresh_token": nul}},
			"registration":     {m.Nobody(), "/register", object{"username": nul, "password": nul, "auth": object{"type": "m.login.dummy"}}},
			"session":          {alice, "/delete_devices", object{"devices": []string{"X"}, "auth": object{"type": "m.login.password", "session": nul, "password": nul}}},
			"session alone":    {alice, "/delete_devices", object{"devices": []string{"X"}, "auth": object{"session": nul}}},
			"stage":            {alice, "/delete_devices", object{"devices": []string{"X"}, "auth": object{"type": nul, "session": "x"}}},
			"proof of address": {alice, "/account/3pid/add", object{"sid": nul, "client_secret": "s"}},
			"proof in a stage": {m.Nobody(), "/account/password", object{"new_password": testserver.Password, "auth": object{"type": "m.login.email.identity", "threepid_creds": object{"sid": nul, "client_secret": "s"}}}},
			"address to add":   {alice, "/account/3pid/email/requestToken", object{"client_secret": "s", "email": "a\x00@b.example", "send_attempt": 1}},
			"address to go":    {alice, "/account/3pid/delete", object{"medium": "email", "address": "a\x00@b.example"}},
			"next link":        {alice, "/account/3pid/email/requestToken", object{"client_secret": "s", "email": "a@b.example", "send_attempt": 1, "next_link": "https://x/\x00"}},
			"link":             {m.Nobody(), "/_matrix/client/unstable/im.conclave.email/submit_token", object{"sid": nul, "client_secret": nul, "token": nul}},
			"app password":     {alice, "/_matrix/client/unstable/im.conclave.account/app_passwords", object{"name": nul, "auth": passwordOf(alice)}},
			"sign-in":          {m.Nobody(), "/_matrix/client/unstable/im.conclave.login/factor", object{"sign_in": nul, "type": "totp", "code": nul}},
			"challenge":        {m.Nobody(), "/_matrix/client/unstable/im.conclave.login/passkey", object{"challenge": nul, "credential": object{"id": nul}}},
			"oauth client":     {m.Nobody(), "/oauth2/register", object{"client_uri": "https://a.example/", "client_name": nul, "redirect_uris": []string{"https://a.example/" + nul}}},
		} {
			a, err := request.by.Do("POST", request.path, request.body)
			if err != nil || a.Status >= http.StatusInternalServerError {
				t.Errorf("%s: %v %d %s", what, err, a.Status, a.Raw)
			}
		}
	})
}
