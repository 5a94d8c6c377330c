package sync

import (
	"context"
	"encoding/json"

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
}

// Timeline writes events for a reader: in the form that all share, with the reader's own transaction IDs added.
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
	for i, row := range rows {
		txn, related := txns[row.NID], relations[row.NID]
		shared := txn == "" && related == nil
		if form, ok := e.forms.GetIfPresent(row.NID); ok && form.row == row && shared {
			out[i] = form.text
			continue
		}
		unsigned, err := e.unsigned(ctx, ref, row)
		if err != nil {
			return nil, err
		}
		if unsigned == nil && !shared {
			unsigned = map[string]any{}
		}
		if txn != "" {
			unsigned["transaction_id"] = txn
		}
		if related != nil {
			unsigned["m.relations"] = related
		}
		out[i] = matrix.ClientEvent(row.Event, encodeUnsigned(unsigned), true)
		if shared {
			e.forms.Set(row.NID, clientForm{row, out[i]})
		}
	}
	return out, nil
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
		if row.Sender == who.User.NID && !row.Event.IsState() {
			own = append(own, row.NID)
		}
	}
	if len(own) == 0 || who.Device == 0 {
		return nil, nil
	}
	txns := map[store.EventNID]string{}
	err := e.db.Read(ctx, func(tx *store.Tx) error {
		return tx.TxnsOf(who.Device, own, func(nid store.EventNID, txn string) { txns[nid] = txn })
	})
	return txns, err
}

// unsigned is what a server says of an event beside its text: what a state event replaced, what redacted it.
func (e *Engine) unsigned(ctx context.Context, ref rooms.Ref, row *store.EventRow) (map[string]any, error) {
	var out map[string]any
	if key, ok := row.Event.StateKey(); ok && row.Before != nil {
		had, err := e.rooms.StateEvent(ctx, ref.NID, *row.Before, row.Event.Type(), key)
		if err != nil {
			return nil, err
		}
		if had != nil {
			out = map[string]any{
				"prev_content": json.RawMessage(had.Event.Content()), "replaces_state": had.Event.ID(), "prev_sender": had.Event.Sender(),
			}
		}
	}
	if !row.Flags.Has(store.FlagRedacted) {
		return out, nil
	}
	var because *store.EventRow
	err := e.db.Read(ctx, func(tx *store.Tx) (err error) {
		because, err = tx.RedactionOf(ref.NID, row.Event.ID())
		return err
	})
	if err != nil || because == nil {
		return out, err
	}
	if out == nil {
		out = map[string]any{}
	}
	out["redacted_because"] = ClientEvent(because)
	return out, nil
}

// maxReceipts bounds the receipts of one room in one response, newest first.
const maxReceipts = 500

var receiptNames = map[store.ReceiptKind]string{
	store.ReadReceipt: "m.read", store.PrivateReceipt: "m.read.private", store.DeliveredReceipt: "im.conclave.delivered",
}

// receiptEvent is m.receipt with what changed between two positions, nil if nothing did.
func (e *Engine) receiptEvent(ctx context.Context, viewer rooms.Sender, ref rooms.Ref, after, upTo store.Pos) (json.RawMessage, error) {
	content := map[matrix.EventID]map[string]map[matrix.UserID]map[string]any{}
	err := e.db.Read(ctx, func(tx *store.Tx) error {
		clear(content)
		return tx.Receipts(ref.NID, viewer.NID, after, upTo, maxReceipts, func(r store.Receipt) {
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
		})
	})
	if err != nil || len(content) == 0 {
		return nil, err
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return typedEvent("m.receipt", string(raw)), nil
}
