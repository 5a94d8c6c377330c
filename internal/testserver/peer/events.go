package peer

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"

	"conclave/internal/matrix"
)

// Event is an event as the Peer made it.
type Event struct {
	ID      matrix.EventID
	Room    matrix.RoomID
	Members map[string]any
	JSON    []byte
}

// Stage is a moment in the making of an event.
type Stage int

// The stages at which a Knob may change an event's members.
const (
	BeforeHash Stage = iota // everything fits in the end
	BeforeSign              // the content hash does not fit what was changed
	AfterSign               // neither hash nor signature fit
)

// Knob breaks an event while it is made.
type Knob struct {
	Stage  Stage
	Change func(members map[string]any)

	// Raw, if it is not nil, alters the text at the end.
	Raw func([]byte) []byte

	// Signer, if it is not nil, signs in place of the Peer.
	Signer func(members map[string]any, message []byte)
}

// Set changes one member before hashing and signing; nil removes it.
func Set(name string, value any) Knob {
	return Knob{Change: func(m map[string]any) { put(m, name, value) }}
}

// SetLate changes one member after signing.
func SetLate(name string, value any) Knob {
	return Knob{Stage: AfterSign, Change: func(m map[string]any) { put(m, name, value) }}
}

func put(m map[string]any, name string, value any) {
	if value == nil {
		delete(m, name)
		return
	}
	m[name] = value
}

// NoSignature leaves the event unsigned.
func NoSignature() Knob { return Knob{Signer: func(map[string]any, []byte) {}} }

// BadSignature spoils one bit of the signature.
func (p *Peer) BadSignature() Knob {
	return Knob{Signer: func(m map[string]any, message []byte) {
		sig := ed25519.Sign(p.Key, message)
		sig[10] ^= 1
		addSignature(m, p.Name, p.KeyID, sig)
	}}
}

// SignedWith signs by any key in any name.
func SignedWith(name matrix.ServerName, id matrix.KeyID, key ed25519.PrivateKey) Knob {
	return Knob{Signer: func(m map[string]any, message []byte) { addSignature(m, name, id, ed25519.Sign(key, message)) }}
}

// Countersigned adds a signature by any key in any name to the Peer's own.
func (p *Peer) Countersigned(name matrix.ServerName, id matrix.KeyID, key ed25519.PrivateKey) Knob {
	return Knob{Signer: func(m map[string]any, message []byte) {
		addSignature(m, p.Name, p.KeyID, ed25519.Sign(p.Key, message))
		addSignature(m, name, id, ed25519.Sign(key, message))
	}}
}

// BadHash makes the content hash one of something else; the signature covers it.
func BadHash() Knob {
	return Knob{Stage: BeforeSign, Change: func(m map[string]any) {
		sum := sha256.Sum256([]byte("something else"))
		m["hashes"] = map[string]any{"sha256": unpadded(sum[:])}
	}}
}

// DuplicateMember gives the event a member twice.
func DuplicateMember(text string) Knob {
	return Knob{Raw: func(raw []byte) []byte {
		return append(append(append([]byte{}, raw[:len(raw)-1]...), ","+text...), '}')
	}}
}

// Seal makes an event of members that somebody else proposed: hashed, signed, named.
func (p *Peer) Seal(v matrix.RoomVersion, members map[string]any, knobs ...Knob) *Event {
	return p.seal(v, members, knobs)
}

// seal hashes and signs an event's members and names it.
func (p *Peer) seal(v matrix.RoomVersion, members map[string]any, knobs []Knob) *Event {
	apply := func(stage Stage) {
		for _, k := range knobs {
			if k.Stage == stage && k.Change != nil {
				k.Change(members)
			}
		}
	}
	apply(BeforeHash)
	bare := maps.Clone(members)
	for _, name := range []string{"unsigned", "signatures", "hashes"} {
		delete(bare, name)
	}
	sum := sha256.Sum256(encode(bare))
	members["hashes"] = map[string]any{"sha256": unpadded(sum[:])}
	apply(BeforeSign)
	signer := func(m map[string]any, message []byte) {
		addSignature(m, p.Name, p.KeyID, ed25519.Sign(p.Key, message))
	}
	for _, k := range knobs {
		if k.Signer != nil {
			signer = k.Signer
		}
	}
	signer(members, encode(withoutSignatures(redact(v, members))))
	e := &Event{ID: eventID(v, members), Members: members}
	apply(AfterSign)
	e.JSON = encode(members)
	for _, k := range knobs {
		if k.Raw != nil {
			e.JSON = k.Raw(e.JSON)
		}
	}
	room, _ := members["room_id"].(string)
	e.Room = matrix.RoomID(room)
	if v.RoomIDIsCreateHash() && members["type"] == "m.room.create" {
		e.Room = matrix.RoomID("!" + e.ID[1:])
	}
	return e
}

func withoutSignatures(m map[string]any) map[string]any {
	out := maps.Clone(m)
	delete(out, "signatures")
	delete(out, "unsigned")
	return out
}

func eventID(v matrix.RoomVersion, members map[string]any) matrix.EventID {
	if v.EventIDsInEvent() {
		id, _ := members["event_id"].(string)
		return matrix.EventID(id)
	}
	sum := sha256.Sum256(encode(withoutSignatures(redact(v, members))))
	if v.URLSafeEventIDs() {
		return matrix.EventID("$" + base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	return matrix.EventID("$" + unpadded(sum[:]))
}

// redact is the redaction algorithm, written down from the room versions' pages a second time.
func redact(v matrix.RoomVersion, members map[string]any) map[string]any {
	keep := []string{"event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
		"prev_events", "auth_events", "origin_server_ts"}
	if v < 11 {
		keep = append(keep, "origin", "membership", "prev_state")
	}
	out := map[string]any{}
	for name, value := range members {
		if slices.Contains(keep, name) {
			out[name] = value
		}
	}
	content, _ := members["content"].(map[string]any)
	kind, _ := members["type"].(string)
	out["content"] = redactContent(v, kind, content)
	return out
}

func redactContent(v matrix.RoomVersion, kind string, content map[string]any) map[string]any {
	if kind == "m.room.create" && v >= 11 {
		return maps.Clone(content)
	}
	kept := map[string][]string{
		"m.room.member":             {"membership"},
		"m.room.create":             {"creator"},
		"m.room.join_rules":         {"join_rule"},
		"m.room.power_levels":       {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"},
		"m.room.history_visibility": {"history_visibility"},
	}
	if v < 6 {
		kept["m.room.aliases"] = []string{"aliases"}
	}
	if v >= 8 {
		kept["m.room.join_rules"] = append(kept["m.room.join_rules"], "allow")
	}
	if v >= 9 {
		kept["m.room.member"] = append(kept["m.room.member"], "join_authorised_via_users_server")
	}
	if v >= 11 {
		kept["m.room.power_levels"] = append(kept["m.room.power_levels"], "invite")
		kept["m.room.redaction"] = []string{"redacts"}
	}
	out := map[string]any{}
	for _, name := range kept[kind] {
		if value, ok := content[name]; ok {
			out[name] = value
		}
	}
	if kind == "m.room.member" && v >= 11 {
		if invite, ok := content["third_party_invite"].(map[string]any); ok && invite["signed"] != nil {
			out["third_party_invite"] = map[string]any{"signed": invite["signed"]}
		}
	}
	return out
}
