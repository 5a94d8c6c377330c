package clientapi_test

import (
	"crypto/ed25519"
	"encoding/json"
	"net/url"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// signer is an Ed25519 key of a user under a name.
type signer struct {
	user string
	key  ed25519.PrivateKey
	name string // of a device, or "" for a key named by itself
}

func newSigner(t *testing.T, user, name string) signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{user, key, name}
}

func (s signer) public() string { return matrix.EncodeBase64(s.key.Public().(ed25519.PublicKey)) }

func (s signer) id() string {
	if s.name != "" {
		return "ed25519:" + s.name
	}
	return "ed25519:" + s.public()
}

func (s signer) sign(t *testing.T, o object) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(o)
	if err == nil {
		raw, err = matrix.SignJSON(raw, s.user, matrix.KeyID(s.id()), s.key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// publish uploads keys of a user's device and one one-time key.
func publish(t *testing.T, u *testserver.User) signer {
	t.Helper()
	s := newSigner(t, u.ID, u.Device)
	counts := u.Must("POST", "/keys/upload", object{
		"device_keys": s.sign(t, object{
			"user_id": u.ID, "device_id": u.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
			"keys": object{s.id(): s.public(), "curve25519:" + u.Device: "x"},
		}),
		"one_time_keys": object{"signed_curve25519:AAAA": s.sign(t, object{"key": "k"})},
		"fallback_keys": object{"signed_curve25519:F": s.sign(t, object{"key": "f", "fallback": true})},
	}).Body
	if n := testserver.At(counts, "one_time_key_counts", "signed_curve25519"); n != 1.0 {
		t.Errorf("one key is counted as %v", counts)
	}
	return s
}

func names(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if name, ok := item.(string); ok {
			out = append(out, name)
		}
	}
	return out
}

func TestKeys(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("upload and claim", func(t *testing.T) { keysUploadAndClaim(t, s) })
		t.Run("in sync", func(t *testing.T) { keysInSync(t, s) })
		t.Run("lost answers", func(t *testing.T) { keysLostAnswers(t, s) })
		t.Run("cross-signing", func(t *testing.T) { keysCrossSigning(t, s) })
		t.Run("device lists", func(t *testing.T) { keysDeviceLists(t, s) })
		t.Run("to device", func(t *testing.T) { keysToDevice(t, s) })
		t.Run("garbage", func(t *testing.T) { keysGarbage(t, s) })
	})
}

func keysUploadAndClaim(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-01", "E2-02")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	publish(t, alice)
	first := alice.Sync("", 0)
	if testserver.At(first, "device_one_time_keys_count", "signed_curve25519") != 1.0 || !slices.Equal(names(first["device_unused_fallback_key_types"]), []string{"signed_curve25519"}) {
		t.Errorf("the first sync counts %v and %v", first["device_one_time_keys_count"], first["device_unused_fallback_key_types"])
	}
	found := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
	if testserver.At(found, "device_keys", alice.ID, alice.Device, "unsigned", "device_display_name") != "test" {
		t.Errorf("found %v", found)
	}
	for _, want := range []string{"signed_curve25519:AAAA", "signed_curve25519:F", "signed_curve25519:F"} {
		claimed := bob.Must("POST", "/keys/claim", object{"one_time_keys": object{alice.ID: object{alice.Device: "signed_curve25519"}}}).Body
		if testserver.At(claimed, "one_time_keys", alice.ID, alice.Device, want) == nil {
			t.Errorf("claimed %v, want %s", claimed, want)
		}
	}
	alice.SyncUntil(token(first), "the keys are used up", func(body object) bool {
		counts, _ := body["device_one_time_keys_count"].(object)
		n, told := counts["signed_curve25519"]
		unused, told2 := body["device_unused_fallback_key_types"].([]any)
		return told && n == 0.0 && told2 && len(unused) == 0
	})
}

// keysLostAnswers: that keys were claimed is told again to a client that has lost the answer, at once.
func keysLostAnswers(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-04")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	publish(t, alice)
	since := token(alice.Sync("", 0))
	bob.Must("POST", "/keys/claim", object{"one_time_keys": object{alice.ID: object{alice.Device: "signed_curve25519"}}})
	for range 2 {
		began := time.Now()
		body := alice.Sync(since, 20_000)
		if counts, _ := body["device_one_time_keys_count"].(object); counts["signed_curve25519"] != 0.0 || time.Since(began) > 15*time.Second {
			t.Errorf("after %s a claimed key is told as %v", time.Since(began), counts)
		}
	}
}

// keysInSync looks at what every response of /sync says about keys.
func keysInSync(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-04", "E2-05")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	// The types of unused fallback keys always come: their absence would say that the server has no such thing.
	unused := func(body object, want ...string) {
		t.Helper()
		if got, told := body["device_unused_fallback_key_types"].([]any); !told || !slices.Equal(names(got), want) {
			t.Errorf("the unused fallback keys are %v, want %v", body["device_unused_fallback_key_types"], want)
		}
	}
	first := alice.Sync("", 0)
	unused(first)
	publish(t, alice)
	second := alice.Sync(token(first), 0)
	unused(second, "signed_curve25519")
	if testserver.At(second, "device_one_time_keys_count", "signed_curve25519") != 1.0 {
		t.Errorf("the keys are counted as %v", second["device_one_time_keys_count"])
	}
	if !slices.Contains(names(testserver.At(second, "device_lists", "changed")), alice.ID) {
		t.Errorf("her own new keys are told as %v", second["device_lists"])
	}
	third := alice.Sync(token(second), 0)
	unused(third, "signed_curve25519")
	if third["device_lists"] != nil || testserver.At(third, "device_one_time_keys_count", "signed_curve25519") != 1.0 {
		t.Errorf("with nothing new the response says %v and %v", third["device_lists"], third["device_one_time_keys_count"])
	}
	// A first response has nothing to compare with.
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	whole := alice.Sync("", 0)
	unused(whole, "signed_curve25519")
	if whole["device_lists"] != nil {
		t.Errorf("a first response has device_lists %v", whole["device_lists"])
	}
	changed := alice.Sync(token(third), 0)
	if !slices.Equal(names(testserver.At(changed, "device_lists", "changed")), []string{bob.ID}) {
		t.Errorf("bob, who is new in a common room, is told as %v", changed["device_lists"])
	}
	agrees := func(from, to object, section string) {
		t.Helper()
		changes := alice.Must("GET", "/keys/changes?"+url.Values{"from": {token(from)}, "to": {token(to)}}.Encode(), nil).Body
		for _, s := range []string{"changed", "left"} {
			if got := names(changes[s]); slices.Contains(got, bob.ID) != (s == section) || len(got) > 1 {
				t.Errorf("the changes are %v", changes)
			}
		}
	}
	agrees(third, changed, "changed")
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	left := alice.Sync(token(changed), 0)
	if !slices.Equal(names(testserver.At(left, "device_lists", "left")), []string{bob.ID}) || testserver.At(left, "device_lists", "changed") != nil {
		t.Errorf("bob, who shares no room any more, is told as %v", left["device_lists"])
	}
	agrees(changed, left, "left")
}

func keysCrossSigning(t *testing.T, s *testserver.Server) {
	proof.Of(t, "AN-03", "E2-06", "E2-07")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	device := publish(t, alice)
	set := func() (master, self signer, body object) {
		master, self = newSigner(t, alice.ID, ""), newSigner(t, alice.ID, "")
		user := newSigner(t, alice.ID, "")
		object := func(usage string, of signer) object {
			return object{"user_id": alice.ID, "usage": []string{usage}, "keys": object{of.id(): of.public()}}
		}
		return master, self, map[string]any{
			"master_key": object("master", master), "self_signing_key": master.sign(t, object("self_signing", self)),
			"user_signing_key": master.sign(t, object("user_signing", user)),
		}
	}
	master, self, body := set()
	alice.Must("POST", "/keys/device_signing/upload", body)
	alice.Must("POST", "/keys/device_signing/upload", body)
	s.Nobody().Refused(400, "M_INVALID_PARAM", "POST", "/login", object{
		"type": "m.login.password", "password": testserver.Password, "device_id": master.public(),
		"identifier": object{"type": "m.id.user", "user": alice.ID},
	})
	_, _, other := set()
	challenge, err := alice.Do("POST", "/keys/device_signing/upload", other)
	if err != nil || challenge.Status != 401 {
		t.Fatalf("new keys without the password: %v, %v", challenge, err)
	}
	stored := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
	signed := self.sign(t, object{
		"user_id": alice.ID, "device_id": alice.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": object{device.id(): device.public(), "curve25519:" + alice.Device: "x"},
	})
	failures := alice.Must("POST", "/keys/signatures/upload", object{alice.ID: object{alice.Device: signed, "NOSUCH": signed}}).Body
	if testserver.At(failures, "failures", alice.ID, "NOSUCH", "errcode") != "M_NOT_FOUND" || testserver.At(failures, "failures", alice.ID, alice.Device) != nil {
		t.Errorf("failures are %v", failures)
	}
	found := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
	if testserver.At(found, "device_keys", alice.ID, alice.Device, "signatures", alice.ID, self.id()) == nil ||
		testserver.At(stored, "master_keys", alice.ID) == nil || testserver.At(found, "user_signing_keys", alice.ID) != nil {
		t.Errorf("another user sees %v", found)
	}
	other["auth"] = object{"type": "m.login.password", "session": challenge.Body["session"], "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": alice.ID}}
	alice.Must("POST", "/keys/device_signing/upload", other)
}

func keysDeviceLists(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-05")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	publish(t, alice)
	start := token(bob.Sync("", 0))
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	told := func(section string) func(object) bool {
		return func(body object) bool {
			return slices.Contains(names(testserver.At(body, "device_lists", section)), alice.ID)
		}
	}
	joined := bob.SyncUntil(start, "alice is in the list", told("changed"))
	second := s.Login(alice.ID)
	publish(t, second)
	next := bob.SyncUntil(joined, "alice has a new device", told("changed"))
	changes := bob.Must("GET", "/keys/changes?"+url.Values{"from": {joined}, "to": {next}}.Encode(), nil).Body
	if !slices.Equal(names(changes["changed"]), []string{alice.ID}) || len(names(changes["left"])) != 0 {
		t.Errorf("changes are %v", changes)
	}
	second.Must("POST", "/logout", object{})
	gone := bob.SyncUntil(next, "a device of alice is gone", told("changed"))
	alice.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	bob.SyncUntil(gone, "alice has left", told("left"))
	bob.Refused(400, "M_INVALID_PARAM", "GET", "/keys/changes?from=x&to=y", nil)
}

func keysToDevice(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-11")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	start := token(bob.Sync("", 0))
	for range 3 {
		alice.Must("PUT", "/sendToDevice/m.test/one", object{"messages": object{bob.ID: object{"*": object{"n": 1}}}})
	}
	var got []object
	next := bob.SyncUntil(start, "the message", func(body object) bool {
		got = append(got, testserver.Events(testserver.At(body, "to_device", "events"))...)
		return len(got) > 0
	})
	if len(got) != 1 || got[0]["sender"] != alice.ID || got[0]["type"] != "m.test" || testserver.At(got[0], "content", "n") != 1.0 {
		t.Errorf("received %v", got)
	}
	if again := bob.Sync(start, 0); len(testserver.Events(testserver.At(again, "to_device", "events"))) != 1 {
		t.Error("a response that was lost is not repeated")
	}
	bob.Sync(next, 0)
	if again := bob.Sync("", 0); len(testserver.Events(testserver.At(again, "to_device", "events"))) != 0 {
		t.Error("a message came twice, although its arrival was shown")
	}

	// More than one response brings.
	many := map[string]any{}
	for i := range 105 {
		alice.Must("PUT", testserver.Path("sendToDevice", "m.many", testserver.Unique("t")), object{"messages": object{bob.ID: object{bob.Device: object{"i": i}}}})
	}
	count := 0
	bob.SyncUntil(next, "all messages", func(body object) bool {
		events := testserver.Events(testserver.At(body, "to_device", "events"))
		for _, e := range events {
			if testserver.At(e, "content", "i") != float64(count) {
				t.Errorf("message %d is %v", count, e)
			}
			count++
		}
		if len(events) > 100 {
			many["too many"] = len(events)
		}
		return count >= 105
	})
	if count != 105 || len(many) != 0 {
		t.Errorf("%d messages came, %v", count, many)
	}
}

func keysGarbage(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "POST", "/keys/upload", object{})
	alice.Refused(400, "M_BAD_JSON", "POST", "/keys/upload", object{"device_keys": []string{}})
	alice.Refused(400, "M_BAD_JSON", "POST", "/keys/upload", object{"one_time_keys": []string{}})
	alice.Refused(400, "M_NOT_JSON", "POST", "/keys/upload", []byte(`{"device_keys":{},"device_keys":{}}`))
	alice.Refused(400, "M_MISSING_PARAM", "POST", "/keys/query", object{})
	alice.Refused(400, "M_BAD_JSON", "POST", "/keys/query", object{"device_keys": object{alice.ID: object{}}})
	alice.Refused(400, "M_MISSING_PARAM", "POST", "/keys/claim", object{})
	alice.Refused(400, "M_MISSING_PARAM", "PUT", "/sendToDevice/m.test/1", object{})
	alice.Refused(400, "M_BAD_JSON", "PUT", "/sendToDevice/m.test/1", object{"messages": object{alice.ID: []string{}}})
	self := newSigner(t, alice.ID, "")
	alice.Refused(400, "M_MISSING_PARAM", "POST", "/keys/device_signing/upload", object{
		"self_signing_key": self.sign(t, object{"user_id": alice.ID, "usage": []string{"self_signing"}, "keys": object{self.id(): self.public()}}),
	})
}

func TestKeysBetweenServers(t *testing.T) {
	proof.Of(t, "E2-03")
	a, b := testserver.Pair(t, testserver.Options{})
	alice, bob := a.Register("alice"), b.Register("bob")
	publish(t, bob)
	query := object{"device_keys": object{bob.ID: []string{}, "@x:127.0.0.1:1": []string{}}, "timeout": 20_000}
	found := alice.Must("POST", "/keys/query", query).Body
	if testserver.At(found, "device_keys", bob.ID, bob.Device, "user_id") != bob.ID || testserver.At(found, "failures", "127.0.0.1:1") == nil {
		t.Errorf("found %v", found)
	}
	if testserver.At(found, "device_keys", bob.ID, bob.Device, "unsigned", "device_display_name") != nil {
		t.Error("what a device is called is told to another server")
	}
	claim := object{"one_time_keys": object{bob.ID: object{bob.Device: "signed_curve25519"}}}
	for _, want := range []string{"signed_curve25519:AAAA", "signed_curve25519:F"} {
		if claimed := alice.Must("POST", "/keys/claim", claim).Body; testserver.At(claimed, "one_time_keys", bob.ID, bob.Device, want) == nil {
			t.Errorf("claimed %v, want %s", claimed, want)
		}
	}
}

// TestKeysFollowRoomsBetweenServers is the whole way of a device list and of a message to a device.
func TestKeysFollowRoomsBetweenServers(t *testing.T) {
	proof.Of(t, "E2-09", "E2-12")
	a, b := testserver.Pair(t, testserver.Options{})
	alice, bob := a.Register("alice"), b.Register("bob")
	publish(t, alice)
	publish(t, bob)
	room := alice.CreateRoom(object{"preset": "public_chat"})
	start := token(bob.Sync("", 0))
	bob.Join(room, string(a.Name))
	has := func(u *testserver.User, devices int) func(object) bool {
		return func(object) bool {
			found := bob.Must("POST", "/keys/query", object{"device_keys": object{u.ID: []string{}}}).Body
			list, _ := testserver.At(found, "device_keys", u.ID).(object)
			return len(list) == devices
		}
	}
	next := bob.SyncUntil(start, "alice's one device", has(alice, 1))

	second := a.Login(alice.ID)
	publish(t, second)
	told := func(body object) bool {
		return slices.Contains(names(testserver.At(body, "device_lists", "changed")), alice.ID)
	}
	next = bob.SyncUntil(next, "alice has a new device", told)
	if !has(alice, 2)(nil) {
		t.Error("the new device is not in the list")
	}
	second.Must("POST", "/logout", object{})
	next = bob.SyncUntil(next, "a device of alice is gone", told)
	if !has(alice, 1)(nil) {
		t.Error("the device that is gone is still in the list")
	}

	for i := range 3 {
		alice.Must("PUT", testserver.Path("sendToDevice", "m.test", testserver.Unique("t")), object{"messages": object{bob.ID: object{"*": object{"i": i}}}})
	}
	count := 0
	bob.SyncUntil(next, "three messages", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "to_device", "events")) {
			if e["sender"] != alice.ID || testserver.At(e, "content", "i") != float64(count) {
				t.Errorf("message %d is %v", count, e)
			}
			count++
		}
		return count >= 3
	})
}
