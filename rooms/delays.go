package rooms

import (
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
)

// delays remember what could not be done for an event, so that nobody makes us ask again and again; and when servers were
// heard of, because one that is back may have what could not be had of it before.
type delays struct {
	known *otter.Cache[matrix.EventID, delay]
	heard *otter.Cache[matrix.ServerName, time.Time]
}

type delay struct {
	since, until time.Time
	fails        int
	refusals     int  // of the failures, those after which firstAsk was waited for
	brief        bool // nobody refused: somebody was out of reach, or the trouble was our own
}

const (
	firstRetry = time.Second      // after trouble of our own
	firstAsk   = 10 * time.Minute // after others could not help (threats F14)
	lastRetry  = 24 * time.Hour
	briefWait  = 5 * time.Second
	briefMost  = 16 * time.Second // between two tries
	patience   = 12               // failures, some two minutes, for which who cannot be reached, or shuts us out, is waited for
	longSilent = 2 * time.Second
)

func newDelays() *delays {
	return &delays{
		known: otter.Must(&otter.Options[matrix.EventID, delay]{MaximumSize: 20_000}),
		heard: otter.Must(&otter.Options[matrix.ServerName, time.Time]{MaximumSize: 10_000}),
	}
}

// wait is how long an event is still to be left alone that a server brought. Of one that was heard of since then, a brief
// wait is not longer than briefWait, unless that was of no use many times.
func (d *delays) wait(id matrix.EventID, from matrix.ServerName, now time.Time) time.Duration {
	known, ok := d.known.GetIfPresent(id)
	if !ok {
		return 0
	}
	until := known.until
	if heard, ok := d.heard.GetIfPresent(from); ok && known.brief && known.fails < 2*patience && heard.After(known.since) &&
		known.since.Add(briefWait).Before(until) {
		until = known.since.Add(briefWait)
	}
	return max(0, until.Sub(now))
}

// fails is how often something could not be done for an event.
func (d *delays) fails(id matrix.EventID) int {
	known, _ := d.known.GetIfPresent(id)
	return known.fails
}

// hear notes that a server has sent something, and says whether it was silent for a while before.
func (d *delays) hear(server matrix.ServerName, now time.Time) (back bool) {
	last, known := d.heard.GetIfPresent(server)
	d.heard.Set(server, now)
	return !known || now.Sub(last) > longSilent
}

// failed notes one more failure and returns how long to wait, doubling each time; of brief waits those within patience are
// short, since what the network has split is to come together soon after.
func (d *delays) failed(id matrix.EventID, first time.Duration, now time.Time) time.Duration {
	known, _ := d.known.GetIfPresent(id)
	next := delay{since: now, fails: known.fails + 1, refusals: known.refusals, brief: first == firstRetry}
	doublings := known.fails
	if !next.brief {
		doublings = known.refusals // what came before was a matter of seconds
		next.refusals++
	}
	wait := min(first<<min(doublings, 20), lastRetry)
	if next.brief && doublings >= patience {
		wait = min(briefMost<<min(doublings-patience+1, 20), lastRetry)
	} else if next.brief {
		wait = min(wait, briefMost)
	}
	next.until = now.Add(wait)
	d.known.Set(id, next)
	return wait
}

func (d *delays) forget(id matrix.EventID) { d.known.Invalidate(id) }
