package media

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// named refuses names that no content has.
func named(server matrix.ServerName, id string) error {
	if _, err := matrix.ParseServerName(string(server)); err != nil || !idForm.MatchString(id) {
		return errNotFound()
	}
	return nil
}

// Withdraw puts a content into quarantine, of ours or of another server, whether it is here or not: nobody is given it from
// now on. Who has it open may read it to its end.
func (m *Media) Withdraw(ctx context.Context, by store.UserNID, server matrix.ServerName, id string) error {
	if err := named(server, id); err != nil {
		return err
	}
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Withdraw(server, id, by, m.nowMS())
		return err
	})
	if err == nil {
		m.wake() // who waits for it waits in vain
		m.o.Log.Info("a content was put into quarantine", "administrator", by, "server", server, "media", id)
	}
	return err
}

// WithdrawAllOf puts everything that a user has stored into quarantine, and returns how many contents that are.
func (m *Media) WithdrawAllOf(ctx context.Context, by, user store.UserNID) (n int64, err error) {
	err = m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.WithdrawAllOf(user, by, m.nowMS())
		return err
	})
	if err == nil {
		m.wake()
		m.o.Log.Info("the contents of a user were put into quarantine", "administrator", by, "user", user, "contents", n)
	}
	return n, err
}

// GiveBack takes a content out of quarantine.
func (m *Media) GiveBack(ctx context.Context, by store.UserNID, server matrix.ServerName, id string) error {
	if err := named(server, id); err != nil {
		return err
	}
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.GiveBack(server, id)
		return err
	})
	if err == nil {
		m.o.Log.Info("a content was taken out of quarantine", "administrator", by, "server", server, "media", id)
	}
	return err
}

// OfUser reads a page of what a user has stored, and how much there is in all.
func (m *Media) OfUser(ctx context.Context, user store.UserNID, newest bool, from, limit int) (page []store.MediaOfUser, total int64, err error) {
	err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		page = nil
		if total, err = tx.CountMediaOf(user); err != nil {
			return err
		}
		return tx.MediaOf(user, newest, from, limit, func(c store.MediaOfUser) { page = append(page, c) })
	})
	return page, total, err
}

// Delete removes a content and its files. A copy of another server's may be fetched again.
func (m *Media) Delete(ctx context.Context, by store.UserNID, server matrix.ServerName, id string) error {
	if err := named(server, id); err != nil {
		return err
	}
	found, err := m.forget(ctx, store.Media{Origin: server, ID: id})
	if err != nil {
		return err
	}
	if !found {
		return errNotFound()
	}
	m.wake()
	m.o.Log.Info("a content was deleted", "administrator", by, "server", server, "media", id)
	return nil
}
