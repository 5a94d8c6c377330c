package keys_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/keys"
)

func TestNoKeyIsGivenOutTwiceAfterARestore(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.workload()
		generation := func() (g []byte) {
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT value FROM meta WHERE name = 'generation'`).Scan(&g)
				return err
			}))
			return g
		}
		claim := func() (names []string) {
			claimed, err := w.Claim(t.Context(), keys.Wanted{alice.ID: {alice.DeviceID: "signed_curve25519"}}, 0)
			must(t, err)
			for name := range claimed.Keys[alice.ID][alice.DeviceID] {
				names = append(names, name)
			}
			return names
		}
		before, had := w.pos(), generation()
		for round := range 2 { // a restore of a restore
			done, err := w.db.Restored(t.Context(), w.now().UnixMilli())
			must(t, err)
			if want := []int64{6, 0}[round]; done.OneTimeKeys != want || done.Lists != 1 {
				t.Errorf("restore %d dropped %d keys, of %d lists", round, done.OneTimeKeys, done.Lists)
			}
			now, next := w.pos(), generation()
			if now < before+1<<40 || string(had) == string(next) || len(next) != len(had) {
				t.Errorf("from %d on it goes on from %d, in generation %x after %x", before, now, next, had)
			}
			before, had = now, next
		}
		// Nor does a key backup that is made now, or changed, look like one that was made after the copy.
		old, err := w.Backup(t.Context(), alice.User, "")
		must(t, err)
		state := w.backUp(alice, old.Version, in(map[string]keys.BackedUp{"new": backedUp(true, 0, 0, "x")}))
		for _, given := range []string{state.ETag, w.newBackup(alice)} {
			if n, err := strconv.ParseInt(given, 10, 64); err != nil || n < 1<<41 {
				t.Errorf("%s may have been given out before (%v)", given, err)
			}
		}
		if got := claim(); !slices.Equal(got, []string{"signed_curve25519:fall"}) {
			t.Errorf("claimed %v", got)
		}
		counts, unused, err := w.KeyCounts(t.Context(), alice.NID)
		must(t, err)
		if n, told := counts["signed_curve25519"]; !told || n != 0 || len(unused) != 0 {
			t.Errorf("the device is told of %v, %v", counts, unused)
		}

		// An upload that the client repeats brings none of them back; a new key comes next.
		up := keys.Upload{OneTimeKeys: map[string]json.RawMessage{"signed_curve25519:new": alice.signedKey(t, "new")}}
		for i := range 3 {
			up.OneTimeKeys[fmt.Sprintf("signed_curve25519:%04d", i)] = alice.signedKey(t, fmt.Sprint(i))
		}
		_, err = w.UploadKeys(t.Context(), alice.Device, up)
		must(t, err)
		for _, want := range []string{"signed_curve25519:new", "signed_curve25519:fall"} {
			if got := claim(); !slices.Equal(got, []string{want}) {
				t.Errorf("claimed %v, want %s", got, want)
			}
		}
		list := slices.DeleteFunc(dbtest.Findings(t, w.db), func(f store.Finding) bool { return f.Rule == "memberships" })
		if len(list) > 0 {
			t.Errorf("the database has %v", list)
		}
	})
}
