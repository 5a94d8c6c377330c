package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How long tokens last where a client renews them. A stolen access token is of use for minutes; a refresh token ends a
// while after nobody has been there.
const (
	accessTime    = 10 * time.Minute
	refreshTime   = 180 * 24 * time.Hour
	spentFor      = 30 * 24 * time.Hour // how long a used refresh token is recognised, to see that it was copied
	accessPrefix  = "ccl_"
	refreshPrefix = "ccr_"
)

// newToken makes a token and its hash.
func newToken(prefix string) (token string, hash [32]byte) {
	var random [32]byte
	rand.Read(random[:])
	token = prefix + base64.RawURLEncoding.EncodeToString(random[:])
	return token, sha256.Sum256([]byte(token))
}

// issue puts the tokens of one generation into a login: an access token, and where the client renews them a refresh token.
func (a *Accounts) issue(tx *store.Tx, l *Login, t store.Token, renewed bool) error {
	now := a.now()
	token, hash := newToken(accessPrefix)
	t.Hash, t.Created = hash[:], now.UnixMilli()
	l.Token, l.RefreshToken, l.Lasts = token, "", 0
	if renewed {
		l.Lasts = accessTime
		t.Expires = now.Add(accessTime).UnixMilli()
	}
	if err := tx.AddToken(t); err != nil || !renewed {
		return err
	}
	token, hash = newToken(refreshPrefix)
	l.RefreshToken = token
	t.Hash, t.Expires = hash[:], now.Add(refreshTime).UnixMilli()
	return tx.AddRefreshToken(t)
}

// Refresh renews a login: a new pair of tokens for the device of a refresh token, which stays good until one of the new
// ones is used. Whoever shows one after that has a copy: then the whole login ends (threats A05). It answers
// M_UNKNOWN_TOKEN, with soft_logout where the login was not ended but only left alone for too long. Client is the OAuth
// client that asks, "" for none: each can renew only its own.
func (a *Accounts) Refresh(ctx context.Context, token, client string) (*Login, error) {
	hash := sha256.Sum256([]byte(token))
	var login *Login
	var refusal error
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		login, refusal = nil, nil
		t, err := tx.RefreshToken(hash[:])
		if err != nil {
			return err
		}
		if t == nil {
			refusal = matrix.UnknownToken(false)
			return nil
		}
		// The account is locked before what is read of the token counts, so that two renewals come one after the other.
		account, err := tx.LockAccount(t.User)
		if err == nil {
			t, err = tx.RefreshToken(hash[:])
		}
		if err != nil {
			return err
		}
		login, refusal, err = a.renew(tx, account, t, client)
		return err
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return nil, err
	}
	return login, nil
}

// renew is the part of Refresh that holds the account locked. A refusal is no error: what it does is to be kept.
func (a *Accounts) renew(tx *store.Tx, account *store.Account, t *store.Token, client string) (login *Login, refusal, err error) {
	now := a.now()
	if account == nil || account.Deactivated || t == nil {
		return nil, matrix.UnknownToken(false), nil
	}
	device, err := tx.DeviceByNID(t.Device)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case device == nil || device.Client != client:
		return nil, matrix.UnknownToken(false), nil
	case t.Spent != 0:
		a.log.Warn("a used refresh token was shown again: somebody has a copy, the session ends", "user", account.ID, "device", device.ID)
		return nil, matrix.UnknownToken(false), a.deleteDevices(tx, account.User, []matrix.DeviceID{device.ID})
	case t.Expires < now.UnixMilli():
		return nil, matrix.UnknownToken(true), nil
	case account.Locked:
		return nil, matrix.UserLocked(), nil
	}
	if err := tx.SettleTokens(t.Device, t.Generation, now.UnixMilli(), now.Add(-spentFor).UnixMilli()); err != nil {
		return nil, nil, err
	}
	if err := tx.DropTokensAfter(t.Device, t.Generation); err != nil {
		return nil, nil, err
	}
	login = &Login{UserID: account.ID, DeviceID: device.ID}
	next := store.Token{User: t.User, Device: t.Device, Family: t.Family, Generation: t.Generation + 1, Fresh: true}
	return login, nil, a.issue(tx, login, next, true)
}

// settle notes that a renewed token is in use: the one before it ends.
func (a *Accounts) settle(ctx context.Context, t store.Token) error {
	now := a.now()
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockAccount(t.User); err != nil {
			return err
		}
		still, err := tx.TokenOwner(t.Hash)
		if err == nil && still == nil {
			return matrix.UnknownToken(false)
		}
		if err != nil || !still.Token.Fresh {
			return err
		}
		tx.AfterCommit(func() { a.endedHere(t.User) })
		return tx.SettleTokens(t.Device, t.Generation, now.UnixMilli(), now.Add(-spentFor).UnixMilli())
	})
}
