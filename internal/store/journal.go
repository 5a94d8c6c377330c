package store

import (
	"slices"
	"sync"
)

// Commit is what one transaction of this process put into the stream.
type Commit struct {
	First, Last Pos // of the positions that it took

	Events  []*EventRow // in their order
	Changes []Change    // in their order

	// Appended says that it came through Append, so that nothing else is at its positions. Another transaction may have
	// written more, such as messages to devices of other servers.
	Appended bool
}

// journal remembers what this process has committed lately, so that those who follow the stream need not ask the
// database for what was just written. While nobody else can write to the database it also knows, on PostgreSQL, how far
// the stream is complete: the same reckoning as next_positions and stream_bound of the schema, in memory.
type journal struct {
	mu sync.Mutex

	// begun is set once everything up to start is known to be committed and later positions are given to this process
	// alone; off for good when that is no longer certain.
	begun, off bool

	start   Pos             // commits holds everything after it that is committed
	known   Pos             // the last position that this process was given
	takers  map[*taker]bool // transactions that take, or have taken, positions and have not ended
	commits []Commit        // by their first position
	rows    int             // in commits
}

// taker is a transaction that takes positions.
type taker struct {
	floor       Pos // what it is given is higher
	first, last Pos // what it was given: an envelope of it; 0 before
}

// The journal is cut back to journalKeep rows when it has journalMax.
const (
	journalMax  = 4096
	journalKeep = 2048
)

// begin starts the reckoning: everything up to pos is committed.
func (j *journal) begin(pos Pos) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.begun {
		return
	}
	j.begun = true
	j.start = pos
	j.known = max(j.known, pos)
}

// disable ends the reckoning for good, because somebody else may have written, or may still write.
func (j *journal) disable() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.off = true
	j.commits, j.rows = nil, 0
}

// take notes that a transaction is about to be given positions. It must be called before the database is asked.
func (j *journal) take() *taker {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := &taker{floor: j.known}
	if j.takers == nil {
		j.takers = map[*taker]bool{}
	}
	j.takers[t] = true
	return t
}

// took notes which positions it was given.
func (j *journal) took(t *taker, first Pos, n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t.was(first, n)
	j.known = max(j.known, t.last)
}

// was widens the envelope of what a transaction was given.
func (t *taker) was(first Pos, n int) {
	if t.first == 0 {
		t.first = first
	}
	t.last = first + Pos(n) - 1 // what it is given next is higher
}

// end notes that a transaction has ended: with c if it is committed, with nil if nothing of it is there. A nil taker took
// nothing.
func (j *journal) end(t *taker, c *Commit) {
	if t == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.takers, t)
	if c != nil && t.first != 0 {
		c.First, c.Last = t.first, t.last
		j.add(*c)
	}
}

// add keeps a commit. The caller holds j.mu.
func (j *journal) add(c Commit) {
	if j.off {
		return
	}
	at := len(j.commits)
	for at > 0 && j.commits[at-1].First > c.First {
		at--
	}
	j.commits = slices.Insert(j.commits, at, c)
	j.rows += len(c.Events) + len(c.Changes) + 1
	if j.rows <= journalMax {
		return
	}
	cut := 0
	for j.rows > journalKeep && cut < len(j.commits) {
		c := &j.commits[cut]
		j.start = max(j.start, c.Last)
		j.rows -= len(c.Events) + len(c.Changes) + 1
		cut++
	}
	j.commits = slices.Clone(j.commits[cut:]) // lets go of the old ones
}

// bound is the position up to which everything is committed, if the reckoning holds.
func (j *journal) bound() (Pos, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.begun || j.off {
		return 0, false
	}
	bound := j.known
	for t := range j.takers {
		bound = min(bound, t.floor)
	}
	return bound, true
}

// Committed returns what was committed after one position and up to another, in the order of first positions, as long as
// it is in memory: always only the newest part of the stream, and nothing at all where several nodes share the database.
// upTo must not be higher than a StreamBound was. Commits that only reach into the range are among the answer.
//
// Rows of events are as they were committed: one that was redacted since is not redacted here.
func (db *DB) Committed(after, upTo Pos) ([]Commit, bool) {
	j := &db.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.begun || j.off || after < j.start {
		return nil, false
	}
	var found []Commit
	for i := range j.commits { // some thousands at most
		c := &j.commits[i]
		if c.First > upTo {
			break
		}
		if c.Last > after {
			found = append(found, *c)
		}
	}
	return found, true
}
