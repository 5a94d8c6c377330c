package federation

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Concerned implements Outbox. One goroutine at a time may call it.
func (o *Rows) Concerned(ctx context.Context, after store.Pos) ([]matrix.ServerName, store.Pos, error) {
	own, err := o.ours(ctx)
	if err != nil {
		return nil, after, err
	}
	bound, err := o.DB.StreamBound(ctx)
	if err != nil || bound <= after {
		return nil, after, err
	}
	commits, known := o.DB.Committed(after, bound)
	if !known {
		clear(o.members)
	}
	servers := map[store.ServerNID]bool{}
	note := func(nid store.ServerNID) { servers[nid] = true }
	rooms, only := onlyEvents(commits, after, bound)
	o.members.forget(commits)
	if !known || !only {
		if rooms, err = o.askConcerned(ctx, own, after, bound, note); err != nil {
			return nil, after, err
		}
	}
	for _, room := range rooms {
		if err := o.members.of(ctx, o.DB, room, note); err != nil {
			return nil, after, err
		}
	}
	delete(servers, own)
	names, err := o.names(ctx, servers)
	if err != nil {
		return nil, after, err
	}
	return names, bound, nil
}

// onlyEvents names the rooms in which something came that is ours to send, if commits in a range are nothing but events
// that move nobody: nearly all are, and then the database need not be asked.
func onlyEvents(commits []store.Commit, after, upTo store.Pos) (rooms []store.RoomNID, ok bool) {
	seen := map[store.RoomNID]bool{}
	for _, c := range commits {
		if !c.Appended || len(c.Changes) > 0 {
			return nil, false
		}
		for _, e := range c.Events {
			if e.Flags.Has(store.FlagSend) && e.Pos > after && e.Pos <= upTo && !seen[e.Room] {
				seen[e.Room] = true
				rooms = append(rooms, e.Room)
			}
		}
	}
	return rooms, true
}

// askConcerned asks the database for the rooms in which something of ours came, and notes the servers that something
// else concerns: device lists, messages to devices, users of theirs who moved.
func (o *Rows) askConcerned(ctx context.Context, own store.ServerNID, after, bound store.Pos, note func(store.ServerNID)) (rooms []store.RoomNID, err error) {
	if o.Keys != nil {
		more, err := o.Keys.Concerned(ctx, after, bound)
		if err != nil {
			return nil, err
		}
		for _, nid := range more {
			note(nid)
		}
	}
	err = o.DB.Read(ctx, func(tx *store.Tx) error {
		if after == 0 {
			return tx.SharingServers(note)
		}
		rooms = nil
		if err := tx.OutgoingRooms(own, after, bound, func(room store.RoomNID) { rooms = append(rooms, room) }); err != nil {
			return err
		}
		return tx.MovedServers(after, bound, note)
	})
	return rooms, err
}

// names finds the names of servers.
func (o *Rows) names(ctx context.Context, servers map[store.ServerNID]bool) (names []matrix.ServerName, err error) {
	if len(servers) == 0 {
		return nil, nil
	}
	var missing []store.ServerNID
	for nid := range servers {
		if name, ok := o.called[nid]; ok {
			names = append(names, name)
		} else {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return names, nil
	}
	if len(o.called) > maxKnownServers {
		clear(o.called)
	}
	err = o.DB.Read(ctx, func(tx *store.Tx) error {
		return tx.ServerNames(missing, func(nid store.ServerNID, name matrix.ServerName) { o.called[nid] = name })
	})
	for _, nid := range missing {
		if name, ok := o.called[nid]; ok {
			names = append(names, name)
		}
	}
	return names, err
}

// roomServers remembers which servers have joined users in a room, for as long as the stream shows no move there.
type roomServers map[store.RoomNID][]store.ServerNID

// maxRoomServers bounds the rooms that are remembered.
const maxRoomServers = 10_000

// forget drops the rooms in which somebody moved. What was read before these commits may not show it.
func (m roomServers) forget(commits []store.Commit) {
	for _, c := range commits {
		for _, change := range c.Changes {
			if change.Kind == store.ChangeMembership {
				delete(m, change.Room)
			}
		}
	}
}

// of notes the servers of a room.
func (m roomServers) of(ctx context.Context, db *store.DB, room store.RoomNID, note func(store.ServerNID)) error {
	servers, ok := m[room]
	if !ok {
		err := db.Read(ctx, func(tx *store.Tx) error {
			servers = nil
			return tx.ServerNIDsIn(room, func(nid store.ServerNID) { servers = append(servers, nid) })
		})
		if err != nil {
			return err
		}
		if len(m) >= maxRoomServers {
			clear(m)
		}
		m[room] = servers
	}
	for _, nid := range servers {
		note(nid)
	}
	return nil
}
