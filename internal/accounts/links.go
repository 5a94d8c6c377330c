package accounts

import (
	"context"
	"net/url"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Linking: somebody signs in to a new device by one where they are signed in already. The new one shows a code, as letters
// and as a QR code, and waits; whoever has a session looks at what waits, confirms it as any other dangerous thing, and lets
// it in. It is the device grant (RFC 8628) in the hands of this server's own client, whose sessions are ordinary ones; a
// session can let in the devices of OAuth clients in the same way.

// Link is a device that waits to be let in, as the person sees it who decides.
type Link struct {
	Name    string // how the device calls itself: whoever asks can have chosen it
	Client  string // the host of the OAuth client, "" for this server's own client
	Address string // from where the device asks, "" where that was not kept
	Since   time.Time
}

// BeginLink keeps the wish of a device for a session (M_INVALID_PARAM for a name that cannot be shown).
func (a *Accounts) BeginLink(ctx context.Context, name, address string) (*DeviceGrant, error) {
	if len(name) > maxName || !plain(name) {
		return nil, matrix.InvalidParam("A device's name has at most %d bytes, and no control characters.", maxName)
	}
	return a.addDeviceGrant(ctx, store.OAuthDeviceGrant{Name: name, Address: address})
}

// LinkURL is where somebody who scans a device's code decides about it.
func (a *Accounts) LinkURL(userCode string) string {
	return strings.TrimSuffix(a.publicURL(), "/") + "/#/link?" + url.Values{"code": {userCode}}.Encode()
}

// PollLink asks on behalf of a device whether somebody has let it in: then the sign-in opens its session (LoginSignIn). With
// no sign-in and no error it has to ask again after a pause. M_FORBIDDEN: somebody said no; M_NOT_FOUND: the code is not
// known, used, or too old.
func (a *Accounts) PollLink(ctx context.Context, deviceCode string) (s *SigningIn, pause time.Duration, err error) {
	hash := hashOf(deviceCode)
	var g *store.OAuthDeviceGrant
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		g, err = tx.OAuthDeviceGrant(hash)
		return err
	})
	switch {
	case err != nil:
		return nil, 0, err
	case g == nil || g.Client != "" || g.Expires < a.now().UnixMilli():
		return nil, 0, errLinkOver()
	case g.State == store.GrantPending:
		pause, _, err = a.stillWaiting(ctx, hash)
		return nil, pause, err
	}
	now := a.now()
	secret, signIn := newToken(signInPrefix)
	row := store.SignIn{Hash: signIn[:], User: g.User, Purpose: forSession, Shown: g.Shown, Expires: now.Add(signInTime).UnixMilli()}
	mine, err := a.takeGrant(ctx, hash, func(tx *store.Tx) error {
		if g.State == store.GrantDenied {
			return nil
		}
		return tx.AddSignIn(row, now.UnixMilli())
	})
	switch {
	case err != nil:
		return nil, 0, err
	case !mine:
		return nil, 0, errLinkOver()
	case g.State == store.GrantDenied:
		return nil, 0, matrix.Forbidden("The device was not let in.")
	}
	return &SigningIn{Secret: secret, Lasts: signInTime}, 0, nil
}

func errLinkOver() error {
	return matrix.NotFound("This code is not known, used already, or too old. Begin again.")
}

// LookAtLink finds what waits with a user code, however it was typed (M_NOT_FOUND).
func (a *Accounts) LookAtLink(ctx context.Context, userCode string) (l Link, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		g, err := a.waitingLink(tx, userCode)
		if err != nil {
			return err
		}
		l = Link{Name: g.Name, Address: g.Address, Since: time.UnixMilli(g.Expires).Add(-grantTime)}
		if g.Client == "" {
			return nil
		}
		client, err := oauthClient(tx, g.Client)
		if err == nil && client == nil {
			err = errNoLink()
		}
		if err == nil {
			l.Name, l.Client = client.Name, client.Host()
		}
		return err
	})
	return l, err
}

func (a *Accounts) waitingLink(tx *store.Tx, userCode string) (*store.OAuthDeviceGrant, error) {
	g, err := tx.OAuthDeviceGrantByCode(PlainUserCode(userCode))
	if err == nil && !a.waits(g) {
		err = errNoLink()
	}
	return g, err
}

func errNoLink() error {
	return matrix.NotFound("No device waits with this code. It may be mistyped, or too old.")
}

// AllowLink lets in the device that waits with a user code: it opens a session of the account whose session's owner has just
// confirmed that (M_NOT_FOUND). By what they have confirmed it is all that the new session has been shown.
func (a *Accounts) AllowLink(ctx context.Context, s *Session, c *Confirmed, userCode string) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		g, err := a.waitingLink(tx, userCode)
		if err != nil {
			return err
		}
		a.note(tx, Event{Name: "link.allowed", User: account.ID, Address: g.Address})
		return decideLink(tx, store.OAuthDeviceGrant{Hash: g.Hash, State: store.GrantApproved, User: s.User, Shown: c.proof().words()})
	})
}

// RefuseLink says no to the device that waits with a user code (M_NOT_FOUND).
func (a *Accounts) RefuseLink(ctx context.Context, s *Session, userCode string) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		g, err := a.waitingLink(tx, userCode)
		if err != nil {
			return err
		}
		return decideLink(tx, store.OAuthDeviceGrant{Hash: g.Hash, State: store.GrantDenied, User: s.User})
	})
}

func decideLink(tx *store.Tx, g store.OAuthDeviceGrant) error {
	decided, err := tx.DecideOAuthDeviceGrant(g)
	if err == nil && !decided {
		err = errNoLink()
	}
	return err
}

// proof is what a new session of the account has been shown when its owner has confirmed it from another one.
func (c *Confirmed) proof() Proof {
	p := Proof{Shown: []Evidence{ByLoginToken}}
	if kind, ok := c.Found[foundFactor]; ok {
		p.Shown = append(p.Shown, Evidence(kind))
	}
	return p
}
