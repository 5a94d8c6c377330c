package sealed

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"conclave/internal/matrix"
)

// An Identity holds the private cross-signing keys of a user, exactly as the Matrix specification has them: the master
// key signs the two others, the self-signing key the user's devices, the user-signing key other people's master keys.
type Identity struct {
	User                             matrix.UserID
	master, selfSigning, userSigning ed25519.PrivateKey
}

// NewIdentity makes fresh cross-signing keys.
func NewIdentity(user matrix.UserID) (*Identity, error) {
	i := &Identity{User: user}
	for _, key := range []*ed25519.PrivateKey{&i.master, &i.selfSigning, &i.userSigning} {
		_, fresh, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a cross-signing key: %w", err)
		}
		*key = fresh
	}
	return i, nil
}

// Master is the public master key in base64: what others pin.
func (i *Identity) Master() string { return encodePublic(i.master) }

// Published is an identity's public keys as /keys/device_signing/upload takes them and /keys/query gives them out.
type Published struct {
	Master      []byte
	SelfSigning []byte
	UserSigning []byte // nil if unknown: servers give it to its owner only
}

// Publish writes the public keys, the two lower ones signed by the master key, and that by a device of its owner, so
// that the identity and the device vouch for each other.
func (i *Identity) Publish(device *Device) (Published, error) {
	var p Published
	var err error
	if p.Master, err = i.crossSigningKey("master", i.master); err != nil {
		return p, err
	}
	if device != nil {
		p.Master, err = matrix.SignJSON(p.Master, string(i.User), matrix.KeyID(keySigning+device.ID), device.signing)
		if err != nil {
			return p, err
		}
	}
	if p.SelfSigning, err = i.crossSigningKey("self_signing", i.selfSigning); err != nil {
		return p, err
	}
	p.UserSigning, err = i.crossSigningKey("user_signing", i.userSigning)
	return p, err
}

func (i *Identity) crossSigningKey(usage string, key ed25519.PrivateKey) ([]byte, error) {
	public := encodePublic(key)
	text, err := encode(map[string]any{
		"user_id": i.User, "usage": []string{usage}, "keys": map[string]string{keySigning + public: public},
	})
	if err != nil || usage == "master" {
		return text, err
	}
	return matrix.SignJSON(text, string(i.User), matrix.KeyID(keySigning+i.Master()), i.master)
}

// SignDevice vouches for a device of the same user: it signs what [Device.PublicKeys] returned.
func (i *Identity) SignDevice(deviceKeys []byte) ([]byte, error) {
	return matrix.SignJSON(deviceKeys, string(i.User), matrix.KeyID(keySigning+encodePublic(i.selfSigning)), i.selfSigning)
}

func encodePublic(key ed25519.PrivateKey) string {
	return matrix.EncodeBase64(key.Public().(ed25519.PublicKey))
}

// CrossSigning is the verified public identity of a user.
type CrossSigning struct {
	User        matrix.UserID
	Master      ed25519.PublicKey
	SelfSigning ed25519.PublicKey
	UserSigning ed25519.PublicKey // nil if unknown
}

// MasterKey is the master key in base64, the form in which it is pinned and named in messages.
func (c *CrossSigning) MasterKey() string { return matrix.EncodeBase64(c.Master) }

// ParseCrossSigning reads an identity and checks it against the pin: the master key of this user in base64 as it was seen
// first. With an empty pin, which is right at first sight only, any master key passes, and the caller pins it before
// anything else. The self-signing and user-signing keys must bear the master key's signature.
func ParseCrossSigning(p Published, user matrix.UserID, pin string) (*CrossSigning, error) {
	if len(p.Master) == 0 || len(p.SelfSigning) == 0 {
		return nil, ErrNoIdentity
	}
	c := &CrossSigning{User: user}
	for _, part := range []struct {
		text  []byte
		usage string
		into  *ed25519.PublicKey
	}{{p.Master, "master", &c.Master}, {p.SelfSigning, "self_signing", &c.SelfSigning}, {p.UserSigning, "user_signing", &c.UserSigning}} {
		if len(part.text) == 0 {
			continue
		}
		key, err := parseCrossSigningKey(part.text, user, part.usage)
		if err != nil {
			return nil, fmt.Errorf("%s key: %w", part.usage, err)
		}
		*part.into = key
		switch {
		case part.usage == "master" && pin != "" && pin != c.MasterKey():
			return nil, ErrIdentityChanged
		case part.usage != "master":
			if _, err := verifyObject(part.text, user, keySigning+c.MasterKey(), c.Master); err != nil {
				return nil, fmt.Errorf("%s key: %w", part.usage, err)
			}
		}
	}
	return c, nil
}

// parseCrossSigningKey checks everything about a cross-signing key but its signature.
func parseCrossSigningKey(text []byte, user matrix.UserID, usage string) (ed25519.PublicKey, error) {
	f := readForm(text, maxEnvelope)
	owner, usages := f.name("user_id"), f.texts("usage")
	_, keys := f.object("keys")
	switch {
	case f.err != nil:
		return nil, f.err
	case len(usages) != 1 || usages[0] != usage || len(keys.members) != 1:
		return nil, ErrMalformed.because("not exactly one key for %q", usage)
	case owner != string(user):
		return nil, ErrWrongDevice.because("a cross-signing key of another user")
	}
	for id := range keys.members {
		text := keys.text(id)
		if keys.err != nil || id != keySigning+text {
			return nil, ErrMalformed.because("the key is not named by itself")
		}
		return publicKey(text)
	}
	return nil, ErrMalformed
}
