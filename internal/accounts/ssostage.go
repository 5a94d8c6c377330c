package accounts

import (
	"context"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// StageSSO is the stage of user-interactive authentication in which the organization's provider lets somebody through once
// more (client-server API, "SSO during User-Interactive Authentication"). It is for accounts that the provider means
// somebody by.
const StageSSO = "m.login.sso"

// ssoSkew is how far the provider's clock may be behind ours.
const ssoSkew = time.Minute

// linked says whether the organization's provider means a user by somebody.
func (a *Accounts) linked(ctx context.Context, user store.UserNID) (yes bool, err error) {
	if a.provider == nil {
		return false, nil
	}
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		yes, err = tx.HasExternalID(a.provider.conf.Issuer, user)
		return err
	})
	return yes, err
}

// BeginSSOStage sends the browser in which a session's page is to the provider (BeginSSO). The provider is to ask the
// person anew: that somebody once signed in there in this browser confirms nothing.
func (a *Accounts) BeginSSOStage(ctx context.Context, session string) (location, browser string, err error) {
	c, err := a.resumed(ctx, session, StageSSO)
	switch {
	case err != nil:
		return "", "", err
	case a.provider == nil || c.Session == nil:
		return "", "", errNoSession()
	case !c.wants(StageSSO):
		return "", "", errStageNotDue()
	}
	return a.leave(ctx, store.SSORequest{Stage: session}, askAnew()...)
}

// askAnew has the provider ask somebody whom it knows already (OpenID Connect Core, section 3.1.2.1). Whether it did is
// for askedSince to say: the browser could leave this out.
func askAnew() []oauth2.AuthCodeOption {
	return []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0")}
}

// askedSince refuses somebody whom the provider has not asked since they were sent to it (M_FORBIDDEN).
func askedSince(row *store.SSORequest, who identity) error {
	began := time.UnixMilli(row.Expires).Add(-ssoTime)
	switch {
	case who.shown.IsZero():
		return matrix.Forbidden("Your organization's sign-in does not say when you signed in, so that it confirms nothing. Tell your administrator: the ID token needs auth_time.").With(&Refusal{Why: "stage_undated"})
	case who.shown.Before(began.Add(-ssoSkew)):
		return matrix.Forbidden("Your organization's sign-in has not asked you again. Sign out there, and begin again in your app.").With(&Refusal{Why: "stage_not_anew"})
	}
	return nil
}

// finishSSOStage notes that the stage of a session is passed, if whom the provider has let through is the owner of that
// session's account, and has been asked since. Nobody gets an account here.
func (a *Accounts) finishSSOStage(ctx context.Context, row *store.SSORequest, who identity) (*Fallback, error) {
	if err := askedSince(row, who); err != nil {
		return nil, err
	}
	var user store.UserNID
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		user, err = tx.ExternalUser(who.issuer, who.subject)
		return err
	})
	if err != nil {
		return nil, err
	}
	c, err := a.resumed(ctx, row.Stage, StageSSO)
	switch {
	case err != nil:
		return nil, err
	case user == 0 || user != c.user:
		return nil, matrix.Forbidden("At your organization's sign-in you are somebody else than in your app. Begin again, and sign in as the owner of that account.").With(&Refusal{Why: "stage_somebody_else"})
	case slices.Contains(c.row.Completed, StageSSO):
		return a.fallback(c, StageSSO)
	case !c.wants(StageSSO):
		return nil, errStageNotDue()
	}
	c.row.Completed = append(c.row.Completed, StageSSO)
	return a.advance(ctx, c, StageSSO)
}

// stageSSO is for clients that name the stage before it is passed: an answer of theirs passes it never.
func stageSSO(context.Context, *Accounts, *confirmation) error {
	return matrix.Forbidden("Your organization's sign-in has not let you through yet: confirm on the page of this server.")
}

// shownAt is when somebody last showed the provider who they are, as the ID token says (OpenID Connect Core, section 2).
func shownAt(id *oidc.IDToken) time.Time {
	var c struct {
		AuthTime int64 `json:"auth_time"`
	}
	if id.Claims(&c) != nil || c.AuthTime <= 0 {
		return time.Time{}
	}
	return time.Unix(c.AuthTime, 0)
}
