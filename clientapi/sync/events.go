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
	for i, row := range rows {
		form, err := e.form(ctx, ref, row)
		if err != nil {
			return nil, err
		}
		text := form.text
		if form.had != nil {
			ok, err := e.rooms.MaySeeReplaced(ctx, ref, who.User, row, form.had)
			if err != nil {
				return nil, err
			}
			if !ok {
				text = form.guard
			}
		}
		if txn := txns[row.NID]; txn != "" {
			text = withUnsigned(text, matrix.AppendString([]byte(`"transaction_id":`), txn))
		}
		if related := relations[row.NID]; related != nil {
			text = withUnsigned(text, append([]byte(`"m.relations":`), related...))
		}
		out[i] = withUnsigned(text, strconv.AppendInt([]byte(`"age":`), now-row.Event.OriginServerTS(), 10))
	}
	return out, nil
}

// form is an event's client form, from memory or built.
func (e *Engine) form(ctx context.Context, ref rooms.Ref, row *store.EventRow) (clientForm, error) {
	if form, ok := e.forms.GetIfPresent(row.NID); ok && form.row == row {
		return form, nil
	}
	unsigned, had, err := e.unsigned(ctx, ref, row)
	if err != nil {
		return clientForm{}, err
	}
	form := clientForm{row: row, text: matrix.ClientEvent(row.Event, encodeUnsigned(unsigned), true)}
	if had != nil {
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
	e.forms.Set(row.NID, form)
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
		return tx.Receipts(ref.NID, viewer.NID, after, upTo, maxReceipts, func(r store.Receipt) { list = append(list, r) })
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
