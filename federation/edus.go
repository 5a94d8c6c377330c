package federation

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// effect is what an EDU leaves in the database.
type effect func(tx *store.Tx) error

// eduReceiver takes in an EDU: what lasts is returned, to be written with the transaction that it came in. A
// *matrix.Error says that the EDU is not usable.
type eduReceiver func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) ([]effect, error)

// eduReceivers are the EDUs that are understood; others are passed over.
var eduReceivers = withKeys(map[string]eduReceiver{
	"m.receipt":  (*Server).takeReceipts,
	"m.typing":   (*Server).takeTyping,
	"m.presence": (*Server).takePresence,
})

// withKeys adds the receivers of package keys, which write what lasts themselves: each of their EDUs can be repeated.
func withKeys(all map[string]eduReceiver) map[string]eduReceiver {
	for typ, receive := range keyEDUs {
		all[typ] = func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) ([]effect, error) {
			return nil, receive(s, ctx, origin, content)
		}
	}
	return all
}

// member finds a user of the sending server in a room that we are in and that its access list admits the server to
// (threats F18, F20). Non-compliant user IDs are for events only (appendices, "Historical User IDs").
func (s *Server) member(ctx context.Context, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID) (rooms.Ref, rooms.Sender, error) {
	if _, err := matrix.ParseUserID(string(user)); err != nil || !user.Compliant() || user.Server() != origin {
		return rooms.Ref{}, rooms.Sender{}, matrix.Forbidden("%.100q is not a user of %s.", user, origin)
	}
	r := s.options.Rooms
	ref, err := r.Lookup(ctx, room)
	if err != nil {
		return ref, rooms.Sender{}, err
	}
	allowed, err := r.ServerAllowed(ctx, ref, origin)
	if err != nil {
		return ref, rooms.Sender{}, err
	}
	if !allowed {
		return ref, rooms.Sender{}, matrix.Forbidden("The room's access list shuts out %s.", origin)
	}
	row, err := r.MembershipByID(ctx, ref.NID, user)
	if err != nil {
		return ref, rooms.Sender{}, err
	}
	if row == nil || row.Membership != store.Join {
		return ref, rooms.Sender{}, matrix.Forbidden("%.100s is not in the room.", user)
	}
	return ref, rooms.Sender{NID: row.Member, ID: user}, nil
}

// remoteTyping is how long typing lasts of which no end comes.
const remoteTyping = 30 * time.Second

// takeTyping takes in m.typing.
func (s *Server) takeTyping(ctx context.Context, origin matrix.ServerName, content []byte) ([]effect, error) {
	var body struct {
		Room   matrix.RoomID `json:"room_id"`
		User   matrix.UserID `json:"user_id"`
		Typing bool          `json:"typing"`
	}
	if err := matrix.Decode(content, &body); err != nil {
		return nil, err
	}
	ref, user, err := s.member(ctx, origin, body.Room, body.User)
	if err != nil || s.options.Typing == nil {
		return nil, err
	}
	lasts := time.Duration(0)
	if body.Typing {
		lasts = remoteTyping
	}
	s.options.Typing(ref.NID, user.ID, lasts)
	return nil, nil
}

// takenReceipts are the types of receipts that other servers may send.
var takenReceipts = map[string]store.ReceiptKind{"m.read": store.ReadReceipt, "im.conclave.delivered": store.DeliveredReceipt}

// maxEDUReceipts bounds how many receipts of one EDU are looked at.
const maxEDUReceipts = 1000

// takeReceipts takes in m.receipt: each receipt is judged on its own.
func (s *Server) takeReceipts(ctx context.Context, origin matrix.ServerName, content []byte) ([]effect, error) {
	var body map[matrix.RoomID]map[string]map[matrix.UserID]json.RawMessage
	if err := matrix.Decode(content, &body); err != nil {
		return nil, err
	}
	var lasting []effect
	left := maxEDUReceipts
	for room, types := range body {
		for typ, users := range types {
			kind, known := takenReceipts[typ]
			if !known {
				continue
			}
			for user, raw := range users {
				if left--; left < 0 {
					return lasting, nil
				}
				write, err := s.readReceipt(ctx, origin, room, user, kind, raw)
				var unusable *matrix.Error
				switch {
				case errors.As(err, &unusable):
					s.log.Debug("a receipt has no effect", "origin", origin, "room", room, "err", err)
				case err != nil:
					return nil, err
				default:
					lasting = append(lasting, write)
				}
			}
		}
	}
	return lasting, nil
}

// readReceipt checks one receipt: of a user of that server who is in the room, for an event that is there or still to come.
func (s *Server) readReceipt(ctx context.Context, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID, kind store.ReceiptKind, raw []byte) (effect, error) {
	var data receiptData
	if err := matrix.Decode(raw, &data); err != nil {
		return nil, err
	}
	if len(data.Events) != 1 || len(data.Data.Thread) > maxTxnID || !matrix.IsText(data.Data.Thread) {
		return nil, matrix.BadJSON("A receipt names one event.")
	}
	ref, who, err := s.member(ctx, origin, room, user)
	if err != nil {
		return nil, err
	}
	return s.options.Rooms.RemoteReceipt(ctx, ref, store.Receipt{
		Room: ref.NID, User: who.NID, Kind: kind, Thread: data.Data.Thread, Event: data.Events[0], TS: data.Data.TS,
	})
}
