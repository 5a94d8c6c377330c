package accounts

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// StageFactor is the stage of user-interactive authentication in which an account's second factor is shown.
const StageFactor = "im.conclave.second_factor"

// foundFactor is the name under which the stage leaves what kind was shown.
const foundFactor = "second_factor"

// ByOwner are the flows by which the owner of a session confirms a request, and their parameters: the password, or the
// organization's sign-in for who came by it, and where the account has a second factor that too.
func (a *Accounts) ByOwner(ctx context.Context, s *Session) ([]Flow, map[string]any, error) {
	account, err := a.accountOf(ctx, s.User)
	if err != nil {
		return nil, nil, err
	}
	flows, err := a.firstStages(ctx, account)
	if err != nil || account.SecondFactor == 0 {
		return flows, nil, err
	}
	f, err := a.Factors(ctx, s.User)
	if err != nil {
		return nil, nil, err
	}
	for i := range flows {
		flows[i].Stages = append(flows[i].Stages, StageFactor)
	}
	return flows, map[string]any{StageFactor: map[string]any{"types": f.kinds()}}, nil
}

// firstStages are the stages by any of which an account's owner can begin to confirm something, a flow for each.
func (a *Accounts) firstStages(ctx context.Context, account *store.Account) ([]Flow, error) {
	linked, err := a.linked(ctx, account.User)
	switch {
	case err != nil:
		return nil, err
	case !linked:
		return Flows([]string{StagePassword}), nil
	case account.Password == "":
		return Flows([]string{StageSSO}), nil
	}
	return Flows([]string{StagePassword}, []string{StageSSO}), nil
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
