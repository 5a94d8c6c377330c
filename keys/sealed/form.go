package sealed

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"

	"conclave/internal/matrix"
)

// form reads the members of an object whose shape is known. The first thing that is wrong is kept in err, so that a caller
// reads everything and looks once. A member of another type is as bad as a missing one: null is no text.
type form struct {
	members map[string][]byte
	err     error
}

// readForm scans JSON strictly (one meaning only: no name twice, no odd numbers, valid UTF-8) and opens it as an object.
func readForm(text []byte, limit int) *form {
	if len(text) > limit {
		return &form{err: ErrOversize.because("%d bytes where %d are allowed", len(text), limit)}
	}
	if err := matrix.CheckJSON(text, matrix.Limits{CanonicalNumbers: true}); err != nil {
		return &form{err: jsonFailure(err)}
	}
	members, err := matrix.Members(text)
	if err != nil {
		return &form{err: ErrMalformed.because("not an object")}
	}
	f := &form{members: make(map[string][]byte, len(members))}
	for _, m := range members {
		f.members[m.Key] = m.Value
	}
	return f
}

func (f *form) fail(class Failure, format string, args ...any) {
	if f.err == nil {
		f.err = class.because(format, args...)
	}
}

func (f *form) has(name string) bool { _, ok := f.members[name]; return ok }

// text reads a string that must be there.
func (f *form) text(name string) string {
	raw, ok := f.members[name]
	text, isText := "", false
	if ok {
		text, isText = stringValue(raw)
	}
	if !isText {
		f.fail(ErrMalformed, "%q is no text", name)
	}
	return text
}

// name reads an identifier: a text that is neither empty nor too long.
func (f *form) name(name string) string {
	text := f.text(name)
	if text == "" || len(text) > maxName {
		f.fail(ErrMalformed, "%q is no identifier", name)
	}
	return text
}

// constant demands one certain text.
func (f *form) constant(name, want string) {
	if got := f.text(name); got != want {
		f.fail(ErrMalformed, "%q is not %q", name, want)
	}
}

// algorithm demands one certain algorithm.
func (f *form) algorithm(want string) {
	if got := f.text("algorithm"); got != want {
		f.fail(ErrUnknownAlgorithm, "not %q", want)
	}
}

// bytes reads strict base64 of a certain length; -1 allows any.
func (f *form) bytes(name string, length int) []byte {
	b, err := decode64(f.text(name))
	if err != nil || length >= 0 && len(b) != length {
		f.fail(ErrMalformed, "%q is not the base64 that it has to be", name)
		return make([]byte, max(length, 0))
	}
	return b
}

// integer reads a number that is not negative.
func (f *form) integer(name string) int64 {
	n, ok := matrix.GetInt(f.members[name])
	if !ok || n < 0 {
		f.fail(ErrMalformed, "%q is no number", name)
		return 0
	}
	return n
}

// object reads an object, as text and opened.
func (f *form) object(name string) ([]byte, *form) {
	raw := f.members[name]
	if len(raw) == 0 || raw[0] != '{' {
		f.fail(ErrMalformed, "%q is no object", name)
		return nil, &form{err: ErrMalformed}
	}
	return raw, readForm(raw, maxEnvelope)
}

// texts reads a list of strings.
func (f *form) texts(name string) []string {
	var list []string
	if raw := f.members[name]; len(raw) == 0 || raw[0] != '[' || matrix.Decode(raw, &list) != nil {
		f.fail(ErrMalformed, "%q is no list of texts", name)
	}
	return list
}

// exactly demands that there is no member but these.
func (f *form) exactly(names ...string) {
	if len(f.members) != len(names) {
		f.fail(ErrMalformed, "%d members where %d have to be", len(f.members), len(names))
	}
	for _, name := range names {
		if !f.has(name) {
			f.fail(ErrMalformed, "%q is missing", name)
		}
	}
}

// stringValue reads checked JSON that is a string.
func stringValue(raw []byte) (string, bool) { return matrix.GetString(raw) }

// decode64 reads unpadded base64 that is written in the one possible way: two texts never mean the same bytes.
func decode64(s string) ([]byte, error) { return decodeStrictly(base64.RawStdEncoding, s) }

// decodeURL64 is decode64 for the URL-safe alphabet.
func decodeURL64(s string) ([]byte, error) { return decodeStrictly(base64.RawURLEncoding, s) }

func decodeStrictly(encoding *base64.Encoding, s string) ([]byte, error) {
	b, err := encoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") { // which Go's decoder passes over
		return nil, ErrMalformed.because("not strict base64")
	}
	return b, nil
}

// publicKey reads an Ed25519 key and refuses those for which anybody can sign.
func publicKey(text string) (ed25519.PublicKey, error) {
	b, err := decode64(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, ErrMalformed.because("not an Ed25519 key")
	}
	if err := matrix.CheckPublicKey(b); err != nil {
		return nil, ErrWeakKey.because("%v", err)
	}
	return b, nil
}

// verify checks a signature in strict base64.
func verify(key ed25519.PublicKey, message []byte, signature string) error {
	sig, err := decode64(signature)
	if err != nil || matrix.VerifyBytes(key, message, sig) != nil {
		return ErrForgedSignature
	}
	return nil
}

// signedForm is what a signature of an object covers (appendices, "Signing JSON").
func signedForm(text []byte) ([]byte, error) {
	members, err := matrix.Members(text)
	if err != nil {
		return nil, jsonFailure(err)
	}
	out := []byte{'{'}
	for _, m := range members {
		if m.Key == "signatures" || m.Key == "unsigned" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(matrix.AppendString(out, m.Key), ':'), m.Value...)
	}
	return Canonical(append(out, '}'))
}

// verifyObject checks the signature of a user's key on an object. Whether there is none is told apart.
func verifyObject(text []byte, user matrix.UserID, keyID string, key ed25519.PublicKey) (found bool, err error) {
	signature, found := matrix.GetString(text, "signatures", string(user), keyID)
	if !found {
		return false, ErrForgedSignature.because("no signature by %s", keyID)
	}
	signed, err := signedForm(text)
	if err != nil {
		return true, err
	}
	return true, verify(key, signed, signature)
}

// Canonical rewrites JSON canonically, so that two implementations sign and authenticate the same bytes. It refuses what
// has no one canonical form: names that stand twice, fractions, lone surrogates.
func Canonical(text []byte) ([]byte, error) {
	out, err := matrix.StrictCanonicalJSON(text)
	if err != nil {
		return nil, jsonFailure(err)
	}
	return out, nil
}

// encode gives the canonical JSON of a value made here; text of others inside it is held to the same rules.
func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, ErrMalformed.because("%v", err)
	}
	return Canonical(raw)
}
