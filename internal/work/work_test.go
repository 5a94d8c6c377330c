package work

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func testGroup(ctx context.Context) (*Group, *bytes.Buffer) {
	var log bytes.Buffer
	return NewGroup(ctx, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func TestRestartsAfterPanicsAndErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := testGroup(t.Context())
		var starts []time.Duration
		began := time.Now()
		g.Go("counting", func(context.Context) error {
			starts = append(starts, time.Since(began))
			switch len(starts) {
			case 1:
				panic("canary content")
			case 2:
				return errors.New("plain failure")
			case 3:
				outside := starts[len(starts):]
				return errors.New(outside[len(outside)].String())
			case 4:
				time.Sleep(forgiveAfter) // long enough to start over with the shortest pause
				return errors.New("late failure")
			}
			return nil
		})
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{0, firstPause, 3 * firstPause, 7 * firstPause, 8*firstPause + forgiveAfter}
		if len(starts) != len(want) {
			t.Fatalf("started %d times, want %d", len(starts), len(want))
		}
		for i := range want {
			if starts[i] != want[i] {
				t.Errorf("start %d after %v, want %v", i, starts[i], want[i])
			}
		}
		text := log.String()
		for _, part := range []string{"work=counting", "panic with a string", "plain failure", "index out of range", "work_test.go"} {
			if !strings.Contains(text, part) {
				t.Errorf("the log lacks %q", part)
			}
		}
		if strings.Contains(text, "canary") {
			t.Error("the value of a panic was logged")
		}
	})
}

func TestPausesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := testGroup(t.Context())
		var last time.Time
		longest, n := time.Duration(0), 0
		g.Go("failing", func(context.Context) error {
			if n++; n > 1 {
				longest = max(longest, time.Since(last))
			}
			last = time.Now()
			if n < 30 {
				return errors.New("again")
			}
			return nil
		})
		if err := g.Wait(t.Context()); err != nil || longest != longestPause {
			t.Errorf("longest pause %v, %v", longest, err)
		}
	})
}

func TestStopsByContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := testGroup(t.Context())
		g.Go("waiting", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		g.Go("pausing", func(context.Context) error { return errors.New("fails at once") })
		g.Go("stubborn", func(context.Context) error {
			time.Sleep(time.Hour)
			return nil
		})
		synctest.Wait()
		g.Stop()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Wait(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still at work: stubborn:") {
			t.Errorf("Wait: %v", err)
		}
		if err := g.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if strings.Contains(log.String(), "work=waiting") {
			t.Error("an ordinary end was logged as a failure")
		}
	})
}

func TestEmptyGroupIsIdleAndCanStartAgain(t *testing.T) {
	g, _ := testGroup(t.Context())
	for range 3 {
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ran := make(chan struct{})
		g.Go("short", func(context.Context) error {
			close(ran)
			return nil
		})
		<-ran
	}
}

// TestFailpoint builds a program with and without the tag and sees it die where it should, and only there.
func TestFailpoint(t *testing.T) {
	with, without := filepath.Join(t.TempDir(), "with"), filepath.Join(t.TempDir(), "without")
	for binary, tags := range map[string]string{with: "failpoints", without: ""} {
		if out, err := exec.Command("go", "build", "-tags", tags, "-o", binary, "./testdata/crash").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, test := range []struct {
		binary, point, out string
		killed             bool
	}{
		{with, "crash.here", "", true}, {with, "crash.here:3", "01", true}, {with, "crash.here:6", "01234", false},
		{with, "other", "01234", false}, {with, "", "01234", false}, {without, "crash.here", "01234", false},
	} {
		cmd := exec.Command(test.binary)
		cmd.Env = append(os.Environ(), "CONCLAVE_FAILPOINT="+test.point)
		out, err := cmd.Output()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if string(out) != test.out || status.Signaled() != test.killed || (err == nil) == test.killed {
			t.Errorf("%s at %q: wrote %q, %v", filepath.Base(test.binary), test.point, out, err)
		}
	}
	cmd := exec.Command(with)
	cmd.Env = append(os.Environ(), "CONCLAVE_FAILPOINT=crash.here:soon")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "must be name or name:n") {
		t.Errorf("a malformed failpoint: %s, %v", out, err)
	}
}
