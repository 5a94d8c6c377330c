package clientapi

import (
	"bufio"
	"context"
	"encoding/json"
	"math"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// exportRows is how many rows of anything an export reads at a time.
const exportRows = 500

// exportedRoom is the first line of a room's file.
type exportedRoom struct {
	ID         matrix.RoomID     `json:"room_id"`
	Version    string            `json:"room_version"`
	Membership string            `json:"membership"`
	State      []json.RawMessage `json:"state"` // the room's own, and what the account has set or is
	Receipts   []exportedReceipt `json:"receipts"`
}

// exportedReceipt says how far the account has read a room or one of its threads. What m.fully_read says stands in the account data.
type exportedReceipt struct {
	Type   string         `json:"type"`
	Thread string         `json:"thread_id,omitempty"`
	Event  matrix.EventID `json:"event_id"`
	TS     int64          `json:"ts"`
}

// receiptTypes are those of the specification, and ours.
var receiptTypes = map[store.ReceiptKind]string{
	store.ReadReceipt: "m.read", store.PrivateReceipt: "m.read.private", store.DeliveredReceipt: "im.conclave.delivered",
}

// receipts reads how far the account has read a room.
func (m *export) receipts(ctx context.Context, room store.RoomNID) (list []exportedReceipt, err error) {
	err = m.x.s.DB.Read(ctx, func(tx *store.Tx) error {
		list = []exportedReceipt{}
		return tx.OwnReceipts(room, m.account.User, 0, math.MaxInt64, func(r store.Receipt) {
			list = append(list, exportedReceipt{receiptTypes[r.Kind], r.Thread, r.Event, r.TS})
		})
	})
	return list, err
}

// shownState are the types of state that tell what a room is.
var shownState = map[string]bool{
	"m.room.create": true, "m.room.name": true, "m.room.topic": true, "m.room.avatar": true, "m.room.canonical_alias": true, "m.room.encryption": true,
	"m.room.join_rules": true, "m.room.history_visibility": true,
}

// writeRoom writes what there is of a room: a line about it, and then a line for each event that the account may see, oldest
// first, as clients get them. Nothing is fetched from other servers.
func (m *export) writeRoom(ctx context.Context, out *bufio.Writer, nid store.RoomNID) error {
	r := m.x.s.Rooms
	ref, err := r.LookupNID(ctx, nid)
	if err != nil {
		return err
	}
	viewer, err := r.Viewer(ctx, nid, rooms.Sender{NID: m.account.User, ID: m.account.ID})
	if err != nil || viewer.Member == nil { // forgotten meanwhile
		return err
	}
	about, err := m.aboutRoom(ctx, ref, viewer)
	if err != nil {
		return err
	}
	if err := line(out, about); err != nil {
		return err
	}
	from := rooms.Place{}
	for {
		page, err := r.Page(ctx, rooms.PageRequest{Ref: ref, Viewer: viewer, From: from, Limit: exportRows})
		if err != nil {
			return err
		}
		for _, row := range page.Events {
			if _, err := out.Write(append(sync.ClientEvent(row), '\n')); err != nil {
				return err
			}
		}
		if page.Done {
			return nil
		}
		from = page.End
	}
}

func (m *export) aboutRoom(ctx context.Context, ref rooms.Ref, viewer rooms.Viewer) (exportedRoom, error) {
	about := exportedRoom{ID: ref.ID, Version: ref.Version.String(), Membership: viewer.Member.Membership.String(), State: []json.RawMessage{}}
	r := m.x.s.Rooms
	state, err := r.ViewedState(ctx, ref.NID, viewer)
	if err != nil {
		return about, err
	}
	rows, err := r.AllState(ctx, ref.NID, state, false)
	if err != nil {
		return about, err
	}
	if about.Receipts, err = m.receipts(ctx, ref.NID); err != nil {
		return about, err
	}
	own, err := r.StateEvent(ctx, ref.NID, state, "m.room.member", string(m.account.ID))
	if err != nil {
		return about, err
	}
	if own != nil {
		rows = append(rows, own)
	}
	for _, row := range rows {
		if shownState[row.Event.Type()] || row.Sender == m.account.User || row.Event.StateKeyEquals(string(m.account.ID)) {
			about.State = append(about.State, sync.ClientEvent(row))
		}
	}
	return about, nil
}

// line writes a value as a line of JSON.
func line(out *bufio.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = out.Write(append(raw, '\n'))
	return err
}
