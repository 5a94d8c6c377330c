package rooms

import (
	"context"
	"errors"
	"net/http"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Guests may be in a room only while its m.room.guest_access says can_join (client-server API, "Guest access").
const (
	guestPause = time.Second // between two looks at what changed
	guestLook  = 10 * time.Second
	guestSweep = time.Hour   // all rooms with guests are looked at, whatever is known of them
	guestAgain = time.Minute // the same, if there are guests who could not leave
	guestRange = 5000        // positions of the stream that are looked through at once
	guestRooms = 200         // rooms that are looked up at once
)

// GuestsMayJoin refuses guests (M_GUEST_ACCESS_FORBIDDEN) where a room does not let them in. A room that nobody of this server is
// in is such a one too: what it allows is not known before somebody is.
func (r *Rooms) GuestsMayJoin(ctx context.Context, id matrix.RoomID) error {
	refused := matrix.Errorf(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "This room does not let guests in.")
	ref, err := r.Lookup(ctx, id)
	var known *matrix.Error
	if errors.As(err, &known) {
		return refused
	}
	if err != nil {
		return err
	}
	resident, err := r.resident(ctx, ref.NID)
	if err != nil {
		return err
	}
	if resident {
		open, err := r.opensToGuests(ctx, ref.NID)
		if err != nil || open {
			return err
		}
	}
	return refused
}

// opensToGuests says whether a room lets guests in now.
func (r *Rooms) opensToGuests(ctx context.Context, room store.RoomNID) (bool, error) {
	state, err := r.CurrentState(ctx, room)
	if err != nil {
		return false, err
	}
	row, err := r.StateEvent(ctx, room, state, "m.room.guest_access", "")
	if err != nil || row == nil {
		return false, err
	}
	access, _ := matrix.GetString(row.Event.Content(), "guest_access")
	return access == "can_join", nil
}

// RunGuests makes guests leave rooms that let them in no more. It ends with ctx.
func (r *Rooms) RunGuests(ctx context.Context) error {
	wakes, cancel := r.bus.Subscribe(cluster.Stream)
	defer cancel()
	look := time.NewTicker(guestLook)
	defer look.Stop()
	g := &guestWatch{r: r}
	for {
		if err := g.round(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("looking after guests failed", "err", err)
			g.sweep = time.Time{} // what was missed is found by looking at everything
		}
		pause(ctx, guestPause)
		select {
		case <-wakes:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// guestWatch follows the stream, as far as it is about guests. What it has seen it need not remember: it begins with a look
// at everything.
type guestWatch struct {
	r     *Rooms
	at    store.Pos
	sweep time.Time // when to look at everything again
}

func (g *guestWatch) round(ctx context.Context) error {
	bound, err := g.r.db.StreamBound(ctx)
	if err != nil {
		return err
	}
	if g.at == bound && g.r.now().Before(g.sweep) {
		return nil
	}
	any := false
	err = g.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		any, err = tx.AnyGuest()
		return err
	})
	if err != nil {
		return err
	}
	if !any {
		g.at = bound
		return nil
	}
	if !g.r.now().Before(g.sweep) {
		g.sweep = g.r.now().Add(guestSweep) // or sooner, if one of them asks for it
		if err := g.all(ctx); err != nil {
			return err
		}
		g.at = bound
		return nil
	}
	for g.at < bound && err == nil {
		err = g.some(ctx, min(bound, g.at+guestRange))
	}
	return err
}

// all looks at every room that has guests.
func (g *guestWatch) all(ctx context.Context) error {
	after := store.RoomNID(0)
	for {
		var page []store.RoomNID
		err := g.r.db.Read(ctx, func(tx *store.Tx) error {
			page = nil
			return tx.GuestRooms(after, guestRooms, func(room store.RoomNID) { page = append(page, room) })
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, room := range page {
			g.visit(ctx, room)
			after = room
		}
	}
}

// some looks at the rooms whose guest access was changed up to a position.
func (g *guestWatch) some(ctx context.Context, upTo store.Pos) error {
	changed := map[store.RoomNID]bool{}
	err := g.r.db.Read(ctx, func(tx *store.Tx) error {
		clear(changed)
		return tx.StateStream(g.at, upTo, func(row *store.EventRow) {
			if row.Event.Type() == "m.room.guest_access" && row.Event.StateKeyEquals("") {
				changed[row.Room] = true
			}
		})
	})
	if err != nil {
		return err
	}
	for room := range changed {
		g.visit(ctx, room)
	}
	g.at = upTo
	return nil
}

// visit is look for one room of many: what keeps guests in it, as a policy server can that signs nothing of theirs, keeps
// them in no other.
func (g *guestWatch) visit(ctx context.Context, room store.RoomNID) {
	if err := g.look(ctx, room); err != nil && ctx.Err() == nil {
		g.r.log.Warn("guests do not leave a room that lets them in no more", "room", room, "err", err)
		if again := g.r.now().Add(guestAgain); again.Before(g.sweep) {
			g.sweep = again
		}
	}
}

// look makes the guests of a room leave it that lets them in no more.
func (g *guestWatch) look(ctx context.Context, room store.RoomNID) error {
	open, err := g.r.opensToGuests(ctx, room)
	if err != nil || open {
		return err
	}
	var guests []Sender
	err = g.r.db.Read(ctx, func(tx *store.Tx) error {
		guests = nil
		return tx.GuestsIn(room, func(nid store.UserNID, id matrix.UserID) { guests = append(guests, Sender{NID: nid, ID: id}) })
	})
	if err != nil || len(guests) == 0 {
		return err
	}
	ref, err := g.r.LookupNID(ctx, room)
	if err != nil {
		return err
	}
	for _, guest := range guests {
		if err := g.r.Leave(ctx, MemberRequest{Room: ref, Sender: guest}); err != nil {
			return err
		}
	}
	return nil
}
