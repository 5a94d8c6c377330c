package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// publishedKeys are the IDs of the keys that a server publishes, with the time of expiry of those that are old.
func publishedKeys(t *testing.T, from *peer.Peer, s *testserver.Server) (verify, old map[string]int64) {
	t.Helper()
	a := from.DoWith(t, peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}, "GET", "/_matrix/key/v2/server", nil, nil)
	type key struct {
		Expired int64 `json:"expired_ts"`
	}
	var doc struct {
		Verify map[string]key `json:"verify_keys"`
		Old    map[string]key `json:"old_verify_keys"`
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil || a.Status != 200 {
		t.Fatalf("keys of %s: %d %s", s.Name, a.Status, a.Body)
	}
	verify, old = map[string]int64{}, map[string]int64{}
	for id := range doc.Verify {
		verify[id] = 0
	}
	for id, k := range doc.Old {
		old[id] = k.Expired
	}
	return verify, old
}

// hasBody is whether a sync response has a message in a room.
func hasBody(room, text string) func(testserver.JSON) bool {
	return func(body testserver.JSON) bool {
		for _, e := range testserver.Timeline(body, room) {
			if testserver.At(e, "content", "body") == text {
				return true
			}
		}
		return false
	}
}

// TestKeysRotate gives a server a new key twice. Who knew the old keys takes what the new one signs; who comes later
// takes what the old ones signed.
func TestKeysRotate(t *testing.T) {
	proof.Of(t, "FD-11", "FD-14")
	a, b := testserver.Pair(t, testserver.Options{})
	late := testserver.Start(t, testserver.Options{CA: a.CA})
	asker := peer.New(t, a.CA, peer.Options{})
	alice, bob, carol := a.Register("alice"), b.Register("bob"), late.Register("carol")
	room := alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
	bob.Join(room, string(a.Name))
	alice.Say(room, "by the first key")
	since := bob.SyncUntil("", "what the first key signed", hasBody(room, "by the first key"))
	path := filepath.Join(a.DataDir(), "signing.key")
	for round, text := range []string{"by the second key", "by the third key"} {
		before, olds := publishedKeys(t, asker, a)
		code, out, stderr := call("keys", "rotate", "-config", a.Conf)
		if code != 0 {
			t.Fatalf("rotate: %d %s", code, stderr)
		}
		next, _, _ := strings.Cut(out, " ")
		if code, _, stderr := call("keys", "rotate", "-config", a.Conf); code != 1 || !strings.Contains(stderr, next) {
			t.Errorf("a second rotation before the start: %d %q", code, stderr)
		}
		// The server that runs goes on with its key.
		if same, _ := publishedKeys(t, asker, a); len(same) != 1 || same[next] != before[next] {
			t.Errorf("before the restart %v are published", same)
		}
		alice.Say(room, "before the restart")
		a.Stop()
		b.Stop() // it asks for keys at most once a minute, and has just done so
		a.Start()
		b.Start()
		verify, old := publishedKeys(t, asker, a)
		if _, signs := verify[next]; !signs || len(verify) != 1 || len(old) != len(olds)+1 {
			t.Errorf("round %d: %v and %v are published", round, verify, old)
		}
		for id := range before {
			if old[id] == 0 {
				t.Errorf("the key %s has no time of expiry: %v", id, old)
			}
		}
		for id, expired := range olds {
			if old[id] != expired {
				t.Errorf("the key %s expired at %d, now at %d", id, expired, old[id])
			}
		}
		alice.Say(room, text)
		since = bob.SyncUntil(since, text, hasBody(room, text))
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key file: %v, %v", info.Mode(), err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "ed25519 ") != 1 || strings.Count(string(text), "retired ") != 2 || strings.Contains(string(text), "next ") {
		t.Errorf("the key file holds %d lines (%v)", strings.Count(string(text), "\n"), err)
	}
	// The room's creation and first messages were signed by keys that have expired since.
	carol.Join(room, string(a.Name))
	seen := carol.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=50", nil)
	for _, text := range []string{"by the first key", "before the restart", "by the second key", "by the third key"} {
		if !strings.Contains(string(seen.Raw), text) {
			t.Errorf("who joins later does not see what was said %s", text)
		}
	}
	if code, out, _ := call("keys", "list", "-config", a.Conf); code != 0 || strings.Count(out, "expired") != 2 || strings.Count(out, "signs") != 1 {
		t.Errorf("list: %d %q", code, out)
	}
}
