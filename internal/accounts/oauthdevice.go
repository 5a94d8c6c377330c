package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The bounds of the device authorization grant (RFC 8628): how long a device may wait for its user, how long between two
// questions at first and how much longer for each that comes too early, and how often one visit may try user codes.
const (
	grantTime     = 15 * time.Minute
	grantKept     = time.Hour // so that a late device learns that it is late
	grantPause    = 5 * time.Second
	codeGuesses   = 5
	userCodeRunes = 8
	devicePrefix  = "ccd_"
)

// userCodeLetters make codes that are easy to read out, and no words (RFC 8628, section 6.1): 20 to the power of 8.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

// DeviceGrant is what a device is told that asks to be let in.
type DeviceGrant struct {
	DeviceCode string
	UserCode   string // with its dash, for people
	Lasts      time.Duration
	Pause      time.Duration
}

// BeginDeviceGrant keeps a device's wish for a session (RFC 8628, section 3.1).
func (a *Accounts) BeginDeviceGrant(ctx context.Context, clientID, scope string) (*DeviceGrant, error) {
	client, err := a.OAuthClient(ctx, clientID)
	if err != nil {
		return nil, err
	}
	if client == nil {
		return nil, &OAuthError{"invalid_client", "This client is not registered here, or not any more."}
	}
	if !slices.Contains(client.Grants, GrantDevice) {
		return nil, &OAuthError{"unauthorized_client", "The client is not registered for this grant."}
	}
	device, fault := readScope(scope)
	if fault != nil {
		return nil, fault
	}
	return a.addDeviceGrant(ctx, store.OAuthDeviceGrant{Client: client.ID, Wanted: string(device)})
}

// addDeviceGrant keeps a device's wish, with codes that are drawn here.
func (a *Accounts) addDeviceGrant(ctx context.Context, row store.OAuthDeviceGrant) (*DeviceGrant, error) {
	now := a.now()
	secret, hash := newToken(devicePrefix)
	row.Hash, row.State = hash[:], store.GrantPending
	row.Pause, row.Expires = grantPause.Milliseconds(), now.Add(grantTime).UnixMilli()
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		for range 5 { // that a code is taken is rarer than one in a million
			row.UserCode = newUserCode()
			added, err := tx.AddOAuthDeviceGrant(row, now.Add(-grantKept).UnixMilli())
			if added || err != nil {
				return err
			}
		}
		return errors.New("accounts: no user code is free")
	})
	if err != nil {
		return nil, err
	}
	return &DeviceGrant{secret, ReadableUserCode(row.UserCode), grantTime, grantPause}, nil
}

// newUserCode draws a code. 240 is the largest multiple of 20 in a byte: what is above would make some letters likelier.
func newUserCode() string {
	code := make([]byte, 0, userCodeRunes)
	for len(code) < userCodeRunes {
		var b [1]byte
		rand.Read(b[:])
		if b[0] < 240 {
			code = append(code, userCodeLetters[b[0]%20])
		}
	}
	return string(code)
}

// PlainUserCode is a code as it is kept, however somebody typed it.
func PlainUserCode(typed string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(userCodeLetters, r) {
			return r
		}
		return -1
	}, strings.ToUpper(typed[:min(len(typed), 64)]))
}

// ReadableUserCode is a code as people see it.
func ReadableUserCode(code string) string {
	if len(code) != userCodeRunes {
		return code
	}
	return code[:4] + "-" + code[4:]
}

// errUserCode refuses a user code. What is wrong with it is the same to whoever guesses.
func errUserCode() *matrix.Error {
	return matrix.Forbidden("No device waits with this code. It may be mistyped, or too old.")
}

// EnterUserCode finds the device that waits with a user code, which the visit is about from then on, and about no other
// (M_FORBIDDEN). Each visit has a few tries.
func (a *Accounts) EnterUserCode(ctx context.Context, visit, typed string) error {
	hash := sha256.Sum256([]byte(visit))
	code := PlainUserCode(typed)
	var refusal error // guesses have to be counted, so it is not the transaction's error
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		row, err := tx.LockOAuthVisit(hash[:])
		if err != nil {
			return err
		}
		v, err := a.visitOf(tx, row)
		if err != nil {
			return err
		}
		if v.Purpose != ToLink {
			return errVisit
		}
		if v.Grant != nil { // what is asked on one page must not become a yes to something else by another
			if v.Code != code {
				return errUserCode()
			}
			return nil // once more, because the answer was lost
		}
		may, err := tx.GuessInOAuthVisit(hash[:], codeGuesses)
		if err != nil {
			return err
		}
		if !may {
			_, err := tx.TakeOAuthVisit(hash[:])
			refusal = errVisit
			return err
		}
		g, err := tx.OAuthDeviceGrantByCode(code)
		if err != nil {
			return err
		}
		if !a.waits(g) || g.Client == "" { // those of our own client are let in there
			refusal = errUserCode()
			return nil
		}
		v.Grant, v.Device, v.Code = g.Hash, matrix.DeviceID(g.Wanted), g.UserCode
		details, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return tx.SetOAuthVisit(hash[:], g.Client, string(details))
	})
	if err == nil {
		err = refusal
	}
	return err
}

// waits says whether a grant waits for somebody to decide.
func (a *Accounts) waits(g *store.OAuthDeviceGrant) bool {
	return g != nil && g.State == store.GrantPending && g.Expires >= a.now().UnixMilli()
}

// PollDeviceGrant asks on behalf of a device whether its user has let it in, and opens the session if so (RFC 8628, section
// 3.4 and 3.5).
func (a *Accounts) PollDeviceGrant(ctx context.Context, client, deviceCode, address string) (*Login, error) {
	hash := hashOf(deviceCode)
	var found *store.OAuthDeviceGrant
	var g granted
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if found, err = tx.OAuthDeviceGrant(hash); err != nil || found == nil {
			return err
		}
		g, err = grantedOf(tx, found.Client, found.Wanted, found.User, found.Shown)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil || found.Client != client || g.client == nil:
		return nil, errGrant()
	case found.Expires < a.now().UnixMilli():
		return nil, &OAuthError{"expired_token", "Nobody has let the device in in time."}
	case found.State == store.GrantPending:
		return nil, a.askAgain(ctx, hash)
	case found.State == store.GrantDenied:
		_, err := a.takeGrant(ctx, hash, func(*store.Tx) error { return nil })
		if err == nil {
			err = &OAuthError{"access_denied", "The device was not let in."}
		}
		return nil, err
	}
	login, write, err := a.openGranted(g, address)
	if err != nil {
		return nil, asGrantError(err)
	}
	mine, err := a.takeGrant(ctx, hash, write)
	if err == nil && !mine {
		err = errGrant()
	}
	if err != nil {
		return nil, asGrantError(err)
	}
	return login, nil
}

// takeGrant ends a grant together with what comes of it; it reports false if somebody else was first.
func (a *Accounts) takeGrant(ctx context.Context, hash []byte, then func(*store.Tx) error) (mine bool, err error) {
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		if mine, err = tx.TakeOAuthDeviceGrant(hash); err != nil || !mine {
			return err
		}
		return then(tx)
	})
	return mine, err
}

// askAgain answers a client whose device waits.
func (a *Accounts) askAgain(ctx context.Context, hash []byte) error {
	_, hasty, err := a.stillWaiting(ctx, hash)
	switch {
	case err != nil:
		return err
	case hasty:
		return &OAuthError{"slow_down", "Wait five seconds longer between two questions."}
	}
	return &OAuthError{"authorization_pending", "Nobody has let the device in yet."}
}

// stillWaiting notes that a device has asked whose user has not decided yet, and slows it down if it asks too often (hasty).
// pause is how long it has to wait from now on.
func (a *Accounts) stillWaiting(ctx context.Context, hash []byte) (pause time.Duration, hasty bool, err error) {
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		g, err := tx.OAuthDeviceGrant(hash)
		if err != nil || g == nil {
			return err
		}
		now := a.now().UnixMilli()
		if hasty = now-g.Polled < g.Pause; hasty {
			g.Pause = min(g.Pause+grantPause.Milliseconds(), time.Minute.Milliseconds())
		}
		pause = time.Duration(g.Pause) * time.Millisecond
		return tx.OAuthDeviceGrantPolled(hash, now, g.Pause)
	})
	return pause, hasty, err
}
