package keys_test

import (
	"encoding/json"
	"errors"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/keys"
)

func TestCrossSigningUpload(t *testing.T) {
	proof.Of(t, "E2-06", "E2-08")
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.user("alice"), w.user("bob")
		w.publish(alice, 0)
		up := alice.crossSigning(t)
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, keys.CrossSigning{SelfSigning: up.SelfSigning}, false), "M_MISSING_PARAM")
		bad := up
		bad.SelfSigning = crossKey(t, alice.ID, "self_signing", alice.self, secretKey("wrong"))
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, bad, false), "M_INVALID_SIGNATURE")
		bad.SelfSigning = crossKey(t, alice.ID, "user_signing", alice.self, alice.master)
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, bad, false), "M_INVALID_PARAM")
		bad.SelfSigning = crossKey(t, bob.ID, "self_signing", alice.self, alice.master)
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, bad, false), "M_INVALID_PARAM")

		start := w.pos()
		must(t, w.UploadCrossSigning(t.Context(), alice.User, up, false))
		must(t, w.UploadCrossSigning(t.Context(), alice.User, up, false)) // again, because the answer was lost
		w.wantChanges(alice, start, []matrix.UserID{alice.ID}, nil)
		found := w.query(alice, alice.ID)
		if found.Master[alice.ID] == nil || found.SelfSigning[alice.ID] == nil || found.UserSigning[alice.ID] == nil {
			t.Errorf("the owner sees %+v", found)
		}
		found = w.query(bob, alice.ID)
		if found.Master[alice.ID] == nil || found.SelfSigning[alice.ID] == nil || len(found.UserSigning) != 0 {
			t.Errorf("another user sees %+v", found)
		}

		// Whoever has a token must not replace them without more.
		alice.master = secretKey("a new one")
		next := alice.crossSigning(t)
		if err := w.UploadCrossSigning(t.Context(), alice.User, next, false); !errors.Is(err, keys.ErrConfirm) {
			t.Errorf("new keys without confirmation: %v", err)
		}
		if err := w.UploadCrossSigning(t.Context(), alice.User, keys.CrossSigning{UserSigning: up.UserSigning}, false); !errors.Is(err, keys.ErrConfirm) {
			t.Errorf("without the master key: %v", err)
		}
		must(t, w.UploadCrossSigning(t.Context(), alice.User, keys.CrossSigning{Master: next.Master}, true))
		if found := w.query(alice, alice.ID); len(found.SelfSigning)+len(found.UserSigning) != 0 {
			t.Error("keys that the new master key did not sign are still there")
		}
	})
}

func TestNoDeviceIsCalledLikeAKey(t *testing.T) {
	proof.Of(t, "AN-03")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		evil := w.device("alice", public(alice.master))
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false), "M_FORBIDDEN")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.DeleteDevices(alice.User.NID, []matrix.DeviceID{evil.DeviceID})
		}))
		must(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false))
		evil = w.device("alice", public(alice.master))
		_, err := w.UploadKeys(t.Context(), evil.Device, keys.Upload{DeviceKeys: evil.deviceKeys(t)})
		refused(t, err, "M_INVALID_PARAM")
	})
}

func TestSignatures(t *testing.T) {
	proof.Of(t, "E2-07")
	each(t, func(t *testing.T, w *world) {
		alice, bob, carol := w.user("alice"), w.user("bob"), w.user("carol")
		w.join(1, alice.ID, bob.ID, carol.ID)
		for _, p := range []*person{alice, bob} {
			w.publish(p, 0)
			must(t, w.UploadCrossSigning(t.Context(), p.User, p.crossSigning(t), false))
		}
		upload := func(in keys.Signatures) keys.SignatureFailures {
			t.Helper()
			failures, err := w.UploadSignatures(t.Context(), alice.User, in)
			must(t, err)
			return failures
		}
		device := sign(t, alice.deviceKeys(t), alice.ID, public(alice.self), alice.self)
		bobsMaster := sign(t, crossKey(t, bob.ID, "master", bob.master, nil), alice.ID, public(alice.userSigner), alice.userSigner)
		master := sign(t, crossKey(t, alice.ID, "master", alice.master, nil), alice.ID, string(alice.DeviceID), alice.secret)

		// Each bad object is refused by itself, and the good one beside it is taken.
		start := w.pos()
		forged := sign(t, crossKey(t, bob.ID, "master", bob.master, nil), alice.ID, public(alice.userSigner), secretKey("wrong"))
		bySelf := sign(t, crossKey(t, bob.ID, "master", bob.master, nil), alice.ID, public(alice.self), alice.self)
		failures := upload(keys.Signatures{
			alice.ID: {string(alice.DeviceID): device, "NOSUCH": device, public(alice.self): master},
			bob.ID:   {public(bob.master): forged, string(bob.DeviceID): sign(t, bob.deviceKeys(t), alice.ID, public(alice.self), alice.self)},
			carol.ID: {public(carol.master): bobsMaster},
		})
		codes := map[matrix.UserID]map[string]string{
			alice.ID: {"NOSUCH": "M_NOT_FOUND", public(alice.self): "M_NOT_FOUND"},
			bob.ID:   {public(bob.master): "M_INVALID_SIGNATURE", string(bob.DeviceID): "M_NOT_FOUND"},
			carol.ID: {public(carol.master): "M_NOT_FOUND"},
		}
		n := 0
		for user, list := range failures {
			for id, e := range list {
				n++
				if codes[user][id] != e.Code {
					t.Errorf("%s %s failed with %v", user, id, e)
				}
			}
		}
		if n != 5 {
			t.Errorf("%d failures, want 5: %v", n, failures)
		}
		if f := upload(keys.Signatures{bob.ID: {public(bob.master): bySelf}}); f[bob.ID][public(bob.master)] == nil {
			t.Error("the self-signing key signed another user's key")
		}
		other := map[string]any{}
		must(t, json.Unmarshal(device, &other))
		other["algorithms"] = []string{"weaker"}
		if f := upload(keys.Signatures{alice.ID: {string(alice.DeviceID): sign(t, other, alice.ID, public(alice.self), alice.self)}}); len(f) == 0 {
			t.Error("another object was signed in place of the device's keys")
		}
		w.wantChanges(carol, start, []matrix.UserID{alice.ID}, nil)
		has := func(object json.RawMessage, signer matrix.UserID, key string) bool {
			_, ok := matrix.GetString(object, "signatures", string(signer), "ed25519:"+key)
			return ok
		}
		if got := w.query(carol, alice.ID).Devices[alice.ID][alice.DeviceID]; !has(got, alice.ID, public(alice.self)) || !has(got, alice.ID, string(alice.DeviceID)) {
			t.Errorf("a signed device is shown as %s", got)
		}

		// A signature on another's key is for its maker alone.
		start = w.pos()
		if f := upload(keys.Signatures{bob.ID: {public(bob.master): bobsMaster}, alice.ID: {public(alice.master): master}}); len(f) != 0 {
			t.Errorf("good signatures failed: %v", f)
		}
		w.wantChanges(alice, start, []matrix.UserID{alice.ID, bob.ID}, nil)
		w.wantChanges(bob, start, []matrix.UserID{alice.ID}, nil)
		if got := w.query(alice, bob.ID).Master[bob.ID]; !has(got, alice.ID, public(alice.userSigner)) {
			t.Errorf("alice sees %s", got)
		}
		for _, p := range []*person{bob, carol} {
			if got := w.query(p, bob.ID).Master[bob.ID]; has(got, alice.ID, public(alice.userSigner)) {
				t.Errorf("%s sees whom alice verified: %s", p.ID, got)
			}
		}
		if got := w.query(bob, alice.ID).Master[alice.ID]; !has(got, alice.ID, string(alice.DeviceID)) {
			t.Errorf("bob sees %s", got)
		}
		abroad, err := w.QueryLocal(t.Context(), keys.Asked{bob.ID: nil})
		must(t, err)
		if has(abroad.Master[bob.ID], alice.ID, public(alice.userSigner)) {
			t.Error("another server sees whom alice verified")
		}
	})
}
