package store

import (
	"strings"

	"conclave/internal/matrix"
)

// Token is an access token or a refresh token of a device, by its hash.
type Token struct {
	Hash       []byte
	User       UserNID
	Device     int64
	Family     int64 // the login that it comes from
	Generation int64 // how often the login was renewed before it
	Created    int64 // ms
	Expires    int64 // ms; 0 for an access token that does not end by itself
	Fresh      bool  // an access token that a renewal made, and that nobody has used yet
	Spent      int64 // ms since when a later generation than a refresh token's is in use; 0 if none is
}

// AddToken stores a new access token.
func (tx *Tx) AddToken(t Token) error {
	_, err := tx.Exec(`INSERT INTO access_tokens (hash, device, member, created, family, generation, expires, fresh) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		t.Hash, t.Device, t.User, t.Created, t.Family, t.Generation, t.Expires, t.Fresh)
	return err
}

// AddRefreshToken stores a new refresh token.
func (tx *Tx) AddRefreshToken(t Token) error {
	_, err := tx.Exec(`INSERT INTO refresh_tokens (hash, device, member, family, generation, expires) VALUES ($1, $2, $3, $4, $5, $6)`,
		t.Hash, t.Device, t.User, t.Family, t.Generation, t.Expires)
	return err
}

// ReplaceTokens ends the earlier tokens of a device.
func (tx *Tx) ReplaceTokens(device int64) error {
	if _, err := tx.Exec(`DELETE FROM access_tokens WHERE device = $1`, device); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM refresh_tokens WHERE device = $1`, device)
	return err
}

// RefreshToken finds a refresh token by its hash, nil if there is none.
func (tx *Tx) RefreshToken(hash []byte) (found *Token, err error) {
	err = tx.Query(`SELECT device, member, family, generation, expires, spent FROM refresh_tokens WHERE hash = $1`, func(r *Row) error {
		found = &Token{
			Hash: hash, Device: r.Int64(0), User: UserNID(r.Int64(1)), Family: r.Int64(2), Generation: r.Int64(3),
			Expires: r.Int64(4), Spent: r.Int64(5),
		}
		return nil
	}, hash)
	return found, err
}

// SettleTokens notes that a generation of a device's tokens is in use (at now, ms): those before it end. Spent refresh
// tokens are remembered until they would have expired, or since some time (ms) at the earliest.
func (tx *Tx) SettleTokens(device, generation, now, since int64) error {
	for _, change := range []struct {
		sql  string
		args []any
	}{
		{`UPDATE access_tokens SET fresh = FALSE WHERE device = $1 AND generation = $2 AND fresh`, []any{device, generation}},
		{`DELETE FROM access_tokens WHERE device = $1 AND generation < $2`, []any{device, generation}},
		{`UPDATE refresh_tokens SET spent = $3 WHERE device = $1 AND generation < $2 AND spent = 0`, []any{device, generation, now}},
		{`DELETE FROM refresh_tokens WHERE device = $1 AND generation < $2 AND (spent < $4 OR expires < $3)`, []any{device, generation, now, since}},
	} {
		if _, err := tx.Exec(change.sql, change.args...); err != nil {
			return err
		}
	}
	return nil
}

// DropTokensAfter removes the tokens of a device's generations after one: nobody has used them.
func (tx *Tx) DropTokensAfter(device, generation int64) error {
	if _, err := tx.Exec(`DELETE FROM access_tokens WHERE device = $1 AND generation > $2`, device, generation); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM refresh_tokens WHERE device = $1 AND generation > $2`, device, generation)
	return err
}

// TokenOwner is whom an access token speaks for.
type TokenOwner struct {
	Account
	Device Device
	Token  Token
}

const selectTokenOwners = `SELECT a.member, u.user_id, a.admin, a.deactivated, a.created, a.locked, a.suspended, a.second_factor, a.factor_due,
		d.nid, d.device_id, d.seen, d.name, d.shown, d.client, t.family, t.generation, t.expires, t.fresh, t.hash, a.guest
	FROM access_tokens t JOIN accounts a ON a.member = t.member JOIN users u ON u.nid = a.member JOIN devices d ON d.nid = t.device `

func (tx *Tx) tokenOwner(sql string, args ...any) (found *TokenOwner, err error) {
	err = tx.Query(selectTokenOwners+sql, func(r *Row) error {
		user := UserNID(r.Int64(0))
		found = &TokenOwner{
			Account: Account{
				User: user, ID: matrix.UserID(r.Text(1)), Admin: r.Bool(2), Deactivated: r.Bool(3), Created: r.Int64(4),
				Locked: r.Bool(5), Suspended: r.Bool(6), SecondFactor: r.Int64(7), FactorDue: r.Int64(8), Guest: r.Bool(20),
			},
			Device: Device{
				NID: r.Int64(9), User: user, ID: matrix.DeviceID(r.Text(10)), Seen: r.Int64(11), Name: r.Text(12),
				Shown: strings.Fields(r.Text(13)), Client: r.Text(14),
			},
			Token: Token{
				User: user, Device: r.Int64(9), Family: r.Int64(15), Generation: r.Int64(16), Expires: r.Int64(17), Fresh: r.Bool(18),
				Hash: append([]byte(nil), r.Bytes(19)...),
			},
		}
		return nil
	}, args...)
	return found, err
}

// TokenOwner finds the owner of an access token by the token's hash, nil if there is none.
func (tx *Tx) TokenOwner(hash []byte) (*TokenOwner, error) {
	return tx.tokenOwner(`WHERE t.hash = $1`, hash)
}

// FamilyOwner finds the owner of the newest access token that a login has been renewed by, nil if there is none.
func (tx *Tx) FamilyOwner(device, family int64) (*TokenOwner, error) {
	return tx.tokenOwner(`WHERE t.device = $1 AND t.family = $2 ORDER BY t.generation DESC LIMIT 1`, device, family)
}
