package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/config"
	"conclave/internal/ldap"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
	slapd "conclave/internal/testserver/ldap"
	"conclave/internal/testserver/proof"
)

const directoryPassword = "a password of the directory"

// withDirectory lets a world ask a directory.
func (w *world) withDirectory(d *slapd.Directory, change func(*config.LDAP)) {
	w.t.Helper()
	conf := d.Config()
	change(&conf)
	dialer := netguard.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)
	directory, err := ldap.New(conf, dialer.DialContext, d.CA.Pool())
	must(w.t, err)
	w.Accounts.directory, w.config.LDAP, w.refusal = directory, conf, 0
}

func asIs(*config.LDAP) {}

// eachDirectory runs a test on each engine, with a directory of its own.
func eachDirectory(t *testing.T, test func(t *testing.T, w *world, d *slapd.Directory)) {
	t.Helper()
	eachFactor(t, func(t *testing.T, w *world) { test(t, w, slapd.Start(t)) })
}

// look makes the next look at everybody of the directory.
func (w *world) look() error {
	w.t.Helper()
	now := w.now().UnixMilli()
	must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error { return tx.AddJob(store.JobPeople, "", now) }))
	for {
		more, err := w.lookAtPeople(w.t.Context())
		if err != nil || !more {
			return err
		}
	}
}

func (w *world) ends(l *Login) bool {
	_, err := w.Authenticate(w.t.Context(), l.Token, "")
	return err != nil
}

func TestSignInByTheDirectory(t *testing.T) {
	proof.Of(t, "A04", "A08", "A10", "ID-04")
	eachDirectory(t, func(t *testing.T, w *world, d *slapd.Directory) {
		w.withDirectory(d, func(c *config.LDAP) { c.MailAttribute = "mail" })
		ann, bob, local := "Ann.Bee", "bob", "local"
		d.Add(ann, directoryPassword)
		d.Add(bob, directoryPassword)
		d.Add(local, directoryPassword)
		w.register(local)

		// The first sign-in makes the account, and the session says how it was opened.
		first, err := w.login(ann, directoryPassword)
		must(t, err)
		s := w.session(first)
		if s.UserID != matrix.UserID("@"+strings.ToLower(ann)+":us.test") || !slices.Equal(s.Shown, []Evidence{ByDirectory}) || s.Admin {
			t.Errorf("signed in as %+v", s)
		}
		profile, err := w.Profile(t.Context(), s.User)
		if err != nil || string(profile[DisplayName]) != `"The `+ann+`"` {
			t.Errorf("called %v, %v", profile, err)
		}
		addresses, err := w.Threepids(t.Context(), s.User)
		if err != nil || len(addresses) != 1 {
			t.Errorf("has the addresses %v, %v", addresses, err)
		}
		for _, typed := range []string{strings.ToLower(ann), string(s.UserID), strings.ToUpper(ann), addresses[0].Address} {
			again, err := w.login(typed, directoryPassword)
			if err != nil || again.UserID != s.UserID {
				t.Errorf("%q signs in as %v, %v", typed, again, err)
			}
		}

		// Wrong ones, with an account here and without, and names that would be filters.
		for _, typed := range []string{ann, bob, "nobody", "*", "b*", bob + ")(uid=*", "@" + bob + ":elsewhere.test"} {
			for _, wrong := range []string{"", "\x00", "wrong", directoryPassword + " "} {
				_, err := w.login(typed, wrong)
				wantCode(t, err, 403, "M_FORBIDDEN")
				if fmt.Sprint(err) != fmt.Sprint(errWrongPassword()) {
					t.Errorf("%q with %q is told apart: %v", typed, wrong, err)
				}
				w.pass(time.Hour)
			}
		}
		if found, err := w.find(t.Context(), bob); err != nil || found != nil {
			t.Errorf("a wrong password has made %v, %v", found, err)
		}

		// A local account of the same name stays who it is: with its own password alone.
		_, err = w.login(local, directoryPassword)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.login(local, password)
		must(t, err)

		// Renamed in the directory: the account is the same, by the old name and by the new one.
		other := "ann.married"
		d.Rename(ann, other)
		for _, typed := range []string{strings.ToLower(ann), other} {
			again, err := w.login(typed, directoryPassword)
			if err != nil || again.UserID != s.UserID {
				t.Errorf("renamed, %q signs in as %v, %v", typed, again, err)
			}
		}
		// Somebody new who gets her old name does not get her account, and no other by that name.
		d.Add(ann, "another password")
		_, err = w.login(ann, "another password")
		wantCode(t, err, 403, "M_FORBIDDEN")

		// The second factor is asked for as of everybody.
		app, _ := w.enrol(w.session(first))
		_, err = w.login(other, directoryPassword)
		wantCode(t, err, 403, "M_FORBIDDEN")
		begun, err := w.SignInPassword(t.Context(), Identifier{User: other}, directoryPassword)
		must(t, err)
		_, err = w.loginSignIn(begun.Secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		w.pass(time.Minute)
		_, err = w.SignInFactor(t.Context(), begun.Secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		_, err = w.loginSignIn(begun.Secret)
		must(t, err)
	})
}

func TestConfirmationsAndPasswordsOfTheDirectory(t *testing.T) {
	proof.Of(t, "A03", "A04")
	eachDirectory(t, func(t *testing.T, w *world, d *slapd.Directory) {
		w.withDirectory(d, asIs)
		ann, bob := "ann", "bob"
		d.Add(ann, directoryPassword)
		d.Add(bob, "a password of bob")
		login, err := w.login(ann, directoryPassword)
		must(t, err)
		s := w.session(login)
		ask := w.byOwner(s, "deleteDevice", "A")
		if len(ask.Flows) != 1 || !slices.Equal(ask.Flows[0].Stages, []string{StagePassword}) {
			t.Errorf("confirmed by %v", ask.Flows)
		}
		c := challenged(t, confirm(t, w, ask))
		for _, wrong := range [][2]string{{ann, ""}, {ann, "wrong"}, {ann, "\x00"}, {bob, "a password of bob"}, {"", "a password of bob"}} {
			ask.Auth = passwordAnswer(c.Session, wrong[0], wrong[1])
			if no := challenged(t, confirm(t, w, ask)); no.Code != "M_FORBIDDEN" || len(no.Completed) != 0 {
				t.Errorf("%q got %+v", wrong, no)
			}
		}
		if found, err := w.find(t.Context(), bob); err != nil || found != nil {
			t.Errorf("a confirmation has made the account %v, %v", found, err)
		}
		ask.Auth = passwordAnswer(c.Session, ann, directoryPassword)
		must(t, confirm(t, w, ask))

		// The password is not ours to change, and nothing of the other sessions ends by the attempt.
		for what, err := range map[string]error{
			"change": w.ChangePassword(t.Context(), s, password, "", true), "reset": w.ResetPassword(t.Context(), "operator", s.User, password),
		} {
			wantCode(t, err, 403, "M_FORBIDDEN")
			if !strings.Contains(fmt.Sprint(err), "your organization") && !strings.Contains(fmt.Sprint(err), "one of your organization") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if yes, err := w.HasPassword(t.Context(), s.User); err != nil || yes {
			t.Errorf("has a password: %v, %v", yes, err)
		}
		local := w.session(w.register("local"))
		if yes, err := w.HasPassword(t.Context(), local.User); err != nil || !yes {
			t.Errorf("a local account has a password: %v, %v", yes, err)
		}
		must(t, w.ChangePassword(t.Context(), local, "another password", "", false))
		w.session(login)
	})
}

func TestWhoIsGoneFromTheDirectory(t *testing.T) {
	proof.Of(t, "A06")
	eachDirectory(t, func(t *testing.T, w *world, d *slapd.Directory) {
		w.withDirectory(d, func(c *config.LDAP) { c.AdminGroup = slapd.AdminGroup })
		var people []string
		sessions := map[string]*Login{}
		for _, n := range []string{"ann", "bob", "carol", "dan", "eve"} {
			people = append(people, n)
			d.Add(n, directoryPassword)
		}
		ann, bob := people[0], people[1]
		d.SetAdmins(bob)
		for _, n := range people {
			var err error
			sessions[n], err = w.login(n, directoryPassword)
			must(t, err)
		}
		if !w.session(sessions[bob]).Admin || w.session(sessions[ann]).Admin {
			t.Error("the group does not make administrators")
		}
		d.SetAdmins()
		must(t, w.look())
		if w.session(sessions[bob]).Admin {
			t.Error("whoever has left the group still is an administrator")
		}
		nid, err := w.db.NextNID(store.KindPusher)
		must(t, err)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.SetPusher(store.Pusher{NID: nid, User: w.session(sessions[ann]).User, Kind: "email", AppID: "m.email", Key: "ann@example.org", Data: "{}"}, true)
		}))
		_, app, err := w.NewAppPassword(t.Context(), w.session(sessions[ann]), "mail")
		must(t, err)

		// Disabled: signed out at the next look, not before; nothing opens until the directory has them again.
		d.Set(ann, "employeeType", "disabled")
		_, err = w.login(ann, directoryPassword)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.login(ann, app) // although it is a password of ours
		wantCode(t, err, 403, "M_FORBIDDEN")
		must(t, w.look()) // which is not due yet
		w.session(sessions[ann])
		w.pass(16 * time.Minute)
		must(t, w.look())
		if !w.ends(sessions[ann]) || w.ends(sessions[people[2]]) {
			t.Error("the look has ended the sessions of others")
		}
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			p, err := tx.Pusher(nid)
			if p != nil {
				t.Error("mail still tells of what waits unread")
			}
			return err
		}))
		account, err := w.find(t.Context(), ann)
		must(t, err)
		_, err = w.Accounts.signIn(t.Context(), account, Proof{Shown: []Evidence{ByPasskey}})
		must(t, err)
		_, err = w.Accounts.login(t.Context(), account, NewDevice{}, Proof{Shown: []Evidence{ByPasskey}}, func(*store.Tx, *Login) error { return nil })
		wantCode(t, err, 403, "M_FORBIDDEN") // the gate itself
		d.Set(ann, "employeeType")
		_, err = w.login(ann, directoryPassword)
		must(t, err)
		_, err = w.login(ann, app)
		must(t, err)

		// Removed for good, another one.
		d.Remove(bob)
		w.pass(16 * time.Minute)
		must(t, w.look())
		if !w.ends(sessions[bob]) {
			t.Error("whoever was removed is still signed in")
		}

		// A directory that shows nobody at all, or none that can be reached, signs nobody out.
		for _, n := range people[2:] {
			d.Set(n, "employeeType", "disabled")
		}
		d.Set(ann, "employeeType", "disabled")
		d.Add("frank", directoryPassword)
		frank, err := w.login("frank", directoryPassword)
		must(t, err)
		d.Set("frank", "employeeType", "disabled")
		w.pass(16 * time.Minute)
		if err := w.look(); err == nil || w.ends(frank) || w.ends(sessions[people[2]]) {
			t.Errorf("a directory that shows nobody signs people out: %v", err)
		}
		d.Set("frank", "employeeType")
		d.Stop()
		w.pass(16 * time.Minute)
		if err := w.look(); err == nil || w.ends(frank) || w.ends(sessions[people[2]]) {
			t.Errorf("a directory out of reach signs people out: %v", err)
		}
		_, err = w.login("frank", directoryPassword)
		wantCode(t, err, 502, "M_UNKNOWN")
		w.register("local") // those of this server are none of its business
		_, err = w.login("local", password)
		must(t, err)
		d.Resume()
		w.pass(16 * time.Minute)
		must(t, w.look())
		if w.ends(frank) || !w.ends(sessions[people[2]]) {
			t.Error("the look after that goes wrong")
		}
	})
}

// TestClosedAccountsAreNotAskedAbout has a whole page of closed and erased accounts stand before somebody who has left.
func TestClosedAccountsAreNotAskedAbout(t *testing.T) {
	proof.Of(t, "A06")
	eachDirectory(t, func(t *testing.T, w *world, d *slapd.Directory) {
		w.withDirectory(d, asIs)
		d.Add("ann", directoryPassword)
		ann, err := w.login("ann", directoryPassword)
		must(t, err)
		// IDs of the directory are texts that begin with a letter or digit: these come before hers.
		for n := range peopleAtOnce + soManyAtOnce {
			name := fmt.Sprintf("former%02d", n)
			who := identity{issuer: store.Directory, subject: "!" + name, username: name}
			account, err := w.external(t.Context(), who, true)
			must(t, err)
			must(t, w.Close(t.Context(), Closing{User: account.User, Erase: n%2 == 0}))
		}
		must(t, w.look())
		w.session(ann)
		d.Remove("ann")
		w.pass(16 * time.Minute)
		must(t, w.look())
		if !w.ends(ann) {
			t.Error("whoever has left is signed in still, because closed accounts come before")
		}
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.DirectoryIDs("", 1000, func(id store.DirectoryID) {
				if id.Gone == 0 {
					t.Errorf("the directory is asked about %s, whose account is closed", id.Subject)
				}
			})
		}))
	})
}

func TestGuessesAtTheDirectory(t *testing.T) {
	proof.Of(t, "A09")
	eachDirectory(t, func(t *testing.T, w *world, d *slapd.Directory) {
		w.withDirectory(d, func(c *config.LDAP) { c.Create = false })
		ann := "ann"
		d.Add(ann, directoryPassword)
		_, err := w.login(ann, directoryPassword)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if !strings.Contains(err.Error(), "no account") {
			t.Errorf("without create: %v", err)
		}
		// Every spelling of her name has guesses of its own, which all are at one password.
		for i := range 20 {
			_, err := w.login(strings.Repeat(" ", i/5)+ann+"@example.org", fmt.Sprint("guess ", i))
			var no *matrix.Error
			if !errors.As(err, &no) || no.Code != "M_FORBIDDEN" && no.Code != "M_LIMIT_EXCEEDED" {
				t.Fatal(err)
			}
			_, _ = w.login(strings.ToUpper(ann), fmt.Sprint("guess ", i))
		}
		_, err = w.login(ann, directoryPassword)
		var no *matrix.Error
		if !errors.As(err, &no) || strings.Contains(no.Text, "no account") {
			t.Errorf("after too many guesses the right password is looked at: %v", err)
		}
		w.pass(time.Hour)
		_, err = w.login(ann, directoryPassword)
		if err == nil || !strings.Contains(err.Error(), "no account") {
			t.Errorf("an hour later: %v", err)
		}

		// One account for many who come at once.
		w.withDirectory(d, asIs)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if _, err := w.login(ann, directoryPassword); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()

		// A refusal takes its time, whoever does not exist.
		w.refusal = 300 * time.Millisecond
		for _, typed := range []string{ann, "nobody", "local"} {
			began := time.Now()
			_, err := w.LoginPassword(context.WithoutCancel(t.Context()), typed, "wrong", NewDevice{})
			wantCode(t, err, 403, "M_FORBIDDEN")
			if took := time.Since(began); took < w.refusal {
				t.Errorf("%s was refused after %v", typed, took)
			}
		}
	})
}
