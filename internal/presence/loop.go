package presence

import (
	"context"
	"maps"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The pace of the loop. A round that tells clients is followed by a pause for each listener that it woke, one that tells
// other servers by a pause for each server, within bounds.
const (
	tellPause    = 5 * time.Millisecond
	tellShortest = time.Second
	tellLongest  = 30 * time.Second
	tellMost     = 1000 // users in a round

	outGather   = 500 * time.Millisecond // what comes together after a while of silence
	outPause    = 50 * time.Millisecond
	outShortest = 5 * time.Second
	outLongest  = 5 * time.Minute

	saveEvery = 30 * time.Second
	saveTime  = 3 * time.Second // for the last time
	retry     = 10 * time.Second
)

// Run tells of changes until ctx ends, and then stores what the next process is to know.
func (p *Presence) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := p.step(ctx)
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(max(next.Sub(p.now()), 0))
			due = timer.C
		}
		select {
		case <-due:
		case <-p.kick:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
			defer cancel()
			return p.leave(last)
		}
	}
}

// step does what is due and says when to come again; zero if nothing will be due by itself.
func (p *Presence) step(ctx context.Context) (next time.Time) {
	p.wakes.Add(1)
	now := p.now()
	p.mu.Lock()
	p.expire(now)
	var changed, unsaved, out map[*entry]struct{}
	var arrivals map[arrival]struct{}
	if !now.Before(p.tellAt) {
		changed = p.round()
	}
	p.mu.Unlock()
	p.announce(ctx, now, changed)

	p.mu.Lock()
	if !now.Before(p.outAt) {
		out, p.out = p.out, map[*entry]struct{}{}
		arrivals, p.arrivals = p.arrivals, map[arrival]struct{}{}
	}
	if !now.Before(p.saveAt) {
		unsaved, p.unsaved = p.unsaved, map[*entry]struct{}{}
	}
	p.mu.Unlock()
	p.tellServers(ctx, now, out, arrivals)
	if len(unsaved) > 0 {
		p.save(ctx, now, unsaved)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = p.nextDue()
	return p.armed
}

// nextDue is when there will be something to do. The caller holds p.mu.
func (p *Presence) nextDue() (next time.Time) {
	if len(p.timers) > 0 {
		next = p.timers[0].until
	}
	if len(p.changed) > 0 {
		next = earlier(next, p.tellAt)
	}
	if len(p.out)+len(p.arrivals) > 0 {
		next = earlier(next, p.outAt)
	}
	if len(p.unsaved) > 0 {
		next = earlier(next, p.saveAt)
	}
	return next
}

// expire looks at the users whose time has come. The caller holds p.mu.
func (p *Presence) expire(now time.Time) {
	for len(p.timers) > 0 && !p.timers[0].until.After(now) {
		e := p.timers[0]
		if p.refreshes(e) && now.Sub(e.sent) >= refreshEvery {
			p.send(e, now)
		}
		p.timers.set(e, time.Time{})
		p.review(e, now)
		if e.local && e.pos == 0 && len(e.devices) == 0 {
			p.drop(e) // was never shown
		}
	}
}

// round takes those who may have changed and are told of together, users of ours first: other servers may say that
// thousands of theirs come and go. The others wait for the next round. The caller holds p.mu.
func (p *Presence) round() map[*entry]struct{} {
	if len(p.changed) <= tellMost {
		all := p.changed
		p.changed = map[*entry]struct{}{}
		return all
	}
	part := make(map[*entry]struct{}, tellMost)
	for _, local := range []bool{true, false} {
		for e := range p.changed {
			if e.local == local && len(part) < tellMost {
				part[e] = struct{}{}
				delete(p.changed, e)
			}
		}
	}
	return part
}

// announce tells clients of users that may have changed.
func (p *Presence) announce(ctx context.Context, now time.Time, changed map[*entry]struct{}) {
	if len(changed) == 0 {
		return
	}
	if err := p.load(ctx, changed); err != nil {
		p.complain(ctx, "telling who is online", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.Copy(p.changed, changed)
		p.tellAt = now.Add(retry)
		return
	}
	rooms := map[store.RoomNID]struct{}{}
	var users []store.UserNID
	p.mu.Lock()
	for e := range changed {
		if p.users[e.nid] != e || !p.promote(e, now) {
			continue
		}
		for _, room := range e.rooms {
			rooms[room] = struct{}{}
		}
		users = append(users, e.nid)
	}
	p.mu.Unlock()
	if len(users) == 0 {
		return
	}
	woken := p.listen(rooms, users)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tellAt = now.Add(min(max(time.Duration(woken)*tellPause, tellShortest), tellLongest))
}

// promote gives a user that has changed the newest position. The caller holds p.mu.
func (p *Presence) promote(e *entry, now time.Time) bool {
	v := e.view(now)
	if v == e.told {
		return false
	}
	spoken := e.told.state != v.state || e.told.message != v.message
	e.told = v
	e.pos = p.last.Add(1)
	if e.place == nil {
		e.place = p.order.PushFront(e)
	} else {
		p.order.MoveToFront(e.place)
	}
	if e.local && spoken {
		p.send(e, now)
	}
	if e.local && spoken && !e.closed {
		p.unsaved[e] = struct{}{}
	}
	p.review(e, now)
	p.trim()
	return true
}

// trim drops somebody of whom nothing was told for long, if there are too many. The caller holds p.mu.
func (p *Presence) trim() {
	if p.order.Len() <= maxUsers {
		return
	}
	at := p.order.Back()
	for range 64 {
		if at == nil {
			return
		}
		e := entryAt(at)
		_, unsaved := p.unsaved[e]
		if at = at.Prev(); e.idle() && !unsaved {
			p.drop(e)
			return
		}
	}
}

// send notes that other servers are to hear of a user. The caller holds p.mu.
func (p *Presence) send(e *entry, now time.Time) {
	if p.remote == nil {
		return
	}
	p.out[e] = struct{}{}
	e.sent = now
	p.gather(now)
}

// gather lets what is for other servers wait a little for what comes with it. The caller holds p.mu.
func (p *Presence) gather(now time.Time) {
	if len(p.out)+len(p.arrivals) == 1 {
		p.outAt = later(p.outAt, now.Add(outGather))
	}
	p.poke(p.outAt)
}

// complain logs what failed, unless it is the end.
func (p *Presence) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		p.log.Warn(what+" failed; it is tried again", "err", err)
	}
}

// tellServers tells other servers of users of ours.
func (p *Presence) tellServers(ctx context.Context, now time.Time, out map[*entry]struct{}, arrivals map[arrival]struct{}) {
	if len(out)+len(arrivals) == 0 {
		return
	}
	targets, err := p.interested(ctx, out, arrivals)
	if err != nil {
		p.complain(ctx, "telling other servers who is online", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.Copy(p.out, out)
		maps.Copy(p.arrivals, arrivals)
		p.outAt = now.Add(retry)
		return
	}
	for server, users := range targets {
		p.remote.Presence(server, users)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outAt = now.Add(min(max(time.Duration(len(targets))*outPause, outShortest), outLongest))
}

// interested finds the servers that share a room with users, and those that have come to rooms of users.
func (p *Presence) interested(ctx context.Context, out map[*entry]struct{}, arrivals map[arrival]struct{}) (map[matrix.ServerName][]matrix.UserID, error) {
	arrived, err := p.arrived(ctx, out, arrivals)
	if err != nil {
		return nil, err
	}
	present := out
	if len(arrived) > 0 {
		present = p.present(out)
	}
	if err := p.load(ctx, present); err != nil {
		return nil, err
	}
	servers, err := p.serversOf(ctx, out)
	if err != nil {
		return nil, err
	}
	users := map[store.ServerNID]map[matrix.UserID]struct{}{}
	note := func(e *entry, servers []store.ServerNID) {
		for _, nid := range servers {
			if users[nid] == nil {
				users[nid] = map[matrix.UserID]struct{}{}
			}
			users[nid][e.id] = struct{}{}
		}
	}
	p.mu.Lock()
	for e := range present {
		_, all := out[e]
		for _, room := range e.rooms {
			if all {
				note(e, servers[room])
			} else {
				note(e, arrived[room])
			}
		}
	}
	p.mu.Unlock()
	delete(users, p.nid)
	return p.named(ctx, users)
}

// present are the users of ours who are not offline, and those given.
func (p *Presence) present(also map[*entry]struct{}) map[*entry]struct{} {
	all := map[*entry]struct{}{}
	for e := range also {
		all[e] = struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.users {
		if e.local && e.told.state != Offline {
			all[e] = struct{}{}
		}
	}
	return all
}
