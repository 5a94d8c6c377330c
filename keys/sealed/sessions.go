package sealed

import (
	"crypto/ed25519"

	"conclave/internal/matrix"
)

// Bounds on how much others can make a device hold.
const (
	maxSessions         = 10_000 // per room and sender
	maxSessionsUnjoined = 100    // per sender, for rooms that the user is not in
)

// Origin says whose session a room key is, and how that is known. The device must have qualified (see [Qualify]).
type Origin struct {
	User       matrix.UserID
	Device     string
	SigningKey string // the device's Ed25519 key in base64
	// Vouched is true if not the device itself sent the key, but somebody else says that it did: a backup, or a bundle of
	// history. Such a session is replaced by what its device sends directly, and never the other way round.
	Vouched bool
}

// An Inbound session is the key to what one device says in one room, from some index on.
type Inbound struct {
	roomKey
	from Origin
	seen map[uint32]matrix.EventID
}

// Index is the lowest index that the session opens.
func (s *Inbound) Index() uint32 { return s.index }

// HistoryVisibility is the room's when the session began, as its maker signed it.
func (s *Inbound) HistoryVisibility() string { return s.visibility }

// Origin says whose session it is.
func (s *Inbound) Origin() Origin { return s.from }

// Sessions are the group sessions that a device was given. A session that is known is never overwritten by another
// ratchet, and every index is good for one event. It is not safe for concurrent use.
type Sessions struct {
	joined func(matrix.RoomID) bool
	byID   map[string]*Inbound
	counts map[matrix.UserID]map[matrix.RoomID]int
}

// NewSessions makes an empty set. joined says whether the user is in a room: keys for others are held, for they may come
// before the join is seen, but only a few.
func NewSessions(joined func(matrix.RoomID) bool) *Sessions {
	return &Sessions{joined: joined, byID: map[string]*Inbound{}, counts: map[matrix.UserID]map[matrix.RoomID]int{}}
}

// Add takes the content of an im.conclave.room_key. The key must bear its session's proof that it belongs to that very
// device and room. Of two copies of one session the one that opens more is kept.
func (s *Sessions) Add(content []byte, from Origin) (*Inbound, error) {
	k, err := parseRoomKey(content, from)
	if err != nil {
		return nil, err
	}
	fresh := &Inbound{roomKey: *k, from: from, seen: map[uint32]matrix.EventID{}}
	known, ok := s.byID[k.session]
	if ok {
		return known, known.merge(fresh)
	}
	if err := s.count(from.User, k.room); err != nil {
		return nil, err
	}
	s.byID[k.session] = fresh
	return fresh, nil
}

// merge takes over what another copy of the session adds.
func (s *Inbound) merge(other *Inbound) error {
	if !s.sameSession(other) {
		if s.from.Vouched && !other.from.Vouched {
			s.roomKey, s.from = other.roomKey, other.from
			return nil
		}
		return ErrConflictingSession
	}
	if other.index < s.index {
		s.ratchet, s.index = other.ratchet, other.index
	}
	s.from.Vouched = s.from.Vouched && other.from.Vouched
	return nil
}

// sameSession steps the earlier ratchet to the later one's index and compares.
func (s *Inbound) sameSession(other *Inbound) bool {
	early, late := &s.roomKey, &other.roomKey
	if early.index > late.index {
		early, late = late, early
	}
	return s.room == other.room && s.visibility == other.visibility && s.from.User == other.from.User && s.from.Device == other.from.Device &&
		s.from.SigningKey == other.from.SigningKey && early.ratchet.at(late.index-early.index) == late.ratchet
}

// count makes room for one more session of a sender.
func (s *Sessions) count(user matrix.UserID, room matrix.RoomID) error {
	rooms := s.counts[user]
	if rooms == nil {
		rooms = map[matrix.RoomID]int{}
		s.counts[user] = rooms
	}
	if rooms[room] >= maxSessions {
		return ErrTooManySessions
	}
	if !s.joined(room) {
		unjoined := 0
		for r, n := range rooms {
			if !s.joined(r) {
				unjoined += n
			}
		}
		if unjoined >= maxSessionsUnjoined {
			return ErrTooManySessions
		}
	}
	rooms[room]++
	return nil
}

// Event is an encrypted event as a server delivered it, of which nothing is believed.
type Event struct {
	ID      matrix.EventID
	Room    matrix.RoomID // where it was found
	Sender  matrix.UserID
	Type    string
	State   bool // has a state key
	Content []byte
}

// Decrypted is an event that is what it says: its sender's device made it for this room, as it stands, once.
type Decrypted struct {
	Type    string
	Content []byte // canonical JSON
	Index   uint32
	Session *Inbound
}

// Decrypt opens an event. It succeeds only if the session came from a device of that same sender and is of this room, the
// session's key signed the message, the tag holds over room, sender, device, session, index and relation, and the index
// was not seen on another event. The signature is looked at before anything is stepped or decrypted, so that nobody but
// the sender can make it work.
func (s *Sessions) Decrypt(e Event) (*Decrypted, error) {
	if e.Type != TypeEncrypted || e.State {
		return nil, ErrMalformed.because("not an encrypted message")
	}
	m, err := parseMessage(e.Content)
	if err != nil {
		return nil, err
	}
	session, ok := s.byID[m.session]
	if !ok {
		return nil, ErrNoKey
	}
	return session.decrypt(e, m)
}

func (s *Inbound) decrypt(e Event, m *message) (*Decrypted, error) {
	switch {
	case s.room != e.Room:
		return nil, ErrWrongRoom.because("the session is of another room")
	case s.from.User != e.Sender || s.from.Device != m.device:
		return nil, ErrWrongSender.because("the session is of another sender")
	case m.index < s.index:
		return nil, ErrUnknownIndex
	}
	if err := m.checkClearRelation(); err != nil {
		return nil, err
	}
	aad, err := m.additional(e.Room, e.Sender)
	if err != nil {
		return nil, err
	}
	if err := verify(ed25519.PublicKey(s.public), m.signed(aad), m.signature); err != nil {
		return nil, err
	}
	if id, ok := s.seen[m.index]; ok && id != e.ID {
		return nil, ErrReplayedIndex
	}
	plaintext, err := s.ratchet.at(m.index-s.index).open(m.saltBytes, m.ciphertext, aad)
	if err != nil {
		return nil, err
	}
	event, err := encryptedContent(plaintext)
	if err != nil {
		return nil, err
	}
	if event.room != string(e.Room) {
		return nil, ErrWrongRoom.because("the encrypted event is of another room")
	}
	if err := event.checkRelation(m.relation); err != nil {
		return nil, err
	}
	if err := event.mayTravel(); err != nil {
		return nil, err
	}
	s.seen[m.index] = e.ID
	return &Decrypted{Type: event.eventType, Content: event.content, Index: m.index, Session: s}, nil
}

// checkClearRelation demands that a relation outside has the two members that it may have.
func (m *message) checkClearRelation() error {
	if m.relation == nil {
		return nil
	}
	f := readForm(m.relation, maxEnvelope)
	f.exactly("rel_type", "event_id")
	f.name("rel_type")
	f.name("event_id")
	if f.err != nil {
		return ErrAlteredRelation.because("more outside than may be seen")
	}
	return nil
}
