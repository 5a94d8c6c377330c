package sealed

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"conclave/internal/matrix"
)

// TypeEncrypted is the type of every encrypted event, in rooms and to devices.
const TypeEncrypted = "m.room.encrypted"

// An Outbound session encrypts what one device says in one room. Its ratchet runs forward only and forgets: who takes the
// session later cannot read what was sent before, except from those who keep history on purpose. It is not safe for
// concurrent use; a device must have one holder of a session, or indices repeat.
type Outbound struct {
	device    *Device
	room      matrix.RoomID
	signing   ed25519.PrivateKey // made for this session alone
	ratchet   ratchet
	index     uint32
	history   string
	createdAt time.Time
}

// NewOutbound begins a session with a fresh ratchet and a fresh signing key. The history visibility is the room's at this
// moment, and the session is bound to it: change it, and a new session is needed.
func NewOutbound(device *Device, room matrix.RoomID, history string, now time.Time) (*Outbound, error) {
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a session's key: %w", err)
	}
	o := &Outbound{device: device, room: room, signing: signing, history: history, createdAt: now}
	if _, err := rand.Read(o.ratchet[:]); err != nil {
		return nil, fmt.Errorf("make a session's ratchet: %w", err)
	}
	return o, nil
}

// ID is the session's public signing key in base64: the identifier cannot be bound to another key.
func (o *Outbound) ID() string { return encodePublic(o.signing) }

// Index is the index that the next message will have, which is also how many were encrypted.
func (o *Outbound) Index() uint32 { return o.index }

// CreatedAt is when the session began.
func (o *Outbound) CreatedAt() time.Time { return o.createdAt }

// RoomKey is the content of an im.conclave.room_key that lets its reader decrypt from the present index on, and nothing
// before it. It must travel sealed, to devices that qualify.
func (o *Outbound) RoomKey() ([]byte, error) {
	statement, err := ownerStatement(o.room, o.history, o.device.User, o.device.SigningKey())
	if err != nil {
		return nil, err
	}
	k := &roomKey{room: o.room, session: o.ID(), ratchet: o.ratchet, index: o.index, visibility: o.history}
	return encodeRoomKey(k, matrix.EncodeBase64(ed25519.Sign(o.signing, statement)))
}

// Encrypt makes the content of the m.room.encrypted event that carries an event of the given type and content. record is
// called with the index before anything is encrypted and must make durable that it is used; if it fails, nothing is
// encrypted and the index stays free. The relation of the content, if it is one that servers have to see, is repeated
// outside, and authenticated there.
func (o *Outbound) Encrypt(eventType string, content []byte, record func(index uint32) error) ([]byte, error) {
	if o.index >= maxIndex {
		return nil, ErrOversize.because("the session is used up")
	}
	plaintext, err := encode(map[string]any{"room_id": o.room, "type": eventType, "content": raw(content)})
	if err != nil {
		return nil, err
	}
	inner, err := encryptedContent(plaintext)
	if err != nil {
		return nil, err
	}
	if err := inner.mayTravel(); err != nil {
		return nil, err
	}
	relation, err := inner.clearRelation()
	if err != nil {
		return nil, err
	}
	padded, err := pad(plaintext)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, saltLength)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	index := o.index
	if err := record(index); err != nil {
		return nil, fmt.Errorf("record index %d as used: %w", index, err)
	}
	used := o.ratchet
	o.ratchet, o.index = used.step(), index+1
	m := &message{
		device: o.device.ID, session: o.ID(), index: index, salt: matrix.EncodeBase64(salt), relation: relation,
	}
	return m.encrypt(o, used, salt, padded)
}

func (m *message) encrypt(o *Outbound, used ratchet, salt, padded []byte) ([]byte, error) {
	aad, err := m.additional(o.room, o.device.User)
	if err != nil {
		return nil, err
	}
	if m.ciphertext, err = used.seal(salt, padded, aad); err != nil {
		return nil, err
	}
	m.signature = matrix.EncodeBase64(ed25519.Sign(o.signing, m.signed(aad)))
	return m.encode()
}
