package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// batch is one transaction in the making.
type batch struct {
	txn  string
	pdus []PDU
	edus []EDU
	to   store.Cursors // where the destination stands once it is delivered
}

func (b *batch) empty() bool { return len(b.pdus) == 0 && len(b.edus) == 0 }

// work delivers what there is for one server, until there is nothing more for a while, it fails or somebody else has it.
func (s *Sender) work(ctx context.Context, server matrix.ServerName, wake <-chan struct{}) {
	d, ok, err := s.lease(ctx, server)
	if err != nil {
		s.complain(ctx, "leasing a destination", err)
		s.later(server, s.sweep) // no row says yet that something waits: nobody else would look again
		return
	}
	if !ok {
		return
	}
	w := &worker{s: s, server: server, d: d, held: time.Now()}
	for more := true; more; more = w.d.RetryAt == 0 && s.linger(ctx, wake) {
		for w.step(ctx) {
			if !w.save(ctx, leaseTime) {
				return // lost: another node goes on from what is stored
			}
		}
		if w.d.RetryAt == 0 && s.greets(server) {
			w.greet(ctx)
		}
		if time.Since(w.held) > leaseTime/4 && !w.save(ctx, leaseTime) {
			return
		}
	}
	w.release(ctx)
	if w.d.RetryAt != 0 {
		s.later(server, time.UnixMilli(w.d.RetryAt).Sub(s.now()))
	}
}

// release gives the lease back, also when the process is ending: nobody should have to wait for its end.
func (w *worker) release(ctx context.Context) {
	if ctx.Err() == nil {
		w.save(ctx, 0)
	}
	if ctx.Err() == nil {
		return
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	w.save(ending, 0)
}

// greet sends an empty transaction to a server that took something not too long ago. That it does not is no failure:
// there is nothing to be repeated.
func (w *worker) greet(ctx context.Context) {
	if w.s.now().UnixMilli()-w.d.LastSuccess > helloTime.Milliseconds() {
		return
	}
	if _, err := w.send(ctx, fmt.Sprintf("h%x", w.s.now().UnixNano()), nil); err != nil {
		w.s.log.Debug("a server was not told of our start", "server", w.server, "err", err)
		return
	}
	w.s.spokeTo(w.server)
}

// linger waits for a while whether there will be more for a server: a conversation would otherwise take and give back the
// lease for every message. It does not while others might want the worker's place.
func (s *Sender) linger(ctx context.Context, wake <-chan struct{}) (more bool) {
	s.mu.Lock()
	crowded := len(s.waiting) > 0 || len(s.working) > maxWorkers/2
	s.mu.Unlock()
	if crowded {
		return false
	}
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	select {
	case <-wake:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// worker works for one destination while it holds its lease.
type worker struct {
	s      *Sender
	server matrix.ServerName
	d      store.Destination
	held   time.Time // when the lease was taken or renewed last

	// While transactions are reduced to one thing (batch 1), EDUs and events take turns: turn counts the kinds that
	// were tried, moved says that one of them was delivered.
	turn  int
	moved bool
}

// alone reports whether transactions are reduced to one thing.
func (w *worker) alone() bool { return w.d.Batch == 1 }

// step makes one attempt at one transaction and reports whether to go on.
func (w *worker) step(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	b, err := w.build(ctx)
	if err != nil {
		w.s.complain(ctx, "building a transaction", err)
		w.fail("a transaction could not be built", w.backOff())
		return false
	}
	if b.empty() {
		return w.nothing(b)
	}
	w.d.Goal = b.to
	refused, err := w.deliver(ctx, b)
	if err == nil {
		w.delivered(b, refused)
		return true
	}
	if ctx.Err() != nil {
		return false // ending is nobody's failure
	}
	return w.refused(ctx, b, err)
}

// nothing moves the destination over a range in which there is nothing for it. There may be more after the end that
// was set for a transaction or for catching up, and there may be something of the other kind.
func (w *worker) nothing(b *batch) bool {
	d := &w.d
	more := !d.Goal.IsZero() || d.CatchUp != 0
	d.At, d.Goal, d.CatchUp = b.to, store.Cursors{}, w.caughtUp(b.to)
	if w.alone() {
		return w.nextTurn() || more
	}
	if !more {
		d.Batch = maxPDUs
	}
	return more
}

// nextTurn goes over to the other kind of thing. After both, transactions grow again; it reports whether there was
// anything.
func (w *worker) nextTurn() bool {
	if w.turn++; w.turn < 2 {
		return true
	}
	moved := w.moved
	w.turn, w.moved = 0, false
	w.d.Batch = 2
	if !moved {
		w.d.Batch = maxPDUs
	}
	return moved
}

// build makes the next transaction. One that was begun before keeps its end, and so its ID.
func (w *worker) build(ctx context.Context) (*batch, error) {
	d := &w.d
	b := &batch{to: d.At}
	if !w.alone() || w.turn == 1 {
		if err := w.addPDUs(ctx, b); err != nil {
			return nil, err
		}
	}
	if !w.alone() || w.turn == 0 {
		if err := w.addEDUs(ctx, b); err != nil {
			return nil, err
		}
	}
	if d.Batch == maxPDUs && d.Fails == 0 && len(b.edus) < maxEDUs {
		if fleeting := w.s.outbox.Ephemeral(w.server, maxEDUs-len(b.edus)); len(fleeting) > 0 {
			b.edus = append(b.edus, fleeting...)
		}
	}
	b.txn = w.txnID(b)
	return b, nil
}

// txnID names the range that a transaction covers: repeated after a crash it has the same name. Where nothing moves
// there are only fleeting EDUs, which are never repeated and are named by the time.
func (w *worker) txnID(b *batch) string {
	from, to := w.d.At, b.to
	if from == to {
		return fmt.Sprintf("e%x", w.s.now().UnixNano())
	}
	return fmt.Sprintf("p%x-%x.%x-%x.%x-%x.%x-%x", from.PDUs, to.PDUs, from.DeviceLists, to.DeviceLists,
		from.ToDevice, to.ToDevice, from.Others, to.Others)
}

func (w *worker) addPDUs(ctx context.Context, b *batch) error {
	pdus, to, err := w.page(ctx)
	if err == nil && len(pdus) == w.d.Batch && w.d.Goal.IsZero() && w.d.CatchUp == 0 {
		var n int
		var head store.Pos
		n, head, err = w.s.outbox.Backlog(ctx, w.server, w.d.At.PDUs, maxBacklog+1)
		if err == nil && n > maxBacklog {
			// Too many to send each: of what there is now only the latest of each room, the rest on demand.
			w.d.CatchUp = head
			pdus, to, err = w.page(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("reading events to be sent: %w", err)
	}
	b.pdus, b.to.PDUs = pdus, max(to, w.d.At.PDUs)
	return nil
}

func (w *worker) page(ctx context.Context) ([]PDU, store.Pos, error) {
	d := &w.d
	q := PDUQuery{After: d.At.PDUs, UpTo: d.Goal.PDUs, Limit: d.Batch}
	if d.CatchUp > d.At.PDUs {
		q.LatestOnly = true
		if q.UpTo == 0 || q.UpTo > d.CatchUp {
			q.UpTo = d.CatchUp
		}
	}
	return w.s.outbox.PDUs(ctx, w.server, q)
}

// caughtUp is where catching up ends once the destination stands at at: 0 if it has ended.
func (w *worker) caughtUp(at store.Cursors) store.Pos {
	if at.PDUs >= w.d.CatchUp {
		return 0
	}
	return w.d.CatchUp
}

func (w *worker) addEDUs(ctx context.Context, b *batch) error {
	d := &w.d
	q := EDUQuery{From: d.At, UpTo: d.Goal, Limit: min(2*d.Batch, maxEDUs), Bytes: maxEDUBytes}
	if w.alone() {
		q.Limit = 1
	}
	edus, to, err := w.s.outbox.EDUs(ctx, w.server, q)
	if err != nil {
		return fmt.Errorf("reading EDUs to be sent: %w", err)
	}
	b.edus = edus
	b.to.DeviceLists, b.to.ToDevice, b.to.Others = to.DeviceLists, to.ToDevice, to.Others
	return nil
}

// send delivers one transaction, empty if b is nil.
func (w *worker) send(ctx context.Context, txn string, b *batch) (map[matrix.EventID]string, error) {
	return w.sendWithin(ctx, attemptTimeout, txn, b)
}

func (w *worker) sendWithin(ctx context.Context, limit time.Duration, txn string, b *batch) (map[matrix.EventID]string, error) {
	body, err := encodeTransaction(w.s.own.Name(), w.s.now(), b)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.s.client.SendTransaction(ctx, w.server, txn, body)
}

func encodeTransaction(origin matrix.ServerName, now time.Time, b *batch) ([]byte, error) {
	name, err := json.Marshal(origin)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if b != nil && len(b.edus) > 0 {
		buf.WriteString(`{"edus":[`)
		for i, e := range b.edus {
			if i > 0 {
				buf.WriteByte(',')
			}
			buf.Write(e.JSON)
		}
		buf.WriteString(`],`)
	} else {
		buf.WriteByte('{')
	}
	fmt.Fprintf(&buf, `"origin":%s,"origin_server_ts":%d,"pdus":[`, name, now.UnixMilli())
	if b != nil {
		for i, p := range b.pdus {
			if i > 0 {
				buf.WriteByte(',')
			}
			buf.Write(p.JSON)
		}
	}
	buf.WriteString(`]}`)
	return buf.Bytes(), nil
}

// delivered moves the destination on. After a refusal transactions grow again slowly, so that a second culprit nearby
// is found with little loss.
func (w *worker) delivered(b *batch, refused map[matrix.EventID]string) {
	for _, p := range b.pdus {
		if _, no := refused[p.ID]; no {
			w.s.log.Info("an event was not accepted by a server", "server", w.server, "event", p.ID)
		}
	}
	d := &w.d
	d.At, d.Goal, d.CatchUp = b.to, store.Cursors{}, w.caughtUp(b.to)
	d.Fails, d.FailingSince, d.RetryAt, d.Failure = 0, 0, 0, ""
	d.LastSuccess = w.s.now().UnixMilli()
	w.s.spokeTo(w.server)
	if w.alone() {
		w.moved = true
		w.nextTurn()
		return
	}
	d.Batch = min(2*d.Batch, maxPDUs)
}

// refused deals with a transaction that was not taken and says whether to go on at once. No answer and answers that say
// nothing about the content (rate limits, proxies, authentication) mean waiting. Otherwise the transaction is tried again
// once, then, if the server takes an empty one, in halves; a single thing that is refused several times is set aside. The
// wait after that grows as after any failure: a server that takes nothing but empty transactions loses little. A server
// that listens and gives no answer may choke on what is in a transaction too: so it is looked at after several times.
func (w *worker) refused(ctx context.Context, b *batch, err error) (goOn bool) {
	d := &w.d
	var remote *Error
	errors.As(err, &remote)
	if !blamesContent(err) && !(isSlow(err) && d.Fails >= minRefusals && w.takesNothing(ctx)) {
		wait := w.backOff()
		if remote != nil && remote.RetryAfter > wait {
			wait = remote.RetryAfter
		}
		w.fail(reason(err), wait)
		return false
	}
	several := len(b.pdus)+len(b.edus) > 1
	switch {
	case several && d.Fails == 0:
		w.fail(reason(err), briefBackOff)
	case !several && d.Fails < minRefusals:
		w.fail(reason(err), minBackOff)
	case !w.takesNothing(ctx):
		w.fail(reason(err), w.backOff())
	case several:
		d.Batch, d.Goal = max(1, d.Batch/2), store.Cursors{}
		return true // others wait: the culprit is to be found soon, in six steps at most
	default:
		w.setAside(ctx, b, err)
		d.At, d.Goal, d.CatchUp = b.to, store.Cursors{}, w.caughtUp(b.to)
		w.fail(reason(err), w.backOff())
	}
	return false
}

// takesNothing says whether the server takes an empty transaction, so that the trouble is with what is in others.
func (w *worker) takesNothing(ctx context.Context) bool {
	_, err := w.send(ctx, fmt.Sprintf("t%x", w.s.now().UnixNano()), nil)
	return err == nil
}

// minRefusals is how many failures there must have been before a single thing is set aside.
const minRefusals = 3

// blamesContent reports whether an answer can mean that something in the transaction is not to the server's taste.
func blamesContent(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		return true
	}
	return false
}

// isSlow reports whether a server has got a transaction and gives no answer in time.
func isSlow(err error) bool {
	var e *Error
	return errors.Is(err, errHeaderTimeout) || errors.Is(err, errTotalTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &e) && e.Status == http.StatusGatewayTimeout
}

func (w *worker) setAside(ctx context.Context, b *batch, err error) {
	item := ""
	if len(b.pdus) == 1 {
		item = string(b.pdus[0].ID)
		w.s.suspect(w.server, b.pdus[0].Room)
	} else {
		item = b.edus[0].Type
	}
	w.s.log.Warn("set aside what a server refuses", "server", w.server, "item", item, "err", reason(err))
	now := w.s.now()
	err = w.s.db.Write(ctx, func(tx *store.Tx) error {
		return tx.AddSetAside(w.d.Server, store.SetAside{TS: now.UnixMilli(), Item: item, Reason: reason(err)}, now.Add(-setAsideLife).UnixMilli())
	})
	if err != nil {
		w.s.complain(ctx, "noting what was set aside", err)
	}
}

// fail notes a failure and when to try again.
func (w *worker) fail(why string, wait time.Duration) {
	now := w.s.now()
	if w.d.Fails == 0 {
		w.d.FailingSince = now.UnixMilli()
	}
	w.d.Fails++
	w.d.Failure = why
	w.d.RetryAt = now.Add(wait).UnixMilli()
}

// backOff is how long to wait after the present failure. A server that was alive within a day is most likely
// started anew or cut off for a moment: for some minutes it is tried again and again within ten seconds, so that what
// waits is there soon after its return; then the wait grows as the outage does. The others' wait doubles from the start:
// many of them are gone for good.
func (w *worker) backOff() time.Duration {
	d, now := &w.d, w.s.now().UnixMilli()
	since := now
	if d.Fails > 0 {
		since = d.FailingSince
	}
	alive := d.LastSuccess
	if heard, ok := w.s.revived.GetIfPresent(w.server); ok {
		alive = max(alive, heard.UnixMilli())
	}
	if since-alive > aliveTime.Milliseconds() {
		return min(minBackOff<<min(d.Fails, 20), maxBackOff)
	}
	if failing := time.Duration(now-since) * time.Millisecond; failing > briefTime {
		return min(max(failing-briefTime, minBackOff), maxBackOff)
	}
	return min(briefBackOff<<min(d.Fails, 20), minBackOff)
}

// reason is an error as it may be stored and shown: bounded, valid text.
func reason(err error) string {
	text := err.Error()
	if len(text) > 300 {
		text = text[:300]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
}

// save stores where the destination stands; ok is false if the lease was lost. While the database does not take it, the
// worker tries on: a lease that it left behind would keep everybody, itself included, from the destination until its end.
func (w *worker) save(ctx context.Context, lease time.Duration) (ok bool) {
	for {
		err := w.s.db.Write(ctx, func(tx *store.Tx) error {
			var err error
			ok, err = tx.SaveDestination(w.d, lease.Milliseconds())
			return err
		})
		if err == nil {
			w.held = time.Now()
			return ok
		}
		w.s.complain(context.WithoutCancel(ctx), "saving a destination", err)
		if time.Since(w.held) > leaseTime || !pause(ctx, w.s.sweep) {
			return false
		}
	}
}
