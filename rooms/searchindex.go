package rooms

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The index for search follows the stream: one job, whose cursor is the position up to which everything is indexed (law 10).
// Sending an event costs nothing for it. What is written outside of the stream waits in a queue of its own.
const (
	indexBatch  = 500                    // events of one round
	indexPause  = time.Second            // between the first event and the round that indexes it with those that follow
	indexGlance = 100 * time.Millisecond // between two looks at what was committed meanwhile
	indexLook   = 5 * time.Second        // for what no wake tells of
	indexLease  = 15 * time.Second
	indexAhead  = 10_000 // positions without anything to index after which the cursor is stored all the same
)

// Bounds of one document.
const (
	maxSearchText = 32 << 10 // bytes of a text that are indexed
	maxWordLength = 100      // letters of a word that count
)

// RunSearchIndex keeps the index for search up to date until ctx ends. Of several nodes one does.
func (r *Rooms) RunSearchIndex(ctx context.Context) error {
	wakes, cancel := r.bus.Subscribe(cluster.Stream)
	defer cancel()
	ix := &indexer{r: r}
	for {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = ix.round(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("indexing for search failed", "err", err)
				ix.job = nil
				break
			}
		}
		look := time.NewTimer(indexLook)
		select {
		case <-wakes:
			ix.collect(ctx)
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// collect lets a second pass and notes meanwhile, from what this process commits, what there is to index: nearly all that is
// said is sealed and has no words, and such events are never read.
func (ix *indexer) collect(ctx context.Context) {
	for left := indexPause; left > 0; left -= indexGlance {
		pause(ctx, indexGlance)
		if bound, err := ix.r.db.StreamBound(ctx); err != nil || !ix.glance(bound) {
			pause(ctx, left-indexGlance)
			return
		}
	}
}

// glance notes what was committed up to a position, and reports whether it could: what is not in memory is read in time.
func (ix *indexer) glance(bound store.Pos) bool {
	if ix.job == nil || len(ix.ahead) > indexBatch {
		return false
	}
	if ix.seen < ix.at {
		ix.seen, ix.ahead = ix.at, nil
	}
	if bound <= ix.seen {
		return true
	}
	commits, ok := ix.r.db.Committed(ix.seen, bound)
	if !ok {
		return false
	}
	for _, c := range commits {
		for _, row := range c.Events {
			if row.Pos > ix.seen && row.Pos <= bound && concernsWords(row.Event) {
				ix.ahead = append(ix.ahead, row)
			}
		}
	}
	ix.seen = bound
	return true
}

// concernsWords says whether an event has words, or may change those of another. Only what has words itself is a valid edit of
// what has.
func concernsWords(ev *matrix.Event) bool { return ev.Type() == "m.room.redaction" || hasWords(ev) }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// indexer is the one who indexes, while its lease lasts.
type indexer struct {
	r     *Rooms
	job   *store.Job // nil if it is somebody else
	at    store.Pos  // how far it has looked
	saved store.Pos  // how far the job says

	seen  store.Pos         // how far glance has looked
	ahead []*store.EventRow // what it found after at, as it was committed
}

// batch is one round's work.
type indexWork struct {
	upTo   store.Pos
	full   bool // there may be more
	rows   []*store.EventRow
	queue  []store.Queued
	fresh  map[store.RoomNID][]*store.EventRow
	again  map[store.RoomNID]map[store.EventNID]bool // what may be in the index with another text
	docs   []store.Document
	drops  []store.EventNID
	sealed map[store.State]bool
}

// round indexes what came since the last one, as far as one transaction goes. It reports whether there is more.
func (ix *indexer) round(ctx context.Context) (more bool, err error) {
	bound, err := ix.r.db.StreamBound(ctx)
	if err != nil {
		return false, err
	}
	if ix.job == nil {
		if err := ix.take(ctx); err != nil || ix.job == nil {
			return false, err
		}
	}
	w := &indexWork{
		upTo: max(bound, ix.at), fresh: map[store.RoomNID][]*store.EventRow{},
		again: map[store.RoomNID]map[store.EventNID]bool{}, sealed: map[store.State]bool{},
	}
	ix.glance(bound)
	if err := ix.read(ctx, w); err != nil {
		return false, err
	}
	if err := ix.documents(ctx, w); err != nil {
		return false, err
	}
	if len(w.docs)+len(w.drops)+len(w.queue) == 0 && w.upTo-ix.saved < indexAhead {
		ix.reached(w.upTo) // read again after a restart, which does no harm
		return w.full, nil
	}
	mine, err := ix.write(ctx, w)
	if err != nil || !mine {
		ix.job = nil
		return false, err
	}
	ix.reached(w.upTo)
	ix.saved = w.upTo
	return w.full || len(w.queue) == indexBatch, nil
}

// reached notes how far everything is indexed.
func (ix *indexer) reached(pos store.Pos) {
	ix.at = pos
	ix.ahead = slices.DeleteFunc(ix.ahead, func(row *store.EventRow) bool { return row.Pos <= pos })
}

// take leases the job, if nobody else has it.
func (ix *indexer) take(ctx context.Context) error {
	err := ix.r.db.Write(ctx, func(tx *store.Tx) (err error) {
		ix.job, err = tx.TakeJob(store.Job{Kind: store.JobSearch, Cursor: "0"}, ix.r.now().UnixMilli(), indexLease.Milliseconds())
		return err
	})
	if err != nil || ix.job == nil {
		return err
	}
	at, err := strconv.ParseInt(ix.job.Cursor, 10, 64)
	ix.at, ix.saved = store.Pos(at), store.Pos(at)
	ix.seen, ix.ahead = ix.at, nil
	return err
}

// read finds the events of a round.
func (ix *indexer) read(ctx context.Context, w *indexWork) error {
	err := ix.r.db.Read(ctx, func(tx *store.Tx) error {
		w.rows, w.queue = nil, nil
		if err := ix.rows(tx, w); err != nil {
			return err
		}
		return tx.SearchQueue(indexBatch, func(q store.Queued) { w.queue = append(w.queue, q) })
	})
	if err != nil {
		return err
	}
	targets := map[store.RoomNID][]matrix.EventID{}
	for _, row := range w.rows {
		w.fresh[row.Room] = append(w.fresh[row.Room], row)
		if target, ok := changes(row.Event); ok {
			targets[row.Room] = append(targets[row.Room], target)
		}
	}
	for _, q := range w.queue {
		if q.Room != 0 {
			w.repeat(q.Room, q.Event)
		}
	}
	return ix.r.db.Read(ctx, func(tx *store.Tx) error {
		for room, ids := range targets {
			err := tx.Known(room, ids, func(_ matrix.EventID, nid store.EventNID, _ store.EventFlags, _ bool) { w.repeat(room, nid) })
			if err != nil {
				return err
			}
		}
		for room, nids := range w.again { // of an edit that is redacted the original is what changes
			var edits []store.EventNID
			for nid := range nids {
				edits = append(edits, nid)
			}
			if err := tx.Originals(room, edits, func(nid store.EventNID) { w.repeat(room, nid) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// rows finds those that came after the last round: what glance noted, read as it is now, else everything.
func (ix *indexer) rows(tx *store.Tx, w *indexWork) error {
	add := func(row *store.EventRow) { w.rows = append(w.rows, row) }
	if ix.seen <= ix.at {
		err := tx.Stream(ix.at, w.upTo, indexBatch, add)
		if w.full = len(w.rows) == indexBatch; w.full {
			w.upTo = w.rows[len(w.rows)-1].Pos
		}
		return err
	}
	bound := w.upTo
	w.upTo = min(bound, ix.seen)
	slices.SortFunc(ix.ahead, func(a, b *store.EventRow) int { return cmp.Compare(a.Pos, b.Pos) })
	var rooms []store.RoomNID
	var nids []store.EventNID
	for _, row := range ix.ahead {
		if row.Pos > w.upTo {
			break
		}
		if len(nids) == indexBatch {
			w.upTo = row.Pos - 1
			break
		}
		rooms, nids = append(rooms, row.Room), append(nids, row.NID)
	}
	w.full = w.upTo < bound
	return tx.EventsOf(rooms, nids, add)
}

// repeat has an event indexed again.
func (w *indexWork) repeat(room store.RoomNID, nid store.EventNID) {
	if w.again[room] == nil {
		w.again[room] = map[store.EventNID]bool{}
	}
	w.again[room][nid] = true
}

// changes names the event whose words an event changes: one that it redacts or edits.
func changes(ev *matrix.Event) (matrix.EventID, bool) {
	if ev.Type() == "m.room.redaction" {
		return ev.Redacts()
	}
	relType, target, ok := relation(ev)
	return target, ok && relType == "m.replace"
}

// documents makes the documents of a round, room by room.
func (ix *indexer) documents(ctx context.Context, w *indexWork) error {
	for room := range w.again {
		if _, ok := w.fresh[room]; !ok {
			w.fresh[room] = nil
		}
	}
	for room, rows := range w.fresh {
		var nids []store.EventNID
		for nid := range w.again[room] {
			nids = append(nids, nid)
		}
		known := map[store.EventNID]*store.EventRow{}
		for _, row := range rows {
			known[row.NID] = row
		}
		err := ix.r.db.Read(ctx, func(tx *store.Tx) error { // as they are now, not as they may be remembered
			return tx.EventsByNID(room, nids, func(row *store.EventRow) { known[row.NID] = row })
		})
		if err != nil {
			return err
		}
		if err := ix.documentsIn(ctx, w, room, known); err != nil {
			return err
		}
	}
	return nil
}

// documentsIn makes the documents of events of one room. Those that were to be indexed again and have nothing to index any more
// are dropped.
func (ix *indexer) documentsIn(ctx context.Context, w *indexWork, room store.RoomNID, known map[store.EventNID]*store.EventRow) error {
	ref, err := ix.r.LookupNID(ctx, room)
	if err != nil {
		return err
	}
	var originals []*store.EventRow
	var ids []matrix.EventID
	for nid, row := range known {
		if searchable(row) {
			originals, ids = append(originals, row), append(ids, row.Event.ID())
		} else if w.again[room][nid] {
			w.drops = append(w.drops, nid)
		}
	}
	for nid := range w.again[room] {
		if known[nid] == nil {
			w.drops = append(w.drops, nid)
		}
	}
	found := map[matrix.EventID][]store.Child{}
	err = ix.r.db.Read(ctx, func(tx *store.Tx) error {
		clear(found)
		return tx.Edits(room, ids, maxEdits, func(c store.Child) { found[c.Target] = append(found[c.Target], c) })
	})
	if err != nil {
		return err
	}
	edits, err := ix.r.newestEdits(ctx, ref, nil, originals, found)
	if err != nil {
		return err
	}
	for _, row := range originals {
		doc, ok, err := ix.document(ctx, w, row, edits[row.NID])
		switch {
		case err != nil:
			return err
		case ok:
			w.docs = append(w.docs, doc)
		case w.again[room][row.NID]:
			w.drops = append(w.drops, row.NID)
		}
	}
	return nil
}

// searchable says whether an event is of a kind that can be found by words. An edit is found as what it edits.
func searchable(row *store.EventRow) bool {
	ev := row.Event
	if !row.Visible() || row.Flags.Has(store.FlagRedacted) {
		return false
	}
	relType, _, _ := relation(ev)
	return hasWords(ev) && relType != "m.replace"
}

// hasWords says whether an event has words that are searched, or changes another's.
func hasWords(ev *matrix.Event) bool {
	switch ev.Type() {
	case "m.room.message":
		return !ev.IsState()
	case "m.room.name", "m.room.topic":
		return ev.StateKeyEquals("")
	}
	return false
}

// document makes the document of an event whose newest edit is given, if any. What was said in a room after it was encrypted is
// not indexed, whatever it is.
func (ix *indexer) document(ctx context.Context, w *indexWork, row, edit *store.EventRow) (doc store.Document, ok bool, err error) {
	state := row.StateBefore()
	sealed, known := w.sealed[state]
	if !known {
		encryption, err := ix.r.StateEvent(ctx, row.Room, state, "m.room.encryption", "")
		if err != nil {
			return doc, false, err
		}
		sealed = encryption != nil
		w.sealed[state] = sealed
	}
	if sealed {
		return doc, false, nil
	}
	if since, err := ix.r.erasedSince(ctx, row.Sender); err != nil || since != 0 && erasable(row) {
		return doc, false, err
	}
	doc = store.Document{Event: row.NID, Room: row.Room, Sender: row.Sender, Source: row.NID}
	content := row.Event.Content()
	if edit != nil {
		doc.Source = edit.NID
		content, _ = matrix.Get(edit.Event.Content(), "m.new_content")
	}
	var text string
	switch row.Event.Type() {
	case "m.room.message":
		doc.Kind = store.DocumentBody
		text, _ = matrix.GetString(content, "body")
	case "m.room.name":
		doc.Kind = store.DocumentName
		text, _ = matrix.GetString(content, "name")
	case "m.room.topic":
		doc.Kind = store.DocumentTopic
		text = topicText(content)
	}
	doc.Words = SearchWords(text)
	return doc, len(doc.Words) > 0, nil
}

// topicText is a topic in plain text, in both of the forms that an event may have it in (m.room.topic).
func topicText(content []byte) string {
	var topic struct {
		Topic string `json:"topic"`
		Rich  struct {
			Texts []struct {
				Body string `json:"body"`
				Type string `json:"mimetype"`
			} `json:"m.text"`
		} `json:"m.topic"`
	}
	if json.Unmarshal(content, &topic) != nil { // one form may be malformed: the other counts
		text, _ := matrix.GetString(content, "topic")
		return text
	}
	text := topic.Topic
	for _, t := range topic.Rich.Texts {
		if (t.Type == "" || t.Type == "text/plain") && t.Body != topic.Topic {
			text += " " + t.Body
		}
	}
	return text
}

// SearchWords are the words of a text as search knows them: letters and digits, in lower case. In scripts without spaces between
// words every letter is one.
func SearchWords(text string) []string {
	if len(text) > maxSearchText {
		text = strings.ToValidUTF8(text[:maxSearchText], "")
	}
	var words []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, string(word))
			word = word[:0]
		}
	}
	for _, c := range strings.ToLower(text) {
		switch {
		case unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar) && unicode.IsLetter(c):
			end()
			words = append(words, string(c))
		case unicode.IsLetter(c), unicode.IsNumber(c), unicode.IsMark(c) && len(word) > 0:
			if len(word) < maxWordLength {
				word = append(word, c)
			}
		default:
			end()
		}
	}
	end()
	return words
}

// write stores what a round found, if the job is still ours.
func (ix *indexer) write(ctx context.Context, w *indexWork) (mine bool, err error) {
	job := *ix.job
	job.Cursor = strconv.FormatInt(int64(w.upTo), 10)
	err = ix.r.db.Write(ctx, func(tx *store.Tx) error {
		if mine, err = tx.SaveJob(job, ix.r.now().UnixMilli(), indexLease.Milliseconds()); err != nil || !mine {
			return err
		}
		if err := tx.DropDocuments(w.drops); err != nil {
			return err
		}
		if err := tx.PutDocuments(w.docs); err != nil {
			return err
		}
		return tx.Unqueue(w.queue)
	})
	return mine, err
}
