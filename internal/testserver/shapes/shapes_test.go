package shapes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// recorder is a test that remembers what it was failed with.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Context() context.Context { return r.TB.Context() }

// unrecorded keeps what a test of this package compares out of the record: no server answered it.
func unrecorded(t *testing.T) { t.Setenv("CONCLAVE_TEST_RECORD", "") }

const jsonType = "application/json"

// TestCheck goes through answers of which each is wrong in one way, and what the failure says of it: want "" is an answer
// that is right.
func TestCheck(t *testing.T) {
	unrecorded(t)
	const event = `{"type":"m.room.message","content":{},"event_id":"$a:b","sender":"@a:b","origin_server_ts":1,"room_id":"!a:b"}`
	for _, c := range []struct {
		method, uri string
		status      int
		kind, body  string
		want        string
	}{
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, `{"user_id":"@a:b"}`, ""},
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, `{"user_id":1}`, "(getTokenOwner) answered 200 in another shape than the specification has: at /user_id: got number, want string"},
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, `{"user_id":"a"}`, "at /user_id"},
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, `{"device_id":"X"}`, "missing property 'user_id'"},
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, `{"user_id":"@a:b"`, "no JSON"},
		{"GET", "/_matrix/client/v3/account/whoami", 200, "text/plain", `{"user_id":"@a:b"}`, "header Content-Type"},
		{"GET", "/_matrix/client/v3/account/whoami", 204, jsonType, ``, "lists no such answer"},
		{"GET", "/_matrix/client/r0/account/whoami?x=y", 200, jsonType, `{}`, "missing property 'user_id'"},
		{"GET", "/_matrix/client/v3/joined_rooms", 200, jsonType, `{"joined_rooms":null}`, "at /joined_rooms: got null, want array"},
		{"GET", "/_matrix/client/v3/joined_rooms", 200, jsonType, `{"joined_rooms":["!a:b","#a:b"]}`, "at /joined_rooms/1"},
		{"GET", "/_matrix/client/v3/rooms/%21a:b/messages", 200, jsonType, `{"start":"1","chunk":[` + event + `]}`, ""},
		{"GET", "/_matrix/client/v3/rooms/%21a:b/messages", 200, jsonType, `{"start":"1","chunk":[{}]}`, "at /chunk/0: missing properties"},
		{"GET", "/_matrix/client/v3/rooms/%21a:b/messages", 200, jsonType, `{"start":"1","chunk":[` + strings.Replace(event, `:1,`, `:1.5,`, 1) + `]}`, "at /chunk/0/origin_server_ts: got number, want integer"},
		{"GET", "/_matrix/client/v3/sync", 200, jsonType, `{"next_batch":"1","rooms":{"join":{"!a:b":{"timeline":{"events":null}}}}}`, "at /rooms/join/!a:b/timeline/events: got null, want array"},
		{"GET", "/_matrix/client/v3/sync?filter=" + `%7B%22event_fields%22%3A%5B%22type%22%5D%7D`, 200, jsonType, `{"next_batch":1}`, ""},
		{"PUT", "/_matrix/client/v3/rooms/%21a:b/state/m.room.name", 200, jsonType, `{"event_id":"a"}`, "at /event_id"},
		{"PUT", "/_matrix/client/v3/rooms/%21a:b/state/m.room.name/", 200, jsonType, `{"event_id":"$a"}`, ""},
		// Errors, whether the operation lists them, exists, or not.
		{"GET", "/_matrix/client/v3/joined_rooms", 403, jsonType, `{"errcode":"M_FORBIDDEN","error":"No."}`, ""},
		{"GET", "/_matrix/client/v3/joined_rooms", 403, jsonType, `{"errcode":"M_FORBIDDEN"}`, "missing property 'error'"},
		{"GET", "/_matrix/client/v3/joined_rooms", 500, jsonType, `{"error":"No."}`, "missing property 'errcode'"},
		{"POST", "/_matrix/client/v3/nothing", 404, jsonType, `{}`, "no operation of the specification"},
		{"POST", "/_matrix/client/v3/nothing", 200, jsonType, `{}`, ""},
		{"GET", "/_matrix/client/v3/sync", 429, jsonType, `{"errcode":"M_LIMIT_EXCEEDED","error":"No.","retry_after_ms":"1"}`, "at /retry_after_ms"},
		// User-interactive authentication.
		{"POST", "/_matrix/client/v3/register", 401, jsonType, `{"flows":[{"stages":["m.login.dummy"]}],"params":{},"session":"x"}`, ""},
		{"POST", "/_matrix/client/v3/register", 401, jsonType, `{"flows":[{"stages":null}]}`, "at /flows/0/stages"},
		{"POST", "/_matrix/client/v3/register", 401, jsonType, `{"session":"x"}`, "missing propert"},
		{"POST", "/_matrix/client/v3/account/password", 401, jsonType, `{"errcode":"M_UNKNOWN_TOKEN","error":"No."}`, ""},
		{"POST", "/_matrix/client/unstable/im.conclave.account/app_passwords", 401, jsonType, `{"flows":[{"stages":["m.login.password"]}],"params":{},"session":"x"}`, ""},
		{"POST", "/_matrix/client/unstable/im.conclave.account/app_passwords", 401, jsonType, `{"flows":null}`, "at /flows"},
		{"GET", "/_matrix/client/v3/joined_rooms", 401, jsonType, `{"flows":[]}`, "missing properties 'errcode', 'error'"},
		// Content.
		{"GET", "/_matrix/client/v1/media/download/a/b", 200, "text/plain", "text", "header Content-Disposition: it has to be there"},
		{"GET", "/_matrix/client/v1/media/thumbnail/a/b", 200, "text/html", "text", `header Content-Type: got "text/html"`},
		{"GET", "/_matrix/client/v1/media/download/a/b", 206, "text/plain", "te", ""},
		{"GET", "/_matrix/client/v1/media/config", 206, "text/plain", "te", "lists no such answer"},
		// The other API.
		{"GET", "/_matrix/key/v2/server", 200, jsonType, `{"server_name":"a","verify_keys":{"ed25519:1":{}}}`, "at /verify_keys/ed25519:1: missing property 'key'"},
		// A deviation, and what is wrong beside it.
		{"GET", "/_matrix/client/v3/room_keys/version", 200, jsonType, `{"algorithm":"x","auth_data":{},"version":"1","etag":"1","count":0}`, ""},
		{"GET", "/_matrix/client/v3/room_keys/version", 200, jsonType, `{"algorithm":"x","auth_data":{},"version":"1","etag":"1","count":"0"}`, "at /count"},
		// What is not the specification's, and what is too large to tell more.
		{"GET", "/_synapse/admin/v1/register", 500, jsonType, `{}`, ""},
		{"GET", "/_matrix/client/v3/account/whoami", 200, jsonType, strings.Repeat(" ", maxBody) + `{}`, ""},
	} {
		r := &recorder{TB: t}
		Check(r, c.method, c.uri, c.status, http.Header{"Content-Type": {c.kind}}, []byte(c.body))
		said := strings.Join(r.errors, "\n")
		if c.want == "" && said != "" || !strings.Contains(said, c.want) {
			t.Errorf("%s %s %d %.200s: the test is failed with %q, want %q", c.method, c.uri, c.status, c.body, said, c.want)
		}
	}
}

// TestDo: whoever made the request reads the whole answer, and it was compared.
func TestDo(t *testing.T) {
	unrecorded(t)
	text := `{"user_id":1,"x":"` + strings.Repeat("x", maxBody/2) + `"}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		_, _ = io.WriteString(w, text) // the client sees what is missing
	}))
	defer s.Close()
	for range 2 {
		r := &recorder{TB: t}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/_matrix/client/v3/account/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Do(r, http.DefaultClient, req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || string(got) != text {
			t.Errorf("%d of %d bytes arrived: %v", len(got), len(text), err)
		}
		if compared := len(text) <= maxBody; compared != (len(r.errors) == 1) {
			t.Errorf("of %d bytes the test is failed with %q", len(text), r.errors)
		}
		text += strings.Repeat(" ", maxBody)
	}
}

// TestEverySchema compiles what spec.json has: a schema that cannot be compiled would end the test that first needs it.
func TestEverySchema(t *testing.T) {
	n, names := 0, map[string]bool{}
	for method, operations := range spec().operations {
		for _, o := range operations {
			names[o.id] = true
			if found := find(method, o.Path); found == nil || found.Path != o.Path {
				t.Errorf("a request for %s finds %s", o.Path, found.name())
			}
			for status, a := range o.Answers {
				if a.JSON != nil {
					schema(fmt.Sprintf("/%s/%s/answers/%s/json", o.section, o.id, status))
					n++
				}
			}
		}
	}
	for _, d := range Deviations {
		if !names[d.Operation] || d.Reason == "" {
			t.Errorf("the deviation %+v is of no operation, or without a reason", d)
		}
	}
	if n < 400 {
		t.Errorf("there are %d schemas, not all of them", n)
	}
}
