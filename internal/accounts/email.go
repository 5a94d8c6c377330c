package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave/internal/mail"
	"conclave/internal/mail/address"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// mediumEmail is the one kind of address that accounts have here.
const mediumEmail = "email"

// Purpose is what a confirmed address may be used for: nothing else (threats A07).
type Purpose string

// The purposes.
const (
	ForRegistration Purpose = "register"
	ForReset        Purpose = "reset" // of a password
	ForAdding       Purpose = "add"   // to an account
)

// Where the links in mails lead, below public_url: to confirm an address, and to get no more mails of what waits unread.
const (
	ConfirmPath     = "/_matrix/client/unstable/im.conclave/email/submit_token"
	UnsubscribePath = "/_matrix/client/unstable/im.conclave/email/unsubscribe"
)

// Bounds of confirming an address.
const (
	linkTime  = 15 * time.Minute // how long a link is good, and what it confirms after that
	maxSecret = 255              // bytes of a client_secret
	maxLink   = 2048             // bytes of a next_link
	maxMails  = 10_000           // in the queue, beyond which strangers have to wait
	linkMark  = "."              // between the session's ID and the secret of a link's token
)

// How many mails strangers can have us send: to one address, from one block of network addresses, for one account. The
// counts are rows, the same for all nodes (threats A09).
var (
	mailsTo   = store.Budget{Every: (10 * time.Minute).Milliseconds(), Burst: 5}
	mailsFrom = store.Budget{Every: (30 * time.Second).Milliseconds(), Burst: 30}
	mailsBy   = store.Budget{Every: (5 * time.Minute).Milliseconds(), Burst: 10}
)

// AddressRequest is somebody's wish to show that an e-mail address is theirs (client-server API, the requestToken
// endpoints).
type AddressRequest struct {
	Purpose  Purpose
	Session  *Session // for whose account; nil if the client did not say
	Address  string   // as it was typed
	Secret   string   // client_secret
	Attempt  int64    // send_attempt
	NextLink string   // where to go once it is confirmed
	Accept   string   // Accept-Language of the request
	From     string   // the client's network address
	Block    string   // what of it one caller controls, which the limits count
}

// Mails reports whether this server sends mail.
func (a *Accounts) Mails() bool { return a.config.Email.SMTPURL.Reveal() != "" }

// errNoMail is the answer where there is no mail server.
func errNoMail() error {
	return matrix.Errorf(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "This server sends no mail, so that e-mail addresses cannot be confirmed here. Ask its administrator for what you need one for.")
}

// RequestAddress begins to confirm an address and returns the session's ID. It does the same whatever is known of the
// address: whether it is an account's decides later what the mail says, which only the owner of the address reads. The
// specification allows to tell the client (M_THREEPID_IN_USE, M_THREEPID_NOT_FOUND) and recommends the mail, because
// otherwise everybody could find out who has an account here (threats A08).
func (a *Accounts) RequestAddress(ctx context.Context, q AddressRequest) (sid string, err error) {
	if !a.Mails() {
		return "", errNoMail()
	}
	to, ok := address.Mailbox(q.Address)
	if !ok {
		return "", matrix.InvalidParam("This is not an e-mail address that mail can be sent to.")
	}
	if !validSecret(q.Secret) {
		return "", matrix.InvalidParam("client_secret has 1 to %d of the characters 0-9 a-z A-Z . = _ -", maxSecret)
	}
	if q.Attempt < 0 {
		return "", matrix.InvalidParam("send_attempt is not negative.")
	}
	if q.Purpose == ForRegistration {
		if err := a.mayRegisterWith(to); err != nil {
			return "", err
		}
	}
	next, err := a.nextLink(q.NextLink)
	if err != nil {
		return "", err
	}
	secret := sha256.Sum256([]byte(q.Secret))
	v := store.Validation{
		ID: randomText(24), Purpose: string(q.Purpose), Address: to, Secret: secret[:], Attempt: q.Attempt, NextLink: next,
		Expires: a.now().Add(linkTime).UnixMilli(),
	}
	if q.Session != nil && q.Purpose == ForAdding {
		v.User = q.Session.User
	}
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		var again bool
		if sid, again, err = tx.AskValidation(v, a.now().UnixMilli()); err != nil || !again {
			return err
		}
		if err := a.spendMail(ctx, tx, q, to); err != nil {
			return err
		}
		return a.addMail(tx, store.Mail{
			Address: to, Kind: string(q.Purpose), Lang: mail.Language(q.Accept), Validation: sid,
		}, mailFacts{From: q.From})
	})
	return sid, err
}

// spendMail counts a mail that somebody has us send, or refuses it (M_LIMIT_EXCEEDED). In a browser in which the owner of the
// address has logged in it is counted apart: strangers, who ask for mails to it, do not keep the owner from a new password.
func (a *Accounts) spendMail(ctx context.Context, tx *store.Tx, q AddressRequest, to string) error {
	n, err := tx.CountMails(maxMails)
	if err != nil {
		return err
	}
	if n >= maxMails {
		return matrix.LimitExceeded(time.Minute.Milliseconds())
	}
	if !a.config.RateLimits.Enabled {
		return nil
	}
	now := a.now().UnixMilli()
	if err := tx.ForgetBudgets(now); err != nil {
		return err
	}
	owner, err := tx.AccountByThreepid(mediumEmail, to)
	if err != nil {
		return err
	}
	asks, err := a.standingOf(ctx, tx, owner)
	if err != nil {
		return err
	}
	type count struct {
		what string
		of   store.Budget
	}
	counts := []count{{"mail to " + to + " " + asks.own, mailsTo}, {"mail from " + q.Block, mailsFrom}}
	if q.Session != nil {
		counts = append(counts, count{"mail by " + string(q.Session.UserID), mailsBy})
	}
	for _, c := range counts {
		key := sha256.Sum256([]byte(c.what))
		wait, err := tx.Spend(key[:], c.of, now)
		if err != nil {
			return err
		}
		if wait > 0 {
			return matrix.LimitExceeded(wait)
		}
	}
	return nil
}

// mayRegisterWith refuses (M_THREEPID_DENIED) addresses that are of none of the domains allowed.
func (a *Accounts) mayRegisterWith(folded string) error {
	allowed := a.config.Registration.AllowedEmailDomains
	if len(allowed) > 0 && !slices.ContainsFunc(allowed, func(domain string) bool { return isIn(folded, domain) }) {
		return matrix.Errorf(http.StatusForbidden, "M_THREEPID_DENIED", "Addresses of this domain cannot register here. Use the address that your organization has given you.")
	}
	return nil
}

// isIn says whether an address is of a domain, in whichever form both are written.
func isIn(folded, domain string) bool {
	want, ok := address.Mailbox("a@" + domain)
	return ok && address.Domain(address.Route(want)) == address.Domain(address.Route(folded))
}

// nextLink checks where somebody wants to be led once an address is confirmed. Only pages of this server's own are
// followed. Others are not, and not refused either: clients on other hosts name a page of theirs, and work without
// (threats A13).
func (a *Accounts) nextLink(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if len(text) > maxLink || !plain(text) || strings.Contains(text, `\`) || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return "", matrix.InvalidParam("next_link is not the address of a page.")
	}
	own, err := url.Parse(a.publicURL())
	if err != nil || u.Scheme != own.Scheme || !strings.EqualFold(u.Host, own.Host) {
		return "", nil
	}
	return u.String(), nil
}

// validSecret checks a client_secret.
func validSecret(text string) bool {
	return len(text) > 0 && len(text) <= maxSecret && !strings.ContainsFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || strings.ContainsRune(".=_-", r))
	})
}

// randomText makes a text that nobody can guess from n random bytes.
func randomText(n int) string {
	random := make([]byte, n)
	rand.Read(random)
	return base64.RawURLEncoding.EncodeToString(random)
}

// AddressClaim is what a link is about, for whoever holds it.
type AddressClaim struct {
	Purpose  Purpose
	Address  string
	UserID   matrix.UserID // whose account, "" if there is none yet or nobody said
	NextLink string        // a page of this server's own, "" for none
}

// Confirmable finds what a link would confirm, and changes nothing: programs that look through mails follow links. nil says
// that the link is of no use, or not any more.
func (a *Accounts) Confirmable(ctx context.Context, token string) (c *AddressClaim, err error) {
	err = a.tryLink(ctx, token, func(tx *store.Tx, hash []byte) (right bool, err error) {
		c = nil
		v, err := tx.ValidationByToken(hash, a.now().UnixMilli())
		if err != nil || v == nil {
			return false, err
		}
		c, err = claimOf(tx, v)
		return true, err
	})
	return c, err
}

// tryLink lets use look at the token of a link, unless there were too many wrong ones of the same validation
// (M_LIMIT_EXCEEDED). A token names the validation, by an ID that nobody guesses either: so wrong ones can be counted for
// what they are at, nobody spends the guesses of anybody else, and what names nothing that waits is not looked at.
func (a *Accounts) tryLink(ctx context.Context, token string, use func(tx *store.Tx, hash []byte) (right bool, err error)) error {
	sid, _, ok := strings.Cut(token, linkMark)
	if !ok || len(token) > maxSecret || !validSID(sid) {
		return nil
	}
	count := cost{"link of " + sid, guessesAtLinks}
	key, hash, now := count.key(), sha256.Sum256([]byte(token)), a.now().UnixMilli()
	if wait := a.guesses.known(count, now); wait > 0 {
		return matrix.LimitExceeded(wait)
	}
	waits := func(tx *store.Tx) (bool, error) {
		v, err := tx.Validation(sid, now)
		return v != nil && v.Confirmed == 0, err
	}
	var there bool
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		there, err = waits(tx)
		return err
	})
	if err != nil || !there {
		return err
	}
	var refusal error // what was counted has to be committed, so it is not the transaction's error
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		if err := tx.ForgetBudgets(now); err != nil {
			return err
		}
		if wait, err := tx.Spend(key[:], count.of, now); err != nil || wait > 0 {
			a.guesses.remember(key, now, now+wait)
			refusal = matrix.LimitExceeded(wait)
			return err
		}
		// Of many who come at once each sees what the one before it has done: the count is a row that they wait for.
		right, err := waits(tx)
		if err == nil && right {
			a.looked.links.Add(1)
			right, err = use(tx, hash[:])
		} else {
			right = true // it was used in the meantime, and not guessed at
		}
		if err == nil && right {
			err = tx.Refund(key[:], count.of)
		}
		return err
	})
	if err == nil {
		err = refusal
	}
	return err
}

// ConfirmAddress uses a link, once: of several who come at the same time one succeeds. nil says that the link is of no use,
// or not any more.
func (a *Accounts) ConfirmAddress(ctx context.Context, token string) (c *AddressClaim, err error) {
	err = a.tryLink(ctx, token, func(tx *store.Tx, hash []byte) (right bool, err error) {
		c = nil
		v, err := tx.Confirm(hash, a.now().UnixMilli(), a.now().Add(linkTime).UnixMilli())
		if err != nil || v == nil {
			return false, err
		}
		c, err = claimOf(tx, v)
		return true, err
	})
	return c, err
}

func claimOf(tx *store.Tx, v *store.Validation) (*AddressClaim, error) {
	c := &AddressClaim{Purpose: Purpose(v.Purpose), Address: v.Address, NextLink: v.NextLink}
	user := max(v.User, v.Owner) // one of them is 0
	if user == 0 {
		return c, nil
	}
	account, err := tx.AccountOf(user)
	if account != nil {
		c.UserID = account.ID
	}
	return c, err
}

// SubmitToken is ConfirmAddress for a client that was given the token to pass on (Identity Service API, "POST
// /validate/email/submitToken"): the three have to belong together.
func (a *Accounts) SubmitToken(ctx context.Context, sid, secret, token string) error {
	if !validSID(sid) {
		return errNoValidation()
	}
	secretHash, now := sha256.Sum256([]byte(secret)), a.now()
	err := a.db.Read(ctx, func(tx *store.Tx) error {
		v, err := tx.Validation(sid, now.UnixMilli())
		if err == nil && (v == nil || [32]byte(v.Secret) != secretHash) {
			err = errNoValidation()
		}
		return err
	})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(token, sid+linkMark) {
		return errWrongToken()
	}
	done := false
	err = a.tryLink(ctx, token, func(tx *store.Tx, hash []byte) (bool, error) {
		v, err := tx.Confirm(hash, now.UnixMilli(), now.Add(linkTime).UnixMilli())
		done = v != nil
		return done, err
	})
	if err == nil && !done {
		err = errWrongToken()
	}
	return err
}

func errNoValidation() error {
	return matrix.Errorf(http.StatusBadRequest, "M_SESSION_EXPIRED", "There is no such validation session, or not any more. Ask for a new mail.")
}

// validSID says whether a text can be the ID of a session, whoever says it.
func validSID(sid string) bool { return len(sid) <= maxSecret && plain(sid) }

func errWrongToken() error {
	return matrix.Errorf(http.StatusBadRequest, "M_TOKEN_INCORRECT", "The token is not right, or was used already. Ask for a new mail.")
}

// AddressProof names a confirmed address: whoever has it was told the session's ID and chose its secret.
type AddressProof struct {
	SID    string
	secret [32]byte // SHA-256 of it
}

func errNotConfirmed() error {
	return matrix.Errorf(http.StatusBadRequest, "M_THREEPID_AUTH_FAILED", "The address is not confirmed for this: open the link in the mail first.")
}

// takeAddress uses a confirmed address up, in the transaction of what follows from it (threats A11). It fails
// (M_THREEPID_AUTH_FAILED) if it is not confirmed, was for something else or somebody else, or was used already.
func (a *Accounts) takeAddress(tx *store.Tx, p AddressProof, purpose Purpose, user store.UserNID) (*store.Validation, error) {
	if !validSID(p.SID) {
		return nil, errNotConfirmed()
	}
	v, err := tx.TakeValidation(p.SID, string(purpose), p.secret[:], user, a.now().UnixMilli())
	if err == nil && v == nil {
		err = errNotConfirmed()
	}
	return v, err
}

// confirmedAddress looks whether takeAddress would succeed, and returns the address.
func (a *Accounts) confirmedAddress(ctx context.Context, p AddressProof, purpose Purpose) (folded string, err error) {
	if !validSID(p.SID) {
		return "", errNotConfirmed()
	}
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		v, err := tx.Validation(p.SID, a.now().UnixMilli())
		if err != nil {
			return err
		}
		if v == nil || v.Purpose != string(purpose) || [32]byte(v.Secret) != p.secret || v.Confirmed == 0 {
			return errNotConfirmed()
		}
		folded = v.Address
		return nil
	})
	return folded, err
}

// ResetByEmail sets a new password for whoever has lost the old one and has shown that the account's address is theirs. With
// logout all sessions and app passwords end. A second factor stays: whoever signs in with the new password needs it as before (threats A10).
func (a *Accounts) ResetByEmail(ctx context.Context, p AddressProof, password, from string, logout bool) error {
	phc, err := a.newHash(ctx, password)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		v, err := a.takeAddress(tx, p, ForReset, 0)
		if err != nil {
			return err
		}
		account, err := tx.LockAccount(v.Owner)
		if err != nil {
			return err
		}
		// The address may have gone to somebody else since the mail was written.
		has, err := tx.Threepid(mediumEmail, v.Address)
		switch {
		case err != nil:
			return err
		case account == nil || account.Deactivated || has == nil || has.User != account.User:
			return errNotConfirmed()
		case account.Locked:
			return matrix.UserLocked()
		}
		if err := a.passwordIsHere(tx, account.User); err != nil {
			return err
		}
		if set, err := tx.SetPassword(account.User, phc); err != nil || !set {
			return err
		}
		a.audit(tx, "password.reset", account.ID, "")
		if err := a.tellOwner(tx, account.User, mail.Password, "", from); err != nil {
			return err
		}
		if err := tx.DropSignIns(account.User); err != nil || !logout {
			return err
		}
		if err := tx.DropAppPasswords(account.User); err != nil {
			return err
		}
		if err := tx.ForgetPlaces(account.User); err != nil {
			return err
		}
		return a.deleteDevices(tx, account.User, nil)
	})
}

// mailFacts are what a row of the queue keeps of mail.Facts. No secret is among them, but for what ends a pusher: whoever
// reads the database can make that too.
type mailFacts struct {
	User matrix.UserID `json:"user,omitempty"`
	What string        `json:"what,omitempty"`
	From string        `json:"from,omitempty"`
	At   int64         `json:"at"` // ms

	Waiting *mail.Waiting `json:"waiting,omitempty"` // of a digest, which package push writes
}

// addMail puts a mail into the queue, which has it from the commit on.
func (a *Accounts) addMail(tx *store.Tx, m store.Mail, facts mailFacts) error {
	now := a.now().UnixMilli()
	facts.At = cmp.Or(facts.At, now)
	text, err := matrix.Encode(facts)
	if err != nil {
		return err
	}
	m.ID, m.Facts, m.Created = randomText(18), string(text), now
	tx.AfterCommit(a.wakeMails)
	return tx.AddMail(m)
}

// tellOwner tells the owner of an account, at all its addresses, what has happened to it, in the transaction in which it
// does: one of the kinds of mail from mail.Password on. what names the address, session or factor that it is about, from
// the network address that it came from; both may be "".
func (a *Accounts) tellOwner(tx *store.Tx, user store.UserNID, kind mail.Kind, what, from string) error {
	if !a.Mails() {
		return nil
	}
	account, err := tx.AccountOf(user)
	if err != nil || account == nil {
		return err
	}
	var list []store.Threepid
	if err := tx.Threepids(user, func(t store.Threepid) { list = append(list, t) }); err != nil {
		return err
	}
	for _, t := range list {
		if t.Medium != mediumEmail || kind == mail.Added && t.Address == what { // which has just been confirmed
			continue
		}
		err := a.addMail(tx, store.Mail{Address: t.Address, Kind: string(kind), Lang: t.Lang}, mailFacts{User: account.ID, What: what, From: from})
		if err != nil {
			return err
		}
	}
	return nil
}

// linkMinutes is linkTime as people read it.
var linkMinutes = int(math.Round(linkTime.Minutes()))
