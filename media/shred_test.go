package media

import (
	"bytes"
	"io"
	"testing"

	"conclave/internal/store"
)

// ending is a body at whose end something happens.
type ending struct {
	io.Reader
	end func()
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF && e.end != nil {
		e.end()
		e.end = nil
	}
	return n, err
}

// TestNothingIsStoredForClosedAccounts closes accounts whose files are on their way, or are about to be: what came after the
// deletion of all others would stay for ever.
func TestNothingIsStoredForClosedAccounts(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		user, err := w.db.User(t.Context(), "@alice:us.test")
		must(t, err)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.CreateAccount(store.Account{User: user.NID, ID: "@alice:us.test", Created: 1})
			return err
		}))
		shredded := func() {
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
				if err := tx.Deactivate(user.NID); err != nil {
					return err
				}
				return tx.AddJob(store.JobShred, "@alice:us.test", 1)
			}))
			must(t, w.shredDue(t.Context()))
		}
		_, err = w.Upload(t.Context(), user.NID, Upload{Type: "text/plain", Length: -1, Body: &ending{bytes.NewReader(random(100)), shredded}})
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, _, err = w.Reserve(t.Context(), user.NID)
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, err = w.Begin(t.Context(), user.NID, Resumable{Length: 10})
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		w.files(0)
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			if err := tx.AllMediaOf(user.NID, 1, func(n store.MediaName) { t.Errorf("%s is left", n.ID) }); err != nil {
				return err
			}
			return tx.MediaUploadsOf(user.NID, 1, func(u store.MediaUpload) { t.Errorf("%s is left", u.ID) })
		}))
	})
}
