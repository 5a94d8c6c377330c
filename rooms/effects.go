package rooms

import (
	"context"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// relate records which event this one relates to and which thread it belongs to.
func (d *draft) relate(ctx context.Context, row *store.EventRow) error {
	relType, target, ok := relation(row.Event)
	if !ok {
		return nil
	}
	d.out.Relations = append(d.out.Relations, store.Relation{Target: target, RelType: relType, Event: row.NID, EventType: row.Event.Type()})
	root, err := d.known(ctx, target)
	if err != nil || root == nil {
		return err
	}
	switch {
	case relType == "m.thread":
		row.Thread = root.NID
	case root.Thread != 0: // an edit of, or a reaction to, an event of a thread belongs to that thread
		row.Thread = root.Thread
	}
	return nil
}

// relation reads m.relates_to: its type and target, if both are there, of a sane size, and what a database can keep.
func relation(ev *matrix.Event) (relType string, target matrix.EventID, ok bool) {
	if ev.IsState() {
		return "", "", false
	}
	relates, ok := matrix.Get(ev.Content(), "m.relates_to") // nearly always there is none: that is found out once
	if !ok {
		return "", "", false
	}
	relType, ok1 := matrix.GetString(relates, "rel_type")
	id, ok2 := matrix.GetString(relates, "event_id")
	if !ok1 || !ok2 || relType == "" || len(relType) > 255 || len(id) > 255 {
		return "", "", false
	}
	return relType, matrix.EventID(id), matrix.IsText(relType) && matrix.IsText(id) && matrix.IsText(ev.Type())
}

// known finds an event of this room by its ID, in this group or in the database; nil if we do not hold it.
func (d *draft) known(ctx context.Context, id matrix.EventID) (*store.EventRow, error) {
	for _, rows := range [][]*store.EventRow{d.out.Events, d.out.Aside} {
		for _, row := range rows {
			if row.Event.ID() == id {
				return row, nil
			}
		}
	}
	if row, asked := d.held[id]; asked {
		return row, nil
	}
	var row *store.EventRow
	err := d.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.EventInRoom(d.ref.NID, id)
		return err
	})
	return row, err
}

// levels are the power levels in force at the draft's head.
func (d *draft) levels(ctx context.Context) (authrules.Levels, error) {
	state, _, err := d.authState(ctx, []authrules.StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}})
	if err != nil {
		return authrules.Levels{}, err
	}
	return authrules.LevelsOf(d.ref.Version, state), nil
}

// threadCounts are the running numbers of an event's thread before it: of the group's last event in it, else of the
// newest in the database.
func (d *draft) threadCounts(ctx context.Context, row *store.EventRow) (c store.Counts, err error) {
	for _, before := range slices.Backward(d.out.Events) {
		if before != row && before.Thread == row.Thread {
			return before.Counts, nil
		}
	}
	err = d.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		c, err = tx.ThreadCounts(row.Thread)
		return err
	})
	return c, err
}
