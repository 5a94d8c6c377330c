package keys_test

import (
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/keys"
)

// dry is a dehydrated device of a user, called like its Curve25519 key, as the proposal wants it.
func (w *world) dry(p *person, seed string) (*person, keys.Dehydration) {
	w.t.Helper()
	var scalar [32]byte
	copy(scalar[:], seed)
	curve, err := ecdh.X25519().NewPrivateKey(scalar[:])
	must(w.t, err)
	id := matrix.EncodeBase64(curve.PublicKey().Bytes())
	d := &person{Device: keys.Device{User: p.User, DeviceID: matrix.DeviceID(id)}, secret: secretKey("dry" + seed)}
	object := sign(w.t, map[string]any{
		"user_id": p.ID, "device_id": id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"}, "dehydrated": true,
		"keys": map[string]string{"ed25519:" + id: public(d.secret), "curve25519:" + id: id},
	}, p.ID, id, d.secret)
	return d, keys.Dehydration{
		DeviceID: d.DeviceID, Data: json.RawMessage(fmt.Sprintf(`{"algorithm":"org.matrix.msc3814.v2","device_pickle":%q}`, seed)), Name: "Dehydrated device",
		Upload: keys.Upload{
			DeviceKeys:   object,
			OneTimeKeys:  map[string]json.RawMessage{"signed_curve25519:1": d.signedKey(w.t, "one")},
			FallbackKeys: map[string]json.RawMessage{"signed_curve25519:F": d.signedKey(w.t, "fall")},
		},
	}
}

func (w *world) dehydrate(p *person, seed string) *person {
	w.t.Helper()
	d, in := w.dry(p, seed)
	must(w.t, w.Dehydrate(w.t.Context(), p.User, in))
	return d
}

func TestDehydratedDevice(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.user("alice"), w.user("bob")
		w.join(1, alice.ID, bob.ID, far)
		server, err := w.db.Server(t.Context(), there)
		must(t, err)
		_, err = w.Dehydrated(t.Context(), alice.User)
		refused(t, err, "M_NOT_FOUND")
		_, err = w.DeleteDehydrated(t.Context(), alice.User)
		refused(t, err, "M_NOT_FOUND")

		start := w.pos()
		first := w.dehydrate(alice, "first")
		w.wantChanges(bob, start, []matrix.UserID{alice.ID}, nil)
		if told, _ := w.outgoing(server, start, 10); len(told) != 1 || told[0].DeviceID != first.DeviceID || told[0].Keys == nil {
			t.Errorf("another server is told %+v", told)
		}
		shown := w.query(bob, alice.ID).Devices[alice.ID][first.DeviceID]
		if flag, _ := matrix.Get(shown, "dehydrated"); string(flag) != "true" {
			t.Errorf("the keys are shown as %s", shown)
		}
		claim := func(want string) {
			t.Helper()
			got, err := w.ClaimLocal(t.Context(), keys.Wanted{alice.ID: {first.DeviceID: "signed_curve25519"}})
			must(t, err)
			if got[alice.ID][first.DeviceID][want] == nil {
				t.Errorf("claimed %v, want %s", got, want)
			}
		}
		claim("signed_curve25519:1")
		claim("signed_curve25519:F")
		for n := range 3 {
			must(t, w.SendToDevice(t.Context(), bob.ID, txn(bob, byte(n)), "m.test", keys.Messages{alice.ID: {first.DeviceID: json.RawMessage(`{}`)}}))
		}
		// The same again, because the answer was lost: nothing is lost, and the claimed key does not come back.
		_, same := w.dry(alice, "first")
		same.Data = json.RawMessage(`{"algorithm":"x","n":2}`)
		must(t, w.Dehydrate(t.Context(), alice.User, same))
		claim("signed_curve25519:F")
		info, err := w.Dehydrated(t.Context(), alice.User)
		must(t, err)
		if info.DeviceID != first.DeviceID || string(info.Data) != string(same.Data) {
			t.Errorf("the dehydrated device is %+v", info)
		}
		events, more, err := w.DehydratedEvents(t.Context(), alice.User, first.DeviceID, "")
		if err != nil || len(events.Events) != 3 || more {
			t.Errorf("%v has messages %v (%v)", first.DeviceID, events, err)
		}
		// Other keys under the same ID are somebody else's.
		_, other := w.dry(alice, "second")
		other.DeviceID = first.DeviceID
		refused(t, w.Dehydrate(t.Context(), alice.User, other), "M_INVALID_PARAM")

		start = w.pos()
		second := w.dehydrate(alice, "second")
		list := w.query(bob, alice.ID).Devices[alice.ID]
		if len(list) != 1 || list[second.DeviceID] == nil {
			t.Errorf("after it was replaced the devices are %v", list)
		}
		told, _ := w.outgoing(server, start, 10)
		if len(told) != 2 || !told[0].Deleted || told[0].DeviceID != first.DeviceID || told[1].DeviceID != second.DeviceID {
			t.Errorf("another server is told %+v", told)
		}
		_, _, err = w.DehydratedEvents(t.Context(), alice.User, first.DeviceID, "")
		refused(t, err, "M_FORBIDDEN")
		w.nothingOf(first.DeviceID)

		if id, err := w.DeleteDehydrated(t.Context(), alice.User); err != nil || id != second.DeviceID {
			t.Errorf("deleted %v (%v)", id, err)
		}
		w.nothingOf(second.DeviceID)
		third := w.dehydrate(alice, "third") // goes like any other device
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.DeleteDevices(alice.User.NID, []matrix.DeviceID{third.DeviceID}) }))
		_, err = w.Dehydrated(t.Context(), alice.User)
		refused(t, err, "M_NOT_FOUND")
		w.nothingOf(third.DeviceID)
	})
}

// nothingOf checks that no row belongs to a device that is not there.
func (w *world) nothingOf(id matrix.DeviceID) {
	w.t.Helper()
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		for _, table := range []string{"device_keys", "one_time_keys", "fallback_keys", "claimed_keys", "to_device", "dehydrated_devices"} {
			var n int
			if _, err := tx.QueryRow(`SELECT count(*) FROM ` + table + ` t WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.nid = t.device)`).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				w.t.Errorf("%d rows of %s outlived %s", n, table, id)
			}
		}
		return nil
	}))
}

// TestDehydratedMessagesStay reads them page by page, again and again, as more come in.
func TestDehydratedMessagesStay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.user("alice"), w.user("bob")
		dry := w.dehydrate(alice, "dry")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			device, err := tx.Device(alice.User.NID, dry.DeviceID)
			if err != nil {
				return err
			}
			for i := range 230 {
				pos, err := tx.NextPos(1)
				if err != nil {
					return err
				}
				if err := tx.AddDeviceMessages(pos, []store.DeviceMessage{{Device: device.NID, Event: fmt.Sprintf(`{"content":{"n":%d}}`, i)}}); err != nil {
					return err
				}
			}
			return nil
		}))
		for round := range 2 {
			from, n := "", 0
			for {
				events, more, err := w.DehydratedEvents(t.Context(), alice.User, dry.DeviceID, from)
				must(t, err)
				for _, e := range events.Events {
					if string(e) != fmt.Sprintf(`{"content":{"n":%d}}`, n) && n < 230 {
						t.Errorf("message %d is %s", n, e)
					}
					n++
				}
				if events.Next == "" || len(events.Events) > 100 || more != (len(events.Events) == 100) {
					t.Errorf("a page has %d messages, more: %v, next %q", len(events.Events), more, events.Next)
				}
				if from = events.Next; len(events.Events) == 0 {
					break
				}
			}
			if n != 230+round {
				t.Errorf("round %d brought %d messages", round, n)
			}
			must(t, w.SendToDevice(t.Context(), bob.ID, txn(bob, byte(round)), "m.test", keys.Messages{alice.ID: {dry.DeviceID: json.RawMessage(`{}`)}}))
			if events, _, err := w.DehydratedEvents(t.Context(), alice.User, dry.DeviceID, from); err != nil || len(events.Events) != 1 {
				t.Errorf("what came after the end is %v (%v)", events, err)
			}
		}
		for _, bad := range []string{"x", "-1", "0", "\x00"} {
			_, _, err := w.DehydratedEvents(t.Context(), alice.User, dry.DeviceID, bad)
			refused(t, err, "M_INVALID_PARAM")
		}
		_, _, err := w.DehydratedEvents(t.Context(), alice.User, alice.DeviceID, "")
		refused(t, err, "M_FORBIDDEN")
		_, _, err = w.DehydratedEvents(t.Context(), bob.User, dry.DeviceID, "")
		refused(t, err, "M_FORBIDDEN")
	})
}

func TestDehydrateGarbage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.publish(alice, 0)
		must(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false))
		for what, c := range map[string]struct {
			code   string
			change func(*keys.Dehydration)
		}{
			"no ID":          {"M_MISSING_PARAM", func(d *keys.Dehydration) { d.DeviceID = "" }},
			"no data":        {"M_MISSING_PARAM", func(d *keys.Dehydration) { d.Data = nil }},
			"no keys":        {"M_MISSING_PARAM", func(d *keys.Dehydration) { d.DeviceKeys = nil }},
			"no algorithm":   {"M_BAD_JSON", func(d *keys.Dehydration) { d.Data = json.RawMessage(`{}`) }},
			"data in a list": {"M_BAD_JSON", func(d *keys.Dehydration) { d.Data = json.RawMessage(`["algorithm"]`) }},
			"much data": {"M_TOO_LARGE", func(d *keys.Dehydration) {
				d.Data = json.RawMessage(`{"algorithm":"` + strings.Repeat("x", 70<<10) + `"}`)
			}},
			"a long name":  {"M_INVALID_PARAM", func(d *keys.Dehydration) { d.Name = strings.Repeat("x", 300) }},
			"a NUL":        {"M_INVALID_PARAM", func(d *keys.Dehydration) { d.Name = "a\x00" }},
			"another ID":   {"M_INVALID_PARAM", func(d *keys.Dehydration) { d.DeviceID = "OTHER" }},
			"a forged key": {"M_INVALID_SIGNATURE", func(d *keys.Dehydration) { d.OneTimeKeys["signed_curve25519:1"] = alice.signedKey(t, "x") }},
			"a device in use": {"M_INVALID_PARAM", func(d *keys.Dehydration) {
				d.DeviceID, d.DeviceKeys, d.OneTimeKeys, d.FallbackKeys = alice.DeviceID, alice.deviceKeys(t), nil, nil
			}},
			"a cross-signing key": {"M_INVALID_PARAM", func(d *keys.Dehydration) {
				id := public(alice.master)
				d.DeviceID, d.OneTimeKeys, d.FallbackKeys = matrix.DeviceID(id), nil, nil
				d.DeviceKeys = deviceKeys(t, alice.ID, matrix.DeviceID(id), secretKey("dry"))
			}},
		} {
			t.Run(what, func(t *testing.T) {
				_, in := w.dry(alice, "dry")
				c.change(&in)
				refused(t, w.Dehydrate(t.Context(), alice.User, in), c.code)
			})
		}
		var devices []matrix.DeviceID
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Devices(alice.User.NID, func(d store.Device) { devices = append(devices, d.ID) })
		}))
		if !slices.Equal(devices, []matrix.DeviceID{alice.DeviceID}) {
			t.Errorf("the devices are %v", devices)
		}
	})
}
