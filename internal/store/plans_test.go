package store_test

import (
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestReadsUseTheirIndexes runs the reads of the hot paths on a PostgreSQL, where the store's settings let it go through a
// whole table only if no index serves: none may.
func TestReadsUseTheirIndexes(t *testing.T) {
	db := dbtest.Open(t, "postgres")
	a := newAppends(t, db)
	var room store.RoomNID
	var row *store.EventRow
	for n := range 4 {
		var head store.EventNID
		room, head = a.room()
		group := &store.Append{Room: room, Head: head, Members: []store.MemberChange{{Member: a.by, Membership: store.Join, Event: head}}}
		for m := range 10 {
			row = a.row(room, fmt.Sprint(m))
			key := store.TxnKey{Device: int64(n), Hash: [16]byte{byte(m)}}
			group.Events = append(group.Events, row)
			group.Txns = append(group.Txns, store.Txn{Key: key, Event: row.NID, Answer: "a"})
		}
		must(t, db.Append(t.Context(), group))
	}
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`ANALYZE events, txns, memberships, changes, relations`)
		return err
	}))
	bound, err := db.StreamBound(t.Context())
	must(t, err)
	for what, read := range map[string]func(tx *store.Tx) error{
		"a timeline, backward": func(tx *store.Tx) error {
			_, err := tx.Timeline(room, store.Place{}, store.Place{Pos: bound}, true, 20)
			return err
		},
		"a timeline, forward": func(tx *store.Tx) error {
			_, err := tx.Timeline(room, store.Place{}, store.Place{Pos: bound}, false, 20)
			return err
		},
		"an event of a room": func(tx *store.Tx) error { _, err := tx.EventInRoom(room, row.Event.ID()); return err },
		"the stream":         func(tx *store.Tx) error { return tx.Stream(bound-20, bound, 100, func(*store.EventRow) {}) },
		"changes":            func(tx *store.Tx) error { return tx.Changes(bound-20, bound, func(store.Change) {}) },
		"memberships":        func(tx *store.Tx) error { return tx.MembershipsOf(a.by.NID, func(store.MemberRow) {}) },
		"a membership":       func(tx *store.Tx) error { _, err := tx.Membership(room, a.by.NID); return err },
		"servers of a room":  func(tx *store.Tx) error { return tx.ServerNIDsIn(room, func(store.ServerNID) {}) },
		"transactions of events": func(tx *store.Tx) error {
			return tx.TxnsOf(1, []store.EventNID{row.NID}, func(store.EventNID, string) {})
		},
		"counts of a thread":       func(tx *store.Tx) error { _, err := tx.ThreadCounts(row.NID); return err },
		"an answer":                func(tx *store.Tx) error { _, _, err := tx.TxnAnswer(store.TxnKey{Device: 3}); return err },
		"versions of a key backup": func(tx *store.Tx) error { return tx.Backups(a.by.NID, func(store.Backup) {}) },
		"a page of a key backup": func(tx *store.Tx) error {
			return tx.BackupSessions(store.BackupScope{User: a.by.NID, Version: 5}, "!r", "s", 10, func(store.BackupSession) bool { return true })
		},
		"a room of a key backup": func(tx *store.Tx) error {
			return tx.BackupSessions(store.BackupScope{User: a.by.NID, Version: 5, Room: "!r"}, "", "s", 10, func(store.BackupSession) bool { return true })
		},
		"backups to clear away": func(tx *store.Tx) error { _, err := tx.DoomedBackup(); return err },
		"a dehydrated device":   func(tx *store.Tx) error { _, err := tx.Dehydrated(a.by.NID); return err },
		"edits of events": func(tx *store.Tx) error {
			return tx.Edits(room, []matrix.EventID{row.Event.ID()}, 5, func(store.Child) {})
		},
		"references to events": func(tx *store.Tx) error {
			return tx.References(room, []matrix.EventID{row.Event.ID()}, nil, 5, func(store.Child) {})
		},
		"parts of threads": func(tx *store.Tx) error {
			return tx.ThreadParts(room, []matrix.EventID{row.Event.ID()}, a.by.NID, nil, bound, func(store.ThreadPart) {})
		},
		"threads of a room": func(tx *store.Tx) error {
			return tx.Threads(store.ThreadQuery{Room: room, UpTo: bound, Before: store.Place{Pos: bound}, Limit: 10}, func(store.ThreadRoot) {})
		},
		"what relates to an event": func(tx *store.Tx) error {
			_, err := tx.Related(store.RelatedQuery{Room: room, Target: row.Event.ID(), Depth: 4, Hi: store.Place{Pos: bound}, Limit: 10})
			return err
		},
		"annotations of an event": func(tx *store.Tx) error {
			return tx.Annotations(room, row.Event.ID(), a.by.NID, "m.reaction", 10, func(*store.EventRow) {})
		},
		"the newest events of rooms": func(tx *store.Tx) error {
			return tx.NewestOf([]store.RoomNID{room}, bound, 20, func(store.RoomNID, []store.EventMark) {})
		},
		"events of rooms": func(tx *store.Tx) error {
			return tx.EventsOf([]store.RoomNID{room}, []store.EventNID{row.NID}, func(*store.EventRow) {})
		},
		"events to which others relate": func(tx *store.Tx) error {
			return tx.WithChildren([]store.EventNID{row.NID}, func(store.EventNID) {})
		},
		"rooms with relations": func(tx *store.Tx) error { return tx.WithRelations([]store.RoomNID{room}, func(store.RoomNID) {}) },
		"rooms with a present": func(tx *store.Tx) error { return tx.WithPresent([]store.RoomNID{room}, func(store.RoomNID) {}) },
		"heads of rooms":       func(tx *store.Tx) error { return tx.Heads([]store.RoomNID{room}, bound, func(*store.EventRow) {}) },
		"the sizes of rooms": func(tx *store.Tx) error {
			return tx.MemberCountsOf([]store.RoomNID{room}, func(store.RoomNID, store.Membership, int) {})
		},
		"heroes of rooms": func(tx *store.Tx) error {
			return tx.HeroesOf([]store.RoomNID{room}, 0, 5, func(store.RoomNID, []store.UserNID) {})
		},
		"hints of what is unread": func(tx *store.Tx) error {
			return tx.UnreadHints([]store.RoomNID{room}, a.by.NID, bound, func(store.RoomNID, store.UnreadHint) {})
		},
		"rooms with something to send": func(tx *store.Tx) error {
			return tx.OutgoingRooms(a.by.Server, bound-20, bound, func(store.RoomNID) {})
		},
	} {
		before := scans(t, db)
		for range 8 { // from the sixth time on a plan knows no parameters
			must(t, db.Read(t.Context(), read))
		}
		if after := scans(t, db); after != before {
			t.Errorf("%s goes through a whole table: %s, before %s", what, after, before)
		}
	}
	before := scans(t, db)
	head := row.NID
	row = a.row(room, "one more")
	must(t, db.Append(t.Context(), &store.Append{
		Room: room, Head: head, Events: []*store.EventRow{row}, Txns: []store.Txn{{Key: store.TxnKey{Device: 99}, Event: row.NID, Answer: "a"}},
	}))
	must(t, db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.ForgetTxns(1, 10); return err }))
	if after := scans(t, db); after != before {
		t.Errorf("an append, or forgetting old transactions, goes through a whole table: %s, before %s", after, before)
	}
}

// scans counts how often the large tables were gone through, by any connection.
func scans(t *testing.T, db *store.DB) (text string) {
	t.Helper()
	for range db.Conns() { // each says what it has done when it is asked to, or goes idle for a while
		must(t, db.Read(t.Context(), func(tx *store.Tx) error { return tx.Query(`SELECT pg_stat_force_next_flush()`, nil) }))
	}
	must(t, db.Read(t.Context(), func(tx *store.Tx) error {
		return tx.Query(`SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE relname IN ('events', 'txns', 'memberships', 'changes', 'relations',
			'key_backups', 'backup_sessions', 'dehydrated_devices') ORDER BY relname`,
			func(r *store.Row) error {
				text += fmt.Sprint(r.Text(0), " ", r.Int64(1), "; ")
				return nil
			})
	}))
	return text
}
