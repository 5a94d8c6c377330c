package accounts

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// passwordGuess is a guess at a password, from before it is known whose account is meant.
type passwordGuess struct {
	*Accounts
	name   string // or address, that it is at
	caller Caller
	dry    bool   // nothing is left of it for strangers, which must not be seen at once
	paid   []cost // to be given back if it is right
}

func (g *passwordGuess) from() cost { return cost{"from " + g.caller.Block, guessesFrom} }
func (g *passwordGuess) all() cost  { return cost{"password of " + g.name, guessesOfAll} }

// begin refuses (M_LIMIT_EXCEEDED) without a look into the database whoever was refused before.
func (g *passwordGuess) begin(ctx context.Context) error {
	if owner, _ := ctx.Value(ownerKey{}).(*Session); !g.guesses.on || owner != nil || g.caller.Mark != "" {
		return nil // who may have guesses of their own
	}
	now := g.now().UnixMilli()
	if wait := g.guesses.known(g.from(), now); wait > 0 {
		return matrix.LimitExceeded(wait)
	}
	if wait := g.guesses.known(g.all(), now); wait > 0 {
		return g.runDry(ctx, wait)
	}
	return nil
}

// runDry refuses a guess of which nothing is left for anybody, after wait ms more, unless the caller can still be made to
// believe that it was looked at: the answers must not tell somebody at a place of the owner's that there is one (threats
// A08).
func (g *passwordGuess) runDry(ctx context.Context, wait int64) error {
	if left := g.limits.Spend(ctx, reserve, "password of "+g.name+" from "+g.caller.Block); left > 0 {
		return matrix.LimitExceeded(min(wait, left.Milliseconds()+1))
	}
	g.dry = true
	return nil
}

// allow takes the guess out of what whoever guesses has left, or refuses it (M_LIMIT_EXCEEDED). look is false for one that
// is taken to be wrong without a look. For a name that nobody has the answer is the same, and it costs as much.
func (g *passwordGuess) allow(ctx context.Context, account *store.Account, s standing) (look bool, err error) {
	if !g.guesses.on {
		return true, nil
	}
	if s.own != "" {
		owners := ofOwners("password", account)
		err := g.pay(ctx, cost{"password by " + s.own, guessesOfOwner}, owners)
		if !refusedGuess(err) || g.guesses.known(owners, g.now().UnixMilli()) <= 0 {
			return err == nil, err
		}
	}
	who := "nobody " + g.name
	if account != nil {
		who = "account " + account.ID.Localpart()
	}
	if !g.dry {
		err := g.pay(ctx, g.from(), g.all())
		if err == nil {
			// A name and the addresses of its account are counted apart, which tells nothing, and together.
			if look, err = g.try(ctx, cost{"password of " + who, guessesOfAll}); look || err != nil {
				return look, err
			}
		} else if err := g.afterRefusal(ctx, err); err != nil {
			return false, err
		}
	}
	places := cost{"password of " + who + " at places", guessesAtPlaces}
	if !s.place {
		places.name += " that nobody knows, " + g.caller.Block
	}
	look, err = g.try(ctx, places)
	return look && s.place, err
}

// afterRefusal goes on after a refusal by the count of all, and by no other.
func (g *passwordGuess) afterRefusal(ctx context.Context, err error) error {
	now := g.now().UnixMilli()
	wait := g.guesses.known(g.all(), now)
	if !refusedGuess(err) || wait <= 0 || g.guesses.known(g.from(), now) > 0 {
		return err
	}
	return g.runDry(ctx, wait)
}

func (g *passwordGuess) pay(ctx context.Context, costs ...cost) error {
	err := g.guesses.take(ctx, costs...)
	if err == nil {
		g.paid = append(g.paid, costs...)
	}
	return err
}

// try is pay for a budget of which nothing is told: false says that nothing is left.
func (g *passwordGuess) try(ctx context.Context, c cost) (bool, error) {
	err := g.pay(ctx, c)
	if refusedGuess(err) {
		return false, nil
	}
	return err == nil, err
}

// forgive gives the guess back.
func (g *passwordGuess) forgive(ctx context.Context) {
	if err := g.guesses.giveBack(ctx, g.paid...); err != nil {
		g.log.Warn("giving back a guess failed: somebody has fewer left", "err", err)
	}
	g.paid = nil
}
