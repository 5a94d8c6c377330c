package sync

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// ClientEvent is the client form of a row without anything that depends on who reads it.
func ClientEvent(row *store.EventRow) json.RawMessage {
	return matrix.ClientEvent(row.Event, nil, true)
}

// ClientEvents is ClientEvent for several.
func ClientEvents(rows []*store.EventRow) []json.RawMessage {
	out := make([]json.RawMessage, len(rows))
	for i, row := range rows {
		out[i] = ClientEvent(row)
	}
	return out
}

// clientForm is an event's client form as built once (law 7), and the row that it was built from: a redaction makes a
// new row, and with it a new form.
type clientForm struct {
	row  *store.EventRow
	text json.RawMessage
	age  uint64 // the engine's count of redactions as the form was built, if it shows what a state event replaced; else 0

	had   *store.EventRow // what a state event replaced, if some of its readers may not see that; nil if all may
	guard json.RawMessage // for those who may not: the text without prev_content
}

// Timeline writes events for a reader: in the form that all share, with the reader's own transaction IDs and the age
// added, and without what the reader may not see.
func (e *Engine) Timeline(ctx context.Context, who Viewpoint, ref rooms.Ref, rows []*store.EventRow) ([]json.RawMessage, error) {
	return e.timeline(ctx, who, ref, rows, nil)
}

// timeline is Timeline with what relates to some of the events.
func (e *Engine) timeline(ctx context.Context, who Viewpoint, ref rooms.Ref, rows []*store.EventRow, relations map[store.EventNID]json.RawMessage) ([]json.RawMessage, error) {
	if len(rows) == 0 {
		return []json.RawMessage{}, nil
	}
	txns, err := e.ownTxns(ctx, who, rows)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(rows))
	now := time.Now().UnixMilli()
	w := &reading{e: e, ref: ref, user: who.User}
	for i, row := range rows {
		text, err := w.text(ctx, row)
		if err != nil {
			return nil, err
		}
		own := strconv.AppendInt([]byte(`"age":`), now-row.Event.OriginServerTS(), 10)
		membership, err := w.membership(ctx, row)
		if err != nil {
			return nil, err
		}
		if membership != "" {
			own = matrix.AppendString(append(own, `,"membership":`...), membership)
		}
		if txn := txns[row.NID]; txn != "" {
			own = matrix.AppendString(append(own, `,"transaction_id":`...), txn)
		}
		if related := relations[row.NID]; related != nil {
			own = append(append(own, `,"m.relations":`...), related...)
		}
		out[i] = withUnsigned(text, own)
	}
	return out, nil
}

// reading is the writing of some events of a room for one reader.
type reading struct {
	e    *Engine
	ref  rooms.Ref
	user rooms.Sender
	sees *rooms.Visibility // nil until it is needed
}

// text is an event's client form as far as the reader may have it.
func (w *reading) text(ctx context.Context, row *store.EventRow) (json.RawMessage, error) {
	form, err := w.e.form(ctx, w.ref, row)
	if err != nil || form.had == nil {
		return form.text, err
	}
	if w.sees == nil {
		viewer, err := w.e.rooms.Viewer(ctx, w.ref.NID, w.user)
		if err != nil {
			return nil, err
		}
		w.sees = w.e.rooms.VisibleTo(w.ref, viewer)
	}
	if ok, err := w.sees.MaySeeReplaced(ctx, row, form.had); err != nil || ok {
		return form.text, err
	}
	return form.guard, nil
}

// wasKey names what a user was in a room, as one state of its members has it.
type wasKey struct {
	room    store.RoomNID
	members [16]byte
	user    store.UserNID
}

// membership is what the reader was in the room at an event, the event included (unsigned.membership); "" if that is not
// known, or nobody in particular reads. It is remembered by the state of the members, which most events share.
func (w *reading) membership(ctx context.Context, row *store.EventRow) (string, error) {
	if w.user.NID == 0 || row.After == nil {
		return "", nil
	}
	key := wasKey{w.ref.NID, [16]byte(row.StateAfter().Members), w.user.NID}
	if was, ok := w.e.was.GetIfPresent(key); ok {
		return was.String(), nil
	}
	member, err := w.e.rooms.StateEvent(ctx, w.ref.NID, row.StateAfter(), "m.room.member", string(w.user.ID))
	if err != nil {
		return "", err
	}
	was := store.Leave // so says the specification of somebody who has no membership
	if member != nil {
		if of := store.MembershipOf(member.Event.Membership()); of != store.NotMember {
			was = of
		}
	}
	w.e.was.Set(key, was)
	return was.String(), nil
}

// form is an event's client form, from memory or built.
func (e *Engine) form(ctx context.Context, ref rooms.Ref, row *store.EventRow) (clientForm, error) {
	redactions := e.redactions.Load() + e.db.Erasures()
	if form, ok := e.forms.GetIfPresent(row.NID); ok && form.row == row && (form.age == 0 || form.age == redactions) {
		return form, nil
	}
	unsigned, had, err := e.unsigned(ctx, ref, row)
	if err != nil {
		return clientForm{}, err
	}
	form := clientForm{row: row, text: matrix.ClientEvent(row.Event, encodeUnsigned(unsigned), true)}
	if had != nil {
		form.age = redactions // what it replaced may lose its content
		all, err := e.rooms.AllSeeReplaced(ctx, ref, row, had)
		if err != nil {
			return form, err
		}
		if !all {
			delete(unsigned, "prev_content")
			delete(unsigned, "prev_sender")
			form.had, form.guard = had, matrix.ClientEvent(row.Event, encodeUnsigned(unsigned), true)
		}
	}
	if !row.Flags.Has(store.FlagErased) { // which is a copy for some of its readers
		e.forms.Set(row.NID, form)
	}
	return form, nil
}

// withUnsigned adds a member to the unsigned of a client event, which is its last member if it has one. A type, which
// would be the last otherwise, is no object.
func withUnsigned(event json.RawMessage, member []byte) json.RawMessage {
	out := make(json.RawMessage, 0, len(event)+len(member)+16)
	if bytes.HasSuffix(event, []byte("}}")) {
		out = append(append(out, event[:len(event)-2]...), ',')
		return append(append(out, member...), "}}"...)
	}
	out = append(append(out, event[:len(event)-1]...), `,"unsigned":{`...)
	return append(append(out, member...), "}}"...)
}

func encodeUnsigned(unsigned map[string]any) []byte {
	if unsigned == nil {
		return nil
	}
	raw, err := json.Marshal(unsigned)
	if err != nil {
		return nil
	}
	return raw
}

// ownTxns finds the transaction IDs of events that the reader's device sent itself.
func (e *Engine) ownTxns(ctx context.Context, who Viewpoint, rows []*store.EventRow) (map[store.EventNID]string, error) {
	var own []store.EventNID
	for _, row := range rows {
		if _, known := who.txns[row.NID]; who.sent(row) && !known {
			own = append(own, row.NID)
		}
	}
	if len(own) == 0 {
		return who.txns, nil
	}
	txns := map[store.EventNID]string{}
	err := e.db.Read(ctx, func(tx *store.Tx) error {
		maps.Copy(txns, who.txns)
		return tx.TxnsOf(who.Device, own, func(nid store.EventNID, txn string) { txns[nid] = txn })
	})
	return txns, err
}

// unsigned is what a server says of an event beside its text: what a state event replaced, which is had, and what
// redacted it.
func (e *Engine) unsigned(ctx context.Context, ref rooms.Ref, row *store.EventRow) (out map[string]any, had *store.EventRow, err error) {
	if key, ok := row.Event.StateKey(); ok && row.Before != nil {
		had, err = e.rooms.StateEvent(ctx, ref.NID, *row.Before, row.Event.Type(), key)
		if err != nil {
			return nil, nil, err
		}
		if had != nil {
			out = map[string]any{
				"prev_content": json.RawMessage(had.Event.Content()), "replaces_state": had.Event.ID(), "prev_sender": had.Event.Sender(),
			}
		}
	}
	if !row.Flags.Has(store.FlagRedacted) {
		return out, had, nil
	}
	var because *store.EventRow
	err = e.db.Read(ctx, func(tx *store.Tx) (err error) {
		because, err = tx.RedactionOf(ref.NID, row.Event.ID())
		return err
	})
	if err != nil || because == nil {
		return out, had, err
	}
	if out == nil {
		out = map[string]any{}
	}
	out["redacted_because"] = ClientEvent(because)
	return out, had, nil
}

// maxReceipts bounds the receipts of one room in one response, newest first.
const maxReceipts = 500

var receiptNames = map[store.ReceiptKind]string{
	store.ReadReceipt: "m.read", store.PrivateReceipt: "m.read.private", store.DeliveredReceipt: "im.conclave.delivered",
}

// receiptEvent is m.receipt with what changed between two positions, nil if nothing did.
func (e *Engine) receiptEvent(ctx context.Context, viewer rooms.Sender, ref rooms.Ref, after, upTo store.Pos) (json.RawMessage, error) {
	var list []store.Receipt
	err := e.db.Read(ctx, func(tx *store.Tx) error {
		list = nil
		add := func(r store.Receipt) { list = append(list, r) }
		err := tx.Receipts(ref.NID, viewer.NID, after, upTo, maxReceipts, add)
		if err != nil || len(list) < maxReceipts {
			return err
		}
		return tx.OwnReceipts(ref.NID, viewer.NID, after, upTo, add) // which are never left out
	})
	if err != nil {
		return nil, err
	}
	return receiptsEvent(list)
}

// receiptsEvent is m.receipt with some receipts of a room, nil if there are none.
func receiptsEvent(list []store.Receipt) (json.RawMessage, error) {
	if len(list) == 0 {
		return nil, nil
	}
	content := map[matrix.EventID]map[string]map[matrix.UserID]map[string]any{}
	for _, r := range list {
		kinds := content[r.Event]
		if kinds == nil {
			kinds = map[string]map[matrix.UserID]map[string]any{}
			content[r.Event] = kinds
		}
		name := receiptNames[r.Kind]
		if kinds[name] == nil {
			kinds[name] = map[matrix.UserID]map[string]any{}
		}
		receipt := map[string]any{"ts": r.TS}
		if r.Thread != "" {
			receipt["thread_id"] = r.Thread
		}
		kinds[name][r.UserID] = receipt
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return typedEvent("m.receipt", string(raw)), nil
}
