// Package passkey is an authenticator in software, together with the browser before it: it makes passkeys and shows them
// as WebAuthn asks, and lies on demand.
package passkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Authenticator holds passkeys of one person. Its fields say how it, or the browser, behaves from now on.
type Authenticator struct {
	Origin   string // of the page that the browser shows
	RPID     string // whose authenticator data it makes; "" is what the options ask for
	Verifies bool   // whether it verifies its user, as by a PIN
	Step     int64  // by how much each use raises the count; 0 is an authenticator that does not count
	Count    int64
	Handle   []byte // what it says as the user's handle; nil is the right one

	keys []*key
}

type key struct {
	id, user []byte
	rpID     string
	private  *ecdsa.PrivateKey
}

// Bits of the flags in authenticator data.
const (
	flagPresent  = 1 << 0
	flagVerified = 1 << 2
	flagMade     = 1 << 6
)

// options are those of either ceremony, as far as an authenticator needs them.
type options struct {
	PublicKey struct {
		Challenge string `json:"challenge"`
		RPID      string `json:"rpId"`
		RP        struct {
			ID string `json:"id"`
		} `json:"rp"`
		User struct {
			ID string `json:"id"`
		} `json:"user"`
		Allow []struct {
			ID string `json:"id"`
		} `json:"allowCredentials"`
		Exclude []struct {
			ID string `json:"id"`
		} `json:"excludeCredentials"`
		UserVerification string `json:"userVerification"`
	} `json:"publicKey"`
}

func read(from any) (o options, err error) {
	raw, ok := from.([]byte)
	if !ok {
		if raw, err = json.Marshal(from); err != nil {
			return o, err
		}
	}
	return o, json.Unmarshal(raw, &o)
}

var encoding = base64.RawURLEncoding

// Create makes a passkey on a server's options (bytes of JSON, or what encodes to it), and returns what the browser gives
// to the page.
func (a *Authenticator) Create(from any) (json.RawMessage, error) {
	o, err := read(from)
	if err != nil {
		return nil, err
	}
	for _, e := range o.PublicKey.Exclude {
		if slices.ContainsFunc(a.keys, func(k *key) bool { return encoding.EncodeToString(k.id) == e.ID }) {
			return nil, errors.New("passkey: this authenticator has one for the account already")
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	user, err := encoding.DecodeString(o.PublicKey.User.ID)
	if err != nil {
		return nil, fmt.Errorf("passkey: the user's handle: %w", err)
	}
	k := &key{id: make([]byte, 16), user: user, rpID: o.PublicKey.RP.ID, private: private}
	_, _ = rand.Read(k.id) // never fails
	a.keys = append(a.keys, k)
	public, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	made := a.data(k.rpID, flagMade)
	made = append(made, make([]byte, 16)...) // no AAGUID
	made = binary.BigEndian.AppendUint16(made, uint16(len(k.id)))
	made = append(made, k.id...)
	// The key in COSE: {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}.
	made = append(made, 0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20)
	made = append(made, public[1:33]...)
	made = append(made, 0x22, 0x58, 0x20)
	made = append(made, public[33:]...)
	// {"fmt": "none", "attStmt": {}, "authData": …} in CBOR.
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59"), byte(len(made)>>8), byte(len(made)))
	object = append(object, made...)
	return json.Marshal(map[string]any{
		"id": encoding.EncodeToString(k.id), "rawId": encoding.EncodeToString(k.id), "type": "public-key",
		"clientExtensionResults": map[string]any{"credProps": map[string]any{"rk": true}}, // unasked, as some do
		"response": map[string]any{
			"clientDataJSON": encoding.EncodeToString(a.client("webauthn.create", o.PublicKey.Challenge)), "attestationObject": encoding.EncodeToString(object),
			"transports": []string{"internal"},
		},
	})
}

// Get shows a passkey on a server's options: one of those that they allow, or, if they allow any, the newest for the server.
func (a *Authenticator) Get(from any) (json.RawMessage, error) {
	o, err := read(from)
	if err != nil {
		return nil, err
	}
	var k *key
	for _, have := range a.keys {
		allowed := len(o.PublicKey.Allow) == 0
		for _, id := range o.PublicKey.Allow {
			allowed = allowed || id.ID == encoding.EncodeToString(have.id)
		}
		if allowed && have.rpID == o.PublicKey.RPID {
			k = have
		}
	}
	if k == nil {
		return nil, errors.New("passkey: this authenticator has none that is asked for")
	}
	return a.sign(k, o.PublicKey.Challenge)
}

// sign shows a passkey on a challenge.
func (a *Authenticator) sign(k *key, challenge string) (json.RawMessage, error) {
	a.Count += a.Step
	data, client := a.data(k.rpID, 0), a.client("webauthn.get", challenge)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(slices.Clone(data), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		return nil, err
	}
	user := k.user
	if a.Handle != nil {
		user = a.Handle
	}
	return json.Marshal(map[string]any{
		"id": encoding.EncodeToString(k.id), "rawId": encoding.EncodeToString(k.id), "type": "public-key",
		"clientExtensionResults": map[string]any{},
		"response": map[string]any{
			"clientDataJSON": encoding.EncodeToString(client), "authenticatorData": encoding.EncodeToString(data),
			"signature": encoding.EncodeToString(signature), "userHandle": encoding.EncodeToString(user),
		},
	})
}

// data is authenticator data up to the count.
func (a *Authenticator) data(rpID string, flags byte) []byte {
	if a.RPID != "" {
		rpID = a.RPID
	}
	flags |= flagPresent
	if a.Verifies {
		flags |= flagVerified
	}
	hash := sha256.Sum256([]byte(rpID))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), uint32(a.Count))
}

// client is what the browser says of the ceremony.
func (a *Authenticator) client(kind, challenge string) []byte {
	raw, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false})
	if err != nil {
		panic("passkey: " + err.Error()) // strings can be encoded
	}
	return raw
}
