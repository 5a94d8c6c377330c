package rooms

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// Notice is an event that a user is, or was, to be told of.
type Notice struct {
	Ref     Ref
	Row     *store.EventRow
	Pos     store.Pos // where it came in the stream
	Actions pushrules.Actions
	Read    bool
	Invited *store.MemberRow // the user's membership, if the notice is of an invitation to the room
}

// Ignored are the users whom a user ignores (client-server API, "Ignoring Users").
func (r *Rooms) Ignored(ctx context.Context, user store.UserNID) (map[matrix.UserID]bool, error) {
	var content string
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		content, err = tx.AccountData(user, 0, "m.ignored_user_list")
		return err
	})
	if err != nil {
		return nil, err
	}
	var list struct {
		Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
	}
	ignored := map[matrix.UserID]bool{}
	if json.Unmarshal([]byte(content), &list) == nil { // what is no list ignores nobody
		for id := range list.Users {
			if matrix.IsText(string(id)) { // else nobody is called so, and databases cannot be asked for it
				ignored[id] = true
			}
		}
	}
	return ignored, nil
}

// Bounds of looking for what notifies somebody.
const (
	heardPage    = 200       // events read at once
	heardBudget  = 4000      // events looked at for one answer
	heardStretch = 1_000_000 // positions looked at for one answer
	firstStretch = 2000
)

// Noticed lists what notified a user before a position, newest first: at most limit events, of those that can be found
// with a bounded effort. next is where to go on, 0 if there is nothing more.
func (r *Rooms) Noticed(ctx context.Context, user Sender, before store.Pos, limit int, highlights bool) (list []Notice, next store.Pos, err error) {
	j, err := r.judge(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	looked, stretch := 0, store.Pos(firstStretch)
	for hi := before - 1; hi > 0; {
		lo := max(0, hi-stretch)
		var rows []*store.EventRow
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			rows = nil
			return tx.Heard(user.NID, lo, hi, true, heardPage, func(row *store.EventRow) { rows = append(rows, row) })
		})
		if err != nil {
			return nil, 0, err
		}
		for _, row := range rows {
			hi = row.Pos - 1
			n, err := j.look(ctx, row)
			if err != nil {
				return nil, 0, err
			}
			if n != nil && (n.Actions.Highlight || !highlights) {
				list = append(list, *n)
			}
			if looked++; len(list) == limit || looked == heardBudget {
				return list, row.Pos, nil
			}
		}
		if len(rows) < heardPage {
			hi, stretch = lo, 2*stretch
		}
		if before-hi > heardStretch && hi > 0 {
			return list, hi + 1, nil
		}
	}
	return list, 0, nil
}

// Notices lists what a user is to be told of that came after one position and up to another, oldest first. reached is how
// far it looked. What the user has read meanwhile, or may not see, is not among it.
func (r *Rooms) Notices(ctx context.Context, user Sender, after, upTo store.Pos) (list []Notice, reached store.Pos, err error) {
	var rows []*store.EventRow
	var invitations []store.MemberRow
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		rows, invitations, reached = nil, nil, upTo
		err := tx.Heard(user.NID, after, upTo, false, heardPage, func(row *store.EventRow) { rows = append(rows, row) })
		if err != nil {
			return err
		}
		if len(rows) == heardPage {
			reached = rows[len(rows)-1].Pos
		}
		return tx.InvitedBetween(user.NID, after, reached, func(m store.MemberRow) { invitations = append(invitations, m) })
	})
	if err != nil || len(rows)+len(invitations) == 0 {
		return nil, reached, err
	}
	j, err := r.judge(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	for _, m := range invitations {
		n, err := j.invitation(ctx, m)
		if err != nil {
			return nil, 0, err
		}
		if n != nil {
			list = append(list, *n)
		}
	}
	for _, row := range rows {
		n, err := j.look(ctx, row)
		if err != nil {
			return nil, 0, err
		}
		if n != nil && !n.Read {
			list = append(list, *n)
		}
	}
	return list, reached, nil
}

// UnreadEverywhere counts what a user has not read in all of the rooms that it is in.
func (r *Rooms) UnreadEverywhere(ctx context.Context, user store.UserNID) (total Tally, err error) {
	ignored, err := r.Ignored(ctx, user)
	if err != nil {
		return total, err
	}
	var without []matrix.UserID
	for id := range ignored {
		without = append(without, id)
	}
	var members []store.MemberRow
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		members = nil
		return tx.JoinedWithNews(user, func(m store.MemberRow) { members = append(members, m) })
	})
	if err != nil {
		return total, err
	}
	bound, err := r.db.StreamBound(ctx)
	if err != nil {
		return total, err
	}
	for _, m := range members {
		ref, err := r.LookupNID(ctx, m.Room)
		if err != nil {
			return total, err
		}
		u, err := r.Unread(ctx, ref, m, without, bound)
		if err != nil {
			return total, err
		}
		total = total.Add(u.Total())
	}
	return total, nil
}

// NoticeNames are what a notice's sender and room are called at present; empty where they have no names.
type NoticeNames struct{ Sender, Room, Alias string }

// NamesFor finds them: in the room's state, or in what came with an invitation.
func (r *Rooms) NamesFor(ctx context.Context, n Notice) (names NoticeNames, err error) {
	sender := string(n.Row.Event.Sender())
	if n.Invited != nil {
		given, err := r.StrippedState(ctx, n.Ref, *n.Invited)
		for _, raw := range given {
			typ, _ := matrix.GetString(raw, "type")
			key, _ := matrix.GetString(raw, "state_key")
			content, _ := matrix.Get(raw, "content")
			names.read(typ, key, sender, content)
		}
		return names, err
	}
	state, err := r.CurrentState(ctx, n.Ref.NID)
	if err != nil {
		return names, err
	}
	found, err := r.StateEvents(ctx, n.Ref.NID, state, []authrules.StateKey{
		{Type: "m.room.name"}, {Type: "m.room.canonical_alias"}, {Type: "m.room.member", Key: sender},
	})
	for key, row := range found {
		names.read(key.Type, key.Key, sender, row.Event.Content())
	}
	return names, err
}

func (n *NoticeNames) read(typ, key, sender string, content []byte) {
	switch {
	case typ == "m.room.name" && key == "":
		n.Room, _ = matrix.GetString(content, "name")
	case typ == "m.room.canonical_alias" && key == "":
		n.Alias, _ = matrix.GetString(content, "alias")
	case typ == "m.room.member" && key == sender:
		n.Sender, _ = matrix.GetString(content, "displayname")
	}
}
