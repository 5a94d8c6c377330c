package accounts

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The stages of user-interactive authentication that only a registration has.
const (
	StageToken = "m.login.registration_token"
	StageTerms = "m.login.terms"
	StageWork  = "im.conclave.login.pow"
)

// OperationRegister is the operation of a confirmation that makes an account.
const OperationRegister = "register"

// paramApproval is among the parameters of a registration where an administrator has to approve each account, who reads why
// it is wanted: it is no stage, but clients can ask for the reason.
const paramApproval = "im.conclave.approval"

// What these stages leave with a session of user-interactive authentication.
const (
	foundToken = "registration_token"
	foundTerms = "terms" // what was shown, and then agreed to
	foundWork  = "pow"   // difficulty and seed, separated by a space
)

// RegistrationFlows are the ways in which people can make an account by themselves (client-server API, "Account
// registration"); none where they cannot.
func (a *Accounts) RegistrationFlows() []Flow {
	r := a.config.Registration
	var stages []string
	switch r.Mode {
	case config.RegistrationToken:
		stages = append(stages, StageToken)
	case config.RegistrationApproval, config.RegistrationOpen:
		if r.Challenge == config.ChallengeWork {
			stages = append(stages, StageWork)
		}
	default:
		return nil
	}
	if len(r.Policies()) > 0 {
		stages = append(stages, StageTerms)
	}
	withEmail := slices.Concat(stages, []string{StageEmail})
	if r.NeedsEmail() {
		return Flows(withEmail)
	}
	if len(stages) == 0 || a.Mails() { // else the first flow is passed before anybody can go on with the second ("Dummy Auth")
		stages = append(stages, StageDummy)
	}
	if a.Mails() {
		return Flows(stages, withEmail)
	}
	return Flows(stages)
}

// has says whether any flow has a stage.
func (c *confirmation) has(stage string) bool {
	return slices.ContainsFunc(c.Flows, func(f Flow) bool { return slices.Contains(f.Stages, stage) })
}

// prepare sees to it that a session has what its stages ask about: a puzzle of its own, and the documents that are shown.
func (a *Accounts) prepare(ctx context.Context, c *confirmation) error {
	found, err := c.found()
	if err != nil {
		return err
	}
	if c.has(StageTerms) && !slices.Contains(c.row.Completed, StageTerms) {
		if err := c.set(foundTerms, a.terms()); err != nil {
			return err
		}
	}
	if c.has(StageWork) && found[foundWork] == "" {
		bits, err := a.difficulty(ctx)
		if err != nil {
			return err
		}
		return c.set(foundWork, strconv.Itoa(bits)+" "+newSeed())
	}
	return nil
}

// params are the parameters of the stages.
func (a *Accounts) params(c *confirmation) (map[string]any, error) {
	params := map[string]any{}
	maps.Copy(params, c.parameters(a))
	if c.has(StageTerms) {
		params[StageTerms] = map[string]any{"policies": a.policies()}
	}
	if c.has(StageWork) {
		w, err := c.work()
		if err != nil {
			return nil, err
		}
		params[StageWork] = w
	}
	if c.Operation == OperationRegister && a.config.Registration.Mode == config.RegistrationApproval {
		params[paramApproval] = map[string]any{"max_reason_bytes": maxReason}
	}
	return params, nil
}

// policies are the documents as the specification has them: by name, with their version and, by language, title and address.
func (a *Accounts) policies() map[string]map[string]any {
	policies := map[string]map[string]any{}
	for _, p := range a.config.Registration.Policies() {
		if policies[p.ID] == nil {
			policies[p.ID] = map[string]any{"version": p.Version}
		}
		policies[p.ID][p.Lang] = map[string]string{"name": p.Name, "url": p.URL}
	}
	return policies
}

// terms are the documents and versions that somebody has to agree to now.
func (a *Accounts) terms() string {
	var list []store.AcceptedTerms
	for _, p := range a.config.Registration.Policies() {
		if t := (store.AcceptedTerms{Policy: p.ID, Version: p.Version}); !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return store.TermsText(list)
}

// stageTerms takes the word that all documents are agreed to, if they are those that were shown.
func stageTerms(_ context.Context, a *Accounts, c *confirmation) error {
	found, err := c.found()
	if err == nil && found[foundTerms] != a.terms() {
		err = matrix.Forbidden("These are not the documents that you were shown. Look at them first.")
	}
	return err
}

// With adds to a registration what the stages before it have found out.
func (q Registration) With(c *Confirmed) Registration {
	q.Token = c.Found[foundToken]
	if slices.Contains(c.Stages, StageTerms) {
		q.Terms = store.ParseTerms(c.Found[foundTerms])
	}
	return q
}

// CheckChosenName refuses names that people may not choose for themselves: too short ones (M_INVALID_USERNAME) and reserved
// ones (M_EXCLUSIVE). Administrators and application services may.
func (a *Accounts) CheckChosenName(name string) error {
	rules := a.config.Registration.Username
	switch name = strings.ToLower(name); {
	case len(name) < rules.MinLength:
		return matrix.Errorf(400, "M_INVALID_USERNAME", "A name has at least %d characters on this server.", rules.MinLength)
	case rules.IsReserved(name), name == a.config.ServerNotices.Localpart:
		return matrix.Exclusive("That name is reserved. Choose another one.")
	}
	return nil
}
