package rooms

import (
	"context"
	"crypto/sha256"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Sender is who acts: a local user with its number.
type Sender struct {
	NID store.UserNID
	ID  matrix.UserID
}

// SendRequest is an event that a user wants to send.
type SendRequest struct {
	Room     Ref
	Sender   Sender
	Type     string
	StateKey *string        // set for a state event
	Content  []byte         // a checked JSON object
	Redacts  matrix.EventID // of m.room.redaction
	Txn      store.TxnKey   // zero without a transaction ID
	TxnID    string         // as the client gave it; its device sees it again in unsigned.transaction_id
	TS       int64          // origin_server_ts in ms, 0 for now; only application services may set it

	// Resolve asks another server for the room of one of its aliases; nil where nobody is asked.
	Resolve func(context.Context, matrix.RoomAlias) (matrix.RoomID, error)
}

// TxnKey makes the key of a client's transaction: the same transaction ID on another route is another transaction
// (client-server API, "Transaction identifiers").
func TxnKey(device int64, route string, room matrix.RoomID, typ, txnID string) store.TxnKey {
	h := sha256.New()
	for _, part := range []string{route, string(room), typ, txnID} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	key := store.TxnKey{Device: device}
	copy(key.Hash[:], h.Sum(nil))
	return key
}

// Send sends an event into a room and returns its ID once it is durable. The same transaction answers the same ID, at
// once if it is known, together with the first attempt if that is still under way. Membership events have methods of
// their own, which check more; through here they are refused.
func (r *Rooms) Send(ctx context.Context, req SendRequest) (matrix.EventID, error) {
	if req.StateKey != nil {
		switch req.Type {
		case "m.room.member":
			return r.sendMember(ctx, req)
		case "m.room.create":
			return "", matrix.Forbidden("A room is created once.")
		}
		if err := r.checkState(ctx, req); err != nil {
			return "", err
		}
	}
	return r.send(ctx, req)
}

func (r *Rooms) send(ctx context.Context, req SendRequest) (matrix.EventID, error) {
	e := &entry{
		template: &matrix.Template{
			Sender: req.Sender.ID, Type: req.Type, StateKey: req.StateKey, Content: req.Content,
			Redacts: req.Redacts, OriginServerTS: req.TS,
		},
		sender: req.Sender.NID,
		txn:    req.Txn, txnID: req.TxnID,
	}
	u := newUnit(e)
	if req.Txn == (store.TxnKey{}) {
		return r.sendUnit(ctx, req.Room, u)
	}
	first, mine := r.enterTxn(req.Txn, u)
	if !mine {
		select {
		case <-first.done:
			return eventID(first, first.err)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return r.sendUnit(ctx, req.Room, u)
}

// sendUnit takes a unit of one event of ours through the door, with the agreement of the room's policy server if it has
// one.
func (r *Rooms) sendUnit(ctx context.Context, ref Ref, u *unit) (matrix.EventID, error) {
	err := r.append(ctx, ref, u)
	var need *needAgreement
	if errors.As(err, &need) {
		return r.sendAgreed(ctx, ref, need.by, u.entries[0])
	}
	return eventID(u, err)
}

// enterTxn registers a unit under its transaction, or finds the one that is under way.
func (r *Rooms) enterTxn(key store.TxnKey, u *unit) (first *unit, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first = r.inFlight[key]; first != nil {
		return first, false
	}
	r.inFlight[key] = u
	u.leave = func() {
		r.mu.Lock()
		delete(r.inFlight, key)
		r.mu.Unlock()
	}
	return u, true
}

// eventID is what a unit of one event answers.
func eventID(u *unit, err error) (matrix.EventID, error) {
	switch {
	case err != nil:
		return "", err
	case u.answered != "":
		return u.answered, nil
	}
	return u.entries[0].row.Event.ID(), nil
}
