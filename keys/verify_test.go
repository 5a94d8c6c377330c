package keys_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/keys"
)

// workload fills a database with some of everything that this package stores.
func (w *world) workload() (alice *person) {
	t := w.t
	t.Helper()
	alice, bob, gone := w.user("alice"), w.user("bob"), w.device("alice", "GONE")
	w.join(1, alice.ID, bob.ID, far)
	w.serves(newFarUser(t, "A", "B"))
	for _, p := range []*person{alice, bob, gone} {
		w.publish(p, 3)
		_, err := w.UploadKeys(t.Context(), p.Device, keys.Upload{FallbackKeys: map[string]json.RawMessage{"signed_curve25519:fall": p.signedKey(t, "fall")}})
		must(t, err)
	}
	for _, p := range []*person{alice, bob} {
		must(t, w.UploadCrossSigning(t.Context(), p.User, p.crossSigning(t), false))
	}
	failures, err := w.UploadSignatures(t.Context(), alice.User, keys.Signatures{
		alice.ID: {
			string(alice.DeviceID): sign(t, alice.deviceKeys(t), alice.ID, public(alice.self), alice.self),
			string(gone.DeviceID):  sign(t, gone.deviceKeys(t), alice.ID, public(alice.self), alice.self),
			public(alice.master):   sign(t, crossKey(t, alice.ID, "master", alice.master, nil), alice.ID, string(gone.DeviceID), gone.secret),
		},
		bob.ID: {public(bob.master): sign(t, crossKey(t, bob.ID, "master", bob.master, nil), alice.ID, public(alice.userSigner), alice.userSigner)},
	})
	must(t, err)
	if len(failures) > 0 {
		t.Fatalf("signatures were refused: %v", failures)
	}
	_, err = w.Claim(t.Context(), keys.Wanted{bob.ID: {bob.DeviceID: "signed_curve25519"}, gone.ID: {gone.DeviceID: "signed_curve25519"}}, 0)
	must(t, err)
	w.query(alice, far)
	must(t, w.SendToDevice(t.Context(), alice.ID, txn(alice, 1), "m.test", keys.Messages{
		bob.ID: {"*": json.RawMessage(`{}`)}, alice.ID: {"*": json.RawMessage(`{}`)}, far: {"A": json.RawMessage(`{}`)},
	}))
	must(t, w.ReceiveToDevice(t.Context(), there, fmt.Appendf(nil, `{"sender":%q,"type":"m.test","message_id":"1","messages":{%q:{"*":{}}}}`, far, bob.ID)))
	must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
		return tx.DeleteDevices(gone.User.NID, []matrix.DeviceID{gone.DeviceID})
	}))
	for n := range 3 { // one cleared away, one deleted, one in use
		version := w.newBackup(alice)
		w.backUp(alice, version, in(map[string]keys.BackedUp{"a": backedUp(true, 0, 0, "a"), "b": backedUp(true, 0, 0, "b")}))
		if n < 2 {
			must(t, w.DeleteBackup(t.Context(), alice.User, version))
		}
		if n < 1 {
			must(t, w.ClearBackups(t.Context()))
		}
	}
	w.dehydrate(alice, "dry")
	return alice
}

// damages are what could be wrong with the tables of keys, by the rule that reports it.
var damages = []struct{ rule, sql string }{
	{"positions", `UPDATE one_time_keys SET pos = 1000000`},
	{"positions", `UPDATE key_signatures SET pos = 1000000`},
	{"positions", `UPDATE to_device SET pos = 1000000 WHERE device = (SELECT max(device) FROM to_device) AND pos = (SELECT max(pos) FROM to_device)`},
	{"positions", `UPDATE to_device_out SET pos = 1000000`},
	{"positions", `UPDATE remote_lists SET since = 1000000`},
	{"positions", `UPDATE device_list_changes SET pos = 1000000 WHERE pos = (SELECT max(pos) FROM device_list_changes)`},
	{"numbers", `UPDATE nid_blocks SET next = 1 WHERE kind = 5`},
	{"keys", `UPDATE device_keys SET member = 999999`},
	{"keys", `UPDATE device_keys SET device = 999999 WHERE device = (SELECT min(device) FROM device_keys)`},
	{"keys", `UPDATE device_keys SET json = '[]'`},
	{"keys", `DELETE FROM devices`},
	{"keys", `UPDATE one_time_keys SET device = 999999 WHERE device = (SELECT min(device) FROM one_time_keys)`},
	{"keys", `UPDATE fallback_keys SET device = 999999 WHERE device = (SELECT min(device) FROM fallback_keys)`},
	{"keys", `INSERT INTO one_time_keys (device, algorithm, key_id, pos, json) SELECT device, algorithm, key_id, 1, '{}' FROM claimed_keys`},
	{"keys", `UPDATE devices SET device_id = (SELECT k.public FROM cross_signing_keys k WHERE k.member = devices.member AND k.usage = 1) WHERE name LIKE 'phone%'`},
	{"cross-signing", `DELETE FROM cross_signing_keys WHERE usage = 1`},
	{"cross-signing", `UPDATE cross_signing_keys SET usage = 4 WHERE usage = 3`},
	{"cross-signing", `UPDATE cross_signing_keys SET member = 999999 WHERE member = (SELECT min(member) FROM cross_signing_keys)`},
	{"cross-signing", `UPDATE cross_signing_keys SET public = 'short' WHERE usage = 2`},
	{"cross-signing", `UPDATE cross_signing_keys SET json = '{}' WHERE usage = 3`},
	{"cross-signing", `UPDATE cross_signing_keys SET public = (SELECT m.public FROM cross_signing_keys m WHERE m.member = cross_signing_keys.member AND m.usage = 1)`},
	{"signatures", `UPDATE key_signatures SET target = 'NOSUCH' WHERE key_id = (SELECT min(key_id) FROM key_signatures)`},
	{"signatures", `UPDATE key_signatures SET signer = 999999`},
	{"signatures", `UPDATE key_signatures SET signature = ''`},
	{"signatures", `UPDATE key_signatures SET key_id = 'curve25519:x' WHERE key_id = (SELECT min(key_id) FROM key_signatures)`},
	{"signatures", `DELETE FROM device_keys`},
	{"device lists", `UPDATE device_list_changes SET member = 999999`},
	{"device lists", `UPDATE device_list_changes SET what = 3`},
	{"device lists", `UPDATE device_list_changes SET device_id = ''`},
	{"device lists", `UPDATE remote_lists SET member = (SELECT min(member) FROM accounts)`},
	{"device lists", `UPDATE remote_lists SET wanted = 1000`},
	{"device lists", `DELETE FROM remote_lists`},
	{"device lists", `UPDATE remote_devices SET json = ''`},
	{"positions", `UPDATE key_backups SET etag = 1000000`},
	{"backups", `UPDATE key_backups SET count = count + 1 WHERE NOT deleted`},
	{"backups", `DELETE FROM backup_sessions WHERE session_id = 'a'`},
	{"backups", `DELETE FROM key_backups WHERE deleted`},
	{"backups", `UPDATE key_backups SET count = 0 WHERE deleted`},
	{"backups", `UPDATE key_backups SET auth_data = ''`},
	{"backups", `UPDATE key_backups SET auth_data = '{}'`},
	{"backups", `UPDATE accounts SET deactivated = TRUE`},
	{"backups", `UPDATE backup_sessions SET data = ''`},
	{"keys", `UPDATE dehydrated_devices SET device = 999999`},
	{"keys", `UPDATE dehydrated_devices SET member = 999999`},
	{"keys", `DELETE FROM device_keys WHERE device IN (SELECT device FROM dehydrated_devices)`},
	{"keys", `INSERT INTO access_tokens (hash, device, member, created) SELECT {sqlite: x'00'}{postgres: '\x00'::bytea}, device, member, 1 FROM dehydrated_devices`},
	{"messages", `UPDATE to_device SET event = ''`},
	{"messages", `UPDATE to_device_out SET server = 999999`},
	{"messages", `UPDATE to_device_out SET content = ''`},
	{"messages", `UPDATE to_device_seen SET origin = 999999`},
}

func TestVerifyFindsDamagedKeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.workload()
		// The rooms of these tests have members and no events.
		findings := func() []store.Finding {
			return slices.DeleteFunc(dbtest.Findings(t, w.db), func(f store.Finding) bool { return f.Rule == "memberships" })
		}
		if list := findings(); len(list) > 0 {
			t.Errorf("a sound database has %v", list)
		}
		for _, d := range damages {
			repair := dbtest.Damage(t, w.db, d.sql)
			if list := findings(); !slices.ContainsFunc(list, func(f store.Finding) bool { return f.Rule == d.rule && strings.TrimSpace(f.Text) != "" }) {
				t.Errorf("not reported as %s: %s (%v)", d.rule, d.sql, list)
			}
			repair()
		}
		if list := findings(); len(list) > 0 {
			t.Errorf("the repaired database has %v", list)
		}
	})
}
