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
	d.out.Relations = append(d.out.Relations, store.Relation{Target: target, RelType: relType, Event: row.NID})
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

// mayRedact refuses a redaction of ours whose target we hold and whose sender may not redact it: the sender may
// remove own events, and others' with the room's power to redact. (The rules of versions 1 and 2 say so themselves.)
func (d *draft) mayRedact(ctx context.Context, ev *matrix.Event) error {
	target, ok := ev.Redacts()
	if !ok {
		return matrix.MissingParam("A redaction names the event that it redacts.")
	}
	row, err := d.known(ctx, target)
	if err != nil || row == nil || row.Event.Sender() == ev.Sender() {
		return err
	}
	allowed, err := d.hasRedactPower(ctx, ev.Sender())
	if err == nil && !allowed {
		err = matrix.Forbidden("You may only remove your own messages in this room.")
	}
	return err
}

func (d *draft) hasRedactPower(ctx context.Context, user matrix.UserID) (bool, error) {
	levels, err := d.levels(ctx)
	if err != nil {
		return false, err
	}
	return levels.UserLevel(user) >= levels.Redact, nil
}

// levels are the power levels in force at the draft's head.
func (d *draft) levels(ctx context.Context) (authrules.Levels, error) {
	state, _, err := d.authState(ctx, []authrules.StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}})
	if err != nil {
		return authrules.Levels{}, err
	}
	return authrules.LevelsOf(d.ref.Version, state), nil
}

// redactions lets a redaction take effect on its target, and a target be redacted by a redaction that came before it.
// From room version 3 a redaction counts if its sender's server is the target's or its sender has the power
// (spec: "Handling redactions").
func (d *draft) redactions(ctx context.Context, row *store.EventRow) error {
	if row.Event.Type() != "m.room.redaction" {
		return nil
	}
	id, ok := row.Event.Redacts()
	if !ok {
		return nil
	}
	red := store.Redaction{Target: id, By: row.NID}
	target, err := d.known(ctx, id)
	if err != nil {
		return err
	}
	if target != nil {
		ok, err := d.redactionCounts(ctx, row.Event, target.Event)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if red.JSON, err = redactedText(target); err != nil {
			return err
		}
		red.TargetNID = target.NID
	}
	d.out.Redactions = append(d.out.Redactions, red)
	return nil
}

// redactedBefore lets a redaction take effect that came before its target.
func (d *draft) redactedBefore(ctx context.Context, row *store.EventRow) error {
	by, err := d.redactionOf(ctx, row.Event.ID())
	if err != nil || by == nil {
		return err
	}
	counts, err := d.redactionCounts(ctx, by.Event, row.Event)
	if err != nil || !counts {
		return err
	}
	if row.Event, err = row.Event.Redacted(); err == nil {
		row.Flags |= store.FlagRedacted
	}
	return err
}

// redactionOf finds a redaction that waits for an event: one of this group, or one that is held.
func (d *draft) redactionOf(ctx context.Context, id matrix.EventID) (by *store.EventRow, err error) {
	for _, red := range d.out.Redactions {
		if red.Target == id && red.TargetNID == 0 {
			return d.rows[red.By], nil
		}
	}
	if !d.redacted[id] {
		return nil, nil
	}
	err = d.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		by, err = tx.RedactionOf(d.ref.NID, id)
		return err
	})
	return by, err
}

// redactionCounts says whether a redaction may take effect on a target of the same room.
func (d *draft) redactionCounts(ctx context.Context, redaction, target *matrix.Event) (bool, error) {
	if target.Type() == "m.room.create" {
		return false, nil // its redaction would keep everything anyway, and nothing may touch a room's root
	}
	if redaction.Sender().Server() == target.Sender().Server() {
		return true, nil
	}
	return d.hasRedactPower(ctx, redaction.Sender())
}

func redactedText(target *store.EventRow) ([]byte, error) {
	ev, err := target.Event.Redacted()
	if err != nil {
		return nil, err
	}
	return ev.JSON(), nil
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
