package accounts

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// StageOAuth is the stage of user-interactive authentication for sessions whose client never sees a password: their owner
// signs in again on our own page, and approves there what the client asks for (client-server API, "OAuth authentication").
const StageOAuth = "m.oauth"

// ActionReset is the action of account management by which somebody replaces their cross-signing identity.
const ActionReset = "org.matrix.cross_signing_reset"

// operationReset is the operation that StageOAuth confirms.
const operationReset = "uploadCrossSigningKeys"

// approvalTime is how long what was approved may be done.
const approvalTime = 10 * time.Minute

// ManagementURL is where people look after their account, for an action if one is given.
func (a *Accounts) ManagementURL(parameters url.Values) string {
	where := a.publicURL() + "/oauth2/account"
	if len(parameters) > 0 {
		where += "?" + parameters.Encode()
	}
	return where
}

// RefreshOAuth renews the tokens of a client's session (Refresh). A locked account keeps its sessions, so that its client
// has to come again later: that error is M_USER_LOCKED.
func (a *Accounts) RefreshOAuth(ctx context.Context, token, client string) (*Login, error) {
	if client == "" {
		return nil, errGrant()
	}
	login, err := a.Refresh(ctx, token, client)
	var known *matrix.Error
	if errors.As(err, &known) && known.Code == "M_UNKNOWN_TOKEN" {
		err = errGrant()
	}
	if err != nil {
		return nil, err
	}
	return login, nil
}

// Revoke ends the session of a token, whichever kind it is of and whoever shows it: whoever has found one shall be able to
// make it worthless (client-server API, "Token revocation"). One that is not known is worthless already.
func (a *Accounts) Revoke(ctx context.Context, token string) error {
	hash := hashOf(token)
	return a.db.Write(ctx, func(tx *store.Tx) error {
		user, device, err := sessionOfToken(tx, hash)
		if err != nil || device == 0 {
			return err
		}
		account, err := tx.LockAccount(user)
		if err != nil || account == nil {
			return err
		}
		d, err := tx.DeviceByNID(device)
		if err != nil || d == nil {
			return err
		}
		a.audit(tx, "oauth.revoked", account.ID, "")
		return a.deleteDevices(tx, user, []matrix.DeviceID{d.ID})
	})
}

func sessionOfToken(tx *store.Tx, hash []byte) (user store.UserNID, device int64, err error) {
	owner, err := tx.TokenOwner(hash)
	if err != nil {
		return 0, 0, err
	}
	if owner != nil {
		return owner.User, owner.Device.NID, nil
	}
	t, err := tx.RefreshToken(hash)
	if err != nil || t == nil {
		return 0, 0, err
	}
	return t.User, t.Device, nil
}

// ByOAuth are the flows by which the owner of an OAuth client's session confirms a request. Only the replacement of
// cross-signing keys can be confirmed (client-server API, "OAuth 2.0 API"); the rest is on the page of account management
// (M_FORBIDDEN).
func (a *Accounts) ByOAuth(operation string) ([]Flow, error) {
	if operation != operationReset {
		return nil, matrix.Forbidden("This session was opened by OAuth 2.0: do this at %s.", a.ManagementURL(nil))
	}
	return Flows([]string{StageOAuth}), nil
}

// parameters are what a client needs to know of the stages of a confirmation.
func (c *confirmation) parameters(a *Accounts) map[string]any {
	if !c.wants(StageOAuth) {
		return c.Params
	}
	where := a.ManagementURL(url.Values{"action": {ActionReset}, "session": {c.row.ID}})
	return map[string]any{StageOAuth: map[string]string{"url": where}}
}

func (c *confirmation) wants(stage string) bool {
	return slices.ContainsFunc(c.Flows, func(f Flow) bool { return c.next(f) == stage })
}

// stageOAuth is for clients that name the stage, though the session alone would do.
func stageOAuth(ctx context.Context, a *Accounts, c *confirmation) error {
	yes, err := a.approved(ctx, c)
	if err == nil && !yes {
		err = matrix.Forbidden("The owner of the account has not approved this yet.")
	}
	return err
}

func (a *Accounts) approved(ctx context.Context, c *confirmation) (yes bool, err error) {
	if c.row.ID == "" {
		return false, nil
	}
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		yes, err = tx.Approved(c.user, c.row.ID, a.now().UnixMilli())
		return err
	})
	return yes, err
}

// approvedElsewhere notes that StageOAuth is passed, if the session's owner has approved on our page what it asks for.
func (a *Accounts) approvedElsewhere(ctx context.Context, c *confirmation) error {
	if !c.wants(StageOAuth) {
		return nil
	}
	yes, err := a.approved(ctx, c)
	if err == nil && yes {
		c.row.Completed = append(c.row.Completed, StageOAuth)
	}
	return err
}

// ApproveReset approves that somebody who has signed in replaces their cross-signing identity within a short time: by the
// session that sent them here, or else by whichever of theirs asks next.
func (a *Accounts) ApproveReset(ctx context.Context, s *SignedIn, session string) error {
	now := a.now()
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if session != "" {
			if len(session) > maxName || !plain(session) {
				return errNothingWaits()
			}
			waits, err := tx.UIASession(session)
			if err != nil {
				return err
			}
			if waits == nil || waits.User != s.User || waits.Operation != operationReset || waits.Expires < now.UnixMilli() {
				return errNothingWaits()
			}
		}
		account, err := tx.LockAccount(s.User)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			return errDeactivated()
		}
		a.audit(tx, "cross_signing.reset_approved", account.ID, "")
		return tx.Approve(s.User, session, now.Add(approvalTime).UnixMilli(), now.UnixMilli())
	})
}

func errNothingWaits() error {
	return matrix.Forbidden("What you were asked to approve is over, or belongs to another account. Begin again in your app.")
}
