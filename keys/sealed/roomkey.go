package sealed

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
)

// TypeRoomKey is the to-device message that carries the key of a session.
const TypeRoomKey = "im.conclave.room_key"

// roomKey is the content of a room key, read and checked.
type roomKey struct {
	room       matrix.RoomID
	session    string
	public     ed25519.PublicKey
	ratchet    ratchet
	index      uint32
	visibility string
}

// ownerStatement is what the session's own key signs: whose session it is and for which room. Whoever sees a session id
// on the wire cannot make one, so nobody can occupy the session of somebody else.
func ownerStatement(room matrix.RoomID, visibility string, sender matrix.UserID, senderKey string) ([]byte, error) {
	text, err := encode(map[string]any{
		"history_visibility": visibility, "room_id": room, "sender": sender, "sender_key": senderKey,
	})
	return append([]byte(ownerDomain), text...), err
}

// parseRoomKey reads a room key and checks that it belongs to the device that it is said to come from.
func parseRoomKey(content []byte, from Origin) (*roomKey, error) {
	f := readForm(content, maxEnvelope)
	if f.err == nil {
		f.algorithm(AlgorithmGroup)
	}
	index := f.integer("index")
	k := &roomKey{
		room: matrix.RoomID(f.name("room_id")), session: f.name("session_id"), index: uint32(min(index, maxIndex)),
		visibility: f.text("history_visibility"), ratchet: ratchet(f.bytes("ratchet", len(ratchet{}))),
	}
	proof := f.text("proof")
	if !slices.Contains(visibilities, k.visibility) {
		f.fail(ErrMalformed, "no such history visibility")
	}
	if f.err != nil {
		return nil, f.err
	}
	if index >= maxIndex {
		return nil, ErrOversize.because("index %d", index)
	}
	var err error
	if k.public, err = publicKey(k.session); err != nil {
		return nil, err
	}
	statement, err := ownerStatement(k.room, k.visibility, from.User, from.SigningKey)
	if err != nil {
		return nil, err
	}
	return k, verify(k.public, statement, proof)
}

var visibilities = []string{"invited", "joined", "shared", "world_readable"}

// encodeRoomKey writes the content of a room key.
func encodeRoomKey(k *roomKey, proof string) ([]byte, error) {
	return encode(map[string]any{
		"algorithm": AlgorithmGroup, "room_id": k.room, "session_id": k.session, "ratchet": matrix.EncodeBase64(k.ratchet[:]),
		"index": k.index, "history_visibility": k.visibility, "proof": proof,
	})
}

// raw lets JSON that is already text stand inside a value to be encoded; null for none.
func raw(text []byte) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	return text
}
