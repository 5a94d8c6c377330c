package accounts

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"

	"conclave/internal/matrix"
)

// What the stage of a confirmed address leaves with a session of user-interactive authentication.
const (
	foundSID    = "email.sid"
	foundSecret = "email.secret" // its SHA-256
)

// purposeOf is what an address has to be confirmed for to pass the stage of an operation.
var purposeOf = map[string]Purpose{"register": ForRegistration, "changePassword": ForReset}

// stageEmail checks that an address was confirmed (client-server API, "Email-based"). What is confirmed is used up by
// what follows, not here: the request can still fail for other reasons.
func stageEmail(ctx context.Context, a *Accounts, c *confirmation) error {
	var answer struct {
		Creds  *emailCreds `json:"threepid_creds"`
		Legacy *emailCreds `json:"threepidCreds"`
	}
	if err := c.answer(&answer); err != nil {
		return err
	}
	if answer.Creds == nil {
		answer.Creds = answer.Legacy
	}
	if answer.Creds == nil {
		found, err := c.found()
		if err != nil {
			return err
		}
		if found[foundSID] != "" { // a page has asked for the mail (MailStage)
			p, err := proofFound(found)
			if err != nil {
				return err
			}
			return a.checkEmailStage(ctx, c, *p)
		}
	}
	if answer.Creds == nil || answer.Creds.SID == "" || answer.Creds.Secret == "" {
		return matrix.MissingParam("threepid_creds names the session that has confirmed an address: sid and client_secret.")
	}
	p := NewAddressProof(answer.Creds.SID, answer.Creds.Secret)
	if !validSID(p.SID) {
		return errNotConfirmed()
	}
	// It is remembered also if the link was not opened yet: the client may come again with nothing but the session.
	if err := c.remember(p); err != nil {
		return err
	}
	return a.checkEmailStage(ctx, c, p)
}

// remember leaves with the session which address was, or is to be, confirmed.
func (c *confirmation) remember(p AddressProof) error {
	if err := c.set(foundSID, p.SID); err != nil {
		return err
	}
	return c.set(foundSecret, hex.EncodeToString(p.secret[:]))
}

type emailCreds struct {
	SID    string `json:"sid"`
	Secret string `json:"client_secret"`
}

func (a *Accounts) checkEmailStage(ctx context.Context, c *confirmation, p AddressProof) error {
	folded, err := a.confirmedAddress(ctx, p, purposeOf[c.Operation])
	if err == nil && c.Operation == "register" {
		err = a.mayRegisterWith(folded)
	}
	return err
}

// elsewhere passes the stage whose turn it is if it was completed outside of the client: a link was opened
// (client-server API, "User-interactive API in the REST API").
func (a *Accounts) elsewhere(ctx context.Context, c *confirmation) error {
	if slices.Contains(c.row.Completed, StageEmail) || !slices.ContainsFunc(c.Flows, func(f Flow) bool { return c.next(f) == StageEmail }) {
		return nil
	}
	found, err := c.found()
	if err != nil || found[foundSID] == "" {
		return err
	}
	p, err := proofFound(found)
	if err != nil {
		return err
	}
	if err := a.checkEmailStage(ctx, c, *p); err != nil {
		return err
	}
	c.row.Completed = append(c.row.Completed, StageEmail)
	return nil
}

// Email is the confirmed address that a request was confirmed by; nil if it was not by one.
func (c *Confirmed) Email() (*AddressProof, error) {
	if !slices.Contains(c.Stages, StageEmail) {
		return nil, nil
	}
	return proofFound(c.Found)
}

func proofFound(found map[string]string) (*AddressProof, error) {
	secret, err := hex.DecodeString(found[foundSecret])
	if err != nil || len(secret) != 32 {
		return nil, matrix.Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Something went wrong on the server.")
	}
	return &AddressProof{found[foundSID], [32]byte(secret)}, nil
}
