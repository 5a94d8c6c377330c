package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// CompareRequest says what is compared with other servers.
type CompareRequest struct {
	Room   matrix.RoomID // "" for every room that is shared
	Repair bool          // ask for what is missing

	// Settle is how long to wait before a difference is looked at again that may pass by itself: what is on its way takes
	// a moment. 0 is the usual time.
	Settle time.Duration
}

// Comparison is what came of comparing one room with one server.
type Comparison struct {
	Room   matrix.RoomID
	Server matrix.ServerName
	Kind   ComparisonKind
	Text   string
}

// ComparisonKind sorts comparisons.
type ComparisonKind string

// The kinds of comparisons. Of those that are differences, Ahead and Behind pass by themselves when messages are on
// their way.
const (
	Same        ComparisonKind = "same"        // the same ends, or ends that both know, and the same state there
	Repaired    ComparisonKind = "repaired"    // the same, after it was asked for what was missing
	Unreachable ComparisonKind = "unreachable" // nothing can be said
	Ahead       ComparisonKind = "ahead"       // it has newest events that are not here
	Behind      ComparisonKind = "behind"      // it does not have our newest events
	Membership  ComparisonKind = "membership"  // it does not count our user as a member
	StateKind   ComparisonKind = "state"       // the state at an event that both know differs
)

// Bounds of a comparison.
const (
	comparedServers = 10              // of a room, when all rooms are compared; of one room all are
	compareTime     = 2 * time.Minute // for one room and server
	settleTime      = 3 * time.Second // for what may be on its way
	maxRepaired     = 200             // events that are asked for, for one room and server
	namedEvents     = 5               // in words
	recompareTimes  = 3               // looks at a room whose ends move while they are compared
)

// Compare compares the ends and the state of rooms with the other servers in them, and reports once for each room and
// server. With repair it asks for the events that a server has and we lack, which then take the way of every event.
// progress is told after each room how many of how many are done.
func (r *Rooms) Compare(ctx context.Context, q CompareRequest, report func(Comparison), progress func(done, of int)) error {
	if r.source == nil {
		return errNoFederation()
	}
	if q.Settle == 0 {
		q.Settle = settleTime
	}
	refs, err := r.comparable(ctx, q.Room)
	if err != nil {
		return err
	}
	for i, ref := range refs {
		servers, err := r.Servers(ctx, ref.NID)
		if err != nil {
			return err
		}
		servers = slices.DeleteFunc(servers, r.own.IsOurs)
		if q.Room == "" {
			servers = servers[:min(len(servers), comparedServers)]
		}
		for _, server := range servers {
			c, err := r.compareOne(ctx, ref, server, q)
			if err != nil {
				return err
			}
			report(c)
		}
		progress(i+1, len(refs))
	}
	return nil
}

// comparable are the rooms to compare: those in which somebody of ours is.
func (r *Rooms) comparable(ctx context.Context, id matrix.RoomID) (refs []Ref, err error) {
	if id != "" {
		ref, err := r.Lookup(ctx, id)
		if err != nil {
			return nil, err
		}
		resident, err := r.resident(ctx, ref.NID)
		if err == nil && !resident {
			err = matrix.NotFound("Nobody of this server is in the room %s.", id)
		}
		return []Ref{ref}, err
	}
	for last := store.RoomNID(0); ; {
		var page []Ref
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return tx.RoomsAfter(last, verifyRooms, func(i store.RoomInfo) { page = append(page, Ref{NID: i.NID, ID: i.ID, Version: i.Version}) })
		})
		if err != nil || len(page) == 0 {
			return refs, err
		}
		last = page[len(page)-1].NID
		for _, ref := range page {
			resident, err := r.resident(ctx, ref.NID)
			if err != nil {
				return nil, err
			}
			if resident {
				refs = append(refs, ref)
			}
		}
	}
}

// comparing is one room and one server.
type comparing struct {
	r      *Rooms
	ref    Ref
	server matrix.ServerName
	asked  int // events that were asked for
}

func (c *comparing) found(kind ComparisonKind, format string, args ...any) Comparison {
	return Comparison{c.ref.ID, c.server, kind, fmt.Sprintf(format, args...)}
}

// compareOne compares a room with a server. An error is one of ours; trouble with the server is a finding.
func (r *Rooms) compareOne(ctx context.Context, ref Ref, server matrix.ServerName, q CompareRequest) (Comparison, error) {
	inTime, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	c := &comparing{r: r, ref: ref, server: server}
	var out Comparison
	var err error
	for range recompareTimes { // what is on its way makes differences that pass
		out, err = c.look(inTime, q.Repair)
		if err != nil || out.Kind != Ahead && out.Kind != Behind {
			break
		}
		select {
		case <-time.After(q.Settle):
		case <-inTime.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case inTime.Err() != nil:
		return c.found(Unreachable, "the comparison took longer than %s and was given up", compareTime), nil
	case err == nil && out.Kind == Same && c.asked > 0:
		out.Kind = Repaired
		out.Text += fmt.Sprintf("; %d events were asked for", c.asked)
	}
	return out, err
}

// look compares once.
func (c *comparing) look(ctx context.Context, repair bool) (Comparison, error) {
	theirs, ill, err := c.theirEnds(ctx)
	if err != nil || ill.Kind != "" {
		return ill, err
	}
	rows, err := c.r.eventsByID(ctx, c.ref, theirs)
	if err != nil {
		return Comparison{}, err
	}
	lacking := slices.DeleteFunc(slices.Clone(theirs), func(id matrix.EventID) bool { return rows[id] != nil && rows[id].After != nil })
	if len(lacking) > 0 && repair {
		if err := c.ask(ctx, lacking); err != nil {
			return Comparison{}, err
		}
		if rows, err = c.r.eventsByID(ctx, c.ref, theirs); err != nil {
			return Comparison{}, err
		}
		lacking = slices.DeleteFunc(lacking, func(id matrix.EventID) bool { return rows[id] != nil && rows[id].After != nil })
	}
	if len(lacking) > 0 {
		return c.found(Ahead, "its newest events %s are not here", nameEvents(lacking)), nil
	}
	ours, err := c.r.endIDs(ctx, c.ref)
	if err != nil {
		return Comparison{}, err
	}
	for _, id := range theirs {
		if row := rows[id]; row.Flags&(store.FlagRejected|store.FlagOutlier) == 0 {
			out, err := c.compareState(ctx, row, repair)
			if err != nil || out.Kind != Same {
				return out, err
			}
		}
	}
	return c.theirView(ctx, ours, theirs)
}

// theirEnds asks where in the room a leave of one of our users would stand at the server: behind its ends. ill says why
// that cannot be learnt.
func (c *comparing) theirEnds(ctx context.Context) (ends []matrix.EventID, ill Comparison, err error) {
	var users []matrix.UserID
	err = c.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		users, err = tx.MembersOfServer(c.ref.NID, c.r.own.Name, store.Join)
		return err
	})
	if err != nil {
		return nil, ill, err
	}
	if len(users) == 0 {
		return nil, c.found(Unreachable, "nobody of ours is in the room any more"), nil
	}
	draft, err := c.r.source.MakeMembership(ctx, c.server, "leave", c.ref.ID, users[0])
	switch {
	case err == nil && len(draft.PrevEvents) > 0:
		return draft.PrevEvents, ill, nil
	case err == nil:
		return nil, c.found(Unreachable, "it tells no ends of the room"), nil
	case refusedUs(err):
		return nil, c.found(Membership, "it does not count %s as a member: %v", users[0], err), nil
	}
	return nil, c.found(Unreachable, "it cannot be asked: %v", err), nil
}

// refusedUs says whether a server has understood a question and does not answer it.
func refusedUs(err error) bool {
	var answer interface{ Answered() bool }
	return errors.As(err, &answer) && answer.Answered()
}

// shutsUsOut says whether a server holds that we are not in the room that it was asked about.
func shutsUsOut(err error) bool {
	var answer interface{ ShutsOut() bool }
	return errors.As(err, &answer) && answer.ShutsOut()
}

// compareState compares the state before an event that both hold.
func (c *comparing) compareState(ctx context.Context, row *store.EventRow, repair bool) (Comparison, error) {
	id := row.Event.ID()
	theirs, _, err := c.r.source.StateIDs(ctx, c.server, c.ref.ID, id)
	if err != nil {
		return c.found(Unreachable, "it does not tell the state at %s: %v", id, err), nil
	}
	held, err := c.r.stateRows(ctx, c.ref.NID, row.StateBefore())
	if err != nil {
		return Comparison{}, err
	}
	ours := make(map[matrix.EventID]bool, len(held))
	for _, s := range held {
		ours[s.Event.ID()] = true
	}
	var there []matrix.EventID
	for _, s := range theirs {
		if !ours[s] {
			there = append(there, s)
		}
		delete(ours, s)
	}
	if len(there) == 0 && len(ours) == 0 {
		return c.found(Same, "%d events of state at %s", len(held), id), nil
	}
	rows, err := c.r.eventsByID(ctx, c.ref, there)
	if err != nil {
		return Comparison{}, err
	}
	if lacking := slices.DeleteFunc(slices.Clone(there), func(s matrix.EventID) bool { return rows[s] != nil }); len(lacking) > 0 && repair {
		if err := c.ask(ctx, lacking); err != nil {
			return Comparison{}, err
		}
		if rows, err = c.r.eventsByID(ctx, c.ref, there); err != nil {
			return Comparison{}, err
		}
	}
	here := make([]*store.EventRow, 0, len(ours))
	for _, s := range held {
		if ours[s.Event.ID()] {
			here = append(here, s)
		}
	}
	return c.found(StateKind, "the state at %s differs: only there %s; only here %s", id, describeThere(there, rows), describeHere(here)), nil
}

// theirView looks whether the server holds our ends.
func (c *comparing) theirView(ctx context.Context, ours, theirs []matrix.EventID) (Comparison, error) {
	var behind []matrix.EventID
	for _, id := range ours {
		if slices.Contains(theirs, id) {
			continue
		}
		if _, err := c.r.source.Event(ctx, c.server, id); err != nil {
			if !refusedUs(err) {
				return c.found(Unreachable, "it does not answer for %s: %v", id, err), nil
			}
			behind = append(behind, id)
		}
	}
	if len(behind) > 0 {
		return c.found(Behind, "our newest events %s are not there (the status of the destination says what waits for it)", nameEvents(behind)), nil
	}
	return c.found(Same, "the ends %s, and the state at them", nameEvents(theirs)), nil
}

// ask fetches events from the server and takes them to their places. What it does not give, or what is refused here, is
// missing still: the comparison says so.
func (c *comparing) ask(ctx context.Context, ids []matrix.EventID) error {
	var raws []json.RawMessage
	for _, id := range ids {
		if c.asked >= maxRepaired || ctx.Err() != nil {
			break
		}
		c.asked++
		c.r.delays.forget(id) // somebody asks for this on purpose
		raw, err := c.r.source.Event(ctx, c.server, id)
		if err != nil {
			c.r.log.Debug("asking for an event failed", "room", c.ref.ID, "server", c.server, "event", id, "err", err)
			continue
		}
		raws = append(raws, raw)
	}
	for _, ev := range inOrder(c.r.vet(ctx, c.ref, raws), (*matrix.Event).PrevEvents) {
		if !slices.Contains(ids, ev.ID()) {
			continue // nobody asked for it
		}
		if err := c.r.arriveContained(ctx, c.ref, c.server, ev); err != nil {
			c.r.log.Info("an event that was asked for found no place", "room", c.ref.ID, "server", c.server, "event", ev.ID(), "err", err)
		}
	}
	return nil
}

// nameEvents names a few of the events.
func nameEvents(ids []matrix.EventID) string {
	ids = slices.Sorted(slices.Values(ids))
	text := make([]string, 0, namedEvents)
	for _, id := range ids[:min(len(ids), namedEvents)] {
		text = append(text, string(id))
	}
	return listed(text, len(ids))
}

// listed joins the first few of n things.
func listed(some []string, n int) string {
	if n == 0 {
		return "nothing"
	}
	text := strings.Join(some, ", ")
	if n > len(some) {
		text += fmt.Sprintf(" and %d more", n-len(some))
	}
	return text
}

// describeThere says of events of another server's state what they are to us.
func describeThere(ids []matrix.EventID, rows map[matrix.EventID]*store.EventRow) string {
	ids = slices.Sorted(slices.Values(ids))
	var text []string
	for _, id := range ids[:min(len(ids), namedEvents)] {
		row := rows[id]
		switch {
		case row == nil:
			text = append(text, fmt.Sprintf("%s (not here)", id))
		case row.Flags.Has(store.FlagRejected):
			text = append(text, fmt.Sprintf("%s (%s, rejected here)", id, describe(row)))
		default:
			text = append(text, fmt.Sprintf("%s (%s)", id, describe(row)))
		}
	}
	return listed(text, len(ids))
}

func describeHere(rows []*store.EventRow) string {
	var text []string
	for _, row := range rows[:min(len(rows), namedEvents)] {
		text = append(text, fmt.Sprintf("%s (%s)", row.Event.ID(), describe(row)))
	}
	return listed(text, len(rows))
}

// describe names what a state event is about; its content is nobody's business here.
func describe(row *store.EventRow) string {
	key, _ := row.Event.StateKey()
	return strings.TrimSpace(fmt.Sprintf("%.64q %.64q", row.Event.Type(), key))
}
