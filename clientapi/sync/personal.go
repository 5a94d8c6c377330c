package sync

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// KeySource is what the engine asks of the keys domain for a device.
type KeySource interface {
	// ToDevice reads waiting messages of a device after one position and up to another, oldest first, at most limit;
	// last is the position of the last one read, upTo if there were no more.
	ToDevice(ctx context.Context, device int64, after, upTo store.Pos, limit int) (events []json.RawMessage, last store.Pos, err error)
	// Delivered removes the messages of a device up to a position: its client has shown that it has them.
	Delivered(ctx context.Context, device int64, upTo store.Pos) error
	// KeyCounts counts a device's unclaimed one-time keys by algorithm, and names its unused fallback keys' algorithms.
	KeyCounts(ctx context.Context, device int64) (oneTime map[string]int, fallback []string, err error)
	// DeviceListChanges names the users whose devices changed between two positions, of those the user shares a room
	// with, and those it came to share or shares no longer a room with.
	DeviceListChanges(ctx context.Context, user store.UserNID, after, upTo store.Pos) (changed, left []matrix.UserID, err error)
}

// maxToDevice is how many messages to a device one response brings.
const maxToDevice = 100

// acknowledge removes the messages that the client's token shows it to have. A listener that has delivered nothing
// since the last time has nothing to remove.
func (e *Engine) acknowledge(ctx context.Context, l *listener, q Request) error {
	l.mu.Lock()
	delivered, known := l.delivered[q.Device]
	l.mu.Unlock()
	upTo := q.Since.messages()
	if known && (delivered == 0 || delivered > upTo) {
		return nil
	}
	if err := e.keys.Delivered(ctx, q.Device, upTo); err != nil {
		return err
	}
	l.setDelivered(q.Device, 0)
	return nil
}

func (l *listener) setDelivered(device int64, upTo store.Pos) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.delivered == nil {
		l.delivered = map[int64]store.Pos{}
	}
	l.delivered[device] = upTo
}

// personal adds what concerns the user or device rather than a room.
func (a *assembly) personal() error {
	first := a.q.Since == nil
	if first || a.ownData || !a.inTail {
		if err := a.globalData(); err != nil {
			return err
		}
	}
	if first || a.ownMessages || !a.inTail || a.q.Since.Messages != 0 {
		if err := a.toDevice(); err != nil {
			return err
		}
	}
	if !first && (a.lists || !a.inTail || a.movedRooms()) {
		changed, left, err := a.e.keys.DeviceListChanges(a.ctx, a.q.User.NID, a.from, a.bound)
		if err != nil {
			return err
		}
		if len(changed)+len(left) > 0 {
			a.res.DeviceLists = &DeviceLists{changed, left}
		}
	}
	return a.keyCounts()
}

// keyCounts says how many keys others may still claim; clients upload more when there are few. It is read again only
// when some came or went.
func (a *assembly) keyCounts() error {
	a.l.mu.Lock()
	counts, known := a.l.keys[a.q.Device]
	a.l.mu.Unlock()
	if !known || a.ownKeys || a.q.Since == nil || !a.inTail {
		had := counts
		var err error
		if counts.oneTime, counts.fallback, err = a.e.keys.KeyCounts(a.ctx, a.q.Device); err != nil {
			return err
		}
		// An answer that told of a change may have been lost: what changed after the client's token is news again.
		a.res.news = a.ownKeys || known && (!maps.Equal(had.oneTime, counts.oneTime) || !slices.Equal(had.fallback, counts.fallback))
		a.l.mu.Lock()
		if a.l.keys == nil {
			a.l.keys = map[int64]keyCounts{}
		}
		a.l.keys[a.q.Device] = counts
		a.l.mu.Unlock()
	}
	a.res.KeyCounts, a.res.Fallback = counts.oneTime, counts.fallback
	if a.res.Fallback == nil {
		a.res.Fallback = []string{} // its absence would say that the server knows no fallback keys
	}
	return nil
}

// keyCounts are a device's keys that are not claimed yet.
type keyCounts struct {
	oneTime  map[string]int
	fallback []string
}

// movedRooms says whether somebody joined or left a room of the user, which changes with whom it shares rooms.
func (a *assembly) movedRooms() bool {
	for _, items := range a.byRoom {
		for _, it := range items {
			if it.event.Event.Type() == "m.room.member" {
				return true
			}
		}
	}
	return false
}

// globalData adds the user's own data that is of no room. Push rules are there for everybody, also who never changed any.
func (a *assembly) globalData() error {
	events, err := a.accountData(0, a.from, &a.q.Filter.AccountData)
	if err != nil {
		return err
	}
	if a.q.Since == nil && a.q.Filter.AccountData.KeepsType(store.PushRulesType) {
		own := `{"type":"` + store.PushRulesType + `"`
		if !slices.ContainsFunc(events, func(e json.RawMessage) bool { return strings.HasPrefix(string(e), own) }) {
			events = append(events, typedEvent(store.PushRulesType, a.pushRules("")))
		}
	}
	if len(events) > 0 {
		a.res.AccountData = &eventList{events}
	}
	return nil
}

// toDevice adds waiting messages. If there are more than one response brings, the token notes how far it got with
// them, and the rest comes with the next request.
func (a *assembly) toDevice() error {
	after := store.Pos(0)
	if a.q.Since != nil {
		after = a.q.Since.messages()
	}
	events, last, err := a.e.keys.ToDevice(a.ctx, a.q.Device, after, a.bound, maxToDevice)
	if err != nil || len(events) == 0 {
		return err
	}
	a.res.ToDevice = &eventList{events}
	a.l.setDelivered(a.q.Device, last)
	if last < a.bound {
		a.res.next.Messages = last
	}
	return nil
}
