package clientapi

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// join is enter for joining. Whoever comes into a room that replaces another finds what was personal about the old one.
func (s *Server) join(r *Request, name string, servers []matrix.ServerName) (any, error) {
	answer, err := s.enter(r, name, servers, func(ctx context.Context, q rooms.JoinRequest) error {
		if r.Session.Guest {
			if err := s.Rooms.GuestsMayJoin(ctx, q.Room); err != nil {
				return err
			}
		}
		was, err := s.standing(ctx, q.Room, r.User())
		if err != nil {
			return err
		}
		if err := s.Rooms.Join(ctx, q); err != nil || was == store.Join {
			return err
		}
		s.carryOver(r, q.Room)
		return nil
	})
	return answer, err
}

// standing is what a user is in a room that may not be known.
func (s *Server) standing(ctx context.Context, room matrix.RoomID, user rooms.Sender) (store.Membership, error) {
	ref, err := s.Rooms.Lookup(ctx, room)
	if err != nil {
		return store.NotMember, nil //nolint:nilerr // joining will say what is wrong with it
	}
	row, err := s.Rooms.Membership(ctx, ref.NID, user.NID)
	if err != nil || row == nil {
		return store.NotMember, err
	}
	return row.Membership, nil
}

// carryOver gives the caller's new room the tags and push rules of the room that it replaces (client-server API, "Room
// upgrades"). The caller is in the new room whatever comes of it.
func (s *Server) carryOver(r *Request, room matrix.RoomID) {
	ctx := context.WithoutCancel(r.Ctx())
	ref, err := s.Rooms.Lookup(ctx, room)
	if err != nil {
		s.Log.Error("carrying over a room's settings failed", "room", room, "err", err)
		return
	}
	old, found, err := s.Rooms.Replaced(ctx, ref, r.User())
	if err == nil && found {
		err = s.carryTags(ctx, r.Session.User, old, ref)
	}
	if err == nil && found {
		err = s.carryRules(ctx, r, old, ref)
	}
	if err != nil {
		s.Log.Error("carrying over a room's settings failed", "room", room, "err", err)
	}
}

func (s *Server) carryTags(ctx context.Context, user store.UserNID, from, to rooms.Ref) error {
	const typ = "m.tag"
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.StillOpen(user); err != nil {
			return err
		}
		tags, err := tx.AccountData(user, from.NID, typ)
		if err != nil || tags == "" {
			return err
		}
		if has, err := tx.AccountData(user, to.NID, typ); err != nil || has != "" {
			return err
		}
		tx.AfterCommit(s.wake)
		return tx.PutAccountData(user, to.NID, typ, tags)
	})
}

func (s *Server) carryRules(ctx context.Context, r *Request, from, to rooms.Ref) error {
	rules, err := s.PushRules.Of(ctx, r.Session.User, r.Session.UserID)
	if err != nil {
		return err
	}
	if changed, err := rules.CarryOver(string(from.ID), string(to.ID)); err != nil || !changed {
		return err
	}
	return s.PushRules.Change(ctx, r.Session.User, r.Session.UserID, func(rules *pushrules.Ruleset) error {
		_, err := rules.CarryOver(string(from.ID), string(to.ID))
		return err
	})
}
