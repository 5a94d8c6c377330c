package accounts

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"conclave/internal/limits"
	"conclave/internal/store"
)

// Caller is who makes a request, as far as guesses are counted by it. It comes with the request's context.
type Caller struct {
	Block string // the part of the network address that one caller controls, "" if nobody knows
	Mark  string // a secret that the browser keeps (NewMark), "" for none
}

type callerKey struct{}

// WithCaller is a context of a request that somebody makes.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller) // nobody, if the request comes from this process
	return c
}

type ownerKey struct{}

// withOwner is a context in which the owner of a session confirms a request of it.
func withOwner(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, ownerKey{}, s)
}

// NewMark makes the secret by which a browser is known again in which somebody has logged in. It opens nothing: it only
// gives whoever has it guesses of their own.
func NewMark() string { return randomText(MarkBytes) }

// MarkBytes is how many random bytes a mark has; it is written in base64, as URLs have it.
const MarkBytes = 24

// placeOf is what a place is kept as.
func placeOf(kind, text string) []byte {
	sum := sha256.Sum256([]byte(kind + "\x00" + text))
	return sum[:]
}

// lent are the kinds of evidence of whoever acts for the owner of an account: a client that was given a password of its
// own, an application service. They need not have, and must not learn by guessing, what the owner knows.
var lent = []Evidence{ByAppPassword, ByService}

// byOwner says whether a session is one that the owner has opened in person.
func (s *Session) byOwner() bool {
	return s.Service == "" && s.Device > 0 && !slices.ContainsFunc(s.Shown, func(e Evidence) bool { return slices.Contains(lent, e) })
}

// notePlaces notes, in the transaction that opens a session by a proof, where its owner is: nobody else opens one, except
// who acts for the owner, whose place is none of the owner's.
func (a *Accounts) notePlaces(tx *store.Tx, user store.UserNID, d NewDevice, p Proof) error {
	if slices.ContainsFunc(p.Shown, func(e Evidence) bool { return slices.Contains(lent, e) }) {
		return nil
	}
	now := a.now().UnixMilli()
	if d.Address != "" {
		if err := tx.NotePlace(user, placeOf("block", limits.Block(d.Address)), now); err != nil {
			return err
		}
	}
	if d.Mark == "" {
		return nil
	}
	return tx.NotePlace(user, placeOf("mark", d.Mark), now)
}

// standing is how somebody who guesses stands to an account.
type standing struct {
	own   string // what is the owner's alone: a session of the account, or a browser that was logged in to it; "" for none
	place bool   // at a place where the owner was lately
}

// standingOf reads it. For nobody's account (nil) it costs as much.
func (a *Accounts) standingOf(ctx context.Context, tx *store.Tx, account *store.Account) (s standing, err error) {
	var user store.UserNID
	if account != nil {
		user = account.User
	}
	c, now := callerOf(ctx), a.now().UnixMilli()
	if c.Mark != "" {
		place := placeOf("mark", c.Mark)
		known, err := tx.KnowsPlace(user, place, now)
		if err != nil {
			return s, err
		}
		if known {
			s.own = fmt.Sprintf("mark %x", place)
		}
	}
	if owner, _ := ctx.Value(ownerKey{}).(*Session); owner != nil && owner.User == user && owner.byOwner() {
		s.own = fmt.Sprintf("session %d", owner.Device)
	}
	if c.Block != "" {
		s.place, err = tx.KnowsPlace(user, placeOf("block", c.Block), now)
	}
	return s, err
}

// ofOwners is what all sessions and browsers of an account have together, whatever they have alone.
func ofOwners(what string, account *store.Account) cost {
	return cost{what + " by owners of " + account.ID.Localpart(), guessesOfOwners}
}
