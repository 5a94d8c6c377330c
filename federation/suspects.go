package federation

import (
	"context"
	"fmt"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// A room whose event a server refuses must not hold up the others. The first time the culprit is found by halving (worker.go)
// and set aside; from then on the room is a suspect for that server: its events travel behind the others of a transaction,
// each in one of its own, and what is refused again is set aside without waiting, as long as the server is seen to take
// events of other rooms. An event of it that is taken ends the suspicion. The receiver finds what was set aside when
// something that follows it comes. All of this is memory: after a restart the culprit is searched once more.

const (
	suspectTime = time.Hour       // after the last refusal
	waitSuspect = 5 * time.Second // for the answer about one of its events
	maxSuspects = 1000            // rooms of one server; the transactions with others are halved
	proofTime   = time.Minute     // that an event which was taken shows that the server takes events
)

// suspicion is what is held against rooms at one server. Only the worker of that server uses it.
type suspicion struct {
	rooms map[store.RoomNID]time.Time // when an event was refused last
	took  time.Time                   // when an event of another room was taken last
}

// suspicion is what a worker has to know about its server; nil if there is nothing.
func (s *Sender) suspicion(server matrix.ServerName) *suspicion {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspicions[server]
}

// suspect notes that an event of a room was set aside.
func (s *Sender) suspect(server matrix.ServerName, room store.RoomNID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.suspicions[server]
	if of == nil {
		of = &suspicion{rooms: map[store.RoomNID]time.Time{}}
		s.suspicions[server] = of
	}
	if _, known := of.rooms[room]; known || len(of.rooms) < maxSuspects {
		of.rooms[room] = s.now()
	}
}

// clear ends the suspicion of a room, and of all for which it is too old.
func (s *Sender) clear(server matrix.ServerName, room store.RoomNID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.suspicions[server]
	if of == nil {
		return
	}
	delete(of.rooms, room)
	for other, last := range of.rooms {
		if s.now().Sub(last) > suspectTime {
			delete(of.rooms, other)
		}
	}
	if len(of.rooms) == 0 {
		delete(s.suspicions, server)
	}
}

// deliver sends a transaction: what belongs to suspects behind the rest and one by one.
func (w *worker) deliver(ctx context.Context, b *batch) (refused map[matrix.EventID]string, err error) {
	of := w.s.suspicion(w.server)
	if of == nil {
		return w.send(ctx, b.txn, b)
	}
	clean := &batch{edus: b.edus}
	var suspects []PDU
	for _, p := range b.pdus {
		last, ok := of.rooms[p.Room]
		switch {
		case !ok:
			clean.pdus = append(clean.pdus, p)
		case w.s.now().Sub(last) > suspectTime:
			w.s.clear(w.server, p.Room)
			clean.pdus = append(clean.pdus, p)
		default:
			suspects = append(suspects, p)
		}
	}
	if !clean.empty() {
		name := b.txn
		if len(suspects) > 0 {
			name = "c" + name // the whole, after a restart, is another transaction
		}
		if refused, err = w.send(ctx, name, clean); err != nil {
			return nil, err
		}
	}
	if len(clean.pdus) > 0 {
		of.took = w.s.now()
	}
	for _, p := range suspects {
		no, err := w.deliverSuspect(ctx, of, p)
		if err != nil {
			return nil, err
		}
		if no != "" {
			if refused == nil {
				refused = map[matrix.EventID]string{}
			}
			refused[p.ID] = no
		}
	}
	return refused, nil
}

// deliverSuspect sends one event of a suspect. A refusal is an error only while the server is not seen to take others.
func (w *worker) deliverSuspect(ctx context.Context, of *suspicion, p PDU) (refused string, err error) {
	alone := &batch{pdus: []PDU{p}}
	verdicts, err := w.sendWithin(ctx, w.s.suspectTimeout, fmt.Sprintf("s%x", p.Pos), alone)
	if err == nil {
		w.s.clear(w.server, p.Room)
		return verdicts[p.ID], nil
	}
	if ctx.Err() != nil || !blamesContent(err) && !isSlow(err) || w.s.now().Sub(of.took) > proofTime {
		return "", err
	}
	w.setAside(ctx, alone, err)
	return "", nil
}
