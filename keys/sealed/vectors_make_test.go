package sealed

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
)

// maker collects cases.
type maker struct {
	t     *testing.T
	cases []vector
}

func (m *maker) add(kind, name, comment string, in any, expect map[string]any, failure Failure) {
	m.t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cases = append(m.cases, vector{Name: kind + "/" + name, Kind: kind, Comment: comment, Input: raw, Expect: expect, Failure: failure})
}

func (m *maker) good(kind, name, comment string, in any, expect map[string]any) {
	m.t.Helper()
	m.add(kind, name, comment, in, expect, "")
}

func (m *maker) bad(kind, name, comment string, in any, failure Failure) {
	m.t.Helper()
	m.add(kind, name, comment, in, nil, failure)
}

func makeVectors(t *testing.T) []vector {
	m := &maker{t: t}
	m.canonical()
	m.arithmetic()
	m.crossSigning()
	m.deviceKeys()
	m.sealed()
	m.roomKeys()
	m.group()
	m.attachments()
	return m.cases
}

func text(s string) map[string]string { return map[string]string{"text_json": s} }

func (m *maker) canonical() {
	for name, c := range ordered(map[string][2]string{
		"order":          {`{"b":2,"a":1,"aa":[3,2,{"z":null,"y":false}]}`, `{"a":1,"aa":[3,2,{"y":false,"z":null}],"b":2}`},
		"code points":    {"{\"\U0001F600\":1,\"\uffee\":2,\"é\":3}", "{\"é\":3,\"\uffee\":2,\"\U0001F600\":1}"},
		"white space":    {" {\t\"a\" :\r\n[ ] } ", `{"a":[]}`},
		"escapes":        {`{"\u0061":"\u00e9\u000a\/\u001f\u2028\ud83d\ude00<&>\u007f"}`, "{\"a\":\"é\\n/\\u001f\u2028\U0001F600<&>\u007f\"}"},
		"large integers": {`[9007199254740991,-9007199254740991,0]`, `[9007199254740991,-9007199254740991,0]`},
		"not normalised": {`{"e\u0301":1,"\u00e9":2}`, "{\"e\u0301\":1,\"é\":2}"},
		"prototype":      {`{"__proto__":{"a":1},"constructor":2}`, `{"__proto__":{"a":1},"constructor":2}`},
	}) {
		m.good("canonical", name, "", text(c[0]), map[string]any{"canonical": c[1]})
	}
	for name, c := range ordered(map[string]string{
		"fraction": `{"a":1.5}`, "written as a fraction": `{"a":1.0}`, "exponent": `{"a":1e2}`, "minus zero": `{"a":-0}`,
		"beyond 2^53": `{"a":9007199254740992}`, "lone surrogate": `{"a":"\ud800"}`, "trailing text": `{} {}`, "trailing comma": `[1,]`,
		"leading zero": `[01]`, "control character": "[\"\t\"]", "byte order mark": "\ufeff{}", "too deep": strings.Repeat("[", 65) + strings.Repeat("]", 65),
	}) {
		m.bad("canonical", name, "", text(c), ErrMalformed)
	}
	m.bad("canonical", "name twice", "", text(`{"a":1,"a":1}`), ErrDuplicateKey)
	m.bad("canonical", "name twice by an escape", "the two are the same name", text(`{"b":{"a":1,"\u0061":2}}`), ErrDuplicateKey)
}

// ordered goes over a map in the order of its names, so that files stay as they are.
func ordered[T any](all map[string]T) func(func(string, T) bool) {
	return func(yield func(string, T) bool) {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if !yield(name, all[name]) {
				return
			}
		}
	}
}

func (m *maker) arithmetic() {
	for name, c := range ordered(map[string][2]int{
		"nothing": {0, 256}, "short": {1, 256}, "at 256": {256, 256}, "beyond 256": {257, 272}, "272": {272, 272}, "273": {273, 288},
		"1000": {1000, 1024}, "5000": {5000, 5120}, "30000": {30000, 30720}, "largest": {40_960, 40_960}, "nearly": {38_913, 40_960},
	}) {
		m.good("padding", name, "", map[string]int{"length": c[0]}, map[string]any{"padded": c[1]})
	}
	m.bad("padding", "too long", "", map[string]int{"length": 40_961}, ErrOversize)
	start := ratchet(seeded("ratchet").Seed())
	salt := seeded("salt").Seed()[:saltLength]
	for name, steps := range ordered(map[string]uint32{"at 0": 0, "at 1": 1, "at 1023": 1023}) {
		r := start.at(steps)
		key, nonce, err := r.messageKey(salt)
		m.must(err)
		m.good("ratchet", name, "", map[string]any{
			"ratchet": matrix.EncodeBase64(start[:]), "steps": steps, "salt": matrix.EncodeBase64(salt),
		}, map[string]any{"ratchet": matrix.EncodeBase64(r[:]), "key": matrix.EncodeBase64(key), "nonce": matrix.EncodeBase64(nonce)})
	}
	week, day := 7*24*3_600_000, 24*3_600_000
	type in map[string]any
	rotation := func(name, reason string, given in) {
		full := in{"messages": 5, "age_ms": 1000, "left": false, "limited": false, "lost_holder": false, "rules_changed": false}
		for k, v := range given {
			full[k] = v
		}
		m.good("rotation", name, "", full, map[string]any{"rotate": reason != "", "reason": reason})
	}
	rotation("fresh", "", nil)
	rotation("99 messages", "", in{"messages": 99})
	rotation("100 messages", "messages", in{"messages": 100})
	rotation("nearly a week", "", in{"age_ms": week - 1})
	rotation("a week", "age", in{"age_ms": week})
	rotation("lower bounds of the room", "messages", in{"messages": 20, "rotation_period_msgs": 20})
	rotation("the room cannot raise them", "messages", in{"messages": 100, "rotation_period_msgs": 1_000_000_000})
	rotation("nor make it absurd", "", in{"messages": 9, "rotation_period_msgs": 0, "age_ms": 3_599_999, "rotation_period_ms": -1})
	rotation("floor of messages", "messages", in{"messages": 10, "rotation_period_msgs": 1})
	rotation("floor of age", "age", in{"age_ms": 3_600_000, "rotation_period_ms": 1})
	rotation("age of the room", "age", in{"age_ms": day, "rotation_period_ms": day})
	rotation("age not raised", "age", in{"age_ms": week, "rotation_period_ms": 2 * week})
	for _, reason := range []string{"left", "limited", "lost_holder", "rules_changed"} {
		rotation(strings.ReplaceAll(reason, "_", " "), reason, in{reason: true})
	}
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func crossSigningOf(p *person) *crossSigningInput {
	return &crossSigningInput{string(p.published.Master), string(p.published.SelfSigning), string(p.published.UserSigning)}
}

func (m *maker) crossSigning() {
	a := alice()
	base := func(change func(*crossSigningCase)) crossSigningCase {
		c := crossSigningCase{a.User, *crossSigningOf(a), a.master()}
		change(&c)
		return c
	}
	keep := func(*crossSigningCase) {}
	expect := map[string]any{
		"master": a.master(), "self_signing": encodePublic(a.identity.selfSigning), "user_signing": encodePublic(a.identity.userSigning),
	}
	m.good("cross_signing", "pinned", "", base(keep), expect)
	m.good("cross_signing", "first sight", "no pin yet", base(func(c *crossSigningCase) { c.Pin = "" }), expect)
	expect = map[string]any{"master": a.master(), "self_signing": expect["self_signing"], "user_signing": ""}
	m.good("cross_signing", "of another user", "servers give the user-signing key to its owner only", base(func(c *crossSigningCase) { c.UserSigning = "" }), expect)
	m.bad("cross_signing", "changed", "the pinned master key is another", base(func(c *crossSigningCase) { c.Pin = bob().master() }), ErrIdentityChanged)
	m.bad("cross_signing", "no signature", "the self-signing key is not signed", base(func(c *crossSigningCase) {
		c.SelfSigning = m.without(c.SelfSigning, "signatures")
	}), ErrForgedSignature)
	m.bad("cross_signing", "signed by itself", "the master key did not sign it", base(func(c *crossSigningCase) {
		c.SelfSigning = m.signed(m.without(c.SelfSigning, "signatures"), a.User, encodePublic(a.identity.master), a.identity.selfSigning)
	}), ErrForgedSignature)
	m.bad("cross_signing", "another user", "keys that are somebody else's", base(func(c *crossSigningCase) {
		c.crossSigningInput, c.Pin = *crossSigningOf(bob()), ""
	}), ErrWrongDevice)
	m.bad("cross_signing", "another usage", "a user-signing key in the place of the self-signing key", base(func(c *crossSigningCase) {
		c.SelfSigning = c.UserSigning
	}), ErrMalformed)
	small := matrix.EncodeBase64(append([]byte{1}, make([]byte, 31)...))
	m.bad("cross_signing", "small order", "anybody can sign for this key", base(func(c *crossSigningCase) {
		c.Pin, c.Master = "", `{"keys":{"ed25519:`+small+`":"`+small+`"},"usage":["master"],"user_id":"`+string(a.User)+`"}`
	}), ErrWeakKey)
}

// without takes a member out of an object.
func (m *maker) without(object, name string) string {
	return m.edit(object, func(members map[string]json.RawMessage) { delete(members, name) })
}

// with sets a member of an object.
func (m *maker) with(object, name string, value any) string {
	raw, err := json.Marshal(value)
	m.must(err)
	return m.edit(object, func(members map[string]json.RawMessage) { members[name] = raw })
}

func (m *maker) edit(object string, change func(map[string]json.RawMessage)) string {
	m.t.Helper()
	members := map[string]json.RawMessage{}
	m.must(json.Unmarshal([]byte(object), &members))
	change(members)
	out, err := encode(members)
	m.must(err)
	return string(out)
}

// signed adds a signature.
func (m *maker) signed(object string, user matrix.UserID, key string, by ed25519.PrivateKey) string {
	m.t.Helper()
	out, err := matrix.SignJSON([]byte(object), string(user), matrix.KeyID(keySigning+key), by)
	m.must(err)
	return string(out)
}

// resigned is device keys of a person that were changed, signed again by everybody who has to.
func (m *maker) resigned(p *person, change func(string) string) string {
	m.t.Helper()
	object := m.signed(change(m.without(string(p.keys), "signatures")), p.User, p.ID, p.signing)
	out, err := p.identity.SignDevice([]byte(object))
	m.must(err)
	return string(out)
}

// withKey changes one of the keys of device keys.
func (m *maker) withKey(object, id, value string) string {
	keys, ok := matrix.Get([]byte(object), "keys")
	if !ok {
		m.t.Fatal("no keys")
	}
	return m.with(object, "keys", raw([]byte(m.with(string(keys), id, value))))
}

func (m *maker) deviceKeys() {
	a := alice()
	base := func(keys string) deviceKeysInput {
		return deviceKeysInput{a.User, a.ID, keys, crossSigningOf(a), a.master()}
	}
	spki, err := x509.MarshalPKIXPublicKey(&a.exchange.PublicKey)
	m.must(err)
	good := map[string]any{"ed25519": a.SigningKey(), "rsa_oaep_256": matrix.EncodeBase64(spki), "kid": a.Kid(), "dehydrated": false}
	m.good("device_keys", "qualifies", "", base(string(a.keys)), good)
	m.good("device_keys", "with unsigned", "a display name is not signed", base(m.with(string(a.keys), "unsigned", map[string]string{"device_display_name": "phone"})), good)
	dehydrated := m.resigned(a, func(s string) string { return m.with(s, "dehydrated", true) })
	m.good("device_keys", "dehydrated", "it may receive", base(dehydrated),
		map[string]any{"ed25519": a.SigningKey(), "rsa_oaep_256": matrix.EncodeBase64(spki), "kid": a.Kid(), "dehydrated": true})
	c := base(string(a.keys))
	c.CrossSigning = nil
	m.bad("device_keys", "no identity", "", c, ErrNoIdentity)
	c = base(string(a.keys))
	c.Pin = bob().master()
	m.bad("device_keys", "identity changed", "", c, ErrIdentityChanged)
	plain, err := a.PublicKeys()
	m.must(err)
	m.bad("device_keys", "added by the server", "signed by the device, not by its owner", base(string(plain)), ErrUnsignedDevice)
	own := m.signed(m.without(string(a.keys), "signatures"), a.User, encodePublic(a.identity.selfSigning), bob().identity.selfSigning)
	own = m.signed(own, a.User, a.ID, a.signing)
	m.bad("device_keys", "signed by another identity", "under the name of the right one", base(own), ErrForgedSignature)
	m.bad("device_keys", "altered after signing", "", base(m.with(string(a.keys), "extra", 1)), ErrForgedSignature)
	taken := m.signed(m.without(string(a.keys), "signatures"), a.User, a.ID, bob().signing)
	signed, err := a.identity.SignDevice([]byte(taken))
	m.must(err)
	m.bad("device_keys", "not signed by itself", "another device's key signed", base(string(signed)), ErrForgedSignature)
	c = base(string(a.keys))
	c.Device = "ANOTHER"
	m.bad("device_keys", "another device", "moved by the server", c, ErrWrongDevice)
	m.bad("device_keys", "another user", "moved by the server", base(string(bob().keys)), ErrWrongDevice)
	m.bad("device_keys", "name twice", "", base(`{"device_id":"EVIL",`+string(a.keys[1:])), ErrDuplicateKey)
	m.bad("device_keys", "megolm only", "", base(m.resigned(a, func(s string) string {
		return m.with(s, "algorithms", []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"})
	})), ErrUnknownAlgorithm)
	m.badExchangeKeys(a, base)
	m.bad("device_keys", "small order", "", base(m.resigned(a, func(s string) string {
		return m.withKey(s, keySigning+a.ID, matrix.EncodeBase64(make([]byte, 32)))
	})), ErrWeakKey)
	m.bad("device_keys", "padded base64", "", base(m.resigned(a, func(s string) string {
		return m.withKey(s, keySigning+a.ID, a.SigningKey()+"=")
	})), ErrMalformed)
	m.badDeviceID(a)
}

// badDeviceID is a device whose id is a public key.
func (m *maker) badDeviceID(a *person) {
	id := a.master()
	object := m.with(m.without(string(a.keys), "signatures"), "device_id", id)
	spki, err := x509.MarshalPKIXPublicKey(&a.exchange.PublicKey)
	m.must(err)
	object = m.with(object, "keys", map[string]string{keySigning + id: a.SigningKey(), keyExchange + id: matrix.EncodeBase64(spki)})
	object = m.signed(object, a.User, id, a.signing)
	signed, err := a.identity.SignDevice([]byte(object))
	m.must(err)
	m.bad("device_keys", "id is a key", "the device id is the master key", deviceKeysInput{a.User, id, string(signed), crossSigningOf(a), a.master()}, ErrBadDeviceID)
}

func (m *maker) badExchangeKeys(a *person, base func(string) deviceKeysInput) {
	withRSA := func(der []byte) deviceKeysInput {
		return base(m.resigned(a, func(s string) string { return m.withKey(s, keyExchange+a.ID, matrix.EncodeBase64(der)) }))
	}
	of := func(bits uint, exponent int) []byte {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		n.Add(n, new(big.Int).Rsh(a.exchange.N, 4096))
		n.SetBit(n, 0, 1)
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: exponent})
		m.must(err)
		return der
	}
	m.bad("device_keys", "RSA 2048", "", withRSA(of(2048, 65537)), ErrWeakKey)
	m.bad("device_keys", "RSA 8192", "", withRSA(of(8192, 65537)), ErrWeakKey)
	m.bad("device_keys", "RSA exponent 3", "", withRSA(of(3072, 3)), ErrWeakKey)
	good, err := x509.MarshalPKIXPublicKey(&a.exchange.PublicKey)
	m.must(err)
	m.bad("device_keys", "RSA with more behind", "", withRSA(append(slices.Clone(good), 0)), ErrWeakKey)
	m.bad("device_keys", "RSA garbage", "", withRSA([]byte("no key")), ErrWeakKey)
	var spki struct {
		Algorithm struct{ ID asn1.ObjectIdentifier }
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(good, &spki); err == nil { // without the NULL that the algorithm has to have
		der, err := asn1.Marshal(spki)
		m.must(err)
		m.bad("device_keys", "RSA without parameters", "another way to write the same key", withRSA(der), ErrWeakKey)
	}
}
