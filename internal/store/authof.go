package store

import (
	"strings"

	"conclave/internal/matrix"
)

// AuthOf names the auth events of events given by number, in no particular order and as often as they are named. It
// reads no more of the events than the beginning, where they stand in nearly every one: members are sorted by name. Events
// that are not higher than above are left out.
func (tx *Tx) AuthOf(room RoomNID, nids []EventNID, above int64, each func(matrix.EventID)) error {
	var whole []EventNID
	err := chunks(nids, func(part []EventNID) error {
		return tx.Query(`SELECT e.nid, substr(e.json, 1, 640) FROM events e WHERE e.nid IN ({ids $1}) AND e.room = $2 AND (e.height > $3 OR e.height = 0)`, func(r *Row) error {
			if !authIn(r.Text(1), each) {
				whole = append(whole, EventNID(r.Int64(0)))
			}
			return nil
		}, int64s(part), room, above)
	})
	if err != nil || len(whole) == 0 {
		return err
	}
	return tx.EventsByNID(room, whole, func(row *EventRow) { eachOf(row, each) })
}

// AuthOfIDs is AuthOf for events given by ID.
func (tx *Tx) AuthOfIDs(room RoomNID, ids []matrix.EventID, above int64, each func(matrix.EventID)) error {
	var whole []EventNID
	err := chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT e.nid, substr(e.json, 1, 640) FROM events e WHERE e.event_id IN ({texts $1}) AND e.room = $2 AND (e.height > $3 OR e.height = 0)`, func(r *Row) error {
			if !authIn(r.Text(1), each) {
				whole = append(whole, EventNID(r.Int64(0)))
			}
			return nil
		}, texts(part), room, above)
	})
	if err != nil || len(whole) == 0 {
		return err
	}
	return tx.EventsByNID(room, whole, func(row *EventRow) { eachOf(row, each) })
}

func eachOf(row *EventRow, each func(matrix.EventID)) {
	for _, id := range row.Event.AuthEvents() {
		each(id)
	}
}

// authIn reads the auth events at the beginning of an event's canonical text: IDs, or pairs of one and hashes. It
// reports false, and names none, if they are not there as a whole or not plain.
func authIn(text string, each func(matrix.EventID)) bool {
	left, ok := strings.CutPrefix(text, `{"auth_events":[`)
	if !ok {
		return false
	}
	var ids []matrix.EventID
	for !strings.HasPrefix(left, "]") {
		if len(ids) > 0 {
			if left, ok = strings.CutPrefix(left, ","); !ok {
				return false
			}
		}
		var pair bool
		left, pair = strings.CutPrefix(left, "[")
		if left, ok = strings.CutPrefix(left, `"`); !ok {
			return false
		}
		id, rest, ok := strings.Cut(left, `"`)
		if !ok || strings.Contains(id, `\`) {
			return false
		}
		if pair {
			hashes, behind, ok := strings.Cut(rest, "]")
			if !ok || strings.Count(hashes, `"`)%2 != 0 { // a bracket in a text
				return false
			}
			rest = behind
		}
		ids, left = append(ids, matrix.EventID(id)), rest
	}
	for _, id := range ids {
		each(id)
	}
	return true
}
