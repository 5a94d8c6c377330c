package sealed

import (
	"bytes"

	"conclave/internal/matrix"
)

// message is the content of an encrypted event of a room.
type message struct {
	device, session string
	index           uint32
	salt            string // in base64, as it is authenticated
	saltBytes       []byte
	ciphertext      []byte
	signature       string
	relation        []byte // canonical; nil for none
}

// parseMessage reads the content. Members that it does not know are passed over: nothing authenticates them, and nothing
// is made of them.
func parseMessage(content []byte) (*message, error) {
	f := readForm(content, maxEnvelope)
	if f.err == nil {
		f.algorithm(AlgorithmGroup)
	}
	index := f.integer("index")
	m := &message{
		device: f.name("device_id"), session: f.name("session_id"), index: uint32(min(index, maxIndex)),
		salt: f.text("salt"), saltBytes: f.bytes("salt", saltLength), ciphertext: f.bytes("ciphertext", -1), signature: f.text("signature"),
	}
	if f.has("m.relates_to") {
		text, _ := f.object("m.relates_to")
		if f.err == nil {
			m.relation, f.err = Canonical(text)
		}
	}
	switch {
	case f.err != nil:
		return nil, f.err
	case index >= maxIndex:
		return nil, ErrOversize.because("index %d", index)
	case len(m.ciphertext) > maxPlaintext+16:
		return nil, ErrOversize.because("a ciphertext of %d bytes", len(m.ciphertext))
	}
	return m, nil
}

// additional is the data that the ciphertext is bound to: moved to another room, sender, device, session, index or
// relation, it no longer opens.
func (m *message) additional(room matrix.RoomID, sender matrix.UserID) ([]byte, error) {
	return encode(map[string]any{
		"algorithm": AlgorithmGroup, "room_id": room, "sender": sender, "device_id": m.device, "session_id": m.session,
		"index": m.index, "salt": m.salt, "relates_to": raw(m.relation),
	})
}

// signed is what the session's key signs.
func (m *message) signed(aad []byte) []byte {
	return bytes.Join([][]byte{[]byte(groupDomain), aad, {0}, m.ciphertext}, nil)
}

func (m *message) encode() ([]byte, error) {
	content := map[string]any{
		"algorithm": AlgorithmGroup, "device_id": m.device, "session_id": m.session, "index": m.index, "salt": m.salt,
		"ciphertext": matrix.EncodeBase64(m.ciphertext), "signature": m.signature,
	}
	if m.relation != nil {
		content["m.relates_to"] = raw(m.relation)
	}
	return encode(content)
}

// inner is a decrypted event.
type inner struct {
	room      string
	eventType string
	content   []byte // canonical
}

// encryptedContent reads a plaintext, padded or not.
func encryptedContent(plaintext []byte) (*inner, error) {
	f := readForm(plaintext, maxPlaintext)
	e := &inner{room: f.name("room_id"), eventType: f.name("type")}
	content, _ := f.object("content")
	if f.err != nil {
		return nil, f.err
	}
	var err error
	e.content, err = Canonical(content)
	return e, err
}

// mayTravel refuses what is never a message: an encryption within an encryption, and redactions, which are the servers' word.
func (e *inner) mayTravel() error {
	if e.eventType == TypeEncrypted || e.eventType == "m.room.redaction" {
		return ErrUnknownType.because("%s inside an encrypted event", e.eventType)
	}
	return nil
}

// clearRelation is what has to stand outside of the encrypted content, so that servers can follow threads and edits: no
// more than the kind and the other event. A reaction is outside a mere reference, so no server counts emoji.
func (e *inner) clearRelation() ([]byte, error) {
	relation, ok := matrix.Get(e.content, "m.relates_to")
	if !ok {
		return nil, nil
	}
	if _, ok := matrix.Get(relation, "rel_type"); !ok {
		return nil, nil // a plain reply
	}
	f := readForm(relation, maxEnvelope)
	kind, event := f.name("rel_type"), f.name("event_id")
	if f.err != nil {
		return nil, f.err
	}
	if kind == "m.annotation" {
		kind = "m.reference"
	}
	return encode(map[string]any{"rel_type": kind, "event_id": event})
}

// checkRelation demands that the relation outside is exactly what the sender's own program would have put there.
func (e *inner) checkRelation(clear []byte) error {
	want, err := e.clearRelation()
	if err != nil || !bytes.Equal(want, clear) {
		return ErrAlteredRelation
	}
	return nil
}
