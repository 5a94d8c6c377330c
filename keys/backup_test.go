package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
	"conclave/keys"
)

const room = "!room:here.test"

// backedUp is a session for an upload; its data tells it from others.
func backedUp(verified bool, first, forwarded int64, data string) keys.BackedUp {
	return keys.BackedUp{FirstIndex: &first, Forwarded: &forwarded, Verified: &verified, Data: json.RawMessage(fmt.Sprintf(`{"d":%q}`, data))}
}

// in are sessions of the one room.
func in(sessions map[string]keys.BackedUp) map[string]keys.RoomSessions {
	return map[string]keys.RoomSessions{room: {Sessions: sessions}}
}

func (w *world) newBackup(p *person) string {
	w.t.Helper()
	version, err := w.CreateBackup(w.t.Context(), p.User, keys.BackupVersion{Algorithm: "m.test", AuthData: json.RawMessage(`{"a":1}`)})
	must(w.t, err)
	return version
}

func (w *world) backUp(p *person, version string, rooms map[string]keys.RoomSessions) keys.BackupState {
	w.t.Helper()
	state, err := w.BackUp(w.t.Context(), p.User, version, rooms)
	must(w.t, err)
	return *state
}

// backup reads all sessions of a version.
func (w *world) backup(p *person, version string) (list []keys.Session) {
	w.t.Helper()
	must(w.t, w.BackedUpSessions(w.t.Context(), p.User, version, "", "", func(page []keys.Session) error {
		list = append(list, page...)
		return nil
	}))
	return list
}

// TestTheBetterKeyStays goes through every order in which two keys for a session can come.
func TestTheBetterKeyStays(t *testing.T) {
	proof.Of(t, "E2-10")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		version := w.newBackup(alice)
		// From the worst to the best.
		ranks := []keys.BackedUp{
			backedUp(false, 9, 0, "unverified, late"), backedUp(false, 2, 5, "unverified, forwarded"), backedUp(false, 2, 1, "unverified"),
			backedUp(true, 7, 0, "verified, late"), backedUp(true, 0, 3, "verified, forwarded"), backedUp(true, 0, 0, "verified"),
		}
		for a, first := range ranks {
			for b, second := range ranks {
				id := fmt.Sprint(a, "-", b)
				before := w.backUp(alice, version, in(map[string]keys.BackedUp{id: first}))
				after := w.backUp(alice, version, in(map[string]keys.BackedUp{id: second}))
				if after.Count != before.Count || (after.ETag != before.ETag) != (b > a) {
					t.Errorf("%s after %s: the state went from %v to %v", second.Data, first.Data, before, after)
				}
				var kept keys.Session
				must(t, w.BackedUpSessions(t.Context(), alice.User, version, room, id, func(page []keys.Session) error {
					kept = page[0]
					return nil
				}))
				if want := ranks[max(a, b)]; kept.Data != string(want.Data) || kept.Verified != *want.Verified || kept.FirstIndex != *want.FirstIndex {
					t.Errorf("of %s and %s this was kept: %+v", first.Data, second.Data, kept)
				}
			}
		}
	})
}

// TestBackupsAreWrittenByManyAtOnce lets devices upload the same sessions, better and worse, at the same time.
func TestBackupsAreWrittenByManyAtOnce(t *testing.T) {
	proof.Of(t, "E2-10")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		version := w.newBackup(alice)
		const devices, sessions = 6, 300
		etags := make([]keys.BackupState, devices)
		var group sync.WaitGroup
		for d := range devices {
			group.Go(func() {
				up := map[string]keys.RoomSessions{}
				for s := range sessions {
					name := fmt.Sprintf("!%d:here.test", s%3)
					if up[name].Sessions == nil {
						up[name] = keys.RoomSessions{Sessions: map[string]keys.BackedUp{}}
					}
					// Each device has the best key for some of the sessions, and one session of its own.
					up[name].Sessions[fmt.Sprintf("s%d", s)] = backedUp(d == s%devices, int64(d), 0, fmt.Sprint(d))
				}
				up["!own:here.test"] = keys.RoomSessions{Sessions: map[string]keys.BackedUp{fmt.Sprint("own", d): backedUp(false, 0, 0, "x")}}
				state, err := w.BackUp(t.Context(), alice.User, version, up)
				if err != nil {
					t.Error(err)
					return
				}
				etags[d] = *state
			})
		}
		group.Wait()
		all := w.backup(alice, version)
		if len(all) != sessions+devices {
			t.Errorf("%d sessions are there, want %d", len(all), sessions+devices)
		}
		for _, s := range all {
			var n int
			if _, err := fmt.Sscanf(s.ID, "s%d", &n); err == nil && (s.Data != fmt.Sprintf(`{"d":"%d"}`, n%devices) || !s.Verified) {
				t.Errorf("of session %s a worse key stayed: %+v", s.ID, s)
			}
		}
		info, err := w.Backup(t.Context(), alice.User, version)
		must(t, err)
		last := slices.MaxFunc(etags, func(a, b keys.BackupState) int { return int(a.Count - b.Count) })
		seen := map[string]bool{}
		for _, e := range etags {
			seen[e.ETag] = true
		}
		if info.Count != sessions+devices || last.Count != info.Count || !seen[info.ETag] || len(seen) != devices {
			t.Errorf("the backup says %+v after %v", info.BackupState, etags)
		}
	})
}

// TestABackupDeletedDuringUploads deletes a version while devices write to it: whatever was acknowledged was there, and
// nothing is left.
func TestABackupDeletedDuringUploads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		older, version := w.newBackup(alice), w.newBackup(alice)
		var group sync.WaitGroup
		started := make(chan struct{}, 8)
		for d := range 4 {
			group.Go(func() {
				for i := 0; ; i++ {
					_, err := w.BackUp(t.Context(), alice.User, version, in(map[string]keys.BackedUp{fmt.Sprint(d, "-", i): backedUp(true, 0, 0, "x")}))
					if err != nil {
						refused(t, err, "M_NOT_FOUND")
						return
					}
					if i == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		must(t, w.DeleteBackup(t.Context(), alice.User, version))
		group.Wait()
		must(t, w.DeleteBackup(t.Context(), alice.User, version)) // again: no error
		_, err := w.Backup(t.Context(), alice.User, version)
		refused(t, err, "M_NOT_FOUND")
		must(t, w.ClearBackups(t.Context()))
		w.noSessions(version)

		// The older version is the newest again.
		if state := w.backUp(alice, older, in(map[string]keys.BackedUp{"s": backedUp(true, 0, 0, "x")})); state.Count != 1 {
			t.Errorf("the older version says %v", state)
		}
		if next := w.newBackup(alice); next == version || next == older {
			t.Error("a version was given out twice")
		}
	})
}

// noSessions checks that a version has left nothing.
func (w *world) noSessions(version string) {
	w.t.Helper()
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		var n, doomed int
		if _, err := tx.QueryRow(`SELECT count(*) FROM backup_sessions WHERE CAST(version AS TEXT) = $1`, version).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.QueryRow(`SELECT count(*) FROM key_backups WHERE deleted AND (count > 0 OR auth_data <> '')`).Scan(&doomed); err != nil {
			return err
		}
		if n != 0 || doomed != 0 {
			w.t.Errorf("%d sessions outlived their backup, %d deleted versions keep something", n, doomed)
		}
		return nil
	}))
}

// TestDeletedBackupsAreClearedAway lets the domain do by itself, at once, what other tests call.
func TestDeletedBackupsAreClearedAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		version := w.newBackup(alice)
		w.backUp(alice, version, in(map[string]keys.BackedUp{"s": backedUp(true, 0, 0, "x")}))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		began := time.Now()
		must(t, w.DeleteBackup(t.Context(), alice.User, version))
		wait.Until(t, "the sessions to go", func() bool {
			n := 1
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT count(*) FROM backup_sessions`).Scan(&n)
				return err
			}))
			return n == 0
		})
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("nobody was told: it took %v", took)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the background work ended with %v", err)
		}
		w.noSessions(version)
	})
}

// TestALargeBackup is read and deleted in pieces.
func TestALargeBackup(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.user("alice"), w.user("bob")
		version := w.newBackup(alice)
		bobs := w.newBackup(bob)
		w.backUp(bob, bobs, in(map[string]keys.BackedUp{"s0": backedUp(true, 0, 0, "bob's")}))
		const sessions = 5000
		up := map[string]keys.RoomSessions{}
		for s := range sessions {
			name := fmt.Sprintf("!%d:here.test", s%7)
			if up[name].Sessions == nil {
				up[name] = keys.RoomSessions{Sessions: map[string]keys.BackedUp{}}
			}
			up[name].Sessions[fmt.Sprint("s", s)] = backedUp(true, 0, 0, "x")
		}
		if state := w.backUp(alice, version, up); state.Count != sessions {
			t.Errorf("the state is %v", state)
		}
		seen, pages, last := map[string]bool{}, 0, ""
		must(t, w.BackedUpSessions(t.Context(), alice.User, version, "", "", func(page []keys.Session) error {
			pages++
			for _, s := range page {
				if name := s.Room + " " + s.ID; name <= last || seen[s.ID] {
					t.Errorf("%s comes after %s", name, last)
				}
				seen[s.ID], last = true, s.Room+" "+s.ID
			}
			return nil
		}))
		if len(seen) != sessions || pages < 10 {
			t.Errorf("%d sessions came in %d pages", len(seen), pages)
		}
		inRoom := 0
		must(t, w.BackedUpSessions(t.Context(), alice.User, version, "!3:here.test", "", func(page []keys.Session) error {
			inRoom += len(page)
			return nil
		}))
		if inRoom != len(up["!3:here.test"].Sessions) {
			t.Errorf("%d sessions of a room came", inRoom)
		}

		// Deleted on the way, a part must not look like the whole.
		err := w.BackedUpSessions(t.Context(), alice.User, version, "", "", func([]keys.Session) error {
			return w.DeleteBackup(t.Context(), alice.User, version)
		})
		refused(t, err, "M_NOT_FOUND")
		must(t, w.ClearBackups(t.Context()))
		w.noSessions(version)
		if len(w.backup(bob, bobs)) != 1 {
			t.Error("another user's backup suffered")
		}

		again := w.newBackup(alice)
		w.backUp(alice, again, up)
		state, err := w.DropBackedUp(t.Context(), alice.User, again, "!3:here.test", "s3")
		must(t, err)
		if state.Count != sessions-1 {
			t.Errorf("after one was deleted the state is %v", state)
		}
		if state, err = w.DropBackedUp(t.Context(), alice.User, again, "!3:here.test", ""); err != nil || state.Count != int64(sessions-inRoom) {
			t.Errorf("after those of a room were deleted the state is %v, %v", state, err)
		}
		same, err := w.DropBackedUp(t.Context(), alice.User, again, "!3:here.test", "")
		if err != nil || *same != *state {
			t.Errorf("deleting nothing made %v of %v (%v)", same, state, err)
		}
		if state, err = w.DropBackedUp(t.Context(), alice.User, again, "", ""); err != nil || state.Count != 0 || state.ETag == same.ETag {
			t.Errorf("after all were deleted the state is %v, %v", state, err)
		}
	})
}

func TestBackupsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		for range 130 { // whose deletions are not remembered for ever
			must(t, w.DeleteBackup(t.Context(), alice.User, w.newBackup(alice)))
		}
		rows := func() (n int) {
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) error { return tx.Backups(alice.User.NID, func(store.Backup) { n++ }) }))
			return n
		}
		if n := rows(); n > 101 {
			t.Errorf("%d versions are remembered", n)
		}
		var last string
		for range 100 {
			last = w.newBackup(alice)
		}
		_, err := w.CreateBackup(t.Context(), alice.User, keys.BackupVersion{Algorithm: "m.test", AuthData: json.RawMessage(`{}`)})
		refused(t, err, "M_TOO_LARGE")
		var e *matrix.Error
		first := ""
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Backups(alice.User.NID, func(b store.Backup) {
				if !b.Deleted && first == "" {
					first = fmt.Sprint(b.Version)
				}
			})
		}))
		_, err = w.BackUp(t.Context(), alice.User, first, in(map[string]keys.BackedUp{"s": backedUp(true, 0, 0, "x")}))
		refused(t, err, "M_WRONG_ROOM_KEYS_VERSION")
		if !errors.As(err, &e) || e.Fields["current_version"] != last {
			t.Errorf("the current version is told as %+v, want %s", err, last)
		}
	})
}

// TestBackupsEndWithTheAccount closes an account while one of its devices is backing up.
func TestBackupsEndWithTheAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		version := w.newBackup(alice)
		w.backUp(alice, version, in(map[string]keys.BackedUp{"s": backedUp(true, 0, 0, "x")}))
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.LockAccount(alice.User.NID); err != nil {
				return err
			}
			return tx.Deactivate(alice.User.NID)
		}))
		_, err := w.BackUp(t.Context(), alice.User, version, in(map[string]keys.BackedUp{"t": backedUp(true, 0, 0, "x")}))
		refused(t, err, "M_NOT_FOUND")
		_, err = w.CreateBackup(t.Context(), alice.User, keys.BackupVersion{Algorithm: "m.test", AuthData: json.RawMessage(`{}`)})
		refused(t, err, "M_UNKNOWN_TOKEN")
		refused(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false), "M_UNKNOWN_TOKEN")
		_, err = w.UploadSignatures(t.Context(), alice.User, nil)
		refused(t, err, "M_UNKNOWN_TOKEN")
		must(t, w.ClearBackups(t.Context()))
		w.noSessions(version)
	})
}
