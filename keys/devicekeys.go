package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Upload is the body of POST /keys/upload.
type Upload struct {
	DeviceKeys   json.RawMessage            `json:"device_keys"`
	OneTimeKeys  map[string]json.RawMessage `json:"one_time_keys"`
	FallbackKeys map[string]json.RawMessage `json:"fallback_keys"`
}

const (
	maxOneTimeKeys  = 500 // of a device, unclaimed
	maxFallbackKeys = 16  // of a device: one per algorithm
	// rememberClaimed is how long a client may repeat an upload without bringing claimed keys back, and keepClaimed how many
	// keys of a device are remembered for that: one that makes keys to claim them itself must not fill the disk.
	rememberClaimed = 90 * 24 * time.Hour
	keepClaimed     = 10_000
)

// upload is an Upload that was read and checked as far as it can be without the database.
type upload struct {
	device   *keyObject
	oneTime  []store.NamedKey
	fallback []store.NamedKey
}

// UploadKeys stores keys of a device and returns how many one-time keys it has now, by algorithm.
func (k *Keys) UploadKeys(ctx context.Context, d Device, in Upload) (counts map[string]int, err error) {
	up, err := k.checkUpload(d, in)
	if err != nil {
		return nil, err
	}
	err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
		found, err := tx.LockDevice(d.User.NID, d.NID)
		if err != nil {
			return err
		}
		if !found {
			return matrix.UnknownToken(false)
		}
		if err := k.store(tx, d, up); err != nil {
			return err
		}
		counts, err = tx.OneTimeKeyCounts(d.NID)
		return err
	})
	return counts, err
}

func (k *Keys) checkUpload(d Device, in Upload) (up upload, err error) {
	if in.DeviceKeys != nil {
		if up.device, err = parseDeviceKeys(in.DeviceKeys, d.User.ID, d.DeviceID); err != nil {
			return up, err
		}
	}
	if len(in.OneTimeKeys) > maxOneTimeKeys || len(in.FallbackKeys) > maxFallbackKeys {
		return up, matrix.TooLarge("A device has at most %d one-time keys, and %d fallback keys.", maxOneTimeKeys, maxFallbackKeys)
	}
	if up.oneTime, err = parseNamedKeys(in.OneTimeKeys); err != nil {
		return up, err
	}
	if up.fallback, err = parseNamedKeys(in.FallbackKeys); err != nil {
		return up, err
	}
	seen := map[string]bool{}
	for _, key := range up.fallback {
		if seen[key.Algorithm] {
			return up, matrix.InvalidParam("There can be one fallback key of an algorithm, and there are several of %s.", key.Algorithm)
		}
		seen[key.Algorithm] = true
	}
	return up, nil
}

// store writes an upload. What changes others' view of the device is a change of the list; what concerns its one-time
// keys, of the user alone.
func (k *Keys) store(tx *store.Tx, d Device, up upload) error {
	device, changed, err := k.storeDevice(tx, d, up.device)
	if err != nil {
		return err
	}
	for _, list := range [][]store.NamedKey{up.oneTime, up.fallback} {
		for _, key := range list {
			if err := checkOwnSignature(key, d.User.ID, device); err != nil {
				return err
			}
		}
	}
	fresh, err := k.freshKeys(tx, d, up.oneTime)
	if err != nil {
		return err
	}
	if err := storeFallback(tx, d.NID, up.fallback); err != nil {
		return err
	}
	if changed || len(fresh)+len(up.fallback) > 0 {
		tx.AfterCommit(k.wake)
	}
	if changed {
		if err := tx.DeviceListChanges(d.User.NID, []store.DeviceListEntry{{What: store.ListDevice, Device: d.DeviceID}}); err != nil {
			return err
		}
	}
	if len(fresh)+len(up.fallback) == 0 {
		return nil
	}
	pos, err := tx.AddChange(store.ChangeKeys, 0, d.User.NID)
	if err != nil {
		return err
	}
	return tx.AddOneTimeKeys(d.NID, pos, fresh)
}

// storeFallback stores fallback keys. That a device has not more than it may counts what it had before, too.
func storeFallback(tx *store.Tx, device int64, keys []store.NamedKey) error {
	if len(keys) == 0 {
		return nil
	}
	algorithms := map[string]bool{}
	if err := tx.FallbackAlgorithms(device, func(algorithm string) { algorithms[algorithm] = true }); err != nil {
		return err
	}
	for _, key := range keys {
		if algorithms[key.Algorithm] = true; len(algorithms) > maxFallbackKeys {
			return matrix.TooLarge("A device has fallback keys of at most %d algorithms.", maxFallbackKeys)
		}
		if err := tx.PutFallbackKey(device, key); err != nil {
			return err
		}
	}
	return nil
}

// storeDevice stores the device's keys, if there are any, and returns those that hold, nil for none. The keys under one
// device ID never change: who pinned them would be told lies.
func (k *Keys) storeDevice(tx *store.Tx, d Device, up *keyObject) (device *keyObject, changed bool, err error) {
	had, err := tx.KeysOfDevice(d.NID)
	if err != nil {
		return nil, false, err
	}
	if had != nil {
		if device, err = parseDeviceKeys(had, d.User.ID, d.DeviceID); err != nil {
			return nil, false, err
		}
	}
	if up == nil {
		return device, false, nil
	}
	if device != nil && !maps.Equal(device.Keys, up.Keys) {
		return nil, false, matrix.InvalidParam("This device has other keys already. New keys need a new device.")
	}
	if device != nil && sameObject(device.json, up.json) {
		return device, false, nil
	}
	taken, err := tx.IsCrossSigningKey(d.User.NID, string(d.DeviceID))
	if err != nil {
		return nil, false, err
	}
	if taken {
		return nil, false, matrix.InvalidParam("A device cannot be called like a public key.")
	}
	return up, true, tx.PutDeviceKeys(d.NID, d.User.NID, up.json)
}

// freshKeys are those of the uploaded one-time keys that the device does not have, and never had. A key ID stands for
// one key.
func (k *Keys) freshKeys(tx *store.Tx, d Device, keys []store.NamedKey) ([]store.NamedKey, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if err := tx.ForgetClaimedKeys(d.NID, k.now()-rememberClaimed.Milliseconds(), keepClaimed); err != nil {
		return nil, err
	}
	type name struct{ algorithm, id string }
	had := map[name][]byte{}
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = key.ID
	}
	if err := tx.OneTimeKeys(d.NID, ids, func(key store.NamedKey) { had[name{key.Algorithm, key.ID}] = key.JSON }); err != nil {
		return nil, err
	}
	counts, err := tx.OneTimeKeyCounts(d.NID)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	var fresh []store.NamedKey
	for _, key := range keys {
		old, known := had[name{key.Algorithm, key.ID}]
		if known && old != nil && !bytes.Equal(old, key.JSON) {
			return nil, matrix.InvalidParam("There is another one-time key %s:%s already.", key.Algorithm, key.ID)
		}
		if !known {
			fresh = append(fresh, key)
		}
	}
	if total+len(fresh) > maxOneTimeKeys {
		return nil, matrix.TooLarge("A device has at most %d one-time keys.", maxOneTimeKeys)
	}
	return fresh, nil
}

// KeyCounts counts a device's unclaimed one-time keys by algorithm, and names its unused fallback keys' algorithms.
func (k *Keys) KeyCounts(ctx context.Context, device int64) (oneTime map[string]int, fallback []string, err error) {
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		if oneTime, err = tx.OneTimeKeyCounts(device); err != nil {
			return err
		}
		fallback, err = tx.UnusedFallbackKeys(device)
		return err
	})
	return oneTime, fallback, err
}
