package keys

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Signatures is the body of POST /keys/signatures/upload: signed objects by user and key ID (a device's ID, or the public
// key of a master key).
type Signatures map[matrix.UserID]map[string]json.RawMessage

// SignatureFailures says why objects were not taken.
type SignatureFailures map[matrix.UserID]map[string]*matrix.Error

// maxSigned is how many objects one request signs.
const maxSigned = 500

// UploadSignatures stores signatures that a user made: on its own devices and master key, for all to see, and on others'
// master keys, for itself. Each object is taken or refused by itself.
func (k *Keys) UploadSignatures(ctx context.Context, u User, in Signatures) (SignatureFailures, error) {
	n := 0
	others := Asked{}
	for user, objects := range in {
		if n += len(objects); n > maxSigned {
			return nil, matrix.TooLarge("A request signs at most %d objects.", maxSigned)
		}
		if user != u.ID && !k.o.IsOurs(user.Server()) {
			others[user] = nil
		}
	}
	elsewhere, err := k.masterKeys(ctx, u, others)
	if err != nil {
		return nil, err
	}
	var failures SignatureFailures
	err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
		failures = SignatureFailures{}
		if err := tx.StillOpen(u.NID); err != nil {
			return err
		}
		s := &signing{k: k, tx: tx, u: u, elsewhere: elsewhere}
		if s.keys, err = ownKeys(tx, u); err != nil {
			return err
		}
		if err := s.readCross(); err != nil {
			return err
		}
		for user, objects := range in {
			for id, object := range objects {
				err := s.object(user, id, object)
				var refusal *matrix.Error
				switch {
				case errors.As(err, &refusal):
					failures.add(user, id, refusal)
				case err != nil:
					return err
				}
			}
		}
		return s.store()
	})
	return failures, err
}

func (f SignatureFailures) add(user matrix.UserID, id string, e *matrix.Error) {
	if f[user] == nil {
		f[user] = map[string]*matrix.Error{}
	}
	f[user][id] = e
}

// masterKeys finds the master keys of other servers' users, which may have to be asked for.
func (k *Keys) masterKeys(ctx context.Context, u User, others Asked) (map[matrix.UserID]json.RawMessage, error) {
	if len(others) == 0 {
		return nil, nil
	}
	found := newFound()
	if err := k.queryOthers(ctx, u, others, 0, found); err != nil {
		return nil, err
	}
	for user := range found.Master { // signatures refer to users by number
		if _, err := k.o.DB.User(ctx, user); err != nil {
			return nil, err
		}
	}
	return found.Master, nil
}

// signing is one upload of signatures.
type signing struct {
	k         *Keys
	tx        *store.Tx
	u         User
	keys      map[string]string // what the user can sign with, by key ID
	own       map[store.KeyUsage]store.CrossSigningKey
	elsewhere map[matrix.UserID]json.RawMessage
	list      []store.KeySignature
	entries   []store.DeviceListEntry // changes of the user's own list
}

func (s *signing) readCross() error {
	s.own = map[store.KeyUsage]store.CrossSigningKey{}
	return s.tx.CrossSigningKeys([]store.UserNID{s.u.NID}, func(c store.CrossSigningKey) { s.own[c.Usage] = c })
}

// object checks a signed object, and notes its signatures.
func (s *signing) object(user matrix.UserID, id string, raw json.RawMessage) error {
	if len(raw) > maxKeyObject || len(id) > maxName {
		return matrix.TooLarge("A key object has at most %d bytes.", maxKeyObject)
	}
	object, err := matrix.StrictCanonicalJSON(raw)
	if err != nil || object[0] != '{' {
		return matrix.BadJSON("This is no object that could be signed.").With(err)
	}
	if user == s.u.ID {
		if id == s.own[store.MasterKey].Public && id != "" {
			return s.ownMaster(object)
		}
		return s.ownDevice(matrix.DeviceID(id), object)
	}
	return s.othersMaster(user, id, object)
}

// ownDevice takes signatures of the self-signing key (or the master key) on one of the user's own devices.
func (s *signing) ownDevice(id matrix.DeviceID, object []byte) error {
	device, err := s.tx.Device(s.u.NID, id)
	if err != nil {
		return err
	}
	var keys []byte
	if device != nil {
		if keys, err = s.tx.KeysOfDevice(device.NID); err != nil {
			return err
		}
	}
	if keys == nil {
		return matrix.NotFound("You have no device or key %.255q.", id)
	}
	changed, err := s.take(s.u.NID, string(id), object, keys, func(keyID string) bool {
		return keyID == ed25519Prefix+string(id) || keyID == ed25519Prefix+s.own[store.SelfSigningKey].Public ||
			keyID == ed25519Prefix+s.own[store.MasterKey].Public
	})
	if changed {
		s.entries = append(s.entries, store.DeviceListEntry{What: store.ListDevice, Device: id})
	}
	return err
}

// ownMaster takes signatures of the user's devices on its master key.
func (s *signing) ownMaster(object []byte) error {
	master := s.own[store.MasterKey]
	changed, err := s.take(s.u.NID, master.Public, object, master.JSON, func(keyID string) bool {
		return keyID != ed25519Prefix+s.own[store.SelfSigningKey].Public && keyID != ed25519Prefix+s.own[store.UserSigningKey].Public
	})
	if changed {
		s.entries = append(s.entries, store.DeviceListEntry{What: store.ListCrossKeys})
	}
	return err
}

// othersMaster takes a signature of the user-signing key on somebody else's master key.
func (s *signing) othersMaster(user matrix.UserID, id string, object []byte) error {
	var nid store.UserNID
	if err := s.tx.KnownUsers([]matrix.UserID{user}, func(n store.UserNID, _ matrix.UserID, _ bool) { nid = n }); err != nil {
		return err
	}
	master := []byte(s.elsewhere[user])
	if nid != 0 && s.k.o.IsOurs(user.Server()) {
		err := s.tx.CrossSigningKeys([]store.UserNID{nid}, func(c store.CrossSigningKey) {
			if c.Usage == store.MasterKey {
				master = c.JSON
			}
		})
		if err != nil {
			return err
		}
	}
	if _, right := matrix.GetString(master, "keys", ed25519Prefix+id); nid == 0 || !right {
		return matrix.NotFound("%.255q is not the master key of %.255q.", id, user)
	}
	_, err := s.take(nid, id, object, master, func(keyID string) bool { return keyID == ed25519Prefix+s.own[store.UserSigningKey].Public })
	return err
}

// take checks that an object is the one there is, and notes those of its signatures by the user that are new. All of
// them must be by keys that may sign it, and valid.
func (s *signing) take(target store.UserNID, id string, object, stored []byte, may func(keyID string) bool) (changed bool, err error) {
	if !sameObject(object, stored) {
		return false, matrix.InvalidParam("The object is not the one that was uploaded.")
	}
	var signatures map[matrix.UserID]map[string]string
	if raw, ok := matrix.Get(object, "signatures"); ok {
		if err := matrix.Decode(raw, &signatures); err != nil {
			return false, err
		}
	}
	mine := signatures[s.u.ID]
	if len(mine) == 0 || len(mine) > maxKeysIn {
		return false, badSignature("The object has no signature of yours, or too many.")
	}
	var list []store.KeySignature
	for keyID, value := range mine {
		public, known := s.keys[keyID]
		if !known || !strings.HasPrefix(keyID, ed25519Prefix) || !may(keyID) {
			return false, badSignature("%.255q is not a key of yours that signs this.", keyID)
		}
		if err := verify(object, s.u.ID, keyID, public); err != nil {
			return false, err
		}
		if had, _ := matrix.GetString(stored, "signatures", string(s.u.ID), keyID); had != value {
			list = append(list, store.KeySignature{User: target, Target: id, Signer: s.u.NID, KeyID: keyID, Value: value})
		}
	}
	s.list = append(s.list, list...)
	return len(list) > 0, nil
}

// store writes what was taken: signatures on the user's own keys are a change of its device list, others concern the
// user alone.
func (s *signing) store() error {
	if len(s.list) == 0 {
		return nil
	}
	s.tx.AfterCommit(s.k.wake)
	pos, err := s.tx.AddChange(store.ChangeKeys, 0, s.u.NID)
	if err != nil {
		return err
	}
	for _, signature := range s.list {
		if _, err := s.tx.PutKeySignature(signature, pos); err != nil {
			return err
		}
	}
	return s.tx.DeviceListChanges(s.u.NID, s.entries)
}
