package rooms

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// MutualPage is a part of the rooms that two users are both joined to.
type MutualPage struct {
	Rooms []matrix.RoomID
	Count int    // of all of them
	Next  string // the token of the next part, "" if this is the last
}

const (
	mutualPage = 100
	mutualLife = 15 * time.Minute // of a token; the specification asks for ten
)

// Mutual finds the rooms that a user shares with another, in the order in which this server came to know them; from is a
// token of the last page or "" (client-server API, "Mutual Rooms"). A room that both joined in between may be on no page.
// A token that is forged, too old or for another pair of users, and one's own ID, are M_INVALID_PARAM.
func (r *Rooms) Mutual(ctx context.Context, user Sender, other matrix.UserID, from string) (MutualPage, error) {
	return r.mutual(ctx, user, other, from, mutualPage)
}

func (r *Rooms) mutual(ctx context.Context, user Sender, other matrix.UserID, from string, size int) (page MutualPage, err error) {
	if other == user.ID {
		return page, matrix.InvalidParam("user_id is your own: you share all of your rooms with yourself.")
	}
	secret, err := r.db.Secret(ctx, "mutual_rooms")
	if err != nil {
		return page, err
	}
	after := store.RoomNID(0)
	if from != "" {
		var ok bool
		if after, ok = readMutualToken(secret, user.ID, other, from, r.now()); !ok {
			return page, matrix.InvalidParam("from is not a token of this list, or it is too old: begin anew.")
		}
	}
	var last store.RoomNID
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		page, last = MutualPage{Rooms: []matrix.RoomID{}}, 0
		if page.Count, err = tx.CountMutualRooms(user.NID, other); err != nil || page.Count == 0 {
			return err
		}
		return tx.MutualRooms(user.NID, other, after, size+1, func(nid store.RoomNID, id matrix.RoomID) {
			if len(page.Rooms) == size {
				page.Next = "more"
				return
			}
			page.Rooms, last = append(page.Rooms, id), nid
		})
	})
	if err == nil && page.Next != "" {
		page.Next = mutualToken(secret, user.ID, other, last, r.now())
	}
	return page, err
}

// mutualToken makes the token of what follows a room: its number and the time, sealed for these two users, as an opaque
// identifier.
func mutualToken(secret []byte, user, other matrix.UserID, after store.RoomNID, now time.Time) string {
	var said [16]byte
	binary.BigEndian.PutUint64(said[:8], uint64(after))           //nolint:gosec // never negative where it was made, and sealed since
	binary.BigEndian.PutUint64(said[8:], uint64(now.UnixMilli())) //nolint:gosec // never negative where it was made, and sealed since
	return base64.RawURLEncoding.EncodeToString(append(said[:], mutualSeal(secret, user, other, said[:])...))
}

func readMutualToken(secret []byte, user, other matrix.UserID, token string, now time.Time) (after store.RoomNID, ok bool) {
	if !matrix.IsOpaque(token) {
		return 0, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 32 || !hmac.Equal(raw[16:], mutualSeal(secret, user, other, raw[:16])) {
		return 0, false
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(raw[8:16])))                   //nolint:gosec // never negative where it was made, and sealed since
	return store.RoomNID(binary.BigEndian.Uint64(raw[:8])), now.Sub(made) <= mutualLife //nolint:gosec // never negative where it was made, and sealed since
}

func mutualSeal(secret []byte, user, other matrix.UserID, said []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(user + "\x00" + other + "\x00"))
	h.Write(said)
	return h.Sum(nil)[:16]
}
