// Package rooms is the domain of Matrix rooms: what is in them, who is in them, and how they change.
//
// Every event, made here or received, enters a room's present through one door (append.go): it waits in its room's
// queue, is authorised, given its place and its state in memory, and written with others in one transaction. What
// needs the network or state resolution is done before that (receive.go, gaps.go, resolve.go). Readers find the state
// in state.go, history in history.go, and whether somebody may see an event in visible.go.
//
// The package knows no HTTP. Where it needs other servers it asks an EventSource, which package federation provides.
package rooms

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
	"conclave/internal/work"
)

// Identity is who this server is to others: its name and the key it signs with.
type Identity struct {
	Name  matrix.ServerName
	KeyID matrix.KeyID
	Key   ed25519.PrivateKey
}

// IsOurs reports whether a server name is one of ours. It is the only such test.
func (i Identity) IsOurs(name matrix.ServerName) bool { return name == i.Name }

// Options are what Rooms needs from the process that it lives in.
type Options struct {
	DB       *store.DB
	Identity Identity
	Source   EventSource // nil without federation
	Bus      cluster.Bus
	Log      *slog.Logger
	Clock    func() time.Time // time.Now if nil
}

// Rooms is the domain's door. Its methods are safe for concurrent use.
type Rooms struct {
	db     *store.DB
	own    Identity
	source EventSource
	bus    cluster.Bus
	log    *slog.Logger
	now    func() time.Time
	work   *work.Group // takes events through the door; waited for at the end
	abroad *work.Group // waits for other servers; cut short at the end, being resumable

	hasher  statetree.Hasher
	cache   *caches
	memo    *resolutions
	budgets *budgets
	delays  *delays

	book       *ruleBook
	directory  directory
	spaceViews *spaceViews
	erasures   erasures

	filling roomLocks // history being fetched
	inbound inbound
	parked  *parking // of what came, what was put off
	merges  *merges
	joining *roomSet // rooms that a join is under way to: what comes for them waits

	identities IdentityServices // nil: nobody is invited by address
	bridges    Bridges          // nil: there are none
	claimed    chan struct{}    // an invitation to an address can be taken up

	flights  work.Flights[string, struct{}] // joins through other servers, by room and user
	entering roomLocks                      // rooms whose beginning is being checked

	created atomic.Int64 // when the last room was made, ms
	panics  atomic.Int64

	mu       sync.Mutex
	rooms    map[store.RoomNID]*room
	inFlight map[store.TxnKey]*unit // transactions that are on their way through the door
}

// maxRooms bounds how many rooms are kept ready in memory; idle ones beyond it are let go.
const maxRooms = 4096

// New prepares the domain over a database. Goroutines it starts end with ctx.
func New(ctx context.Context, o Options) (*Rooms, error) {
	secret, err := o.DB.Secret(ctx, "statetree")
	if err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Rooms{
		db: o.DB, own: o.Identity, source: o.Source, bus: o.Bus, log: o.Log, now: o.Clock,
		work:       work.NewGroup(ctx, o.Log),
		abroad:     work.NewGroup(ctx, o.Log),
		hasher:     statetree.NewHasher(secret),
		cache:      newCaches(),
		memo:       newResolutions(),
		budgets:    newBudgets(o.Clock),
		delays:     newDelays(),
		book:       newRuleBook(),
		spaceViews: newSpaceViews(),
		filling:    roomLocks{held: map[store.RoomNID]chan struct{}{}},
		entering:   roomLocks{held: map[store.RoomNID]chan struct{}{}},
		inbound:    newInbound(),
		parked:     newParking(),
		merges:     newMerges(),
		claimed:    make(chan struct{}, 1),
		joining:    &roomSet{set: map[store.RoomNID]int{}},
		rooms:      map[store.RoomNID]*room{},
		inFlight:   map[store.TxnKey]*unit{},
	}, nil
}

// SetSource hands in the network once it is built; it must be called before the first request is served.
func (r *Rooms) SetSource(s EventSource) { r.source = s }

// Identity is who this server is.
func (r *Rooms) Identity() Identity { return r.own }

// Close stops what waits for other servers, waits until all that was accepted is written, or ctx ends.
func (r *Rooms) Close(ctx context.Context) error {
	r.abroad.Stop()
	return errors.Join(r.abroad.Wait(ctx), r.work.Wait(ctx))
}

// errPanic is what whoever waited is told of a panic.
var errPanic = errors.New("rooms: a panic, see the log")

// panicked logs and counts a panic that was recovered. Its value is not shown: it could hold content (law 16).
func (r *Rooms) panicked(what string, ref Ref, value any) error {
	r.panics.Add(1)
	r.log.Error("panic", "while", what, "room", ref.ID, "value", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	return errPanic
}

// Panics is how many panics were recovered since the start.
func (r *Rooms) Panics() int64 { return r.panics.Load() }

// User finds the numbers of a user and its server, giving them out at first sight.
func (r *Rooms) User(ctx context.Context, id matrix.UserID) (store.User, error) {
	if u, ok := r.cache.users.GetIfPresent(id); ok {
		return u, nil
	}
	u, err := r.db.User(ctx, id)
	if err == nil {
		r.cache.users.Set(id, u)
	}
	return u, err
}

// Users is User for many at once.
func (r *Rooms) Users(ctx context.Context, ids []matrix.UserID) (map[matrix.UserID]store.User, error) {
	found := make(map[matrix.UserID]store.User, len(ids))
	var missing []matrix.UserID
	for _, id := range ids {
		if u, ok := r.cache.users.GetIfPresent(id); ok {
			found[id] = u
		} else {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read, err := r.db.Users(ctx, missing)
	if err != nil {
		return nil, err
	}
	for id, u := range read {
		r.cache.users.Set(id, u)
		found[id] = u
	}
	return found, nil
}

// Ref names a room that is known to the database.
type Ref struct {
	NID     store.RoomNID
	ID      matrix.RoomID
	Version matrix.RoomVersion
}

// Lookup finds a room by its ID; an unknown one is M_NOT_FOUND.
func (r *Rooms) Lookup(ctx context.Context, id matrix.RoomID) (Ref, error) {
	if ref, ok := r.cache.refs.GetIfPresent(id); ok {
		return ref, nil
	}
	if _, err := matrix.ParseRoomID(string(id)); err != nil { // strangers name rooms by texts that no database can be asked for
		return Ref{}, matrix.NotFound("There is no room %.64q on this server.", id).With(err)
	}
	var ref Ref
	certain := false
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		nid, version, found, err := tx.Room(id)
		if err == nil && !found {
			err = matrix.NotFound("There is no room %s on this server.", id)
		}
		if err != nil {
			return err
		}
		ref = Ref{NID: nid, ID: id, Version: version}
		certain, err = tx.HasPresent(nid)
		return err
	})
	if err == nil && certain { // until then its version is what an invitation said
		r.cache.refs.Set(id, ref)
	}
	return ref, err
}

// room is a room kept ready in memory: its queue and, once loaded, its head.
type room struct {
	ref Ref

	mu      sync.Mutex
	waiting []*unit
	active  bool  // a goroutine is taking units through the door
	head    *head // nil until loaded; only the active goroutine replaces it

	rulesMoved atomic.Bool // somebody's push rules have changed: the head's audience is to be read anew
}

// room returns the kept room of ref, letting go of idle ones when there are too many.
func (r *Rooms) room(ref Ref) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	rm := r.rooms[ref.NID]
	if rm != nil {
		return rm
	}
	if len(r.rooms) >= maxRooms {
		r.dropIdle()
	}
	rm = &room{ref: ref}
	r.rooms[ref.NID] = rm
	return rm
}

// dropIdle forgets about a tenth of the rooms that nobody is sending to. The caller holds r.mu. A room that is taken
// up again between the look and the removal only loads its head anew: the writer compares heads.
func (r *Rooms) dropIdle() {
	left := maxRooms / 10
	for nid, rm := range r.rooms {
		rm.mu.Lock()
		idle := !rm.active && len(rm.waiting) == 0
		rm.mu.Unlock()
		if idle {
			delete(r.rooms, nid)
			if left--; left == 0 {
				return
			}
		}
	}
}
