package appservice

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// interest is why a room concerns a service.
type interest struct {
	id     matrix.RoomID
	always bool              // the room or one of its aliases is in a namespace
	users  []store.MemberRow // of the service's users that are or were in it
}

// now says whether the room concerns the service at present.
func (in *interest) now() bool {
	if in.always {
		return true
	}
	for _, m := range in.users {
		if m.Membership == store.Join {
			return true
		}
	}
	return false
}

// at says whether it did when something came at a position: what was before its users came, or after they went, is not
// for them.
func (in *interest) at(pos store.Pos) bool {
	if in.always {
		return true
	}
	for _, m := range in.users {
		if m.Joined != 0 && m.Joined <= pos && (m.Membership == store.Join || pos <= m.Departed) {
			return true
		}
	}
	return false
}

// mine says whether a user is one that the service acts as.
func (c *courier) mine(user matrix.UserID) bool { return c.d.Client.services.MayBe(c.s, user) }

// forget drops what is remembered of rooms that people came into or left, or whose aliases may have changed.
func (c *courier) forget(changes []store.Change, rows []*store.EventRow) {
	for _, ch := range changes {
		if ch.Kind == store.ChangeMembership {
			delete(c.interest, ch.Room)
		}
	}
	for _, row := range rows {
		if row.Event.Type() == "m.room.member" {
			delete(c.interest, row.Room)
		}
	}
	if len(c.s.aliases) > 0 || len(c.interest) > maxInterest {
		clear(c.interest) // aliases come and go without a trace in the stream
	}
}

// about finds out, or remembers, why a room concerns the service.
func (c *courier) about(ctx context.Context, room store.RoomNID) (*interest, error) {
	if in := c.interest[room]; in != nil {
		return in, nil
	}
	in := &interest{}
	err := c.d.DB.Read(ctx, func(tx *store.Tx) error {
		*in = interest{}
		if err := tx.RoomsByNID([]store.RoomNID{room}, func(i store.RoomInfo) { in.id = i.ID }); err != nil {
			return err
		}
		in.always = c.s.rooms.match(string(in.id), false)
		if !in.always && len(c.s.aliases) > 0 {
			aliases, err := tx.AliasesOf(room)
			if err != nil {
				return err
			}
			for _, alias := range aliases {
				in.always = in.always || c.s.MayHave(alias)
			}
		}
		if in.always {
			return nil
		}
		return tx.LocalMembers(room, c.d.Client.services.server, func(user matrix.UserID, m store.MemberRow) {
			if c.mine(user) {
				in.users = append(in.users, m)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	c.interest[room] = in
	return in, nil
}

// concerns says whether an event is for the service: it is about or by one of its users, or in a room that concerns it.
func (c *courier) concerns(ctx context.Context, row *store.EventRow) (bool, error) {
	if c.mine(row.Event.Sender()) {
		return true, nil
	}
	if key, ok := row.Event.StateKey(); ok && row.Event.Type() == "m.room.member" && c.mine(matrix.UserID(key)) {
		return true, nil
	}
	in, err := c.about(ctx, row.Room)
	return err == nil && in.at(row.Pos), err
}

// knows says whether somebody's presence is for the service: of its own users, and of those in a room that concerns it.
func (c *courier) knows(ctx context.Context, user matrix.UserID) (bool, error) {
	if c.mine(user) {
		return true, nil
	}
	var nid store.UserNID
	err := c.d.DB.Read(ctx, func(tx *store.Tx) error {
		nid = 0
		return tx.KnownUsers([]matrix.UserID{user}, func(n store.UserNID, _ matrix.UserID, _ bool) { nid = n })
	})
	if err != nil || nid == 0 {
		return false, err
	}
	return c.near(ctx, nid)
}

// near says whether somebody is in a room that concerns the service.
func (c *courier) near(ctx context.Context, user store.UserNID) (bool, error) {
	var rooms []store.RoomNID
	err := c.d.DB.Read(ctx, func(tx *store.Tx) error {
		rooms = nil
		return tx.MembershipsOf(user, func(m store.MemberRow) {
			if m.Membership == store.Join {
				rooms = append(rooms, m.Room)
			}
		})
	})
	if err != nil {
		return false, err
	}
	for _, room := range rooms {
		in, err := c.about(ctx, room)
		if err != nil {
			return false, err
		}
		if in.now() {
			return true, nil
		}
	}
	return false, nil
}
