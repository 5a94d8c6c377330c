package sync

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// description adds what a list of rooms shows of a room: its name and avatar, or those after whom it is called, and how many
// are in it.
func (v *roomView) description(ref rooms.Ref, p *piece) error {
	var was, is [2]string
	var err error
	if is, err = v.nameAndAvatar(ref, p.atEnd); err != nil {
		return err
	}
	if !v.fresh && p.atSince.Rest == p.atEnd.Rest {
		was = is
	} else if !v.fresh {
		if was, err = v.nameAndAvatar(ref, p.atSince); err != nil {
			return err
		}
	}
	v.out.Name, v.out.Avatar = changedText(was[0], is[0]), changedText(was[1], is[1])
	v.told = v.told || was != is
	members := v.fresh || membersChanged(p)
	if !members && was[0] == is[0] {
		return nil
	}
	s, err := v.summary(ref, p)
	if err != nil {
		return err
	}
	if members && v.r.member.Membership == store.Join { // how many are there now is not for somebody who has left
		v.out.Joined, v.out.Invited = &s.Joined, &s.Invited
	}
	if is[0] == "" {
		v.out.Heroes, err = v.heroes(ref, p.atEnd, s.Heroes)
	}
	v.told = true
	return err
}

// nameAndAvatar reads the name that a room was given, and its avatar; "" for none.
func (v *roomView) nameAndAvatar(ref rooms.Ref, state store.State) (texts [2]string, err error) {
	if state.IsZero() {
		return texts, nil
	}
	rows, err := v.slide.e.rooms.StateEventList(v.slide.ctx, ref.NID, state, []authrules.StateKey{{Type: "m.room.name"}, {Type: "m.room.avatar"}})
	for _, row := range rows {
		if row.Event.Type() == "m.room.name" {
			texts[0], _ = matrix.GetString(row.Event.Content(), "name")
		} else {
			texts[1], _ = matrix.GetString(row.Event.Content(), "url")
		}
	}
	return texts, err
}

// changedText is a text that has changed as JSON, null if there is none any more; nothing if it has not changed.
func changedText(was, is string) json.RawMessage {
	switch {
	case was == is:
		return nil
	case is == "":
		return json.RawMessage("null")
	}
	return raw(is)
}

// heroes are those of some users after whom a room is called, with the names that they have in it. Whoever came after the
// viewer had left is none.
func (v *roomView) heroes(ref rooms.Ref, state store.State, users []matrix.UserID) ([]slidingHero, error) {
	keys := make([]authrules.StateKey, len(users))
	for i, id := range users {
		keys[i] = authrules.StateKey{Type: "m.room.member", Key: string(id)}
	}
	rows, err := v.slide.e.rooms.StateEvents(v.slide.ctx, ref.NID, state, keys)
	if err != nil {
		return nil, err
	}
	var heroes []slidingHero
	for i, id := range users {
		hero := slidingHero{User: id}
		row := rows[keys[i]]
		if row == nil && v.r.member.Membership != store.Join {
			continue
		}
		if row != nil {
			hero.Name, _ = matrix.GetString(row.Event.Content(), "displayname")
			hero.Avatar, _ = matrix.GetString(row.Event.Content(), "avatar_url")
		}
		heroes = append(heroes, hero)
	}
	return heroes, nil
}

// memberEvent finds the event by which a user stands where it stands in a room, nil if it cannot be read.
func (e *Engine) memberEvent(ctx context.Context, m store.MemberRow) (found *store.EventRow, err error) {
	err = e.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventsByNID(m.Room, []store.EventNID{m.Event}, func(row *store.EventRow) { found = row })
	})
	return found, err
}
