package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"conclave/internal/store"
)

// Caring is the session in whose name somebody who has just signed in on our own pages looks after their account. No device
// has it, and what is begun in it can be ended only in the same sign-in: its number follows from that, and is below those
// of devices.
func (s *SignedIn) Caring(signIn string) *Session {
	hash := sha256.Sum256([]byte(signIn))
	number := int64(binary.BigEndian.Uint64(hash[:8]) >> 2) //nolint:gosec // two bits less than it has room for
	return &Session{User: s.User, UserID: s.UserID, Device: -1 - number, Suspended: s.Suspended, MustEnrol: s.MustEnrol}
}

// CareShown notes that somebody has set up a second factor during a sign-in, and has shown it by that. Otherwise they would
// be asked for it at once, with a code that is used up.
func (a *Accounts) CareShown(ctx context.Context, signIn string, kind Evidence) error {
	hash := sha256.Sum256([]byte(signIn))
	return a.db.Write(ctx, func(tx *store.Tx) error {
		row, err := tx.SignIn(hash[:])
		if err != nil || row == nil || slices.Contains(row.Shown, string(kind)) {
			return err
		}
		return tx.SignInShown(row.Hash, append(row.Shown, string(kind)))
	})
}
