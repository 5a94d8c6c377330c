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

// relation reads m.relates_to: its type and target, if both are there and of a sane size.
func relation(ev *matrix.Event) (relType string, target matrix.EventID, ok bool) {
	if ev.IsState() {
		return "", "", false
	}
	relType, ok1 := matrix.GetString(ev.Content(), "m.relates_to", "rel_type")
	id, ok2 := matrix.GetString(ev.Content(), "m.relates_to", "event_id")
	if !ok1 || !ok2 || relType == "" || len(relType) > 255 || len(id) > 255 {
		return "", "", false
	}
	return relType, matrix.EventID(id), true
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

// count carries the running numbers of law 6 on to the event's row.
func (d *draft) count(ctx context.Context, row *store.EventRow) error {
	notify, highlight := countsAs(row.Event)
	if highlight != 0 && !row.Event.IsState() {
		may, err := d.mayMentionRoom(ctx, row.Event.Sender())
		if err != nil {
			return err
		}
		if !may {
			highlight = 0
		}
	}
	c := &d.head.counts
	if row.Thread == 0 {
		c.Notify += notify
		c.Highlight += highlight
	}
	row.Counts = store.Counts{Notify: c.Notify, Highlight: c.Highlight}
	if row.Thread == 0 {
		return nil
	}
	had, err := d.threadCounts(ctx, row)
	row.Counts.ThreadNotify, row.Counts.ThreadHighlight = had.ThreadNotify+notify, had.ThreadHighlight+highlight
	return err
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

// mayMentionRoom says whether @room by this sender highlights (push condition sender_notification_permission).
func (d *draft) mayMentionRoom(ctx context.Context, user matrix.UserID) (bool, error) {
	levels, err := d.levels(ctx)
	if err != nil {
		return false, err
	}
	return levels.UserLevel(user) >= levels.Notification("room"), nil
}

// countsAs says how an event counts under the default push rules for somebody who did not send it: 1 if it notifies
// everybody, 1 if it highlights everybody (client-server API, "Predefined rules").
func countsAs(ev *matrix.Event) (notify, highlight int64) {
	switch ev.Type() {
	case "m.room.tombstone":
		if ev.StateKeyEquals("") {
			return 1, 1
		}
		return 0, 0
	case "m.room.message", "m.room.encrypted", "m.call.invite", "m.poll.start", "org.matrix.msc3381.poll.start":
	default:
		return 0, 0
	}
	if ev.IsState() {
		return 0, 0
	}
	if msgtype, _ := matrix.GetString(ev.Content(), "msgtype"); msgtype == "m.notice" {
		return 0, 0 // .m.rule.suppress_notices
	}
	if relType, _, ok := relation(ev); ok && relType == "m.replace" {
		return 0, 0 // .m.rule.suppress_edits
	}
	if raw, ok := matrix.Get(ev.Content(), "m.mentions", "room"); ok && string(raw) == "true" {
		return 1, 1 // .m.rule.is_room_mention, if the sender has the power: see count
	}
	return 1, 0
}
