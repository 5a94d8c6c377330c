package rooms

import (
	"context"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// count carries the running numbers of law 6 on to the event's row, and notes for whom it counts otherwise.
func (d *draft) count(ctx context.Context, row *store.EventRow) error {
	view := &pushView{draft: d, ctx: ctx}
	e := view.of(row)
	base := counted(d.r.book.base.Evaluate(e, d.r.book.nobody))
	if view.failed != nil {
		return view.failed
	}
	c := &d.head.counts
	if row.Thread == 0 {
		c.Notify += base.Notify()
		c.Highlight += base.Highlight()
	}
	row.Counts = store.Counts{Notify: c.Notify, Highlight: c.Highlight}
	if row.Thread != 0 {
		had, err := d.threadCounts(ctx, row)
		if err != nil {
			return err
		}
		row.Counts.ThreadNotify, row.Counts.ThreadHighlight = had.ThreadNotify+base.Notify(), had.ThreadHighlight+base.Highlight()
	}
	err := d.countPersonal(ctx, view, e, row, base)
	if len(row.Personal) > 0 {
		row.Flags |= store.FlagPersonal
	}
	if err == nil {
		err = view.failed
	}
	return err
}

func counted(a pushrules.Actions) store.CountFlags { return store.CountOf(a.Notify, a.Highlight) }

// pushView answers what push rules ask of a room at a draft's head, at most one question of a kind.
type pushView struct {
	draft  *draft
	ctx    context.Context //nolint:containedctx // lives as long as the call that it is made in
	levels *authrules.Levels
	failed error
}

func (v *pushView) of(row *store.EventRow) *pushrules.Event {
	sender := row.Event.Sender()
	return &pushrules.Event{
		Get: rulesView(row.Event), RoomID: string(row.Event.RoomID()), Sender: string(sender),
		MayNotify: func(key string) bool { return v.may(sender, key) },
	}
}

// may says whether @room by this sender highlights (push condition sender_notification_permission).
func (v *pushView) may(sender matrix.UserID, key string) bool {
	if v.levels == nil {
		levels, err := v.draft.levels(v.ctx)
		if err != nil {
			v.failed = err
			return false
		}
		v.levels = &levels
	}
	return v.levels.UserLevel(sender) >= v.levels.Notification(key)
}

// countPersonal notes for whom an event counts otherwise than everybody's numbers and the user's mode say: for those who
// are mentioned, and for those whose own rules see to it. Rules are evaluated once for all who have the same.
func (d *draft) countPersonal(ctx context.Context, view *pushView, e *pushrules.Event, row *store.EventRow, base store.CountFlags) error {
	people, err := d.audience(ctx)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, name := range e.Names() {
		named[name] = true
	}
	if len(people.people) == 0 && len(named) == 0 {
		return nil
	}
	if len(people.people) > 0 {
		if e.Members, err = d.joined(ctx); err != nil {
			return err
		}
	}
	outcomes := map[[16]byte]store.CountFlags{}
	for _, p := range people.people {
		if p.user == row.Sender {
			continue
		}
		outcome, err := d.outcome(ctx, p, e, named, outcomes)
		if err != nil {
			return err
		}
		if outcome != base.In(p.modes.In(e.RoomID)) {
			row.Personal = append(row.Personal, store.PersonalCount{Member: p.user, Counts: outcome, Base: base})
		}
	}
	if row.Event.Type() == "m.room.member" { // of these the predefined rules tell nobody who is in the room
		return nil
	}
	return d.countNamed(ctx, people, e, row, named, base)
}

// outcome is what an event counts as by somebody's own rules.
func (d *draft) outcome(ctx context.Context, p *personalRules, e *pushrules.Event, named map[string]bool, outcomes map[[16]byte]store.CountFlags) (store.CountFlags, error) {
	who := pushrules.Person{UserID: string(p.id)}
	shared := !p.program.Personal() && !named[who.UserID]
	if shared {
		if known, ok := outcomes[p.program.Fingerprint()]; ok {
			return known, nil
		}
	}
	if p.program.Personal() {
		row, err := d.lookup(ctx, authrules.StateKey{Type: "m.room.member", Key: who.UserID})
		if err != nil {
			return 0, err
		}
		if row != nil {
			who.DisplayName, _ = matrix.GetString(row.Event.Content(), "displayname")
		}
	}
	outcome := counted(p.program.Evaluate(e, who))
	if shared {
		outcomes[p.program.Fingerprint()] = outcome
	}
	return outcome, nil
}

// countNamed notes the people with the predefined rules for whom an event counts otherwise because it names them. All whom
// it mentions are alike to these rules, so that one of them is tried for all.
func (d *draft) countNamed(ctx context.Context, people *audience, e *pushrules.Event, row *store.EventRow, named map[string]bool, base store.CountFlags) error {
	byKey, _ := row.Event.StateKey()
	var mentioned, keyed store.CountFlags
	tried := false
	var ids []matrix.UserID
	for name := range named {
		id, err := matrix.ParseUserID(name)
		if err != nil || !d.r.own.IsOurs(id.Server()) || id == row.Event.Sender() {
			continue
		}
		ids = append(ids, id)
		switch {
		case name == byKey:
			keyed = counted(d.r.book.base.Evaluate(e, pushrules.Person{UserID: name}))
		case !tried:
			mentioned, tried = counted(d.r.book.base.Evaluate(e, pushrules.Person{UserID: name})), true
		}
	}
	if (!tried || mentioned == base) && (!named[byKey] || keyed == base) {
		return nil
	}
	joined, err := d.joinedAmong(ctx, ids)
	if err != nil {
		return err
	}
	for id, user := range joined {
		outcome := mentioned
		if string(id) == byKey {
			outcome = keyed
		}
		own := slices.ContainsFunc(people.people, func(p *personalRules) bool { return p.user == user })
		if !own && outcome != base {
			row.Personal = append(row.Personal, store.PersonalCount{Member: user, Counts: outcome, Base: base})
		}
	}
	return nil
}

// joinedAmong are those of some users who are in the room as of the draft.
func (d *draft) joinedAmong(ctx context.Context, ids []matrix.UserID) (map[matrix.UserID]store.UserNID, error) {
	joined := map[matrix.UserID]store.UserNID{}
	err := d.r.db.Read(ctx, func(tx *store.Tx) error {
		clear(joined)
		return tx.JoinedAmong(d.ref.NID, ids, func(user store.UserNID, id matrix.UserID) { joined[id] = user })
	})
	if err != nil || len(d.out.Members) == 0 {
		return joined, err
	}
	for _, id := range ids {
		user, ok := d.r.cache.users.GetIfPresent(id) // whoever has just come is there
		for _, m := range d.out.Members {
			switch {
			case !ok || m.Member.NID != user.NID:
			case m.Membership == store.Join:
				joined[id] = user.NID
			default:
				delete(joined, id)
			}
		}
	}
	return joined, nil
}

// joined is how many people are in the room as of the draft.
func (d *draft) joined(ctx context.Context) (n int, err error) {
	if d.head.joined != 0 {
		return d.head.joined, nil
	}
	now := map[store.UserNID]store.Membership{}
	for _, m := range d.out.Members {
		now[m.Member.NID] = m.Membership
	}
	err = d.r.db.Read(ctx, func(tx *store.Tx) error {
		counts, err := tx.MemberCounts(d.ref.NID)
		if err != nil {
			return err
		}
		n = counts[store.Join]
		for user, membership := range now {
			was, err := tx.Membership(d.ref.NID, user)
			if err != nil {
				return err
			}
			if was != nil && was.Membership == store.Join {
				n--
			}
			if membership == store.Join {
				n++
			}
		}
		return nil
	})
	d.head.joined = n
	return n, err
}
