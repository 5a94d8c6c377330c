// Package sync tells clients what happened: one delta engine with several faces. The engine follows the stream of
// persisted changes in one goroutine (tail.go), keeps who is in which room for the users that are listening
// (listeners.go), and assembles for a client what lies between its token and the present (assemble.go). /sync asks it
// once per request, the WebSocket (live.go) again and again.
//
// Whether a client may see an event is asked of rooms.VisibleTo for every event that is delivered.
package sync

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/rooms"
)

// Options are what the engine stands on.
type Options struct {
	DB    *store.DB
	Rooms *rooms.Rooms
	Keys  KeySource
	Bus   cluster.Bus
	Log   *slog.Logger
	Clock func() time.Time // time.Now if nil

	People *presence.Presence // nil: nobody is told who is online
}

// Engine follows the stream and assembles deltas. Safe for concurrent use.
type Engine struct {
	db         *store.DB
	rooms      *rooms.Rooms
	keys       KeySource
	people     *presence.Presence
	bus        cluster.Bus
	log        *slog.Logger
	now        func() time.Time
	generation string
	tail       tail
	listeners  listeners
	typing     typing
	forms      *otter.Cache[store.EventNID, clientForm]
	redactions atomic.Uint64 // of state events, and one; with the store's erasures: what a state event replaced is shown with it
	was        *otter.Cache[wasKey, store.Membership]
	facts      *otter.Cache[stateKey, *roomFacts]
	children   *otter.Cache[stateKey, map[matrix.RoomID]bool] // of spaces
	nudges     chan struct{}                                  // somebody waits for the tail to grow
}

// pollEvery is how late a change is at most if every wake is lost (law 8).
const pollEvery = time.Second

// New starts an engine whose goroutine ends with ctx.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	bound, err := o.DB.StreamBound(ctx)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		db: o.DB, rooms: o.Rooms, keys: o.Keys, people: o.People, bus: o.Bus, log: o.Log, now: o.Clock,
		generation: o.DB.Generation(), nudges: make(chan struct{}, 1),
		tail: tail{start: bound, bound: bound, heads: map[store.RoomNID]store.State{}},
	}
	e.forms = otter.Must(&otter.Options[store.EventNID, clientForm]{
		MaximumWeight: 16 << 20,
		Weigher:       func(_ store.EventNID, f clientForm) uint32 { return uint32(len(f.text)) + 100 },
	})
	e.redactions.Store(1)
	e.was = otter.Must(&otter.Options[wasKey, store.Membership]{MaximumSize: 100_000})
	e.facts = otter.Must(&otter.Options[stateKey, *roomFacts]{MaximumSize: 50_000})
	e.children = otter.Must(&otter.Options[stateKey, map[matrix.RoomID]bool]{
		MaximumWeight: 100_000, Weigher: func(_ stateKey, c map[matrix.RoomID]bool) uint32 { return uint32(len(c)) + 1 },
	})
	e.listeners.init()
	e.typing.init(e.now)
	e.people.Listen(e.listeners.wakePeople)
	work.NewGroup(ctx, o.Log).Go("sync stream", e.run)
	return e, nil
}

// run follows the stream: on every wake, and every second in case one was lost. While nobody listens wakes are let
// pass: whoever comes next asks for what is missing (reach).
func (e *Engine) run(ctx context.Context) error {
	wakes, cancel := e.bus.Subscribe(cluster.Stream)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		fresh, err := e.follow(ctx)
		if err != nil && ctx.Err() == nil {
			e.log.Error("following the stream failed", "err", err)
		}
		e.listeners.deliver(fresh)
		for waiting := true; waiting; {
			select {
			case <-wakes:
				waiting = !e.listeners.any()
			case <-e.nudges:
				waiting = false
			case <-poll.C:
				waiting = false
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// Viewpoint is a client: a user on one of its devices.
type Viewpoint struct {
	User   rooms.Sender
	Device int64
	// DeviceID is needed for messages to the device and counts of its keys.
	DeviceID matrix.DeviceID

	txns map[store.EventNID]string // transaction IDs that were read already, "" for events that have none
}

// sent says whether an event may have come from the device, as far as its row tells.
func (v *Viewpoint) sent(row *store.EventRow) bool {
	return v.Device != 0 && row.Sender == v.User.NID && !row.Event.IsState()
}

// Request is one /sync.
type Request struct {
	Viewpoint
	Since     *Token // nil for the first
	Filter    *Filter
	FullState bool
	Timeout   time.Duration
	// StateAfter asks for state as of the end of the timeline rather than its start (MSC4222).
	StateAfter bool
	// OldStateAfter is StateAfter under the name that it had before it was stable.
	OldStateAfter bool
}

// maxWait bounds a long poll.
const maxWait = 2 * time.Minute

// Sync answers at once if there is something to tell, and otherwise waits until there is or the time is up.
func (e *Engine) Sync(ctx context.Context, q Request) (*Response, error) {
	if q.Filter == nil {
		q.Filter = &Filter{}
	}
	if err := e.begin(ctx, &q); err != nil {
		return nil, err
	}
	l, err := e.listeners.join(ctx, e, q.User)
	if err != nil {
		return nil, err
	}
	defer e.listeners.leave(l)
	// What this node has acknowledged, to whomever, is there for the next who asks.
	if err := e.reach(ctx, e.db.Written()); err != nil {
		return nil, err
	}
	wait := time.NewTimer(min(max(q.Timeout, 0), maxWait))
	defer wait.Stop()
	if q.Since != nil {
		if err := e.acknowledge(ctx, l, q); err != nil {
			return nil, err
		}
	}
	for {
		awake := l.awake()
		answer, err := e.assemble(ctx, l, q)
		if err != nil {
			return nil, err
		}
		if q.Since == nil || q.FullState || !answer.Empty() {
			return answer, nil
		}
		select {
		case <-awake:
		case <-wait.C:
			return answer, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin has a client start afresh whose token is of another generation, or of no time that this database has seen.
func (e *Engine) begin(ctx context.Context, q *Request) error {
	if q.Since == nil {
		return nil
	}
	known, err := e.knows(ctx, *q.Since)
	if !known {
		q.Since = nil
	}
	return err
}

// knows says whether the database can have given out a token. One that it cannot would be waited for in vain.
func (e *Engine) knows(ctx context.Context, t Token) (bool, error) {
	if t.Pos == 0 || t.Pos <= e.tail.reached() {
		return t.Pos != 0, nil
	}
	given, err := e.db.Given(ctx) // another node may be ahead of this one
	return err == nil && t.Pos <= given, err
}

// ErrGone ends a client's wait because its session ended.
var ErrGone = errors.New("sync: the session ended")

// Response is the answer of /sync.
type Response struct {
	NextBatch   string         `json:"next_batch"`
	AccountData *eventList     `json:"account_data,omitempty"`
	Presence    *eventList     `json:"presence,omitempty"`
	Rooms       *roomsAnswer   `json:"rooms,omitempty"`
	ToDevice    *eventList     `json:"to_device,omitempty"`
	DeviceLists *DeviceLists   `json:"device_lists,omitempty"`
	KeyCounts   map[string]int `json:"device_one_time_keys_count,omitempty"`
	Fallback    []string       `json:"device_unused_fallback_key_types"`
	next        Token
	news        bool // something to tell that is not in one of the lists: counts of keys
	more        bool // not all that is new fitted, or more came meanwhile
}

type eventList struct {
	Events []json.RawMessage `json:"events"`
}

type roomsAnswer struct {
	Join   map[matrix.RoomID]*joinedRoom  `json:"join,omitempty"`
	Invite map[matrix.RoomID]*invitedRoom `json:"invite,omitempty"`
	Knock  map[matrix.RoomID]*knockedRoom `json:"knock,omitempty"`
	Leave  map[matrix.RoomID]*leftRoom    `json:"leave,omitempty"`
}

// DeviceLists says whose devices changed and whose need no longer be followed.
type DeviceLists struct {
	Changed []matrix.UserID `json:"changed,omitempty"`
	Left    []matrix.UserID `json:"left,omitempty"`
}

// Next is the token that the response leads to.
func (r *Response) Next() Token { return r.next }

// Empty says whether there is nothing to tell.
func (r *Response) Empty() bool {
	return r.AccountData == nil && r.Presence == nil && r.Rooms == nil && r.ToDevice == nil && r.DeviceLists == nil && !r.news
}
