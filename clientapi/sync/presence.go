package sync

import (
	"context"
	"encoding/json"
	"maps"

	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
)

// maxPresence is how many users' presence one response brings.
const maxPresence = 1000

// presence adds who is online, of those who share a room with the user: at first everybody who is not offline, then what
// changed, and who came into view by a join. Nothing is asked while nothing changed.
func (a *assembly) presence() error {
	people := a.e.people
	if people == nil {
		return nil
	}
	keep := &a.q.Filter.Presence
	upTo := people.Position()
	q := presence.Query{
		User: a.q.User.NID, Limit: maxPresence, Fresh: a.fresh, Met: a.met(),
		All: a.q.Since == nil || a.q.FullState || !a.inTail || a.q.Since.Presence == 0,
	}
	if a.q.Since != nil {
		q.After = a.q.Since.Presence
	}
	if q.After > upTo { // the clock was set back between two processes: no position of this one
		q.After, q.All = 0, true
	}
	if keep.Limit != nil {
		q.Limit = max(0, min(*keep.Limit, maxPresence))
	}
	if q.After >= upTo && !q.All && len(q.Fresh)+len(q.Met) == 0 || !keep.KeepsType("m.presence") || q.Limit == 0 {
		a.res.next.Presence = upTo
		return nil
	}
	q.Joined = func(room store.RoomNID) bool { return a.members[room].Membership == store.Join }
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return err
	}
	q.Keep = func(id matrix.UserID) bool { return !ignored[id] && keep.keepsSender(string(id)) }
	found, upTo, err := people.Read(a.ctx, q)
	if err != nil {
		return err
	}
	a.res.next.Presence, a.res.more = upTo, upTo < people.Position()
	now := a.e.now()
	var events []json.RawMessage
	for _, status := range found {
		event, err := json.Marshal(presenceEvent{"m.presence", status.User, status.Content(now)})
		if err != nil {
			return err
		}
		events = append(events, event)
	}
	if len(events) > 0 {
		a.res.Presence = &eventList{events}
	}
	return nil
}

// presenceEvent is m.presence as clients get it.
type presenceEvent struct {
	Type    string           `json:"type"`
	Sender  matrix.UserID    `json:"sender"`
	Content presence.Content `json:"content"`
}

// met are the users who joined a room, as the response tells.
func (a *assembly) met() map[matrix.UserID]bool {
	var met map[matrix.UserID]bool
	for _, items := range a.byRoom {
		for _, it := range items {
			event := it.event.Event
			if key, ok := event.StateKey(); ok && event.Type() == "m.room.member" && event.Membership() == "join" {
				if met == nil {
					met = map[matrix.UserID]bool{}
				}
				met[matrix.UserID(key)] = true
			}
		}
	}
	return met
}

// ignores are the users whom a user ignores (client-server API, "Ignoring Users"): a map that is never changed. It is read
// once, and again after the user's own data changed.
func (l *listener) ignores(ctx context.Context, e *Engine) (map[matrix.UserID]bool, error) {
	l.mu.Lock()
	ignored, changes := l.ignored, l.dataChanges
	l.mu.Unlock()
	if ignored != nil {
		return ignored, nil
	}
	ignored, err := e.rooms.Ignored(ctx, l.user.NID)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dataChanges == changes {
		l.ignored = ignored
	}
	return ignored, nil
}

// forgetIgnored has the ignored users read again.
func (l *listener) forgetIgnored() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ignored = nil
	l.dataChanges++
}

// wakePeople wakes those who listen to rooms, and users, for what is not in the stream. It says how many were woken.
func (ls *listeners) wakePeople(rooms map[store.RoomNID]struct{}, users []store.UserNID) int {
	woken := map[*listener]struct{}{}
	ls.mu.Lock()
	for room := range rooms {
		ls.inRoom(room, woken)
	}
	for _, user := range users {
		if l := ls.users[user]; l != nil {
			woken[l] = struct{}{}
		}
	}
	maps.DeleteFunc(woken, func(l *listener, _ struct{}) bool { return l.holds == 0 })
	ls.mu.Unlock()
	for l := range woken {
		l.rouse()
	}
	return len(woken)
}
