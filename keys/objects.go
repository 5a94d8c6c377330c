package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of what is uploaded, and of what other servers answer.
const (
	maxKeyObject  = 32 << 10 // bytes of device keys or a cross-signing key
	maxNamedKey   = 8 << 10  // bytes of a one-time or fallback key
	maxKeysIn     = 32       // keys, algorithms or signatures in an object
	maxName       = 255      // bytes of an identifier
	ed25519Prefix = "ed25519:"

	curve25519Prefix = "curve25519:"
)

// badSignature is M_INVALID_SIGNATURE.
func badSignature(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, "M_INVALID_SIGNATURE", format, args...)
}

// keyObject is what device keys and cross-signing keys have in common.
type keyObject struct {
	UserID     matrix.UserID                       `json:"user_id"`
	DeviceID   matrix.DeviceID                     `json:"device_id"`
	Algorithms []string                            `json:"algorithms"`
	Usage      []string                            `json:"usage"`
	Keys       map[string]string                   `json:"keys"`
	Signatures map[matrix.UserID]map[string]string `json:"signatures"`

	json    []byte            // canonical, without unsigned and without signatures by others than the owner
	signing ed25519.PublicKey // of a device its Ed25519 key, else the key itself
	public  string            // signing in unpadded base64
}

// parseObject reads a key object of an owner, as far as both kinds agree.
func parseObject(raw []byte, owner matrix.UserID) (*keyObject, error) {
	if len(raw) > maxKeyObject {
		return nil, matrix.TooLarge("A key object has at most %d bytes.", maxKeyObject)
	}
	text, err := matrix.StrictCanonicalJSON(raw)
	if err != nil {
		return nil, matrix.BadJSON("A key object must be canonical JSON, without floats.").With(err)
	}
	o := &keyObject{}
	if err := matrix.Decode(text, o); err != nil {
		return nil, err
	}
	switch {
	case o.UserID != owner:
		return nil, matrix.InvalidParam("The user_id of the keys must be %s.", owner)
	case len(o.Keys) == 0 || len(o.Keys) > maxKeysIn || len(o.Algorithms) > maxKeysIn || len(o.Signatures[owner]) > maxKeysIn:
		return nil, matrix.InvalidParam("A key object has 1 to %d keys, and at most as many algorithms and signatures.", maxKeysIn)
	}
	own := map[matrix.UserID]map[string]string{}
	if len(o.Signatures[owner]) > 0 {
		own[owner] = o.Signatures[owner]
	}
	o.Signatures = own
	o.json, err = withSignatures(text, own, nil)
	return o, err
}

// parseDeviceKeys reads a device's keys: well-formed, and signed by the device's own Ed25519 key.
func parseDeviceKeys(raw []byte, owner matrix.UserID, device matrix.DeviceID) (*keyObject, error) {
	o, err := parseObject(raw, owner)
	if err != nil {
		return nil, err
	}
	if o.DeviceID != device || device == "" || len(device) > maxName || !matrix.IsText(string(device)) {
		return nil, matrix.InvalidParam("The device_id of the keys must be that of the device, %.255q.", device)
	}
	if o.Algorithms == nil {
		return nil, matrix.BadJSON("The device keys name no algorithms.")
	}
	for name, key := range o.Keys {
		if algorithm, id, ok := strings.Cut(name, ":"); !ok || algorithm == "" || id != string(device) || len(name) > 2*maxName {
			return nil, matrix.InvalidParam("%.64q is not <algorithm>:<device_id>.", name)
		}
		// Only a dehydrated device is called like its Curve25519 key (MSC3814), which signs nothing.
		if key == string(device) && name != curve25519Prefix+string(device) {
			return nil, matrix.InvalidParam("A device cannot be called like a public key.")
		}
	}
	id := ed25519Prefix + string(device)
	if err := o.setSigning(o.Keys[id]); err != nil {
		return nil, err
	}
	if err := matrix.VerifyJSON(o.json, string(owner), matrix.KeyID(id), o.signing); err != nil {
		return nil, badSignature("The device keys are not signed by the device's own %s.", ed25519Prefix+string(device)).With(err)
	}
	return o, nil
}

// setSigning decodes an Ed25519 public key, which must be written as the spec writes it: keys are compared as text.
func (o *keyObject) setSigning(text string) error {
	raw, err := matrix.DecodeBase64(text)
	if err == nil {
		err = matrix.CheckPublicKey(raw)
	}
	if err != nil || matrix.EncodeBase64(raw) != text {
		return matrix.InvalidParam("There is no Ed25519 key in unpadded base64.").With(err)
	}
	o.signing, o.public = raw, text
	return nil
}

// usageNames are the words for the usages of cross-signing keys.
var usageNames = map[store.KeyUsage]string{
	store.MasterKey: "master", store.SelfSigningKey: "self_signing", store.UserSigningKey: "user_signing",
}

// parseCrossKey reads a cross-signing key. Whether the master key signed it is for the caller to check.
func parseCrossKey(raw []byte, owner matrix.UserID, usage store.KeyUsage) (*keyObject, error) {
	o, err := parseObject(raw, owner)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(o.Usage, []string{usageNames[usage]}) {
		return nil, matrix.InvalidParam("The usage of the key must be [%q].", usageNames[usage])
	}
	if len(o.Keys) != 1 {
		return nil, matrix.InvalidParam("A cross-signing key object has exactly one key.")
	}
	for name, key := range o.Keys {
		if name != ed25519Prefix+key {
			return nil, matrix.InvalidParam("A cross-signing key is named ed25519:<the key itself>.")
		}
		if err := o.setSigning(key); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// signedBy checks that one of the owner's own keys signed the object.
func (o *keyObject) signedBy(public string) error {
	key, err := matrix.DecodeBase64(public)
	if err != nil {
		return badSignature("The signing key is malformed.").With(err)
	}
	if err := matrix.VerifyJSON(o.json, string(o.UserID), matrix.KeyID(ed25519Prefix+public), key); err != nil {
		return badSignature("The key is not signed by the master key.").With(err)
	}
	return nil
}

// unsigned is the object without its signatures: what was signed.
func unsigned(object []byte) ([]byte, error) {
	return rebuild(object, map[string][]byte{"signatures": nil, "unsigned": nil})
}

// sameObject says whether two objects differ in nothing but signatures.
func sameObject(a, b []byte) bool {
	plainA, err := unsigned(a)
	if err != nil {
		return false
	}
	plainB, err := unsigned(b)
	return err == nil && bytes.Equal(plainA, plainB)
}

// rebuild gives an object other values for some of its members, none where the value is nil, in canonical form.
func rebuild(object []byte, set map[string][]byte) ([]byte, error) {
	members, err := matrix.Members(object)
	if err != nil {
		return nil, err
	}
	out := []byte{'{'}
	add := func(name string, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(matrix.AppendString(out, name), ':'), value...)
	}
	for _, m := range members {
		if _, replaced := set[m.Key]; !replaced {
			add(m.Key, m.Value)
		}
	}
	for name, value := range set {
		if value != nil {
			add(name, value)
		}
	}
	return matrix.CanonicalJSON(append(out, '}'))
}

// withSignatures is an object with exactly these signatures, and with a device's name if there is one to show.
func withSignatures(object []byte, signatures map[matrix.UserID]map[string]string, name *string) ([]byte, error) {
	set := map[string][]byte{"signatures": nil, "unsigned": nil}
	if len(signatures) > 0 {
		raw, err := json.Marshal(signatures)
		if err != nil {
			return nil, err
		}
		set["signatures"] = raw
	}
	if name != nil {
		set["unsigned"] = append(matrix.AppendString([]byte(`{"device_display_name":`), *name), '}')
	}
	return rebuild(object, set)
}

// parseNamedKeys reads one-time or fallback keys, <algorithm>:<key_id> to a string or an object.
func parseNamedKeys(raw map[string]json.RawMessage) ([]store.NamedKey, error) {
	list := make([]store.NamedKey, 0, len(raw))
	for name, value := range raw {
		algorithm, id, ok := strings.Cut(name, ":")
		if !ok || algorithm == "" || id == "" || len(algorithm) > maxName || len(id) > maxName {
			return nil, matrix.InvalidParam("%.64q is not <algorithm>:<key_id>.", name)
		}
		if len(value) > maxNamedKey {
			return nil, matrix.TooLarge("A one-time or fallback key has at most %d bytes.", maxNamedKey)
		}
		text, err := matrix.StrictCanonicalJSON(value)
		if err != nil {
			return nil, matrix.BadJSON("The key %.64q is not canonical JSON.", name).With(err)
		}
		if err := checkNamedKey(name, text); err != nil {
			return nil, err
		}
		list = append(list, store.NamedKey{Algorithm: algorithm, ID: id, JSON: text})
	}
	slices.SortFunc(list, func(a, b store.NamedKey) int {
		return strings.Compare(a.Algorithm+":"+a.ID, b.Algorithm+":"+b.ID)
	})
	return list, nil
}

// checkNamedKey checks the form of a key: text, or an object with "key", and with "signatures" where its algorithm says
// that it is signed.
func checkNamedKey(name string, text []byte) error {
	switch text[0] {
	case '"':
		if !strings.HasPrefix(name, "signed_") {
			return nil
		}
	case '{':
		var object struct {
			Key        *string                             `json:"key"`
			Fallback   *bool                               `json:"fallback"`
			Signatures map[matrix.UserID]map[string]string `json:"signatures"`
		}
		if err := matrix.Decode(text, &object); err != nil {
			return err
		}
		if object.Key != nil && (object.Signatures != nil || !strings.HasPrefix(name, "signed_")) {
			return nil
		}
	}
	return matrix.BadJSON("The key %.64q is neither text nor an object with key and signatures.", name)
}

// checkOwnSignature checks the signature of the device on one of its keys, where the key has one: the key of another
// device, or a damaged one, would make sessions that nobody can open.
func checkOwnSignature(key store.NamedKey, owner matrix.UserID, device *keyObject) error {
	if key.JSON[0] != '{' || device == nil {
		return nil
	}
	id := ed25519Prefix + string(device.DeviceID)
	if _, signed := matrix.Get(key.JSON, "signatures", string(owner), id); !signed {
		if strings.HasPrefix(key.Algorithm, "signed_") {
			return badSignature("The key %s:%s is not signed by the device.", key.Algorithm, key.ID)
		}
		return nil
	}
	if err := matrix.VerifyJSON(key.JSON, string(owner), matrix.KeyID(id), device.signing); err != nil {
		return badSignature("The signature of the key %s:%s is not valid.", key.Algorithm, key.ID).With(err)
	}
	return nil
}
