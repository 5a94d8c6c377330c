package rooms

import (
	"context"

	"conclave/internal/matrix"
)

// fill asks other servers for what an event lacks: here nobody is asked, and the event waits.
func (r *Rooms) fill(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event) error {
	return errNoFederation()
}

// backfill asks other servers for the history before a place, and reports whether there is more now.
func (r *Rooms) backfill(ctx context.Context, ref Ref, at Place) (bool, error) {
	return false, nil
}
