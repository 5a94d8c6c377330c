package matrix

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// EncodeBase64 writes unpadded base64 (appendices, "Unpadded Base64").
func EncodeBase64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// DecodeBase64 reads base64 with or without padding, which the spec asks decoders to allow. Left-over bits may be set:
// the signing key of the spec's own test vectors has some.
func DecodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// EncodeURLBase64 writes unpadded base64 in the URL-safe alphabet.
func EncodeURLBase64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// DecodeURLBase64 reads the URL-safe form likewise.
func DecodeURLBase64(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

// ErrSignature is what every refusal of a signature wraps.
var ErrSignature = errors.New("signature not valid")

// SignJSON adds a signature of an entity (server or user) to a JSON object and returns its canonical form
// (appendices, "Signing JSON"). "unsigned" stays but is not signed.
func SignJSON(obj []byte, name string, key KeyID, priv ed25519.PrivateKey) ([]byte, error) {
	text, err := CanonicalJSON(obj)
	if err != nil {
		return nil, err
	}
	signed, err := without(text, "signatures", "unsigned")
	if err != nil {
		return nil, err
	}
	return addSignature(text, name, key, ed25519.Sign(priv, signed))
}

// addSignature puts a signature among those that an object has.
func addSignature(text []byte, name string, key KeyID, sig []byte) ([]byte, error) {
	all := map[string]map[string]string{}
	if raw, ok := Get(text, "signatures"); ok {
		if err := Decode(raw, &all); err != nil {
			return nil, err
		}
	}
	if all[name] == nil {
		all[name] = map[string]string{}
	}
	all[name][string(key)] = EncodeBase64(sig)
	raw, err := Encode(all)
	if err != nil {
		return nil, err
	}
	rest, err := without(text, "signatures")
	if err != nil {
		return nil, err
	}
	out := appendMember(rest[:len(rest)-1:len(rest)-1], "signatures", raw)
	return CanonicalJSON(append(out, '}'))
}

// VerifyJSON checks the signature of an entity on a JSON object.
func VerifyJSON(obj []byte, name string, key KeyID, pub ed25519.PublicKey) error {
	text, err := CanonicalJSON(obj)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	sig, err := signatureOf(text, name, key)
	if err != nil {
		return err
	}
	signed, err := without(text, "signatures", "unsigned")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return VerifyBytes(pub, signed, sig)
}

func signatureOf(text []byte, name string, key KeyID) ([]byte, error) {
	said, ok := GetString(text, "signatures", name, string(key))
	if !ok {
		return nil, fmt.Errorf("%w: there is none by %s %s", ErrSignature, name, key)
	}
	sig, err := DecodeBase64(said)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: that by %s is malformed", ErrSignature, name)
	}
	return sig, nil
}

// VerifyBytes checks an Ed25519 signature. Keys of small order, for which anybody can make signatures that fit, and
// keys that are not written in the one canonical way are refused.
func VerifyBytes(pub ed25519.PublicKey, message, sig []byte) error {
	if err := CheckPublicKey(pub); err != nil {
		return err
	}
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(pub, message, sig) {
		return ErrSignature
	}
	return nil
}

// CheckPublicKey refuses Ed25519 public keys that must not be trusted: of the wrong length, of small order, or not in
// canonical form.
func CheckPublicKey(pub ed25519.PublicKey) error {
	if len(pub) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: the key has not %d bytes", ErrSignature, ed25519.PublicKeySize)
	}
	plain := hex.EncodeToString(append(append([]byte{}, pub[:31]...), pub[31]&0x7f))
	for _, bad := range smallOrder {
		if plain == bad {
			return fmt.Errorf("%w: the key is of small order", ErrSignature)
		}
	}
	if !reduced(pub) {
		return fmt.Errorf("%w: the key is not in canonical form", ErrSignature)
	}
	return nil
}

// smallOrder are the y coordinates, little-endian without the sign bit, of the points whose order divides 8, with the
// forms that are not reduced (RFC 8032 section 5.1.3; the list that libsodium refuses).
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// reduced reports whether y is below the field's prime, 2^255-19.
func reduced(pub []byte) bool {
	if pub[31]&0x7f != 0x7f {
		return true
	}
	for _, b := range pub[1:31] {
		if b != 0xff {
			return true
		}
	}
	return pub[0] < 0xed
}

// Signature is one of the event's signatures; false if there is none such or it is malformed.
func (e *Event) Signature(server ServerName, key KeyID) ([]byte, bool) {
	sig, err := signatureOf(e.json, string(server), key)
	return sig, err == nil
}

// SignatureKeys are the IDs of the keys that a server signed the event with.
func (e *Event) SignatureKeys(server ServerName) []KeyID {
	raw, ok := Get(e.json, "signatures", string(server))
	if !ok || firstByte(raw) != '{' {
		return nil
	}
	members, err := topMembers(raw)
	if err != nil {
		return nil
	}
	keys := make([]KeyID, 0, len(members))
	for _, m := range members {
		keys = append(keys, KeyID(m.Key))
	}
	return keys
}

// RequiredSigners are the servers whose signatures the event must have (server-server API, "Validating hashes and
// signatures on received events"): the sender's, except on invitations made from a third-party invite; the event ID's
// in versions 1 and 2; and that of the user who let somebody into a restricted room.
func (e *Event) RequiredSigners() []ServerName {
	var servers []ServerName
	add := func(s ServerName) {
		for _, have := range servers {
			if have == s {
				return
			}
		}
		servers = append(servers, s)
	}
	_, third := Get(e.content, "third_party_invite")
	if !(third && e.Membership() == "invite") {
		add(e.sender.Server())
	}
	if e.version.EventIDsInEvent() {
		if server, ok := e.id.Server(); ok {
			add(server)
		}
	}
	if e.version.RestrictedJoins() && e.typ == "m.room.member" {
		// Of every membership, as the auth rule says. What is not a user ID names a server that nobody can sign for.
		if raw, ok := Get(e.content, "join_authorised_via_users_server"); ok {
			via, _ := textValue(raw)
			add(UserID(via).Server())
		}
	}
	return servers
}

// WithSignature is the event with a signature of ours added: on an invitation to one of our users, or a restricted
// join that one of our users allows.
func (e *Event) WithSignature(server ServerName, key KeyID, priv ed25519.PrivateKey) (*Event, error) {
	text, err := addSignature(e.json, string(server), key, ed25519.Sign(priv, e.SigningBytes()))
	if err != nil {
		return nil, err
	}
	return TrustedEvent(text, e.id, e.version)
}

// maxTaken bounds the signatures that TakeSignatures takes.
const maxTaken = 4

// TakeSignatures is the event with the signatures that a server put on its copy of it, which are not checked here. Copies
// that differ in anything but signatures are refused (ErrSignature): the ID alone does not say that they are the same. In
// versions 1 and 2 it is chosen, later it covers only what redaction leaves.
func (e *Event) TakeSignatures(server ServerName, signed *Event) (*Event, error) {
	ours, err1 := without(e.json, "signatures")
	theirs, err2 := without(signed.json, "signatures")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if !bytes.Equal(ours, theirs) {
		return nil, fmt.Errorf("%w: %s has signed another event", ErrSignature, server)
	}
	keys := signed.SignatureKeys(server)
	for _, key := range keys[:min(len(keys), maxTaken)] {
		sig, ok := signed.Signature(server, key)
		if !ok {
			continue
		}
		var err error
		if e, err = e.SignedBy(server, key, sig); err != nil {
			return nil, err
		}
	}
	if e.Size() > MaxEventSize {
		return nil, fmt.Errorf("%w: the signatures of %s are too large", ErrSignature, server)
	}
	return e, nil
}

// SignedBy is the event with a signature of somebody else added, which is not checked here.
func (e *Event) SignedBy(server ServerName, key KeyID, sig []byte) (*Event, error) {
	text, err := addSignature(e.json, string(server), key, sig)
	if err != nil {
		return nil, err
	}
	return TrustedEvent(text, e.id, e.version)
}
