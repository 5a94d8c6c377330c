package rooms

import "context"

// backfill asks other servers for history before a place of a room where some is missing; it reports whether there is
// more now.
func (r *Rooms) backfill(ctx context.Context, ref Ref, before Place) (bool, error) {
	return false, nil
}
