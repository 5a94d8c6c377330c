package accounts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How long an authorization code is good, and how long a spent one is remembered, to see that it was copied.
const (
	codeTime   = time.Minute
	codeKept   = 24 * time.Hour
	codePrefix = "cca_"
)

// SignedIn is somebody who has signed in, as far as they have.
type SignedIn struct {
	User   store.UserNID
	UserID matrix.UserID
	Needs  []Evidence // kinds of second factor, any of which is still wanted

	KnownAgain bool // a provider has only known them again: that is not enough for looking after the account
	Suspended  bool // they may read and leave
	MustEnrol  bool // they may only set up the second factor that is overdue
}

// Ready reports whether nothing is missing.
func (s *SignedIn) Ready() bool { return len(s.Needs) == 0 }

// SignedIn finds who signs in by the secret of it, nil if it is not known or too old.
func (a *Accounts) SignedIn(ctx context.Context, secret string) (*SignedIn, error) {
	row, account, err := a.continued(ctx, secret)
	if errors.Is(err, errSignIn()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if account.Locked {
		return nil, matrix.UserLocked()
	}
	p := proofOf(row.Shown)
	needs, err := a.needs(ctx, account, p)
	if err != nil {
		return nil, err
	}
	overdue := account.SecondFactor == 0 && account.FactorDue != 0 && a.now().UnixMilli() >= account.FactorDue
	return &SignedIn{
		User: account.User, UserID: account.ID, Needs: needs, KnownAgain: p.has(BySSO) && !p.has(BySSOAnew),
		Suspended: account.Suspended, MustEnrol: overdue && a.wantsFactor(account.Admin),
	}, nil
}

// Allow ends a visit in which a client wants a session, with the yes of whoever has signed in: for a redirect with the code
// that the client exchanges (RedeemCode), for single sign-on with a login token, for a device that waits by letting it in.
// Visit and sign-in are used up.
func (a *Accounts) Allow(ctx context.Context, visit, signIn string) (v *Visit, code string, err error) {
	visitHash, signInHash := sha256.Sum256([]byte(visit)), sha256.Sum256([]byte(signIn))
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		code = ""
		row, err := tx.TakeOAuthVisit(visitHash[:])
		if err != nil {
			return err
		}
		if v, err = a.visitOf(tx, row); err != nil {
			return err
		}
		taken, err := tx.TakeSignIn(signInHash[:])
		if err != nil {
			return err
		}
		if taken == nil || taken.Purpose != forSession || taken.Expires < a.now().UnixMilli() || v.Client == nil && v.Purpose != ToSSO {
			return errSignIn()
		}
		// What is missing is said here, to the person, rather than to the client later.
		account, err := tx.LockAccount(taken.User)
		if err == nil {
			err = a.admitted(tx, account, proofOf(taken.Shown))
		}
		if err != nil {
			return err
		}
		switch v.Purpose {
		case ToSSO:
			a.audit(tx, "sso.allowed", account.ID, "")
			code, err = a.addLoginToken(tx, taken)
			return err
		case ToLink:
			a.audit(tx, "oauth.allowed", account.ID, v.Client.Host())
			return decideGrant(tx, v, store.GrantApproved, taken)
		}
		a.audit(tx, "oauth.allowed", account.ID, v.Client.Host())
		code, err = a.addCode(tx, v, taken)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return v, code, nil
}

func (a *Accounts) addCode(tx *store.Tx, v *Visit, by *store.SignIn) (string, error) {
	now := a.now()
	code, hash := newToken(codePrefix)
	return code, tx.AddOAuthCode(store.OAuthCode{
		Hash: hash[:], Client: v.Client.ID, Redirect: v.Redirect, Challenge: v.Challenge, Wanted: string(v.Device),
		User: by.User, Shown: by.Shown, Expires: now.Add(codeTime).UnixMilli(),
	}, now.Add(-codeKept).UnixMilli())
}

// decideGrant tells a device that waits what was decided.
func decideGrant(tx *store.Tx, v *Visit, state string, by *store.SignIn) error {
	g := store.OAuthDeviceGrant{Hash: v.Grant, State: state, User: by.User}
	if state == store.GrantApproved {
		g.Shown = by.Shown
	}
	decided, err := tx.DecideOAuthDeviceGrant(g)
	if err == nil && !decided {
		err = errUserCode()
	}
	return err
}

// Refuse ends a visit with a no. Only whoever has signed in can say no to a device that waits: a stranger who has seen its
// code just goes away.
func (a *Accounts) Refuse(ctx context.Context, visit, signIn string) (v *Visit, err error) {
	visitHash, signInHash := sha256.Sum256([]byte(visit)), sha256.Sum256([]byte(signIn))
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		row, err := tx.TakeOAuthVisit(visitHash[:])
		if err != nil {
			return err
		}
		if v, err = a.visitOf(tx, row); err != nil {
			return err
		}
		taken, err := tx.TakeSignIn(signInHash[:])
		if err != nil || taken == nil || v.Purpose != ToLink || v.Grant == nil {
			return err
		}
		return decideGrant(tx, v, store.GrantDenied, taken)
	})
	return v, err
}

// errGrant refuses a code or token (RFC 6749, section 5.2). Why exactly is nobody's business who has the wrong one.
func errGrant() *OAuthError {
	return &OAuthError{"invalid_grant", "This code or token is not known, too old, used already, or not this client's."}
}

// RedeemCode exchanges an authorization code for a session (RFC 6749, section 4.1.3). It is spent by being shown, whether
// the rest is right or not; who shows it a second time has a copy, or somebody else had one: the session ends.
func (a *Accounts) RedeemCode(ctx context.Context, client, code, redirect, verifier, address string) (*Login, error) {
	hash := sha256.Sum256([]byte(code))
	found, g, err := a.codeOf(ctx, hash[:])
	if err != nil {
		return nil, err
	}
	login, write, err := a.openGranted(g, address)
	if err != nil {
		return nil, asGrantError(err)
	}
	var refusal error // what was noted has to be committed, so it is not the transaction's error
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		if _, err := tx.LockAccount(found.User); err != nil {
			return err
		}
		now := a.now().UnixMilli()
		fresh, err := tx.SpendOAuthCode(hash[:], now)
		if err != nil {
			return err
		}
		if !fresh {
			refusal = errGrant()
			return a.codeCopied(tx, hash[:], g.who)
		}
		if now > found.Expires || found.Client != client || found.Redirect != redirect || !verified(found.Challenge, verifier) {
			refusal = errGrant()
			return nil
		}
		if err := write(tx); err != nil {
			return err
		}
		opened, err := tx.TokenOwner(hashOf(login.Token))
		if err != nil || opened == nil {
			return err
		}
		return tx.OAuthCodeOpened(hash[:], opened.Device.NID, opened.Token.Family)
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return nil, asGrantError(err)
	}
	return login, nil
}

// codeOf finds a code, and what it is good for.
func (a *Accounts) codeOf(ctx context.Context, hash []byte) (found *store.OAuthCode, g granted, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if found, err = tx.OAuthCode(hash); err != nil || found == nil {
			return err
		}
		g, err = grantedOf(tx, found.Client, found.Wanted, found.User, found.Shown)
		return err
	})
	if err == nil && (found == nil || g.client == nil || g.who == "") {
		err = errGrant()
	}
	return found, g, err
}

func grantedOf(tx *store.Tx, client, device string, user store.UserNID, shown []string) (g granted, err error) {
	g = granted{device: matrix.DeviceID(device), user: user, shown: shown}
	if g.client, err = oauthClient(tx, client); err != nil {
		return g, err
	}
	account, err := tx.AccountOf(user)
	if err == nil && account != nil {
		g.who = account.ID
	}
	return g, err
}

func hashOf(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

// granted is a session that somebody has granted to a client, and that is not open yet.
type granted struct {
	client *Client
	device matrix.DeviceID
	user   store.UserNID
	who    matrix.UserID
	shown  []string
}

// openGranted prepares such a session (open).
func (a *Accounts) openGranted(g granted, address string) (*Login, func(*store.Tx) error, error) {
	name := g.client.Name
	if name == "" {
		name = g.client.Host()
	}
	d := NewDevice{ID: g.device, Name: name, Address: address, Renews: true, Client: g.client.ID}
	login, write, err := a.open(g.user, g.who, d, proofOf(g.shown))
	if err != nil {
		return nil, nil, err
	}
	return login, func(tx *store.Tx) error {
		if err := write(tx); err != nil {
			return err
		}
		return tx.UseOAuthClient(g.client.ID, a.now().UnixMilli())
	}, nil
}

// codeCopied ends the session that a code has opened which was shown again.
func (a *Accounts) codeCopied(tx *store.Tx, hash []byte, who matrix.UserID) error {
	c, err := tx.OAuthCode(hash)
	if err != nil || c == nil || c.Device == 0 {
		return err
	}
	still, err := tx.FamilyOwner(c.Device, c.Family)
	if err != nil || still == nil {
		return err
	}
	a.log.Warn("a used authorization code was shown again: somebody has a copy, the session ends", "user", who, "device", still.Device.ID)
	return a.deleteDevices(tx, c.User, []matrix.DeviceID{still.Device.ID})
}

// verified checks the verifier of PKCE (RFC 7636, section 4.6).
func verified(challenge, verifier string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// asGrantError tells a client why the person who sent it may not have a session after all.
func asGrantError(err error) error {
	var known *matrix.Error
	if errors.As(err, &known) && slices.Contains([]string{"M_FORBIDDEN", "M_USER_LOCKED", "M_USER_DEACTIVATED", "M_INVALID_PARAM"}, known.Code) {
		return &OAuthError{"invalid_grant", known.Text}
	}
	return err
}
