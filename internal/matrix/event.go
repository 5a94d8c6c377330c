package matrix

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
)

// Event is an event of a room (spec: "PDU"). It is immutable and safe for concurrent use: its canonical text as signed,
// without "unsigned", and the header read from it once.
type Event struct {
	version  RoomVersion
	json     []byte
	id       EventID
	room     RoomID
	typ      string
	sender   UserID
	stateKey *string
	ts       int64
	depth    int64
	content  []byte // part of json
	prev     []EventID
	auth     []EventID
	redacts  EventID
	trusted  bool // it comes from our own database

	levels atomic.Pointer[parsedLevels] // once somebody asked
}

// parsedLevels is what PowerLevels answers.
type parsedLevels struct {
	levels PowerLevels
	err    error
}

// PowerLevels is ParsePowerLevels of the event's content, done once: every event of a room is judged by the same
// m.room.power_levels. The maps of the answer are shared and must not be changed.
func (e *Event) PowerLevels() (PowerLevels, error) {
	known := e.levels.Load()
	if known == nil {
		known = &parsedLevels{}
		known.levels, known.err = ParsePowerLevels(e.content, e.version)
		e.levels.Store(known)
	}
	return known.levels, known.err
}

// The bounds of an event (server-server API and threats.md section 1).
const (
	MaxEventSize  = 65_536
	maxPrevEvents = 20
	maxAuthEvents = 10
	maxField      = 255
)

// MaxEventMembers is more than an object or a list in an event can have: of events the specification bounds the bytes
// alone, and an event that others take is not to be refused here.
const MaxEventMembers = MaxEventSize / 2

// ErrEvent is what every refusal of an event's form wraps.
var ErrEvent = errors.New("malformed event")

func eventError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrEvent}, args...)...)
}

// ID is the event's ID.
func (e *Event) ID() EventID { return e.id }

// RoomID is the event's room; for a version 12 create event, the room that it makes.
func (e *Event) RoomID() RoomID { return e.room }

// Type is the event's type.
func (e *Event) Type() string { return e.typ }

// Sender is who sent it.
func (e *Event) Sender() UserID { return e.sender }

// StateKey is the state key; false for a message event.
func (e *Event) StateKey() (string, bool) {
	if e.stateKey == nil {
		return "", false
	}
	return *e.stateKey, true
}

// IsState reports whether it is a state event.
func (e *Event) IsState() bool { return e.stateKey != nil }

// StateKeyEquals reports whether it is a state event with this key.
func (e *Event) StateKeyEquals(key string) bool { return e.stateKey != nil && *e.stateKey == key }

// Content is its content, canonical JSON. It must not be changed.
func (e *Event) Content() []byte { return e.content }

// OriginServerTS is when its server says it was made, in ms since 1970.
func (e *Event) OriginServerTS() int64 { return e.ts }

// Depth is how deep in the graph its server put it. It proves nothing.
func (e *Event) Depth() int64 { return e.depth }

// PrevEvents are the events that it follows.
func (e *Event) PrevEvents() []EventID { return e.prev }

// AuthEvents are the events that allow it.
func (e *Event) AuthEvents() []EventID { return e.auth }

// JSON is its canonical text with hashes and signatures, without "unsigned". It must not be changed.
func (e *Event) JSON() []byte { return e.json }

// Version is its room's version.
func (e *Event) Version() RoomVersion { return e.version }

// Size is the length of its canonical text in bytes.
func (e *Event) Size() int { return len(e.json) }

// Redacts is the event that a redaction names, wherever its version puts that. What can be no event's ID names none.
func (e *Event) Redacts() (EventID, bool) {
	if e.typ != "m.room.redaction" {
		return "", false
	}
	id, ok := string(e.redacts), e.redacts != ""
	if e.version.RedactsInContent() {
		id, ok = GetString(e.content, "redacts")
	}
	if !ok || len(id) > maxID || !IsText(id) {
		return "", false
	}
	return EventID(id), true
}

// Membership is content.membership of an m.room.member, else "".
func (e *Event) Membership() string {
	if e.typ != "m.room.member" || e.stateKey == nil {
		return ""
	}
	m, _ := GetString(e.content, "membership")
	return m
}

// ParseEvent reads an event as it came from another server: strictly, with all bounds. "unsigned" is dropped, and
// from version 3 an event_id that should not be there. Hash and signatures are not checked here.
func ParseEvent(raw []byte, v RoomVersion) (*Event, error) {
	e, err := ParseBackfilled(raw, v)
	if err == nil {
		err = e.references()
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// references bounds what an event follows and cites.
func (e *Event) references() error {
	if len(e.prev) > maxPrevEvents || len(e.auth) > maxAuthEvents {
		return eventError("too many prev_events or auth_events")
	}
	return nil
}

// ParseBackfilled is ParseEvent for what a server answers to backfill: there an event may follow and cite more events
// than it may now, because events that were once allowed to do so are part of rooms' past.
func ParseBackfilled(raw []byte, v RoomVersion) (*Event, error) {
	text, err := canonicalWithin(raw, Limits{Members: MaxEventMembers, CanonicalNumbers: v.StrictCanonicalJSON()})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	drop := []string{"unsigned"}
	if !v.EventIDsInEvent() {
		drop = append(drop, "event_id")
	}
	if text, err = without(text, drop...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	e := &Event{version: v, json: text}
	if err := e.header(); err != nil {
		return nil, err
	}
	if err := e.bounds(e.room); err != nil {
		return nil, err
	}
	return e, e.identify()
}

// TrustedEvent reads an event from our own database: its text is canonical and its ID is known. What it follows and cites is
// read in the form of any version: of a room that nobody of ours is in, the version may turn out to be another than was said.
func TrustedEvent(text []byte, id EventID, v RoomVersion) (*Event, error) {
	e := &Event{version: v, json: text, id: id, trusted: true}
	if err := e.header(); err != nil {
		return nil, err
	}
	if e.room == "" && v.RoomIDIsCreateHash() {
		e.room = RoomID("!" + id[1:])
	}
	return e, nil
}

// without returns an object's canonical text without some members.
func without(obj []byte, names ...string) ([]byte, error) {
	found := false
	for _, name := range names {
		if _, ok := find(obj, name); ok {
			found = true
		}
	}
	if !found {
		if firstByte(obj) != '{' {
			return nil, errNoObject
		}
		return obj, nil
	}
	members, err := topMembers(obj)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(obj)), '{')
next:
	for _, m := range members {
		for _, name := range names {
			if m.Key == name {
				continue next
			}
		}
		out = appendMember(out, m.Key, m.Value)
	}
	return append(out, '}'), nil
}

// appendMember writes a member after what stands in an object already.
func appendMember(out []byte, name string, value []byte) []byte {
	if out[len(out)-1] != '{' {
		out = append(out, ',')
	}
	out = AppendString(out, name)
	return append(append(out, ':'), value...)
}

// header reads the members that the server works with, in one pass.
func (e *Event) header() error {
	s := scanner{data: e.json}
	if !s.take('{') {
		return eventError("not an object")
	}
	for {
		if s.take('}') {
			break
		}
		s.take(',')
		if s.pos >= len(s.data) || s.data[s.pos] != '"' {
			return eventError("not canonical")
		}
		key, _, err := s.text()
		if err != nil {
			return eventError("not canonical")
		}
		s.take(':')
		start := s.pos
		if !s.skip() {
			return eventError("not canonical")
		}
		if err := e.member(string(key), e.json[start:s.pos]); err != nil {
			return err
		}
	}
	if e.typ == "" && !e.has("type") || e.sender == "" || e.content == nil || e.prev == nil || e.auth == nil {
		return eventError("type, sender, content, prev_events or auth_events is missing")
	}
	return nil
}

func (e *Event) has(name string) bool {
	_, ok := find(e.json, name)
	return ok
}

// member takes one member of the header.
func (e *Event) member(name string, raw []byte) (err error) {
	switch name {
	case "event_id":
		if e.version.EventIDsInEvent() {
			err = readText(raw, name, (*string)(&e.id))
		}
	case "room_id":
		err = readText(raw, name, (*string)(&e.room))
	case "type":
		err = readText(raw, name, &e.typ)
	case "sender":
		err = readText(raw, name, (*string)(&e.sender))
	case "state_key":
		var key string
		err = readText(raw, name, &key)
		e.stateKey = &key
	case "redacts":
		if id, ok := textValue(raw); ok {
			e.redacts = EventID(id)
		}
	case "origin_server_ts":
		e.ts, err = readInt(raw, name)
	case "depth":
		e.depth, err = readInt(raw, name)
	case "content":
		if raw[0] != '{' {
			return eventError("content is not an object")
		}
		e.content = raw
	case "prev_events":
		e.prev, err = e.readIDs(raw, name)
	case "auth_events":
		e.auth, err = e.readIDs(raw, name)
	}
	return err
}

func readText(raw []byte, name string, into *string) error {
	text, ok := textValue(raw)
	if !ok {
		return eventError("%s is not text", name)
	}
	*into = text
	return nil
}

func readInt(raw []byte, name string) (int64, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, eventError("%s is not an integer", name)
	}
	return n, nil
}

// readIDs reads prev_events and auth_events: IDs, or pairs of ID and hashes in versions 1 and 2.
func (e *Event) readIDs(raw []byte, name string) ([]EventID, error) {
	ids := make([]EventID, 0, 4)
	ok := elements(raw, func(item []byte) bool {
		if e.version.EventIDsInEvent() && !e.trusted || e.trusted && item[0] == '[' {
			first := true
			whole := elements(item, func(part []byte) bool {
				if first {
					first = false
					item = part
				}
				return true
			})
			if !whole || first {
				return false
			}
		}
		id, ok := textValue(item)
		ids = append(ids, EventID(id))
		return ok
	})
	if !ok {
		return nil, eventError("%s is not a list of events", name)
	}
	return ids, nil
}

// bounds refuses events that are too large, in whole or in part, or whose identifiers are none. room is the room_id
// that stands in the event.
func (e *Event) bounds(room RoomID) error {
	if len(e.json) > MaxEventSize {
		return eventError("larger than %d bytes", MaxEventSize)
	}
	if len(e.typ) > maxField || e.stateKey != nil && len(*e.stateKey) > maxField {
		return eventError("type or state_key is longer than %d bytes", maxField)
	}
	if _, err := ParseUserID(string(e.sender)); err != nil {
		return eventError("sender: %v", err)
	}
	noRoom := e.version.RoomIDIsCreateHash() && e.typ == "m.room.create" && e.StateKeyEquals("")
	if noRoom != (room == "") {
		return eventError("room_id stands where it should not, or is missing")
	}
	if !noRoom {
		if _, err := ParseRoomID(string(room)); err != nil {
			return eventError("room_id: %v", err)
		}
	}
	for _, list := range [][]EventID{e.prev, e.auth} {
		for _, id := range list { // what is no ID names nothing that could ever come
			if _, err := ParseEventID(string(id)); err != nil {
				return eventError("prev_events or auth_events: %v", err)
			}
		}
	}
	if e.depth < 0 || e.depth > e.version.MaxDepth() || e.ts < -maxSafeInteger || e.ts > maxSafeInteger {
		return eventError("depth or origin_server_ts is out of range")
	}
	for _, name := range []string{"origin_server_ts", "depth"} {
		if !e.has(name) {
			return eventError("%s is missing", name)
		}
	}
	return nil
}

// identify finds the event's ID: its own in versions 1 and 2, else the hash of its redacted form.
func (e *Event) identify() error {
	if e.version.EventIDsInEvent() {
		if _, err := ParseEventID(string(e.id)); err != nil {
			return eventError("event_id: %v", err)
		}
		return nil
	}
	text, err := redact(e, "signatures")
	if err != nil {
		return err
	}
	e.setID(sha256.Sum256(text))
	return nil
}

func (e *Event) setID(hash [32]byte) {
	if e.version.URLSafeEventIDs() {
		e.id = EventID("$" + EncodeURLBase64(hash[:]))
	} else {
		e.id = EventID("$" + EncodeBase64(hash[:]))
	}
	if e.version.RoomIDIsCreateHash() && e.room == "" {
		e.room = RoomID("!" + e.id[1:])
	}
}

// CheckContentHash reports whether the event is as its sender's server hashed it. One that is not is used redacted.
func (e *Event) CheckContentHash() bool {
	said, ok := GetString(e.json, "hashes", "sha256")
	if !ok {
		return false
	}
	text, err := without(e.json, "hashes", "signatures")
	if err != nil {
		return false
	}
	hash := sha256.Sum256(text)
	want, err := DecodeBase64(said)
	return err == nil && string(want) == string(hash[:])
}
