package accounts

import (
	"testing"

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
