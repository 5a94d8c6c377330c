package clientapi_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
	"conclave/internal/testserver/passkey"
	"conclave/internal/testserver/proof"
)

const account = "/_matrix/client/unstable/im.conclave.account"

func TestFactors(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_PUBLIC_URL=https://chat.test"}})
		t.Run("app", func(t *testing.T) { authenticatorApp(t, s) })
		t.Run("passkeys", func(t *testing.T) { passkeys(t, s) })
		t.Run("reset", func(t *testing.T) { factorReset(t, s) })
		t.Run("links", func(t *testing.T) { links(t, s) })
	})
}

// confirmed makes a request that has to be confirmed, by the password and, where the server asks for it, a second factor;
// it returns the answer to the whole.
func confirmed(t *testing.T, u *testserver.User, factor func() object, method, path string, body object) *testserver.Answer {
	t.Helper()
	a := try(t, u, method, path, body)
	session, _ := a.Body["session"].(string)
	if a.Status != 401 || session == "" {
		t.Fatalf("%s %s without a password: %d %s", method, path, a.Status, a.Raw)
	}
	with := func(auth object) *testserver.Answer {
		body["auth"] = auth
		a := try(t, u, method, path, body)
		delete(body, "auth")
		return a
	}
	if a = with(password(u, session)); a.Status == 401 && factor != nil && a.Body["errcode"] == nil {
		auth := factor()
		auth["type"], auth["session"] = "im.conclave.second_factor", session
		a = with(auth)
	}
	return a
}

func ok(t *testing.T, a *testserver.Answer) object {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("answered %d %s", a.Status, a.Raw)
	}
	return a.Body
}

// code is what an authenticator app shows some steps from now. Each may be used once: tests begin in the past.
func code(t *testing.T, secret string, steps int) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// setUp sets an authenticator app up; its code of the present is still good.
func setUp(t *testing.T, u *testserver.User) (secret string, recovery []string) {
	t.Helper()
	begun := ok(t, confirmed(t, u, nil, "POST", account+"/totp/begin", object{}))
	secret, _ = begun["secret"].(string)
	a := try(t, u, "POST", account+"/totp/confirm", object{"code": code(t, secret, -1)})
	if a.Status != 200 { // a new step began in between
		a = try(t, u, "POST", account+"/totp/confirm", object{"code": code(t, secret, -1)})
	}
	return secret, names(ok(t, a)["recovery_codes"])
}

func authenticatorApp(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A10")
	alice := s.Register(testserver.Unique("alice"))
	other := s.Login(alice.ID)
	if got := alice.Must("GET", account+"/factors", nil).Body; got["totp"] != false || got["passkeys"] != 0.0 || got["recovery_codes"] != 0.0 || got["since_ts"] != nil ||
		got["required"] != false || got["due_ts"] != nil {
		t.Errorf("at first the factors are %v", got)
	}
	alice.Refused(404, "M_NOT_FOUND", "POST", account+"/totp/confirm", object{"code": "123456"})
	begun := ok(t, confirmed(t, alice, nil, "POST", account+"/totp/begin", object{}))
	uri, _ := begun["uri"].(string)
	picture, err := base64.StdEncoding.DecodeString(begun["qr_png"].(string))
	secret, _ := begun["secret"].(string)
	if err != nil || !strings.HasPrefix(string(picture), "\x89PNG") || !strings.HasPrefix(uri, "otpauth://totp/") || !strings.Contains(uri, secret) {
		t.Errorf("the enrolment is %v, %v", begun, err)
	}
	other.Refused(404, "M_NOT_FOUND", "POST", account+"/totp/confirm", object{"code": code(t, secret, 0)})
	alice.Refused(400, "M_MISSING_PARAM", "POST", account+"/totp/confirm", object{})
	alice.Refused(403, "M_FORBIDDEN", "POST", account+"/totp/confirm", object{"code": "abcdef"})
	secret, recovery := setUp(t, alice)
	got := alice.Must("GET", account+"/factors", nil).Body
	if since, _ := got["since_ts"].(float64); got["totp"] != true || got["recovery_codes"] != 10.0 || time.Since(time.UnixMilli(int64(since))).Abs() > 10*time.Minute || len(recovery) != 10 {
		t.Errorf("then the factors are %v, and %d recovery codes were shown", got, len(recovery))
	}
	fresh := names(ok(t, confirmed(t, alice, func() object { return object{"factor": "totp", "code": code(t, secret, 0)} }, "POST", account+"/recovery_codes", object{}))["recovery_codes"])
	if len(fresh) != 10 {
		t.Errorf("there are %d new recovery codes", len(fresh))
	}
	for where, text := range s.Kept() {
		for _, secret := range append([]string{secret, uri, fresh[0], strings.ReplaceAll(fresh[1], "-", "")}, recovery...) {
			if strings.Contains(strings.ToUpper(text), strings.ToUpper(secret)) {
				t.Errorf("%s holds a secret of a second factor", where)
			}
		}
	}
	ok(t, confirmed(t, alice, func() object { return object{"factor": "recovery", "code": fresh[0]} }, "POST", account+"/totp/remove", object{}))
	if got := alice.Must("GET", account+"/factors", nil).Body; got["totp"] != false || got["recovery_codes"] != 0.0 {
		t.Errorf("in the end the factors are %v", got)
	}
	if a := confirmed(t, alice, nil, "POST", account+"/recovery_codes", object{}); a.Status != 403 {
		t.Errorf("recovery codes for nothing: %d %s", a.Status, a.Raw)
	}
}

func passkeys(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	key := &passkey.Authenticator{Origin: "https://chat.test", Verifies: true, Step: 1}
	begun := ok(t, confirmed(t, alice, nil, "POST", account+"/passkeys/begin", object{}))
	made, err := key.Create(begun["options"])
	if err != nil {
		t.Fatal(err)
	}
	alice.Refused(400, "M_MISSING_PARAM", "POST", account+"/passkeys/finish", object{"name": "phone"})
	alice.Refused(400, "M_INVALID_PARAM", "POST", account+"/passkeys/finish", object{"name": "phone", "challenge": begun["challenge"], "credential": object{}})
	answer := object{"name": "phone", "challenge": begun["challenge"], "credential": made}
	s.Login(alice.ID).Refused(403, "M_FORBIDDEN", "POST", account+"/passkeys/finish", answer)
	added := alice.Must("POST", account+"/passkeys/finish", answer).Body
	alice.Refused(403, "M_FORBIDDEN", "POST", account+"/passkeys/finish", answer)
	id, _ := added["id"].(string)
	recovery := names(added["recovery_codes"])
	if id == "" || len(recovery) != 10 {
		t.Errorf("the passkey is added as %v", added)
	}
	show := func() object {
		asked := alice.Must("POST", account+"/passkeys/challenge", object{}).Body
		shown, err := key.Get(asked["options"])
		if err != nil {
			t.Fatal(err)
		}
		return object{"factor": "passkey", "challenge": asked["challenge"], "credential": shown}
	}
	path := account + testserver.Path("passkeys", id)
	ok(t, confirmed(t, alice, show, "PUT", path, object{"name": "my phone"}))
	list := testserver.Events(alice.Must("GET", account+"/passkeys", nil).Body["passkeys"])
	if len(list) != 1 || list[0]["id"] != id || list[0]["name"] != "my phone" || list[0]["created_ts"].(float64) < 1e12 {
		t.Errorf("the passkeys are %v", list)
	}
	bob := s.Register(testserver.Unique("bob"))
	bob.Refused(404, "M_NOT_FOUND", "POST", account+"/passkeys/challenge", object{})
	if a := confirmed(t, bob, nil, "DELETE", path, object{}); a.Status != 404 {
		t.Errorf("somebody else removes it: %d %s", a.Status, a.Raw)
	}
	ok(t, confirmed(t, alice, show, "DELETE", path, object{}))
	if list := alice.Must("GET", account+"/passkeys", nil).Body["passkeys"].([]any); len(list) != 0 {
		t.Errorf("after the removal the passkeys are %v", list)
	}
}

func factorReset(t *testing.T, s *testserver.Server) {
	alice, admin := s.Register(testserver.Unique("alice")), s.RegisterAdmin(testserver.Unique("admin"))
	setUp(t, alice)
	secret, _ := setUp(t, admin)
	reset := func(id string) string { return "/_synapse/admin/v1" + testserver.Path("users", id, "reset_2fa") }
	alice.Refused(403, "M_FORBIDDEN", "POST", reset(alice.ID), object{})
	alice.Refused(403, "M_FORBIDDEN", "POST", reset(admin.ID), object{})
	admin.Refused(404, "M_NOT_FOUND", "POST", reset("@nobody:"+string(s.Name)), object{})
	admin.Refused(400, "M_INVALID_PARAM", "POST", reset("@alice:elsewhere.test"), object{})
	admin.Must("POST", reset(alice.ID), object{})
	if got := alice.Must("GET", account+"/factors", nil).Body; got["totp"] != false || got["recovery_codes"] != 0.0 {
		t.Errorf("after the reset alice, who is still logged in, has %v", got)
	}
	// One's own are not to be had for a token alone.
	ok(t, confirmed(t, admin, func() object { return object{"factor": "totp", "code": code(t, secret, 0)} }, "POST", reset(admin.ID), object{}))
	if got := admin.Must("GET", account+"/factors", nil).Body; got["totp"] != false {
		t.Errorf("after the reset of themselves the administrator has %v", got)
	}
	log := s.Kept()["/log"]
	for _, want := range []string{"event=factor.totp.added user=" + alice.ID, "event=factor.reset user=" + alice.ID + " by=" + admin.ID} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}
