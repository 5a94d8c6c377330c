package appservice

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of one transaction.
const (
	maxEvents   = 100
	maxLooked   = 500     // events that are looked at
	maxBytes    = 4 << 20 // of events; one alone may be as large as it is
	maxRange    = 5000    // positions
	maxReceipts = 5000    // of one room: as many as can be in a range
	maxInterest = 20_000  // rooms that are remembered
)

// batch is what a service is to be told of a range of the stream.
type batch struct {
	upTo      store.Pos
	outside   map[*store.EventRow][]byte // of rooms that we are not in: what is unsigned
	events    []json.RawMessage
	ephemeral []json.RawMessage
	typed     int64
	shown     int64
	sealed
}

func (b *batch) empty() bool { return len(b.events) == 0 && len(b.ephemeral) == 0 && b.sealed.empty() }

// transaction is the body of PUT /transactions/{txnId}.
type transaction struct {
	Events    []json.RawMessage `json:"events"`
	Ephemeral []json.RawMessage `json:"ephemeral,omitempty"`
	Legacy    []json.RawMessage `json:"de.sorunome.msc2409.ephemeral,omitempty"` // as services before v1.13 read it

	// Of encryption, under the names that proposals give as long as the specification has none.
	ToDevice []json.RawMessage                                    `json:"de.sorunome.msc2409.to_device,omitempty"`
	Lists    *deviceLists                                         `json:"org.matrix.msc3202.device_lists,omitempty"`
	Counts   map[matrix.UserID]map[matrix.DeviceID]map[string]int `json:"org.matrix.msc3202.device_one_time_keys_count,omitempty"`
	Unused   map[matrix.UserID]map[matrix.DeviceID][]string       `json:"org.matrix.msc3202.device_unused_fallback_key_types,omitempty"`
}

// usable drops what is no JSON: one item that should not be there must not keep a service from all that follows. It says how
// many were dropped.
func (b *batch) usable() (dropped int) {
	for _, list := range []*[]json.RawMessage{&b.events, &b.ephemeral, &b.messages} {
		all := len(*list)
		*list = slices.DeleteFunc(*list, func(item json.RawMessage) bool { return !json.Valid(item) })
		dropped += all - len(*list)
	}
	return dropped
}

func (b *batch) body() transaction {
	events := b.events
	if events == nil {
		events = []json.RawMessage{}
	}
	return transaction{
		Events: events, Ephemeral: b.ephemeral, Legacy: b.ephemeral, ToDevice: b.messages, Lists: b.lists, Counts: b.counts, Unused: b.unused,
	}
}

// collect finds what concerns the service after one position and up to another, or as much of it as one transaction
// carries.
func (c *courier) collect(ctx context.Context, after, bound store.Pos) (*batch, error) {
	b := &batch{upTo: min(bound, after+maxRange), outside: map[*store.EventRow][]byte{}, typed: c.typed, shown: c.shown}
	if after < b.upTo {
		if err := c.persisted(ctx, b, after); err != nil {
			return nil, err
		}
	}
	if c.s.Ephemeral {
		if err := c.passing(ctx, b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// persisted adds what the stream has after a position.
func (c *courier) persisted(ctx context.Context, b *batch, after store.Pos) error {
	var rows []*store.EventRow
	var changes []store.Change
	err := c.d.DB.Read(ctx, func(tx *store.Tx) error {
		rows, changes = nil, nil
		if err := tx.Stream(after, b.upTo, maxLooked, func(row *store.EventRow) { rows = append(rows, row) }); err != nil {
			return err
		}
		if len(rows) == maxLooked {
			b.upTo = rows[len(rows)-1].Pos
		}
		return tx.Changes(after, b.upTo, func(ch store.Change) { changes = append(changes, ch) })
	})
	if err != nil {
		return err
	}
	c.forget(changes, rows)
	if rows, err = c.wanted(ctx, b, rows); err != nil {
		return err
	}
	if rows, err = c.encryption(ctx, b, after, rows, changes); err != nil {
		return err
	}
	if rows, err = c.outsideOf(ctx, b, rows, changes); err != nil {
		return err
	}
	if b.events, err = c.write(ctx, b, rows); err != nil {
		return err
	}
	if !c.s.Ephemeral {
		return nil
	}
	return c.receipts(ctx, b, after, changes)
}

// wanted keeps the events that concern the service, and ends the batch where a transaction is full.
func (c *courier) wanted(ctx context.Context, b *batch, rows []*store.EventRow) ([]*store.EventRow, error) {
	var out []*store.EventRow
	size := 0
	for _, row := range rows {
		if row.Pos > b.upTo {
			break
		}
		yes, err := c.concerns(ctx, row)
		if err != nil {
			return nil, err
		}
		if !yes {
			continue
		}
		size += len(row.Event.JSON())
		if len(out) == maxEvents || size > maxBytes && len(out) > 0 {
			b.upTo = row.Pos - 1
			break
		}
		out = append(out, row)
	}
	return out, nil
}

// write writes events as clients see them.
func (c *courier) write(ctx context.Context, b *batch, rows []*store.EventRow) ([]json.RawMessage, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	events, err := c.d.Source.Events(ctx, rows)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		if unsigned, ok := b.outside[row]; ok {
			events[i] = matrix.ClientEvent(row.Event, unsigned, true)
		}
	}
	return events, nil
}

// outsideOf adds what happened to the service's users in rooms that we are not in, which the stream knows as changes of
// membership alone: invitations, and how these end.
func (c *courier) outsideOf(ctx context.Context, b *batch, rows []*store.EventRow, changes []store.Change) ([]*store.EventRow, error) {
	moves, err := c.moves(ctx, b, changes)
	if err != nil || len(moves) == 0 {
		return rows, err
	}
	inStream := map[store.EventNID]bool{}
	for _, row := range rows {
		inStream[row.NID] = true
	}
	var found []outsider
	err = c.d.DB.Read(ctx, func(tx *store.Tx) error {
		found = nil
		for _, ch := range moves {
			one, err := outside(tx, ch)
			if err != nil {
				return err
			}
			if one.row != nil && !inStream[one.row.NID] {
				found = append(found, one)
			}
		}
		return nil
	})
	for _, one := range found {
		b.outside[one.row] = one.unsigned
		rows = append(rows, one.row)
	}
	return rows, err
}

// moves are the changes of membership that are of the service's own users.
func (c *courier) moves(ctx context.Context, b *batch, changes []store.Change) ([]store.Change, error) {
	var moves []store.Change
	users := map[store.UserNID]bool{}
	for _, ch := range changes {
		if ch.Kind == store.ChangeMembership && ch.Pos <= b.upTo {
			moves, users[ch.User] = append(moves, ch), true
		}
	}
	mine, err := c.own(ctx, users)
	return slices.DeleteFunc(moves, func(ch store.Change) bool { return mine[ch.User] == "" }), err
}

// own are those of some users that the service acts as, with their IDs.
func (c *courier) own(ctx context.Context, users map[store.UserNID]bool) (mine map[store.UserNID]matrix.UserID, err error) {
	if len(users) == 0 {
		return nil, nil
	}
	err = c.d.DB.Read(ctx, func(tx *store.Tx) error {
		mine = map[store.UserNID]matrix.UserID{}
		return tx.UserIDs(slices.Collect(maps.Keys(users)), func(nid store.UserNID, id matrix.UserID) {
			if c.mine(id) {
				mine[nid] = id
			}
		})
	})
	return mine, err
}

// outsider is an event of a room that we are not in, and what it shows of the room.
type outsider struct {
	row      *store.EventRow
	unsigned []byte // nil: nothing
}

// outside finds the event of a change of membership that still holds, if it has no place in the stream.
func outside(tx *store.Tx, ch store.Change) (found outsider, err error) {
	m, err := tx.Membership(ch.Room, ch.User)
	if err != nil || m == nil || m.Pos != ch.Pos {
		return found, err
	}
	if err := tx.EventsByNID(ch.Room, []store.EventNID{m.Event}, func(e *store.EventRow) { found.row = e }); err != nil {
		return found, err
	}
	if found.row == nil || found.row.Pos != 0 {
		return outsider{}, nil
	}
	if m.Membership == store.Invite || m.Membership == store.Knock {
		shown, err := tx.Stripped(ch.Room, ch.User)
		if err != nil {
			return found, err
		}
		if shown != "" {
			what := map[store.Membership]string{store.Invite: "invite", store.Knock: "knock"}[m.Membership]
			found.unsigned = []byte(`{"` + what + `_room_state":` + shown + `}`)
		}
	}
	return found, nil
}

// receipts adds m.receipt of the rooms in which receipts changed.
func (c *courier) receipts(ctx context.Context, b *batch, after store.Pos, changes []store.Change) error {
	seen := map[store.RoomNID]bool{}
	for _, ch := range changes {
		if ch.Kind != store.ChangeReceipt || ch.Pos > b.upTo || seen[ch.Room] {
			continue
		}
		seen[ch.Room] = true
		in, err := c.about(ctx, ch.Room)
		if err != nil {
			return err
		}
		if !in.now() {
			continue
		}
		content := map[matrix.EventID]map[string]map[matrix.UserID]map[string]any{}
		err = c.d.DB.Read(ctx, func(tx *store.Tx) error {
			clear(content)
			return tx.AllReceipts(ch.Room, after, b.upTo, maxReceipts, func(r store.Receipt) { c.receipt(content, r) })
		})
		if err != nil {
			return err
		}
		if len(content) == 0 {
			continue
		}
		raw, err := json.Marshal(map[string]any{"type": "m.receipt", "room_id": in.id, "content": content})
		if err != nil {
			return err
		}
		b.ephemeral = append(b.ephemeral, raw)
	}
	return nil
}

// receipt adds one receipt to the content of m.receipt, a private one only of the service's own users.
func (c *courier) receipt(content map[matrix.EventID]map[string]map[matrix.UserID]map[string]any, r store.Receipt) {
	kind := "m.read"
	if r.Kind == store.PrivateReceipt {
		if !c.mine(r.UserID) {
			return
		}
		kind = "m.read.private"
	}
	if content[r.Event] == nil {
		content[r.Event] = map[string]map[matrix.UserID]map[string]any{}
	}
	if content[r.Event][kind] == nil {
		content[r.Event][kind] = map[matrix.UserID]map[string]any{}
	}
	one := map[string]any{"ts": r.TS}
	if r.Thread != "" {
		one["thread_id"] = r.Thread
	}
	content[r.Event][kind][r.UserID] = one
}

// passing adds what is nowhere written down: who is typing, and presence. What changed before this process looked for
// the first time is no news.
func (c *courier) passing(ctx context.Context, b *batch) error {
	rooms, typed := c.d.Source.Typing(c.typed)
	b.typed = typed
	if c.typed >= 0 {
		for room, content := range rooms {
			in, err := c.about(ctx, room)
			if err != nil {
				return err
			}
			if !in.now() {
				continue
			}
			raw, err := json.Marshal(map[string]any{"type": "m.typing", "room_id": in.id, "content": content})
			if err != nil {
				return err
			}
			b.ephemeral = append(b.ephemeral, raw)
		}
	}
	people, shown, err := c.d.Source.Presence(ctx, c.shown)
	if err != nil {
		return err
	}
	b.shown = shown
	for user, event := range people {
		yes, err := c.knows(ctx, user)
		if err != nil {
			return err
		}
		if yes {
			b.ephemeral = append(b.ephemeral, event)
		}
	}
	return nil
}
