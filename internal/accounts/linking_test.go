package accounts

import (
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// TestWhoIsLinkedSignsIn: an administrator says whom the provider means by an account, once, and takes it back.
func TestWhoIsLinkedSignsIn(t *testing.T) {
	proof.Of(t, "A13")
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, false, "ann", "bob")
		ann, bob := w.session(w.register("ann")), w.session(w.register("bob"))
		finish := func(name string) error {
			browser, state, code := w.comeBack(t, p, name)
			_, err := w.FinishSSO(t.Context(), browser, state, code, "")
			return err
		}
		wantCode(t, finish("ann"), 403, "M_FORBIDDEN")
		must(t, w.Link(t.Context(), "@admin:us.test", ann.User, "id-of-ann"))
		wantCode(t, w.Link(t.Context(), "@admin:us.test", bob.User, "id-of-ann"), 403, "M_FORBIDDEN")
		wantCode(t, w.Link(t.Context(), "@admin:us.test", ann.User, "id-of-bob"), 403, "M_FORBIDDEN")
		for _, bad := range []string{"", "a\x00b", string(make([]byte, maxClaim+1))} {
			wantCode(t, w.Link(t.Context(), "@admin:us.test", bob.User, bad), 400, "M_INVALID_PARAM")
		}
		must(t, finish("ann"))
		wantCode(t, finish("bob"), 403, "M_FORBIDDEN")

		// Ann had a password before, which stays hers, and ends nothing.
		must(t, w.ChangePassword(t.Context(), ann, "another password", "", false))

		// Nor does an app password outlive the link, that somebody may have made who was let in by mistake.
		_, app, err := w.NewAppPassword(t.Context(), ann, "mail")
		must(t, err)
		must(t, w.Unlink(t.Context(), "@admin:us.test", ann.User))
		_, err = w.login("ann", app)
		wantCode(t, err, 403, "M_FORBIDDEN")
		wantCode(t, w.Unlink(t.Context(), "@admin:us.test", ann.User), 404, "M_NOT_FOUND")
		wantCode(t, finish("ann"), 403, "M_FORBIDDEN")
		if got := w.devices(ann.User); len(got) != 0 {
			t.Errorf("still signed in: %v", got)
		}
		_, err = w.login("ann", "another password")
		must(t, err)

		must(t, w.Deactivate(t.Context(), bob.User))
		wantCode(t, w.Link(t.Context(), "@admin:us.test", bob.User, "id-of-bob"), 404, "M_NOT_FOUND")
		w.provider = nil
		wantCode(t, w.Link(t.Context(), "@admin:us.test", ann.User, "id-of-ann"), 404, "M_NOT_FOUND")
		wantCode(t, w.Unlink(t.Context(), "@admin:us.test", ann.User), 404, "M_NOT_FOUND")
	})
}

// TestNoPasswordOutlastsTheProvider: who signs in by the provider alone gets no password that would open the account when the
// provider opens it no more, neither by mail nor by a confirmation at the provider.
func TestNoPasswordOutlastsTheProvider(t *testing.T) {
	proof.Of(t, "A10", "A13")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		carol := w.externalSession(w.withProvider(t, true, "carol"), "carol")
		must(t, w.AddThreepid(t.Context(), carol, w.prove(ForAdding, carol, "carol@firma.test"), "en", ""))
		for what, set := range map[string]func() error{
			"by a confirmation":   func() error { return w.ChangePassword(t.Context(), carol, password, "", false) },
			"by an administrator": func() error { return w.ResetPassword(t.Context(), "operator", carol.User, password) },
			"by mail": func() error {
				return w.ResetByEmail(t.Context(), w.prove(ForReset, nil, "carol@firma.test"), password, "", false)
			},
		} {
			if err := set(); err == nil {
				t.Errorf("a password is set %s", what)
			} else {
				wantCode(t, err, 403, "M_FORBIDDEN")
			}
		}
		if has, err := w.HasPassword(t.Context(), carol.User); err != nil || has {
			t.Errorf("has a password: %v, %v", has, err)
		}
		// Where the administrator takes the account from the provider, it is like any other.
		must(t, w.Unlink(t.Context(), "@admin:us.test", carol.User))
		must(t, w.ResetPassword(t.Context(), "operator", carol.User, password))
		_, err := w.login("carol", password)
		must(t, err)
	})
}

// TestTokensOfOtherClients: an ID token that another client of the provider was given opens nothing, though it names us.
func TestTokensOfOtherClients(t *testing.T) {
	for _, c := range []struct {
		audience []string
		azp      string
		good     bool
	}{
		{[]string{"us"}, "", true},
		{[]string{"us"}, "us", true},
		{[]string{"us"}, "other", false},
		{[]string{"us", "other"}, "us", true},
		{[]string{"us", "other"}, "other", false},
		{[]string{"us", "other"}, "", false},
	} {
		if err := checkParty(c.audience, c.azp, "us"); (err == nil) != c.good {
			t.Errorf("%v %q: %v", c.audience, c.azp, err)
		}
	}
}

// devices are those that a user has.
func (w *world) devices(user store.UserNID) (found []store.Device) {
	w.t.Helper()
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		found = nil
		return tx.Devices(user, func(d store.Device) { found = append(found, d) })
	}))
	return found
}
