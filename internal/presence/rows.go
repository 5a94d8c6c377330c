package presence

import (
	"context"
	"encoding/json"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// restore takes up whoever was not offline when the process before this one ended. Clients with older tokens are told of
// them again. Users of ours have a while to connect again; of others one waits to hear.
func (p *Presence) restore(ctx context.Context, abroad bool) error {
	now := p.now()
	if err := p.db.Write(ctx, (*store.Tx).DropClosedPresence); err != nil {
		return err
	}
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		p.users, p.byID, p.perServer, p.timers = map[store.UserNID]*entry{}, map[matrix.UserID]*entry{}, map[matrix.ServerName]int{}, nil
		p.order.Init()
		return tx.LivePresence(maxUsers, func(id matrix.UserID, row store.PresenceRow) {
			if id.Server() != p.own && !abroad {
				return // as it was before presence of other servers was switched off
			}
			e := &entry{nid: row.Member, id: id, local: id.Server() == p.own, message: row.Message, messageKnown: true, timer: -1}
			if row.Active > 0 {
				e.active = time.UnixMilli(row.Active)
			}
			state := max(min(State(row.State), Online), Offline)
			if e.local {
				e.devices, e.sent = map[int64]*device{restoredDevice: {choice: state, seen: now}}, now
				if state == Online { // when it last did something was not written any more
					e.active = later(e.active, now.Add(offlineAfter-idleAfter))
				}
			} else {
				e.said, e.heard = state, now
			}
			e.told = e.view(now)
			e.pos = p.last.Add(1)
			e.place = p.order.PushFront(e)
			p.add(e)
			p.review(e, now)
		})
	})
	if err != nil {
		return err
	}
	return p.db.Write(ctx, func(tx *store.Tx) error { return tx.DropPresence(p.nid) }) // true once
}

// row is what is stored of a user. The caller holds p.mu.
func (e *entry) row() store.PresenceRow {
	r := store.PresenceRow{Member: e.nid, State: int16(e.told.state), Message: e.told.message}
	if !e.active.IsZero() {
		r.Active = e.active.UnixMilli()
	}
	return r
}

// save writes what was told of users.
func (p *Presence) save(ctx context.Context, now time.Time, unsaved map[*entry]struct{}) {
	var rows []store.PresenceRow
	open := map[*entry]bool{}
	p.mu.Lock()
	for e := range unsaved {
		rows = append(rows, e.row())
		open[e] = !e.closed
	}
	p.saveAt = now.Add(saveEvery)
	p.mu.Unlock()
	err := p.db.Write(ctx, func(tx *store.Tx) error { return tx.PutPresence(rows) })
	if err != nil {
		p.complain(ctx, "storing who is online", err)
	}
	p.saved(open, err)
}

// saved notes of which users something is to be written again after an attempt; open says which of their accounts were
// open when their rows were made. Where one was closed meanwhile, the row may have come after that: PutPresence takes it
// away the next time.
func (p *Presence) saved(open map[*entry]bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e, was := range open {
		if err != nil || e.closed && was {
			p.unsaved[e] = struct{}{}
		}
	}
}

// leave stores what the next process is to know: what was not stored yet, when the users of ours who are there last did
// something, what other servers told, and what a user has set in the last moment, of which nobody was told yet.
func (p *Presence) leave(ctx context.Context) error {
	var rows []store.PresenceRow
	p.mu.Lock()
	now := p.now()
	for _, e := range p.users {
		untold := e.local && e.messageKnown && e.message != e.told.message
		if _, unsaved := p.unsaved[e]; !unsaved && !untold && e.told.state == Offline {
			continue
		}
		row := e.row()
		if untold {
			row.State, row.Message = int16(e.state(now)), e.message
		}
		rows = append(rows, row)
	}
	p.mu.Unlock()
	return p.db.Write(ctx, func(tx *store.Tx) error { return tx.PutPresence(rows) })
}

// found is what the database has of a user.
type found struct {
	row     *store.PresenceRow
	profile string
	rooms   []store.RoomNID
}

// load reads what is not known of users: where they are joined and, of users of ours, what is stored.
func (p *Presence) load(ctx context.Context, users map[*entry]struct{}) error {
	p.mu.Lock()
	moves, renames := p.moves, p.renames
	var unplaced, unread []store.UserNID
	for e := range users {
		if !e.placed {
			unplaced = append(unplaced, e.nid)
		}
		if e.local && !e.stored {
			unread = append(unread, e.nid)
		}
	}
	p.mu.Unlock()
	if len(unplaced)+len(unread) == 0 {
		return nil
	}
	known, err := p.read(ctx, unplaced, unread)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nid := range unplaced {
		if e := p.users[nid]; e != nil {
			e.rooms, e.placed = known[nid].rooms, p.moves == moves
		}
	}
	for _, nid := range unread {
		if e := p.users[nid]; e != nil {
			e.take(known[nid], p.renames == renames)
		}
	}
	return nil
}

// read asks the database.
func (p *Presence) read(ctx context.Context, unplaced, unread []store.UserNID) (map[store.UserNID]*found, error) {
	known := map[store.UserNID]*found{}
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		for _, nid := range unplaced {
			known[nid] = &found{}
		}
		for _, nid := range unread {
			known[nid] = &found{}
		}
		if err := tx.JoinedRoomsOf(unplaced, func(nid store.UserNID, room store.RoomNID) { known[nid].rooms = append(known[nid].rooms, room) }); err != nil {
			return err
		}
		if err := tx.PresenceOf(unread, func(row store.PresenceRow) { known[row.Member].row = &row }); err != nil {
			return err
		}
		return tx.ProfilesOf(unread, func(nid store.UserNID, fields string) { known[nid].profile = fields })
	})
	return known, err
}

// take takes over what is stored, as far as it is not known better; lasting says that nothing of it changed since it was
// read. The caller holds p.mu.
func (e *entry) take(f *found, lasting bool) {
	if e.closed {
		return
	}
	e.stored = lasting
	if row := f.row; row != nil {
		if !e.messageKnown {
			e.message, e.messageKnown = row.Message, true
		}
		if row.Active > 0 {
			e.active = later(e.active, time.UnixMilli(row.Active))
		}
	}
	var profile struct {
		Name   string `json:"displayname"`
		Avatar string `json:"avatar_url"`
	}
	if json.Unmarshal([]byte(f.profile), &profile) == nil {
		e.name, e.avatar = profile.Name, profile.Avatar
	}
}

// serversOf finds the servers in the rooms of users.
func (p *Presence) serversOf(ctx context.Context, users map[*entry]struct{}) (map[store.RoomNID][]store.ServerNID, error) {
	servers := map[store.RoomNID][]store.ServerNID{}
	var missing []store.RoomNID
	p.mu.Lock()
	moves := p.moves
	for e := range users {
		for _, room := range e.rooms {
			if _, seen := servers[room]; seen {
				continue
			}
			known, ok := p.servers[room]
			if servers[room] = known; !ok {
				missing = append(missing, room)
			}
		}
	}
	p.mu.Unlock()
	if len(missing) == 0 {
		return servers, nil
	}
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		for _, room := range missing {
			var in []store.ServerNID
			if err := tx.ServerNIDsIn(room, func(nid store.ServerNID) { in = append(in, nid) }); err != nil {
				return err
			}
			servers[room] = in
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.servers)+len(missing) > maxUsers {
		clear(p.servers)
	}
	for _, room := range missing {
		if p.moves == moves {
			p.servers[room] = servers[room]
		}
	}
	return servers, nil
}

// arrived looks at who moved: users of ours who came to a room, and are there, join those whom other servers hear of; of
// other servers' users, the servers are returned by room.
func (p *Presence) arrived(ctx context.Context, out map[*entry]struct{}, arrivals map[arrival]struct{}) (map[store.RoomNID][]store.ServerNID, error) {
	if len(arrivals) == 0 {
		return nil, nil
	}
	servers := map[store.RoomNID][]store.ServerNID{}
	var ours []store.UserNID
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		clear(servers)
		ours = nil
		for a := range arrivals {
			m, err := tx.Membership(a.room, a.user)
			switch {
			case err != nil:
				return err
			case m == nil || m.Membership != store.Join:
			case m.Server == p.nid:
				ours = append(ours, a.user)
			default:
				servers[a.room] = append(servers[a.room], m.Server)
			}
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nid := range ours {
		if e := p.users[nid]; e != nil && e.told.state != Offline {
			out[e] = struct{}{}
		}
	}
	return servers, err
}

// named puts names in the place of numbers.
func (p *Presence) named(ctx context.Context, users map[store.ServerNID]map[matrix.UserID]struct{}) (map[matrix.ServerName][]matrix.UserID, error) {
	named := map[matrix.ServerName][]matrix.UserID{}
	nids := make([]store.ServerNID, 0, len(users))
	for nid := range users {
		nids = append(nids, nid)
	}
	if len(nids) == 0 {
		return named, nil
	}
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		clear(named)
		return tx.ServerNames(nids, func(nid store.ServerNID, name matrix.ServerName) {
			for id := range users[nid] {
				named[name] = append(named[name], id)
			}
		})
	})
	return named, err
}
