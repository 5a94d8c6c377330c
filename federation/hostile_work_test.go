package federation_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// cpu is the processor time that a server has used.
func cpu(t *testing.T, s *testserver.Server) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] { // user and system, in hundredths
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// diskUse is what a server's database takes.
func diskUse(t *testing.T, s *testserver.Server) (size int64) {
	t.Helper()
	err := filepath.WalkDir(s.DataDir(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), "conclave.db") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// slowest is the 95th percentile of what a message takes in a room.
func slowest(u *testserver.User, room string, n int) time.Duration {
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		u.Say(room, fmt.Sprint("in the other room ", i))
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[n*95/100]
}

// rests waits until a message is in the room, or the room has used up its time for state resolution and is left alone.
func (w *siege) rests(body string) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); <-time.After(100 * time.Millisecond) { // between two looks
		metrics := string(w.s.Nobody().Must("GET", w.s.Admin+"/metrics", nil).Raw)
		if slices.Contains(w.bodies(), body) || !strings.Contains(metrics, "conclave_room_resolution_pauses_total 0\n") {
			return
		}
	}
	w.t.Fatal("the server does not come to rest")
}

// TestCraftedChainsCostTheirLength is threats F13: a server fills a room with power levels and memberships that stand on
// one another in twisted ways, each of them an auth event of the next. It costs disk and time by its length, not by its
// square, and another room goes on.
func TestCraftedChainsCostTheirLength(t *testing.T) {
	proof.Of(t, "F13")
	n := 150
	if os.Getenv("CONCLAVE_LONG") != "" {
		n = 20_000
	}
	const most = 60 * time.Second
	w := besiege(t, "sqlite", 11, nil)
	other := w.alice.CreateRoom(testserver.JSON{})
	calm := slowest(w.alice, other, 40)
	mallory, bob := w.room.Creator, w.p.User("bob")
	recent := []matrix.EventID{w.message("begin").ID}
	w.send("begin", w.room.Events()[len(w.room.Events())-1])
	w.sees("begin")
	disk, busy := diskUse(t, w.s), cpu(t, w.s)
	wire := int64(0)
	var batch []*peer.Event
	flush := func(txn int) {
		for _, v := range w.send(fmt.Sprint("crafted", txn), batch...) {
			if v != "" {
				t.Fatalf("refused: %s", v)
			}
		}
		batch = batch[:0]
	}
	for i := range n {
		s := peer.Spec{Type: "m.room.power_levels", Sender: mallory, StateKey: peer.Key(""), Content: object{
			"users": object{string(mallory): 100, string(bob): 50, fmt.Sprintf("@u%d:x.test", i): i % 50}, "users_default": i % 2,
		}}
		if i%2 == 1 { // bob's membership, on the newest levels
			s = peer.Spec{Type: "m.room.member", Sender: bob, StateKey: peer.Key(string(bob)), Content: object{"membership": "join", "displayname": fmt.Sprint(i)}}
		}
		if i%10 == 9 { // and forks, closed by the next event
			s.Prev = recent[max(0, len(recent)-5) : len(recent)-3]
		} else if i%10 == 0 && len(recent) > 3 {
			s.Prev = recent[len(recent)-2:]
		}
		e := w.room.Make(s)
		recent = append(recent, e.ID)
		wire += int64(len(e.JSON))
		if batch = append(batch, e); len(batch) == 50 {
			flush(i)
		}
	}
	flush(n)
	stressed := slowest(w.alice, other, 40)
	w.send("last", w.message("last"))
	w.rests("last")
	calm = max(calm, slowest(w.alice, other, 40)) // other tests come and go
	grown, took := diskUse(t, w.s)-disk, cpu(t, w.s)-busy
	t.Logf("%d events, %d bytes on the wire: %d bytes of disk, %s of processor; a message elsewhere took %s, at rest %s", n, wire, grown, took, stressed, calm)
	if grown > 20*wire+1<<20 { // the database grows by whole pages, and its log with each commit
		t.Errorf("%d bytes on the wire take %d bytes of disk", wire, grown)
	}
	if took > most {
		t.Errorf("%d events take %s", n, took)
	}
	if stressed > 2*calm+250*time.Millisecond { // on a machine that is busy with other tests
		t.Errorf("a message in another room takes %s, at rest %s", stressed, calm)
	}
}
