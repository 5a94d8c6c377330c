package sealed

import (
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave/internal/matrix"
)

// callAge is how old a message about a call may be.
const callAge = 5 * time.Minute

// A Receiver opens what is sealed to one device. It is not safe for concurrent use.
type Receiver struct {
	Device *Device
	Master string   // the master key of the device's owner, in base64
	Former []string // master keys that the owner had before

	// Lookup returns what is known of the device that a message says it comes from: the verified identity of its owner
	// (nil if it cannot be had now: the message waits), and the device's keys as the server gives them out (nil if the
	// device is gone, and what came inside serves).
	Lookup func(user matrix.UserID, device string) (identity *CrossSigning, deviceKeys []byte)

	seen map[string]struct{}
}

// ToDevice is a to-device event as a server delivered it, of which nothing is believed.
type ToDevice struct {
	Sender  matrix.UserID
	Type    string
	Content []byte
}

// Opened is a message of which the sender is proven.
type Opened struct {
	Type     string
	Content  []byte // canonical JSON
	MsgID    string
	From     *DeviceKeys
	IssuedAt time.Time
}

// Origin is whose session a room key in this message may be.
func (o *Opened) Origin() Origin {
	return Origin{User: o.From.User, Device: o.From.Device, SigningKey: o.From.SigningKey()}
}

// Seen marks a message as received, as it has to be when a profile is loaded: ids are kept as long as the device's RSA key.
func (r *Receiver) Seen(msgID string) {
	if r.seen == nil {
		r.seen = map[string]struct{}{}
	}
	r.seen[msgID] = struct{}{}
}

// Open decrypts a message and accepts it only if it was sealed for this device of this user under this identity, is signed
// by a device that qualifies under the pinned identity of the user that the server names as sender, and was not received
// before. Nothing on the envelope is believed: all names are those that were signed. A caller must let no failure be seen
// from outside.
func (r *Receiver) Open(e ToDevice, now time.Time) (*Opened, error) {
	if e.Type != TypeEncrypted {
		return nil, ErrMalformed.because("not an encrypted message")
	}
	f := readForm(e.Content, maxEnvelope)
	if f.err == nil {
		f.algorithm(AlgorithmSealed)
	}
	ciphertext := f.text("ciphertext")
	f.name("sender_device")
	if f.err != nil {
		return nil, f.err
	}
	signed, err := r.decrypt(ciphertext)
	if err != nil {
		return nil, err
	}
	opened, err := r.read(string(signed), e.Sender)
	if err != nil {
		return nil, err
	}
	if err := r.accept(opened, now); err != nil {
		return nil, err
	}
	r.Seen(opened.MsgID)
	return opened, nil
}

// decrypt opens the JWE. Its header is held to the one form first: the library would inflate "zip" and honour others.
func (r *Receiver) decrypt(compact string) ([]byte, error) {
	header, parts, err := splitCompact(compact, 5)
	if err != nil {
		return nil, err
	}
	h := readForm(header, maxEnvelope)
	h.exactly("alg", "enc", "kid", "cty")
	h.constant("alg", string(jose.RSA_OAEP_256))
	h.constant("enc", string(jose.A256GCM))
	h.constant("cty", "JWT")
	kid := h.text("kid")
	switch {
	case h.err != nil:
		return nil, ErrAlteredHeader.because("%v", h.err)
	case len(parts[2]) != 12 || len(parts[4]) != 16:
		return nil, ErrMalformed.because("nonce or tag has another length")
	case kid != r.Device.Kid():
		return nil, ErrWrongRecipient.because("not a key of this device")
	}
	jwe, err := jose.ParseEncryptedCompact(compact, []jose.KeyAlgorithm{jose.RSA_OAEP_256}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, ErrMalformed.because("not a JWE")
	}
	plaintext, err := jwe.Decrypt(r.Device.exchange)
	if err != nil {
		return nil, ErrUndecryptable
	}
	return plaintext, nil
}

// splitCompact takes a compact serialization apart, strictly, and returns its header and all its parts.
func splitCompact(compact string, n int) (header []byte, parts [][]byte, err error) {
	texts := strings.Split(compact, ".")
	if len(texts) != n {
		return nil, nil, ErrMalformed.because("not %d parts", n)
	}
	for _, text := range texts {
		part, err := decodeURL64(text)
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, part)
	}
	return parts[0], parts, nil
}

// signedMessage is an opened message with what it says about its recipient.
type signedMessage struct {
	Opened
	recipient, recipientDevice, recipientKid, recipientMaster string
}

// read checks who signed the JWS.
func (r *Receiver) read(compact string, eventSender matrix.UserID) (*Opened, error) {
	header, parts, err := splitCompact(compact, 3)
	if err != nil {
		return nil, err
	}
	p := readForm(parts[1], maxEnvelope)
	h := readForm(header, maxEnvelope)
	h.exactly("alg", "kid", "typ")
	h.constant("alg", string(jose.EdDSA))
	h.constant("typ", AlgorithmSealed)
	kid := h.text("kid")
	if h.err != nil {
		return nil, ErrAlteredHeader.because("%v", h.err)
	}
	m := signedMessage{
		Opened:    Opened{Type: p.name("type"), MsgID: p.name("msg_id"), IssuedAt: time.Unix(p.integer("iat"), 0)},
		recipient: p.name("recipient"), recipientDevice: p.name("recipient_device"), recipientKid: p.name("recipient_kid"),
		recipientMaster: p.name("recipient_master_key"),
	}
	content, _ := p.object("content")
	deviceKeys, _ := p.object("sender_device_keys")
	sender, device, master := p.name("sender"), p.name("sender_device"), p.name("sender_master_key")
	if p.err != nil {
		return nil, p.err
	}
	switch {
	case kid != keySigning+device:
		return nil, ErrAlteredHeader.because("signed by another device than named")
	case matrix.UserID(sender) != eventSender:
		return nil, ErrWrongSender.because("not the sender of the event")
	}
	if m.Content, err = Canonical(content); err != nil {
		return nil, err
	}
	if m.From, err = r.sender(eventSender, device, master, deviceKeys); err != nil {
		return nil, err
	}
	if err := verifyJWS(compact, m.From); err != nil {
		return nil, err
	}
	return &m.Opened, r.isRecipient(&m)
}

// sender decides whether the device that a message comes from may be believed.
func (r *Receiver) sender(user matrix.UserID, device, master string, inside []byte) (*DeviceKeys, error) {
	identity, known := r.Lookup(user, device)
	keys, err := Qualify(inside, user, device, identity)
	if err != nil {
		return nil, err
	}
	if master != identity.MasterKey() {
		return nil, ErrIdentityChanged.because("the message names another master key")
	}
	if known != nil {
		current, err := Qualify(known, user, device, identity)
		if err != nil || !current.Same(keys) {
			return nil, ErrDeviceChanged
		}
	}
	if keys.Dehydrated {
		return nil, ErrDehydratedSender
	}
	return keys, nil
}

func verifyJWS(compact string, by *DeviceKeys) error {
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return ErrMalformed.because("not a JWS")
	}
	if _, err := jws.Verify(by.Signing); err != nil {
		return ErrForgedSignature
	}
	return nil
}

// isRecipient demands that the sender meant this device, by all its names: nobody who was sent a message can seal it on.
func (r *Receiver) isRecipient(m *signedMessage) error {
	if m.recipient != string(r.Device.User) || m.recipientDevice != r.Device.ID || m.recipientKid != r.Device.Kid() {
		return ErrWrongRecipient.because("signed for another")
	}
	if m.recipientMaster == r.Master {
		return nil
	}
	for _, former := range r.Former {
		if m.recipientMaster == former {
			return nil
		}
	}
	return ErrForeignIdentity
}

// accept decides whether an authentic message is one to act on.
func (r *Receiver) accept(o *Opened, now time.Time) error {
	if _, again := r.seen[o.MsgID]; again {
		return ErrReplayedMessage
	}
	switch call := strings.HasPrefix(o.Type, "m.call."); {
	case call && now.Sub(o.IssuedAt) >= callAge:
		return ErrExpired
	case !call && o.Type != TypeRoomKey && o.Type != "im.conclave.history_request" && o.Type != "m.room_key_bundle":
		return ErrUnknownType.because("nothing of this type travels sealed")
	}
	return nil
}
