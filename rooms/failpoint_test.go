//go:build failpoints

package rooms_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// The process that is to die is this test's own program, told by the environment to send instead of to test.
const (
	crashURL  = "CONCLAVE_TEST_CRASH_URL"
	crashRoom = "CONCLAVE_TEST_CRASH_ROOM"
)

// crashSends is how many messages the process wants to send.
const crashSends = 12

// TestCrashingSender is no test but the process of TestCrashAroundTheCommit: it sends message after message, each under a
// transaction ID of its own, and writes down what was acknowledged.
func TestCrashingSender(t *testing.T) {
	url := os.Getenv(crashURL)
	if url == "" {
		return // an ordinary run: TestCrashAroundTheCommit calls it
	}
	l := newLocal(t, dbtest.OpenURL(t, url))
	ref, alice := crashing(l, os.Getenv(crashRoom))
	for n := range crashSends {
		id, err := l.rooms.Send(t.Context(), crashMessage(ref, alice, n))
		l.must(err)
		fmt.Printf("sent %d %s\n", n, id)
	}
}

func crashing(l *local, room string) (rooms.Ref, rooms.Sender) {
	l.t.Helper()
	var ref rooms.Ref
	l.must(l.db.Read(l.t.Context(), func(tx *store.Tx) error {
		return tx.RoomsAfter(0, 10, func(i store.RoomInfo) {
			if string(i.ID) == room {
				ref = rooms.Ref{NID: i.NID, ID: i.ID, Version: i.Version}
			}
		})
	}))
	return ref, l.user("alice")
}

func crashMessage(ref rooms.Ref, who rooms.Sender, n int) rooms.SendRequest {
	req := message(ref, who, fmt.Sprint(n))
	req.Txn = rooms.TxnKey(1, "send", ref.ID, req.Type, fmt.Sprint(n))
	return req
}

// TestCrashAroundTheCommit kills a sender just before and just after a commit, at the first and at a later one, and
// looks at what it left: what was acknowledged is there, once; sending everything again with the same transaction IDs
// makes one event of each; the database is sound.
func TestCrashAroundTheCommit(t *testing.T) {
	for _, engine := range dbtest.Engines {
		for _, point := range []string{"append.before_commit:1", "append.after_commit:1", "append.before_commit:5", "append.after_commit:5"} {
			t.Run(engine+"/"+point, func(t *testing.T) {
				url := dbtest.URL(t, engine)
				first, err := store.Open(t.Context(), store.Options{URL: url})
				if err != nil {
					t.Fatal(err)
				}
				l := newLocal(t, first)
				ref := l.create(l.user("alice"))
				l.must(first.Close())
				acknowledged := crash(t, url, string(ref.ID), point)
				check(t, url, string(ref.ID), acknowledged, strings.HasPrefix(point, "append.after"))
			})
		}
	}
}

// crash runs the sender until it dies and returns the events that it saw acknowledged, by number.
func crash(t *testing.T, url, room, point string) map[int]string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCrashingSender$", "-test.count=1")
	cmd.Env = append(os.Environ(), crashURL+"="+url, crashRoom+"="+room, "CONCLAVE_FAILPOINT="+point)
	out, err := cmd.Output()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the sender was not killed at %s: %v\n%s", point, err, out)
	}
	acknowledged := map[int]string{}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		var n int
		var id string
		if _, err := fmt.Sscanf(lines.Text(), "sent %d %s", &n, &id); err == nil {
			acknowledged[n] = id
		}
	}
	return acknowledged
}

// check opens what the crash left. The message that was under way is there exactly if the commit was over.
func check(t *testing.T, url, room string, acknowledged map[int]string, committed bool) {
	t.Helper()
	l := newLocal(t, dbtest.OpenURL(t, url))
	ref, alice := crashing(l, room)
	messages := func() (ids []string) {
		for _, row := range l.timeline(ref) {
			if row.Event.Type() == "m.room.message" {
				ids = append(ids, string(row.Event.ID()))
			}
		}
		return ids
	}
	left := messages()
	want := len(acknowledged)
	if committed {
		want++
	}
	if len(left) != want {
		t.Errorf("%d messages were acknowledged, %d are there", len(acknowledged), len(left))
	}
	for n, id := range acknowledged {
		if n >= len(left) || left[n] != id {
			t.Errorf("message %d was acknowledged as %s and is not there", n, id)
		}
	}
	for n := range crashSends {
		id, err := l.rooms.Send(t.Context(), crashMessage(ref, alice, n))
		l.must(err)
		if n < len(left) && string(id) != left[n] {
			t.Errorf("message %d again is %s, it was %s", n, id, left[n])
		}
	}
	if again := messages(); len(again) != crashSends {
		t.Errorf("%d messages were sent, %d are there", crashSends, len(again))
	}
	list, _ := findings(l, true)
	for _, f := range list {
		t.Errorf("%s: %s", f.Rule, f.Text)
	}
}
