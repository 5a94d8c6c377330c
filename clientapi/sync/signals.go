package sync

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// summary names a room that has no name, and counts who is in it.
type summary struct {
	Heroes  []matrix.UserID `json:"m.heroes,omitempty"`
	Joined  int             `json:"m.joined_member_count"`
	Invited int             `json:"m.invited_member_count"`
}

// signals adds what goes with a joined room beside events: counts, receipts, typing, the user's own data.
func (a *assembly) signals(ref rooms.Ref, m store.MemberRow, p *piece, fresh bool, out *joinedRoom) error {
	if fresh || a.q.FullState || membersChanged(p) {
		var err error
		if out.Summary, err = a.summary(ref, p); err != nil {
			return err
		}
	}
	if err := a.ephemeral(ref, m, fresh, out); err != nil {
		return err
	}
	if fresh || a.ownData || !a.inTail {
		if err := a.roomData(ref, fresh, out); err != nil {
			return err
		}
	}
	// A room that is in the response at all says its counts: clients take threads that are not named for read.
	if !p.changed && !fresh && out.Ephemeral == nil && out.AccountData == nil {
		return nil
	}
	return a.unread(ref, m, out)
}

// membersChanged says whether a piece may have changed the summary.
func membersChanged(p *piece) bool {
	return p.atSince.Members != p.atEnd.Members
}

// maxHeroes is how many names stand for that of a room (client-server API, "Room summary").
const maxHeroes = 5

func (a *assembly) summary(ref rooms.Ref, p *piece) (*summary, error) {
	if p.summary != nil {
		return p.summary, nil
	}
	if a.ahead.of(ref.NID) && a.ahead.summaries != nil {
		p.summary = a.ahead.summaries[ref.NID]
		return p.summary, nil
	}
	s := &summary{}
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		counts, err := tx.MemberCounts(ref.NID)
		if err != nil {
			return err
		}
		s.Joined, s.Invited = counts[store.Join], counts[store.Invite]
		s.Heroes, err = tx.Heroes(ref.NID, a.q.User.NID, maxHeroes)
		return err
	})
	p.summary = s
	return s, err
}

// ephemeral adds receipts and who is typing.
func (a *assembly) ephemeral(ref rooms.Ref, m store.MemberRow, fresh bool, out *joinedRoom) error {
	keep := &a.filter().Ephemeral
	var events []json.RawMessage
	if keep.KeepsType("m.receipt") && (fresh || !a.inTail || a.receipts[ref.NID]) {
		event, err := a.receiptEvent(ref, fresh)
		if err != nil {
			return err
		}
		if event != nil {
			events = append(events, event)
		}
	}
	if event := a.e.typing.event(ref.NID, a.typed, fresh); event != nil && keep.KeepsType("m.typing") {
		events = append(events, event)
	}
	if len(events) > 0 {
		out.Ephemeral = &eventList{events}
	}
	return nil
}

// receiptEvent is what is new of a room's receipts.
func (a *assembly) receiptEvent(ref rooms.Ref, fresh bool) (json.RawMessage, error) {
	if a.ahead.of(ref.NID) {
		return receiptsEvent(a.ahead.receipts[ref.NID])
	}
	since := a.from
	if fresh {
		since = 0
	}
	return a.e.receiptEvent(a.ctx, a.q.User, ref, since, a.bound)
}

// roomData adds the user's own data of a room.
func (a *assembly) roomData(ref rooms.Ref, fresh bool, out *joinedRoom) error {
	if a.ahead.of(ref.NID) {
		if events := a.ahead.data[ref.NID]; len(events) > 0 {
			out.AccountData = &eventList{events}
		}
		return nil
	}
	since := a.from
	if fresh {
		since = 0
	}
	events, err := a.accountData(ref.NID, since, &a.filter().AccountData)
	if err == nil && len(events) > 0 {
		out.AccountData = &eventList{events}
	}
	return err
}

// accountData reads the user's own data that changed after a position: of one room, or with room 0 the global.
func (a *assembly) accountData(room store.RoomNID, since store.Pos, keep *EventFilter) ([]json.RawMessage, error) {
	var events []json.RawMessage
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		events = nil
		return tx.AccountDataSince(a.q.User.NID, room, since, a.bound, func(typ, content string) {
			if keep.KeepsType(typ) {
				if typ == store.PushRulesType && room == 0 {
					content = a.pushRules(content)
				}
				events = append(events, typedEvent(typ, content))
			}
		})
	})
	return events, err
}

// pushRules completes the user's push rules as they are stored: predefined rules that came later belong to them too.
func (a *assembly) pushRules(stored string) string {
	content, err := pushrules.FromAccountData([]byte(stored), string(a.q.User.ID)).AccountData()
	if err != nil {
		return stored
	}
	return string(content)
}

// typedEvent is an event of a type and content alone.
func typedEvent(typ, content string) json.RawMessage {
	name, err := json.Marshal(typ)
	if err != nil {
		name = []byte(`""`)
	}
	out := append([]byte(`{"type":`), name...)
	out = append(append(out, `,"content":`...), content...)
	return append(out, '}')
}
