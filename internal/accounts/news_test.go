package accounts

import (
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/store"
)

func TestNewsOfSignIns(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		w.config.Email.SignInNotices = true
		made, err := w.Register(t.Context(), Registration{Username: "alice", Password: password, Device: &NewDevice{Address: "192.0.2.1"}})
		must(t, err)
		alice := w.session(made)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return w.vouchedAddress(tx, alice.User, "alice@example.org")
		}))
		from := func(d NewDevice) *Login {
			t.Helper()
			l, err := w.LoginPassword(t.Context(), "alice", password, d)
			must(t, err)
			return l
		}
		none := func(what string) {
			t.Helper()
			if mails := w.deliver(); len(mails) != 0 {
				t.Errorf("%s is news: %q", what, mails[0].Text)
			}
		}
		none("the session of the registration")
		for what, d := range map[string]NewDevice{
			"the same network": {Address: "192.0.2.200"}, "the same in other letters": {Address: "::ffff:192.0.2.7"}, "an unknown address": {}, "no address": {Address: "@"},
		} {
			from(d)
			none(what)
		}

		// Somewhere else: what, when, from where, and what to do; and nothing that opens anything.
		l := from(NewDevice{Name: "Evil phone https://evil.example/", Address: "198.51.100.9"})
		m := w.one()
		for _, want := range []string{"@alice:us.test", "Evil phone", "198.51.100.9", "(UTC)", "end the sessions", "https://chat.us.test/"} {
			if !strings.Contains(m.Text, want) {
				t.Errorf("the mail does not say %q:\n%s", want, m.Text)
			}
		}
		if m.To != "alice@example.org" || strings.Contains(m.Text+m.HTML, l.Token) || strings.Contains(m.Text, "token") || strings.Contains(m.Text, "://evil") {
			t.Errorf("the mail to %s says:\n%s", m.To, m.Text)
		}
		from(NewDevice{Address: "198.51.100.10"})
		none("there once more")
		from(NewDevice{ID: alice.DeviceID, Address: "203.0.113.1"})
		none("a device that is known")

		// A session that is refused is none, and one place is told once however many come at once.
		_, err = w.LoginPassword(t.Context(), "alice", "wrong", NewDevice{Address: "2001:db8:1::1"})
		wantCode(t, err, 403, "M_FORBIDDEN")
		none("a wrong password")
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if _, err := w.LoginPassword(t.Context(), "alice", password, NewDevice{Address: "2001:db8:1:2::1"}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		w.one()
		from(NewDevice{Address: "2001:db8:1:3::1"})
		none("the same network by IPv6")

		// Whoever is seen somewhere by a request is known there, for ninety days.
		w.pass(10 * time.Minute)
		_, err = w.Authenticate(t.Context(), l.Token, "203.0.114.200")
		must(t, err)
		w.pass(placeTime - time.Hour)
		from(NewDevice{Address: "203.0.114.5"})
		none("where requests came from")
		w.pass(placeTime + 48*time.Hour)
		from(NewDevice{Address: "203.0.114.5"})
		w.one()

		// No flood, and none where nobody wants them.
		sent := 0
		for i := range 12 {
			from(NewDevice{Address: "10.0." + string(rune('0'+i%10)) + string(rune('0'+i/10)) + ".1"})
			sent += len(w.deliver())
		}
		if sent == 0 || sent > int(noticeBudget.Burst) {
			t.Errorf("%d mails of twelve sign-ins", sent)
		}
		w.pass(48 * time.Hour)
		w.config.Email.SignInNotices = false
		from(NewDevice{Address: "100.64.0.1"})
		none("with sign_in_notices off")
		must(t, w.Deactivate(t.Context(), alice.User))
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT place FROM places WHERE member = $1`, func(r *store.Row) error {
				t.Errorf("of a closed account there is the place %s", r.Text(0))
				return nil
			}, alice.User)
		}))
	})
}
