package matrix

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
)

// Template is an event that we are about to make. Only from such a template do we ever sign an event as its sender's
// server: what others draft is read for the few fields that are needed, and built here (law 12).
type Template struct {
	RoomID         RoomID // "" for the create event of a version 12 room
	Sender         UserID
	Type           string
	StateKey       *string
	Content        []byte // a JSON object
	PrevEvents     []EventID
	AuthEvents     []EventID
	Depth          int64
	OriginServerTS int64   // ms
	Redacts        EventID // of a redaction in versions before 11
}

// Build makes the event: canonical text, content hash, signature, ID. The content is written canonically; what cannot
// be (floats, large integers, too many bytes) is refused with M_BAD_JSON or M_TOO_LARGE.
func (t *Template) Build(v RoomVersion, server ServerName, key KeyID, priv ed25519.PrivateKey) (*Event, error) {
	content, err := StrictCanonicalJSON(t.Content)
	if err != nil {
		return nil, BadJSON("The content cannot be sent: numbers have to be integers below 2^53.").With(err)
	}
	if firstByte(content) != '{' {
		return nil, BadJSON("The content is not a JSON object.")
	}
	e := &Event{
		version: v, room: t.RoomID, typ: t.Type, sender: t.Sender, stateKey: t.StateKey, ts: t.OriginServerTS,
		depth: t.Depth, content: content, prev: t.PrevEvents, auth: t.AuthEvents, redacts: t.Redacts,
	}
	if v.EventIDsInEvent() {
		e.id = newEventID(server)
	}
	if v.RedactsInContent() {
		e.redacts = ""
	}
	b := builder{e: e, buf: make([]byte, 0, len(content)+1024)}
	hash := sha256.Sum256(b.write(content, nil, nil))
	redacted := redactContent(e)
	signed := b.write(redacted, hash[:], nil)
	sig := ed25519.Sign(priv, signed)
	if !v.EventIDsInEvent() {
		e.setID(sha256.Sum256(signed))
	}
	signatures := append(AppendString(append(AppendString([]byte("{"), string(server)), ":{"...), string(key)), ':')
	signatures = append(AppendString(signatures, EncodeBase64(sig)), "}}"...)
	e.json = b.write(content, hash[:], signatures)
	e.content, _ = find(e.json, "content")
	if err := errors.Join(e.bounds(t.RoomID), e.references()); err != nil {
		if len(e.json) > MaxEventSize {
			return nil, TooLarge("The event is larger than %d bytes.", MaxEventSize).With(err)
		}
		return nil, BadJSON("The event cannot be sent.").With(err)
	}
	return e, nil
}

// Unsigned makes the event without hash, signature and ID: what a resident server proposes to a server that asks how to
// join, and what the rules can judge before anybody has signed it.
func (t *Template) Unsigned(v RoomVersion) (*Event, error) {
	content, err := StrictCanonicalJSON(t.Content)
	if err != nil {
		return nil, BadJSON("The content cannot be sent.").With(err)
	}
	e := &Event{
		version: v, room: t.RoomID, typ: t.Type, sender: t.Sender, stateKey: t.StateKey, ts: t.OriginServerTS,
		depth: t.Depth, content: content, prev: t.PrevEvents, auth: t.AuthEvents,
	}
	b := builder{e: e, buf: make([]byte, 0, len(content)+1024)}
	e.json, err = without(b.write(content, nil, nil), "event_id")
	return e, err
}

// newEventID makes an ID of the form that room versions 1 and 2 use.
func newEventID(server ServerName) EventID {
	var random [18]byte
	rand.Read(random[:])
	return EventID("$" + base64.RawURLEncoding.EncodeToString(random[:]) + ":" + string(server))
}

// builder writes an event's members in their canonical order.
type builder struct {
	e   *Event
	buf []byte
}

// write writes the event with a content, and with hash and signatures unless they are nil. The result is a copy.
func (b *builder) write(content, hash, signatures []byte) []byte {
	e := b.e
	// The reference hash and the signature leave out what redaction removes.
	redacting := hash != nil && signatures == nil
	out := append(b.buf[:0], `{"auth_events":`...)
	out = b.ids(out, e.auth)
	out = append(append(out, `,"content":`...), content...)
	out = strconv.AppendInt(append(out, `,"depth":`...), e.depth, 10)
	if e.version.EventIDsInEvent() {
		out = AppendString(append(out, `,"event_id":`...), string(e.id))
	}
	if hash != nil {
		out = append(out, `,"hashes":{"sha256":"`...)
		out = base64.RawStdEncoding.AppendEncode(out, hash)
		out = append(out, `"}`...)
	}
	out = strconv.AppendInt(append(out, `,"origin_server_ts":`...), e.ts, 10)
	out = append(out, `,"prev_events":`...)
	out = b.ids(out, e.prev)
	if e.redacts != "" && !redacting {
		out = AppendString(append(out, `,"redacts":`...), string(e.redacts))
	}
	if e.room != "" && !(e.version.RoomIDIsCreateHash() && e.typ == "m.room.create" && e.StateKeyEquals("")) {
		out = AppendString(append(out, `,"room_id":`...), string(e.room))
	}
	out = AppendString(append(out, `,"sender":`...), string(e.sender))
	if signatures != nil {
		out = append(append(out, `,"signatures":`...), signatures...)
	}
	if e.stateKey != nil {
		out = AppendString(append(out, `,"state_key":`...), *e.stateKey)
	}
	out = AppendString(append(out, `,"type":`...), e.typ)
	out = append(out, '}')
	b.buf = out
	return append(make([]byte, 0, len(out)), out...)
}

// ids writes a list of events; in versions 1 and 2 each with an object of hashes, which nobody reads.
func (b *builder) ids(out []byte, ids []EventID) []byte {
	out = append(out, '[')
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		if b.e.version.EventIDsInEvent() {
			out = append(AppendString(append(out, '['), string(id)), `,{}]`...)
			continue
		}
		out = AppendString(out, string(id))
	}
	return append(out, ']')
}
