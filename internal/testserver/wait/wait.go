// Package wait lets tests wait for what work in the background brings about: for a condition, never for a time.
package wait

import (
	"testing"
	"time"
)

// patience is enough on a machine that is busy with other tests; the pauses between two looks grow from the shortest to
// the longest.
const (
	patience = time.Minute
	shortest = time.Millisecond
	longest  = 20 * time.Millisecond
)

// Until waits until a condition holds, looking again and again, and ends the test if that is in vain; what says what was
// waited for. Where something can be waited for itself, a channel is better.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Within(t, patience, what, holds)
}

// Within is Until for work that takes long: it is in vain only after the given time.
func Within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(limit)
	for pause := shortest; !holds(); pause = min(2*pause, longest) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
		select {
		case <-time.After(pause):
		case <-t.Context().Done():
			t.Fatalf("the test ended while waiting for: %s", what)
		}
	}
}
