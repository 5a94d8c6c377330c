// Package presence knows who is online (client-server API, "Presence").
//
// It lives in memory. Requests say what they see: a client connects, does something, sets its state; other servers tell of
// their users. None of that waits for the database or for anybody. Whether a user's state has changed is decided on the
// spot (entry.go); the change itself is told by one loop (loop.go), together with others that came meanwhile: to the local
// users who share a room, and to the servers that do. The more listeners a round has woken the longer it is until the next,
// so that presence never takes more than a small part of a processor, however many people come and go. What comes and goes
// between two rounds is never told. While nobody does anything the loop sleeps: a user who is connected and idle has no
// timer but that for other servers, who forget whom they hear nothing of.
//
// Readers ask by position (read.go): what was told after the position that a client has, of the users it shares a room
// with. Where a user is joined is read once and dropped when the stream shows that it moved.
package presence

import (
	"container/list"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// State is whether somebody is there. A higher one wins where a user has several clients.
type State int16

// The states, in the numbers of the database.
const (
	Offline State = iota
	Unavailable
	Online
)

var stateNames = [...]string{"offline", "unavailable", "online"}

// String is the spec's word.
func (s State) String() string { return stateNames[s] }

// ParseState reads the spec's word.
func ParseState(word string) (State, bool) {
	for i, name := range stateNames {
		if name == word {
			return State(i), true
		}
	}
	return Offline, false
}

// How long things last.
const (
	idleAfter    = 5 * time.Minute  // since a user did something, until it is unavailable
	offlineAfter = time.Minute      // since a client was last connected, until it is gone
	silence      = time.Hour        // since a server told of a user of its own, until that one counts as offline
	refreshEvery = 25 * time.Minute // other servers are told again of those who are there: some forget them after half an hour
)

// Bounds of what is kept.
const (
	// MaxMessage is how many bytes a status message has.
	MaxMessage = 1024

	maxUsers     = 50_000
	maxPerServer = 10_000
	maxDevices   = 100 // of a user
)

// Remote is told what other servers are to hear of; federation.Signals satisfies it.
type Remote interface {
	// Presence says that a server is to be told of users of ours, as they are when the transaction to it is made.
	Presence(server matrix.ServerName, users []matrix.UserID)
}

// Options are what the domain stands on.
type Options struct {
	DB     *store.DB
	Server matrix.ServerName
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil

	// Abroad says that other servers tell of their users, and are told of ours.
	Abroad bool
}

// Presence is the domain's door. Its methods are safe for concurrent use, and do nothing on a nil one: presence is switched
// off.
type Presence struct {
	db   *store.DB
	own  matrix.ServerName
	nid  store.ServerNID
	log  *slog.Logger
	now  func() time.Time
	kick chan struct{}

	listen func(rooms map[store.RoomNID]struct{}, users []store.UserNID) int // wakes, and says how many
	remote Remote                                                            // nil: nobody else is told

	last  atomic.Int64 // the newest position; written under mu
	wakes atomic.Int64 // how often the loop had to look

	mu        sync.Mutex
	users     map[store.UserNID]*entry
	byID      map[matrix.UserID]*entry
	perServer map[matrix.ServerName]int // entries of other servers' users
	order     *list.List                // of *entry, that were told: newest position first
	timers    timers
	armed     time.Time            // when the loop looks next by itself; zero: never
	changed   map[*entry]struct{}  // perhaps to be told to clients
	tellAt    time.Time            // not earlier than this
	unsaved   map[*entry]struct{}  // to be written
	saveAt    time.Time            // not earlier than this
	out       map[*entry]struct{}  // users of ours whom other servers are to hear of
	arrivals  map[arrival]struct{} // who may have come to a room of ours
	outAt     time.Time            // not earlier than this
	moves     int64                // counts moves: what was read before one may be wrong
	renames   int64                // counts new profiles, likewise
	servers   map[store.RoomNID][]store.ServerNID
}

// arrival is a user who came to a room, or left it.
type arrival struct {
	room store.RoomNID
	user store.UserNID
}

// New makes the domain and takes up what an earlier process knew.
func New(ctx context.Context, o Options) (*Presence, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	nid, err := o.DB.Server(ctx, o.Server)
	if err != nil {
		return nil, err
	}
	p := &Presence{
		db: o.DB, own: o.Server, nid: nid, log: o.Log, now: o.Clock, kick: make(chan struct{}, 1),
		listen: func(map[store.RoomNID]struct{}, []store.UserNID) int { return 0 },
		users:  map[store.UserNID]*entry{}, byID: map[matrix.UserID]*entry{}, perServer: map[matrix.ServerName]int{},
		order: list.New(), changed: map[*entry]struct{}{}, unsaved: map[*entry]struct{}{}, out: map[*entry]struct{}{},
		arrivals: map[arrival]struct{}{}, servers: map[store.RoomNID][]store.ServerNID{},
	}
	p.last.Store(o.Clock().UnixMilli()) // above what this node gave out before a restart
	return p, p.restore(ctx, o.Abroad)
}

// Now is the time by the domain's clock.
func (p *Presence) Now() time.Time {
	if p == nil {
		return time.Now()
	}
	return p.now()
}

// Listen sets who wakes the clients of rooms and of users. It must be called before Run.
func (p *Presence) Listen(wake func(rooms map[store.RoomNID]struct{}, users []store.UserNID) int) {
	if p != nil {
		p.listen = wake
	}
}

// Tell sets who tells other servers. It must be called before Run.
func (p *Presence) Tell(remote Remote) {
	if p == nil {
		return
	}
	p.mu.Lock() // the stream may tell of moves already
	defer p.mu.Unlock()
	p.remote = remote
}

// Connect notes that a client of a user waits for what happens, until the function that it returns is called. wish is what
// the client wants to be shown as; nil if it does not say: then it is online, unless it has set itself to be unavailable.
func (p *Presence) Connect(user store.UserNID, id matrix.UserID, device int64, wish *State) (leave func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e := p.of(user, id)
	d, known := e.device(device, now)
	if d == nil {
		return func() {}
	}
	was := d.choice
	switch {
	case wish != nil:
		d.choice = *wish
	case d.choice == Offline:
		d.choice = Online
	}
	if _, restored := e.devices[restoredDevice]; d.choice == Online && (was != Online || !known && !restored) {
		e.active = now // somebody has opened a client, or came back to it
	}
	d.open++
	d.seen = now
	p.review(e, now)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		d.open--
		d.seen = p.now()
		p.review(e, d.seen)
	}
}

// Active notes that a user did something on a device. A client that hides that it is there does so in this too.
func (p *Presence) Active(user store.UserNID, id matrix.UserID, device int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e := p.of(user, id)
	d, _ := e.device(device, now)
	if d == nil || d.choice == Offline {
		return
	}
	d.choice, d.seen, e.active = Online, now, now
	p.review(e, now)
}

// Set sets what a device is shown as, and the user's status message.
func (p *Presence) Set(user store.UserNID, id matrix.UserID, device int64, state State, message string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e := p.of(user, id)
	if e.closed {
		return
	}
	e.message, e.messageKnown = message, true
	if d, _ := e.device(device, now); d != nil {
		d.choice, d.seen, e.active = state, now, now
	}
	p.review(e, now)
}

// Renamed notes that a user's profile changed.
func (p *Presence) Renamed(user store.UserNID) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renames++
	if e := p.users[user]; e != nil && e.local && !e.closed {
		e.stored = false
		p.note(e)
	}
}

// Closed notes that a user's account was closed for good: its status message is forgotten, and what its clients still do
// has no effect.
func (p *Presence) Closed(user store.UserNID) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.users[user]
	if e == nil || !e.local {
		return // what is stored of it went with the account
	}
	e.closed, e.stored = true, true
	clear(e.devices)
	e.message, e.messageKnown, e.active, e.name, e.avatar = "", true, time.Time{}, "", ""
	delete(p.unsaved, e)
	p.note(e)
	p.review(e, p.now())
}

// maxArrivals bounds how many moves wait to be looked at, for other servers.
const maxArrivals = 1000

// Moved notes that a user's membership in a room changed. It is called for every such change before readers see it.
func (p *Presence) Moved(room store.RoomNID, user store.UserNID) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moves++
	delete(p.servers, room)
	if e := p.users[user]; e != nil {
		e.placed = false
	}
	if p.remote != nil && len(p.arrivals) < maxArrivals {
		p.arrivals[arrival{room, user}] = struct{}{}
		p.gather(p.now())
	}
}

// of finds or makes the entry of a user of ours. The caller holds p.mu.
func (p *Presence) of(user store.UserNID, id matrix.UserID) *entry {
	e := p.users[user]
	if e == nil {
		e = &entry{nid: user, id: id, local: true, devices: map[int64]*device{}, timer: -1}
		p.add(e)
	}
	return e
}

// add and drop keep the indexes. What an entry that is dropped has to say must be saved before. The caller holds p.mu.
func (p *Presence) add(e *entry) {
	p.users[e.nid], p.byID[e.id] = e, e
	if !e.local {
		p.perServer[e.id.Server()]++
	}
}

func (p *Presence) drop(e *entry) {
	delete(p.users, e.nid)
	delete(p.byID, e.id)
	delete(p.changed, e)
	delete(p.out, e)
	if e.place != nil {
		p.order.Remove(e.place)
		e.place = nil
	}
	p.timers.set(e, time.Time{})
	if e.local {
		return
	}
	server := e.id.Server()
	if p.perServer[server]--; p.perServer[server] <= 0 {
		delete(p.perServer, server)
	}
}

// review looks whether a user is shown otherwise than it was told, and when to look again. The caller holds p.mu.
func (p *Presence) review(e *entry, now time.Time) {
	if p.users[e.nid] != e {
		return // dropped while a client was still connected
	}
	if state := e.state(now); state != e.told.state || e.messageKnown && e.message != e.told.message {
		p.note(e)
	}
	due := e.due(now)
	if p.refreshes(e) {
		due = earlier(due, e.sent.Add(refreshEvery))
	}
	p.timers.set(e, due)
	p.poke(e.until)
}

// refreshes says whether other servers are to be told of a user again although nothing changes. The caller holds p.mu.
func (p *Presence) refreshes(e *entry) bool {
	return p.remote != nil && e.local && e.told.state != Offline && !e.sent.IsZero()
}

// note puts a user among those who may have changed. The caller holds p.mu.
func (p *Presence) note(e *entry) {
	p.changed[e] = struct{}{}
	p.poke(later(p.now(), p.tellAt))
}

// poke makes sure that the loop looks at a time, if that is not zero. The caller holds p.mu.
func (p *Presence) poke(at time.Time) {
	if at.IsZero() || !p.armed.IsZero() && !at.Before(p.armed) {
		return
	}
	p.armed = at
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
