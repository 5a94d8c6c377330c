package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of a transaction that comes in (server-server API, "Transactions").
const (
	maxTransaction = 10 << 20 // bytes
	maxTxnID       = 255
	txnLife        = 8 * 24 * time.Hour // how long what was answered is known
	txnSweep       = time.Hour
	txnSweepRows   = 1000
)

// txnKey names a transaction: two servers may use the same ID.
type txnKey struct {
	origin matrix.ServerName
	id     string
}

// sendTransaction takes in what another server sends. It answers once all that has to last is durable; the events find
// their places after that, each room at its own pace. The same transaction is answered the same, however often it comes,
// and has its effects once (threats F26).
func (s *Server) sendTransaction(r *Request) (any, error) {
	id := r.Param("txnId")
	if id == "" || len(id) > maxTxnID {
		return nil, matrix.InvalidParam("A transaction ID has 1 to %d bytes.", maxTxnID)
	}
	// A server that hangs up will come again: what was begun is finished for then.
	answer, err := s.txns.Do(r.Context(), txnKey{r.Origin, id}, func(ctx context.Context) (json.RawMessage, error) {
		ctx, cancel := context.WithTimeout(ctx, inRequestTimeout)
		defer cancel()
		return s.takeTransaction(ctx, r.Origin, id, r.Body)
	})
	return answer, err
}

// takeTransaction answers a transaction from memory or takes it in.
func (s *Server) takeTransaction(ctx context.Context, origin matrix.ServerName, id string, body []byte) (answer json.RawMessage, err error) {
	from, err := s.options.DB.Server(ctx, origin)
	if err != nil {
		return nil, err
	}
	found := false
	err = s.options.DB.Read(ctx, func(tx *store.Tx) (err error) {
		answer, found, err = tx.InboundTxn(from, id)
		return err
	})
	if err != nil || found {
		return answer, err
	}
	t, err := readTransaction(body)
	if err != nil {
		return nil, err
	}
	lasting, err := s.takeEDUs(ctx, origin, t.edus)
	if err != nil {
		return nil, err
	}
	admitted := s.options.Rooms.Admit(ctx, origin, t.pdus)
	for _, a := range admitted {
		if a.Err != nil && !errors.As(a.Err, new(*matrix.Error)) {
			return nil, a.Err // trouble of our own: what is acknowledged does not come again
		}
	}
	s.options.Rooms.Queue(ctx, admitted)
	verdicts := map[matrix.EventID]any{}
	for i, a := range admitted {
		if a.Err != nil {
			if ended, err := s.options.Rooms.Withdrawn(ctx, origin, t.pdus[i]); err == nil {
				verdicts[ended] = struct{}{}
				continue
			}
		}
		if a.ID != "" {
			verdicts[a.ID] = verdict(a.Err)
		}
	}
	if answer, err = json.Marshal(map[string]any{"pdus": verdicts}); err != nil {
		return nil, err
	}
	err = s.options.DB.Write(ctx, func(tx *store.Tx) error {
		first, err := tx.AddInboundTxn(from, id, answer, s.now().UnixMilli())
		if err != nil {
			return err
		}
		if !first { // another node had it at the same time
			answer, _, err = tx.InboundTxn(from, id)
			return err
		}
		for _, effect := range lasting {
			if err := effect(tx); err != nil {
				return err
			}
		}
		if len(lasting) > 0 {
			tx.AfterCommit(func() { s.options.Bus.Publish(cluster.Stream, int64(s.options.DB.CachedBound())+1) })
		}
		return s.options.Rooms.Stage(tx, origin, admitted)
	})
	if err == nil {
		s.sweepTxns(ctx)
	}
	return answer, err
}

// verdict is what is answered about one event.
func verdict(err error) any {
	var refused *matrix.Error
	switch {
	case err == nil:
		return struct{}{}
	case errors.As(err, &refused):
		return map[string]string{"error": refused.Text}
	}
	return map[string]string{"error": "The event could not be checked."}
}

// transaction is a transaction taken apart. Its items are raw: each is judged on its own.
type transaction struct {
	pdus []json.RawMessage
	edus []json.RawMessage
}

// readTransaction takes a transaction apart without judging its items: encoding/json, which overlooks much, finds where
// each begins and ends, and the strict readers behind it decide about one after the other (threats F16).
func readTransaction(body []byte) (t transaction, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return t, matrix.NotJSON("The body is not a JSON object.").With(err)
	}
	lists := []struct {
		name  string
		into  *[]json.RawMessage
		limit int
	}{{"pdus", &t.pdus, maxPDUs}, {"edus", &t.edus, maxEDUs}}
	for _, l := range lists {
		raw, ok := members[l.name]
		if !ok {
			continue
		}
		var more bool
		if *l.into, more, err = splitList(raw, l.limit); err != nil {
			return t, matrix.BadJSON("%s is not a list.", l.name).With(err)
		}
		if more {
			return t, matrix.InvalidParam("A transaction has at most %d %s.", l.limit, l.name)
		}
	}
	return t, nil
}

// splitList takes the first items of a JSON list apart without judging them: what a list of millions would take in memory
// is not spent on it. more says that there are others behind them. null is an empty list.
func splitList(list []byte, most int) (items []json.RawMessage, more bool, err error) {
	d := json.NewDecoder(bytes.NewReader(list))
	switch begin, err := d.Token(); {
	case err != nil:
		return nil, false, err
	case begin == nil:
		return nil, false, nil
	case begin != json.Delim('['):
		return nil, false, errors.New("it is not a list")
	}
	for d.More() {
		if len(items) == most {
			return items, true, nil
		}
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return nil, false, err
		}
		items = append(items, item)
	}
	_, err = d.Token()
	return items, false, err
}

// takeEDUs takes in EDUs and returns what of them is to be written together with the transaction. An EDU that is not
// usable has no effect, and none on others; only trouble of our own makes the transaction come again.
func (s *Server) takeEDUs(ctx context.Context, origin matrix.ServerName, raws []json.RawMessage) ([]effect, error) {
	var lasting []effect
	for _, raw := range raws {
		more, err := s.takeEDU(ctx, origin, raw)
		var unusable *matrix.Error
		switch {
		case errors.As(err, &unusable):
			s.log.Debug("an EDU has no effect", "origin", origin, "err", err)
		case err != nil:
			return nil, err
		}
		lasting = append(lasting, more...)
	}
	return lasting, nil
}

// takeEDU takes in one EDU. A panic over it is contained.
func (s *Server) takeEDU(ctx context.Context, origin matrix.ServerName, raw json.RawMessage) (lasting []effect, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic over an EDU", "origin", origin, "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			lasting, err = nil, nil
		}
	}()
	// Each receiver checks the content strictly, in one piece or entry by entry.
	typ, _ := matrix.GetString(raw, "edu_type")
	content, there := matrix.Get(raw, "content")
	receive, known := eduReceivers[typ]
	if !known || !there {
		return nil, nil
	}
	return receive(s, ctx, origin, content)
}

// sweepTxns forgets old transactions now and then.
func (s *Server) sweepTxns(ctx context.Context) {
	now := s.now()
	last := s.swept.Load()
	if now.UnixMilli()-last < txnSweep.Milliseconds() || !s.swept.CompareAndSwap(last, now.UnixMilli()) {
		return
	}
	err := s.options.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.ForgetInboundTxns(now.Add(-txnLife).UnixMilli(), txnSweepRows)
		if n == txnSweepRows {
			tx.AfterCommit(func() { s.swept.Store(last) }) // there is more for the next time
		}
		return err
	})
	if err != nil {
		s.log.Warn("old transactions were not forgotten", "err", err)
	}
}
