package sync

import (
	"context"
	"maps"
	gosync "sync"

	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/rooms"
)

// listeners are the users that somebody listens for: which rooms each is in, kept true by the stream, and whom to
// wake for what. Nothing in it touches the database while nothing happens.
type listeners struct {
	mu     gosync.Mutex
	users  map[store.UserNID]*listener
	byRoom map[store.RoomNID]map[*listener]struct{}
	holds  int // of all users
}

// listener is one user's place. It is kept for as long as requests hold it and, because clients poll again at once,
// until idle ones are dropped.
type listener struct {
	user  rooms.Sender
	holds int // requests and sockets; guarded by listeners.mu, as is their sum

	loading gosync.Mutex // held while the memberships are read for the first time; taken before all others

	mu     gosync.Mutex // taken after listeners.mu, and never while waiting for the tail
	loaded bool
	rooms  map[store.RoomNID]store.MemberRow // every room the user had to do with and did not forget
	dirty  map[store.RoomNID]struct{}        // rooms whose row changed since it was read
	marks  map[store.RoomNID]*rooms.Unread   // how far the user has read, as far as it was asked
	moved  int64                             // counts the user's receipts: a mark read before one is not kept
	wake   chan struct{}                     // closed at the next change for this user

	ignored     map[matrix.UserID]bool // whom the user ignores; nil if that is not known
	dataChanges int64                  // counts changes of the user's own data

	delivered map[int64]store.Pos // by device: messages brought but not yet acknowledged, 0 if none; absent if not known
	keys      map[int64]keyCounts // by device

	ranks   rankings // taken before mu
	sliding map[slidingKey][]*slidingState
}

// maxIdle is how many users without a waiting client are remembered.
const maxIdle = 10_000

func (ls *listeners) init() {
	ls.users = map[store.UserNID]*listener{}
	ls.byRoom = map[store.RoomNID]map[*listener]struct{}{}
}

// join finds or makes the listener of a user and holds it.
func (ls *listeners) join(ctx context.Context, e *Engine, user rooms.Sender) (*listener, error) {
	ls.mu.Lock()
	l := ls.users[user.NID]
	if l == nil {
		if len(ls.users) >= maxIdle {
			ls.dropIdle()
		}
		l = &listener{user: user, wake: make(chan struct{}), dirty: map[store.RoomNID]struct{}{}}
		ls.users[user.NID] = l
	}
	l.holds++
	ls.holds++
	ls.mu.Unlock()
	if err := l.load(ctx, e); err != nil {
		ls.leave(l)
		return nil, err
	}
	return l, nil
}

// load reads the user's memberships once; what the stream brings later makes single rooms dirty. The stream is then
// waited for up to the newest row, so that every row is true as of the tail's bound.
func (l *listener) load(ctx context.Context, e *Engine) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	l.mu.Lock()
	loaded := l.loaded
	l.mu.Unlock()
	if loaded {
		return nil
	}
	known := map[store.RoomNID]store.MemberRow{}
	var newest store.Pos
	err := e.db.Read(ctx, func(tx *store.Tx) error {
		clear(known)
		return tx.MembershipsOf(l.user.NID, func(m store.MemberRow) {
			known[m.Room] = m
			newest = max(newest, m.Pos)
		})
	})
	if err != nil {
		return err
	}
	e.listeners.mu.Lock()
	for room := range known {
		e.listeners.index(room, l)
	}
	e.listeners.mu.Unlock()
	if err := e.reach(ctx, newest); err != nil {
		return err
	}
	l.mu.Lock()
	l.rooms, l.loaded = known, true
	l.mu.Unlock()
	return nil
}

// awake is the channel that is closed at the next change for the user.
func (l *listener) awake() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wake
}

// rouse wakes who waits for this user's changes.
func (l *listener) rouse() {
	l.mu.Lock()
	close(l.wake)
	l.wake = make(chan struct{})
	l.mu.Unlock()
}

// memberships are the user's rooms as of a position that the tail has reached. A row that changed after it stays as it
// was until the tail is there.
func (l *listener) memberships(ctx context.Context, e *Engine, upTo store.Pos) (map[store.RoomNID]store.MemberRow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.dirty) > 0 {
		fresh := map[store.RoomNID]*store.MemberRow{}
		err := e.db.Read(ctx, func(tx *store.Tx) error {
			for room := range l.dirty {
				row, err := tx.Membership(room, l.user.NID)
				if err != nil {
					return err
				}
				fresh[room] = row
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		rooms := maps.Clone(l.rooms)
		for room, row := range fresh {
			switch {
			case row != nil && row.Pos > upTo:
				continue
			case row == nil || row.Forgotten:
				delete(rooms, room)
			default:
				rooms[room] = *row
			}
			delete(l.dirty, room)
		}
		l.rooms = rooms
	}
	return l.rooms, nil
}

// index notes that a listener hears of a room. The caller holds ls.mu.
func (ls *listeners) index(room store.RoomNID, l *listener) {
	in := ls.byRoom[room]
	if in == nil {
		in = map[*listener]struct{}{}
		ls.byRoom[room] = in
	}
	in[l] = struct{}{}
}

func (ls *listeners) leave(l *listener) {
	ls.mu.Lock()
	l.holds--
	ls.holds--
	ls.mu.Unlock()
}

// any says whether a request or socket of anybody is there now.
func (ls *listeners) any() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holds > 0
}

// dropIdle forgets the listeners that nobody holds. The caller holds ls.mu.
func (ls *listeners) dropIdle() {
	for nid, l := range ls.users {
		if l.holds > 0 {
			continue
		}
		delete(ls.users, nid)
		for room, in := range ls.byRoom {
			delete(in, l)
			if len(in) == 0 {
				delete(ls.byRoom, room)
			}
		}
	}
}

// expect notes what new items make of what is remembered of the users, before the tail shows these items to anybody: a
// reader that sees that somebody left has to see it in the memberships too.
func (ls *listeners) expect(fresh []item, people *presence.Presence, rulesMoved func(store.UserNID)) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, it := range fresh {
		switch {
		case it.event != nil:
		case it.change.Kind == store.ChangeMembership:
			people.Moved(it.change.Room, it.change.User)
		case it.change.Kind == store.ChangeProfile:
			people.Renamed(it.change.User)
		case it.change.Kind == store.ChangePushRules:
			rulesMoved(it.change.User)
		}
		l := ls.users[it.change.User]
		if it.event != nil || l == nil {
			continue
		}
		switch it.change.Kind {
		case store.ChangeMembership:
			ls.index(it.change.Room, l)
			l.mu.Lock()
			l.dirty[it.change.Room] = struct{}{}
			l.mu.Unlock()
		case store.ChangeReceipt:
			l.forgetMark(it.change.Room)
		case store.ChangeAccountData:
			l.forgetIgnored()
			if it.change.Room == 0 { // whom the user ignores counts for nothing
				l.forgetMarks()
			}
		}
	}
}

// deliver tells the listeners about new items: each is woken once for the whole batch.
func (ls *listeners) deliver(fresh []item) {
	if len(fresh) == 0 {
		return
	}
	woken := map[*listener]struct{}{}
	ls.mu.Lock()
	for _, it := range fresh {
		switch c := it.change; {
		case it.event != nil:
			ls.inRoom(it.event.Room, woken)
		case c.Kind == store.ChangeReceipt:
			if l := ls.users[c.User]; l != nil {
				l.forgetMark(c.Room) // again: a reader may have read it as of the bound before
			}
			ls.inRoom(c.Room, woken)
		case c.Kind == store.ChangeAccountData && c.Room == 0:
			if l := ls.users[c.User]; l != nil {
				l.forgetMarks() // again, likewise
				woken[l] = struct{}{}
			}
		case c.Kind == store.ChangeDeviceList:
			ls.everyRoomOf(c.User, woken)
		case c.User != 0:
			if l := ls.users[c.User]; l != nil {
				woken[l] = struct{}{}
			}
		default:
			ls.inRoom(c.Room, woken)
		}
	}
	ls.mu.Unlock()
	for l := range woken {
		l.rouse()
	}
}

// wakeRoom wakes those who listen to a room, for what is not in the stream.
func (ls *listeners) wakeRoom(room store.RoomNID) {
	woken := map[*listener]struct{}{}
	ls.mu.Lock()
	ls.inRoom(room, woken)
	ls.mu.Unlock()
	for l := range woken {
		l.rouse()
	}
}

// inRoom collects the listeners of a room. The caller holds ls.mu.
func (ls *listeners) inRoom(room store.RoomNID, into map[*listener]struct{}) {
	for l := range ls.byRoom[room] {
		into[l] = struct{}{}
	}
}

// everyRoomOf collects whoever may share a room with a user. Device lists of users whom nobody listens for, such as
// those of other servers, concern anybody: they are rare, and who is not concerned finds nothing. The caller holds ls.mu.
func (ls *listeners) everyRoomOf(user store.UserNID, into map[*listener]struct{}) {
	if l := ls.users[user]; l != nil {
		l.mu.Lock()
		loaded, rooms := l.loaded, l.rooms // a map that is never changed, only replaced
		l.mu.Unlock()
		if loaded {
			into[l] = struct{}{}
			for room := range rooms {
				ls.inRoom(room, into)
			}
			return
		}
	}
	for _, l := range ls.users {
		into[l] = struct{}{}
	}
}
