package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/keys"
)

// RowsOptions are what an outbox needs that reads committed rows.
type RowsOptions struct {
	DB       *store.DB
	Identity *Identity
	Keys     KeyQueues // nil: there are no device lists and messages to devices to send
	Signals  *Signals  // nil: nothing that is not stored
}

// KeyQueues are the device lists and messages to devices that other servers are to get; *keys.Keys has them.
type KeyQueues interface {
	// OutgoingDeviceLists and OutgoingToDevice return EDUs after one position and up to another, and the position up
	// to which nothing else is to be sent once these are.
	OutgoingDeviceLists(ctx context.Context, server store.ServerNID, after, upTo store.Pos, limit int) ([]keys.EDU, store.Pos, error)
	OutgoingToDevice(ctx context.Context, server store.ServerNID, after, upTo store.Pos, limit int) ([]keys.EDU, store.Pos, error)
	// SentToDevice says that a server has got all messages up to a position.
	SentToDevice(ctx context.Context, server store.ServerNID, upTo store.Pos) error
	// Concerned names the servers that are to get something that came in a range.
	Concerned(ctx context.Context, after, upTo store.Pos) ([]store.ServerNID, error)
}

// Rows is the Outbox of committed rows. What one destination costs depends on what there is for it, not on how many
// rooms and destinations there are (laws 6 and 10).
type Rows struct {
	RowsOptions

	members roomServers
	called  map[store.ServerNID]matrix.ServerName // names that were asked for, at most maxKnownServers; for Concerned alone

	mu   sync.Mutex
	nids map[matrix.ServerName]store.ServerNID // of destinations, at most maxKnownServers
	sent map[store.ServerNID]store.Pos         // up to where messages to devices were deleted
}

// maxKnownServers bounds how many servers' numbers are kept.
const maxKnownServers = 20_000

// NewRows makes the outbox over a database.
func NewRows(o RowsOptions) *Rows {
	return &Rows{RowsOptions: o, members: roomServers{}, called: map[store.ServerNID]matrix.ServerName{}, nids: map[matrix.ServerName]store.ServerNID{}, sent: map[store.ServerNID]store.Pos{}}
}

// number finds the number of a server.
func (o *Rows) number(ctx context.Context, server matrix.ServerName) (store.ServerNID, error) {
	o.mu.Lock()
	nid, ok := o.nids[server]
	o.mu.Unlock()
	if ok {
		return nid, nil
	}
	nid, err := o.DB.Server(ctx, server)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.nids) >= maxKnownServers {
		clear(o.nids)
		clear(o.sent)
	}
	o.nids[server] = nid
	return nid, nil
}

// ours is our own number.
func (o *Rows) ours(ctx context.Context) (store.ServerNID, error) {
	return o.number(ctx, o.Identity.Name())
}

// end is where a range ends that is not bounded.
func (o *Rows) end(ctx context.Context, upTo store.Pos) (store.Pos, error) {
	if upTo != 0 {
		return upTo, nil
	}
	return o.DB.StreamBound(ctx)
}

// Start implements Outbox: a server gets what came since its first user came to a room that we are in. Messages to
// devices wait in a queue of their own.
func (o *Rows) Start(ctx context.Context, server matrix.ServerName) (store.Cursors, error) {
	nid, err := o.number(ctx, server)
	if err != nil {
		return store.Cursors{}, err
	}
	bound, err := o.DB.StreamBound(ctx)
	if err != nil {
		return store.Cursors{}, err
	}
	at := bound
	err = o.DB.Read(ctx, func(tx *store.Tx) error {
		first, found, err := tx.FirstSeen(nid)
		if at = bound; found {
			at = min(bound, max(first-1, 0))
		}
		return err
	})
	return store.Cursors{PDUs: at, DeviceLists: at, Others: at}, err
}

// Backlog implements Outbox.
func (o *Rows) Backlog(ctx context.Context, server matrix.ServerName, after store.Pos, limit int) (n int, bound store.Pos, err error) {
	nid, err := o.number(ctx, server)
	if err != nil {
		return 0, 0, err
	}
	if bound, err = o.DB.StreamBound(ctx); err != nil {
		return 0, 0, err
	}
	err = o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.CountOutgoing(nid, after, bound, limit)
		return err
	})
	return n, bound, err
}

// window is how many positions are looked at together, so that a page out of a long backlog does not sort all of it.
const window = 50_000

// PDUs implements Outbox.
func (o *Rows) PDUs(ctx context.Context, server matrix.ServerName, q PDUQuery) ([]PDU, store.Pos, error) {
	nid, err := o.number(ctx, server)
	if err != nil {
		return nil, 0, err
	}
	end, err := o.end(ctx, q.UpTo)
	if err != nil {
		return nil, 0, err
	}
	for after := q.After; ; {
		upTo := end
		if !q.LatestOnly {
			upTo = min(end, after+window)
		}
		var pdus []PDU
		var next store.Pos
		err := o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			pdus = nil
			err = tx.OutgoingEvents(nid, after, upTo, q.LatestOnly, q.Limit, func(e store.OutgoingEvent) {
				pdus = append(pdus, PDU{e.Pos, e.Room, e.ID, e.JSON})
			})
			if err == nil && len(pdus) == 0 && upTo < end {
				next, err = tx.NextEvent(upTo)
			}
			return err
		})
		switch {
		case err != nil:
			return nil, 0, err
		case len(pdus) == q.Limit:
			return pdus, pdus[len(pdus)-1].Pos, nil
		case len(pdus) > 0 || upTo >= end:
			return pdus, max(upTo, q.After), nil
		}
		if next == 0 || next > end {
			return nil, max(end, q.After), nil
		}
		after = next - 1 // a restore leaves out more positions than can be looked through
	}
}

// EDUs implements Outbox: device lists, then messages to devices, then receipts.
func (o *Rows) EDUs(ctx context.Context, server matrix.ServerName, q EDUQuery) ([]EDU, store.Cursors, error) {
	to := q.From
	nid, err := o.number(ctx, server)
	if err != nil {
		return nil, to, err
	}
	out := &eduBatch{limit: q.Limit, bytes: q.Bytes}
	if o.Keys != nil {
		if err := o.sentToDevice(ctx, nid, q.From.ToDevice); err != nil {
			return nil, to, err
		}
		if to.DeviceLists, err = o.keyEDUs(ctx, out, nid, q.From.DeviceLists, q.UpTo.DeviceLists, o.Keys.OutgoingDeviceLists); err != nil {
			return nil, to, err
		}
		if to.ToDevice, err = o.keyEDUs(ctx, out, nid, q.From.ToDevice, q.UpTo.ToDevice, o.Keys.OutgoingToDevice); err != nil {
			return nil, to, err
		}
	}
	to.Others, err = o.receipts(ctx, out, nid, q.From.Others, q.UpTo.Others)
	return out.edus, to, err
}

// sentToDevice lets delivered messages be deleted, once for each position.
func (o *Rows) sentToDevice(ctx context.Context, nid store.ServerNID, upTo store.Pos) error {
	o.mu.Lock()
	done := upTo == 0 || o.sent[nid] >= upTo
	o.mu.Unlock()
	if done {
		return nil
	}
	if err := o.Keys.SentToDevice(ctx, nid, upTo); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent[nid] = max(o.sent[nid], upTo)
	return nil
}

// eduBatch gathers EDUs within the limits of a transaction.
type eduBatch struct {
	limit, bytes int
	edus         []EDU
}

// add reports false, and takes nothing, if the EDU does not fit any more. The first always does.
func (b *eduBatch) add(typ string, content json.RawMessage) (bool, error) {
	text, err := json.Marshal(map[string]any{"edu_type": typ, "content": content})
	if err != nil {
		return false, fmt.Errorf("encoding an EDU of type %s: %w", typ, err)
	}
	if len(b.edus) > 0 && (len(b.edus) >= b.limit || len(text) > b.bytes) {
		return false, nil
	}
	b.bytes -= len(text)
	b.edus = append(b.edus, EDU{typ, text})
	return true, nil
}

func (b *eduBatch) full() bool { return len(b.edus) >= b.limit || b.bytes <= 0 }

// quiet says whether it is certain without asking the database that there are no EDUs after one position and up to another:
// nothing happened but that events were sent, as in nearly all ranges while many are.
func (o *Rows) quiet(after, upTo store.Pos) bool {
	if upTo <= after {
		return true
	}
	commits, known := o.DB.Committed(after, upTo)
	if !known {
		return false
	}
	_, only := onlyEvents(commits, after, upTo)
	return only
}

// outgoing is one of the queues of KeyQueues.
type outgoing func(ctx context.Context, server store.ServerNID, after, upTo store.Pos, limit int) ([]keys.EDU, store.Pos, error)

// keyEDUs adds a queue's EDUs and returns where it stands once they are sent.
func (o *Rows) keyEDUs(ctx context.Context, out *eduBatch, nid store.ServerNID, after, upTo store.Pos, queue outgoing) (store.Pos, error) {
	if out.full() {
		return after, nil
	}
	end, err := o.end(ctx, upTo)
	if err != nil {
		return after, err
	}
	if o.quiet(after, end) {
		return max(end, after), nil
	}
	for want := out.limit - len(out.edus); want > 0; want /= 2 { // fewer, if so many are too large
		edus, last, err := queue(ctx, nid, after, end, want)
		if err != nil {
			return after, err
		}
		mark := *out
		whole := true
		for _, e := range edus {
			fits, err := out.add(e.Type, e.Content)
			if err != nil {
				return after, err
			}
			whole = whole && fits
		}
		if whole {
			return max(last, after), nil
		}
		*out = mark
	}
	return after, nil
}

// maxReceipts bounds the receipts that one transaction carries.
const maxReceipts = 500

// receiptNames are the types of receipts that other servers get.
var receiptNames = map[store.ReceiptKind]string{store.ReadReceipt: "m.read", store.DeliveredReceipt: "im.conclave.delivered"}

// receipts adds the receipts of our users, together for each room.
func (o *Rows) receipts(ctx context.Context, out *eduBatch, nid store.ServerNID, after, upTo store.Pos) (store.Pos, error) {
	if out.full() {
		return after, nil
	}
	own, err := o.ours(ctx)
	if err != nil {
		return after, err
	}
	end, err := o.end(ctx, upTo)
	if err != nil {
		return after, err
	}
	if o.quiet(after, end) {
		return max(end, after), nil
	}
	var rows []store.OutgoingReceipt
	err = o.DB.Read(ctx, func(tx *store.Tx) error {
		rows = nil
		return tx.OutgoingReceipts(nid, own, after, end, maxReceipts, func(r store.OutgoingReceipt) { rows = append(rows, r) })
	})
	if err != nil {
		return after, err
	}
	if len(rows) == maxReceipts {
		end = rows[len(rows)-1].Pos
	}
	contents, last, whole := packReceipts(rows, out.limit-len(out.edus))
	for _, content := range contents {
		data, err := json.Marshal(content)
		if err != nil {
			return after, err
		}
		fits, err := out.add("m.receipt", data)
		if err != nil {
			return after, err
		}
		if !fits {
			return after, nil // none of these counts as sent; what was added already does no harm
		}
	}
	if !whole {
		return last, nil
	}
	return max(end, after), nil
}

// receiptData is a user's receipt in an m.receipt EDU.
type receiptData struct {
	Data struct {
		TS     int64  `json:"ts"`
		Thread string `json:"thread_id,omitempty"`
	} `json:"data"`
	Events []matrix.EventID `json:"event_ids"`
}

// receiptContent is the content of m.receipt: by room, type and user.
type receiptContent map[matrix.RoomID]map[string]map[matrix.UserID]receiptData

// packReceipts puts receipts into as few EDUs as hold them, since one has room for one receipt of a user, room and type
// only; at most limit of them. last is the position up to which they are in, whole whether all are.
func packReceipts(rows []store.OutgoingReceipt, limit int) (contents []receiptContent, last store.Pos, whole bool) {
	for _, r := range rows {
		var d receiptData
		d.Data.TS, d.Data.Thread, d.Events = r.TS, r.Thread, []matrix.EventID{r.Event}
		name, at := receiptNames[r.Kind], 0
		for at < len(contents) {
			if _, taken := contents[at][r.Room][name][r.User]; !taken {
				break
			}
			at++
		}
		if at == len(contents) {
			if at == limit {
				return contents, last, false
			}
			contents = append(contents, receiptContent{})
		}
		room := contents[at][r.Room]
		if room == nil {
			room = map[string]map[matrix.UserID]receiptData{}
			contents[at][r.Room] = room
		}
		if room[name] == nil {
			room[name] = map[matrix.UserID]receiptData{}
		}
		room[name][r.User] = d
		last = r.Pos
	}
	return contents, last, true
}

// Ephemeral implements Outbox.
func (o *Rows) Ephemeral(server matrix.ServerName, limit int) []EDU {
	if o.Signals == nil {
		return nil
	}
	return o.Signals.take(server, limit)
}
