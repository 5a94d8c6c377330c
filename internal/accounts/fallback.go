package accounts

import (
	"context"
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
)

// Fallback is a stage of a session as a page shows it to somebody whose client does not know the stage (client-server API,
// "Fallback").
type Fallback struct {
	Stage  string
	For    string         // the operation that is to be confirmed
	User   matrix.UserID  // whose session it is, "" for nobody's
	Done   bool           // the stage is passed
	Mailed bool           // StageEmail: a mail was asked for, whose link is to be opened
	Params map[string]any // of all stages
}

// Fallback finds a stage of a session by the ID of the session alone, which only its client knows (M_NOT_FOUND).
func (a *Accounts) Fallback(ctx context.Context, session, stage string) (*Fallback, error) {
	c, err := a.resumed(ctx, session, stage)
	if err != nil {
		return nil, err
	}
	return a.fallback(c, stage)
}

func (a *Accounts) fallback(c *confirmation, stage string) (*Fallback, error) {
	params, err := a.params(c)
	if err != nil {
		return nil, err
	}
	f := &Fallback{Stage: stage, For: c.row.Operation, Done: slices.Contains(c.row.Completed, stage), Params: params}
	if c.Session != nil {
		f.User = c.Session.UserID
	}
	found, err := c.found()
	f.Mailed = found[foundSID] != ""
	return f, err
}

// MailStage has a mail sent for a session whose client does not know StageEmail: the link in it passes the stage. What q says
// of the purpose and of a secret is of no interest. A stage that is passed already is no error, and sends no mail; one that
// others come before is M_FORBIDDEN. Other errors are those of RequestAddress.
func (a *Accounts) MailStage(ctx context.Context, session string, q AddressRequest) (*Fallback, error) {
	c, err := a.resumed(ctx, session, StageEmail)
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(c.row.Completed, StageEmail):
		return a.fallback(c, StageEmail)
	case !c.wants(StageEmail):
		return nil, errStageNotDue()
	}
	q.Purpose, q.Session, q.Secret, q.Attempt = purposeOf[c.Operation], nil, randomText(24), 1
	sid, err := a.RequestAddress(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := c.remember(NewAddressProof(sid, q.Secret)); err != nil {
		return nil, err
	}
	return a.advance(ctx, c, StageEmail)
}

// PassStage checks an answer that came by a page, and notes with the session that its stage is passed. The client learns
// it when it comes with the session again. A wrong answer is M_FORBIDDEN, a stage that is passed already no error. address
// is as in Confirm.
func (a *Accounts) PassStage(ctx context.Context, auth *AuthData, address string) (*Fallback, error) {
	c, err := a.resumed(ctx, auth.Session, auth.Type)
	if err != nil {
		return nil, err
	}
	c.Auth, c.Address = auth, address
	if err := a.stage(ctx, c); err != nil {
		return nil, err
	}
	return a.advance(ctx, c, auth.Type)
}

// advance stores what a session has reached by a page.
func (a *Accounts) advance(ctx context.Context, c *confirmation, stage string) (*Fallback, error) {
	still, err := a.bringForward(ctx, c)
	if err == nil && !still {
		err = errNoSession()
	}
	if err != nil {
		return nil, err
	}
	return a.fallback(c, stage)
}

func errStageNotDue() error {
	return matrix.Forbidden("This step is not due. Go on in your app.").With(&Refusal{Why: "stage_not_due"})
}

func errNoSession() error { return matrix.NotFound("This page has expired. Begin again in your app.") }

// resumed is a session that has a stage, as its client left it.
func (a *Accounts) resumed(ctx context.Context, session, stage string) (*confirmation, error) {
	row, err := a.uiaSession(ctx, session)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errNoSession()
	}
	c := &confirmation{row: row, was: *row, user: row.User}
	if json.Unmarshal([]byte(row.Flows), &c.Flows) != nil || !c.has(stage) {
		return nil, errNoSession()
	}
	c.Operation = row.Operation
	if row.User != 0 {
		account, err := a.accountOf(ctx, row.User)
		if err != nil {
			return nil, err
		}
		c.Session = &Session{User: row.User, UserID: account.ID}
	}
	return c, nil
}
