package sync

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	gosync "sync"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// ranking is a user's rooms in the order in which sliding sync shows them, the last bumped first, as of a position. It is
// brought forward by the tail, room by room, and never changed once it is made.
type ranking struct {
	upTo    store.Pos
	rooms   map[roomNID]*ranked
	order   []*ranked
	numbers map[matrix.RoomID]roomNID // of the rooms
	ignored map[matrix.UserID]bool
	own     *ownData
}

// ranked is a room of a ranking. It is never changed.
type ranked struct {
	ref    rooms.Ref
	member store.MemberRow
	bump   store.Pos
	state  store.State // the room's state, of a room that the user is in; as it was at the end, of one that it was in
	facts  *roomFacts  // of a room that the user knows from outside alone, by what it was told of it
	hidden bool        // an invitation that is kept from the user
	put    bool        // out of the room: the user did not leave of its own accord
}

// listed says whether a room is in lists: those that the user is in, is invited to or knocks on, and those that it was put
// out of (MSC4186, "Lists").
func (r *ranked) listed() bool {
	switch r.member.Membership {
	case store.Join:
		return true
	case store.Invite, store.Knock:
		return !r.hidden
	}
	return r.put && r.member.Joined != 0
}

// rankings guards the ranking of a listener.
type rankings struct {
	mu   gosync.Mutex
	last *ranking
}

// ownData is what of the user's own data decides about lists. It is never changed.
type ownData struct {
	version int64 // the listener's dataChanges
	direct  map[matrix.RoomID]bool
	tags    map[roomNID]map[string]bool
	blocks  bool // no invitations
}

// ranking brings the user's ranking up to an assembly's present.
func (l *listener) ranking(a *assembly) (*ranking, error) {
	ignored, err := l.ignores(a.ctx, a.e)
	if err != nil {
		return nil, err
	}
	l.ranks.mu.Lock()
	defer l.ranks.mu.Unlock()
	had := l.ranks.last
	if had != nil && had.upTo > a.bound {
		return had, nil // somebody asked later and was quicker
	}
	next := &ranking{upTo: a.bound, ignored: ignored}
	if next.own, err = l.ownData(a, had); err != nil {
		return nil, err
	}
	var items []item
	within := had != nil && had.own.blocks == next.own.blocks && maps.Equal(had.ignored, ignored)
	if within {
		items, _, within = a.e.tail.after(had.upTo)
	}
	if !within {
		had = &ranking{}
	}
	next.rooms, next.numbers = had.rooms, had.numbers
	changed, err := next.forward(a, items)
	if err != nil {
		return nil, err
	}
	next.order = had.order
	if changed {
		next.order = slices.SortedFunc(maps.Values(next.rooms), func(a, b *ranked) int {
			return cmp.Or(-cmp.Compare(a.bump, b.bump), cmp.Compare(a.ref.NID, b.ref.NID))
		})
	}
	l.ranks.last = next
	return next, nil
}

// find is a room by its ID, nil if the user has nothing to do with it.
func (r *ranking) find(id matrix.RoomID) *ranked { return r.rooms[r.numbers[id]] }

// forward takes in what the tail says of the rooms, and whatever changed of where the user is.
func (r *ranking) forward(a *assembly, items []item) (changed bool, err error) {
	var fresh []store.MemberRow
	for nid, m := range a.members {
		if had := r.rooms[nid]; had == nil || had.member != m {
			fresh = append(fresh, m)
		}
	}
	changes := map[roomNID]*ranked{}
	for _, it := range items {
		if it.event == nil || it.pos > a.bound {
			continue
		}
		had := changes[it.event.Room]
		if had == nil {
			had = r.rooms[it.event.Room]
		}
		if had == nil || had.member.Membership != store.Join {
			continue
		}
		next := *had
		next.state = it.event.CurrentState()
		if bumps(it.event, r.ignored) {
			next.bump = it.pos
		}
		changes[it.event.Room] = &next
	}
	if err := a.rankFresh(r, fresh, changes); err != nil {
		return false, err
	}
	gone := len(r.rooms)+len(fresh) != len(a.members) // at first sight: changed rows count twice
	if len(changes) == 0 && !gone {
		return false, nil
	}
	all := maps.Clone(r.rooms)
	if all == nil {
		all = map[roomNID]*ranked{}
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(nid roomNID, _ *ranked) bool { _, there := a.members[nid]; return !there })
	if r.rooms = all; len(fresh) > 0 || gone {
		r.numbers = make(map[matrix.RoomID]roomNID, len(all))
		for nid, room := range all {
			r.numbers[room.ref.ID] = nid
		}
	}
	return true, nil
}

// bumpTypes are the types of events that make a room go to the top (MSC4186, bump_stamp).
var bumpTypes = map[string]bool{
	"m.room.create": true, "m.room.message": true, "m.room.encrypted": true, "m.sticker": true, "m.call.invite": true,
	"m.poll.start": true, "m.beacon_info": true,
}

func bumps(row *store.EventRow, ignored map[matrix.UserID]bool) bool {
	return bumpTypes[row.Event.Type()] && row.Visible() && !withheld(row, ignored)
}

// rankFresh ranks rooms by the database.
func (a *assembly) rankFresh(r *ranking, fresh []store.MemberRow, into map[roomNID]*ranked) error {
	var joined []roomNID
	for _, m := range fresh {
		ref, err := a.e.rooms.LookupNID(a.ctx, m.Room)
		if err != nil {
			return err
		}
		room := &ranked{ref: ref, member: m, bump: m.Pos}
		into[m.Room] = room
		switch m.Membership {
		case store.Join:
			joined = append(joined, m.Room)
		case store.Invite, store.Knock:
			err = a.rankOutside(r, room)
		default:
			err = a.rankLeft(room)
		}
		if err != nil {
			return err
		}
	}
	heads := map[roomNID]*store.EventRow{}
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		return tx.Heads(joined, a.bound, func(row *store.EventRow) { heads[row.Room] = row })
	})
	if err != nil {
		return err
	}
	for _, nid := range joined {
		room := into[nid]
		if head := heads[nid]; head != nil {
			room.state, room.bump = head.CurrentState(), head.Pos
			if !bumps(head, r.ignored) {
				if room.bump, err = a.lastBump(r, room); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// maxBumpRows is how far back the last event that bumps a room is looked for.
const maxBumpRows = 500

// lastBump finds the last event that bumped a room. Where none is near the room's end, it stands where its user came in.
func (a *assembly) lastBump(r *ranking, room *ranked) (store.Pos, error) {
	hi := store.Place{Pos: a.bound}
	for read := 0; read < maxBumpRows; {
		var rows []*store.EventRow
		err := a.e.db.Read(a.ctx, func(tx *store.Tx) (err error) {
			rows, err = tx.Timeline(room.ref.NID, store.Place{}, hi, true, 50)
			return err
		})
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			if row.Sub == 0 && bumps(row, r.ignored) {
				return row.Pos, nil
			}
		}
		if len(rows) < 50 {
			break
		}
		last := rows[len(rows)-1]
		hi, read = store.Place{Pos: last.Pos, Sub: last.Sub - 1}, read+len(rows)
	}
	return room.member.Joined, nil
}

// rankOutside ranks a room that the user is invited to or knocks on, by what it was told of it.
func (a *assembly) rankOutside(r *ranking, room *ranked) error {
	events, hidden, err := a.outside(room.ref, room.member)
	if err != nil {
		return err
	}
	room.hidden, room.facts = hidden, &roomFacts{}
	for _, event := range events {
		typ, _ := matrix.GetString(event, "type")
		content, _ := matrix.Get(event, "content")
		room.facts.take(typ, content)
	}
	return nil
}

// rankLeft ranks a room that the user is in no more.
func (a *assembly) rankLeft(room *ranked) (err error) {
	m := room.member
	row, err := a.e.memberEvent(a.ctx, m)
	if err != nil {
		return err
	}
	room.put = m.Membership == store.Ban || row != nil && row.Sender != m.Member
	if room.put && m.Joined != 0 {
		room.state, err = a.e.rooms.StateAt(a.ctx, m.Room, m.Departed)
	}
	return err
}

// ownData reads what of the user's own data decides about lists, unless that is known.
func (l *listener) ownData(a *assembly, had *ranking) (*ownData, error) {
	l.mu.Lock()
	version := l.dataChanges
	l.mu.Unlock()
	if had != nil && had.own.version == version {
		return had.own, nil
	}
	own := &ownData{version: version}
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		own.direct, own.tags = map[matrix.RoomID]bool{}, map[roomNID]map[string]bool{}
		content, err := tx.AccountData(a.q.User.NID, 0, "m.direct")
		if err != nil {
			return err
		}
		var direct map[string]json.RawMessage
		if json.Unmarshal([]byte(content), &direct) == nil {
			for _, list := range direct {
				var ids []matrix.RoomID
				if json.Unmarshal(list, &ids) == nil { // what is no list names no rooms
					for _, id := range ids {
						own.direct[id] = true
					}
				}
			}
		}
		return tx.AccountDataOfType(a.q.User.NID, "m.tag", func(room store.RoomNID, content string) {
			var tagged struct {
				Tags map[string]json.RawMessage `json:"tags"`
			}
			if json.Unmarshal([]byte(content), &tagged) == nil && len(tagged.Tags) > 0 {
				own.tags[room] = map[string]bool{}
				for tag := range tagged.Tags {
					own.tags[room][tag] = true
				}
			}
		})
	})
	if err != nil {
		return nil, err
	}
	own.blocks, err = a.e.rooms.BlocksInvites(a.ctx, a.q.User.NID)
	return own, err
}
