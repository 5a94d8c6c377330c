package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// openIDLife is how long an OpenID token holds: long enough to be shown to a service, which asks at once.
const openIDLife = time.Hour

// OpenIDToken is what a user shows to a third party to prove who they are here (client-server API, "OpenID"). It is good
// for nothing else.
type OpenIDToken struct {
	Token   string            `json:"access_token"`
	Type    string            `json:"token_type"`
	Server  matrix.ServerName `json:"matrix_server_name"`
	Expires int64             `json:"expires_in"` // seconds
}

// NewOpenIDToken makes a token for a user. Only its hash is kept.
func (a *Accounts) NewOpenIDToken(ctx context.Context, user store.UserNID) (*OpenIDToken, error) {
	token := rand.Text()
	hash, now := sha256.Sum256([]byte(token)), a.now()
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.StillOpen(user); err != nil {
			return err
		}
		return tx.AddOpenIDToken(hash[:], user, now.Add(openIDLife).UnixMilli(), now.UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	return &OpenIDToken{Token: token, Type: "Bearer", Server: a.server, Expires: int64(openIDLife / time.Second)}, nil
}

// OpenIDUser finds whose token it is. One that is unknown or has run out is M_UNKNOWN_TOKEN.
func (a *Accounts) OpenIDUser(ctx context.Context, token string) (user matrix.UserID, err error) {
	hash := sha256.Sum256([]byte(token))
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		user, err = tx.OpenIDUser(hash[:], a.now().UnixMilli())
		return err
	})
	if err == nil && user == "" {
		err = matrix.UnknownToken(false)
	}
	return user, err
}
