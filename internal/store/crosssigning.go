package store

import "conclave/internal/matrix"

// KeyUsage is what a cross-signing key is for.
type KeyUsage int16

// The usages.
const (
	MasterKey KeyUsage = iota + 1
	SelfSigningKey
	UserSigningKey
)

// CrossSigningKey is a cross-signing key of a user.
type CrossSigningKey struct {
	User   UserNID
	Usage  KeyUsage
	Public string // unpadded base64
	JSON   []byte
}

// CrossSigningKeys reads the cross-signing keys of users.
func (tx *Tx) CrossSigningKeys(users []UserNID, each func(CrossSigningKey)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT member, usage, public, json FROM cross_signing_keys WHERE member IN ({ids $1})`, func(r *Row) error {
			each(CrossSigningKey{UserNID(r.Int64(0)), KeyUsage(r.Int64(1)), r.Text(2), []byte(r.Text(3))})
			return nil
		}, int64s(part))
	})
}

// PutCrossSigningKey stores a key in place of an earlier one of its usage. Signatures by and on the earlier one go with
// it.
func (tx *Tx) PutCrossSigningKey(k CrossSigningKey) error {
	if err := tx.dropSignatures(k.User, k.Usage, k.Public); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO cross_signing_keys (member, usage, public, json) VALUES ($1, $2, $3, $4)
		ON CONFLICT (member, usage) DO UPDATE SET public = excluded.public, json = excluded.json`, k.User, k.Usage, k.Public, string(k.JSON))
	return err
}

// DeleteCrossSigningKey removes a key with the signatures by and on it.
func (tx *Tx) DeleteCrossSigningKey(user UserNID, usage KeyUsage) error {
	if err := tx.dropSignatures(user, usage, ""); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM cross_signing_keys WHERE member = $1 AND usage = $2`, user, usage)
	return err
}

// dropSignatures removes what a key signed and what signed it, unless it is the one that stays.
func (tx *Tx) dropSignatures(user UserNID, usage KeyUsage, stays string) error {
	var old string
	if _, err := tx.QueryRow(`SELECT public FROM cross_signing_keys WHERE member = $1 AND usage = $2`, user, usage).Scan(&old); err != nil {
		return err
	}
	if old == "" || old == stays {
		return nil
	}
	if _, err := tx.Exec(`DELETE FROM key_signatures WHERE member = $1 AND target = $2`, user, old); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM key_signatures WHERE signer = $1 AND key_id = $2`, user, "ed25519:"+old)
	return err
}

// KeySignature is a signature of a user on somebody's device or master key.
type KeySignature struct {
	User     UserNID       // whose key is signed
	Target   string        // device ID or public key
	Signer   UserNID       // who signed it
	SignerID matrix.UserID // filled in when read
	KeyID    string        // the signer's
	Value    string
}

// KeySignatures reads the signatures on users' keys that a viewer may see: those of the users themselves and its own.
// Viewer 0 is anybody.
func (tx *Tx) KeySignatures(users []UserNID, viewer UserNID, each func(KeySignature)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT s.member, s.target, s.signer, u.user_id, s.key_id, s.signature FROM key_signatures s JOIN users u ON u.nid = s.signer
			WHERE s.member IN ({ids $1}) AND (s.signer = s.member OR s.signer = $2)`, func(r *Row) error {
			each(KeySignature{UserNID(r.Int64(0)), r.Text(1), UserNID(r.Int64(2)), matrix.UserID(r.Text(3)), r.Text(4), r.Text(5)})
			return nil
		}, int64s(part), viewer)
	})
}

// PutKeySignature stores a signature; it reports whether it is new.
func (tx *Tx) PutKeySignature(s KeySignature, pos Pos) (bool, error) {
	n, err := tx.Exec(`INSERT INTO key_signatures (member, target, signer, key_id, signature, pos) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (member, target, signer, key_id) DO UPDATE SET signature = excluded.signature, pos = excluded.pos
		WHERE key_signatures.signature <> excluded.signature`, s.User, s.Target, s.Signer, s.KeyID, s.Value, pos)
	return n > 0, err
}

// IsCrossSigningKey says whether a text is the public key of one of a user's cross-signing keys: no device may be called
// so, since signatures name devices and keys alike.
func (tx *Tx) IsCrossSigningKey(user UserNID, public string) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM cross_signing_keys WHERE member = $1 AND public = $2)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, user, public)
	return yes, err
}
