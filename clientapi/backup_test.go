package clientapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestKeyBackups is the HTTP side of key backups: every operation, and what it refuses.
func TestKeyBackups(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("versions", func(t *testing.T) { backupVersions(t, s) })
		t.Run("sessions", func(t *testing.T) { backupSessions(t, s) })
		t.Run("garbage", func(t *testing.T) { backupGarbage(t, s) })
		t.Run("many", func(t *testing.T) { backupMany(t, s) })
		if engine == "sqlite" { // it is about the answer alone
			t.Run("broken off", func(t *testing.T) { backupBrokenOff(t, s) })
		}
		t.Run("deactivation", func(t *testing.T) { backupDeactivation(t, s) })
	})
}

const megolmBackup = "m.megolm_backup.v1.curve25519-aes-sha2"

// newBackup makes a version and returns its name.
func newBackup(u *testserver.User, auth object) string {
	version, _ := u.Must("POST", "/room_keys/version", object{"algorithm": megolmBackup, "auth_data": auth}).Body["version"].(string)
	return version
}

func keyData(verified bool, first, forwarded int, data string) object {
	return object{"is_verified": verified, "first_message_index": first, "forwarded_count": forwarded, "session_data": object{"ciphertext": data}}
}

func backupVersions(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-10")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	alice.Refused(404, "M_NOT_FOUND", "GET", "/room_keys/version", nil)
	first := newBackup(alice, object{"public_key": "one"})
	second := newBackup(alice, object{"public_key": "two"})
	want := func(path, version, key string) {
		t.Helper()
		got := alice.Must("GET", path, nil).Body
		if got["version"] != version || got["algorithm"] != megolmBackup || testserver.At(got, "auth_data", "public_key") != key || got["count"] != 0.0 || got["etag"] == "" {
			t.Errorf("%s is %v", path, got)
		}
	}
	want("/room_keys/version", second, "two")
	want("/room_keys/version/"+first, first, "one")
	bob.Refused(404, "M_NOT_FOUND", "GET", "/room_keys/version/"+first, nil)

	path := "/room_keys/version/" + first
	alice.Must("PUT", path, object{"algorithm": megolmBackup, "auth_data": object{"public_key": "new"}, "version": first})
	want(path, first, "new")
	alice.Refused(400, "M_INVALID_PARAM", "PUT", path, object{"algorithm": "m.other", "auth_data": object{}})
	alice.Refused(400, "M_INVALID_PARAM", "PUT", path, object{"algorithm": megolmBackup, "auth_data": object{}, "version": second})
	bob.Refused(404, "M_NOT_FOUND", "PUT", path, object{"algorithm": megolmBackup, "auth_data": object{}})
	want(path, first, "new")

	// Only the newest is written to; the older one can be read, and its keys deleted.
	one := object{"rooms": object{"!r:x": object{"sessions": object{"s": keyData(true, 0, 0, "k")}}}}
	a, err := alice.Do("PUT", "/room_keys/keys?version="+first, one)
	if err != nil || a.Status != 403 || a.Body["errcode"] != "M_WRONG_ROOM_KEYS_VERSION" || a.Body["current_version"] != second {
		t.Errorf("writing to an older version: %v, %v", a, err)
	}
	alice.Must("PUT", "/room_keys/keys?version="+second, one)
	newBackup(alice, object{"public_key": "three"})
	if got := alice.Must("GET", "/room_keys/keys?version="+second, nil).Body; testserver.At(got, "rooms", "!r:x", "sessions", "s") == nil {
		t.Errorf("an older version holds %v", got)
	}
	if got := alice.Must("DELETE", "/room_keys/keys?version="+second, nil).Body; got["count"] != 0.0 {
		t.Errorf("after its keys are deleted an older version says %v", got)
	}

	bob.Refused(404, "M_NOT_FOUND", "DELETE", "/room_keys/version/"+second, nil)
	for range 2 {
		alice.Must("DELETE", "/room_keys/version/"+second, nil)
	}
	alice.Refused(404, "M_NOT_FOUND", "GET", "/room_keys/version/"+second, nil)
	alice.Refused(404, "M_NOT_FOUND", "PUT", "/room_keys/version/"+second, object{"algorithm": megolmBackup, "auth_data": object{}})
	for _, method := range []string{"GET", "DELETE"} {
		alice.Refused(404, "M_NOT_FOUND", method, "/room_keys/keys?version="+second, nil)
		alice.Refused(404, "M_NOT_FOUND", method, "/room_keys/keys/!r:x?version="+second, nil)
		alice.Refused(404, "M_NOT_FOUND", method, "/room_keys/keys/!r:x/s?version="+second, nil)
	}
	alice.Refused(404, "M_NOT_FOUND", "PUT", "/room_keys/keys?version="+second, one)
	for _, unknown := range []string{"0", "-1", "x", "01", "99999999999999999999"} {
		alice.Refused(404, "M_NOT_FOUND", "GET", "/room_keys/version/"+unknown, nil)
		alice.Refused(404, "M_NOT_FOUND", "DELETE", "/room_keys/version/"+unknown, nil)
	}
}

func backupSessions(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-10")
	alice := s.Register(testserver.Unique("alice"))
	version := newBackup(alice, object{})
	query := "?version=" + version
	etags := map[any]bool{alice.Must("GET", "/room_keys/version", nil).Body["etag"]: true}
	// change makes a request that has to lead to a count, and to a new etag if fresh.
	change := func(method, path string, body any, count float64, fresh bool) {
		t.Helper()
		got := alice.Must(method, path+query, body).Body
		if got["count"] != count || etags[got["etag"]] == fresh {
			t.Errorf("%s %s: %v, want %v and a new etag: %v", method, path, got, count, fresh)
		}
		etags[got["etag"]] = true
		if info := alice.Must("GET", "/room_keys/version", nil).Body; info["etag"] != got["etag"] || info["count"] != got["count"] {
			t.Errorf("the version says %v after %v", info, got)
		}
	}
	const id = "base64/with+signs="
	one := testserver.Path("room_keys", "keys", "!a:x", id)
	if got := alice.Must("GET", "/room_keys/keys"+query, nil); string(got.Raw) != `{"rooms":{}}` {
		t.Errorf("an empty backup is %s", got.Raw)
	}
	if got := alice.Must("GET", "/room_keys/keys/!a:x"+query, nil); string(got.Raw) != `{"sessions":{}}` {
		t.Errorf("an empty room is %s", got.Raw)
	}
	alice.Refused(404, "M_NOT_FOUND", "GET", one+query, nil)
	change("PUT", one, keyData(false, 1, 1, "first"), 1, true)
	change("PUT", one, keyData(false, 1, 1, "same"), 1, false)
	change("PUT", one, keyData(false, 2, 0, "worse"), 1, false)
	change("PUT", one, keyData(true, 5, 1, "verified"), 1, true)
	if got := alice.Must("GET", one+query, nil).Body; testserver.At(got, "session_data", "ciphertext") != "verified" ||
		got["is_verified"] != true || got["first_message_index"] != 5.0 || got["forwarded_count"] != 1.0 {
		t.Errorf("the key is %v", got)
	}
	// A body as it came goes out byte for byte.
	raw := `{"first_message_index":0,"forwarded_count":0,"is_verified":false,"session_data":{"n":1.50,"t":"ä\u0000"}}`
	change("PUT", "/room_keys/keys/!b:x/raw", []byte(raw), 2, true)
	if got := alice.Must("GET", "/room_keys/keys/!b:x/raw"+query, nil); string(got.Raw) != raw {
		t.Errorf("%s came back as %s", raw, got.Raw)
	}
	change("PUT", "/room_keys/keys/!b:x", object{"sessions": object{"s1": keyData(false, 0, 0, "1"), "s2": keyData(false, 0, 0, "2")}}, 4, true)
	change("PUT", "/room_keys/keys/!b:x", object{"sessions": object{}}, 4, false)
	change("PUT", "/room_keys/keys", object{"rooms": object{
		"!b:x": object{"sessions": object{"s2": keyData(false, 0, 0, "again"), "s3": keyData(false, 0, 0, "3")}}, "!nodomain": object{"sessions": object{"s": keyData(false, 0, 0, "4")}},
	}}, 6, true)
	rooms, _ := alice.Must("GET", "/room_keys/keys"+query, nil).Body["rooms"].(object)
	sessions, _ := testserver.At(rooms, "!b:x", "sessions").(object)
	inRoom, _ := alice.Must("GET", "/room_keys/keys/!b:x"+query, nil).Body["sessions"].(object)
	if len(rooms) != 3 || len(sessions) != 4 || fmt.Sprint(sessions) != fmt.Sprint(inRoom) || testserver.At(rooms, "!a:x", "sessions", id) == nil {
		t.Errorf("all are %v, of a room %v", rooms, inRoom)
	}
	change("DELETE", "/room_keys/keys/!b:x/s1", nil, 5, true)
	change("DELETE", "/room_keys/keys/!b:x/s1", nil, 5, false)
	change("DELETE", one, nil, 4, true)
	change("DELETE", "/room_keys/keys/!b:x", nil, 1, true)
	change("DELETE", "/room_keys/keys", nil, 0, true)
	// What was deleted is no better than what comes.
	change("PUT", one, keyData(false, 9, 9, "late"), 1, true)
}

func backupGarbage(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	big := strings.Repeat("x", 70<<10)
	for _, body := range []any{object{}, object{"algorithm": megolmBackup}, object{"auth_data": object{}}} {
		alice.Refused(400, "M_MISSING_PARAM", "POST", "/room_keys/version", body)
	}
	alice.Refused(400, "M_BAD_JSON", "POST", "/room_keys/version", object{"algorithm": megolmBackup, "auth_data": []string{}})
	alice.Refused(400, "M_BAD_JSON", "POST", "/room_keys/version", object{"algorithm": 5, "auth_data": object{}})
	alice.Refused(400, "M_INVALID_PARAM", "POST", "/room_keys/version", object{"algorithm": "a\x00b", "auth_data": object{}})
	alice.Refused(413, "M_TOO_LARGE", "POST", "/room_keys/version", object{"algorithm": megolmBackup, "auth_data": object{"x": big}})
	version := newBackup(alice, object{})
	query := "?version=" + version
	alice.Must("PUT", "/room_keys/keys/!r:x/kept"+query, keyData(true, 0, 0, "k"))
	for _, path := range []string{"/room_keys/keys", "/room_keys/keys/!r:x", "/room_keys/keys/!r:x/s"} {
		alice.Refused(400, "M_MISSING_PARAM", "GET", path, nil)
		alice.Refused(400, "M_MISSING_PARAM", "DELETE", path, nil)
	}
	alice.Refused(400, "M_MISSING_PARAM", "PUT", "/room_keys/keys/!r:x/s", keyData(true, 0, 0, "k"))
	// An empty name must not stand for all.
	for _, path := range []string{"/room_keys/keys/", "/room_keys/keys//s", "/room_keys/keys/!r:x/"} {
		for _, method := range []string{"GET", "DELETE"} {
			if a, err := alice.Do(method, path+query, nil); err != nil || a.Status < 400 {
				t.Errorf("%s %s: %v, %v", method, path, a, err)
			}
		}
	}
	alice.Refused(400, "M_INVALID_PARAM", "DELETE", "/room_keys/keys/%00"+query, nil)
	alice.Refused(400, "M_INVALID_PARAM", "GET", "/room_keys/keys?version=%ff", nil)
	alice.Refused(400, "M_INVALID_PARAM", "GET", "/room_keys/keys/!r:x/%00"+query, nil)
	alice.Refused(400, "M_INVALID_PARAM", "GET", "/room_keys/keys/!%ff/s"+query, nil)

	session := func(change func(object)) object {
		o := keyData(true, 0, 0, "k")
		change(o)
		return o
	}
	for what, c := range map[string]struct {
		code string
		body object
	}{
		"no session_data":   {"M_BAD_JSON", session(func(o object) { delete(o, "session_data") })},
		"text for data":     {"M_BAD_JSON", session(func(o object) { o["session_data"] = "x" })},
		"null for data":     {"M_BAD_JSON", session(func(o object) { o["session_data"] = nil })},
		"no index":          {"M_BAD_JSON", session(func(o object) { delete(o, "first_message_index") })},
		"no count":          {"M_BAD_JSON", session(func(o object) { delete(o, "forwarded_count") })},
		"no verdict":        {"M_BAD_JSON", session(func(o object) { delete(o, "is_verified") })},
		"a fraction":        {"M_BAD_JSON", session(func(o object) { o["first_message_index"] = 1.5 })},
		"a negative index":  {"M_INVALID_PARAM", session(func(o object) { o["first_message_index"] = -1 })},
		"a huge count":      {"M_INVALID_PARAM", session(func(o object) { o["forwarded_count"] = json.Number("9007199254740993") })},
		"text for a number": {"M_BAD_JSON", session(func(o object) { o["forwarded_count"] = "1" })},
		"large data":        {"M_TOO_LARGE", session(func(o object) { o["session_data"] = object{"x": big} })},
	} {
		t.Run(what, func(t *testing.T) {
			status := map[string]int{"M_TOO_LARGE": 413}[c.code]
			if status == 0 {
				status = 400
			}
			alice.Refused(status, c.code, "PUT", "/room_keys/keys/!r:x/s"+query, c.body)
			// One bad session among good ones: none is stored.
			alice.Refused(status, c.code, "PUT", "/room_keys/keys"+query, object{"rooms": object{"!r:x": object{"sessions": object{"good": keyData(true, 0, 0, "k"), "s": c.body}}}})
		})
	}
	for code, body := range map[string]any{
		"M_BAD_JSON": object{"rooms": object{"!r:x": object{}}}, "M_INVALID_PARAM": object{"rooms": object{"#r:x": object{"sessions": object{}}}},
		"M_NOT_JSON": []byte(`{"rooms":{},"rooms":{}}`),
	} {
		alice.Refused(400, code, "PUT", "/room_keys/keys"+query, body)
	}
	alice.Refused(400, "M_BAD_JSON", "PUT", "/room_keys/keys"+query, object{})
	alice.Refused(400, "M_BAD_JSON", "PUT", "/room_keys/keys/!r:x"+query, object{})
	alice.Refused(400, "M_INVALID_PARAM", "PUT", "/room_keys/keys/!r:x"+query, object{"sessions": object{strings.Repeat("s", 256): keyData(true, 0, 0, "k")}})
	alice.Refused(413, "M_TOO_LARGE", "PUT", "/room_keys/keys"+query, []byte(`{"rooms":`+strings.Repeat(" ", 9<<20)+`{}}`))
	if got := alice.Must("GET", "/room_keys/keys"+query, nil).Body; fmt.Sprint(got) != fmt.Sprint(object{"rooms": object{"!r:x": object{"sessions": object{"kept": keyData(true, 0, 0, "k")}}}}) {
		t.Errorf("after all that the backup is %v", got)
	}
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", "/room_keys/version", nil)
}

// backupMany uploads some thousands of sessions at once and restores them.
func backupMany(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	version := newBackup(alice, object{})
	rooms := object{}
	const sessions = 600
	data := strings.Repeat("c", 500)
	for i := range sessions {
		name := fmt.Sprintf("!%d:x", i%50)
		if rooms[name] == nil {
			rooms[name] = object{"sessions": object{}}
		}
		rooms[name].(object)["sessions"].(object)[fmt.Sprintf("session %d", i)] = keyData(true, i, 0, data)
	}
	for range 2 { // the second time because the answer was lost
		if got := alice.Must("PUT", "/room_keys/keys?version="+version, object{"rooms": rooms}).Body; got["count"] != float64(sessions) {
			t.Errorf("the upload of many sessions says %v", got)
		}
	}
	got, _ := alice.Must("GET", "/room_keys/keys?version="+version, nil).Body["rooms"].(object)
	n := 0
	for name := range rooms {
		list, _ := testserver.At(got, name, "sessions").(object)
		n += len(list)
	}
	if n != sessions || len(got) != len(rooms) {
		t.Errorf("%d sessions of %d rooms came back", n, len(got))
	}
}

// backupBrokenOff deletes a version while a client reads it slowly: what it gets must not look like all of it.
func backupBrokenOff(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	version := newBackup(alice, object{})
	data := strings.Repeat("c", 30<<10)
	sessions := object{}
	for i := range 200 {
		sessions[fmt.Sprint("session ", i)] = keyData(true, 0, 0, data)
	}
	alice.Must("PUT", "/room_keys/keys/!r:x?version="+version, object{"sessions": sessions})
	narrow := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(128 << 10) // so that little of the answer is on its way
		}
		return conn, err
	}}
	defer narrow.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/_matrix/client/v3/room_keys/keys?version="+version, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+alice.Token)
	res, err := (&http.Client{Transport: narrow}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	if _, err := io.CopyN(io.Discard, res.Body, 100_000); err != nil {
		t.Fatal(err)
	}
	alice.Must("DELETE", "/room_keys/version/"+version, nil)
	if n, err := io.Copy(io.Discard, res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the version was deleted %d bytes more came, and then %v", n, err)
	}
}

func backupDeactivation(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	version := newBackup(alice, object{})
	alice.Must("PUT", "/room_keys/keys/!r:x/s?version="+version, keyData(true, 0, 0, "k"))
	deactivate(alice)
	alice.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/room_keys/version", nil)
}
