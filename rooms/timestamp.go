package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Moment is the event that is nearest to a time.
type Moment struct {
	Event matrix.EventID `json:"event_id"`
	TS    int64          `json:"origin_server_ts"` // ms
}

// AskMoment asks another server for the event that is nearest to a time, in one direction of time.
type AskMoment func(ctx context.Context, server matrix.ServerName, room matrix.RoomID, ts int64, forward bool) (Moment, error)

// Bounds of the search for the event that is nearest to a time.
const (
	momentRows  = 50   // read at a time
	maxMoments  = 1000 // looked at: events that the reader may not see cost rows
	momentFills = 20   // parts of history that are fetched to get to one
)

// nearest finds the event nearest to a time, in one direction of time, that may be seen; nil if there is none.
func (r *Rooms) nearest(ctx context.Context, ref Ref, ts int64, forward bool, sees *Visibility) (*store.EventRow, error) {
	after := store.EventNID(0) // of those with the same time, the one that was looked at last
	for read := 0; read < maxMoments; read += momentRows {
		var rows []*store.EventRow
		err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
			rows, err = tx.EventsNear(ref.NID, ts, after, forward, momentRows)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if ok, err := sees.May(ctx, row); err != nil || ok {
				return row, err
			}
			ts, after = row.Event.OriginServerTS(), row.NID
		}
		if len(rows) < momentRows {
			break
		}
	}
	return nil, nil
}

// EventNear finds the event nearest to a time, in one direction of time, that a viewer may see. Where history is missing
// here, others are asked; what they say decides only how much of it is fetched. ask is nil where nobody is asked.
func (r *Rooms) EventNear(ctx context.Context, ref Ref, viewer Viewer, ts int64, forward bool, ask AskMoment) (*Moment, error) {
	sees := r.VisibleTo(ref, viewer)
	row, err := r.nearest(ctx, ref, ts, forward, sees)
	if err != nil {
		return nil, err
	}
	if ask != nil && r.source != nil && viewer.Member != nil && viewer.Member.Membership == store.Join {
		fetched, err := r.fetchMoment(ctx, ref, ts, forward, row, ask)
		if err != nil {
			return nil, err
		}
		if fetched {
			if row, err = r.nearest(ctx, ref, ts, forward, sees); err != nil {
				return nil, err
			}
		}
	}
	if row == nil {
		return nil, matrix.NotFound("There is no event there that you may see.")
	}
	return &Moment{row.Event.ID(), row.Event.OriginServerTS()}, nil
}

// fetchMoment fetches history up to an event that is nearer to a time than the one that is held, if another server knows
// one. It says whether anything was fetched.
func (r *Rooms) fetchMoment(ctx context.Context, ref Ref, ts int64, forward bool, held *store.EventRow, ask AskMoment) (fetched bool, err error) {
	gap, _, err := r.newestGap(ctx, ref, Place{}, Newest)
	if err != nil || gap == nil {
		return false, err // all is here
	}
	servers, err := r.askable(ctx, ref, "")
	if err != nil {
		return false, nil //nolint:nilerr // nobody else is in the room
	}
	for _, server := range servers {
		found, err := ask(ctx, server, ref.ID, ts, forward)
		if err != nil {
			r.log.Debug("asking for an event by its time failed", "room", ref.ID, "server", server, "err", err)
			continue
		}
		if forward != (found.TS >= ts) && found.TS != ts || held != nil && distance(found.TS, ts) >= distance(held.Event.OriginServerTS(), ts) {
			continue // it lies in the other direction, or no nearer
		}
		for range momentFills {
			row, err := r.placed(ctx, ref, found.Event)
			if err != nil || row {
				return fetched, err
			}
			more, err := r.backfill(ctx, ref, Place{}, Newest)
			if err != nil {
				r.log.Info("history not fetched", "room", ref.ID, "err", err)
			}
			if fetched = fetched || more; !more {
				break
			}
		}
	}
	return fetched, nil
}

// placed says whether an event has a place in the room's timeline.
func (r *Rooms) placed(ctx context.Context, ref Ref, id matrix.EventID) (yes bool, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		row, err := tx.EventInRoom(ref.NID, id)
		yes = row != nil && row.Pos != 0
		return err
	})
	return yes, err
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// EventNear finds the event nearest to a time, in one direction of time, that the server's users may see.
func (s *Serving) EventNear(ctx context.Context, ts int64, forward bool) (*Moment, error) {
	row, err := s.r.nearest(ctx, s.ref, ts, forward, s.sees)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, matrix.NotFound("There is no event there that your server may see.")
	}
	return &Moment{row.Event.ID(), row.Event.OriginServerTS()}, nil
}
