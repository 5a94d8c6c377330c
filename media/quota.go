package media

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// mayStore refuses a user whose files would be more than they may be, before any byte is taken (threats M04).
func (m *Media) mayStore(ctx context.Context, user store.UserNID, bytes int64) error {
	if m.o.Config.Media.MaxBytesPerUser == 0 {
		return nil
	}
	return m.o.DB.Read(ctx, func(tx *store.Tx) error { return m.fits(tx, user, bytes) })
}

// within is mayStore at the time when the row is written: until the transaction ends nobody else adds to what the user has.
func (m *Media) within(tx *store.Tx, user store.UserNID, bytes int64) error {
	if m.o.Config.Media.MaxBytesPerUser == 0 {
		return nil
	}
	if err := tx.LockMediaUse(user); err != nil {
		return err
	}
	return m.fits(tx, user, bytes)
}

func (m *Media) fits(tx *store.Tx, user store.UserNID, bytes int64) error {
	most := m.o.Config.Media.MaxBytesPerUser
	stored, announced, err := tx.MediaUse(user)
	if err != nil {
		return err
	}
	if left := most - stored - announced; left <= 0 || bytes > left {
		return matrix.Forbidden("Your files may have %d bytes on this server, and you have stored or announced %d.", most, stored+announced)
	}
	return nil
}
