package sealed

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"conclave/internal/matrix"
)

// RSA moduli that a device may have, and the one that ours get.
const (
	minModulus     = 3072
	maxModulus     = 4096
	defaultModulus = 3072
	onlyExponent   = 65537
)

// The algorithms of keys, as their ids begin.
const (
	keySigning  = "ed25519:"
	keyExchange = "rsa-oaep-256:"
)

// A Device holds the private keys of a device: one signs, the other opens what is sealed to it.
type Device struct {
	User     matrix.UserID
	ID       string
	signing  ed25519.PrivateKey
	exchange *rsa.PrivateKey
}

// NewDevice makes a device with fresh keys.
func NewDevice(user matrix.UserID, id string) (*Device, error) {
	exchange, err := rsa.GenerateKey(rand.Reader, defaultModulus)
	if err != nil {
		return nil, fmt.Errorf("make the device's RSA key: %w", err)
	}
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the device's Ed25519 key: %w", err)
	}
	return DeviceFrom(user, id, signing, exchange)
}

// DeviceFrom makes a device of keys that exist. They are held to the same bounds as those of strangers.
func DeviceFrom(user matrix.UserID, id string, signing ed25519.PrivateKey, exchange *rsa.PrivateKey) (*Device, error) {
	if len(signing) != ed25519.PrivateKeySize {
		return nil, ErrWeakKey.because("not an Ed25519 key")
	}
	if err := checkModulus(&exchange.PublicKey); err != nil {
		return nil, err
	}
	if looksLikeKey(id) {
		return nil, ErrBadDeviceID
	}
	return &Device{User: user, ID: id, signing: signing, exchange: exchange}, nil
}

// Kid names the device's RSA key: the unpadded base64url of the SHA-256 of its SPKI.
func (d *Device) Kid() string {
	spki, _ := x509.MarshalPKIXPublicKey(&d.exchange.PublicKey) // cannot fail for an RSA key
	return kidOf(spki)
}

// SigningKey is the public half of the device's Ed25519 key, in base64.
func (d *Device) SigningKey() string {
	return matrix.EncodeBase64(d.signing.Public().(ed25519.PublicKey))
}

// PublicKeys is the device_keys object for /keys/upload, signed by the device itself: nobody else can claim its keys, and
// its owner's identity can vouch for it by signing what it returns.
func (d *Device) PublicKeys() ([]byte, error) { return d.publicKeys(nil) }

func (d *Device) publicKeys(more map[string]any) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(&d.exchange.PublicKey)
	if err != nil {
		return nil, err
	}
	object := map[string]any{
		"user_id": d.User, "device_id": d.ID, "algorithms": []string{AlgorithmSealed, AlgorithmGroup},
		"keys": map[string]string{
			keySigning + d.ID: d.SigningKey(), keyExchange + d.ID: matrix.EncodeBase64(spki),
		},
	}
	for name, value := range more {
		object[name] = value
	}
	text, err := encode(object)
	if err != nil {
		return nil, err
	}
	return matrix.SignJSON(text, string(d.User), matrix.KeyID(keySigning+d.ID), d.signing)
}

// DeviceKeys are the public keys of a device that qualified: its owner's pinned identity signed them.
type DeviceKeys struct {
	User       matrix.UserID
	Device     string
	Signing    ed25519.PublicKey
	Exchange   *rsa.PublicKey
	Kid        string
	Dehydrated bool // receives only: what it signs is refused
	spki       []byte
}

// SigningKey is the device's Ed25519 key in base64.
func (k *DeviceKeys) SigningKey() string { return matrix.EncodeBase64(k.Signing) }

// Same reports whether both are the same keys of the same device.
func (k *DeviceKeys) Same(other *DeviceKeys) bool {
	return k.User == other.User && k.Device == other.Device && k.Signing.Equal(other.Signing) && k.Exchange.Equal(other.Exchange)
}

// Qualify reads the device keys that a server gave out for a device, and accepts them only if the device signed them
// itself and its owner's cross-signing identity, which the caller pinned, vouches for them. A key must go to no other
// device, and nothing that another device signed is from that user: a server that adds a device gains nothing.
func Qualify(text []byte, user matrix.UserID, device string, identity *CrossSigning) (*DeviceKeys, error) {
	if identity == nil {
		return nil, ErrNoIdentity
	}
	keys, err := parseDeviceKeys(text, user, device)
	if err != nil {
		return nil, err
	}
	if found, err := verifyObject(text, user, keySigning+device, keys.Signing); err != nil {
		if !found {
			return nil, ErrForgedSignature.because("the device did not sign its keys")
		}
		return nil, err
	}
	signer := matrix.EncodeBase64(identity.SelfSigning)
	if found, err := verifyObject(text, user, keySigning+signer, identity.SelfSigning); err != nil {
		if !found {
			return nil, ErrUnsignedDevice
		}
		return nil, err
	}
	return keys, nil
}

// parseDeviceKeys checks everything about device keys but their signatures.
func parseDeviceKeys(text []byte, user matrix.UserID, device string) (*DeviceKeys, error) {
	f := readForm(text, maxEnvelope)
	owner, id, algorithms := f.name("user_id"), f.name("device_id"), f.texts("algorithms")
	_, keys := f.object("keys")
	f.object("signatures")
	k := &DeviceKeys{User: user, Device: device}
	if raw, ok := f.members["dehydrated"]; ok {
		k.Dehydrated = string(raw) == "true"
		if !k.Dehydrated && string(raw) != "false" {
			f.fail(ErrMalformed, `"dehydrated" is neither true nor false`)
		}
	}
	switch {
	case f.err != nil:
		return nil, f.err
	case owner != string(user) || id != device:
		return nil, ErrWrongDevice
	case looksLikeKey(device):
		return nil, ErrBadDeviceID
	case !slices.Contains(algorithms, AlgorithmSealed) || !slices.Contains(algorithms, AlgorithmGroup):
		return nil, ErrUnknownAlgorithm.because("the device does not read sealed rooms")
	}
	signing, exchange := keys.text(keySigning+device), keys.bytes(keyExchange+device, -1)
	if keys.err != nil {
		return nil, keys.err
	}
	var err error
	if k.Signing, err = publicKey(signing); err != nil {
		return nil, err
	}
	k.Exchange, err = parseSPKI(exchange)
	k.spki, k.Kid = exchange, kidOf(exchange)
	return k, err
}

// parseSPKI reads an RSA key in the one way to write it, and within the bounds.
func parseSPKI(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, ErrWeakKey.because("not an RSA key")
	}
	again, err := x509.MarshalPKIXPublicKey(key)
	if err != nil || !slices.Equal(again, der) {
		return nil, ErrWeakKey.because("the RSA key is not written canonically")
	}
	return key, checkModulus(key)
}

func checkModulus(key *rsa.PublicKey) error {
	if n := key.N.BitLen(); n < minModulus || n > maxModulus || key.N.Bit(0) == 0 {
		return ErrWeakKey.because("an RSA modulus of %d bits", n)
	}
	if key.E != onlyExponent {
		return ErrWeakKey.because("an RSA exponent of %d", key.E)
	}
	return nil
}

func kidOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return matrix.EncodeURLBase64(sum[:])
}

// looksLikeKey reports whether a device id could be taken for a public key. Signatures name keys by "ed25519:" and an id,
// where that of a cross-signing key is the key itself.
func looksLikeKey(device string) bool {
	b, err := decode64(device)
	return err == nil && len(b) == ed25519.PublicKeySize
}
