package accounts

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"conclave/internal/ldap"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// People of the organization's directory (LDAP) have accounts without a password: the directory is asked. Whom it means by
// which account is a row (external_ids), so that a local account is never theirs because of its name, and a new name in
// the directory changes nothing here. The second factor is ours, and asked for as of everybody (open).

// refusalTime is how long after a guess it is told that a password is wrong where a directory is asked, which takes time
// for some names and not for others (threats A08). It is more than a hash and a directory in the house take.
const refusalTime = 500 * time.Millisecond

func errDirectory() *matrix.Error {
	return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "Your organization's directory cannot be reached, so that nobody knows whether the password is right. Try again later.")
}

func errGone() error {
	return matrix.Forbidden("Your organization's directory does not let you in any more. Ask your administrator.").With(&Refusal{Why: "directory_gone"})
}

// guessedAt is what guesses at a name are counted by. What can be no name of an account may be one of the directory.
func (a *Accounts) guessedAt(by Identifier, localpart string) string {
	if localpart != "" || a.directory == nil || len(by.User) > maxName {
		return localpart
	}
	return "typed " + strings.ToLower(strings.TrimSpace(by.User))
}

// wrongPassword tells that a password is wrong, in its time (evenOut).
func (a *Accounts) wrongPassword(ctx context.Context, began time.Time) error {
	if a.directory != nil {
		select {
		case <-time.After(a.refusal - time.Since(began)):
		case <-ctx.Done():
		}
	}
	evenOut(ctx, began)
	return errWrongPassword()
}

// directoryName is what somebody has typed as the directory may know it, "" if it can be none of its names.
func (a *Accounts) directoryName(by Identifier) string {
	if by.IsAddress() {
		return by.Address
	}
	name := strings.TrimSpace(by.User)
	if !strings.HasPrefix(name, "@") {
		return name
	}
	id, err := matrix.ParseUserID(name)
	if err != nil || id.Server() != a.server {
		return ""
	}
	return id.Localpart()
}

// asksDirectory says whether the directory is asked about a password that is not one of ours.
func (a *Accounts) asksDirectory(at *aim) bool {
	return a.directory != nil && (at.account == nil || at.link != nil && !at.account.Deactivated)
}

// askDirectory lets the directory look at a password; nil if it is wrong.
func (a *Accounts) askDirectory(ctx context.Context, by Identifier, at *aim, guess *passwordGuess, password string) (*entrant, error) {
	in := &entrant{account: at.account, how: ByDirectory}
	var failed error
	// Guesses by another name than the account's are counted for the person, too: each of their names and its spellings
	// would give as many again.
	may := func(p ldap.Person) (look bool) {
		if at.link == nil {
			if in.account, failed = a.accountOfPerson(ctx, &p); failed != nil || in.account != nil && in.account.Deactivated {
				return false
			}
			who := "directory " + p.ID
			if in.account != nil {
				who = "account " + in.account.ID.Localpart()
			}
			if look, failed = guess.try(ctx, cost{"password of " + who, guessesOfAll}); !look {
				return false
			}
		}
		a.looked.passwords.Add(1)
		return true
	}
	var err error
	if at.link != nil {
		in.person, err = a.directory.CheckID(ctx, at.link.Subject, password, may)
	} else {
		in.person, err = a.directory.Check(ctx, a.directoryName(by), password, may)
	}
	switch {
	case failed != nil:
		return nil, failed
	case errors.Is(err, ldap.ErrNobody), errors.Is(err, ldap.ErrPassword):
		return nil, nil
	case errors.Is(err, ldap.ErrAmbiguous):
		a.log.Warn("somebody cannot sign in: ldap.user_filter matches several entries for one name")
		return nil, nil
	case err != nil:
		a.log.Warn("the directory cannot be asked", "err", err)
		return nil, errDirectory().With(err)
	}
	return in, nil
}

// accountOfPerson finds the account of somebody of the directory, nil if they have none.
func (a *Accounts) accountOfPerson(ctx context.Context, p *ldap.Person) (account *store.Account, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		user, err := tx.ExternalUser(store.Directory, p.ID)
		if err != nil || user == 0 {
			account = nil
			return err
		}
		account, err = tx.AccountOf(user)
		return err
	})
	return account, err
}

// entered is checkPasswordBy for somebody who signs in: it makes the account of who comes from the directory for the first
// time, and brings it up to what the directory says of them.
func (a *Accounts) entered(ctx context.Context, began time.Time, by Identifier, password string) (*store.Account, Evidence, error) {
	in, err := a.checkPasswordSince(ctx, began, by, password)
	if err != nil || in.person == nil {
		if err != nil {
			return nil, "", err
		}
		return in.account, in.how, nil
	}
	p := in.person
	who := identity{issuer: store.Directory, subject: p.ID, username: p.Name, name: p.Display, mail: p.Mail, admin: p.Admin}
	account, err := a.external(ctx, who, a.directory.Creates())
	if err != nil {
		return nil, "", err
	}
	if err := a.db.Write(ctx, func(tx *store.Tx) error { return a.isInDirectory(tx, account.User, p) }); err != nil {
		return nil, "", err
	}
	account, err = a.accountOf(ctx, account.User)
	return account, in.how, err
}

// isInDirectory notes what the directory says of somebody whom it has.
func (a *Accounts) isInDirectory(tx *store.Tx, user store.UserNID, p *ldap.Person) error {
	account, err := tx.LockAccount(user)
	if err != nil || account == nil || account.Deactivated {
		return err
	}
	back, err := tx.SetDirectoryGone(user, 0)
	if err != nil {
		return err
	}
	if back {
		a.audit(tx, "directory.back", account.ID, "directory")
	}
	return a.setAdmin(tx, account, p.Admin)
}

// setAdmin gives or takes an administrator's rights, where the directory decides that.
func (a *Accounts) setAdmin(tx *store.Tx, account *store.Account, admin bool) error {
	if !a.directory.ManagesAdmins() || account.Admin == admin {
		return nil
	}
	a.audit(tx, map[bool]string{true: "admin.granted", false: "admin.taken"}[admin], account.ID, "directory")
	tx.AfterCommit(func() { a.ended(account.User) }) // sessions know whether they are an administrator's
	return tx.SetAdmin(account.User, admin)
}

// vouchedAddress gives a new account the address that the directory vouches for, if it is nobody's.
func (a *Accounts) vouchedAddress(tx *store.Tx, user store.UserNID, text string) error {
	folded, ok := foldAddress(mediumEmail, text)
	if !ok {
		return nil
	}
	now := a.now().UnixMilli()
	_, err := tx.AddThreepid(store.Threepid{Medium: mediumEmail, Address: folded, User: user, Lang: "en", Validated: now, Added: now})
	return err
}

// hasDirectory says whether the configuration names a directory, whether it is asked here or not.
func (a *Accounts) hasDirectory() bool { return len(a.config.LDAP.URLs) > 0 }

// leftDirectory says whether the directory was found to have a user no more. An error is the transaction's.
func (a *Accounts) leftDirectory(tx *store.Tx, user store.UserNID) bool {
	if !a.hasDirectory() {
		return false
	}
	link, err := tx.DirectoryID(user)
	return err == nil && link != nil && link.Gone != 0
}

// passwordIsHere refuses to set a password for somebody whose password is the directory's, or who signs in by the
// organization's provider alone: a password of ours would outlast what the organization has ended.
func (a *Accounts) passwordIsHere(tx *store.Tx, user store.UserNID) error {
	if a.hasDirectory() {
		link, err := tx.DirectoryID(user)
		if err == nil && link != nil {
			err = matrix.Forbidden("The password of this account is the one of your organization: change it where you change that.")
		}
		if err != nil {
			return err
		}
	}
	if a.provider == nil {
		return nil
	}
	if linked, err := tx.HasExternalID(a.provider.conf.Issuer, user); err != nil || !linked {
		return err
	}
	account, err := tx.AccountOf(user)
	if err == nil && account != nil && account.Password == "" {
		err = matrix.Forbidden("This account has no password here: you sign in to it by your organization.")
	}
	return err
}

// HasPassword says whether a user's password can be changed here.
func (a *Accounts) HasPassword(ctx context.Context, user store.UserNID) (yes bool, err error) {
	var no *matrix.Error
	err = a.db.Read(ctx, func(tx *store.Tx) error { return a.passwordIsHere(tx, user) })
	if errors.As(err, &no) {
		return false, nil
	}
	return err == nil, err
}

// stillThere refuses somebody of the directory who signs in by something of ours, such as a passkey, if the directory says
// that it has them no more. If it says nothing they are let in: the next look at everybody will tell.
func (a *Accounts) stillThere(ctx context.Context, user store.UserNID) error {
	if a.directory == nil {
		return nil
	}
	var link *store.DirectoryID
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		link, err = tx.DirectoryID(user)
		return err
	})
	if err != nil || link == nil {
		return err
	}
	there, err := a.directory.Present(ctx, []string{link.Subject})
	if err != nil {
		a.log.Warn("the directory cannot be asked", "err", err)
		return nil
	}
	if _, ok := there[link.Subject]; !ok {
		return errGone()
	}
	return nil
}

// The look at everybody of the directory: how many are asked about at once, how long the work at them may take, and when it
// is tried again after the directory could not be asked.
const (
	peopleAtOnce = 50
	peopleLease  = 3 * time.Minute
	peopleRetry  = time.Minute
	peopleSweep  = 20 * time.Second
)

// RunDirectory looks again and again whether the directory still has those who have accounts by it, until ctx ends. One
// node at a time does; each step is a row's.
func (a *Accounts) RunDirectory(ctx context.Context) error {
	if a.directory == nil {
		return nil
	}
	if err := a.db.Write(ctx, func(tx *store.Tx) error { return tx.AddJob(store.JobPeople, "", a.now().UnixMilli()) }); err != nil {
		return err
	}
	ticker := time.NewTicker(min(peopleSweep, a.directory.Every()))
	defer ticker.Stop()
	for {
		for {
			more, err := a.lookAtPeople(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("asking the directory whether it still has everybody failed; nobody is signed out", "err", err)
			}
			if err != nil || !more {
				break
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAtPeople looks at the next people if it is time to, and says whether there are more.
func (a *Accounts) lookAtPeople(ctx context.Context) (more bool, err error) {
	job, people, err := a.nextPeople(ctx)
	if err != nil || job == nil {
		return false, err
	}
	work, cancel := context.WithTimeout(ctx, peopleLease/2)
	defer cancel()
	there, failed := a.thereAre(work, people)
	more = failed == nil && len(people) == peopleAtOnce
	due := a.now().Add(a.directory.Every())
	switch {
	case failed != nil:
		due = a.now().Add(min(peopleRetry, a.directory.Every()))
	case more:
		job.Cursor, due = people[len(people)-1].Subject, a.now()
	default:
		job.Cursor = ""
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		mine, err := tx.SaveJob(*job, due.UnixMilli(), 0)
		if err != nil || !mine || failed != nil {
			return err
		}
		for _, id := range people {
			if p, ok := there[id.Subject]; ok {
				err = a.isInDirectory(tx, id.User, &p)
			} else {
				err = a.isGone(tx, id.User)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return more && err == nil, cmp.Or(err, failed)
}

// nextPeople takes the job if it is due, and reads whom it comes to; nil if it is not.
func (a *Accounts) nextPeople(ctx context.Context) (job *store.Job, people []store.DirectoryID, err error) {
	now, due := a.now().UnixMilli(), false
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		due, err = tx.JobDue(store.JobPeople, now)
		return err
	})
	if err != nil || !due {
		return nil, nil, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		people = nil
		if job, err = tx.LeaseJob(store.JobPeople, now, peopleLease.Milliseconds()); err != nil || job == nil {
			return err
		}
		return tx.DirectoryIDs(job.Cursor, peopleAtOnce, func(id store.DirectoryID) { people = append(people, id) })
	})
	return job, people, err
}

// soManyAtOnce do not leave an organization between two looks at it: a directory that has none of them is taken to be a
// wrong one, or not to show them to us.
const soManyAtOnce = 5

// thereAre are those of some people whom the directory has, by their IDs.
func (a *Accounts) thereAre(ctx context.Context, people []store.DirectoryID) (map[string]ldap.Person, error) {
	if len(people) == 0 {
		return nil, nil
	}
	ids, standing := make([]string, len(people)), 0
	for i, id := range people {
		ids[i] = id.Subject
		if id.Gone == 0 {
			standing++
		}
	}
	there, err := a.directory.Present(ctx, ids)
	if err == nil && len(there) == 0 && standing >= soManyAtOnce {
		err = errors.New("it shows none of those who have accounts: look at ldap.base_dn, ldap.user_filter and what ldap.bind_dn may read")
	}
	return there, err
}

// isGone ends all that somebody has opened here whom the directory has no more. The account stays: they may come back.
func (a *Accounts) isGone(tx *store.Tx, user store.UserNID) error {
	account, err := tx.LockAccount(user)
	if err != nil || account == nil || account.Deactivated {
		return err
	}
	left, err := tx.SetDirectoryGone(user, a.now().UnixMilli())
	if err != nil || !left {
		return err
	}
	a.audit(tx, "directory.gone", account.ID, "directory")
	if err := a.setAdmin(tx, account, false); err != nil {
		return err
	}
	if err := tx.DropSignIns(user); err != nil {
		return err
	}
	if err := tx.DeletePushersTo(user, ""); err != nil { // those to devices end with them
		return err
	}
	return a.deleteDevices(tx, user, nil)
}
