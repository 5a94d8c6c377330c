package store

import (
	"cmp"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
)

// PushRulesType is the type of the account data that a user's push rules are.
const PushRulesType = "m.push_rules"

// maxModes is how many modes of a room are remembered. Whoever changes the rules more often without reading finds the
// oldest unread events counted by a later mode.
const maxModes = 8

// PutPushRules stores a user's push rules as account data, notes whether they are other than the predefined ones, and
// from when on which modes hold.
func (tx *Tx) PutPushRules(user UserNID, content string, personal bool, modes pushrules.Modes) error {
	if err := tx.PutAccountData(user, 0, PushRulesType, content); err != nil {
		return err
	}
	pos, err := tx.AddChange(ChangePushRules, 0, user) // tells other nodes, too
	if err != nil {
		return err
	}
	who := `DELETE FROM push_people WHERE member = $1`
	if personal {
		who = `INSERT INTO push_people (member) VALUES ($1) ON CONFLICT DO NOTHING`
	}
	if _, err := tx.Exec(who, user); err != nil {
		return err
	}
	held := map[string]pushrules.Mode{}
	err = tx.Query(`SELECT room, mode FROM push_modes WHERE member = $1 ORDER BY room, pos`, func(r *Row) error {
		held[r.Text(0)] = pushrules.Mode(r.Int64(1))
		return nil
	}, user)
	if err != nil {
		return err
	}
	return tx.changeModes(user, pos, held, modes)
}

// changeModes notes, from a position on, those modes that differ from the ones held until now.
func (tx *Tx) changeModes(user UserNID, pos Pos, held map[string]pushrules.Mode, modes pushrules.Modes) error {
	changed := map[string]pushrules.Mode{}
	if held[""] != modes.General { // without a row it is All
		changed[""] = modes.General
	}
	for room, mode := range modes.Rooms {
		if was, ok := held[room]; !ok || was != mode {
			changed[room] = mode
		}
	}
	for room, was := range held {
		if _, ok := modes.Rooms[room]; !ok && room != "" && was != pushrules.AsElsewhere {
			changed[room] = pushrules.AsElsewhere
		}
	}
	for room, mode := range changed {
		if _, err := tx.Exec(`INSERT INTO push_modes (member, room, pos, mode) VALUES ($1, $2, $3, $4)`, user, room, pos, mode); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM push_modes WHERE member = $1 AND room = $2 AND pos <= coalesce((
			SELECT pos FROM push_modes WHERE member = $1 AND room = $2 ORDER BY pos DESC LIMIT 1 OFFSET $3), 0)`, user, room, maxModes)
		if err != nil {
			return err
		}
	}
	return nil
}

// ModeChange says which mode holds in a room from just after a position on.
type ModeChange struct {
	After Pos
	Mode  pushrules.Mode
}

// ModesIn reads the modes that a user had in a room, oldest first. The first one holds from the beginning.
func (tx *Tx) ModesIn(user UserNID, room matrix.RoomID) (list []ModeChange, err error) {
	all, err := tx.ModesOf(user, []matrix.RoomID{room})
	return all.In(room), err
}

// Modes are the modes that a user had in some rooms.
type Modes []modeRow

type modeRow struct {
	after Pos
	room  string // "" for all
	mode  pushrules.Mode
}

// ModesOf is ModesIn for several rooms.
func (tx *Tx) ModesOf(user UserNID, rooms []matrix.RoomID) (all Modes, err error) {
	err = chunks(rooms, func(part []matrix.RoomID) error {
		general := len(all) == 0
		return tx.Query(`SELECT pos, room, mode FROM push_modes WHERE member = $1 AND (room = '' AND $3 OR room IN ({texts $2})) ORDER BY pos`, func(r *Row) error {
			all = append(all, modeRow{Pos(r.Int64(0)), r.Text(1), pushrules.Mode(r.Int64(2))})
			return nil
		}, user, texts(part), general)
	})
	slices.SortStableFunc(all, func(a, b modeRow) int { return cmp.Compare(a.after, b.after) })
	return all, err
}

// In are the modes in one of the rooms, as ModesIn reads them.
func (all Modes) In(room matrix.RoomID) []ModeChange {
	general, own := pushrules.All, pushrules.AsElsewhere
	list := []ModeChange{{0, general}}
	for _, m := range all {
		switch m.room {
		case "":
			general = m.mode
		case string(room):
			own = m.mode
		default:
			continue
		}
		mode := own
		if mode == pushrules.AsElsewhere {
			mode = general
		}
		list = append(list, ModeChange{m.after, mode})
	}
	return list
}

// PushRules reads the rules of those of the users whose rules are not the predefined ones.
func (tx *Tx) PushRules(users []UserNID, each func(user UserNID, id matrix.UserID, content string)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT p.member, u.user_id, a.content FROM push_people p JOIN users u ON u.nid = p.member
			JOIN account_data a ON a.member = p.member AND a.room = 0 AND a.type = 'm.push_rules' WHERE p.member IN ({ids $1})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)), r.Text(2))
			return nil
		}, int64s(part))
	})
}

// PushPeople names the joined users of a room whose push rules are not the predefined ones.
func (tx *Tx) PushPeople(room RoomNID, each func(UserNID)) error {
	return tx.Query(`SELECT p.member FROM push_people p JOIN memberships m ON m.member = p.member AND m.room = $1 AND m.membership = 1`, func(r *Row) error {
		each(UserNID(r.Int64(0)))
		return nil
	}, room)
}

// JoinedAmong names those of the users who are joined to a room.
func (tx *Tx) JoinedAmong(room RoomNID, ids []matrix.UserID, each func(UserNID, matrix.UserID)) error {
	return chunks(ids, func(part []matrix.UserID) error {
		return tx.Query(`SELECT m.member, u.user_id FROM users u JOIN memberships m ON m.member = u.nid AND m.room = $1 AND m.membership = 1
			WHERE u.user_id IN ({texts $2})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)))
			return nil
		}, room, texts(part))
	})
}
