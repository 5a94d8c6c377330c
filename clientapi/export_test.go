package clientapi_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

const exportRoute = "/_matrix/client/unstable/im.conclave.account/export"

// exporting asks for all that there is of a user.
func exporting(u *testserver.User) object {
	return u.Must("POST", exportRoute, object{"auth": object{
		"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": u.ID},
	}}).Body
}

// TestExport has somebody take all their data away.
func TestExport(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Presence: true})
		alice, bob, room := together(t, s)
		alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", "im.conclave.drafts"), object{"draft": "half a"})
		before := alice.Say(room, "said by alice")
		bobs := bob.Say(room, "said by bob")
		alice.Must("POST", testserver.Path("rooms", room, "receipt", "m.read.private", bobs), object{})
		alice.Must("POST", testserver.Path("rooms", room, "report", bobs), object{"reason": "reported by alice"})
		carol := s.Register(testserver.Unique("carol"))
		secret := carol.CreateRoom(object{"preset": "private_chat"})
		carol.Say(secret, "not for alice")
		left := bob.CreateRoom(object{"preset": "private_chat", "invite": []string{alice.ID}})
		alice.Join(left)
		bob.Say(left, "while she was there")
		alice.Must("POST", testserver.Path("rooms", left, "leave"), object{})
		bob.Say(left, "after she left")
		uri := alice.Must("POST", "/_matrix/media/v3/upload?filename=cat.TXT", []byte("a cat")).Body["content_uri"].(string)
		alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", exportRoute+"/download", nil)
		if a, err := alice.Do("POST", exportRoute, object{}); err != nil || a.Status != 401 || a.Body["flows"] == nil {
			t.Errorf("asking for everything is answered %v %v without a password", a, err)
		}
		if a := alice.Must("GET", exportRoute, nil).Body; a["state"] != "none" {
			t.Errorf("before it is asked for there is %v", a)
		}
		alice.Must("PUT", testserver.Path("presence", alice.ID, "status"), object{"presence": "online", "status_msg": "busy with alice's things"})
		wait.Until(t, "others to be told of alice's presence", func() bool {
			return bytes.Contains(bob.Must("GET", "/_matrix/client/v3/sync", nil).Raw, []byte("busy with alice's things"))
		})
		s.Stop() // what was told is written down
		s.Start()
		exporting(alice)
		s.Kill() // wherever it is
		s.Start()
		var state object
		ready := func() bool {
			state = alice.Must("GET", exportRoute, nil).Body
			return state["state"] == "ready"
		}
		wait.Until(t, "the archive to be ready", ready)
		if state["rooms_done"] != 2. || state["rooms_total"] != 2. || state["error"] != nil || state["expires_ts"].(float64)-state["ready_ts"].(float64) != 7*24*3600*1000 {
			t.Errorf("it is ready as %v", state)
		}
		if again := exporting(alice); again["state"] != "ready" || again["requested_ts"] != state["requested_ts"] {
			t.Errorf("asked for again it is %v", again)
		}
		whole := alice.Must("GET", exportRoute+"/download", nil)
		inArchive(t, whole.Raw, alice.ID, room, left, before, bobs, uri)
		partOfArchive(t, s, alice, whole.Raw)
		// Nobody else gets it, and nobody at all without a session.
		bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", exportRoute+"/download", nil)
		s.Nobody().Refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "GET", exportRoute+"/download", nil)

		// Its time is over, or its owner has it removed, or the account is closed.
		s.Stop()
		file := s.Rows(`SELECT file FROM exports`)[0]
		if err := os.Remove(filepath.Join(s.DataDir(), "media", "files", file[:2], file[2:])); err != nil { // as if put back from a copy
			t.Fatal(err)
		}
		s.Start()
		alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", exportRoute+"/download", nil)
		s.Stop()
		s.Rewrite(`UPDATE exports SET expires = 1`)
		s.Rewrite(`UPDATE jobs SET due = 1 WHERE kind = 'export'`)
		s.Start()
		none := func() bool {
			return len(s.Rows(`SELECT file FROM exports UNION ALL SELECT file FROM export_parts`)) == 0
		}
		wait.Until(t, "the archive to be removed", none)
		alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", exportRoute+"/download", nil)
		for _, end := range []func(){func() { alice.Must("DELETE", exportRoute, nil) }, func() { erasing(alice) }} {
			exporting(alice)
			wait.Until(t, "the archive to be ready", ready)
			end()
			wait.Until(t, "the archive to be removed", none)
		}
		if jobs := s.Rows(`SELECT kind FROM jobs WHERE kind = 'export'`); len(jobs) != 0 {
			t.Errorf("jobs are left: %q", jobs)
		}
		s.Stop()
		if out, ok := s.Run("verify"); !ok {
			t.Errorf("what is left is not sound: %s", out)
		}
	})
}

// partOfArchive asks for a piece of the archive.
func partOfArchive(t *testing.T, s *testserver.Server, u *testserver.User, whole []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+exportRoute+"/download", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	req.Header.Set("Range", "bytes=10-19")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	part, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusPartialContent || !bytes.Equal(part, whole[10:20]) {
		t.Errorf("a part is answered %d %q, %v", res.StatusCode, part, err)
	}
	if kind, how := res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition"); kind != "application/zip" || !strings.HasPrefix(how, "attachment;") {
		t.Errorf("it comes as %q, %q", kind, how)
	}
}

// inArchive looks for what has to be in an archive, and for what must not.
func inArchive(t *testing.T, raw []byte, user, room, left, own, others, uri string) {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	entries, all := map[string]string{}, ""
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r) // which checks the sums
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		entries[f.Name] = string(text)
		all += string(text)
	}
	media := "media/" + uri[strings.LastIndex(uri, "/")+1:] + ".txt"
	for name, parts := range map[string][]string{
		"README.txt": {user, "encrypted"}, "LIESMICH.txt": {user, "verschlüsselt"}, "account.json": {user, `"devices"`, `"push_rules"`, `"threepids"`, "reported by alice", "busy with alice's things", `"networks"`, `"sign_in_ids"`},
		"account_data.jsonl": {"im.conclave.drafts", "half a"}, "audit.jsonl": {"registered", "export.requested"}, "key_backup.jsonl": nil,
		"media.jsonl": {uri, media, "cat.TXT"}, media: {"a cat"},
	} {
		text, ok := entries[name]
		if !ok || slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) }) {
			t.Errorf("%s is %q, want %q in it", name, text, parts)
		}
	}
	read, receipts := map[string]string{}, ""
	for name, text := range entries {
		if first, rest, _ := strings.Cut(text, "\n"); strings.HasPrefix(name, "rooms/") {
			var about struct {
				ID       string          `json:"room_id"`
				Receipts json.RawMessage `json:"receipts"`
			}
			if err := json.Unmarshal([]byte(first), &about); err != nil {
				t.Errorf("%s begins with %q: %v", name, first, err)
			}
			read[about.ID] = rest
			receipts += string(about.Receipts)
		}
	}
	if len(read) != 2 || !strings.Contains(read[room], own) || !strings.Contains(read[room], others) || !strings.Contains(read[room], "said by bob") ||
		!strings.Contains(read[left], "while she was there") {
		t.Errorf("the rooms are %v", read)
	}
	if !strings.Contains(receipts, "m.read.private") || !strings.Contains(receipts, others) {
		t.Errorf("how far she has read is told as %s", receipts)
	}
	for _, secret := range []string{"not for alice", "after she left", "argon2", testserver.Password} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in the archive", secret)
		}
	}
}
