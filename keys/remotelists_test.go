package keys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
	"conclave/keys"
)

const far = matrix.UserID("@far:" + there)

// farUser is what another server says about its user.
type farUser struct {
	devices  map[matrix.DeviceID]json.RawMessage
	master   json.RawMessage
	self     json.RawMessage
	streamID int64
}

func newFarUser(t testing.TB, devices ...matrix.DeviceID) *farUser {
	f := &farUser{devices: map[matrix.DeviceID]json.RawMessage{}, streamID: 7}
	for _, d := range devices {
		f.devices[d] = deviceKeys(t, far, d, secretKey("far"+string(d)))
	}
	f.master = crossKey(t, far, "master", secretKey("far master"), nil)
	f.self = crossKey(t, far, "self_signing", secretKey("far self"), secretKey("far master"))
	return f
}

func (f *farUser) query([]byte) (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"device_keys": map[matrix.UserID]any{far: f.devices}, "master_keys": map[matrix.UserID]any{far: f.master},
		"self_signing_keys": map[matrix.UserID]any{far: f.self},
	})
}

func (f *farUser) list(user matrix.UserID) (json.RawMessage, error) {
	if user != far {
		return nil, errDown
	}
	var devices []any
	for _, id := range slices.Sorted(maps.Keys(f.devices)) {
		devices = append(devices, map[string]any{"device_id": id, "keys": f.devices[id], "device_display_name": "far " + id})
	}
	return json.Marshal(map[string]any{
		"user_id": far, "stream_id": f.streamID, "devices": devices, "master_key": f.master, "self_signing_key": f.self,
	})
}

// serves lets the other server answer so.
func (w *world) serves(f *farUser) {
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	w.remote.query, w.remote.devices = f.query, f.list
}

func (w *world) down() {
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	w.remote.query, w.remote.devices = nil, nil
}

func deviceUpdate(t testing.TB, device matrix.DeviceID, stream int64, prev []int64, f *farUser) []byte {
	content := map[string]any{"user_id": far, "device_id": device, "stream_id": stream, "prev_id": prev}
	if f == nil || f.devices[device] == nil {
		content["deleted"] = true
	} else {
		content["keys"] = f.devices[device]
	}
	raw, err := json.Marshal(content)
	must(t, err)
	return raw
}

func deviceIDs(found *keys.Found, user matrix.UserID) []matrix.DeviceID {
	return slices.Sorted(maps.Keys(found.Devices[user]))
}

func TestQueryOfOtherServers(t *testing.T) {
	proof.Of(t, "E2-03", "E2-09")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		f := newFarUser(t, "A", "B")
		f.devices["FORGED"] = deviceKeys(t, far, "FORGED", secretKey("x"))
		f.devices["FORGED"] = json.RawMessage(strings.Replace(string(f.devices["FORGED"]), "MII", "XXX", 1))
		f.devices["LIST"] = json.RawMessage(`[]`)
		w.serves(f)

		// Without a common room nothing tells us of changes, so each question is put anew.
		for range 2 {
			found := w.query(alice, far)
			if got := deviceIDs(found, far); !slices.Equal(got, []matrix.DeviceID{"A", "B"}) || found.Master[far] == nil || found.SelfSigning[far] == nil || len(found.Failures) != 0 {
				t.Errorf("found %v, %+v", got, found)
			}
		}
		if n := w.remote.called("query"); n != 2 {
			t.Errorf("%d questions, want 2", n)
		}
		w.join(1, alice.ID, far)
		for range 3 {
			if got := deviceIDs(w.query(alice, far), far); len(got) != 2 {
				t.Errorf("found %v", got)
			}
		}
		if n := w.remote.called("query"); n != 3 {
			t.Errorf("%d questions, want 3: the list is followed now", n)
		}

		// They part and meet again: what changed meanwhile was not told.
		w.leave(1, far)
		w.join(1, far)
		w.query(alice, far)
		if n := w.remote.called("query"); n != 4 {
			t.Errorf("%d questions, want 4", n)
		}
		w.leave(1, far)
		w.join(1, far)
		w.down()
		w.publish(alice, 1)
		found := w.query(alice, far, "@other:third.test", alice.ID)
		if len(found.Failures) != 2 || len(deviceIDs(found, far)) != 2 || len(deviceIDs(found, alice.ID)) != 1 {
			t.Errorf("with the servers down: %+v", found)
		}
		if _, there := found.Devices["@other:third.test"]; there {
			t.Error("a user about whom nothing is known has an empty list of devices")
		}
		for asked, want := range map[time.Duration]time.Duration{0: 10 * time.Second, 5 * time.Second: 5 * time.Second, time.Hour: 30 * time.Second} {
			// What has passed meanwhile is missing, which may be seconds on a busy machine: more than the next shorter one is it.
			more := map[time.Duration]time.Duration{5 * time.Second: 0, 10 * time.Second: 5 * time.Second, 30 * time.Second: 10 * time.Second}[want]
			if _, err := w.Query(t.Context(), alice.User, keys.Asked{far: nil}, asked); err != nil {
				t.Error(err)
			}
			if got := w.remote.patient; got > want || got <= more {
				t.Errorf("asked to wait %v, another server is waited for %v, want %v", asked, got, want)
			}
		}
	})
}

// TestOthersDevicesCalledLikeKeys takes another server's dehydrated device, which is called like its Curve25519 key, and
// no device that is called like a key that signs.
func TestOthersDevicesCalledLikeKeys(t *testing.T) {
	proof.Of(t, "AN-03")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		_, dry := w.dry(&person{Device: keys.Device{User: keys.User{ID: far}}}, "far")
		f := newFarUser(t, "A", matrix.DeviceID(public(secretKey("far master"))), matrix.DeviceID(public(secretKey("far self"))))
		f.devices[dry.DeviceID] = dry.DeviceKeys
		own := public(secretKey("own"))
		f.devices[matrix.DeviceID(own)] = deviceKeys(t, far, matrix.DeviceID(own), secretKey("own"))
		w.serves(f)
		want := []matrix.DeviceID{"A", dry.DeviceID}
		slices.Sort(want)
		for range 2 { // asked, and then from the list that is followed
			if got := deviceIDs(w.query(alice, far), far); !slices.Equal(got, want) {
				t.Errorf("found %v, want %v", got, want)
			}
			w.join(1, alice.ID, far)
			w.query(alice, far)
			w.down()
		}
	})
}

func TestDeviceListUpdates(t *testing.T) {
	proof.Of(t, "ED-04", "E2-09")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		f := newFarUser(t, "A")
		w.serves(f)
		w.join(1, alice.ID, far)
		go func() { _ = w.Run(t.Context()) }()
		receive := func(device matrix.DeviceID, stream int64, prev ...int64) {
			t.Helper()
			must(t, w.ReceiveDeviceList(t.Context(), there, deviceUpdate(t, device, stream, prev, f)))
		}
		has := func(ids ...matrix.DeviceID) func() bool {
			return func() bool {
				return slices.Equal(deviceIDs(w.query(alice, far), far), ids)
			}
		}
		fetched := func(n int) func() bool {
			return func() bool { return w.remote.called("devices") == n && w.remote.called("query") == 0 }
		}

		// The first update finds nothing to build on: the list is fetched, with its place in the sequence.
		at := w.pos()
		receive("A", 7, 6)
		wait.Until(t, "the list is fetched", fetched(1))
		wait.Until(t, "alice is told", func() bool { changed, _ := w.changes(alice, at); return slices.Equal(changed, []matrix.UserID{far}) })
		if !has("A")() {
			t.Error("the list is not what was fetched")
		}

		// Updates in sequence, one repeated, one older; one whose keys are no good.
		f.devices["B"] = deviceKeys(t, far, "B", secretKey("farB"))
		at = w.pos()
		receive("B", 8, 7)
		w.wantChanges(alice, at, []matrix.UserID{far}, nil)
		at = w.pos()
		receive("B", 8, 7)
		receive("A", 3, 2)
		w.wantChanges(alice, at, nil, nil)
		if !has("A", "B")() {
			t.Error("an update was not applied")
		}
		f.devices["BAD"] = deviceKeys(t, "@somebody:"+matrix.UserID(there), "BAD", secretKey("farB"))
		receive("BAD", 9, 8)
		delete(f.devices, "BAD")
		delete(f.devices, "A")
		receive("A", 10, 9)
		if !has("B")() || w.remote.called("devices") != 1 {
			t.Errorf("after a deletion: %v, %d fetches", deviceIDs(w.query(alice, far), far), w.remote.called("devices"))
		}

		// A thousand gaps are one fetch a minute, and until then others are asked directly.
		w.pass(2 * time.Minute)
		f.streamID = 5000
		f.devices["C"] = deviceKeys(t, far, "C", secretKey("farC"))
		at = w.pos()
		for i := range 1000 {
			receive("C", int64(1000+2*i), int64(999+2*i))
		}
		wait.Until(t, "the list is fetched again", func() bool { return w.remote.called("devices") == 2 && has("B", "C")() })
		receive("C", 6000, 5999)
		receive("C", 6002, 6001)
		if n := w.remote.called("devices"); n != 2 {
			t.Errorf("%d fetches within a minute", n)
		}
		if changed, _ := w.changes(alice, at); !slices.Equal(changed, []matrix.UserID{far}) {
			t.Errorf("alice is told of %v", changed)
		}
		rows := 0
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Changes(at, w.pos(), func(store.Change) { rows++ })
		}))
		if rows != 1 {
			t.Errorf("a thousand gaps made %d rows in the stream", rows)
		}
	})
}

func TestRefetchBacksOff(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.join(1, alice.ID, far)
		go func() { _ = w.Run(t.Context()) }()
		calls := 0
		for stream, pause := range []time.Duration{0, 61 * time.Second, 61 * time.Second, 61 * time.Second, 3 * time.Minute} {
			w.pass(pause)
			before := w.remote.called("devices")
			must(t, w.ReceiveDeviceList(t.Context(), there, deviceUpdate(t, "A", int64(100+stream), []int64{99}, nil)))
			switch stream { // the pauses are one minute, two, four
			case 0, 1, 3:
				calls++
			}
			wait.Until(t, "the list is tried", func() bool { return w.remote.called("devices") >= calls })
			if n := w.remote.called("devices"); n != calls {
				t.Fatalf("step %d: %d tries after %d, want %d", stream, n, before, calls)
			}
			wait.Until(t, "the failure is stored", func() bool { return w.retryAt() > w.now().UnixMilli() })
		}
	})
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) retryAt() (at int64) {
	w.t.Helper()
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.QueryRow(`SELECT retry_at FROM remote_lists WHERE fails > 0`).Scan(&at)
		return err
	}))
	return at
}

func TestForeignListsAreTheirServersToTell(t *testing.T) {
	proof.Of(t, "ED-05")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.serves(newFarUser(t, "A"))
		w.join(1, alice.ID, far)
		w.query(alice, far)
		at := w.pos()
		refused(t, w.ReceiveDeviceList(t.Context(), "third.test", deviceUpdate(t, "A", 9, nil, nil)), "M_FORBIDDEN")
		refused(t, w.ReceiveSigningKeys(t.Context(), "third.test", fmt.Appendf(nil, `{"user_id":%q}`, far)), "M_FORBIDDEN")
		refused(t, w.ReceiveDeviceList(t.Context(), here, fmt.Appendf(nil, `{"user_id":%q,"device_id":"X","stream_id":5}`, alice.ID)), "M_INVALID_PARAM")
		for _, bad := range []string{`[]`, `{}`, `{"user_id":"@far:there.test"}`, `{"user_id":"@far:there.test","device_id":"A","stream_id":-1}`, `{"user_id":"@far:there.test","device_id":["A"],"stream_id":1}`} {
			if err := w.ReceiveDeviceList(t.Context(), there, []byte(bad)); err == nil {
				t.Errorf("%s was taken", bad)
			}
		}
		// Strangers' lists are nobody's concern here.
		must(t, w.ReceiveDeviceList(t.Context(), there, []byte(`{"user_id":"@stranger:there.test","device_id":"A","stream_id":5}`)))
		w.wantChanges(alice, at, nil, nil)

		// New cross-signing keys, and a self-signing key that the master key did not sign.
		master, self := secretKey("new master"), secretKey("new self")
		update := func(selfSigner []byte) []byte {
			raw, err := json.Marshal(map[string]any{"user_id": far, "master_key": crossKey(t, far, "master", master, nil), "self_signing_key": json.RawMessage(selfSigner)})
			must(t, err)
			return raw
		}
		must(t, w.ReceiveSigningKeys(t.Context(), there, update(crossKey(t, far, "self_signing", self, secretKey("wrong")))))
		if found := w.query(alice, far); found.SelfSigning[far] != nil || found.Master[far] == nil {
			t.Errorf("a key that the master key did not sign: %+v", found)
		}
		at = w.pos()
		good := update(crossKey(t, far, "self_signing", self, master))
		must(t, w.ReceiveSigningKeys(t.Context(), there, good))
		w.wantChanges(alice, at, []matrix.UserID{far}, nil)
		at = w.pos()
		must(t, w.ReceiveSigningKeys(t.Context(), there, good))
		w.wantChanges(alice, at, nil, nil)
		if _, ok := matrix.GetString(w.query(alice, far).Master[far], "keys", "ed25519:"+public(master)); !ok {
			t.Error("the new master key is not shown")
		}
	})
}

func TestClaimsOfOtherServers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.publish(alice, 1)
		w.remote.claim = func([]byte) (json.RawMessage, error) {
			return json.RawMessage(`{"one_time_keys":{"@far:there.test":{"A":{"curve:1":"k"},"UNASKED":{"curve:1":"k"}},"@alice:here.test":{"X":{"curve:1":"k"}}}}`), nil
		}
		claimed, err := w.Claim(t.Context(), keys.Wanted{far: {"A": "curve", "B": "curve"}, alice.ID: {alice.DeviceID: "signed_curve25519"}}, time.Second)
		must(t, err)
		if len(claimed.Failures) != 0 || len(claimed.Keys) != 2 || len(claimed.Keys[far]) != 1 || len(claimed.Keys[alice.ID]) != 1 {
			t.Errorf("claimed %+v", claimed)
		}
		w.remote.claim = nil
		claimed, err = w.Claim(t.Context(), keys.Wanted{far: {"A": "curve"}}, time.Second)
		must(t, err)
		if _, failed := claimed.Failures[there]; !failed || len(claimed.Keys) != 0 {
			t.Errorf("with the server down: %+v", claimed)
		}
		// How many servers a request asks is bounded as how many devices it names.
		asked := 0
		w.remote.claim = func([]byte) (json.RawMessage, error) { asked++; return nil, errors.New("down") }
		many := keys.Wanted{}
		for i := range 1001 {
			many[matrix.UserID(fmt.Sprintf("@far:s%d.test", i))] = nil
		}
		_, err = w.Claim(t.Context(), many, time.Second)
		if refused(t, err, "M_TOO_LARGE"); asked != 0 {
			t.Errorf("%d servers were asked", asked)
		}
		w.remote.claim = nil
		// A signature on another server's user's key needs that key.
		must(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false))
		f := newFarUser(t, "A")
		w.serves(f)
		signed := sign(t, f.master, alice.ID, public(alice.userSigner), alice.userSigner)
		failures, err := w.UploadSignatures(t.Context(), alice.User, keys.Signatures{far: {public(secretKey("far master")): signed}})
		must(t, err)
		master := w.query(alice, far).Master[far]
		if _, ok := matrix.GetString(master, "signatures", string(alice.ID), "ed25519:"+public(alice.userSigner)); !ok || len(failures) != 0 {
			t.Errorf("the signature is not shown: %s, %v", master, failures)
		}
	})
}
