package sync

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// slidingRoom is a room of an answer of sliding sync (MSC4186, "RoomResult"). What is absent has not changed, or is not
// there if initial is set.
type slidingRoom struct {
	Initial    bool            `json:"initial,omitempty"`
	Membership string          `json:"membership"`
	BumpStamp  store.Pos       `json:"bump_stamp"`
	Name       json.RawMessage `json:"name,omitempty"`   // null: it has none any more
	Avatar     json.RawMessage `json:"avatar,omitempty"` // likewise
	Heroes     []slidingHero   `json:"heroes,omitempty"`
	IsDM       *bool           `json:"is_dm,omitempty"`

	State     []json.RawMessage `json:"required_state,omitempty"`
	Timeline  []json.RawMessage `json:"timeline,omitempty"`
	PrevBatch string            `json:"prev_batch,omitempty"`
	Limited   bool              `json:"limited,omitempty"`
	Expanded  bool              `json:"unstable_expanded_timeline,omitempty"`
	Live      *int              `json:"num_live,omitempty"`

	Joined    *int   `json:"joined_count,omitempty"`
	Invited   *int   `json:"invited_count,omitempty"`
	Notify    *int64 `json:"notification_count,omitempty"`
	Highlight *int64 `json:"highlight_count,omitempty"`

	Stripped []json.RawMessage `json:"invite_state,omitempty"`
}

// slidingHero is one of those after whom a room without a name is called.
type slidingHero struct {
	User   matrix.UserID `json:"user_id"`
	Name   string        `json:"displayname,omitempty"`
	Avatar string        `json:"avatar_url,omitempty"`
}

// maxOpened is how many rooms one answer shows for the first time. More come with the next request, which finds them at once.
const maxOpened = 200

// rooms adds the rooms that the request asks for and that have something to tell, the last bumped first.
func (s *slide) rooms() error {
	for _, r := range s.rank.order {
		w := s.wanted[r.ref.NID]
		if w == nil {
			continue
		}
		var err error
		switch r.member.Membership {
		case store.Join:
			err = s.room(r, w)
		case store.Invite, store.Knock:
			err = s.pendingRoom(r, w)
		default:
			err = s.formerRoom(r, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// position is up to where the client was told of a room that it knows.
func (s *slide) position(k known) store.Pos {
	if k.asOf != 0 {
		return k.asOf
	}
	return s.from
}

// view is the assembly for one room: from where the client was told of it.
func (s *slide) view(k known, since store.Pos, limit int) *assembly {
	a := *s.assembly
	a.q.Filter = &Filter{Room: RoomFilter{Timeline: EventFilter{Limit: &limit}}}
	if k.asOf != 0 {
		a.from, a.inTail, a.byRoom = since, false, nil
	}
	return &a
}

// room adds a room that the user is in, if there is something to tell.
func (s *slide) room(r *ranked, w *wish) error {
	nid, state := r.ref.NID, w.state.key()
	k, knows := s.had.rooms[nid]
	since := s.position(k)
	fresh := !knows || k.flags&knownOutside != 0 || r.member.Joined > since
	direct := s.rank.own.direct[r.ref.ID]
	dmChanged := direct != (k.flags&knownDM != 0)
	grown, other := w.limit > k.limit, state != k.state
	if !fresh && k.asOf == 0 && !grown && !other && !dmChanged && !s.touched.events[nid] && !s.touched.own[nid] && r.member.Pos <= since {
		return nil
	}
	if fresh {
		if s.opened == maxOpened {
			return nil
		}
		s.opened++
		s.fresh[nid] = true
		k = known{}
	}
	v := roomView{slide: s, assembly: s.view(k, since, w.limit), r: r, k: k, w: w, fresh: fresh, upTo: s.bound, out: &slidingRoom{}}
	if err := v.fill(); err != nil {
		return err
	}
	if fresh && direct || !fresh && dmChanged {
		v.out.IsDM, v.told = &direct, true
	}
	if fresh || v.told || s.touched.own[nid] || k.asOf != 0 {
		counted := &joinedRoom{}
		if err := v.unread(r.ref, r.member, counted); err != nil {
			return err
		}
		v.out.Notify, v.out.Highlight = &counted.Unread.Notify, &counted.Unread.Highlight
		v.told = v.told || s.touched.own[nid]
	}
	if fresh || v.told {
		s.res.Rooms[r.ref.ID] = v.out
	}
	k = known{limit: v.limit(), state: s.give(w.state), flags: k.flags &^ knownDM}
	if direct {
		k.flags |= knownDM
	}
	s.set(nid, k)
	return nil
}

// pendingRoom adds a room that the user is invited to or knocks on, once.
func (s *slide) pendingRoom(r *ranked, w *wish) error {
	k, knows := s.had.rooms[r.ref.NID]
	if knows && r.member.Pos <= s.position(k) {
		return nil
	}
	if s.opened == maxOpened {
		return nil
	}
	s.opened++
	events, hidden, err := s.outside(r.ref, r.member)
	if err != nil || hidden {
		return err
	}
	out := &slidingRoom{Initial: true, Membership: r.member.Membership.String(), BumpStamp: r.bump, Stripped: events}
	k = known{flags: knownOutside}
	if s.rank.own.direct[r.ref.ID] {
		yes := true
		out.IsDM, k.flags = &yes, k.flags|knownDM
	}
	s.res.Rooms[r.ref.ID] = out
	s.set(r.ref.NID, k)
	return nil
}

// formerRoom adds a room that the user was put out of, once: whatever the client knows of it, or with what the request asks
// for if it knows nothing.
func (s *slide) formerRoom(r *ranked, w *wish) error {
	k, knows := s.had.rooms[r.ref.NID]
	if knows && r.member.Pos <= s.position(k) {
		return nil
	}
	if !knows {
		if s.opened == maxOpened {
			return nil
		}
		s.opened++
	}
	if err := s.departed(r, k, w, !knows || k.flags&knownOutside != 0 || r.member.Joined > s.position(k)); err != nil {
		return err
	}
	s.set(r.ref.NID, known{limit: w.limit, state: s.give(w.state)})
	return nil
}

// others sees to the rooms that the client knows and does not ask for: it is told once of those that the user has left, and
// of the rest it is noted how far it was told if something happens there.
func (s *slide) others() error {
	for nid, k := range s.had.rooms {
		if s.wanted[nid] != nil {
			continue
		}
		r := s.rank.rooms[nid]
		if r == nil {
			s.drop(nid)
			continue
		}
		switch m := r.member; {
		case (m.Membership == store.Leave || m.Membership == store.Ban) && m.Pos > s.position(k):
			w := &wish{limit: k.limit, state: s.had.required(k.state)}
			if err := s.departed(r, k, w, k.flags&knownOutside == 0 && m.Joined > s.position(k)); err != nil {
				return err
			}
			s.drop(nid)
		case k.asOf == 0 && (m.Pos > s.from || s.touched.any(nid)):
			k.asOf = s.from
			s.set(nid, k)
		}
	}
	return nil
}

// departed tells of a room that the user is in no more: as it was until the user's departure, and how that ended.
func (s *slide) departed(r *ranked, k known, w *wish, fresh bool) error {
	m := r.member
	out := &slidingRoom{Initial: fresh, Membership: m.Membership.String(), BumpStamp: m.Pos}
	since := s.position(k)
	v := roomView{slide: s, assembly: s.view(k, since, w.limit), r: r, k: k, w: w, fresh: fresh, upTo: m.Departed, out: out}
	if m.Joined != 0 && (fresh || k.flags&knownOutside == 0 && m.Departed > since) {
		if err := v.fill(); err != nil {
			return err
		}
	}
	row, err := s.e.memberEvent(s.ctx, m)
	if err != nil {
		return err
	}
	if row != nil && !v.sent[row.NID] { // which says that it is over, whatever else is asked for
		out.State = append(out.State, ClientEvent(row))
	}
	s.res.Rooms[r.ref.ID] = out
	return nil
}

// roomView is the work on one room of an answer.
type roomView struct {
	*slide
	*assembly
	r     *ranked
	k     known // what the client knows of it
	w     *wish
	fresh bool      // all of it, whatever the client knows
	upTo  store.Pos // where the telling ends
	out   *slidingRoom

	told  bool // there is something to tell
	whole bool // the timeline is the newest events, not only those that are new
	sent  map[store.EventNID]bool
}

// limit is how many of the newest events the client has by the answer.
func (v *roomView) limit() int {
	if v.fresh || v.whole {
		return v.w.limit
	}
	return max(v.k.limit, v.w.limit)
}

// fill tells what happened in a room that the user is or was in.
func (v *roomView) fill() error {
	ref, m := v.r.ref, v.r.member
	v.out.Initial, v.out.Membership = v.fresh, m.Membership.String()
	v.out.BumpStamp = v.r.bump
	p, err := v.piece(ref, m, v.fresh, v.upTo)
	if err != nil {
		return err
	}
	if p.atEnd.IsZero() { // nothing happened: the state is what it was
		p.atSince, p.atStart, p.atEnd = v.r.state, v.r.state, v.r.state
	}
	if v.fresh {
		p.atSince = store.State{}
	}
	if err := v.timeline(ref, m, p); err != nil {
		return err
	}
	if err := v.requiredState(ref, p); err != nil {
		return err
	}
	return v.description(ref, p)
}

// timeline adds the events that are new, or the newest if the client wants more of them than it has.
func (v *roomView) timeline(ref rooms.Ref, m store.MemberRow, p *piece) error {
	shown, start, limited := p.events, p.start, p.limited
	v.whole = p.limited
	if !v.fresh && !p.limited && v.w.limit > v.k.limit {
		newest, err := v.piece(ref, m, true, v.upTo)
		if err != nil {
			return err
		}
		if len(newest.events) > len(shown) {
			shown, start, limited, v.out.Expanded = newest.events, newest.start, newest.limited, true
			p.events = shown // whose senders are needed
		}
		v.whole = true
	}
	viewer, write := rooms.Viewer{ID: v.slide.q.User.ID, Member: &m}, v.slide.e.Timeline
	if v.fresh || limited || v.out.Expanded { // what relates to these may have been before
		write = func(ctx context.Context, who Viewpoint, ref rooms.Ref, rows []*store.EventRow) ([]json.RawMessage, error) {
			return v.slide.e.Bundled(ctx, who, ref, viewer, rows)
		}
	}
	events, err := write(v.slide.ctx, v.slide.q.Viewpoint, ref, shown)
	if err != nil {
		return err
	}
	v.out.Timeline, v.out.Limited = events, limited
	if v.fresh || limited || v.out.Expanded {
		v.out.PrevBatch = FormatPlace(start)
	}
	live := 0
	for _, row := range shown {
		if row.Live() && v.pos != nil && row.Pos > v.slide.from {
			live++
		}
	}
	v.out.Live = &live
	v.told = v.told || len(events) > 0 || limited
	return nil
}

// requiredState adds the state that is wanted: all of it of a room that is new to the client, else what changed, and what
// the client had not asked for before.
func (v *roomView) requiredState(ref rooms.Ref, p *piece) error {
	rows, err := v.stateRows(ref, p)
	if err == nil {
		rows, err = v.assembly.e.rooms.StateShown(v.assembly.ctx, ref, rooms.Viewer{ID: v.assembly.q.User.ID, Member: &v.r.member}, rows)
	}
	if err != nil {
		return err
	}
	v.sent = map[store.EventNID]bool{}
	for _, row := range rows {
		if !v.sent[row.NID] {
			v.sent[row.NID] = true
			v.out.State = append(v.out.State, ClientEvent(row))
		}
	}
	v.told = v.told || len(rows) > 0
	return nil
}

func (v *roomView) stateRows(ref rooms.Ref, p *piece) (rows []*store.EventRow, err error) {
	want := v.w.state
	switch {
	case v.fresh:
		if rows, err = v.wantedState(ref, p.atEnd, want.wants); err != nil {
			return nil, err
		}
	case p.atSince != p.atEnd:
		changes, err := v.slide.e.rooms.StateDelta(v.slide.ctx, ref.NID, p.atSince, p.atEnd)
		if err != nil {
			return nil, err
		}
		every := want.lazy() && !p.limited // members too that nobody needs to see now: the client may keep them
		for _, c := range changes {
			if c.To != nil && (want.wants(c.To) || every && c.To.Event.Type() == "m.room.member") {
				rows = append(rows, c.To)
			}
		}
	}
	if !v.fresh && want.key() != v.k.state {
		had := v.had.required(v.k.state)
		more, err := v.wantedState(ref, p.atEnd, func(row *store.EventRow) bool { return want.wants(row) && !had.wants(row) })
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	if !want.lazy() {
		return rows, nil
	}
	members, err := v.neededMembers(ref, p)
	return append(rows, members...), err
}

// wantedState reads of a state what is wanted.
func (v *roomView) wantedState(ref rooms.Ref, state store.State, keep func(*store.EventRow) bool) ([]*store.EventRow, error) {
	keys, rest, members := v.w.state.reach()
	e, ctx := v.slide.e, v.slide.ctx
	rows, err := e.rooms.StateEventList(ctx, ref.NID, state, keys)
	if err != nil {
		return nil, err
	}
	if rest {
		more, err := e.rooms.AllState(ctx, ref.NID, state, false)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	if members {
		more, err := e.rooms.Members(ctx, ref.NID, state)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	var kept []*store.EventRow
	for _, row := range rows {
		if keep(row) {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

// neededMembers are the member events of those who sent what is shown and whom it is about.
func (v *roomView) neededMembers(ref rooms.Ref, p *piece) ([]*store.EventRow, error) {
	var keys []authrules.StateKey
	seen := map[string]bool{}
	need := func(user string) {
		if !seen[user] {
			seen[user] = true
			keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: user})
		}
	}
	for _, row := range p.events {
		need(string(row.Event.Sender()))
		if key, ok := row.Event.StateKey(); ok && row.Event.Type() == "m.room.member" {
			need(key)
		}
	}
	return v.slide.e.rooms.StateEventList(v.slide.ctx, ref.NID, p.atEnd, keys)
}
