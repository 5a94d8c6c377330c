package clientapi_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
)

const auditLog = "/_synapse/admin/v1/audit_log"

// TestAuditLog does what has to be noted, and reads it page by page and as a whole.
func TestAuditLog(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		admin, alice := s.RegisterAdmin("boss"), s.Register("alice")
		const secret, mistyped = "a password of the mine", "hunter2-in-the-wrong-field"
		login := func(name, password string) {
			try(t, s.Nobody(), "POST", "/login", object{"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.user", "user": name}})
		}
		login("alice", secret)
		login(mistyped, secret)
		alice.Must("POST", "/account/password", object{"new_password": secret, "auth": object{"type": "m.login.password", "user": "alice", "password": testserver.Password}})
		login("alice", secret)
		for _, on := range []bool{true, false} {
			admin.Must("PUT", "/_matrix/client/v1/admin"+testserver.Path("lock", alice.ID), object{"locked": on})
			admin.Must("PUT", "/_matrix/client/v1/admin"+testserver.Path("suspend", alice.ID), object{"suspended": on})
		}
		alice.Must("POST", "/account/deactivate", object{"auth": object{"type": "m.login.password", "user": "alice", "password": secret}})
		admin.Must("POST", registrationTokens+"/new", object{"token": "a-token-of-the-choir"})

		of := "user_id=" + alice.ID
		if got := events(t, admin, of); strings.Join(got, " ") != "registered login login.failed password.changed login locked suspended unlocked unsuspended deactivated" {
			t.Errorf("alice's entries: %q", got)
		}
		if got := events(t, admin, of+"&event=login"); len(got) != 2 {
			t.Errorf("alice's logins: %q", got)
		}
		if got := events(t, admin, "event=login.failed"); len(got) != 2 {
			t.Errorf("failed logins: %q", got)
		}
		if got := events(t, admin, "since=4000000000000"); len(got) != 0 {
			t.Errorf("in the future: %q", got)
		}
		var paged []float64
		for from := ""; ; {
			page := admin.Must("GET", auditLog+"?limit=3"+from, nil).Body
			for _, e := range page["entries"].([]any) {
				paged = append(paged, e.(object)["id"].(float64))
			}
			if page["next_token"] == nil {
				break
			}
			from = fmt.Sprintf("&from=%.0f", page["next_token"])
		}
		export := admin.Must("GET", auditLog+"/export", nil)
		lines := strings.Split(strings.TrimSpace(string(export.Raw)), "\n")
		var exported []float64
		for _, line := range lines {
			var e struct {
				ID float64 `json:"id"`
				By string  `json:"by"`
				Event,
				User string
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			exported = append(exported, e.ID)
			if e.Event == "locked" && e.By != admin.ID {
				t.Errorf("who locked alice? %s", line)
			}
		}
		slices.Reverse(paged)
		if len(exported) < 10 || !slices.Equal(paged, exported) || export.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("the pages hold %v, the export %v", paged, exported)
		}
		for _, hidden := range []string{secret, mistyped, testserver.Password, "a-token-of-the-choir"} {
			if strings.Contains(string(export.Raw), hidden) {
				t.Errorf("the audit log holds %q", hidden)
			}
		}
		admin.Refused(400, "M_INVALID_PARAM", "GET", auditLog+"?since=x", nil)
		s.Register("carol").Refused(403, "M_FORBIDDEN", "GET", auditLog+"/export", nil)
	})
}
