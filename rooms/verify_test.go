package rooms_test

import (
	"fmt"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// findings verifies a database with fresh eyes.
func findings(l *local, full bool) (list []store.Finding, seen rooms.Verified) {
	l.t.Helper()
	seen, err := newLocal(l.t, l.db).rooms.Verify(l.t.Context(), full, func(f store.Finding) { list = append(list, f) })
	l.must(err)
	return list, seen
}

// workload fills a database with some of everything, a room for each version.
func workload(l *local, versions ...matrix.RoomVersion) rooms.Ref {
	l.t.Helper()
	ctx := l.t.Context()
	alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
	var last rooms.Ref
	for _, v := range versions {
		ref := l.create(alice, func(q *rooms.CreateRequest) {
			q.Version = v
			q.Alias = matrix.RoomAlias("#v" + v.String() + ":" + homeName)
			q.Invite = []matrix.UserID{"@guest:" + homeName}
		})
		l.join(ref, bob, carol)
		root := l.text(ref, alice, "hello")
		for n := range 3 {
			req := message(ref, bob, "again")
			req.Content = fmt.Appendf(nil, `{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root)
			req.Txn = rooms.TxnKey(7, "send", ref.ID, "m.room.message", fmt.Sprint(v, n))
			_, err := l.rooms.Send(ctx, req)
			l.must(err)
		}
		secret := l.text(ref, carol, "secret")
		redaction := rooms.SendRequest{Room: ref, Sender: alice, Type: "m.room.redaction", Redacts: secret, Content: fmt.Appendf(nil, `{"redacts":%q}`, secret)}
		_, err := l.rooms.Send(ctx, redaction)
		l.must(err)
		_, err = l.rooms.Ban(ctx, rooms.MemberRequest{Room: ref, Sender: alice, Target: carol.ID})
		l.must(err)
		l.must(l.rooms.Receipt(ctx, ref, bob, "m.read", root, ""))
		l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: bob}))
		l.join(ref, bob)
		last = ref
	}
	for n := range 100 { // more than one leaf of the tree
		_, err := l.state(last, alice, "org.example.n", fmt.Sprint(n), "{}")
		l.must(err)
	}
	l.text(last, alice, "the newest")
	return last
}

func TestVerifyFindsNothingInASoundDatabase(t *testing.T) {
	eachLocal(t, func(l *local) {
		workload(l, matrix.RoomVersions()...)
		for _, full := range []bool{false, true} {
			list, seen := findings(l, full)
			for _, f := range list {
				l.t.Errorf("%s: %s", f.Rule, f.Text)
			}
			if seen.Rooms != 12 || full != (seen.Events > 12*15) || full != (seen.Nodes > 100) {
				l.t.Errorf("it has looked at %+v", seen)
			}
		}
	})
}

// damages are what a disk, a hand or a mistake of ours could do to a database: by rule, statements that break it. {head}
// is the number of the newest event of a room, {root} that of its creation, {room} the room's own.
var damages = []struct {
	rule, sql string
	full      bool // only the full verification can see it
}{
	{"positions", `UPDATE events SET pos = 1000000 WHERE nid = {head}`, false},
	{"positions", `UPDATE changes SET pos = 1000000 WHERE pos = (SELECT max(pos) FROM changes)`, false},
	{"positions", `UPDATE memberships SET departed = 1000000 WHERE room = {room}`, false},
	{"positions", `UPDATE receipts SET pos = 1000000`, false},
	{"positions", `INSERT INTO account_data (member, room, type, content, pos) VALUES (1, 0, 'x', '{}', 1000000)`, false},
	{"cursors", `INSERT INTO destinations (server, pdus, device_lists, to_device, others, batch) VALUES (1, 0, 0, 1000000, 0, 50)`, false},
	{"numbers", `UPDATE nid_blocks SET next = 3 WHERE kind = 4`, false},
	{"numbers", `UPDATE nid_blocks SET next = 2 WHERE kind = 3`, false},
	{"numbers", `DELETE FROM nid_blocks WHERE kind = 2`, false},
	{"events", `DELETE FROM rooms WHERE nid = {room}`, false},
	{"events", `UPDATE events SET sender = 999999 WHERE nid = {head}`, false},
	{"events", `UPDATE events SET flags = flags | 2 WHERE nid = {head}`, false},
	{"events", `UPDATE events SET state_after = NULL WHERE nid = {head}`, false},
	{"threads", `UPDATE events SET thread = 999999 WHERE nid = {head}`, false},
	{"counters", `UPDATE events SET notify = 0 WHERE nid = {head}`, false},
	{"counters", `UPDATE events SET t_notify = 9 WHERE thread <> 0 AND t_notify = 1`, false},
	{"memberships", `DELETE FROM memberships WHERE room = {room} AND membership = 4`, false},
	{"memberships", `DELETE FROM memberships WHERE room = {room}`, false},
	{"memberships", `UPDATE memberships SET membership = 4 WHERE room = {room} AND membership = 2`, false},
	{"memberships", `UPDATE memberships SET event = 999999 WHERE room = {room} AND membership = 4`, false},
	{"memberships", `UPDATE memberships SET joined = 0 WHERE room = {room} AND membership = 1`, false},
	{"memberships", `UPDATE memberships SET server = 99 WHERE room = {room} AND membership = 1`, false},
	{"memberships", `INSERT INTO memberships (room, member, server, membership, event, pos, joined) SELECT room, 999999, server, 1, event, pos, joined FROM memberships
		WHERE room = {room} AND membership = 1 LIMIT 1`, false},
	{"transactions", `UPDATE txns SET event = 999999`, false},
	{"transactions", `UPDATE txns SET answer = '$other'`, false},
	{"receipts", `UPDATE receipts SET event_id = '$nowhere'`, false},
	{"receipts", `UPDATE receipts SET place = place - 1`, false},
	{"redactions", `UPDATE redactions SET redaction = 999999`, false},
	{"redactions", `DELETE FROM redactions`, false},
	{"relations", `UPDATE relations SET event = 999999 WHERE event = (SELECT max(event) FROM relations)`, false},
	{"gaps", `INSERT INTO gaps (room, event, missing) VALUES ({room}, 999999, '$x')`, false},
	{"joins", `INSERT INTO join_events (stage, place, state, event_id, json) VALUES (7, 1, TRUE, '$x', '{}')`, false},
	{"aliases", `UPDATE aliases SET room = 999999`, false},
	{"positions", `INSERT INTO to_device (device, pos, event) VALUES (1, 1000000, '{}')`, false},
	{"media", `INSERT INTO media (origin, media_id, member, file, created, used) VALUES ('one.example', 'x', 1, 'f', 1, 1)`, false},
	{"sessions", `INSERT INTO devices (nid, member, device_id) VALUES (999999, 999999, 'X')`, false},
	{"second factors", `INSERT INTO accounts (member, localpart, created, second_factor) VALUES (999999, 'x', 1, 1)`, false},
	{"second factors", `INSERT INTO recovery_codes (member, hash) VALUES (999999, {bytes:00})`, false},
	{"heads", `UPDATE events SET extremities = {bytes:00000000000f423f} WHERE nid = {head}`, false},
	{"heads", `UPDATE events SET json = 'no event' WHERE nid = {head}`, false},
	{"heads", `UPDATE events SET extremities = {bytes:01} WHERE nid = {root}`, true},
	{"states", `DELETE FROM state_nodes WHERE room = {room}`, false},
	{"states", `UPDATE events SET state_after = {bytes:0102030405060708090a0b0c0d0e0f100102030405060708090a0b0c0d0e0f10} WHERE nid = {head}`, false},
	{"states", `UPDATE events SET state_before = {bytes:01} WHERE nid = {root}`, false},
	{"states", `UPDATE events SET state_after = {bytes:0102030405060708090a0b0c0d0e0f100102030405060708090a0b0c0d0e0f10} WHERE nid = {root}`, true},
	{"states", `UPDATE events SET room = {room} - 1 WHERE nid = {root}`, false},
	{"states", `UPDATE events SET flags = flags | 2, pos = NULL WHERE nid = {root}`, false},
	{"nodes", `UPDATE state_nodes SET data = {bytes:4c00} WHERE room = {room}`, true},
	{"nodes", `UPDATE state_nodes SET name = {bytes:01} WHERE room = {room} AND name = (SELECT name FROM state_nodes WHERE room = {room} ORDER BY name DESC LIMIT 1)`, true},
	{"nodes", `DELETE FROM events WHERE nid = {root}`, true},
	{"heights", `UPDATE events SET height = height + 1 WHERE nid = (SELECT max(nid) FROM events WHERE room = {room} AND height > 0)`, true},
	{"texts", `UPDATE events SET json = replace(json, 'hello', 'hallo')`, true},
	{"texts", `UPDATE events SET json = replace(json, 'alice', 'alibi') WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET json = '{ }' WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET json = ' ' || json WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET json = (SELECT json FROM events WHERE nid = {head}) WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET event_id = '$other' WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET ts = 1 WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET flags = 0 WHERE nid = {root}`, true},
	{"texts", `UPDATE events SET flags = flags | 8 WHERE nid = {head}`, true},
	{"texts", `UPDATE events SET sender = (SELECT max(nid) FROM users) WHERE nid = {root}`, true},
}

func TestVerifyFindsEveryDamage(t *testing.T) {
	eachLocal(t, func(l *local) {
		ref := workload(l, 2, 12)
		rows := l.timeline(ref)
		numbers := strings.NewReplacer(
			"{head}", fmt.Sprint(rows[len(rows)-1].NID), "{root}", fmt.Sprint(rows[0].NID), "{room}", fmt.Sprint(ref.NID))
		for _, d := range damages {
			sql := numbers.Replace(d.sql)
			repair := dbtest.Damage(l.t, l.db, sql)
			quick, _ := findings(l, false) // the full verification begins with it
			if reported(quick, d.rule) == d.full {
				l.t.Errorf("reported without reading everything: %v: %s", !d.full, sql)
			}
			if d.full {
				if list, _ := findings(l, true); !reported(list, d.rule) {
					l.t.Errorf("not reported as %s: %s (%v)", d.rule, sql, list)
				}
			}
			repair()
		}
		list, _ := findings(l, true)
		if len(list) > 0 {
			l.t.Errorf("the repaired database has %v", list)
		}
	})
}

func reported(list []store.Finding, rule string) bool {
	for _, f := range list {
		if f.Rule == rule {
			return true
		}
	}
	return false
}
