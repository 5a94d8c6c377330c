package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// TestNothingIsKeptOfWhoIsClosed closes an account while requests of it are under way that were let in before.
func TestNothingIsKeptOfWhoIsClosed(t *testing.T) {
	proof.Of(t, "A06")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		w.config.Email.SignInNotices = true
		login := w.register("alice")
		s := w.session(login)
		var owner *store.TokenOwner
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) (err error) {
			owner, err = tx.TokenOwner(hashOf(login.Token))
			return err
		}))
		must(t, w.Close(t.Context(), Closing{User: s.User, Erase: true}))
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.EraseOwn(s.User, s.UserID) })) // as the job does at last

		_, err := w.SetProfile(t.Context(), s.User, DisplayName, json.RawMessage(`"Alice Secret"`))
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, err = w.NewOpenIDToken(t.Context(), s.User)
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, err = w.PutDevice(t.Context(), s.User, "BRIDGE", "", "192.0.2.1") // of an application service that acts as the user
		wantCode(t, err, 403, "M_USER_DEACTIVATED")
		w.touch(t.Context(), owner, w.now().Add(time.Hour), "192.0.2.7")
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT 'profile ' || fields FROM profiles WHERE member = $1 UNION ALL SELECT 'place ' || place FROM places WHERE member = $1
				UNION ALL SELECT 'device ' || device_id FROM devices WHERE member = $1 UNION ALL SELECT 'token' FROM openid_tokens WHERE member = $1`, func(r *store.Row) error {
				t.Errorf("there is a %s of an account that is erased", r.Text(0))
				return nil
			}, s.User)
		}))
	})
}

// closingPublisher is an identity server that takes its time: meanwhile the account is closed.
type closingPublisher struct {
	publisher
	during func()
}

// Bind implements IdentityServers.
func (p *closingPublisher) Bind(ctx context.Context, at matrix.ServerName, token, sid, secret string, user matrix.UserID) (medium, address string, err error) {
	p.during()
	return p.publisher.Bind(ctx, at, token, sid, secret, user)
}

// TestAddressesPublishedAtTheLastMoment closes an account while an identity server publishes its address: it has to forget that
// as any other.
func TestAddressesPublishedAtTheLastMoment(t *testing.T) {
	proof.Of(t, "A06", "AN-16")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		p := &closingPublisher{}
		w.identities = p
		s := w.owner("alice", "alice@a.test")
		p.during = func() { must(t, w.Deactivate(t.Context(), s.User)) }
		wantCode(t, w.BindThreepid(t.Context(), s, "id.test", "token", "alice@a.test", "secret"), 401, "M_UNKNOWN_TOKEN")
		if len(p.bound) != 1 {
			t.Fatalf("bound: %v", p.bound)
		}
		must(t, w.unbindClosed(t.Context()))
		if len(p.bound) != 0 {
			t.Errorf("the address of a closed account stays published: %v", p.bound)
		}
	})
}

// TestAddressesThatStayPublished closes an account whose identity server is gone for good: after some days it is given up, and the
// address is not kept here for that.
func TestAddressesThatStayPublished(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		p := &publisher{}
		w.identities = p
		s := w.owner("alice", "alice@a.test")
		must(t, w.BindThreepid(t.Context(), s, "id.test", "token", "alice@a.test", "secret"))
		p.fail = errors.New("gone")
		must(t, w.Close(t.Context(), Closing{User: s.User, Erase: true}))
		kept := func() (bindings, jobs int) {
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT (SELECT count(*) FROM threepid_bindings), (SELECT count(*) FROM jobs WHERE kind = 'unbind')`).Scan(&bindings, &jobs)
				return err
			}))
			return bindings, jobs
		}
		for range unbindTries {
			must(t, w.unbindClosed(t.Context()))
			w.pass(unbindRetry)
		}
		if bindings, jobs := kept(); bindings != 1 || jobs != 1 {
			t.Errorf("before it is given up there are %d bindings and %d jobs", bindings, jobs)
		}
		must(t, w.unbindClosed(t.Context()))
		if bindings, jobs := kept(); bindings != 0 || jobs != 0 {
			t.Errorf("after it was given up there are %d bindings and %d jobs", bindings, jobs)
		}
	})
}

// TestAccountsStayOpenWhileSomethingIsStored closes an account while somebody stores something of it: what was let in first is
// there before the account is closed, and nothing comes after.
func TestAccountsStayOpenWhileSomethingIsStored(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := w.session(w.register("alice"))
		stored, closed := make(chan error, 1), make(chan error, 1)
		inside, on := make(chan struct{}), make(chan struct{})
		go func() {
			stored <- w.db.Write(t.Context(), func(tx *store.Tx) error {
				if err := tx.StillOpen(s.User); err != nil {
					return err
				}
				close(inside)
				<-on
				return tx.PutAccountData(s.User, 0, "x", "{}")
			})
		}()
		<-inside
		go func() { closed <- w.Close(t.Context(), Closing{User: s.User, Erase: true}) }()
		close(on)
		must(t, <-stored)
		must(t, <-closed)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.EraseOwn(s.User, s.UserID) }))
		wantCode(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.StillOpen(s.User) }), 401, "M_UNKNOWN_TOKEN")
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT type FROM account_data WHERE member = $1`, func(r *store.Row) error {
				t.Errorf("%q is kept of an account that is erased", r.Text(0))
				return nil
			}, s.User)
		}))
	})
}
