package sync

import (
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// ahead is what the database says of several joined rooms, read for all of them with a few questions before they are added
// to a response one by one. A client that begins, or comes back after long, is told of hundreds of rooms. Where a room is
// not among them, or something of it is not here, it is asked for by itself.
type ahead struct {
	rooms     map[store.RoomNID]bool
	newest    map[store.RoomNID][]*store.EventRow // the newest first
	since     map[store.RoomNID]store.State       // as the client knows the rooms; nil at a first sync
	children  map[store.EventNID]bool             // those of the newest to which others relate
	txns      map[store.EventNID]string           // of the newest that the user has sent; "" for none
	summaries map[store.RoomNID]*summary          // at a first sync
	receipts  map[store.RoomNID][]store.Receipt
	data      map[store.RoomNID][]json.RawMessage
	unread    map[store.RoomNID]*rooms.Unread // where the listener does not know it
	moved     int64                           // goes with unread, see unmarked
}

// maxAhead is how many rooms are read at once, which bounds what is held of them.
const maxAhead = 100

// lookAhead reads what is to be told of some rooms, if the tail does not have it.
func (a *assembly) lookAhead(visit []store.MemberRow) error {
	a.ahead = nil
	if a.inTail && a.from != 0 {
		return nil
	}
	var nids []store.RoomNID
	for _, m := range visit {
		nids = append(nids, m.Room)
	}
	refs, err := a.e.rooms.LookupMany(a.ctx, nids)
	if err != nil {
		return err
	}
	h := &ahead{rooms: map[store.RoomNID]bool{}}
	var wanted []store.MemberRow
	nids = nids[:0]
	for _, m := range visit {
		if m.Membership == store.Join && (a.from == 0 || m.Joined <= a.from) && a.filter().keeps(string(refs[m.Room].ID)) {
			wanted, nids = append(wanted, m), append(nids, m.Room)
			h.rooms[m.Room] = true
		}
	}
	if len(wanted) < 2 {
		return nil
	}
	if h.newest, err = a.e.rooms.Newest(a.ctx, nids, a.bound, a.filter().Timeline.limit()); err != nil {
		return err
	}
	if err := a.readAhead(h, nids); err != nil {
		return err
	}
	a.ahead = h
	return a.countAhead(h, refs, wanted)
}

// countAhead counts what is unread in rooms of which that is not known.
func (a *assembly) countAhead(h *ahead, refs map[store.RoomNID]rooms.Ref, members []store.MemberRow) error {
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return err
	}
	members, h.moved = a.unmarked(members)
	h.unread, err = a.e.rooms.UnreadIn(a.ctx, refs, members, h.newest, slices.Collect(maps.Keys(ignored)), a.bound)
	return err
}

// mark is how far the user has read a room, if that was read ahead.
func (h *ahead) mark(room store.RoomNID) *rooms.Unread {
	if h == nil {
		return nil
	}
	return h.unread[room]
}

// readAhead fills in what goes with the newest events of some rooms.
func (a *assembly) readAhead(h *ahead, nids []store.RoomNID) error {
	var own []store.EventNID
	for _, rows := range h.newest {
		for _, row := range rows {
			if a.q.Viewpoint.sent(row) {
				own = append(own, row.NID)
			}
		}
	}
	return a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		h.txns = make(map[store.EventNID]string, len(own))
		h.receipts, h.data = map[store.RoomNID][]store.Receipt{}, map[store.RoomNID][]json.RawMessage{}
		if err := h.readChildren(tx, nids); err != nil {
			return err
		}
		for _, nid := range own {
			h.txns[nid] = ""
		}
		if err := tx.TxnsOf(a.q.Device, own, func(nid store.EventNID, txn string) { h.txns[nid] = txn }); err != nil {
			return err
		}
		if err := a.readReceipts(tx, h, nids); err != nil {
			return err
		}
		keep := &a.filter().AccountData
		err := tx.AccountDataOf(a.q.User.NID, nids, a.from, a.bound, func(room store.RoomNID, typ, content string) {
			if keep.KeepsType(typ) {
				h.data[room] = append(h.data[room], typedEvent(typ, content))
			}
		})
		if err != nil {
			return err
		}
		if a.from != 0 {
			h.since = map[store.RoomNID]store.State{}
			return tx.Heads(nids, a.from, func(row *store.EventRow) { h.since[row.Room] = row.CurrentState() })
		}
		return a.summarise(tx, h, nids)
	})
}

// readChildren finds out to which of the newest events others relate.
func (h *ahead) readChildren(tx *store.Tx, nids []store.RoomNID) error {
	h.children = map[store.EventNID]bool{}
	var candidates []store.EventNID
	err := tx.WithRelations(nids, func(nid store.RoomNID) {
		for _, row := range h.newest[nid] {
			if !row.Event.IsState() {
				candidates = append(candidates, row.NID)
			}
		}
	})
	if err != nil {
		return err
	}
	return tx.WithChildren(candidates, func(nid store.EventNID) { h.children[nid] = true })
}

// summarise reads the summaries of rooms.
func (a *assembly) summarise(tx *store.Tx, h *ahead, nids []store.RoomNID) error {
	h.summaries = make(map[store.RoomNID]*summary, len(nids))
	for _, nid := range nids {
		h.summaries[nid] = &summary{}
	}
	err := tx.MemberCountsOf(nids, func(room store.RoomNID, membership store.Membership, count int) {
		switch membership {
		case store.Join:
			h.summaries[room].Joined = count
		case store.Invite:
			h.summaries[room].Invited = count
		}
	})
	if err != nil {
		return err
	}
	heroes := map[store.RoomNID][]store.UserNID{}
	names := map[store.UserNID]matrix.UserID{}
	err = tx.HeroesOf(nids, a.q.User.NID, maxHeroes, func(room store.RoomNID, users []store.UserNID) {
		heroes[room] = users
		for _, user := range users {
			names[user] = ""
		}
	})
	if err != nil {
		return err
	}
	users := make([]store.UserNID, 0, len(names))
	for user := range names {
		users = append(users, user)
	}
	if err := tx.UserIDs(users, func(user store.UserNID, id matrix.UserID) { names[user] = id }); err != nil {
		return err
	}
	for room, users := range heroes {
		for _, user := range users {
			h.summaries[room].Heroes = append(h.summaries[room].Heroes, names[user])
		}
	}
	return nil
}

// of says whether a room has been read ahead.
func (h *ahead) of(room store.RoomNID) bool { return h != nil && h.rooms[room] }

// end is a room's current state at the end of what was read; false if it has to be asked for.
func (h *ahead) end(room store.RoomNID) (store.State, bool) {
	if h.of(room) {
		for _, row := range h.newest[room] {
			if row.Live() {
				return row.CurrentState(), true
			}
		}
	}
	return store.State{}, false
}

// lonely says whether nothing relates to any of some events of a room.
func (h *ahead) lonely(room store.RoomNID, rows []*store.EventRow) bool {
	if !h.of(room) || len(h.newest[room]) == 0 {
		return false
	}
	oldest := h.newest[room][len(h.newest[room])-1]
	for _, row := range rows { // a page may have gone on behind the newest
		if h.children[row.NID] || rooms.Before(row).Less(rooms.Before(oldest)) {
			return false
		}
	}
	return true
}

// readReceipts fills in the newest receipts of each room, and of one that has more of them than a response brings the
// viewer's own, which are never left out.
func (a *assembly) readReceipts(tx *store.Tx, h *ahead, nids []store.RoomNID) error {
	add := func(r store.Receipt) { h.receipts[r.Room] = append(h.receipts[r.Room], r) }
	if err := tx.ReceiptsOf(nids, a.q.User.NID, a.from, a.bound, maxReceipts, add); err != nil {
		return err
	}
	for nid, list := range h.receipts {
		if len(list) < maxReceipts {
			continue
		}
		if err := tx.OwnReceipts(nid, a.q.User.NID, a.from, a.bound, add); err != nil {
			return err
		}
	}
	return nil
}
