package store

import (
	"context"
	"fmt"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
)

// Finding is something in a database that contradicts an invariant.
type Finding struct {
	Rule string // a word for the invariant, such as "positions"
	Text string // which row, in numbers and IDs; never content
}

// verifyRule is an invariant that the database can check by itself: rows that break it, one text each. $1 is the last
// position of the stream where the statement asks for it.
type verifyRule struct {
	name  string
	sql   string
	bound bool
}

// verifyRules are the invariants of rows that need no reading of events.
var verifyRules = []verifyRule{
	{"positions", `SELECT 'event ' || e.event_id || ' is ahead of the stream' FROM events e WHERE e.pos > $1`, true},
	{"positions", `SELECT 'a change of kind ' || CAST(c.kind AS TEXT) || ' is ahead of the stream' FROM changes c WHERE c.pos > $1`, true},
	{"positions", `SELECT 'the membership of user ' || CAST(m.member AS TEXT) || ' in room ' || CAST(m.room AS TEXT) || ' is ahead of the stream'
		FROM memberships m WHERE {greatest}(m.pos, m.joined, m.departed) > $1`, true},
	{"positions", `SELECT 'a receipt in room ' || CAST(r.room AS TEXT) || ' is ahead of the stream' FROM receipts r WHERE {greatest}(r.pos, r.place) > $1`, true},
	{"positions", `SELECT 'account data of user ' || CAST(a.member AS TEXT) || ' is ahead of the stream' FROM account_data a WHERE a.pos > $1`, true},
	{"cursors", `SELECT 'destination ' || CAST(d.server AS TEXT) || ' has been told of what has not happened' FROM destinations d
		WHERE {greatest}(d.pdus, d.device_lists, d.to_device, d.others, d.goal_pdus, d.goal_devices, d.goal_messages, d.goal_others, d.catch_up) > $1`, true},
	{"numbers", `SELECT 'event ' || e.event_id || ' has a number that will be given out again' FROM events e
		WHERE e.nid >= (SELECT coalesce(max(b.next), 0) FROM nid_blocks b WHERE b.kind = 4)`, false},
	{"numbers", `SELECT 'room ' || r.room_id || ' has a number that will be given out again' FROM rooms r
		WHERE r.nid >= (SELECT coalesce(max(b.next), 0) FROM nid_blocks b WHERE b.kind = 3)`, false},
	{"numbers", `SELECT 'user ' || u.user_id || ' has a number that will be given out again' FROM users u
		WHERE u.nid >= (SELECT coalesce(max(b.next), 0) FROM nid_blocks b WHERE b.kind = 2)`, false},
	{"events", `SELECT 'event ' || e.event_id || ' is in no room' FROM events e LEFT JOIN rooms r ON r.nid = e.room WHERE r.nid IS NULL`, false},
	{"events", `SELECT 'event ' || e.event_id || ' has no sender' FROM events e LEFT JOIN users u ON u.nid = e.sender WHERE u.nid IS NULL`, false},
	{"events", `SELECT 'event ' || e.event_id || ' was refused and has a place in its room' FROM events e WHERE e.pos IS NOT NULL AND (e.flags & 22) <> 0`, false},
	{"events", `SELECT 'event ' || e.event_id || ' has a place in its room but no state' FROM events e
		WHERE e.pos IS NOT NULL AND e.sub = 0 AND (e.state_after IS NULL OR length(e.state_after) <> 32)`, false},
	{"threads", `SELECT 'event ' || e.event_id || ' is in a thread without a root in its room' FROM events e
		LEFT JOIN events t ON t.nid = e.thread AND t.room = e.room WHERE e.thread <> 0 AND t.nid IS NULL`, false},
	{"memberships", `SELECT 'the membership of user ' || CAST(m.member AS TEXT) || ' in room ' || CAST(m.room AS TEXT) || ' comes from no event'
		FROM memberships m LEFT JOIN events e ON e.nid = m.event AND e.room = m.room WHERE e.nid IS NULL`, false},
	{"memberships", `SELECT 'the membership of user ' || CAST(m.member AS TEXT) || ' in room ' || CAST(m.room AS TEXT) || ' has an impossible history'
		FROM memberships m WHERE m.joined > m.pos OR m.departed > m.pos OR m.membership NOT BETWEEN 1 AND 5
		OR m.membership = 1 AND (m.joined = 0 OR m.joined < m.departed) OR m.membership <> 1 AND m.joined > m.departed`, false},
	{"memberships", `SELECT 'user ' || CAST(m.member AS TEXT) || ' of room ' || CAST(m.room AS TEXT) || ' is on another server than its row says'
		FROM memberships m LEFT JOIN users u ON u.nid = m.member AND u.server = m.server WHERE u.nid IS NULL`, false},
	{"transactions", `SELECT 'a transaction of device ' || CAST(t.device AS TEXT) || ' made an event that is not there' FROM txns t
		LEFT JOIN events e ON e.nid = t.event WHERE t.event <> 0 AND e.nid IS NULL`, false},
	{"transactions", `SELECT 'a transaction of device ' || CAST(t.device AS TEXT) || ' was answered with another event than ' || e.event_id FROM txns t
		JOIN events e ON e.nid = t.event WHERE t.answer <> e.event_id`, false},
	{"receipts", `SELECT 'a receipt of user ' || CAST(r.member AS TEXT) || ' cites ' || r.event_id || ', which is not there or elsewhere' FROM receipts r
		LEFT JOIN events e ON e.event_id = r.event_id AND e.room = r.room WHERE e.nid IS NULL OR e.pos IS NULL OR e.pos <> r.place`, false},
	{"redactions", `SELECT 'the redaction of ' || r.target || ' is not there' FROM redactions r
		LEFT JOIN events e ON e.nid = r.redaction AND e.room = r.room WHERE e.nid IS NULL`, false},
	{"redactions", `SELECT 'event ' || e.event_id || ' was redacted by nothing' FROM events e
		WHERE (e.flags & 8) <> 0 AND NOT EXISTS (SELECT 1 FROM redactions r WHERE r.room = e.room AND r.target = e.event_id)
		AND NOT EXISTS (SELECT 1 FROM closings c WHERE c.member = e.sender AND c.erased <> 0)`, false},
	{"closings", `SELECT 'user ' || CAST(c.member AS TEXT) || ' counts as closed, and has an open account or none' FROM closings c
		LEFT JOIN accounts a ON a.member = c.member AND a.deactivated WHERE a.member IS NULL`, false},
	{"exports", `SELECT 'an entry is of the archive of user ' || CAST(p.member AS TEXT) || ', which is not there' FROM export_parts p
		LEFT JOIN exports x ON x.member = p.member WHERE x.member IS NULL`, false},
	{"relations", `SELECT 'what relates to ' || r.target || ' is not there' FROM relations r
		LEFT JOIN events e ON e.nid = r.event AND e.room = r.room WHERE e.nid IS NULL`, false},
	{"search", `SELECT 'event ' || CAST(s.event AS TEXT) || ' can be found by words and is not there, or by words of an event that is not' FROM search s
		LEFT JOIN events e ON e.nid = s.event AND e.room = s.room AND e.sender = s.sender LEFT JOIN events x ON x.nid = s.source AND x.room = s.room AND x.sender = s.sender
		WHERE e.nid IS NULL OR x.nid IS NULL OR s.kind NOT BETWEEN 1 AND 3`, false},
	{"search", `SELECT 'event ' || e.event_id || ' was redacted and can still be found by its words' FROM search s JOIN events e ON e.nid IN (s.event, s.source)
		WHERE (e.flags & 8) <> 0 AND NOT EXISTS (SELECT 1 FROM search_queue q WHERE q.event = e.nid) AND NOT EXISTS (
		SELECT 1 FROM redactions d JOIN events x ON x.nid = d.redaction WHERE d.room = e.room AND d.target = e.event_id AND x.sub = 0
		AND x.pos > (SELECT coalesce(max(CAST(j.cursor AS BIGINT)), 0) FROM jobs j WHERE j.kind = 'search'))`, false},
	{"cursors", `SELECT 'the index for search has come further than the stream' FROM jobs j WHERE j.kind = 'search' AND CAST(j.cursor AS BIGINT) > $1`, true},
	{"reports", `SELECT 'report ' || CAST(p.nid AS TEXT) || ' is by nobody of ours, or of nothing' FROM reports p LEFT JOIN accounts a ON a.member = p.reporter
		WHERE a.member IS NULL OR p.kind NOT BETWEEN 1 AND 3 OR (p.room_id = '') <> (p.kind = 3) OR (p.event_id = '') <> (p.kind <> 1) OR (p.user_id = '') <> (p.kind = 2)`, false},
	{"reports", `SELECT 'report ' || CAST(p.nid AS TEXT) || ' has a number that will be given out again' FROM reports p
		WHERE p.nid >= (SELECT coalesce(max(b.next), 0) FROM nid_blocks b WHERE b.kind = 8)`, false},
	{"gaps", `SELECT 'a gap before ' || g.missing || ' belongs to no event' FROM gaps g
		LEFT JOIN events e ON e.nid = g.event AND e.room = g.room WHERE e.nid IS NULL`, false},
	{"joins", `SELECT DISTINCT 'the answer to a join is kept as stage ' || CAST(x.stage AS TEXT) || ', which is no join''s' FROM join_events x
		WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'join' AND j.cursor LIKE '%"Stage":' || CAST(x.stage AS TEXT) || ',%')`, false},
	{"aliases", `SELECT 'alias ' || a.alias || ' leads nowhere' FROM aliases a LEFT JOIN rooms r ON r.nid = a.room WHERE r.nid IS NULL`, false},
	{"positions", `SELECT 'a message to device ' || CAST(d.device AS TEXT) || ' is ahead of the stream' FROM to_device d WHERE d.pos > $1`, true},
	{"positions", `SELECT 'a change of the devices of user ' || CAST(d.member AS TEXT) || ' is ahead of the stream' FROM device_list_changes d WHERE d.pos > $1`, true},
	{"keys", `SELECT 'a one-time key of device ' || CAST(k.device AS TEXT) || ' was claimed and is still there' FROM one_time_keys k
		JOIN claimed_keys c ON c.device = k.device AND c.algorithm = k.algorithm AND c.key_id = k.key_id`, false},
	{"media", `SELECT 'media ' || m.media_id || ' of ' || m.origin || ' has a file without a hash, or a hash without a file' FROM media m
		WHERE (m.file = '') <> (m.hash IS NULL)`, false},
	{"sessions", `SELECT 'device ' || d.device_id || ' belongs to nobody' FROM devices d LEFT JOIN accounts a ON a.member = d.member WHERE a.member IS NULL`, false},
	{"sessions", `SELECT 'an access token of user ' || CAST(t.member AS TEXT) || ' is for no device' FROM access_tokens t
		LEFT JOIN devices d ON d.nid = t.device AND d.member = t.member WHERE d.nid IS NULL`, false},
}

// MediaFiles reads up to limit files that media and their small images are kept in, by name, after one.
func (tx *Tx) MediaFiles(after string, limit int, each func(file string, hash []byte, size int64)) error {
	return tx.Query(`SELECT f.file, f.hash, f.size FROM (SELECT file, hash, size FROM media UNION SELECT file, hash, size FROM thumbnails
			UNION SELECT file, hash, size FROM exports UNION SELECT file, hash, packed FROM export_parts) f
		WHERE f.file > $1 ORDER BY f.file LIMIT $2`, func(r *Row) error {
		each(r.Text(0), append([]byte(nil), r.Bytes(1)...), r.Int64(2))
		return nil
	}, after, limit)
}

// maxFindings bounds what one rule reports.
const maxFindings = 20

// Verify checks the invariants that can be seen in rows alone and reports what breaks them, a bounded number for each.
// Nobody may write meanwhile.
func (db *DB) Verify(ctx context.Context, report func(Finding)) error {
	bound, err := db.StreamBound(ctx)
	if err != nil {
		return err
	}
	for _, rule := range slices.Concat(verifyRules, verifyKeyRules) {
		var args []any
		if rule.bound {
			args = append(args, bound)
		}
		err := db.Read(ctx, func(tx *Tx) error {
			return tx.Query(rule.sql+fmt.Sprintf(` LIMIT %d`, maxFindings), func(r *Row) error {
				report(Finding{rule.name, r.Text(0)})
				return nil
			}, args...)
		})
		if err != nil {
			return fmt.Errorf("checking %s: %w", rule.name, err)
		}
	}
	return nil
}

// RawEvent is an event's row as it stands in the database, its text not read yet.
type RawEvent struct {
	NID         EventNID
	ID          matrix.EventID
	Room        RoomInfo
	Sender      matrix.UserID
	Depth, TS   int64
	Flags       EventFlags
	Height      int64
	States      [3][]byte // before, after, head; nil where absent
	Extremities []byte
	JSON        []byte
}

// RawEvents reads up to limit events of all rooms by number, after one, for verification. Those in no room are left out.
func (tx *Tx) RawEvents(after EventNID, limit int, each func(*RawEvent)) error {
	return tx.Query(`SELECT e.nid, e.event_id, r.nid, r.room_id, r.version, coalesce(u.user_id, ''), e.depth, e.ts, e.flags,
		e.state_before, e.state_after, e.state_head, e.extremities, e.json, e.height
		FROM events e JOIN rooms r ON r.nid = e.room LEFT JOIN users u ON u.nid = e.sender WHERE e.nid > $1 ORDER BY e.nid LIMIT $2`, func(r *Row) error {
		e := &RawEvent{
			NID: EventNID(r.Int64(0)), ID: matrix.EventID(r.Text(1)), Sender: matrix.UserID(r.Text(5)),
			Room:  RoomInfo{NID: RoomNID(r.Int64(2)), ID: matrix.RoomID(r.Text(3)), Version: matrix.RoomVersion(r.Int64(4))},
			Depth: r.Int64(6), TS: r.Int64(7), Flags: EventFlags(r.Int64(8)), Height: r.Int64(14),
			Extremities: append([]byte(nil), r.Bytes(12)...), JSON: append([]byte(nil), r.Bytes(13)...),
		}
		for i := range e.States {
			if b := r.Bytes(9 + i); b != nil {
				e.States[i] = append([]byte{}, b...)
			}
		}
		each(e)
		return nil
	}, after, limit)
}

// VerifyCounters reports where the running numbers of a room's timeline fall; of all threads with room 0.
func (tx *Tx) VerifyCounters(room RoomNID, report func(Finding)) error {
	sql, of := `SELECT e.notify, e.highlight, e.room, e.event_id FROM events e WHERE e.room = $1 AND e.sub = 0 AND e.pos IS NOT NULL ORDER BY e.pos`, "room"
	if room == 0 {
		sql, of = `SELECT e.t_notify, e.t_highlight, e.thread, e.event_id FROM events e
			WHERE e.thread <> $1 AND e.sub = 0 AND e.pos IS NOT NULL ORDER BY e.thread, e.pos`, "thread"
	}
	var last [3]int64
	found := 0
	return tx.Query(sql, func(r *Row) error {
		now := [3]int64{r.Int64(0), r.Int64(1), r.Int64(2)}
		if now[2] == last[2] && (now[0] < last[0] || now[1] < last[1]) && found < maxFindings {
			found++
			report(Finding{"counters", fmt.Sprintf("a running number of its %s falls at event %s", of, r.Text(3))})
		}
		last = now
		return nil
	}, room)
}

// RawNodes reads up to limit nodes of a room's state trees by name, after one.
func (tx *Tx) RawNodes(room RoomNID, after []byte, limit int, each func(name, data []byte)) error {
	return tx.Query(`SELECT name, data FROM state_nodes WHERE room = $1 AND name > $2 ORDER BY name LIMIT $3`, func(r *Row) error {
		each(append([]byte(nil), r.Bytes(0)...), append([]byte(nil), r.Bytes(1)...))
		return nil
	}, room, after, limit)
}

// MissingNodes are those names that a room has no node for.
func (tx *Tx) MissingNodes(room RoomNID, names []statetree.Name) (missing []statetree.Name, err error) {
	there := make(map[statetree.Name]bool, len(names))
	err = chunks(names, func(part []statetree.Name) error {
		keys := make([][]byte, len(part))
		for i := range part {
			keys[i] = part[i][:]
		}
		return tx.Query(`SELECT name FROM state_nodes WHERE room = $1 AND name IN ({blobs $2})`, func(r *Row) error {
			var name statetree.Name
			copy(name[:], r.Bytes(0))
			there[name] = true
			return nil
		}, room, keys)
	})
	for _, name := range names {
		if !there[name] {
			missing = append(missing, name)
		}
	}
	return missing, err
}

// EventFlagsOf reads the flags and places of events of a room by number; those that the room does not have are left out.
func (tx *Tx) EventFlagsOf(room RoomNID, nids []EventNID, each func(nid EventNID, flags EventFlags, placed bool)) error {
	return chunks(nids, func(part []EventNID) error {
		return tx.Query(`SELECT nid, flags, pos IS NOT NULL FROM events WHERE room = $1 AND nid IN ({ids $2})`, func(r *Row) error {
			each(EventNID(r.Int64(0)), EventFlags(r.Int64(1)), r.Bool(2))
			return nil
		}, room, int64s(part))
	})
}

// MembershipsByID reads where users stand in a room.
func (tx *Tx) MembershipsByID(room RoomNID, users []matrix.UserID, each func(matrix.UserID, MemberRow)) error {
	return chunks(users, func(part []matrix.UserID) error {
		return tx.Query(`SELECT m.room, m.member, m.server, m.membership, m.event, m.pos, m.joined, m.departed, m.forgotten, u.user_id
			FROM memberships m JOIN users u ON u.nid = m.member WHERE m.room = $1 AND u.user_id IN ({texts $2})`, func(r *Row) error {
			each(matrix.UserID(r.Text(9)), memberRow(r))
			return nil
		}, room, texts(part))
	})
}

// Ends unpacks a row's list of event numbers; false if its bytes are none.
func (e *RawEvent) Ends() ([]EventNID, bool) {
	return unpackNIDs(e.Extremities), len(e.Extremities)%8 == 0
}

// HeadNumber is the number of a room's newest event, even of one that cannot be read; 0 if the room has none.
func (tx *Tx) HeadNumber(room RoomNID) (nid EventNID, err error) {
	err = tx.Query(`SELECT nid FROM events WHERE room = $1 AND sub = 0 AND pos IS NOT NULL ORDER BY pos DESC LIMIT 1`, func(r *Row) error {
		nid = EventNID(r.Int64(0))
		return nil
	}, room)
	return nid, err
}

// RoomsAfter reads the rows of rooms by number, after one and at most limit of them.
func (tx *Tx) RoomsAfter(after RoomNID, limit int, each func(RoomInfo)) error {
	return tx.Query(`SELECT nid, room_id, version, public FROM rooms WHERE nid > $1 ORDER BY nid LIMIT $2`, func(r *Row) error {
		each(RoomInfo{RoomNID(r.Int64(0)), matrix.RoomID(r.Text(1)), matrix.RoomVersion(r.Int64(2)), r.Bool(3)})
		return nil
	}, after, limit)
}
