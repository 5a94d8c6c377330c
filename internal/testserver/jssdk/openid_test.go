package jssdk_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
)

// openidSteps are those of the script openid.mjs, as steps.
var openidSteps = []scriptStep{
	{name: "discovery and registration", rows: []string{"OA-01", "OA-02"}},
	{name: "code, PKCE, password and authenticator app", rows: []string{"OA-04", "OA-05", "OA-06", "A10"}},
	{name: "re-authentication for cross-signing", rows: []string{"OA-08", "OA-09"}},
	{name: "device grant", rows: []string{"OA-07"}},
}

// TestOpenIDClient runs openid-client, which none of us wrote, against a server where somebody has an authenticator app.
func TestOpenIDClient(t *testing.T) {
	s := testserver.Start(t, testserver.Options{})
	alice := s.Register("alice")
	const path = "/_matrix/client/unstable/im.conclave.account"
	auth := testserver.JSON{"type": "m.login.password", "password": testserver.Password, "identifier": testserver.JSON{"type": "m.id.user", "user": alice.ID}}
	secret, _ := alice.Must("POST", path+"/totp/begin", testserver.JSON{"auth": auth}).Body["secret"].(string)
	code := func(at time.Time) string {
		code, err := totp.GenerateCode(secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	// The next code is good already, and for a minute at least: the script may need a while to come so far.
	now := time.Now()
	recovery := alice.Must("POST", path+"/totp/confirm", testserver.JSON{"code": code(now)}).Body["recovery_codes"]
	next := code(now.Add(30 * time.Second))
	person, err := json.Marshal(map[string]any{"name": "alice", "id": alice.ID, "password": testserver.Password, "code": next, "recovery": recovery})
	if err != nil {
		t.Fatal(err)
	}
	judge(t, openidSteps, "openid-client", "jssdk/openid.mjs", s.URL, string(person))
}
