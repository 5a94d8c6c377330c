package appservice

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of what a transaction has for encryption.
const (
	maxMessages = 500    // to devices, unless more came at one position
	maxListed   = 10_000 // users whose devices may be others, of one room
)

// sealed is what a service is told that takes part in encryption with its users' devices, which do not sync: messages to
// devices (MSC4203), whose devices changed, and which keys are left (MSC3202).
type sealed struct {
	messages []json.RawMessage
	changed  map[store.UserNID]bool
	left     map[store.UserNID]bool
	lists    *deviceLists
	counts   map[matrix.UserID]map[matrix.DeviceID]map[string]int
	unused   map[matrix.UserID]map[matrix.DeviceID][]string
}

// deviceLists are device lists as /sync tells of them.
type deviceLists struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

func (s *sealed) empty() bool {
	return len(s.messages) == 0 && s.lists == nil && len(s.counts) == 0 && len(s.unused) == 0
}

// encryption adds what the service's devices are told, and returns the events that are still in the batch: where many
// messages wait, it ends earlier.
func (c *courier) encryption(ctx context.Context, b *batch, after store.Pos, rows []*store.EventRow, changes []store.Change) ([]*store.EventRow, error) {
	if !c.s.Encryption {
		return rows, nil
	}
	if err := c.messages(ctx, b, after, changes); err != nil {
		return nil, err
	}
	if err := c.lists(ctx, b, changes); err != nil {
		return nil, err
	}
	if err := c.stock(ctx, b, changes); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(row *store.EventRow) bool { return row.Pos > b.upTo }), nil
}

// subjects are the users of changes of some kinds up to a position.
func subjects(changes []store.Change, upTo store.Pos, kinds ...store.ChangeKind) map[store.UserNID]bool {
	users := map[store.UserNID]bool{}
	for _, ch := range changes {
		if ch.Pos <= upTo && slices.Contains(kinds, ch.Kind) {
			users[ch.User] = true
		}
	}
	return users
}

// messages adds messages to devices of the service's users.
func (c *courier) messages(ctx context.Context, b *batch, after store.Pos, changes []store.Change) error {
	mine, err := c.own(ctx, subjects(changes, b.upTo, store.ChangeToDevice))
	if err != nil || len(mine) == 0 {
		return err
	}
	users := slices.Sorted(maps.Keys(mine))
	read := func(after, upTo store.Pos, limit int) (list []store.WaitingMessage, err error) {
		err = c.d.DB.Read(ctx, func(tx *store.Tx) error {
			list = nil
			return tx.WaitingMessages(users, after, upTo, limit, func(m store.WaitingMessage) { list = append(list, m) })
		})
		slices.SortStableFunc(list, func(a, b store.WaitingMessage) int { return cmp.Compare(a.Pos, b.Pos) })
		return list, err
	}
	list, err := read(after, b.upTo, maxMessages+1)
	if err != nil {
		return err
	}
	if cut := fits(list); cut < len(list) {
		first, last := list[0].Pos, list[cut].Pos
		if b.upTo = last - 1; first == last { // all that came at one position comes together
			b.upTo = last
			if list, err = read(last-1, last, maxPosition); err != nil {
				return err
			}
		}
		list = slices.DeleteFunc(list, func(m store.WaitingMessage) bool { return m.Pos > b.upTo })
	}
	for _, m := range list {
		b.messages = append(b.messages, addressed(m, mine[m.User]))
	}
	return nil
}

// maxPosition is more than can wait at one position: the devices that one request names.
const maxPosition = 1 << 20

// fits is how many messages there is room for.
func fits(list []store.WaitingMessage) int {
	size := 0
	for i, m := range list {
		if size += len(m.Event); i >= maxMessages || size > maxBytes && i > 0 {
			return i
		}
	}
	return len(list)
}

// addressed is a message with whom it is for.
func addressed(m store.WaitingMessage, user matrix.UserID) json.RawMessage {
	out := append([]byte(nil), m.Event[:len(m.Event)-1]...)
	out = matrix.AppendString(append(out, `,"to_device_id":`...), string(m.Device))
	out = matrix.AppendString(append(out, `,"to_user_id":`...), string(user))
	return append(out, '}')
}

// lists adds whose devices changed, or came into view, and who is no longer in view. Of those whom the service leaves behind
// altogether nothing is said: when it comes back, they come into view again.
func (c *courier) lists(ctx context.Context, b *batch, changes []store.Change) error {
	b.changed, b.left = map[store.UserNID]bool{}, map[store.UserNID]bool{}
	for user := range subjects(changes, b.upTo, store.ChangeDeviceList) {
		yes, err := c.near(ctx, user)
		if err != nil {
			return err
		}
		if yes {
			b.changed[user] = true
		}
	}
	mine, err := c.own(ctx, subjects(changes, b.upTo, store.ChangeMembership))
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if ch.Kind == store.ChangeMembership && ch.Pos <= b.upTo {
			if err := c.moved(ctx, b, ch, mine[ch.User] != ""); err != nil {
				return err
			}
		}
	}
	if len(b.changed)+len(b.left) == 0 {
		return nil
	}
	b.lists = &deviceLists{Changed: []matrix.UserID{}, Left: []matrix.UserID{}}
	err = c.d.DB.Read(ctx, func(tx *store.Tx) error {
		b.lists.Changed, b.lists.Left = b.lists.Changed[:0], b.lists.Left[:0]
		err := tx.UserIDs(slices.Sorted(maps.Keys(b.changed)), func(_ store.UserNID, id matrix.UserID) { b.lists.Changed = append(b.lists.Changed, id) })
		if err != nil {
			return err
		}
		return tx.UserIDs(slices.Sorted(maps.Keys(b.left)), func(_ store.UserNID, id matrix.UserID) { b.lists.Left = append(b.lists.Left, id) })
	})
	slices.Sort(b.lists.Changed)
	slices.Sort(b.lists.Left)
	return err
}

// moved looks at a change of membership: who has come into view by it, and who has gone.
func (c *courier) moved(ctx context.Context, b *batch, ch store.Change, mine bool) error {
	in, err := c.about(ctx, ch.Room)
	if err != nil || !in.now() {
		return err
	}
	var m *store.MemberRow
	err = c.d.DB.Read(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.Membership(ch.Room, ch.User)
		return err
	})
	switch {
	case err != nil || m == nil:
		return err
	case m.Membership == store.Join && m.Joined != ch.Pos:
		return nil // only the name is another
	case m.Membership == store.Join && mine:
		return c.firstIn(ctx, b, in, ch)
	case m.Membership == store.Join:
		b.changed[ch.User] = true
		delete(b.left, ch.User)
	case !mine && m.Departed == ch.Pos && !b.changed[ch.User]:
		yes, err := c.near(ctx, ch.User)
		if err != nil {
			return err
		}
		if !yes {
			b.left[ch.User] = true
		}
	}
	return nil
}

// firstIn brings the people of a room into view, if a user of the service has joined that is the first of them.
func (c *courier) firstIn(ctx context.Context, b *batch, in *interest, ch store.Change) error {
	for _, other := range in.users {
		if other.Membership == store.Join && other.Member != ch.User && other.Joined < ch.Pos {
			return nil
		}
	}
	return c.d.DB.Read(ctx, func(tx *store.Tx) error {
		n := 0
		return tx.MembersOf(ch.Room, store.Join, func(m store.MemberRow) {
			if n++; n <= maxListed {
				b.changed[m.Member] = true
			}
		})
	})
}

// stock adds how many keys the devices have, of those users whose keys came or went or who got messages, which use keys.
func (c *courier) stock(ctx context.Context, b *batch, changes []store.Change) error {
	mine, err := c.own(ctx, subjects(changes, b.upTo, store.ChangeKeys, store.ChangeToDevice))
	if err != nil || len(mine) == 0 {
		return err
	}
	users := slices.Sorted(maps.Keys(mine))
	return c.d.DB.Read(ctx, func(tx *store.Tx) error {
		b.counts, b.unused = map[matrix.UserID]map[matrix.DeviceID]map[string]int{}, map[matrix.UserID]map[matrix.DeviceID][]string{}
		err := tx.OneTimeKeyStock(users, func(user store.UserNID, device matrix.DeviceID, algorithm string, n int) {
			id := mine[user]
			if b.counts[id] == nil {
				b.counts[id] = map[matrix.DeviceID]map[string]int{}
			}
			if b.counts[id][device] == nil {
				b.counts[id][device] = map[string]int{}
			}
			b.counts[id][device][algorithm] += n
		})
		if err != nil {
			return err
		}
		return tx.FallbackKeyStock(users, func(user store.UserNID, device matrix.DeviceID, algorithm string, used bool) {
			id := mine[user]
			if b.unused[id] == nil {
				b.unused[id] = map[matrix.DeviceID][]string{}
			}
			if b.unused[id][device] == nil {
				b.unused[id][device] = []string{} // that none is unused is worth knowing
			}
			if !used {
				b.unused[id][device] = append(b.unused[id][device], algorithm)
			}
		})
	})
}

// delivered removes the messages to devices that the transaction under way has brought. Those of users whom others may be,
// too, stay for their own clients. It comes before the acknowledgement is written down: what is sent again is what is
// stored of the transaction.
func (c *courier) delivered(ctx context.Context) error {
	if !c.s.Encryption {
		return nil
	}
	after, upTo := c.row.Pos, c.row.TxnTo
	users := map[store.UserNID]bool{}
	err := c.d.DB.Read(ctx, func(tx *store.Tx) error {
		clear(users)
		return tx.Changes(after, upTo, func(ch store.Change) {
			if ch.Kind == store.ChangeToDevice {
				users[ch.User] = true
			}
		})
	})
	if err != nil {
		return err
	}
	mine, err := c.own(ctx, users)
	maps.DeleteFunc(mine, func(_ store.UserNID, id matrix.UserID) bool { return c.d.Client.services.UserOwner(id, nil) != c.s })
	if err != nil || len(mine) == 0 {
		return err
	}
	return c.d.DB.Write(ctx, func(tx *store.Tx) error { return tx.DropWaitingMessages(slices.Sorted(maps.Keys(mine)), after, upTo) })
}
