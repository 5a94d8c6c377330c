package accounts

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How many wrong guesses are looked at (threats A09). The counts are rows: the same for all nodes, and after a restart.
//
// Whoever is nobody in particular draws from what all strangers together have for an account, 20 an hour. When that is
// used up, somebody at a place where the owner has logged in lately draws from another 6: so nobody keeps the owner out,
// and an account has less than 30 guesses an hour looked at, from however many addresses. A session of the account, and a
// browser that was logged in to it, have guesses of their own, which no stranger can use up. What acts for the owner and was
// not opened in person has none: a session by an app password or of an application service (Session.byOwner).
//
// Sessions are opened and browsers logged in as often as somebody likes who can do it once, each with guesses of its own, so
// all of an account share guessesOfOwners as well, 30 an hour. One alone cannot keep the others out: it gets less back than
// they all do. When that is used up a session or browser draws from what strangers have, and at a place of the owner's from
// what is kept for that. All in all at most 60 guesses an hour are looked at for an account, whoever guesses from wherever.
// Right ones are given back. Second factors are bounded in the same way (tryFactor).
var (
	guessesOfAll    = store.Budget{Every: (5 * time.Minute).Milliseconds(), Burst: 8}
	guessesAtPlaces = store.Budget{Every: (20 * time.Minute).Milliseconds(), Burst: 3}
	guessesOfOwner  = store.Budget{Every: (5 * time.Minute).Milliseconds(), Burst: 8}
	guessesOfOwners = store.Budget{Every: (3 * time.Minute).Milliseconds(), Burst: 10}  // all sessions and browsers together
	guessesFrom     = store.Budget{Every: (20 * time.Second).Milliseconds(), Burst: 30} // one block of addresses, at whatever
	guessesAtTokens = store.Budget{Every: (3 * time.Minute).Milliseconds(), Burst: 10}  // of registration
	guessesAtLinks  = store.Budget{Every: time.Hour.Milliseconds(), Burst: 2}           // at one mail's; nobody types them
)

// reserve is what is said to have been looked at for a name, from one block of addresses, once the guesses of all are used
// up. Whether somebody really looks only the known place tells. It has the size of guessesAtPlaces, so that the answers
// tell nobody whether a name exists and whether its owner has been where they are (threats A08).
var reserve = limits.Budget{Every: time.Duration(guessesAtPlaces.Every) * time.Millisecond, Burst: int(guessesAtPlaces.Burst)}

// cost is a budget that a guess is taken out of.
type cost struct {
	name string
	of   store.Budget
}

func (c cost) key() [32]byte { return sha256.Sum256([]byte("guesses " + c.name)) }

// guesses count guesses in the database. What it has refused it remembers for as long, so that whoever goes on guessing
// costs nothing.
type guesses struct {
	on  bool
	now func() time.Time
	db  *store.DB

	mu      sync.Mutex
	refused map[[32]byte]int64 // until when, in ms
}

// maxRefused bounds how many refusals are remembered. Beyond it all are forgotten: the database still knows.
const maxRefused = 50_000

// take takes a guess out of each of several budgets before it is looked at. If one has nothing left none is touched, and
// the guess is refused (M_LIMIT_EXCEEDED).
func (g *guesses) take(ctx context.Context, costs ...cost) error {
	if !g.on {
		return nil
	}
	now := g.now().UnixMilli()
	for _, c := range costs {
		if wait := g.known(c, now); wait > 0 {
			return matrix.LimitExceeded(wait)
		}
	}
	return g.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.ForgetBudgets(now); err != nil {
			return err
		}
		for _, c := range costs {
			key := c.key()
			wait, err := tx.Spend(key[:], c.of, now)
			if err != nil {
				return err
			}
			if wait > 0 {
				g.remember(key, now, now+wait)
				return matrix.LimitExceeded(wait) // and nothing is spent
			}
		}
		return nil
	})
}

// known is how long a guess would be refused, in ms, as far as this node remembers.
func (g *guesses) known(c cost, now int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[c.key()] - now
}

func (g *guesses) remember(key [32]byte, now, until int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refused) >= maxRefused || g.refused == nil {
		g.refused = map[[32]byte]int64{}
	}
	if until > now {
		g.refused[key] = until
	}
}

// forgetRefusals has the database asked again what is left.
func (g *guesses) forgetRefusals() {
	g.mu.Lock()
	clear(g.refused)
	g.mu.Unlock()
}

// giveBackTime bounds how long somebody who was right waits until the guess is given back.
const giveBackTime = 5 * time.Second

// giveBack returns guesses that were right, or that were not looked at in the end.
func (g *guesses) giveBack(ctx context.Context, costs ...cost) error {
	if !g.on || len(costs) == 0 {
		return nil
	}
	g.mu.Lock()
	for _, c := range costs {
		delete(g.refused, c.key())
	}
	g.mu.Unlock()
	// Whoever was right may be gone already; that the guess was right is true all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTime)
	defer cancel()
	return g.db.Write(ctx, func(tx *store.Tx) error {
		for _, c := range costs {
			key := c.key()
			if err := tx.Refund(key[:], c.of); err != nil {
				return err
			}
		}
		return nil
	})
}

// refusedGuess says whether an error is that of take that nothing is left.
func refusedGuess(err error) bool {
	var known *matrix.Error
	return errors.As(err, &known) && known.Code == "M_LIMIT_EXCEEDED"
}

// looked counts guesses that were looked at since this process began, right ones too.
type looked struct{ passwords, factors, links atomic.Int64 }

// Looked is how many passwords, second factors and links in mails were looked at since this process began.
func (a *Accounts) Looked() (passwords, factors, links func() int64) {
	return a.looked.passwords.Load, a.looked.factors.Load, a.looked.links.Load
}
