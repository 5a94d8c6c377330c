package push

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// emailApp is the app_id of the pushers of kind email (client-server API, POST /pushers/set).
const emailApp = "m.email"

// mediumEmail is what addresses of accounts that are e-mail addresses are called.
const mediumEmail = "email"

// Times of digests.
const (
	quietTime  = 10 * time.Minute // a room is told of once nothing new has come for that long
	livelyTime = time.Hour        // how long rooms that never get quiet can put a mail off
	againTime  = time.Minute      // after what waits could not be found out
)

// pauses are how long nothing is mailed after a mail, by how many there were since the user was seen last.
var pauses = [...]time.Duration{time.Hour, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// Waiting is a room in which something waits unread that its user was to be told of.
type Waiting struct {
	Newest time.Time // when the newest of it was sent, as its sender says
	Room   mail.WaitingRoom
}

// DigestSource is where digests learn what waits; package rooms knows.
type DigestSource interface {
	// Waiting lists the rooms in which something is unread that the user is to be told of and that came after one position
	// and up to another, the rooms with the newest first; names and counts are filled in for the first
	// mail.MaxWaitingRooms. reached is how far it looked.
	Waiting(ctx context.Context, user store.UserNID, id matrix.UserID, after, upTo store.Pos) (list []Waiting, reached store.Pos, err error)
}

// Digests are the mails of pushers of kind email. Each tells once of what has waited unread for a while, in all rooms, and
// none says what the messages say.
type Digests struct {
	Source DigestSource
	Key    []byte // 32 secret bytes: signs what ends a pusher
}

// digest decides what is to be done for a pusher of kind email: nothing if all is read, a mail if something has waited long
// enough, and else to look again when it will have.
func (w *worker) digest(ctx context.Context) error {
	bound, err := w.d.DB.StreamBound(ctx)
	if err != nil {
		return err
	}
	now := w.d.Clock()
	list, reached, err := w.d.Mail.Source.Waiting(ctx, w.p.User, w.p.UserID, w.p.Pos, bound)
	if err != nil {
		w.p.RetryAt = now.Add(againTime).UnixMilli()
		return err
	}
	reached = max(w.p.Pos, reached)
	if len(list) == 0 {
		w.p.Pos, w.p.Waiting, w.p.RetryAt = reached, 0, 0
		if reached < bound {
			w.p.RetryAt = now.UnixMilli()
		}
		return nil
	}
	if w.p.Waiting == 0 {
		w.p.Waiting = now.UnixMilli()
	}
	if due := dueTime(&w.p, list, now); due.After(now) {
		w.p.RetryAt = due.UnixMilli()
		return nil
	}
	w.p.Pos, w.p.Waiting, w.p.RetryAt, w.p.Mailed, w.p.Stage = reached, 0, 0, now.UnixMilli(), min(w.p.Stage+1, len(pauses)-1)
	if reached < bound {
		w.p.RetryAt = now.UnixMilli() // there is more to look at; the pause holds for it too
	}
	return w.mail(ctx, list, now)
}

// dueTime is when a mail may tell of what waits: once one of the rooms is quiet, or lively for long, and the last mail is long
// enough ago. Other servers say when their events were sent: that counts within what can be.
func dueTime(p *store.Pusher, list []Waiting, now time.Time) time.Time {
	since := time.UnixMilli(p.Waiting)
	due := since.Add(livelyTime)
	for _, room := range list {
		newest := room.Newest
		if newest.Before(since) {
			newest = since
		}
		if newest.After(now) {
			newest = now
		}
		if quiet := newest.Add(quietTime); quiet.Before(due) {
			due = quiet
		}
	}
	if p.Mailed != 0 {
		if end := time.UnixMilli(p.Mailed).Add(pauses[min(p.Stage, len(pauses)-1)]); end.After(due) {
			due = end
		}
	}
	return due
}

// mail writes the mail's row and where the pusher stands in one transaction: a crash sends it neither twice nor never. Whoever
// delivers mail finds it there (package accounts).
func (w *worker) mail(ctx context.Context, list []Waiting, now time.Time) error {
	what := mail.Waiting{Pusher: w.p.NID, Token: w.d.Mail.token(&w.p), More: max(0, len(list)-mail.MaxWaitingRooms)}
	for _, room := range list[:len(list)-what.More] {
		what.Rooms = append(what.Rooms, room.Room)
	}
	facts, err := matrix.Encode(map[string]any{"user": w.p.UserID, "at": now.UnixMilli(), "waiting": what})
	if err != nil {
		return err
	}
	id := make([]byte, 18)
	rand.Read(id)
	row := store.Mail{
		ID: base64.RawURLEncoding.EncodeToString(id), Address: w.p.Key, Kind: string(mail.Digest), Lang: mail.Language(w.p.Lang),
		Facts: string(facts), Created: now.UnixMilli(),
	}
	w.ended = true // whatever comes of it: the transaction leaves the pusher as it is to be
	err = w.d.DB.Write(ctx, func(tx *store.Tx) error {
		has, err := hasAddress(tx, w.p.User, w.p.Key)
		if err != nil {
			return err
		}
		if !has { // it went while this was found out
			return tx.EndPusher(w.p)
		}
		if ok, err := tx.SavePusher(w.p, 0); err != nil || !ok {
			return err
		}
		return tx.AddMail(row)
	})
	if err != nil {
		return fmt.Errorf("writing a digest: %w", err)
	}
	return nil
}

// hasAddress says whether an address, in canonical form, is an account's.
func hasAddress(tx *store.Tx, user store.UserNID, address string) (bool, error) {
	found, err := tx.Threepid(mediumEmail, address)
	return found != nil && found.User == user, err
}

// checkAddress refuses (M_THREEPID_NOT_FOUND) to send notifications to an address that is not confirmed to be the account's.
func checkAddress(tx *store.Tx, user store.UserNID, address string) error {
	has, err := hasAddress(tx, user, address)
	if err == nil && !has {
		err = matrix.Errorf(http.StatusBadRequest, "M_THREEPID_NOT_FOUND", "Notifications go by mail only to addresses of your account: add and confirm this one first.")
	}
	return err
}

// token is what ends a pusher, for whoever reads its mails: its number, and a signature that nobody can guess.
func (d *Digests) token(p *store.Pusher) string {
	number := binary.BigEndian.AppendUint64(nil, uint64(p.NID)) //nolint:gosec // there and back
	mac := hmac.New(sha256.New, d.Key)
	mac.Write(number)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(p.User))) //nolint:gosec // the same
	mac.Write([]byte(p.Key))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(number))
}

// pusherOf finds the pusher that a token ends; nil if there is none, or not any more.
func (d *Digests) pusherOf(tx *store.Tx, token string) (*store.Pusher, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+sha256.Size {
		return nil, nil
	}
	p, err := tx.Pusher(int64(binary.BigEndian.Uint64(raw))) //nolint:gosec // there and back
	if err != nil || p == nil || p.Kind != kindEmail || !hmac.Equal([]byte(d.token(p)), []byte(token)) {
		return nil, err
	}
	return p, nil
}

// Unsubscribable finds the address to which a link's token would end the mails, and changes nothing. It is "" if the link is
// of no use, or not any more.
func (p *Pushers) Unsubscribable(ctx context.Context, token string) (to string, err error) {
	if p.mail == nil {
		return "", nil
	}
	err = p.db.Read(ctx, func(tx *store.Tx) error {
		to = ""
		found, err := p.mail.pusherOf(tx, token)
		if found != nil {
			to = found.Key
		}
		return err
	})
	return to, err
}

// Unsubscribe ends the pusher of a token and returns the address that it was for; "" if there is none, or not any more.
func (p *Pushers) Unsubscribe(ctx context.Context, token string) (to string, err error) {
	if p.mail == nil {
		return "", nil
	}
	err = p.db.Write(ctx, func(tx *store.Tx) error {
		to = ""
		found, err := p.mail.pusherOf(tx, token)
		if err != nil || found == nil {
			return err
		}
		to = found.Key
		return tx.DeletePusher(found.User, found.AppID, found.Key)
	})
	return to, err
}
