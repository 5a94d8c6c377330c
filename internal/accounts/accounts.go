// Package accounts is the domain of our own users: accounts, passwords, devices and the tokens that speak for them,
// profiles, and user-interactive authentication.
//
// Tokens are 256 random bits, stored as SHA-256 only; passwords are argon2id; a token is checked in one place
// (Authenticate), which every road into the server uses.
package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"golang.org/x/time/rate"

	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/ldap"
	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Accounts is the domain's door, safe for concurrent use.
type Accounts struct {
	db         *store.DB
	server     matrix.ServerName
	config     *config.Config
	bus        cluster.Bus
	log        *slog.Logger
	now        func() time.Time
	closed     func(store.UserNID)
	provide    func(context.Context, matrix.UserID) (bool, error)
	exclusive  func(matrix.UserID) bool
	mail       Mailer        // nil: nobody sends mail here
	mailHint   chan struct{} // there is mail to send
	identities IdentityServers
	hashes     chan struct{} // one place for each password hash under way
	tidy       *time.Timer   // gives back the memory of hashes
	waiting    atomic.Int64  // for a place
	guesses    guesses
	limits     *limits.Counter
	looked     looked
	secrets    *config.Secrets    // nil: no authenticator apps
	relying    *webauthn.WebAuthn // nil: no passkeys

	provider  *provider       // nil: no single sign-on
	directory *ldap.Directory // nil: none is asked
	refusal   time.Duration   // until a wrong password is told, where a directory is asked

	failures *rate.Limiter // of logins, that are noted

	mu       sync.Mutex
	sessions map[[32]byte]cached // what Authenticate found lately
	endings  uint64              // counts ended: what was read before one must not be remembered after it
}

// Options are what Accounts needs from the process that it lives in.
type Options struct {
	DB     *store.DB
	Server matrix.ServerName
	Config *config.Config
	Bus    cluster.Bus
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil

	// Secrets encrypt what the database must not give away; with nil nobody can set up an authenticator app.
	Secrets *config.Secrets

	// Limits count what need not outlive the process; nil: for this one alone.
	Limits *limits.Counter

	// Closed is told of accounts that were closed, once that is durable; nil if nobody needs to know.
	Closed func(store.UserNID)

	// Outgoing is what the organization's provider of logins is asked with; nil if there is none.
	Outgoing *http.Client

	// Directory is the organization's; nil if there is none, or it is not asked.
	Directory *ldap.Directory

	// Mail hands mail to the mail server; nil where there is none, or somebody else does it.
	Mail Mailer

	// Identities publish addresses for users who want that; nil without federation.
	Identities IdentityServers

	// Provide asks whether somebody makes a user that does not exist, and waits; nil if nobody does.
	Provide func(context.Context, matrix.UserID) (bool, error)

	// Exclusive says whether a user ID is an application service's to have; nil if none is.
	Exclusive func(matrix.UserID) bool
}

// New prepares the domain over a database.
func New(o Options) *Accounts {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Limits == nil {
		o.Limits, _ = limits.New(limits.Options{Enabled: o.Config.RateLimits.Enabled, Clock: o.Clock}) // which only fails with Redis
	}
	if o.Closed == nil {
		o.Closed = func(store.UserNID) {}
	}
	if o.Provide == nil {
		o.Provide = func(context.Context, matrix.UserID) (bool, error) { return false, nil }
	}
	if o.Exclusive == nil {
		o.Exclusive = func(matrix.UserID) bool { return false }
	}
	return &Accounts{
		db: o.DB, server: o.Server, config: o.Config, bus: o.Bus, log: o.Log, now: o.Clock, closed: o.Closed, provide: o.Provide, exclusive: o.Exclusive,
		mail: o.Mail, mailHint: make(chan struct{}, 1), identities: o.Identities,
		hashes:   make(chan struct{}, min(hashPlaces, runtime.GOMAXPROCS(0))),
		tidy:     time.AfterFunc(tidyAfter, debug.FreeOSMemory),
		sessions: map[[32]byte]cached{},
		guesses:  guesses{on: o.Config.RateLimits.Enabled, now: o.Clock, db: o.DB},
		limits:   o.Limits,
		failures: newFailures(),
		secrets:  o.Secrets,
		relying:  relyingParty(o.Config),
		provider: newProvider(o.Config, o.Outgoing), directory: o.Directory, refusal: refusalTime,
	}
}

// Session is whom a request speaks for: a user on one of its devices.
type Session struct {
	User      store.UserNID
	UserID    matrix.UserID
	Device    int64
	DeviceID  matrix.DeviceID
	Admin     bool
	Locked    bool      // it may only log out
	Suspended bool      // it may read and leave
	Guest     bool      // it may do what guests may
	Since     time.Time // when the account was made
	Service   string    // ID of the application service that acts as the user; "" for the user itself
	Client    string    // the OAuth client that the session is of, "" if it is of none
	MustEnrol bool      // it may only set up the second factor that is overdue
	EnrolBy   time.Time // when that begins, zero if no second factor is missing
	Shown     []Evidence

	hash   [32]byte // of its token
	family int64    // the login that its tokens come from
}

// cached is a session that was read a moment ago.
type cached struct {
	session *Session
	until   time.Time
}

const (
	sessionTime  = 5 * time.Second // how long a session may be trusted without a look at the database (threats N04)
	sessionCache = 20_000
	seenEvery    = 5 * time.Minute // how exact "last seen" is
)

// Authenticate finds whom a token speaks for. An unknown one is M_UNKNOWN_TOKEN, that of a locked account M_USER_LOCKED.
func (a *Accounts) Authenticate(ctx context.Context, token, address string) (*Session, error) {
	return unlocked(a.AuthenticateLocked(ctx, token, address))
}

// AuthenticateLocked is Authenticate for what may be done with a locked account too: logging out.
func (a *Accounts) AuthenticateLocked(ctx context.Context, token, address string) (*Session, error) {
	return a.session(ctx, sha256.Sum256([]byte(token)), address)
}

func unlocked(s *Session, err error) (*Session, error) {
	if err == nil && s.Locked {
		return nil, matrix.UserLocked()
	}
	return s, err
}

// Again looks at a session anew that was found a while ago: it may have ended (M_UNKNOWN_TOKEN), its account may be
// locked (M_USER_LOCKED) or suspended by now. If the database cannot be asked it is taken to be as it was: the next
// request will ask again.
func (a *Accounts) Again(ctx context.Context, s *Session) (*Session, error) {
	if s.Service != "" {
		return a.actingAgain(ctx, s)
	}
	a.forget(s.hash) // another node may have ended it
	now, err := unlocked(a.again(ctx, s))
	var known *matrix.Error
	if err != nil && !errors.As(err, &known) {
		return s, nil
	}
	return now, err
}

// again finds a session by the token that it began with, or by one that its login has been renewed with since.
func (a *Accounts) again(ctx context.Context, s *Session) (*Session, error) {
	now, err := a.session(ctx, s.hash, "")
	var known *matrix.Error
	if !errors.As(err, &known) || known.Code != "M_UNKNOWN_TOKEN" || s.family == 0 {
		return now, err
	}
	var owner *store.TokenOwner
	failed := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		owner, err = tx.FamilyOwner(s.Device, s.family)
		return err
	})
	if failed != nil {
		return nil, failed
	}
	if owner == nil || owner.Deactivated || a.over(owner) {
		return nil, err
	}
	return a.sessionOf(owner), nil
}

// session finds the session of a token by its hash.
func (a *Accounts) session(ctx context.Context, hash [32]byte, address string) (*Session, error) {
	now := a.now()
	a.mu.Lock()
	hit, ok := a.sessions[hash]
	endings := a.endings
	a.mu.Unlock()
	if ok && now.Before(hit.until) {
		return hit.session, nil
	}
	var owner *store.TokenOwner
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		owner, err = tx.TokenOwner(hash[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	if owner == nil || owner.Deactivated || a.over(owner) {
		a.forget(hash)
		return nil, matrix.UnknownToken(owner != nil && !owner.Deactivated)
	}
	if owner.Token.Fresh {
		if err := a.settle(ctx, owner.Token); err != nil {
			return nil, err
		}
	}
	a.beginGrace(ctx, owner)
	s, until := a.sessionOf(owner), now.Add(sessionTime)
	if end := time.UnixMilli(owner.Token.Expires); owner.Token.Expires != 0 && end.Before(until) {
		until = end
	}
	a.remember(hash, cached{s, until}, endings)
	if address != "" && now.Sub(time.UnixMilli(owner.Device.Seen)) > seenEvery {
		a.touch(ctx, owner, now, address)
	}
	return s, nil
}

// over says whether a token has come to its end by itself.
func (a *Accounts) over(o *store.TokenOwner) bool {
	return o.Token.Expires != 0 && a.now().UnixMilli() >= o.Token.Expires
}

func (a *Accounts) sessionOf(o *store.TokenOwner) *Session {
	s := &Session{
		User: o.User, UserID: o.ID, Device: o.Device.NID, DeviceID: o.Device.ID, Client: o.Device.Client,
		Admin: o.Admin, Locked: o.Locked, Suspended: o.Suspended, Guest: o.Guest, Since: time.UnixMilli(o.Created),
		Shown: proofOf(o.Device.Shown).Shown, hash: [32]byte(o.Token.Hash), family: o.Token.Family,
	}
	if o.SecondFactor == 0 && o.FactorDue != 0 && !o.Guest && a.wantsFactor(o.Admin) {
		s.EnrolBy = time.UnixMilli(o.FactorDue)
		s.MustEnrol = !a.now().Before(s.EnrolBy)
	}
	return s
}

// beginGrace starts the time that somebody has to set up a second factor whom the server's rule asks for one and who was
// logged in before it did. That it fails is no reason to refuse the request: the next will try again.
func (a *Accounts) beginGrace(ctx context.Context, o *store.TokenOwner) {
	if o.SecondFactor != 0 || o.FactorDue != 0 || o.Guest || !a.wantsFactor(o.Admin) {
		return
	}
	due := a.now().Add(a.grace()).UnixMilli()
	err := a.db.Write(ctx, func(tx *store.Tx) error { return tx.SetFactorDue(o.User, due) })
	if err != nil && ctx.Err() == nil {
		a.log.Warn("noting by when a second factor is due failed", "err", err)
	}
}

func (a *Accounts) remember(hash [32]byte, c cached, endings uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endings != endings {
		return
	}
	if len(a.sessions) >= sessionCache {
		clear(a.sessions) // each comes back with one read
	}
	a.sessions[hash] = c
}

func (a *Accounts) forget(hash [32]byte) {
	a.mu.Lock()
	delete(a.sessions, hash)
	a.mu.Unlock()
}

// touch notes when and where a device was last heard of. That it fails is no reason to refuse the request.
func (a *Accounts) touch(ctx context.Context, o *store.TokenOwner, now time.Time, address string) {
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(o.User)
		if err != nil || account == nil || account.Deactivated { // meanwhile: where the user was is forgotten
			return err
		}
		if err := tx.TouchDevice(o.Device.NID, now.UnixMilli(), address); err != nil {
			return err
		}
		_, _, err = a.seePlace(tx, o.User, address)
		return err
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("noting when a device was seen failed", "err", err)
	}
}

// ended makes the end of sessions known: this node forgets what it remembers, and every long-lived connection of the
// user looks again whether its session still stands.
func (a *Accounts) ended(user store.UserNID) {
	a.endedHere(user)
	a.bus.Publish(cluster.Sessions, int64(user))
}

// Heard is for what another node has made known of a user's sessions (cluster.Sessions), or with cluster.Lost for anything
// that it may have: this node looks anew at what it remembers of them.
func (a *Accounts) Heard(user store.UserNID) {
	if int64(user) != cluster.Lost {
		a.endedHere(user)
		return
	}
	a.mu.Lock()
	a.endings++
	clear(a.sessions)
	a.mu.Unlock()
}

// endedHere has this node look anew at what it remembers of a user's sessions.
func (a *Accounts) endedHere(user store.UserNID) {
	a.mu.Lock()
	a.endings++
	for hash, c := range a.sessions {
		if c.session.User == user {
			delete(a.sessions, hash)
		}
	}
	a.mu.Unlock()
}

// newName makes an ID from random letters and digits, easy to read out.
func newName(n int) string {
	const letters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	random := make([]byte, n)
	rand.Read(random)
	for i, b := range random {
		random[i] = letters[int(b)%len(letters)]
	}
	return string(random)
}
