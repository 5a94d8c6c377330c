package store

import "conclave/internal/matrix"

// Relation says that an event relates to another.
type Relation struct {
	Target    matrix.EventID
	RelType   string
	Event     EventNID
	EventType string // of the event that relates
}

// flagsUnrelated take an event out of its relation: it is shown to nobody, or what it related to was redacted with it.
const flagsUnrelated = FlagRejected | FlagSoftFailed | FlagRedacted | FlagOutlier | FlagHeld

func (w *appendWork) writeRelations(b *Batch) {
	var rooms []RoomNID
	var rows []Relation
	for _, a := range w.good {
		for _, r := range a.Relations {
			rooms, rows = append(rooms, a.Room), append(rows, r)
		}
	}
	b.Insert(relationInsert(rows, func(i int) RoomNID { return rooms[i] }))
}

// Relate notes relations of events.
func (tx *Tx) Relate(room RoomNID, relations []Relation) error {
	return tx.InsertRows(relationInsert(relations, func(int) RoomNID { return room }))
}

func relationInsert(rows []Relation, room func(i int) RoomNID) Insert {
	return Insert{Table: "relations", Rows: len(rows), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("room", room),
		TextCol("target", func(i int) string { return string(rows[i].Target) }),
		TextCol("rel_type", func(i int) string { return rows[i].RelType }),
		IntCol("event", func(i int) EventNID { return rows[i].Event }),
		TextCol("event_type", func(i int) string { return rows[i].EventType }),
	}}
}

// Child is an event that relates to another. Its row is without text: as much as says where it stands and who may see it.
type Child struct {
	Target matrix.EventID
	ID     matrix.EventID
	Row    EventRow
}

// childColumns are what childRow reads.
const childColumns = `c.target, c.event_id, c.nid, c.sender, c.pos, c.sub, c.flags, c.state_after`

func childRow(room RoomNID, r *Row) (Child, error) {
	c := Child{Target: matrix.EventID(r.Text(0)), ID: matrix.EventID(r.Text(1)), Row: EventRow{
		NID: EventNID(r.Int64(2)), Room: room, Sender: UserNID(r.Int64(3)), Pos: Pos(r.Int64(4)), Sub: r.Int64(5), Flags: EventFlags(r.Int64(6)),
	}}
	if r.IsNull(7) {
		return c, nil
	}
	state, err := stateFrom(r.Bytes(7))
	c.Row.After = &state
	return c, err
}

// children runs a query for columns of Child.
func (tx *Tx) children(room RoomNID, sql string, each func(Child), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		c, err := childRow(room, r)
		if err == nil {
			each(c)
		}
		return err
	}, args...)
}

// Edits finds the newest edits of each of some events by their own senders, by time and then by ID, at most limit for each.
// Whether an edit is a valid one its text says.
func (tx *Tx) Edits(room RoomNID, targets []matrix.EventID, limit int, each func(Child)) error {
	return chunks(targets, func(part []matrix.EventID) error {
		return tx.children(room, `SELECT `+childColumns+` FROM (
			SELECT r.target, e.event_id, e.nid, e.sender, e.pos, e.sub, e.flags, e.state_after,
				row_number() OVER (PARTITION BY r.target ORDER BY e.ts DESC, e.event_id DESC) AS place
			FROM relations r JOIN events e ON e.nid = r.event JOIN events t ON t.event_id = r.target AND t.room = r.room AND t.sender = e.sender
			WHERE r.room = $1 AND r.target IN ({texts $2}) AND r.rel_type = 'm.replace' AND e.pos IS NOT NULL AND (e.flags & $3) = 0
			) c WHERE c.place <= $4 ORDER BY c.target, c.place`, each, room, texts(part), int64(flagsUnrelated), limit)
	})
}

// References finds the newest events that refer to each of some events (m.reference), in the order of the timeline and at most
// limit for each, without those of some senders.
func (tx *Tx) References(room RoomNID, targets []matrix.EventID, without []UserNID, limit int, each func(Child)) error {
	return chunks(targets, func(part []matrix.EventID) error {
		return tx.children(room, `SELECT `+childColumns+` FROM (
			SELECT r.target, e.event_id, e.nid, e.sender, e.pos, e.sub, e.flags, e.state_after,
				row_number() OVER (PARTITION BY r.target ORDER BY e.pos DESC, e.sub DESC) AS place
			FROM relations r JOIN events e ON e.nid = r.event
			WHERE r.room = $1 AND r.target IN ({texts $2}) AND r.rel_type = 'm.reference' AND e.pos IS NOT NULL AND (e.flags & $3) = 0
			AND e.sender NOT IN ({ids $4})) c WHERE c.place <= $5 ORDER BY c.target, c.place DESC`,
			each, room, texts(part), int64(flagsUnrelated), int64s(without), limit)
	})
}

// ThreadPart is those events of a thread that share a state, and with it who may see them.
type ThreadPart struct {
	Newest Child
	Count  int
	Own    bool // the reader sent one of them
}

// maxThreadParts bounds how many parts are read of the threads of one page, the newest first.
const maxThreadParts = 5000

// ThreadParts reads the threads that begin at some events, without the events of some senders. left is where the reader left
// the room for the last time, by which the parts are split too.
func (tx *Tx) ThreadParts(room RoomNID, roots []matrix.EventID, reader UserNID, without []UserNID, left Pos, each func(ThreadPart)) error {
	return chunks(roots, func(part []matrix.EventID) error {
		return tx.Query(`WITH x AS (
			SELECT r.target, e.event_id, e.nid, e.sender, e.pos, e.sub, e.flags, e.state_after, e.pos < $6 AS early,
				CASE WHEN e.sender = $5 THEN 1 ELSE 0 END AS own,
				row_number() OVER (PARTITION BY r.target, e.state_after, e.pos < $6 ORDER BY e.pos DESC, e.sub DESC) AS place
			FROM relations r JOIN events e ON e.nid = r.event
			WHERE r.room = $1 AND r.target IN ({texts $2}) AND r.rel_type = 'm.thread' AND e.pos IS NOT NULL AND (e.flags & $3) = 0
			AND e.sender NOT IN ({ids $4})),
			n AS (SELECT target, state_after, early, count(*) AS events, max(own) AS own FROM x GROUP BY target, state_after, early)
			SELECT `+childColumns+`, n.events, n.own FROM x c JOIN n ON n.target = c.target AND n.state_after = c.state_after AND n.early = c.early
			WHERE c.place = 1 ORDER BY c.pos DESC, c.sub DESC LIMIT $7`, func(r *Row) error {
			c, err := childRow(room, r)
			if err == nil {
				each(ThreadPart{c, r.Int(8), r.Int64(9) != 0})
			}
			return err
		}, room, texts(part), int64(flagsUnrelated), int64s(without), reader, left, maxThreadParts)
	})
}

// RelatedQuery asks for events that relate to one, directly or through others.
type RelatedQuery struct {
	Room      RoomNID
	Target    matrix.EventID
	RelType   string // "" for any; of every relation on the way
	EventType string // "" for any; of every event on the way
	Depth     int    // how many relations may lie between
	Lo, Hi    Place  // after lo and up to hi
	Backward  bool
	Limit     int
}

// Related reads the events that relate to an event, in the order of the timeline.
func (tx *Tx) Related(q RelatedQuery) ([]*EventRow, error) {
	order := `ORDER BY e.pos, e.sub`
	if q.Backward {
		order = `ORDER BY e.pos DESC, e.sub DESC`
	}
	var rows []*EventRow
	err := tx.events(`WITH RECURSIVE d (id, depth) AS (
		SELECT t.event_id, 0 FROM events t WHERE t.room = $1 AND t.event_id = $2
		UNION SELECT e.event_id, d.depth + 1 FROM d JOIN relations r ON r.room = $1 AND r.target = d.id JOIN events e ON e.nid = r.event
			WHERE d.depth < $3 AND ($4 = '' OR r.rel_type = $4) AND ($5 = '' OR r.event_type = $5) AND e.pos IS NOT NULL AND (e.flags & $6) = 0
		) `+selectEvents+`WHERE e.room = $1 AND e.event_id IN (SELECT id FROM d WHERE depth > 0) AND (e.pos, e.sub) > ($7, $8) AND (e.pos, e.sub) <= ($9, $10) `+
		order+` LIMIT $11`, func(e *EventRow) { rows = append(rows, e) },
		q.Room, string(q.Target), q.Depth, q.RelType, q.EventType, int64(flagsUnrelated), q.Lo.Pos, q.Lo.Sub, q.Hi.Pos, q.Hi.Sub, q.Limit)
	return rows, err
}

// ThreadQuery asks for the threads of a room, those first whose newest event is newest.
type ThreadQuery struct {
	Room    RoomNID
	Reader  UserNID
	Own     bool      // only those that the reader began or took part in
	Without []UserNID // senders whose events do not count
	UpTo    Pos       // how far the reader's view reaches
	Before  Place     // where the newest event of the thread stands that was listed last
	Limit   int
}

// ThreadRoot is an event from which a thread begins, and where the thread's newest event stands.
type ThreadRoot struct {
	Root   EventNID
	Newest Place
}

// Threads finds threads whose roots are held.
func (tx *Tx) Threads(q ThreadQuery, each func(ThreadRoot)) error {
	return tx.Query(`SELECT t.nid, x.pos, x.sub FROM (
		SELECT c.target, max(CASE WHEN c.place = 1 THEN c.pos END) AS pos, max(CASE WHEN c.place = 1 THEN c.sub END) AS sub, max(c.own) AS own FROM (
			SELECT r.target, e.pos, e.sub, CASE WHEN e.sender = $2 THEN 1 ELSE 0 END AS own,
				row_number() OVER (PARTITION BY r.target ORDER BY e.pos DESC, e.sub DESC) AS place
			FROM relations r JOIN events e ON e.nid = r.event
			WHERE r.room = $1 AND r.rel_type = 'm.thread' AND e.pos <= $3 AND (e.flags & $4) = 0 AND e.sender NOT IN ({ids $5})
		) c GROUP BY c.target) x JOIN events t ON t.event_id = x.target AND t.room = $1
		WHERE t.pos IS NOT NULL AND (x.pos, x.sub) < ($6, $7) AND (NOT $8 OR x.own = 1 OR t.sender = $2)
		ORDER BY x.pos DESC, x.sub DESC LIMIT $9`, func(r *Row) error {
		each(ThreadRoot{EventNID(r.Int64(0)), Place{Pos(r.Int64(1)), r.Int64(2)}})
		return nil
	}, q.Room, q.Reader, q.UpTo, int64(flagsUnrelated), int64s(q.Without), q.Before.Pos, q.Before.Sub, q.Own, q.Limit)
}

// Annotations reads the newest annotations of an event by one sender and of one type of event.
func (tx *Tx) Annotations(room RoomNID, target matrix.EventID, sender UserNID, eventType string, limit int, each func(*EventRow)) error {
	return tx.events(selectEvents+`JOIN relations x ON x.event = e.nid WHERE x.room = $1 AND x.target = $2 AND x.rel_type = 'm.annotation'
		AND x.event_type = $3 AND e.sender = $4 AND e.pos IS NOT NULL AND (e.flags & $5) = 0 ORDER BY e.pos DESC, e.sub DESC LIMIT $6`,
		each, room, string(target), eventType, sender, int64(flagsUnrelated), limit)
}
