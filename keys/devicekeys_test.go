package keys_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/keys"
)

func TestDeviceKeysNeverChange(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		start := w.pos()
		w.publish(alice, 1)
		w.wantChanges(alice, start, []matrix.UserID{alice.ID}, nil)
		start = w.pos()
		w.publish(alice, 1) // the same again
		w.wantChanges(alice, start, nil, nil)

		other := deviceKeys(t, alice.ID, alice.DeviceID, secretKey("another"))
		_, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{DeviceKeys: other})
		refused(t, err, "M_INVALID_PARAM")
		more := map[string]any{}
		must(t, json.Unmarshal(alice.deviceKeys(t), &more))
		more["keys"].(map[string]any)["new:"+string(alice.DeviceID)] = "key"
		delete(more, "signatures")
		_, err = w.UploadKeys(t.Context(), alice.Device, keys.Upload{DeviceKeys: sign(t, more, alice.ID, string(alice.DeviceID), alice.secret)})
		refused(t, err, "M_INVALID_PARAM")

		found := w.query(alice, alice.ID)
		device := found.Devices[alice.ID][alice.DeviceID]
		if key, _ := matrix.GetString(device, "keys", "ed25519:"+string(alice.DeviceID)); key != public(alice.secret) {
			t.Errorf("the keys are now %s", device)
		}
		if name, _ := matrix.GetString(device, "unsigned", "device_display_name"); name != "phone of alice" {
			t.Errorf("a user of this server sees %s", device)
		}
		abroad, err := w.QueryLocal(t.Context(), keys.Asked{alice.ID: nil, "@bob:" + matrix.UserID(there): nil})
		must(t, err)
		if device := abroad.Devices[alice.ID][alice.DeviceID]; len(abroad.Devices) != 1 || strings.Contains(string(device), "phone") || device == nil {
			t.Errorf("another server sees %v", abroad.Devices)
		}
	})
}

// TestUploadGarbage is the list of threats F19: none of it may be stored.
func TestUploadGarbage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		change := func(what func(map[string]any)) json.RawMessage {
			object := map[string]any{}
			must(t, json.Unmarshal(alice.deviceKeys(t), &object))
			delete(object, "signatures")
			what(object)
			return sign(t, object, alice.ID, string(alice.DeviceID), alice.secret)
		}
		unsigned := map[string]any{}
		must(t, json.Unmarshal(alice.deviceKeys(t), &unsigned))
		delete(unsigned, "signatures")
		bare, err := json.Marshal(unsigned)
		must(t, err)
		many := map[string]string{"ed25519:" + string(alice.DeviceID): public(alice.secret)}
		for i := range 40 {
			many[fmt.Sprintf("a%d:%s", i, alice.DeviceID)] = "x"
		}
		device := map[string]json.RawMessage{
			"a list": json.RawMessage(`[]`), "text": json.RawMessage(`"x"`), "null": json.RawMessage(`null`), "nothing": json.RawMessage(`{}`),
			"unsigned":           bare,
			"another's":          deviceKeys(t, "@bob:"+matrix.UserID(here), alice.DeviceID, alice.secret),
			"another device's":   deviceKeys(t, alice.ID, "OTHER", alice.secret),
			"a float":            json.RawMessage(strings.Replace(string(alice.deviceKeys(t)), `{`, `{"x":1.5,`, 1)),
			"a name twice":       json.RawMessage(strings.Replace(string(alice.deviceKeys(t)), `{`, `{"user_id":"@x:y",`, 1)),
			"a megabyte":         change(func(o map[string]any) { o["x"] = strings.Repeat("x", 1<<20) }),
			"keys in a list":     change(func(o map[string]any) { o["keys"] = []string{public(alice.secret)} }),
			"no algorithms":      change(func(o map[string]any) { delete(o, "algorithms") }),
			"algorithms as text": change(func(o map[string]any) { o["algorithms"] = "m.olm" }),
			"too many keys":      change(func(o map[string]any) { o["keys"] = many }),
			"the key of another device": change(func(o map[string]any) {
				o["keys"].(map[string]any)["rsa:OTHER"] = "x"
			}),
			"a key called like the device": change(func(o map[string]any) {
				o["keys"].(map[string]any)["rsa:"+string(alice.DeviceID)] = string(alice.DeviceID)
			}),
			"a weak key": change(func(o map[string]any) {
				o["keys"].(map[string]any)["ed25519:"+string(alice.DeviceID)] = strings.Repeat("A", 43)
			}),
		}
		for what, raw := range device {
			if _, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{DeviceKeys: raw}); err == nil {
				t.Errorf("device keys with %s were taken", what)
			}
		}
		named := map[string]json.RawMessage{
			"no colon": json.RawMessage(`"x"`), ":id": json.RawMessage(`"x"`), "a:": json.RawMessage(`"x"`), "a:1": json.RawMessage(`5`), "b:1": json.RawMessage(`[]`),
			"signed_a:1": json.RawMessage(`"x"`), "signed_b:1": json.RawMessage(`{"key":"x"}`), "c:1": json.RawMessage(`{"key":["x"]}`),
			"big:1": json.RawMessage(`"` + strings.Repeat("x", 9000) + `"`), strings.Repeat("a", 300) + ":1": json.RawMessage(`"x"`),
		}
		for name, raw := range named {
			one := map[string]json.RawMessage{name: raw}
			if _, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{OneTimeKeys: one}); err == nil {
				t.Errorf("the one-time key %.20s was taken", name)
			}
			if _, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{FallbackKeys: one}); err == nil {
				t.Errorf("the fallback key %.20s was taken", name)
			}
		}
		if found := w.query(alice, alice.ID); len(found.Devices[alice.ID]) != 0 {
			t.Errorf("something was stored: %v", found.Devices)
		}
	})
}

func TestOneTimeKeys(t *testing.T) {
	proof.Of(t, "E2-01", "E2-02")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.publish(alice, 2)
		upload := func(name string, key json.RawMessage) error {
			_, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{OneTimeKeys: map[string]json.RawMessage{name: key}})
			return err
		}
		must(t, upload("signed_curve25519:0000", alice.signedKey(t, "0")))
		refused(t, upload("signed_curve25519:0000", alice.signedKey(t, "other")), "M_INVALID_PARAM")
		refused(t, upload("signed_curve25519:0009", sign(t, map[string]any{"key": "x"}, alice.ID, string(alice.DeviceID), secretKey("wrong"))), "M_INVALID_SIGNATURE")
		must(t, upload("whatever:1", json.RawMessage(`"any bytes"`)))
		lot := keys.Upload{OneTimeKeys: map[string]json.RawMessage{}}
		for i := range 498 {
			lot.OneTimeKeys[fmt.Sprintf("x:%d", i)] = json.RawMessage(`"k"`)
		}
		_, err := w.UploadKeys(t.Context(), alice.Device, lot)
		refused(t, err, "M_TOO_LARGE")

		// Keys are given out in the order of their uploads.
		must(t, upload("whatever:0", json.RawMessage(`"later"`)))
		for _, want := range []string{"whatever:1", "whatever:0"} {
			got, err := w.ClaimLocal(t.Context(), keys.Wanted{alice.ID: {alice.DeviceID: "whatever"}})
			must(t, err)
			if names := slices.Collect(maps.Keys(got[alice.ID][alice.DeviceID])); !slices.Equal(names, []string{want}) {
				t.Errorf("claimed %v, want %s", names, want)
			}
		}
		got, err := w.ClaimLocal(t.Context(), keys.Wanted{alice.ID: {alice.DeviceID: "whatever", "UNKNOWN": "whatever"}, "@nobody:" + matrix.UserID(here): {"X": "a"}})
		must(t, err)
		if len(got) != 0 {
			t.Errorf("claimed %v where nothing is", got)
		}
	})
}

func TestFallbackKeys(t *testing.T) {
	proof.Of(t, "E2-01", "E2-02")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.publish(alice, 1)
		unused := func(want ...string) {
			t.Helper()
			_, fallback, err := w.KeyCounts(t.Context(), alice.NID)
			must(t, err)
			if fallback == nil || !slices.Equal(fallback, want) {
				t.Errorf("unused fallback keys are %v, want %v", fallback, want)
			}
		}
		upload := func(list map[string]json.RawMessage) error {
			_, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{FallbackKeys: list})
			return err
		}
		claim := func(want string) {
			t.Helper()
			got, err := w.ClaimLocal(t.Context(), keys.Wanted{alice.ID: {alice.DeviceID: "signed_curve25519"}})
			must(t, err)
			if names := slices.Collect(maps.Keys(got[alice.ID][alice.DeviceID])); !slices.Equal(names, []string{want}) {
				t.Errorf("claimed %v, want %s", names, want)
			}
		}
		first := map[string]json.RawMessage{"signed_curve25519:F1": alice.signedKey(t, "f1"), "signed_rsa:R1": alice.signedKey(t, "r1")}
		must(t, upload(first))
		refused(t, upload(map[string]json.RawMessage{"a:1": json.RawMessage(`"x"`), "a:2": json.RawMessage(`"x"`)}), "M_INVALID_PARAM")
		unused("signed_curve25519", "signed_rsa")
		claim("signed_curve25519:0000")
		unused("signed_curve25519", "signed_rsa")
		start := w.pos()
		claim("signed_curve25519:F1")
		claim("signed_curve25519:F1")
		unused("signed_rsa")
		told := 0
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Changes(start, w.pos(), func(c store.Change) {
				if c.Kind == store.ChangeKeys && c.User == alice.User.NID {
					told++
				}
			})
		}))
		if told != 1 {
			t.Errorf("the owner was told %d times that the key is used, want once", told)
		}
		must(t, upload(first)) // the same key stays used
		unused("signed_rsa")
		must(t, upload(map[string]json.RawMessage{"signed_curve25519:F2": alice.signedKey(t, "f2")}))
		unused("signed_curve25519", "signed_rsa")
		claim("signed_curve25519:F2")
		lot := map[string]json.RawMessage{}
		for i := range 14 {
			lot[fmt.Sprintf("a%d:1", i)] = json.RawMessage(`"k"`)
		}
		must(t, upload(lot))
		refused(t, upload(map[string]json.RawMessage{"one.more:1": json.RawMessage(`"k"`)}), "M_TOO_LARGE")
		must(t, upload(map[string]json.RawMessage{"a0:2": json.RawMessage(`"k"`)}))
	})
}

// TestClaimedKeysAreForgotten shows that what is remembered of claimed keys is bounded, the newest last.
func TestClaimedKeysAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10100)
				INSERT INTO claimed_keys (device, algorithm, key_id, ts) SELECT %d, 'x', 'k' || i, %d + i FROM n`, alice.NID, w.now().UnixMilli()))
			return err
		}))
		upload := func(id string) {
			t.Helper()
			_, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{OneTimeKeys: map[string]json.RawMessage{id: json.RawMessage(`"k"`)}})
			must(t, err)
		}
		has := func(want int) {
			t.Helper()
			counts, _, err := w.KeyCounts(t.Context(), alice.NID)
			must(t, err)
			if counts["x"] != want {
				t.Errorf("the device has %d keys, want %d", counts["x"], want)
			}
		}
		upload("x:k10100") // claimed, and remembered
		has(0)
		upload("x:k100") // forgotten by the upload before
		has(1)
		upload("x:k101")
		has(1)
	})
}

func TestKeysDieWithTheirDevice(t *testing.T) {
	proof.Of(t, "E2-12")
	each(t, func(t *testing.T, w *world) {
		alice, second := w.user("alice"), w.device("alice", "SECOND")
		w.publish(alice, 3)
		w.publish(second, 3)
		must(t, w.SendToDevice(t.Context(), alice.ID, store.TxnKey{Device: alice.NID}, "t", keys.Messages{alice.ID: {"*": json.RawMessage(`{}`)}}))
		start := w.pos()
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.DeleteDevices(alice.User.NID, []matrix.DeviceID{second.DeviceID})
		}))
		w.wantChanges(alice, start, []matrix.UserID{alice.ID}, nil)
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			for _, table := range []string{"device_keys", "one_time_keys", "fallback_keys", "claimed_keys", "to_device"} {
				var left int
				if _, err := tx.QueryRow(`SELECT count(*) FROM `+table+` WHERE device = $1`, second.NID).Scan(&left); err != nil {
					return err
				}
				if left != 0 {
					t.Errorf("%d rows of %s outlived their device", left, table)
				}
			}
			return nil
		}))
		if found := w.query(alice, alice.ID); len(found.Devices[alice.ID]) != 1 {
			t.Errorf("the devices are %v", found.Devices)
		}
		_, err := w.UploadKeys(t.Context(), second.Device, keys.Upload{DeviceKeys: second.deviceKeys(t)})
		refused(t, err, "M_UNKNOWN_TOKEN")
	})
}
