package sync

import (
	"context"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// windows finds the rooms that the request asks for, by its lists and its subscriptions.
func (s *slide) windows() error {
	s.wanted = map[roomNID]*wish{}
	for name, list := range s.body.Lists {
		var found []*ranked
		spaces, err := s.spaces(list.Filters)
		if err != nil {
			return err
		}
		for _, r := range s.rank.order {
			if !r.listed() {
				continue
			}
			ok, err := s.matches(list.Filters, spaces, r)
			if err != nil {
				return err
			}
			if ok {
				found = append(found, r)
			}
		}
		s.window(name, list, found)
	}
	for id, sub := range s.body.Subscriptions {
		if r := s.rank.find(id); r != nil && r.listed() { // what is not there, or not for this user, is passed over
			s.want(r, &sub.wish)
		}
	}
	return nil
}

// maxPlaced is how many places of lists one answer names. Beyond that clients go by the stamps of the rooms, as today's do.
const maxPlaced = 2000

// window takes the ranges of a list.
func (s *slide) window(name string, list *slidingList, found []*ranked) {
	out := &slidingCount{Count: len(found)}
	if s.res.Lists == nil {
		s.res.Lists = map[string]*slidingCount{}
	}
	s.res.Lists[name] = out
	ranges := list.Ranges
	if len(ranges) == 0 {
		ranges = slidingRanges{{0, max(0, len(found)-1)}}
	}
	for _, span := range ranges {
		op := slidingOp{Op: "SYNC", Range: span, Rooms: []matrix.RoomID{}}
		for i := span[0]; i <= span[1] && i < len(found); i++ {
			op.Rooms = append(op.Rooms, found[i].ref.ID)
			s.want(found[i], &list.wish)
		}
		if s.placed += len(op.Rooms); s.placed <= maxPlaced {
			out.Ops = append(out.Ops, op)
		}
	}
}

func (s *slide) want(r *ranked, w *wish) {
	had := s.wanted[r.ref.NID]
	if had == nil {
		had = &wish{}
		s.wanted[r.ref.NID] = had
	}
	had.join(w)
}

// matches says whether a room passes a list's filter.
func (s *slide) matches(f *slidingFilter, spaces []map[matrix.RoomID]bool, r *ranked) (bool, error) {
	if f == nil {
		return true, nil
	}
	own := s.rank.own
	tags := own.tags[r.ref.NID]
	tagged := func(tag string) bool { return tags[tag] }
	switch {
	case f.IsDM != nil && *f.IsDM != own.direct[r.ref.ID],
		f.Invite != nil && *f.Invite != (r.member.Membership == store.Invite),
		len(f.Tags) > 0 && !slices.ContainsFunc(f.Tags, tagged),
		slices.ContainsFunc(f.NotTags, tagged):
		return false, nil
	}
	if f.Encrypted != nil || f.RoomTypes != nil || f.NotRoomTypes != nil || f.NameLike != "" {
		facts, err := s.e.factsOf(s.ctx, r)
		if err != nil || !facts.match(f) {
			return false, err
		}
	}
	return f.Spaces == nil || slices.ContainsFunc(spaces, func(children map[matrix.RoomID]bool) bool { return children[r.ref.ID] }), nil
}

// spaces finds the rooms that each of a filter's spaces names as its children, of those spaces that the user is in.
func (s *slide) spaces(f *slidingFilter) (children []map[matrix.RoomID]bool, err error) {
	if f == nil {
		return nil, nil
	}
	for _, id := range f.Spaces {
		space := s.rank.find(id)
		if space == nil || space.member.Membership != store.Join {
			continue
		}
		of, err := s.e.childrenOf(s.ctx, space)
		if err != nil {
			return nil, err
		}
		children = append(children, of)
	}
	return children, nil
}

// roomFacts are what filters ask of a room's state.
type roomFacts struct {
	encrypted   bool
	typ         string
	name, alias string
}

// take notes what a state event says.
func (f *roomFacts) take(typ string, content []byte) {
	switch typ {
	case "m.room.encryption":
		f.encrypted = true
	case "m.room.create":
		f.typ, _ = matrix.GetString(content, "type")
	case "m.room.name":
		f.name, _ = matrix.GetString(content, "name")
	case "m.room.canonical_alias":
		f.alias, _ = matrix.GetString(content, "alias")
	}
}

func (f *roomFacts) match(q *slidingFilter) bool {
	isType := func(typ *string) bool { return typ == nil && f.typ == "" || typ != nil && *typ == f.typ && *typ != "" }
	name := f.name
	if name == "" {
		name = f.alias
	}
	return (q.Encrypted == nil || *q.Encrypted == f.encrypted) &&
		(q.RoomTypes == nil || slices.ContainsFunc(q.RoomTypes, isType)) && !slices.ContainsFunc(q.NotRoomTypes, isType) &&
		strings.Contains(strings.ToLower(name), strings.ToLower(q.NameLike))
}

// stateKey names the state of a room apart from its members.
type stateKey struct {
	room roomNID
	rest [16]byte
}

var factKeys = []authrules.StateKey{{Type: "m.room.create"}, {Type: "m.room.encryption"}, {Type: "m.room.name"}, {Type: "m.room.canonical_alias"}}

// factsOf finds what filters ask of a room: remembered, since a state never changes.
func (e *Engine) factsOf(ctx context.Context, r *ranked) (*roomFacts, error) {
	if r.facts != nil {
		return r.facts, nil
	}
	key := stateKey{r.ref.NID, r.state.Rest}
	if facts, ok := e.facts.GetIfPresent(key); ok {
		return facts, nil
	}
	rows, err := e.rooms.StateEventList(ctx, r.ref.NID, store.State{Rest: r.state.Rest}, factKeys)
	if err != nil {
		return nil, err
	}
	facts := &roomFacts{}
	for _, row := range rows {
		facts.take(row.Event.Type(), row.Event.Content())
	}
	e.facts.Set(key, facts)
	return facts, nil
}

// childrenOf finds the rooms that a space names as its children: those with servers to reach them by (client-server API,
// "Spaces").
func (e *Engine) childrenOf(ctx context.Context, r *ranked) (map[matrix.RoomID]bool, error) {
	key := stateKey{r.ref.NID, r.state.Rest}
	if children, ok := e.children.GetIfPresent(key); ok {
		return children, nil
	}
	rows, err := e.rooms.AllState(ctx, r.ref.NID, r.state, false)
	if err != nil {
		return nil, err
	}
	children := map[matrix.RoomID]bool{}
	for _, row := range rows {
		child, _ := row.Event.StateKey()
		if via, ok := matrix.Get(row.Event.Content(), "via"); ok && row.Event.Type() == "m.space.child" && len(via) > 2 && via[0] == '[' {
			children[matrix.RoomID(child)] = true
		}
	}
	e.children.Set(key, children)
	return children, nil
}

// touched is in which rooms something happened after the client's position.
type touched struct {
	events, receipts, own, data, typing map[roomNID]bool
}

// look finds the rooms in which something happened.
func (s *slide) look() error {
	if s.pos == nil {
		return nil
	}
	t := touched{events: map[roomNID]bool{}, receipts: s.receipts, own: s.ownReceipts, data: map[roomNID]bool{}, typing: s.e.typing.changed(s.typed)}
	s.touched = t
	if s.inTail && !s.ownData {
		for nid := range s.byRoom {
			t.events[nid] = true
		}
		return nil
	}
	var joined []roomNID
	for nid := range s.had.rooms {
		if s.members[nid].Membership == store.Join {
			joined = append(joined, nid)
		}
	}
	return s.e.db.Read(s.ctx, func(tx *store.Tx) error {
		err := tx.RoomsWithAccountData(s.q.User.NID, s.from, s.bound, func(nid roomNID) { t.data[nid] = true })
		if err != nil {
			return err
		}
		if s.inTail {
			for nid := range s.byRoom {
				t.events[nid] = true
			}
			return nil
		}
		err = tx.RoomsWithReceipts(joined, s.from, s.bound, func(nid roomNID) { t.receipts[nid], t.own[nid] = true, true })
		if err != nil {
			return err
		}
		return tx.RoomsChanged(joined, s.from, s.bound, func(nid roomNID) { t.events[nid] = true })
	})
}

// any says whether anything happened in a room.
func (t *touched) any(nid roomNID) bool {
	return t.events[nid] || t.receipts[nid] || t.data[nid] || t.typing[nid]
}
