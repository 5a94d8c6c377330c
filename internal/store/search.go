package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DocumentKind says what is searched in an event.
type DocumentKind int16

// The kinds of documents, in the numbers of the database.
const (
	DocumentBody  DocumentKind = iota + 1 // of a message
	DocumentName                          // of a room
	DocumentTopic                         // of a room
)

// Document is an event as it can be found by words. Source is the event that the words are of: it itself, or its newest edit.
type Document struct {
	Event  EventNID
	Room   RoomNID
	Sender UserNID
	Kind   DocumentKind
	Source EventNID
	Words  []string // in lower case, letters and digits alone
}

// body is how words stand in a row: each can be found, counted and taken away with the spaces around it.
func (d *Document) body() string {
	var b strings.Builder
	for _, w := range d.Words {
		b.WriteByte(' ')
		b.WriteString(w)
		b.WriteByte(' ')
	}
	return b.String()
}

// PutDocuments brings documents into the index, one for each event, in the place of what it had of their events.
func (tx *Tx) PutDocuments(docs []Document) error {
	return tx.InsertRows(Insert{Table: "search", Rows: len(docs), Suffix: `ON CONFLICT (event) DO UPDATE SET kind = excluded.kind,
		source = excluded.source, body = excluded.body`, Cols: []Col{
		IntCol("event", func(i int) EventNID { return docs[i].Event }),
		IntCol("room", func(i int) RoomNID { return docs[i].Room }),
		IntCol("sender", func(i int) UserNID { return docs[i].Sender }),
		IntCol("kind", func(i int) DocumentKind { return docs[i].Kind }),
		IntCol("source", func(i int) EventNID { return docs[i].Source }),
		TextCol("body", func(i int) string { return docs[i].body() }),
	}})
}

// DropDocuments takes events out of the index.
func (tx *Tx) DropDocuments(events []EventNID) error {
	return chunks(events, func(part []EventNID) error {
		_, err := tx.Exec(`DELETE FROM search WHERE event IN ({ids $1})`, int64s(part))
		return err
	})
}

// QueueForSearch has events indexed again that the stream says nothing of.
func (tx *Tx) QueueForSearch(events []EventNID) error {
	events = slices.Clone(events)
	slices.Sort(events)
	events = slices.Compact(events)
	return tx.InsertRows(Insert{Table: "search_queue", Rows: len(events), Suffix: `ON CONFLICT (event) DO UPDATE SET asked = search_queue.asked + 1`, Cols: []Col{
		IntCol("event", func(i int) EventNID { return events[i] }),
		IntCol("asked", func(int) int64 { return 1 }),
	}})
}

// Queued is an event that waits to be indexed again.
type Queued struct {
	Event EventNID
	Room  RoomNID // 0 if the event is gone
	Asked int64
}

// SearchQueue reads events that wait to be indexed again.
func (tx *Tx) SearchQueue(limit int, each func(Queued)) error {
	return tx.Query(`SELECT q.event, coalesce(e.room, 0), q.asked FROM search_queue q LEFT JOIN events e ON e.nid = q.event ORDER BY q.event LIMIT $1`, func(r *Row) error {
		each(Queued{EventNID(r.Int64(0)), RoomNID(r.Int64(1)), r.Int64(2)})
		return nil
	}, limit)
}

// Unqueue forgets events that were indexed, unless they have been asked for again meanwhile.
func (tx *Tx) Unqueue(done []Queued) error {
	for _, q := range done {
		if _, err := tx.Exec(`DELETE FROM search_queue WHERE event = $1 AND asked = $2`, q.Event, q.Asked); err != nil {
			return err
		}
	}
	return nil
}

// Originals finds the events that some events of a room relate to as edits, whether they still do or were redacted.
func (tx *Tx) Originals(room RoomNID, edits []EventNID, each func(EventNID)) error {
	return chunks(edits, func(part []EventNID) error {
		return tx.Query(`SELECT DISTINCT e.nid FROM relations r JOIN events e ON e.event_id = r.target AND e.room = r.room
			WHERE r.event IN ({ids $1}) AND r.room = $2 AND r.rel_type = 'm.replace'`, func(r *Row) error {
			each(EventNID(r.Int64(0)))
			return nil
		}, int64s(part), room)
	})
}

// SearchPlace is where a search stands: at a hit.
type SearchPlace struct {
	Score int64 // 0 in the order of time
	Place
}

// SearchQuery asks for documents that have all of some words.
type SearchQuery struct {
	Words   []string // at least one, at most MaxSearchWords; letters and digits alone
	Rooms   []RoomNID
	Kinds   []DocumentKind
	Senders []UserNID    // nil: anybody
	Recent  bool         // the newest first, else those with most of the words
	After   *SearchPlace // the hit that was read last; nil: from the beginning
	Limit   int
}

// MaxSearchWords bounds the words of one search.
const MaxSearchWords = 12

// Hit is a document that was found.
type Hit struct {
	Event, Source EventNID
	Room          RoomNID
	At            SearchPlace
}

// Search finds documents. Who may see them it does not know. How well a document fits depends on its own text alone: a measure
// that counts how rare a word is would tell of rooms that the asker is not in.
func (tx *Tx) Search(q SearchQuery, each func(Hit)) error {
	if len(q.Words) == 0 || len(q.Words) > MaxSearchWords {
		return fmt.Errorf("store: a search for %d words", len(q.Words))
	}
	d := tx.db.dialect
	kinds := make([]int64, len(q.Kinds))
	for i, k := range q.Kinds {
		kinds[i] = int64(k)
	}
	args := []any{d.searchWords(q.Words), d.searchRooms(q.Rooms), int64s(q.Rooms), kinds, int64s(q.Senders), q.Senders == nil, int64(flagsUnrelated), q.Limit}
	score := `0`
	if !q.Recent {
		var counts []string
		for _, w := range q.Words {
			args = append(args, " "+w+" ")
			counts = append(counts, fmt.Sprintf("(length(s.body) - length(replace(s.body, $%d, ''))) / length($%d)", len(args), len(args)))
		}
		score = `10000 * (` + strings.Join(counts, " + ") + `) / (length(s.body) + 50)`
	}
	after := `TRUE`
	if q.After != nil {
		n := len(args)
		args = append(args, q.After.Score, q.After.Pos, q.After.Sub)
		after = fmt.Sprintf(`(x.score, x.pos, x.sub) < ($%d, $%d, $%d)`, n+1, n+2, n+3)
	}
	return tx.Query(`SELECT x.event, x.source, x.room, x.score, x.pos, x.sub FROM (
		SELECT s.event, s.source, s.room, e.pos, e.sub, CAST(`+score+` AS BIGINT) AS score FROM {search} JOIN events e ON e.nid = s.event
		WHERE {match}$1{in rooms}$2{matched} AND s.room IN ({ids $3}) AND s.kind IN ({ids $4}) AND ($6 OR s.sender IN ({ids $5}))
		AND e.pos IS NOT NULL AND (e.flags & $7) = 0) x WHERE `+after+` ORDER BY x.score DESC, x.pos DESC, x.sub DESC LIMIT $8`, func(r *Row) error {
		each(Hit{EventNID(r.Int64(0)), EventNID(r.Int64(1)), RoomNID(r.Int64(2)), SearchPlace{r.Int64(3), Place{Pos(r.Int64(4)), r.Int64(5)}}})
		return nil
	}, args...)
}

// searchWords and searchRooms are what the macros {match} and {in rooms} of a search want: that all words are in the document,
// and that it is of one of the rooms.
func (d *dialect) searchWords(words []string) string {
	if d.postgres {
		return strings.Join(words, " ")
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = `body : "` + w + `"`
	}
	return strings.Join(quoted, " AND ")
}

func (d *dialect) searchRooms(rooms []RoomNID) string {
	names := make([]string, len(rooms))
	for i, room := range rooms {
		number := strconv.FormatInt(int64(room), 10)
		if names[i] = `"r` + number + `"`; d.postgres {
			names[i] = `'room:` + number + `'`
		}
	}
	if d.postgres {
		return strings.Join(names, " | ")
	}
	return " AND place : (" + strings.Join(names, " OR ") + ")"
}
