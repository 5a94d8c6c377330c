//go:build failpoints

package rooms_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// eraseURL tells this test's own program to erase instead of to test.
const eraseURL = "CONCLAVE_TEST_ERASE_URL"

// TestCrashingEraser is no test but the process of TestCrashWhileErasing.
func TestCrashingEraser(t *testing.T) {
	url := os.Getenv(eraseURL)
	if url == "" {
		return // an ordinary run: TestCrashWhileErasing calls it
	}
	l := newLocal(t, dbtest.OpenURL(t, url))
	l.closeAccounts()
	wait.Until(t, "the end of this process", func() bool { return false })
}

// closeAccounts does what closed accounts set going, until the test ends.
func (l *local) closeAccounts() {
	go l.rooms.RunDepartures(l.t.Context()) //nolint:errcheck // it ends with the test
	go l.rooms.RunErasures(l.t.Context())   //nolint:errcheck // likewise
}

// TestCrashWhileErasing kills the process that lets a user leave and be erased before and after commits, and looks whether
// another one brings it to its end, with nothing done twice and nothing left out.
func TestCrashWhileErasing(t *testing.T) {
	for _, engine := range dbtest.Engines {
		for _, point := range []string{"depart.before_commit:1", "depart.after_commit:2", "erase.before_commit:1", "erase.after_commit:1", "erase.after_commit:3", "erase.before_commit:4"} {
			t.Run(engine+"/"+point, func(t *testing.T) {
				url := dbtest.URL(t, engine)
				first, err := store.Open(t.Context(), store.Options{URL: url})
				if err != nil {
					t.Fatal(err)
				}
				l := newLocal(t, first)
				alice, bob := l.user("alice"), l.user("bob")
				shared, own, second := l.create(alice), l.create(bob), l.create(bob)
				l.join(shared, bob)
				kept := l.text(shared, bob, "for both")
				gone := l.text(own, bob, "for myself")
				also := l.text(second, bob, "for myself again")
				l.must(l.db.Write(t.Context(), func(tx *store.Tx) error { return closing(tx, bob) }))
				l.must(first.Close())
				cmd := exec.Command(os.Args[0], "-test.run", "^TestCrashingEraser$", "-test.count=1") //nolint:gosec // this program
				cmd.Env = append(os.Environ(), eraseURL+"="+url, "CONCLAVE_FAILPOINT="+point)
				out, err := cmd.CombinedOutput()
				if status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
					t.Fatalf("the process was not killed: %v\n%s", err, out)
				}
				l = newLocal(t, dbtest.OpenURL(t, url))
				l.must(l.db.Write(t.Context(), func(tx *store.Tx) error { // its leases are over
					_, err := tx.Exec(`UPDATE jobs SET lease_until = 0`)
					return err
				}))
				l.closeAccounts()
				var c *store.Closing
				wait.Until(t, "the account to be closed", func() bool {
					l.must(l.db.Read(t.Context(), func(tx *store.Tx) (err error) {
						c, err = tx.Closing(bob.ID, bob.NID)
						return err
					}))
					return !c.Working
				})
				if c.Rooms != 3 || c.Gone != 3 || c.Places != 3 || c.Clear != 3 || c.Failure != "" {
					t.Errorf("the closing is told as %+v", c)
				}
				for _, ref := range []rooms.Ref{shared, own, second} {
					if got := l.stands(ref, bob); got != "leave" {
						t.Errorf("he stands as %q", got)
					}
				}
				for ref, id := range map[rooms.Ref]string{own: string(gone), second: string(also), shared: string(kept)} {
					text := string(l.row(ref, matrix.EventID(id)).Event.JSON())
					if strings.Contains(text, "for myself") || ref == shared && !strings.Contains(text, "for both") {
						t.Errorf("what he said is kept as %s", text)
					}
				}
			})
		}
	}
}
