package sealed

import (
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave/internal/matrix"
)

// A Sender seals messages from one device to others.
type Sender struct {
	Device *Device
	Keys   []byte // the device's published keys with the signature of its owner's identity: they serve when it is gone
	Master string // its owner's master key in base64
}

// payload is what the sender signs: everything that a receiver could be deceived about, by name and by key.
type payload struct {
	Type             string          `json:"type"`
	Content          json.RawMessage `json:"content"`
	Sender           matrix.UserID   `json:"sender"`
	SenderDevice     string          `json:"sender_device"`
	SenderDeviceKeys json.RawMessage `json:"sender_device_keys"`
	SenderMaster     string          `json:"sender_master_key"`
	Recipient        matrix.UserID   `json:"recipient"`
	RecipientDevice  string          `json:"recipient_device"`
	RecipientKid     string          `json:"recipient_kid"`
	RecipientMaster  string          `json:"recipient_master_key"`
	MsgID            string          `json:"msg_id"`
	IssuedAt         int64           `json:"iat"`
}

// Seal makes the content of an m.room.encrypted to-device event that only the given device can open, and that proves to
// it, and to nobody else's device in its place, who sent it. The keys must have qualified, and recipientMaster is the
// pinned master key under which they did.
func (s *Sender) Seal(to *DeviceKeys, recipientMaster, messageType string, content []byte, now time.Time) ([]byte, error) {
	p := payload{
		Type: messageType, Content: raw(content), Sender: s.Device.User, SenderDevice: s.Device.ID, SenderDeviceKeys: s.Keys,
		SenderMaster: s.Master, Recipient: to.User, RecipientDevice: to.Device, RecipientKid: to.Kid, RecipientMaster: recipientMaster,
		MsgID: rand.Text(), IssuedAt: now.Unix(),
	}
	text, err := encode(p)
	if err != nil {
		return nil, err
	}
	return s.sealPayload(to, text)
}

func (s *Sender) sealPayload(to *DeviceKeys, text []byte) ([]byte, error) {
	signed, err := s.sign(text)
	if err != nil {
		return nil, err
	}
	ciphertext, err := encryptTo(to, signed)
	if err != nil {
		return nil, err
	}
	envelope, err := encode(map[string]string{
		"algorithm": AlgorithmSealed, "sender_device": s.Device.ID, "ciphertext": ciphertext,
	})
	if err == nil && len(envelope) > maxEnvelope {
		err = ErrOversize.because("an envelope of %d bytes", len(envelope))
	}
	return envelope, err
}

// sign makes the inner JWS.
func (s *Sender) sign(text []byte) (string, error) {
	key := jose.JSONWebKey{Key: s.Device.signing, KeyID: keySigning + s.Device.ID}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType(AlgorithmSealed))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(text)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// encryptTo makes the outer JWE.
func encryptTo(to *DeviceKeys, text string) (string, error) {
	recipient := jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: to.Exchange, KeyID: to.Kid}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, recipient, (&jose.EncrypterOptions{}).WithContentType("JWT"))
	if err != nil {
		return "", err
	}
	jwe, err := encrypter.Encrypt([]byte(text))
	if err != nil {
		return "", err
	}
	return jwe.CompactSerialize()
}
