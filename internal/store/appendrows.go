package store

// writeEvents queues the events of all groups as one insert.
func (w *appendWork) writeEvents(b *Batch) {
	var rows []*EventRow
	var replaced []int64
	for _, a := range w.good {
		rows = append(append(rows, a.Events...), a.Aside...)
		replaced = append(replaced, int64s(a.Replaced)...)
	}
	if len(replaced) > 0 {
		b.Exec(`DELETE FROM events WHERE nid IN ({ids $1})`, replaced)
	}
	b.Insert(eventInsert(rows))
}

// eventInsert describes the rows of events.
func eventInsert(rows []*EventRow) Insert {
	state := func(name string, of func(*EventRow) *State) Col {
		return BytesCol(name, func(i int) []byte { return of(rows[i]).bytes() })
	}
	return Insert{Table: "events", Rows: len(rows), Cols: []Col{
		IntCol("nid", func(i int) EventNID { return rows[i].NID }),
		IntCol("room", func(i int) RoomNID { return rows[i].Room }),
		TextCol("event_id", func(i int) string { return string(rows[i].Event.ID()) }),
		IntCol("sender", func(i int) UserNID { return rows[i].Sender }),
		NullIntCol("pos", func(i int) (Pos, bool) { return rows[i].Pos, rows[i].Pos != 0 }),
		IntCol("sub", func(i int) int64 { return rows[i].Sub }),
		IntCol("depth", func(i int) int64 { return rows[i].Event.Depth() }),
		IntCol("ts", func(i int) int64 { return rows[i].Event.OriginServerTS() }),
		IntCol("flags", func(i int) EventFlags { return rows[i].Flags }),
		state("state_before", func(e *EventRow) *State { return e.Before }),
		state("state_after", func(e *EventRow) *State { return e.After }),
		state("state_head", func(e *EventRow) *State { return e.Head }),
		BytesCol("extremities", func(i int) []byte { return packNIDs(rows[i].Extremities) }),
		IntCol("thread", func(i int) EventNID { return rows[i].Thread }),
		IntCol("notify", func(i int) int64 { return rows[i].Counts.Notify }),
		IntCol("highlight", func(i int) int64 { return rows[i].Counts.Highlight }),
		IntCol("t_notify", func(i int) int64 { return rows[i].Counts.ThreadNotify }),
		IntCol("t_highlight", func(i int) int64 { return rows[i].Counts.ThreadHighlight }),
		TextCol("json", func(i int) string { return string(rows[i].Event.JSON()) }),
		IntCol("height", func(i int) int64 { return rows[i].Height }),
	}}
}

// writeRest queues what follows from the events. Most groups have nothing but a transaction.
func (w *appendWork) writeRest(b *Batch) {
	w.writeRooms(b)
	w.writeNodes(b)
	w.writeTxns(b)
	w.writeMembers(b)
	w.writeRelations(b)
	w.writeRedactions(b)
	w.writeGaps(b)
	w.writeCounts(b)
}

func (w *appendWork) writeRooms(b *Batch) {
	for _, a := range w.good {
		n := a.Makes
		if n == nil {
			continue
		}
		b.Exec(`INSERT INTO rooms (nid, room_id, version, public) VALUES ($1, $2, $3, $4)`, a.Room, string(n.ID), int64(n.Version), n.Public)
		if n.Alias != "" {
			b.Exec(`INSERT INTO aliases (alias, room, creator) VALUES ($1, $2, $3)`, string(n.Alias), a.Room, n.Creator)
		}
	}
}

func (w *appendWork) writeNodes(b *Batch) {
	var rooms []RoomNID
	var nodes []Node
	for _, a := range w.good {
		for _, n := range a.Nodes {
			rooms, nodes = append(rooms, a.Room), append(nodes, n)
		}
	}
	b.Insert(nodeInsert(nodes, func(i int) RoomNID { return rooms[i] }))
}

// nodeInsert describes tree nodes. Those that are there already are the same.
func nodeInsert(nodes []Node, room func(i int) RoomNID) Insert {
	return Insert{Table: "state_nodes", Rows: len(nodes), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("room", room),
		BytesCol("name", func(i int) []byte { return nodes[i].Name[:] }),
		BytesCol("data", func(i int) []byte { return nodes[i].Data }),
	}}
}

func (w *appendWork) writeTxns(b *Batch) {
	var txns []Txn
	for _, a := range w.good {
		txns = append(txns, a.Txns...)
	}
	b.Insert(txnInsert(txns, w.ts))
}

func txnInsert(txns []Txn, ts int64) Insert {
	return Insert{Table: "txns", Rows: len(txns), Cols: []Col{
		IntCol("device", func(i int) int64 { return txns[i].Key.Device }),
		BytesCol("txn", func(i int) []byte { return txns[i].Key.bytes() }),
		TextCol("client", func(i int) string { return txns[i].Client }),
		IntCol("event", func(i int) EventNID { return txns[i].Event }),
		TextCol("answer", func(i int) string { return txns[i].Answer }),
		IntCol("ts", func(int) int64 { return ts }),
	}}
}

// placedMember is a member change with its room and position.
type placedMember struct {
	MemberChange
	room RoomNID
	pos  Pos
}

// writeMembers queues changes of the projection of members. Several changes of one member follow one another in
// statements of their own: one statement cannot touch a row twice.
func (w *appendWork) writeMembers(b *Batch) {
	type who struct {
		room RoomNID
		user UserNID
	}
	var rounds [][]placedMember
	count := map[who]int{}
	for _, a := range w.good {
		for _, m := range a.Members {
			key := who{a.Room, m.Member.NID}
			n := count[key]
			count[key]++
			if n == len(rounds) {
				rounds = append(rounds, nil)
			}
			rounds[n] = append(rounds[n], placedMember{m, a.Room, a.Events[m.At].Pos})
		}
	}
	for _, round := range rounds {
		b.Insert(memberInsert(round))
		b.Insert(Insert{Table: "changes", Rows: len(round), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
			IntCol("pos", func(i int) Pos { return round[i].pos }),
			IntCol("kind", func(int) ChangeKind { return ChangeMembership }),
			IntCol("room", func(i int) RoomNID { return round[i].room }),
			IntCol("member", func(i int) UserNID { return round[i].Member.NID }),
		}})
	}
}

// memberInsert describes rows of memberships: a join sets the position of the arrival, whatever ends it that of the
// departure. A membership that the state has no more counts as left.
func memberInsert(rows []placedMember) Insert {
	membership := func(i int) Membership {
		if m := rows[i].Membership; m != NotMember {
			return m
		}
		return Leave
	}
	return Insert{Table: "memberships", Rows: len(rows), Suffix: `ON CONFLICT (room, member) DO UPDATE SET
		membership = excluded.membership, event = excluded.event, pos = excluded.pos, forgotten = FALSE,
		joined = CASE WHEN excluded.membership = 1 AND memberships.membership <> 1 THEN excluded.pos ELSE memberships.joined END,
		departed = CASE WHEN excluded.membership <> 1 AND memberships.membership = 1 THEN excluded.pos ELSE memberships.departed END`,
		Cols: []Col{
			IntCol("room", func(i int) RoomNID { return rows[i].room }),
			IntCol("member", func(i int) UserNID { return rows[i].Member.NID }),
			IntCol("server", func(i int) ServerNID { return rows[i].Member.Server }),
			IntCol("membership", membership),
			IntCol("event", func(i int) EventNID { return rows[i].Event }),
			IntCol("pos", func(i int) Pos { return rows[i].pos }),
			IntCol("joined", func(i int) Pos {
				if membership(i) == Join {
					return rows[i].pos
				}
				return 0
			}),
			IntCol("departed", func(int) int64 { return 0 }),
			BoolCol("forgotten", func(int) bool { return false }),
		}}
}

// writeGaps queues what is missing now, and what no longer is.
func (w *appendWork) writeGaps(b *Batch) {
	var gaps []Gap
	for _, a := range w.good {
		gaps = append(gaps, a.Gaps...)
		if len(a.Filled) > 0 {
			b.Exec(`DELETE FROM gaps WHERE room = $1 AND missing IN ({texts $2})`, a.Room, texts(a.Filled))
		}
	}
	b.Insert(gapInsert(gaps))
}

// writeRedactions queues redactions and the redacted text of their targets, which the unredacted one is replaced by for
// good.
func (w *appendWork) writeRedactions(b *Batch) {
	for _, a := range w.good {
		for _, r := range a.Redactions {
			b.Exec(insertRedaction, a.Room, string(r.Target), r.By, int64(r.Power))
			if r.TargetNID != 0 {
				b.Exec(`UPDATE events SET json = $3, flags = flags | $4 WHERE nid = $1 AND room = $2`, r.TargetNID, a.Room, string(r.JSON), int64(FlagRedacted))
			}
		}
		if len(a.Released) > 0 {
			b.Exec(`UPDATE events SET flags = flags & $2 WHERE room = $1 AND nid IN ({ids $3})`, a.Room, int64(^FlagHeld), int64s(a.Released))
		}
	}
}

// TxnsOf reads the client's transaction IDs of events that a device sent.
func (tx *Tx) TxnsOf(device int64, events []EventNID, each func(EventNID, string)) error {
	return tx.Query(`SELECT v.value, (SELECT t.client FROM txns t WHERE t.event = v.value AND t.event <> 0 AND t.device = $2) FROM ({ids $1}) v`,
		func(r *Row) error {
			if !r.IsNull(1) {
				each(EventNID(r.Int64(0)), r.Text(1))
			}
			return nil
		}, int64s(events), device)
}

// TxnAnswer reads what a transaction was answered; false if it is new.
func (tx *Tx) TxnAnswer(key TxnKey) (answer string, found bool, err error) {
	err = tx.Query(`SELECT answer FROM txns WHERE txn = $1`, func(r *Row) error {
		answer, found = r.Text(0), true
		return nil
	}, key.bytes())
	return answer, found, err
}

// ForgetTxns deletes transactions of devices from before a time (ms), limit at most of those that made an event and as many of the
// others, and returns how many. Events get their numbers in the order of time, so that only the oldest are looked at.
func (tx *Tx) ForgetTxns(before int64, limit int) (int64, error) {
	made, err := tx.Exec(`DELETE FROM txns WHERE txn IN (SELECT oldest.txn FROM
		(SELECT txn, ts FROM txns WHERE event <> 0 ORDER BY event LIMIT $2) AS oldest WHERE oldest.ts < $1)`, before, limit)
	if err != nil {
		return 0, err
	}
	others, err := tx.Exec(`DELETE FROM txns WHERE txn IN (SELECT txn FROM txns WHERE event = 0 AND ts < $1 ORDER BY ts LIMIT $2)`, before, limit)
	return made + others, err
}
