package presence

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Update is what a server tells of a user of its own.
type Update struct {
	User    matrix.UserID
	State   State
	Current bool
	Message string
	Active  time.Time // zero if that is not known
}

// Take takes in what a server tells of its own users: of those who share a room with one of ours. What says nothing new
// costs a look into memory; the rest one question to the database for all together. Nothing is written.
func (p *Presence) Take(ctx context.Context, updates []Update) error {
	if p == nil {
		return nil
	}
	news := p.news(updates)
	if len(news) == 0 {
		return nil
	}
	ids := make([]matrix.UserID, 0, len(news))
	for id := range news {
		ids = append(ids, id)
	}
	sharing := map[matrix.UserID]store.UserNID{}
	err := p.db.Read(ctx, func(tx *store.Tx) error {
		clear(sharing)
		return tx.SharingWith(p.nid, ids, func(id matrix.UserID, nid store.UserNID) { sharing[id] = nid })
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for id, nid := range sharing {
		e := p.users[nid]
		if e == nil {
			if news[id].State == Offline || p.perServer[id.Server()] >= maxPerServer {
				continue
			}
			e = &entry{nid: nid, id: id, timer: -1, messageKnown: true}
			p.add(e)
		}
		if !e.local {
			e.hear(news[id], now)
			p.note(e)
			p.review(e, now)
		}
	}
	return nil
}

// news are the updates that change something, the last of each user; of the others it is noted that they came.
func (p *Presence) news(updates []Update) map[matrix.UserID]Update {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	news := map[matrix.UserID]Update{}
	for _, u := range updates {
		delete(news, u.User)
		e := p.byID[u.User]
		if e != nil && !e.local && e.said == u.State && e.current == u.Current && e.message == u.Message && now.Sub(e.heard) < silence {
			e.hear(u, now)
			p.review(e, now)
			continue
		}
		news[u.User] = u
	}
	return news
}

// hear takes over an update.
func (e *entry) hear(u Update, now time.Time) {
	e.said, e.current, e.message, e.heard = u.State, u.Current, u.Message, now
	if !u.Active.IsZero() {
		e.active = u.Active
	}
}

// Shorten makes of a status message what is kept of it: no database takes a NUL.
func Shorten(message string) string {
	message = strings.ReplaceAll(message, "\x00", "")
	if len(message) <= MaxMessage {
		return message
	}
	end := MaxMessage
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end]
}
