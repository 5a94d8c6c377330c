package accounts

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
)

// StageFactor is the stage of user-interactive authentication in which an account's second factor is shown.
const StageFactor = "im.conclave.second_factor"

// foundFactor is the name under which the stage leaves what kind was shown.
const foundFactor = "second_factor"

// ByOwner are the flows by which the owner of a session confirms a request, and their parameters: the password, and where
// the account has a second factor that too.
func (a *Accounts) ByOwner(ctx context.Context, s *Session) ([]Flow, map[string]any, error) {
	account, err := a.accountOf(ctx, s.User)
	if err != nil {
		return nil, nil, err
	}
	if account.SecondFactor == 0 {
		return Flows([]string{StagePassword}), nil, nil
	}
	f, err := a.Factors(ctx, s.User)
	if err != nil {
		return nil, nil, err
	}
	return Flows([]string{StagePassword, StageFactor}), map[string]any{StageFactor: map[string]any{"types": f.kinds()}}, nil
}

// stageFactor checks a second factor of the session's own user. It is asked for after the password, so that nobody else
// can spend the owner's attempts.
func stageFactor(ctx context.Context, a *Accounts, c *confirmation) error {
	if c.Session == nil {
		return matrix.Forbidden("Nobody is logged in.")
	}
	var answer struct {
		Factor     string          `json:"factor"`
		Code       string          `json:"code"`
		Credential json.RawMessage `json:"credential"`
		Challenge  string          `json:"challenge"`
	}
	if err := c.answer(&answer); err != nil {
		return err
	}
	shown := FactorAnswer{Type: answer.Factor, Code: answer.Code, Passkey: answer.Credential, Challenge: answer.Challenge}
	if err := a.CheckFactor(withOwner(ctx, c.Session), c.user, shown); err != nil {
		return err
	}
	return c.set(foundFactor, answer.Factor)
}
