package store

import (
	"encoding/binary"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
)

// RoomNID, UserNID, ServerNID and EventNID are the numbers by which rows refer to rooms, users, servers and
// events. Zero is never given out and stands for "none".
type (
	RoomNID   int64
	UserNID   int64
	ServerNID int64
	EventNID  int64
)

// State is a room's state: the roots of two trees, one with the members and one with everything else, because nearly
// every reader wants only the second. The zero State is empty.
type State struct {
	Members, Rest statetree.Name
}

// IsZero reports whether s is the empty state.
func (s State) IsZero() bool { return s == State{} }

// bytes is how a State stands in a row; nil for a state that a row leaves out.
func (s *State) bytes() []byte {
	if s == nil {
		return nil
	}
	return append(append(make([]byte, 0, 32), s.Members[:]...), s.Rest[:]...)
}

var errState = errors.New("store: a state is not 32 bytes")

func stateFrom(b []byte) (State, error) {
	var s State
	if len(b) != 32 {
		return s, errState
	}
	copy(s.Members[:], b)
	copy(s.Rest[:], b[16:])
	return s, nil
}

// EventFlags say what kind of row an event is.
type EventFlags int16

// The flags of an event's row.
const (
	FlagState      EventFlags = 1 << iota // it has a state_key
	FlagRejected                          // it failed authorisation, for ever
	FlagSoftFailed                        // it is valid where it stands but was not allowed when it came
	FlagRedacted                          // its text is the redacted form
	FlagOutlier                           // held as evidence; the state at it is not known
	FlagSend                              // ours to send to other servers: our users', and what we accepted for others' users
	FlagHeld                              // a redaction that clients are not shown: its target is not here, or it may not redact that
	FlagSendBack                          // with FlagSend: also to the server of its sender, in whose name it was made here
	FlagPersonal                          // it counts for some users otherwise than the running numbers and their modes say
	FlagErased                            // never stored: the row is a copy without content, for who came after its sender was erased
)

// Has reports whether all of bits are set.
func (f EventFlags) Has(bits EventFlags) bool { return f&bits == bits }

// Counts are the running numbers of events that notify under the default push rules and of those that highlight
// everybody: of the room's main timeline, and of the event's own thread (zero for the main timeline).
type Counts struct {
	Notify, Highlight             int64
	ThreadNotify, ThreadHighlight int64
}

// EventRow is an event with what the server knows about it. Rows are immutable once they are read, apart from
// redaction, which makes a new one; they may be shared.
type EventRow struct {
	NID    EventNID
	Room   RoomNID
	Sender UserNID

	// Pos and Sub are its place in the room: Pos with Sub 0 is a stream position; with Sub < 0 the event is
	// history standing before the event at Pos. Pos 0 means no place at all.
	Pos Pos
	Sub int64

	Flags EventFlags

	// Before and After are the room's state around the event, nil for outliers; Before is nil also where it equals
	// After. Head is the current state once the event was in, nil where it equals After.
	Before, After, Head *State

	// Extremities are the room's forward extremities once the event was in; nil if it alone.
	Extremities []EventNID

	Height int64 // of a state event: how high it stands on its auth events (HeightOn); 0 if that is not known

	Thread EventNID // root of its thread, 0 for the main timeline
	Counts Counts

	// Personal is what FlagPersonal stands for. It is there when the event is written, and where FillPersonal read it.
	Personal []PersonalCount

	Event *matrix.Event
}

// StateBefore is the room's state before the event.
func (e *EventRow) StateBefore() State {
	if e.Before != nil {
		return *e.Before
	}
	return e.StateAfter()
}

// StateAfter is the room's state after the event, zero for outliers.
func (e *EventRow) StateAfter() State {
	if e.After != nil {
		return *e.After
	}
	return State{}
}

// CurrentState is the room's current state once the event was in.
func (e *EventRow) CurrentState() State {
	if e.Head != nil {
		return *e.Head
	}
	return e.StateAfter()
}

// Live reports whether the event came into the room's present.
func (e *EventRow) Live() bool { return e.Pos > 0 && e.Sub == 0 }

// Visible reports whether the event may be shown to clients at all.
func (e *EventRow) Visible() bool {
	return e.Pos > 0 && e.Flags&(FlagRejected|FlagSoftFailed|FlagOutlier|FlagHeld) == 0
}

// ReceiptPlace is how far a receipt for the event goes. History stands before the event whose position it shares.
func (e *EventRow) ReceiptPlace() Pos {
	if e.Sub < 0 {
		return e.Pos - 1
	}
	return e.Pos
}

// Membership is a user's relation to a room, as small as a row wants it.
type Membership int16

// The memberships of m.room.member, in the numbers of the database.
const (
	NotMember Membership = iota
	Join
	Invite
	Leave
	Ban
	Knock
)

var membershipNames = [...]string{"", "join", "invite", "leave", "ban", "knock"}

// String is the spec's word.
func (m Membership) String() string {
	if m < 0 || int(m) >= len(membershipNames) {
		return ""
	}
	return membershipNames[m]
}

// MembershipOf is the number for a word of m.room.member, NotMember for any other.
func MembershipOf(word string) Membership {
	for i, name := range membershipNames {
		if i > 0 && name == word {
			return Membership(i)
		}
	}
	return NotMember
}

// MemberRow says where a user stands in a room now.
type MemberRow struct {
	Room       RoomNID
	Member     UserNID
	Server     ServerNID
	Membership Membership
	Event      EventNID
	Pos        Pos // of the last change
	Joined     Pos // of the last arrival, 0 if never joined
	Departed   Pos // of the last departure, 0 if never
	Forgotten  bool
}

// TxnKey names a client's transaction: the device's number and a hash of route and transaction ID. The zero TxnKey
// means "without one".
type TxnKey struct {
	Device int64
	Hash   [16]byte
}

// bytes is how a TxnKey stands in a row: the device first, so that those of one device stand together.
func (k TxnKey) bytes() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(k.Hash)), uint64(k.Device))
	return append(b, k.Hash[:]...)
}

// txnKeyOf reads what bytes wrote.
func txnKeyOf(b []byte) (k TxnKey) {
	if len(b) == 8+len(k.Hash) {
		k.Device = int64(binary.BigEndian.Uint64(b))
		copy(k.Hash[:], b[8:])
	}
	return k
}

// packNIDs is how a list of event numbers stands in a row.
func packNIDs(ids []EventNID) []byte {
	if ids == nil {
		return nil
	}
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	return b
}

func unpackNIDs(b []byte) []EventNID {
	if len(b) == 0 {
		return nil
	}
	ids := make([]EventNID, len(b)/8)
	for i := range ids {
		ids[i] = EventNID(binary.BigEndian.Uint64(b[8*i:]))
	}
	return ids
}
