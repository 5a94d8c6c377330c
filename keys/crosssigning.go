package keys

import (
	"context"
	"encoding/json"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// ErrConfirm means that the user has to confirm who they are before its cross-signing keys are replaced.
var ErrConfirm = errors.New("keys: new cross-signing keys have to be confirmed")

// CrossSigning is the body of POST /keys/device_signing/upload.
type CrossSigning struct {
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	UserSigning json.RawMessage `json:"user_signing_key"`
}

// crossUsages are the usages in the order in which keys are looked at: the master key signs the others.
var crossUsages = []store.KeyUsage{store.MasterKey, store.SelfSigningKey, store.UserSigningKey}

// UploadCrossSigning stores a user's cross-signing keys. The first ones, and the same again, are stored at once; new
// ones in their place only if confirmed says that the user has confirmed it (ErrConfirm).
func (k *Keys) UploadCrossSigning(ctx context.Context, u User, in CrossSigning, confirmed bool) error {
	keys := map[store.KeyUsage]*keyObject{}
	for usage, raw := range map[store.KeyUsage]json.RawMessage{
		store.MasterKey: in.Master, store.SelfSigningKey: in.SelfSigning, store.UserSigningKey: in.UserSigning,
	} {
		if raw == nil {
			continue
		}
		key, err := parseCrossKey(raw, u.ID, usage)
		if err != nil {
			return err
		}
		keys[usage] = key
	}
	if len(keys) == 0 {
		return nil
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.StillOpen(u.NID); err != nil {
			return err
		}
		had := map[store.KeyUsage]store.CrossSigningKey{}
		if err := tx.CrossSigningKeys([]store.UserNID{u.NID}, func(c store.CrossSigningKey) { had[c.Usage] = c }); err != nil {
			return err
		}
		return k.storeCross(tx, u, keys, had, confirmed)
	})
}

func (k *Keys) storeCross(tx *store.Tx, u User, keys map[store.KeyUsage]*keyObject, had map[store.KeyUsage]store.CrossSigningKey, confirmed bool) error {
	fresh := false
	for usage, key := range keys {
		fresh = fresh || key.public != had[usage].Public
	}
	_, exists := had[store.MasterKey]
	switch {
	case !fresh && (!exists || keys[store.MasterKey] != nil):
		return nil
	case exists && !confirmed:
		return ErrConfirm
	}
	if err := checkMaster(keys, had); err != nil {
		return err
	}
	master := keys[store.MasterKey]
	if master != nil {
		if err := checkDeviceSignatures(tx, u, master); err != nil {
			return err
		}
	}
	if err := checkNames(tx, u, keys); err != nil {
		return err
	}
	what := store.ListOnlyHere
	for _, usage := range crossUsages {
		key := keys[usage]
		if key == nil && (master == nil || master.public == had[store.MasterKey].Public) {
			continue
		}
		if usage != store.UserSigningKey {
			what = store.ListCrossKeys
		}
		var err error
		if key == nil { // the new master key did not sign it
			err = tx.DeleteCrossSigningKey(u.NID, usage)
		} else {
			err = tx.PutCrossSigningKey(store.CrossSigningKey{User: u.NID, Usage: usage, Public: key.public, JSON: key.json})
		}
		if err != nil {
			return err
		}
	}
	tx.AfterCommit(k.wake)
	return tx.DeviceListChanges(u.NID, []store.DeviceListEntry{{What: what}})
}

// checkMaster checks that the master key, the new one or else the one there is, signed the other keys.
func checkMaster(keys map[store.KeyUsage]*keyObject, had map[store.KeyUsage]store.CrossSigningKey) error {
	public := had[store.MasterKey].Public
	if master := keys[store.MasterKey]; master != nil {
		public = master.public
	}
	if public == "" {
		return matrix.MissingParam("There is no master key to sign the other keys.")
	}
	for _, usage := range crossUsages[1:] {
		if key := keys[usage]; key != nil {
			if err := key.signedBy(public); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkDeviceSignatures checks the signatures that a master key comes with, and drops those that nobody can check.
func checkDeviceSignatures(tx *store.Tx, u User, master *keyObject) error {
	signers, err := ownKeys(tx, u)
	if err != nil {
		return err
	}
	signers[ed25519Prefix+master.public] = master.public
	kept := map[string]string{}
	for id, signature := range master.Signatures[u.ID] {
		public, known := signers[id]
		if !known {
			continue
		}
		if err := verify(master.json, u.ID, id, public); err != nil {
			return err
		}
		kept[id] = signature
	}
	var all map[matrix.UserID]map[string]string
	if len(kept) > 0 {
		all = map[matrix.UserID]map[string]string{u.ID: kept}
	}
	master.json, err = withSignatures(master.json, all, nil)
	return err
}

// verify checks a signature of a user's key.
func verify(object []byte, user matrix.UserID, id, public string) error {
	key, err := matrix.DecodeBase64(public)
	if err == nil {
		err = matrix.VerifyJSON(object, string(user), matrix.KeyID(id), key)
	}
	if err != nil {
		return badSignature("The signature by %.255q is not valid.", id).With(err)
	}
	return nil
}

// ownKeys are the Ed25519 keys that a user can sign with, by key ID: of its devices and for cross-signing.
func ownKeys(tx *store.Tx, u User) (map[string]string, error) {
	signers := map[string]string{}
	err := tx.DeviceKeys([]matrix.UserID{u.ID}, func(d store.DeviceKeys) {
		id := ed25519Prefix + string(d.Device)
		if public, ok := matrix.GetString(d.JSON, "keys", id); ok {
			signers[id] = public
		}
	})
	if err != nil {
		return nil, err
	}
	return signers, tx.CrossSigningKeys([]store.UserNID{u.NID}, func(c store.CrossSigningKey) { signers[ed25519Prefix+c.Public] = c.Public })
}

// checkNames refuses keys that are called like a device, or are one another: signatures name keys and devices alike.
func checkNames(tx *store.Tx, u User, keys map[store.KeyUsage]*keyObject) error {
	seen := map[string]bool{}
	for _, key := range keys {
		device, err := tx.Device(u.NID, matrix.DeviceID(key.public))
		if err != nil {
			return err
		}
		if device != nil || seen[key.public] {
			return matrix.Forbidden("A cross-signing key cannot be called like a device or like another key.")
		}
		seen[key.public] = true
	}
	return nil
}
