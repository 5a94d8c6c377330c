// Package push is what people are told of events they have not asked for yet: the rules by which an event notifies
// somebody (rules.go), the pushers that somebody has set up, and the deliverer that tells their gateways
// (client-server API, "Push Notifications"; push gateway API).
//
// What an event counts as is decided in package rooms as the event comes in; here is what users change and what goes out.
package push

import (
	"context"
	"errors"
	"log/slog"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// Rules are the push rules of our users. Its methods are safe for concurrent use.
type Rules struct {
	db      *store.DB
	log     *slog.Logger
	changed func(context.Context, store.UserNID) error
	wake    func()
}

// NewRules makes Rules. changed hears of every change of a user's rules once it is committed, before whoever made it is
// answered; wake says that there is something new in the stream.
func NewRules(db *store.DB, log *slog.Logger, changed func(context.Context, store.UserNID) error, wake func()) *Rules {
	return &Rules{db: db, log: log, changed: changed, wake: wake}
}

// Of reads a user's rules, the predefined ones among them.
func (r *Rules) Of(ctx context.Context, user store.UserNID, id matrix.UserID) (rules *pushrules.Ruleset, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		rules, err = rulesIn(tx, user, id)
		return err
	})
	return rules, err
}

func rulesIn(tx *store.Tx, user store.UserNID, id matrix.UserID) (*pushrules.Ruleset, error) {
	content, err := tx.AccountData(user, 0, store.PushRulesType)
	if err != nil {
		return nil, err
	}
	return pushrules.FromAccountData([]byte(content), string(id)), nil
}

// Change lets a function change a user's rules. Changes of one user wait for one another. An event that is on its way while the
// rules change is judged by the old or the new ones; what comes after Change has returned, by the new ones.
func (r *Rules) Change(ctx context.Context, user store.UserNID, id matrix.UserID, change func(*pushrules.Ruleset) error) error {
	err := r.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.StillOpen(user); err != nil {
			return err
		}
		rules, err := rulesIn(tx, user, id)
		if err != nil {
			return err
		}
		if err := change(rules); err != nil {
			return refusal(err)
		}
		return putRules(tx, user, id, rules)
	})
	if err != nil {
		return err
	}
	if err := r.changed(context.WithoutCancel(ctx), user); err != nil {
		r.log.Error("reading whom a change of push rules concerns failed", "err", err)
	}
	r.wake()
	return nil
}

func putRules(tx *store.Tx, user store.UserNID, id matrix.UserID, rules *pushrules.Ruleset) error {
	content, err := rules.AccountData()
	if err != nil {
		return err
	}
	program := pushrules.Compile(rules, string(id))
	personal := program.Fingerprint() != pushrules.Compile(pushrules.Defaults(string(id)), string(id)).Fingerprint()
	return tx.PutPushRules(user, string(content), personal, pushrules.ModesOf(rules, program))
}

// refusal is what a client is told of a change that cannot be made.
func refusal(err error) error {
	switch {
	case errors.Is(err, pushrules.ErrNotFound):
		return matrix.NotFound("There is no such push rule.")
	case errors.Is(err, pushrules.ErrAnchor):
		return matrix.Errorf(400, "M_UNKNOWN", "The rule given as before or after is not there, or is a predefined one.").With(err)
	case errors.Is(err, pushrules.ErrTooMany):
		return matrix.TooLarge("There are %s.", err)
	case errors.Is(err, pushrules.ErrInvalid):
		return matrix.InvalidParam("This is an %s.", err)
	}
	return err
}
