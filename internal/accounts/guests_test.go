package accounts

import (
	"testing"
	"time"

	"conclave/internal/store"
)

// TestRefusedGuestsLeaveNothing asks for more guests than there may be: whoever is refused leaves no row behind.
func TestRefusedGuestsLeaveNothing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.config.Registration.Guests, w.config.Registration.GuestsPerHour = true, 2
		users := func() (n int) {
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT count(*) FROM users`).Scan(&n)
				return err
			}))
			return n
		}
		before := users()
		for range 2 {
			_, err := w.RegisterGuest(t.Context(), "", "192.0.2.1", "192.0.2.1")
			must(t, err)
		}
		for range 3 {
			_, err := w.RegisterGuest(t.Context(), "", "192.0.2.1", "192.0.2.1")
			wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		}
		if made := users() - before; made != 2 {
			t.Errorf("of 2 guests and 3 who were refused %d users are left", made)
		}
	})
}

// TestGuestsWhoComeBackStay closes the accounts of idle guests, some of whom come back after somebody has looked who is idle.
func TestGuestsWhoComeBackStay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.config.Registration.Guests, w.config.Registration.GuestIdleDays = true, 1
		guest := func() *Session {
			l, err := w.RegisterGuest(t.Context(), "", "192.0.2.1", "192.0.2.1")
			must(t, err)
			return w.session(l)
		}
		back, upgraded, gone := guest(), guest(), guest()
		w.pass(48 * time.Hour)
		since := w.now().AddDate(0, 0, -1).UnixMilli()
		var idle []store.UserNID
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.IdleGuests(since, guestsAtOnce, func(user store.UserNID) { idle = append(idle, user) })
		}))
		if len(idle) != 3 {
			t.Fatalf("%d guests are idle", len(idle))
		}
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.TouchDevice(back.Device, w.now().UnixMilli(), "192.0.2.1") }))
		_, err := w.Upgrade(t.Context(), upgraded, Registration{Password: password})
		must(t, err)
		for _, user := range idle {
			must(t, w.closeIdle(t.Context(), user, since))
		}
		for name, c := range map[string]struct {
			*Session
			open bool
		}{"who came back": {back, true}, "who has an account now": {upgraded, true}, "who is gone": {gone, false}} {
			account, err := w.Account(t.Context(), c.UserID)
			if err != nil || account.Deactivated == c.open {
				t.Errorf("the account of a guest %s is open: %v, %v", name, !account.Deactivated, err)
			}
		}
		must(t, w.closeIdleGuests(t.Context()))
	})
}
