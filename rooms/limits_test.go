package rooms

import (
	"testing"
	"time"
)

// TestLimits holds the limits of the work in rooms to section 1 of the threat model: they may become stricter, never
// more generous.
func TestLimits(t *testing.T) {
	for _, l := range []struct {
		what      string
		is, limit int64
	}{
		{"events gathered for one event", maxGathered, 200},
		{"requests on behalf of one event", maxRequests, 20},
		{"events of a state and its chain that are fetched for one event", maxMissing, 5000},
		{"seconds of a room's state resolution before a pause", int64(resolveTime / time.Second), 30},
		{"ends of a room", maxExtremities, 20},
		{"bytes of the state beside an invitation", maxInviteBytes, 64 << 10},
		{"minutes until a gap is asked about again, at first", -int64(firstAsk / time.Minute), -10},
		{"hours until a gap is asked about again, at last", -int64(lastRetry / time.Hour), -24},
		{"events of one answer", maxServed, 100},
		{"rows read for one answer", maxWalked, 1000},
	} {
		if l.is > l.limit || l.is == 0 {
			t.Errorf("%s: %d, the limit is %d", l.what, l.is, l.limit)
		}
	}
}
