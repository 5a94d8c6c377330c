package clientapi_test

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

const signInPath = "/_matrix/client/unstable/im.conclave.login"

// links signs in to a new device by one that is signed in (TestFactors).
func links(t *testing.T, s *testserver.Server) {
	proof.Of(t, "OA-07")
	alice, nobody := s.Register(testserver.Unique("alice")), s.Nobody()
	begun := nobody.Must("POST", signInPath+"/link", object{"device_display_name": "Conclave, Firefox on Linux"}).Body
	device, code := object{"device_code": begun["device_code"]}, object{"user_code": begun["user_code"]}
	if url, _ := begun["url"].(string); !strings.HasPrefix(url, "https://chat.test/#/link?code=") || begun["expires_in_ms"] == 0.0 {
		t.Errorf("begun as %v", begun)
	}
	if wait := nobody.Must("POST", signInPath+"/link/poll", device).Body; wait["interval_ms"] == nil || wait["sign_in"] != nil {
		t.Errorf("nobody has decided: %v", wait)
	}
	waits := alice.Must("POST", account+"/link/look", code).Body
	if waits["device_display_name"] != "Conclave, Firefox on Linux" || waits["address"] != "127.0.0.1" || waits["client"] != nil {
		t.Errorf("what waits is %v", waits)
	}
	alice.Refused(404, "M_NOT_FOUND", "POST", account+"/link/look", object{"user_code": "BCDF-GHJK"})
	ok(t, confirmed(t, alice, nil, "POST", account+"/link/allow", code))
	let := nobody.Must("POST", signInPath+"/link/poll", device).Body
	nobody.Refused(404, "M_NOT_FOUND", "POST", signInPath+"/link/poll", device)
	opened := nobody.Must("POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": let["sign_in"]}).Body
	if opened["user_id"] != alice.ID || opened["device_id"] == alice.Device {
		t.Errorf("the session is %v", opened)
	}
	begun = nobody.Must("POST", signInPath+"/link", object{}).Body
	alice.Must("POST", account+"/link/refuse", object{"user_code": begun["user_code"]})
	nobody.Refused(403, "M_FORBIDDEN", "POST", signInPath+"/link/poll", object{"device_code": begun["device_code"]})
	for where, text := range s.Kept() {
		if secret, _ := device["device_code"].(string); strings.Contains(text, secret) {
			t.Errorf("%s holds a device code", where)
		}
	}
}
