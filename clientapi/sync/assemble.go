package sync

import (
	"context"
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// assembly builds one response: what a client is told between from and bound.
type assembly struct {
	e        *Engine
	ctx      context.Context
	q        Request
	l        *listener
	from     store.Pos // 0 for a first sync
	bound    store.Pos
	typed    int64 // ephemeral position that the client has
	members  map[store.RoomNID]store.MemberRow
	byRoom   map[store.RoomNID][]item // what the tail has of each room, if from is within it
	inTail   bool
	lists    bool // somebody's devices changed, or the user's view of them
	receipts map[store.RoomNID]bool

	ownReceipts map[store.RoomNID]bool // of the receipts, those of the user

	fresh map[store.RoomNID]bool // rooms that the user joined after from
	ahead *ahead                 // of the rooms that are being added; may be nil

	reader *rooms.Reader // once it was asked for

	ownData, ownMessages, ownKeys bool // something of the user's own changed: account data, messages to a device, keys

	res *Response
}

// assembly begins a response as of the tail's present.
func (e *Engine) assembly(ctx context.Context, l *listener, q Request) (*assembly, error) {
	a := &assembly{
		e: e, ctx: ctx, q: q, l: l, receipts: map[store.RoomNID]bool{}, ownReceipts: map[store.RoomNID]bool{}, fresh: map[store.RoomNID]bool{},
	}
	if q.Since != nil {
		a.from, a.typed = q.Since.Pos, q.Since.Ephemeral
		if err := e.reach(ctx, a.from); err != nil { // a token that another node gave out may be ahead of this one
			return nil, err
		}
	}
	var items []item
	items, a.bound, a.inTail = e.tail.after(a.from)
	a.res = &Response{next: Token{Pos: a.bound, Ephemeral: e.typing.position(), Generation: e.generation}}
	var err error
	if a.members, err = l.memberships(ctx, e, a.bound); err != nil {
		return nil, err
	}
	if a.inTail {
		a.sort(items)
	}
	return a, nil
}

// assemble builds the response for a request as of the tail's present.
func (e *Engine) assemble(ctx context.Context, l *listener, q Request) (*Response, error) {
	a, err := e.assembly(ctx, l, q)
	if err != nil {
		return nil, err
	}
	if err := a.rooms(); err != nil {
		return nil, err
	}
	if err := a.personal(); err != nil {
		return nil, err
	}
	err = a.presence()
	a.q.Filter.shaped(a.res.AccountData)
	a.q.Filter.shaped(a.res.Presence)
	a.res.NextBatch = a.res.next.String()
	return a.res, err
}

// sort groups the tail's items by what they mean for this client.
func (a *assembly) sort(items []item) {
	a.byRoom = map[store.RoomNID][]item{}
	for _, it := range items {
		if it.pos > a.bound {
			break
		}
		c := it.change
		switch {
		case it.event != nil:
			if _, mine := a.members[it.event.Room]; mine {
				a.byRoom[it.event.Room] = append(a.byRoom[it.event.Room], it)
			}
		case c.Kind == store.ChangeReceipt:
			a.receipts[c.Room] = true
			if c.User == a.q.User.NID {
				a.ownReceipts[c.Room] = true
			}
		case c.Kind == store.ChangeDeviceList:
			a.lists = true
		case c.User == a.q.User.NID:
			a.sortOwn(c.Kind)
		}
	}
}

// sortOwn notes what of the user's own is to be read again.
func (a *assembly) sortOwn(kind store.ChangeKind) {
	switch kind {
	case store.ChangeAccountData:
		a.ownData = true
	case store.ChangeToDevice:
		a.ownMessages = true
	case store.ChangeKeys:
		a.ownKeys, a.lists = true, true // it may have signed somebody's keys
	}
}

// rooms adds every room that has something to tell.
func (a *assembly) rooms() error {
	changed, err := a.changedRooms()
	if err != nil {
		return err
	}
	var visit []store.MemberRow
	for nid, m := range a.members {
		if m.Pos > a.from || changed[nid] || a.q.FullState {
			visit = append(visit, m)
		}
	}
	for some := range slices.Chunk(visit, maxAhead) {
		if err := a.lookAhead(some); err != nil {
			return err
		}
		for _, m := range some {
			if err := a.room(m.Room, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// changedRooms are the joined rooms in which something happened, events or other things.
func (a *assembly) changedRooms() (map[store.RoomNID]bool, error) {
	changed := a.e.typing.changed(a.typed)
	if a.inTail {
		for nid := range a.byRoom {
			changed[nid] = true
		}
		for nid := range a.receipts {
			changed[nid] = true
		}
		if !a.ownData {
			return changed, nil
		}
	}
	var joined []store.RoomNID
	for nid, m := range a.members {
		if m.Membership == store.Join {
			joined = append(joined, nid)
		}
	}
	mark := func(nid store.RoomNID) { changed[nid] = true }
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		if err := tx.RoomsWithAccountData(a.q.User.NID, a.from, a.bound, mark); err != nil || a.inTail {
			return err
		}
		if err := tx.RoomsWithReceipts(joined, a.from, a.bound, mark); err != nil {
			return err
		}
		return tx.RoomsChanged(joined, a.from, a.bound, mark)
	})
	return changed, err
}

// room adds one room by where the user stands in it.
func (a *assembly) room(nid store.RoomNID, m store.MemberRow) error {
	ref, err := a.e.rooms.LookupNID(a.ctx, nid)
	if err != nil || !a.filter().keeps(string(ref.ID)) {
		return err
	}
	switch m.Membership {
	case store.Join:
		return a.joined(ref, m)
	case store.Invite, store.Knock:
		if m.Pos <= a.from {
			return nil
		}
		return a.pending(ref, m)
	case store.Leave, store.Ban:
		if a.from == 0 && !a.filter().IncludeLeave || m.Pos <= a.from {
			return nil
		}
		return a.left(ref, m)
	}
	return nil
}

func (a *assembly) filter() *RoomFilter { return &a.q.Filter.Room }

func (a *assembly) roomsAnswer() *roomsAnswer {
	if a.res.Rooms == nil {
		a.res.Rooms = &roomsAnswer{}
	}
	return a.res.Rooms
}

// joinedRoom is a room of the response that the user is in.
type joinedRoom struct {
	Summary     *summary     `json:"summary,omitempty"`
	State       *eventList   `json:"state,omitempty"`
	StateAfter  *eventList   `json:"state_after,omitempty"`
	OldAfter    *eventList   `json:"org.matrix.msc4222.state_after,omitempty"`
	Timeline    timeline     `json:"timeline"`
	Ephemeral   *eventList   `json:"ephemeral,omitempty"`
	AccountData *eventList   `json:"account_data,omitempty"`
	Unread      *rooms.Tally `json:"unread_notifications,omitempty"`

	UnreadThreads map[matrix.EventID]*rooms.Tally `json:"unread_thread_notifications,omitempty"`
}

type timeline struct {
	Events    []json.RawMessage `json:"events"`
	Limited   bool              `json:"limited,omitempty"`
	PrevBatch string            `json:"prev_batch,omitempty"`
}

// joined adds a room that the user is in: all of it if the client does not know it yet, else what is new.
func (a *assembly) joined(ref rooms.Ref, m store.MemberRow) error {
	fresh := a.from == 0 || m.Joined > a.from
	if fresh && a.from != 0 {
		a.fresh[ref.NID] = true
	}
	piece, err := a.piece(ref, m, fresh, a.bound)
	if err != nil {
		return err
	}
	if fresh && a.from != 0 { // whoever was in the room before may have some of it already: this does not follow on that
		piece.limited = true
	}
	out := &joinedRoom{}
	if err := a.fill(ref, m, piece, fresh, out); err != nil {
		return err
	}
	if err := a.signals(ref, m, piece, fresh, out); err != nil {
		return err
	}
	if !fresh && !a.q.FullState && len(out.Timeline.Events) == 0 && !out.hasState() &&
		out.Ephemeral == nil && out.AccountData == nil && !piece.changed {
		return nil
	}
	a.q.Filter.shaped(out.Ephemeral)
	a.q.Filter.shaped(out.AccountData)
	answer := a.roomsAnswer()
	if answer.Join == nil {
		answer.Join = map[matrix.RoomID]*joinedRoom{}
	}
	answer.Join[ref.ID] = out
	return nil
}

// fill puts timeline and state of a piece into a room of the response.
func (a *assembly) fill(ref rooms.Ref, m store.MemberRow, p *piece, fresh bool, out *joinedRoom) error {
	events, err := a.timeline(ref, m, p)
	if err != nil {
		return err
	}
	out.Timeline = timeline{Events: a.q.Filter.shape(events, p.events), Limited: p.limited}
	if out.Timeline.Events == nil {
		out.Timeline.Events = []json.RawMessage{}
	}
	if p.limited || fresh {
		out.Timeline.PrevBatch = FormatPlace(p.start)
	}
	state, err := a.state(ref, p, fresh)
	if err == nil {
		state, err = a.e.rooms.StateShown(a.ctx, ref, rooms.Viewer{ID: a.q.User.ID, Member: &m}, state)
	}
	if err != nil {
		return err
	}
	switch list := (&eventList{a.q.Filter.shape(ClientEvents(state), state)}); {
	case a.q.StateAfter: // always there: its absence would say that the server does not know it
		out.StateAfter = list
	case a.q.OldStateAfter:
		out.OldAfter = list
	case len(state) > 0:
		out.State = list
	}
	return nil
}

// timeline writes the events of a piece. If they do not follow on what the client knows, what relates to them goes with
// them: the client may not hear of it otherwise, and cannot sum it up.
func (a *assembly) timeline(ref rooms.Ref, m store.MemberRow, p *piece) ([]json.RawMessage, error) {
	who := a.q.Viewpoint
	if a.ahead.of(ref.NID) {
		who.txns = a.ahead.txns
	}
	if !p.limited || len(p.events) == 0 || a.ahead.lonely(ref.NID, p.events) {
		return a.e.Timeline(a.ctx, who, ref, p.events)
	}
	viewer := rooms.Viewer{ID: a.q.User.ID, Member: &m}
	if a.reader == nil {
		reader, err := a.e.rooms.Reader(a.ctx, a.q.User.NID, viewer)
		if err != nil {
			return nil, err
		}
		a.reader = &reader
	}
	return a.e.BundledFor(a.ctx, who, ref, rooms.Reader{Viewer: viewer, NID: a.reader.NID, Ignored: a.reader.Ignored}, p.events)
}

// hasState says whether there is state to tell, under whichever name.
func (r *joinedRoom) hasState() bool {
	for _, list := range []*eventList{r.State, r.StateAfter, r.OldAfter} {
		if list != nil && len(list.Events) > 0 {
			return true
		}
	}
	return false
}

// pending adds an invitation or a knock with the stripped state that it came with.
func (a *assembly) pending(ref rooms.Ref, m store.MemberRow) error {
	events, hidden, err := a.outside(ref, m)
	if err != nil || hidden {
		return err
	}
	answer := a.roomsAnswer()
	if m.Membership == store.Knock {
		if answer.Knock == nil {
			answer.Knock = map[matrix.RoomID]*knockedRoom{}
		}
		answer.Knock[ref.ID] = &knockedRoom{eventList{events}}
		return nil
	}
	if answer.Invite == nil {
		answer.Invite = map[matrix.RoomID]*invitedRoom{}
	}
	answer.Invite[ref.ID] = &invitedRoom{eventList{events}}
	return nil
}

// outside is what somebody who is invited or knocks may see of a room. An invitation is hidden if it came although the user
// wants none, or from somebody whom the user ignores.
func (a *assembly) outside(ref rooms.Ref, m store.MemberRow) (events []json.RawMessage, hidden bool, err error) {
	if m.Membership == store.Invite {
		blocks, err := a.e.rooms.BlocksInvites(a.ctx, a.q.User.NID)
		if err != nil || blocks {
			return nil, true, err
		}
	}
	if events, err = a.e.rooms.StrippedState(a.ctx, ref, m); err != nil || m.Membership != store.Invite {
		return events, false, err
	}
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return nil, false, err
	}
	by, _ := matrix.GetString(events[len(events)-1], "sender") // the invitation comes last
	return events, ignored[matrix.UserID(by)], nil
}

type invitedRoom struct {
	State eventList `json:"invite_state"`
}

type knockedRoom struct {
	State eventList `json:"knock_state"`
}
