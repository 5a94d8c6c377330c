package main

import (
	"crypto/ed25519"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

type object = testserver.JSON

// deviceOf publishes keys of a user's device, with one-time keys of some names.
func deviceOf(t *testing.T, u *testserver.User, oneTime ...string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := "ed25519:" + u.Device
	sign := func(o object) json.RawMessage {
		raw, err := json.Marshal(o)
		if err == nil {
			raw, err = matrix.SignJSON(raw, u.ID, matrix.KeyID(id), key)
		}
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	keys := object{}
	for _, name := range oneTime {
		keys["signed_curve25519:"+name] = sign(object{"key": name})
	}
	u.Must("POST", "/keys/upload", object{
		"device_keys": sign(object{
			"user_id": u.ID, "device_id": u.Device, "algorithms": []string{"im.conclave.sealed.v1"},
			"keys": object{id: matrix.EncodeBase64(key.Public().(ed25519.PublicKey))},
		}),
		"one_time_keys": keys, "fallback_keys": object{"signed_curve25519:F": sign(object{"key": "f", "fallback": true})},
	})
}

// copyFolder copies a folder for its owner alone.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestored puts yesterday's backup of a server back while another server and a client know what came after it.
func TestRestored(t *testing.T) {
	a, b := testserver.Pair(t, testserver.Options{})
	alice, bob := a.Register("alice"), b.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(room, string(a.Name))
	deviceOf(t, alice, "A", "B")
	claim := func() string {
		t.Helper()
		body := bob.Must("POST", "/keys/claim", object{"one_time_keys": object{alice.ID: object{alice.Device: "signed_curve25519"}}}).Body
		keys, _ := testserver.At(body, "one_time_keys", alice.ID, alice.Device).(object)
		for name := range keys {
			return name
		}
		return ""
	}
	devices := func(n int) func() bool {
		return func() bool {
			body := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
			list, _ := testserver.At(body, "device_keys", alice.ID).(object)
			return len(list) == n
		}
	}
	wait.Until(t, "bob's server to know one device", devices(1))
	since, _ := alice.Sync("", 0)["next_batch"].(string)

	a.Stop()
	backup := t.TempDir()
	copyFolder(t, a.DataDir(), backup)
	a.Start()
	if got := claim(); got != "signed_curve25519:A" {
		t.Errorf("claimed %q", got)
	}
	alice.Say(room, "after the backup")
	deviceOf(t, a.Login(alice.ID), "C")
	wait.Until(t, "bob's server to know two devices", devices(2))
	lost, _ := alice.Sync("", 0)["next_batch"].(string)
	if out, ok := a.Run("restored"); ok || !strings.Contains(out, "another") {
		t.Errorf("a running server's database was told that it was restored: %s", out)
	}
	a.Stop()

	if err := os.RemoveAll(a.DataDir()); err != nil {
		t.Fatal(err)
	}
	copyFolder(t, backup, a.DataDir())
	if out, ok := a.Run("restored"); !ok || !strings.Contains(out, "2 one-time keys") {
		t.Errorf("restored: %s", out)
	}
	if out, ok := a.Run("verify", "-full"); !ok {
		t.Errorf("after it: %s", out)
	}
	a.Start()

	if got := claim(); got != "signed_curve25519:F" {
		t.Errorf("after a restore %q was given out", got)
	}
	for _, old := range []string{since, lost} {
		body := alice.Sync(old, 0)
		counts, _ := body["device_one_time_keys_count"].(object)
		unused, told := body["device_unused_fallback_key_types"].([]any)
		if n, known := counts["signed_curve25519"]; !known || n != 0.0 || !told || len(unused) != 0 {
			t.Errorf("the client is not asked for new keys: %v, %v", counts, unused)
		}
		if len(testserver.Timeline(body, room)) < 4 {
			t.Errorf("a token from before does not start afresh: %v", body)
		}
	}
	wait.Until(t, "bob's server to know that the device that was lost is none", devices(1))
	hears := func(u *testserver.User, text string) {
		t.Helper()
		u.SyncUntil("", text, func(body object) bool {
			for _, e := range testserver.Timeline(body, room) {
				if testserver.At(e, "content", "body") == text {
					return true
				}
			}
			return false
		})
	}
	bob.Say(room, "and on")
	hears(alice, "and on")
	alice.Say(room, "so do we")
	hears(bob, "so do we")
}
