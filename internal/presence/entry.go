package presence

import (
	"container/heap"
	"container/list"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// entry is what is known of one user. Everything in it is guarded by Presence.mu.
type entry struct {
	nid   store.UserNID
	id    matrix.UserID
	local bool

	devices      map[int64]*device // of a user of ours
	active       time.Time         // when the user last did something; zero if that is not known
	message      string
	messageKnown bool // set here or read from the database
	name, avatar string
	stored       bool // what the database has of it was read
	closed       bool // so is the account: nothing is to be known of the user any more

	said    State     // of another server's user: what its server said
	current bool      // … and whether it is active at present
	heard   time.Time // … and when

	rooms  []store.RoomNID // where the user is joined
	placed bool            // rooms is true

	told view      // what listeners were told
	pos  int64     // … under which position; 0 if nothing
	sent time.Time // when other servers were last told

	place *list.Element // in Presence.order
	until time.Time     // when to look again
	timer int           // index in Presence.timers, -1 if there is no need to
}

// view is what is told of a user.
type view struct {
	state        State
	current      bool // of another server's user
	message      string
	name, avatar string
}

// device is one client of a user of ours.
type device struct {
	choice State // what it wants to be shown as
	open   int   // requests and sockets that wait
	seen   time.Time
}

// restoredDevice stands for the clients that a user had before the process started: they have some time to come back. It
// is no device's number.
const restoredDevice = 0

// device finds or makes a client's device; nil if the user has too many, or no account any more.
func (e *entry) device(nr int64, now time.Time) (d *device, known bool) {
	if d = e.devices[nr]; d != nil && !d.gone(now) {
		return d, true
	}
	if e.closed || d == nil && len(e.devices) >= maxDevices {
		return nil, false
	}
	d = &device{choice: Online, seen: now}
	e.devices[nr] = d
	return d, false
}

func (d *device) gone(now time.Time) bool { return d.open == 0 && now.Sub(d.seen) >= offlineAfter }

// state is what the user is to be shown as: the best of its clients; nobody is online who has not done anything for a while.
func (e *entry) state(now time.Time) State {
	if !e.local {
		if now.Sub(e.heard) >= silence {
			return Offline
		}
		return e.said
	}
	best := e.choice(now)
	if best == Online && now.Sub(e.active) >= idleAfter {
		return Unavailable
	}
	return best
}

// choice is the best that the user's clients want it to be shown as. Clients that are gone are forgotten.
func (e *entry) choice(now time.Time) State {
	best := Offline
	for nr, d := range e.devices {
		if d.gone(now) {
			delete(e.devices, nr)
			continue
		}
		best = max(best, d.choice)
	}
	return best
}

// due is when state may be another although nobody does anything; zero if never.
func (e *entry) due(now time.Time) (at time.Time) {
	if !e.local {
		if e.state(now) != Offline {
			at = e.heard.Add(silence)
		}
		return at
	}
	if e.state(now) == Online {
		at = e.active.Add(idleAfter)
	}
	for _, d := range e.devices {
		if d.open == 0 {
			at = earlier(at, d.seen.Add(offlineAfter))
		}
	}
	return at
}

// view is what is to be told.
func (e *entry) view(now time.Time) view {
	v := view{state: e.state(now), message: e.message, name: e.name, avatar: e.avatar}
	v.current = !e.local && e.current && v.state == Online
	return v
}

// idle says whether the entry can be dropped: the database has what it says, or its server will say it again.
func (e *entry) idle() bool { return !e.local || len(e.devices) == 0 && e.told.state == Offline }

// timers are the users whose state may change by time alone, the next one first.
type timers []*entry

// grain is what times are rounded up to, so that several fall due together.
const grain = time.Second

// set sets, moves or (with zero) takes away an entry's time.
func (t *timers) set(e *entry, due time.Time) {
	if !due.IsZero() {
		due = due.Add(grain - 1).Truncate(grain)
	}
	switch e.until = due; {
	case due.IsZero() && e.timer >= 0:
		heap.Remove(t, e.timer)
	case due.IsZero():
	case e.timer >= 0:
		heap.Fix(t, e.timer)
	default:
		heap.Push(t, e)
	}
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].until.Before(t[j].until) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	e := x.(*entry) //nolint:errcheck // nothing else is pushed
	e.timer = len(*t)
	*t = append(*t, e)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	e := (*t)[last]
	(*t)[last] = nil
	*t, e.timer = (*t)[:last], -1
	return e
}
