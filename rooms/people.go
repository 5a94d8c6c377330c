package rooms

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of the directory of people.
const (
	peopleStep  = 500              // memberships that are taken in at once
	peopleRange = 5000             // positions of the stream that are looked through at once
	peoplePause = time.Second      // between two looks, so that busy rooms are looked at together
	peopleLook  = 10 * time.Second // where nothing wakes
	peopleWords = 24               // by which one person is found
	wordBytes   = 64               // of one of them
	searchWords = 4                // of one search
	nameBytes   = 255              // of a name or an avatar's address that is kept; longer ones are not
)

// RunPeople keeps the directory of people, by a cursor over the stream (law 10). It ends with ctx.
func (r *Rooms) RunPeople(ctx context.Context) error {
	wakes, cancel := r.bus.Subscribe(cluster.Stream)
	defer cancel()
	look := time.NewTicker(peopleLook)
	defer look.Stop()
	for {
		if err := r.followPeople(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("keeping the directory of people failed", "err", err)
		}
		pause := time.NewTimer(peoplePause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
		select {
		case <-wakes:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followPeople takes in everything that is committed by now.
func (r *Rooms) followPeople(ctx context.Context) error {
	bound, err := r.db.StreamBound(ctx)
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		var at store.PeopleCursor
		if err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
			at, err = tx.PeopleCursor()
			return err
		}); err == nil {
			more, err = r.peopleStep(ctx, at, bound)
		}
	}
	return err
}

// peopleChange is what one step changes.
type peopleChange struct {
	people map[store.UserNID]store.Person
	rooms  map[store.RoomNID]bool // whether they are open
	cursor store.PeopleCursor
}

// peopleStep takes in the next changes of memberships and of the stream, and reports whether there are more.
func (r *Rooms) peopleStep(ctx context.Context, at store.PeopleCursor, bound store.Pos) (more bool, err error) {
	if at.Stream == 0 { // the memberships alone tell everything up to now
		at.Stream = bound
	}
	c := peopleChange{people: map[store.UserNID]store.Person{}, rooms: map[store.RoomNID]bool{}, cursor: at}
	n, err := r.memberPeople(ctx, bound, &c)
	if err != nil {
		return false, err
	}
	upTo := min(bound, at.Stream+peopleRange)
	own, err := r.streamPeople(ctx, at.Stream, upTo, &c)
	if err != nil {
		return false, err
	}
	c.cursor.Stream = upTo
	if c.cursor == at && len(own) == 0 && n == 0 {
		return false, nil
	}
	for room := range c.rooms {
		if c.rooms[room], err = r.openToAll(ctx, room); err != nil {
			return false, err
		}
	}
	return n == peopleStep || upTo < bound, r.db.Write(ctx, func(tx *store.Tx) error { return r.putPeople(tx, &c, own) })
}

// memberPeople collects who came in or changed its name, and the rooms where that was.
func (r *Rooms) memberPeople(ctx context.Context, bound store.Pos, c *peopleChange) (n int, err error) {
	joined := map[store.RoomNID][]store.EventNID{}
	ids := map[store.EventNID]store.Person{}
	at := c.cursor
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		clear(joined)
		clear(ids)
		n = 0
		return tx.MembershipsChanged(at, bound, peopleStep, func(m store.MemberRow, id matrix.UserID) {
			n++
			c.cursor.Pos, c.cursor.Room, c.cursor.Member = m.Pos, m.Room, m.Member
			c.rooms[m.Room] = false
			if m.Membership == store.Join {
				joined[m.Room] = append(joined[m.Room], m.Event)
				ids[m.Event] = store.Person{User: m.Member, ID: id}
			}
		})
	})
	if err != nil {
		return 0, err
	}
	for room, events := range joined {
		rows, err := r.eventsByNID(ctx, room, events)
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			p := ids[row.NID]
			p.Name, _ = matrix.GetString(row.Event.Content(), "displayname")
			p.Avatar, _ = matrix.GetString(row.Event.Content(), "avatar_url")
			c.people[p.User] = p
		}
	}
	return n, nil
}

// streamPeople collects the rooms that were opened or closed, and the users whose profile changed.
func (r *Rooms) streamPeople(ctx context.Context, after, upTo store.Pos, c *peopleChange) (own []store.UserNID, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		own = nil
		if err := tx.Changes(after, upTo, func(change store.Change) {
			if change.Kind == store.ChangeProfile && change.User != 0 {
				own = append(own, change.User)
			}
		}); err != nil {
			return err
		}
		return tx.StateStream(after, upTo, func(row *store.EventRow) {
			if typ := row.Event.Type(); row.Event.StateKeyEquals("") && (typ == "m.room.join_rules" || typ == "m.room.history_visibility") {
				c.rooms[row.Room] = false
			}
		})
	})
	return own, err
}

// openToAll reports whether everybody may find a room's members: it has the join rule public or its history can be read
// by the world (client-server API, "User directory").
func (r *Rooms) openToAll(ctx context.Context, room store.RoomNID) (bool, error) {
	state, err := r.CurrentState(ctx, room)
	if err != nil {
		return false, err
	}
	if rule, err := r.StateEvent(ctx, room, state, "m.room.join_rules", ""); err != nil || rule != nil && matrix.ParseJoinRule(rule.Event.Content()).Rule == "public" {
		return err == nil, err
	}
	return r.WorldReadable(ctx, room, state)
}

// putPeople writes what a step found. What users of ours are called says their profile, not what they are in one room.
func (r *Rooms) putPeople(tx *store.Tx, c *peopleChange, own []store.UserNID) error {
	for _, user := range own {
		if account, err := tx.AccountOf(user); err != nil {
			return err
		} else if account != nil {
			c.people[user] = store.Person{User: user, ID: account.ID}
		}
	}
	for _, user := range slices.Sorted(maps.Keys(c.people)) { // in one order, whoever else writes
		p := c.people[user]
		if r.own.IsOurs(p.ID.Server()) {
			account, err := tx.AccountOf(user)
			if err == nil && account != nil && account.Deactivated {
				if err = tx.DropPerson(user); err == nil {
					continue
				}
			}
			if err != nil {
				return err
			}
			profile, err := tx.Profile(user)
			if err != nil {
				return err
			}
			p.Name, _ = matrix.GetString([]byte(profile), "displayname")
			p.Avatar, _ = matrix.GetString([]byte(profile), "avatar_url")
		}
		if len(p.Name) > nameBytes || !matrix.IsText(p.Name) { // which no database keeps, and nobody looks for
			p.Name = ""
		}
		if len(p.Avatar) > nameBytes || !matrix.IsText(p.Avatar) {
			p.Avatar = ""
		}
		p.Words = wordsOf(p)
		if err := tx.PutPerson(p); err != nil {
			return err
		}
	}
	for _, room := range slices.Sorted(maps.Keys(c.rooms)) {
		if err := tx.SetOpenRoom(room, c.rooms[room]); err != nil {
			return err
		}
	}
	return tx.SetPeopleCursor(c.cursor)
}

// wordsOf are the words by which a person is found: the parts of its name and of its ID, the localpart and the whole ID.
func wordsOf(p store.Person) []string {
	id := strings.ToLower(strings.TrimPrefix(string(p.ID), "@"))
	localpart, _, _ := strings.Cut(id, ":")
	words := append([]string{cutWord(id), cutWord(localpart)}, split(localpart)...)
	words = append(words, split(p.Name)...)
	words = words[:min(len(words), peopleWords)]
	slices.Sort(words)
	return slices.Compact(words)
}

// split takes a text apart into words of letters and digits, in lower case.
func split(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) })
	for i, word := range words {
		words[i] = cutWord(word)
	}
	return words
}

// cutWord bounds a word.
func cutWord(word string) string {
	if len(word) <= wordBytes {
		return word
	}
	for at := wordBytes; ; at-- {
		if utf8.RuneStart(word[at]) {
			return word[:at]
		}
	}
}

// SearchPeople finds people by the beginnings of words of their names and IDs: those who are in a room with the searcher,
// or in one that is open, and are not among skip. limited says that there are more.
func (r *Rooms) SearchPeople(ctx context.Context, by store.UserNID, term string, limit int, skip map[matrix.UserID]bool) (found []store.Person, limited bool, err error) {
	q := store.PeopleQuery{By: by, Words: searched(term), Limit: 4 * (limit + 1)}
	if len(q.Words) == 0 {
		return nil, false, nil
	}
	known := map[store.UserNID]bool{}
	for {
		n := 0
		err = r.db.Read(ctx, func(tx *store.Tx) error {
			n = 0
			return tx.FindPeople(q, func(p store.Person, word string) {
				n++
				q.After, q.Last = word, p.User
				if !known[p.User] && !skip[p.ID] {
					known[p.User] = true
					found = append(found, p)
				}
			})
		})
		switch {
		case err != nil:
			return nil, false, err
		case len(found) > limit:
			return found[:limit], true, nil
		case n < q.Limit:
			return found, false, nil
		}
	}
}

// searched are the words of a search, the longest first: it is in the fewest names. What looks like a user ID stays whole.
func searched(term string) []string {
	var words []string
	for _, part := range strings.Fields(term) {
		if strings.Contains(part, ":") {
			words = append(words, cutWord(strings.ToLower(strings.TrimPrefix(part, "@"))))
		} else {
			words = append(words, split(part)...)
		}
	}
	slices.SortStableFunc(words, func(a, b string) int { return len(b) - len(a) })
	return words[:min(len(words), searchWords)]
}
