package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// mainThread is the thread_id of what is in no thread.
const mainThread = "main"

// threadHops is how many relations may lie between an event and the thread that it is counted to (client-server API,
// "Threaded read receipts").
const threadHops = 3

// requireThread refuses (M_INVALID_PARAM) a receipt for an event that is not of the thread that the receipt names. The
// root of a thread is of the thread and of the main timeline.
func (r *Rooms) requireThread(ctx context.Context, ref Ref, row *store.EventRow, thread string) error {
	if thread == "" || thread == string(row.Event.ID()) {
		return nil
	}
	of, err := r.threadOf(ctx, ref, row)
	if err == nil && of != thread {
		err = matrix.InvalidParam("The event is not of the thread %.64q.", thread)
	}
	return err
}

// threadOf names the thread of an event: by what was found when it came, or, for history, by its relations.
func (r *Rooms) threadOf(ctx context.Context, ref Ref, row *store.EventRow) (string, error) {
	if row.Thread != 0 {
		rows, err := r.eventsByNID(ctx, ref.NID, []store.EventNID{row.Thread})
		if err != nil || len(rows) == 0 {
			return mainThread, err
		}
		return string(rows[0].Event.ID()), nil
	}
	for range threadHops {
		relType, target, ok := relation(row.Event)
		switch {
		case !ok:
			return mainThread, nil
		case relType == "m.thread":
			return string(target), nil
		}
		found, err := r.eventsByID(ctx, ref, []matrix.EventID{target})
		if err != nil {
			return "", err
		}
		if row = found[target]; row == nil {
			return mainThread, nil
		}
	}
	return mainThread, nil
}
