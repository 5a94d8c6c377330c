package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bridges are asked for users and aliases of ours that do not exist and that they may make: application services. They
// answer once they have, or not (application service API, "Querying").
type Bridges interface {
	// HasUser reports whether a user should be there now.
	HasUser(ctx context.Context, user matrix.UserID) (bool, error)
	// HasAlias reports whether an alias should be there now.
	HasAlias(ctx context.Context, alias matrix.RoomAlias) (bool, error)
}

// SetBridges says whom to ask; it is called before anything else is.
func (r *Rooms) SetBridges(b Bridges) { r.bridges = b }

// provideUser lets a bridge make a user of ours that does not exist before it is invited.
func (r *Rooms) provideUser(ctx context.Context, id matrix.UserID) error {
	if r.bridges == nil || !r.own.IsOurs(id.Server()) {
		return nil
	}
	var account *store.Account
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.Account(id.Localpart())
		return err
	})
	if err == nil && account == nil {
		_, err = r.bridges.HasUser(ctx, id)
	}
	return err
}

// provideAlias lets a bridge make an alias of ours that does not exist, and finds its room; 0 if it has none.
func (r *Rooms) provideAlias(ctx context.Context, alias matrix.RoomAlias) (room store.RoomNID, err error) {
	if r.bridges == nil {
		return 0, nil
	}
	if found, err := r.bridges.HasAlias(ctx, alias); err != nil || !found {
		return 0, err
	}
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		room, _, err = tx.Alias(alias)
		return err
	})
	return room, err
}
