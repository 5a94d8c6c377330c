package sealed

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave/internal/matrix"
)

// sentAt is when everything in the vectors was sent.
var sentAt = time.Unix(1_790_000_000, 0)

// sealing is a sealed message on its way from Alice to Bob, with everything in it open to change.
type sealing struct {
	sender  *person
	to      *DeviceKeys
	payload string
	jws     func(string) string // changes the JWS
	options *jose.EncrypterOptions
	keyAlg  jose.KeyAlgorithm
	enc     jose.ContentEncryption
	event   func(string) string // changes the content of the event
	input   func(*sealedInput)
	from    matrix.UserID
}

func same(s string) string { return s }

// newSealing is a good one: a room key from Alice for Bob.
func (m *maker) newSealing() *sealing {
	a, b := alice(), bob()
	s := &sealing{
		sender: a, to: b.qualified(m.t), jws: same, options: (&jose.EncrypterOptions{}).WithContentType("JWT"), keyAlg: jose.RSA_OAEP_256,
		enc: jose.A256GCM, event: same, input: func(*sealedInput) {}, from: a.User,
	}
	text, err := encode(payload{
		Type: TypeRoomKey, Content: json.RawMessage(m.roomKeyContent(a, 0)), Sender: a.User, SenderDevice: a.ID, SenderDeviceKeys: a.keys,
		SenderMaster: a.master(), Recipient: b.User, RecipientDevice: b.ID, RecipientKid: b.Kid(), RecipientMaster: b.master(),
		MsgID: "message-1", IssuedAt: sentAt.Unix(),
	})
	m.must(err)
	s.payload = string(text)
	return s
}

// set changes a member of the payload before it is signed.
func (m *maker) set(s *sealing, name string, value any) { s.payload = m.with(s.payload, name, value) }

// build makes the input of a case.
func (m *maker) build(s *sealing) sealedInput {
	m.t.Helper()
	sender := s.sender.sender()
	jws, err := sender.sign([]byte(s.payload))
	m.must(err)
	encrypter, err := jose.NewEncrypter(s.enc, jose.Recipient{Algorithm: s.keyAlg, Key: s.to.Exchange, KeyID: s.to.Kid}, s.options)
	m.must(err)
	jwe, err := encrypter.Encrypt([]byte(s.jws(jws)))
	m.must(err)
	compact, err := jwe.CompactSerialize()
	m.must(err)
	content, err := encode(map[string]string{"algorithm": AlgorithmSealed, "sender_device": s.sender.ID, "ciphertext": compact})
	m.must(err)
	event, err := json.Marshal(map[string]any{"type": TypeEncrypted, "sender": s.from, "content": json.RawMessage(s.event(string(content)))})
	m.must(err)
	var in sealedInput
	b := bob()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(b.exchange)
	m.must(err)
	in.Event, in.Now, in.Seen = string(event), sentAt.Unix()+1, []string{"message-0"}
	in.Recipient.User, in.Recipient.Device, in.Recipient.Master, in.Recipient.Former = b.User, b.ID, b.master(), []string{}
	in.Recipient.Seed, in.Recipient.Exchange = matrix.EncodeBase64(b.signing.Seed()), matrix.EncodeBase64(pkcs8)
	known := string(alice().keys)
	in.Sender.CrossSigning, in.Sender.Pin, in.Sender.Known = crossSigningOf(alice()), alice().master(), &known
	in.Sender.CrossSigning.UserSigning = ""
	s.input(&in)
	return in
}

// fails adds a case that differs from a good one by one change.
func (m *maker) fails(name, comment string, change func(*sealing), class Failure) {
	m.t.Helper()
	s := m.newSealing()
	change(s)
	m.bad("sealed", name, comment, m.build(s), class)
}

// opens adds a case that differs by one change, and opens.
func (m *maker) opens(name, comment string, change func(*sealing)) {
	m.t.Helper()
	s := m.newSealing()
	change(s)
	content, ok := matrix.Get([]byte(s.payload), "content")
	kind, ok2 := matrix.GetString([]byte(s.payload), "type")
	if !ok || !ok2 {
		m.t.Fatal("no payload")
	}
	m.good("sealed", name, comment, m.build(s), map[string]any{
		"type": kind, "content_json": string(content), "msg_id": "message-1", "sender": s.from, "sender_device": s.sender.ID, "sender_key": s.sender.SigningKey(),
	})
}

func (m *maker) sealed() {
	m.opens("opens", "a room key from Alice's device to Bob's", func(*sealing) {})
	m.opens("of a device that is gone", "the keys inside serve", func(s *sealing) {
		s.input = func(in *sealedInput) { in.Sender.Known = nil }
	})
	m.opens("under a former master key", "Bob's identity was another when it was sent", func(s *sealing) {
		m.set(s, "recipient_master_key", mallory().master())
		s.input = func(in *sealedInput) { in.Recipient.Former = []string{mallory().master()} }
	})
	m.opens("a young call", "", func(s *sealing) {
		m.set(s, "type", "m.call.invite")
		s.input = func(in *sealedInput) { in.Now = sentAt.Unix() + 299 }
	})
	m.opens("a new member", "members that are not known are passed over", func(s *sealing) { m.set(s, "future", 1) })
	m.sealedHeaders()
	m.sealedSenders()
	m.sealedRecipients()
	m.fails("message again", "its msg_id was seen", func(s *sealing) {
		s.input = func(in *sealedInput) { in.Seen = []string{"message-1"} }
	}, ErrReplayedMessage)
	m.fails("an old call", "", func(s *sealing) {
		m.set(s, "type", "m.call.invite")
		s.input = func(in *sealedInput) { in.Now = sentAt.Unix() + 300 }
	}, ErrExpired)
	m.fails("another type", "forwarded keys do not exist", func(s *sealing) { m.set(s, "type", "m.forwarded_room_key") }, ErrUnknownType)
	m.fails("payload without sender", "", func(s *sealing) { s.payload = m.without(s.payload, "sender") }, ErrMalformed)
	m.fails("payload with a name twice", "", func(s *sealing) { s.payload = `{"sender":"@x:y",` + s.payload[1:] }, ErrDuplicateKey)
	m.fails("content is no object", "", func(s *sealing) { m.set(s, "content", "text") }, ErrMalformed)
	m.fails("not an object inside", "", func(s *sealing) { s.payload = "[]" }, ErrMalformed)
}

// replaceHeader changes the header of a compact serialization, leaving what was signed or encrypted as it is.
func (m *maker) replaceHeader(compact, header string) string {
	_, rest, _ := strings.Cut(compact, ".")
	return matrix.EncodeURLBase64([]byte(header)) + "." + rest
}

// ciphertext changes the JWE of an event.
func (m *maker) ciphertext(change func(string) string) func(string) string {
	return func(content string) string {
		compact, ok := matrix.GetString([]byte(content), "ciphertext")
		if !ok {
			m.t.Fatal("no ciphertext")
		}
		return m.with(content, "ciphertext", change(compact))
	}
}

func (m *maker) sealedHeaders() {
	m.fails("envelope of Olm", "", func(s *sealing) {
		s.event = func(c string) string { return m.with(c, "algorithm", "m.olm.v1.curve25519-aes-sha2") }
	}, ErrUnknownAlgorithm)
	m.fails("envelope too large", "", func(s *sealing) {
		s.event = func(c string) string { return m.with(c, "more", strings.Repeat("x", 64<<10)) }
	}, ErrOversize)
	m.fails("compressed", "zip in the header", func(s *sealing) { s.options.Compression = jose.DEFLATE }, ErrAlteredHeader)
	m.fails("JWE with a key", "jwk in the header", func(s *sealing) { s.options = s.options.WithHeader("jwk", map[string]string{"kty": "oct"}) }, ErrAlteredHeader)
	m.fails("OAEP with SHA-1", "", func(s *sealing) { s.keyAlg = jose.RSA_OAEP }, ErrAlteredHeader)
	m.fails("AES-128", "", func(s *sealing) { s.enc = jose.A128GCM }, ErrAlteredHeader)
	m.fails("no cty", "", func(s *sealing) { s.options = &jose.EncrypterOptions{} }, ErrAlteredHeader)
	m.fails("JWE header with a name twice", "", func(s *sealing) {
		s.event = m.ciphertext(func(c string) string {
			return m.replaceHeader(c, `{"alg":"RSA-OAEP-256","alg":"RSA-OAEP-256","cty":"JWT","enc":"A256GCM","kid":"`+s.to.Kid+`"}`)
		})
	}, ErrAlteredHeader)
	m.fails("JWE header rewritten", "the same members in another order are not what was authenticated", func(s *sealing) {
		s.event = m.ciphertext(func(c string) string {
			return m.replaceHeader(c, `{"kid":"`+s.to.Kid+`", "enc":"A256GCM","cty":"JWT","alg":"RSA-OAEP-256"}`)
		})
	}, ErrUndecryptable)
	m.fails("tag altered", "", func(s *sealing) {
		s.event = m.ciphertext(func(c string) string { return flip(c, strings.LastIndexByte(c, '.')+1) })
	}, ErrUndecryptable)
	m.fails("wrapped key altered", "", func(s *sealing) {
		s.event = m.ciphertext(func(c string) string { return flip(c, strings.IndexByte(c, '.')+9) })
	}, ErrUndecryptable)
	m.fails("four parts", "", func(s *sealing) {
		s.event = m.ciphertext(func(c string) string { return c[:strings.LastIndexByte(c, '.')] })
	}, ErrMalformed)
	m.fails("padded base64url", "", func(s *sealing) { s.event = m.ciphertext(func(c string) string { return c + "==" }) }, ErrMalformed)
	m.fails("JWS with alg none", "", func(s *sealing) {
		s.jws = func(c string) string {
			c = m.replaceHeader(c, `{"alg":"none","kid":"ed25519:`+s.sender.ID+`","typ":"`+AlgorithmSealed+`"}`)
			return c[:strings.LastIndexByte(c, '.')+1]
		}
	}, ErrAlteredHeader)
	m.fails("JWS with a key", "jwk in the header", func(s *sealing) {
		s.jws = func(c string) string {
			return m.replaceHeader(c, `{"alg":"EdDSA","jwk":{"kty":"OKP"},"kid":"ed25519:`+s.sender.ID+`","typ":"`+AlgorithmSealed+`"}`)
		}
	}, ErrAlteredHeader)
	m.fails("JWS of another kind", "typ of another protocol", func(s *sealing) {
		s.jws = func(c string) string {
			return m.replaceHeader(c, `{"alg":"EdDSA","kid":"ed25519:`+s.sender.ID+`","typ":"JWT"}`)
		}
	}, ErrAlteredHeader)
	m.fails("JWS kid of another device", "", func(s *sealing) { m.set(s, "sender_device", "ANOTHER") }, ErrAlteredHeader)
}

// flip changes a character of base64url into another.
func flip(s string, at int) string {
	c := byte('A')
	if s[at] == 'A' {
		c = 'B'
	}
	return s[:at] + string(c) + s[at+1:]
}

func (m *maker) sealedSenders() {
	m.fails("not signed by the sender", "anybody can encrypt to Bob; Mallory signs as Alice", func(s *sealing) {
		s.sender = &person{Device: &Device{User: alice().User, ID: alice().ID, signing: mallory().signing, exchange: mallory().exchange}, identity: mallory().identity}
	}, ErrForgedSignature)
	m.fails("signature of other words", "", func(s *sealing) {
		s.jws = func(c string) string {
			parts := strings.Split(c, ".")
			return parts[0] + "." + matrix.EncodeURLBase64([]byte(m.with(s.payload, "msg_id", "message-2"))) + "." + parts[2]
		}
	}, ErrForgedSignature)
	m.fails("sent on as one's own", "the server delivers it as Mallory's", func(s *sealing) { s.from = mallory().User }, ErrWrongSender)
	m.fails("identity not to be had", "it waits", func(s *sealing) {
		s.input = func(in *sealedInput) { in.Sender.CrossSigning = nil }
	}, ErrNoIdentity)
	m.fails("identity changed", "the server shows another master key than the pinned one", func(s *sealing) {
		s.input = func(in *sealedInput) { in.Sender.Pin = mallory().master() }
	}, ErrIdentityChanged)
	m.fails("names another master key", "", func(s *sealing) { m.set(s, "sender_master_key", mallory().master()) }, ErrIdentityChanged)
	m.fails("of a device not cross-signed", "", func(s *sealing) {
		m.set(s, "sender_device_keys", raw([]byte(m.with(string(alice().keys), "signatures", raw(m.ownSignature(alice()))))))
	}, ErrUnsignedDevice)
	m.fails("of a device that changed", "the server knows other keys of that id", func(s *sealing) {
		s.input = func(in *sealedInput) {
			other := m.resigned(alice(), func(k string) string {
				return m.withKey(k, keyExchange+alice().ID, matrix.EncodeBase64(bob().qualified(m.t).spki))
			})
			in.Sender.Known = &other
		}
	}, ErrDeviceChanged)
	m.fails("of a dehydrated device", "it only receives", func(s *sealing) {
		keys := m.resigned(alice(), func(k string) string { return m.with(k, "dehydrated", true) })
		m.set(s, "sender_device_keys", json.RawMessage(keys))
		s.input = func(in *sealedInput) { in.Sender.Known = &keys }
	}, ErrDehydratedSender)
}

// ownSignature are the signatures of a device that its owner's identity did not sign.
func (m *maker) ownSignature(p *person) []byte {
	plain, err := p.PublicKeys()
	m.must(err)
	signatures, _ := matrix.Get(plain, "signatures")
	return signatures
}

func (m *maker) sealedRecipients() {
	m.fails("for another key", "", func(s *sealing) { s.to = mallory().qualified(m.t) }, ErrWrongRecipient)
	m.fails("sealed on to another user", "Mallory was sent it, and seals what Alice signed to Bob", func(s *sealing) {
		p := mallory()
		m.set(s, "recipient", p.User)
		m.set(s, "recipient_device", p.ID)
		m.set(s, "recipient_kid", p.Kid())
		m.set(s, "recipient_master_key", p.master())
	}, ErrWrongRecipient)
	m.fails("for another device", "", func(s *sealing) { m.set(s, "recipient_device", "ANOTHER") }, ErrWrongRecipient)
	m.fails("for another kid", "", func(s *sealing) { m.set(s, "recipient_kid", mallory().Kid()) }, ErrWrongRecipient)
	m.fails("for a foreign identity", "somebody showed Alice a master key that never was Bob's", func(s *sealing) {
		m.set(s, "recipient_master_key", mallory().master())
	}, ErrForeignIdentity)
}
