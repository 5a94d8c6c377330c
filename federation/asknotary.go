package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"

	"conclave/internal/matrix"
)

// notaryQueues collect the servers whose keys are wanted of a notary: while one question is on its way, the next one
// fills up, so that a room of a thousand dead servers costs twenty questions and not a thousand.
type notaryQueues struct {
	mu     sync.Mutex
	queues map[matrix.ServerName]*notaryQueue
}

// notaryQueue is of one notary that is being asked.
type notaryQueue struct{ waiting []notaryWait }

// notaryWait is somebody who wants the documents that a notary has of a server.
type notaryWait struct {
	server matrix.ServerName
	answer chan<- notaryAnswer
}

// notaryQuery asks a notary for several servers' documents.
type notaryQuery func(context.Context, KeyCriteria) ([]json.RawMessage, error)

type notaryAnswer struct {
	documents []json.RawMessage // of this server, as they came
	err       error
}

// ask puts a server on the next question to a notary and waits for the answer.
func (q *notaryQueues) ask(ctx context.Context, notary, server matrix.ServerName, query notaryQuery) ([]json.RawMessage, error) {
	answer := make(chan notaryAnswer, 1)
	q.mu.Lock()
	queue := q.queues[notary]
	idle := queue == nil
	if idle {
		if q.queues == nil {
			q.queues = map[matrix.ServerName]*notaryQueue{}
		}
		queue = &notaryQueue{}
		q.queues[notary] = queue
	}
	queue.waiting = append(queue.waiting, notaryWait{server, answer})
	q.mu.Unlock()
	if idle {
		go q.work(context.WithoutCancel(ctx), notary, query) // ends with those who wait; each question has its time
	}
	select {
	case a := <-answer:
		return a.documents, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// work asks a notary until nobody waits for it.
func (q *notaryQueues) work(ctx context.Context, notary matrix.ServerName, query notaryQuery) {
	for {
		q.mu.Lock()
		queue := q.queues[notary]
		part := queue.waiting[:min(len(queue.waiting), maxNotaryServers)]
		queue.waiting = queue.waiting[len(part):]
		if len(part) == 0 {
			delete(q.queues, notary)
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		if !answerWaits(ctx, part, query) {
			for i := range part { // one document spoilt the answer for all
				answerWaits(ctx, part[i:i+1], query)
			}
		}
	}
}

// answerWaits asks for some servers and hands each its documents. It reports false, and has told nobody anything, if the
// answer for several could not be used.
func answerWaits(ctx context.Context, part []notaryWait, query notaryQuery) bool {
	wanted := KeyCriteria{}
	for _, w := range part {
		wanted[w.server] = nil
	}
	documents, err := contained(ctx, wanted, query)
	var unusable *Error
	if errors.As(err, &unusable) && unusable.Status == http.StatusOK && len(part) > 1 {
		return false
	}
	byServer := map[matrix.ServerName][]json.RawMessage{}
	for _, raw := range documents {
		name, _ := matrix.GetString(raw, "server_name")
		byServer[matrix.ServerName(name)] = append(byServer[matrix.ServerName(name)], raw)
	}
	for _, w := range part {
		w.answer <- notaryAnswer{byServer[w.server], err}
	}
	return true
}

// contained makes one query in its time; a panic over the answer is an error.
func contained(ctx context.Context, wanted KeyCriteria, query notaryQuery) (documents []json.RawMessage, err error) {
	defer func() {
		if v := recover(); v != nil {
			documents, err = nil, fmt.Errorf("panic over a notary's answer: %T\n%s", v, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return query(ctx, wanted)
}

// askNotary gets a server's document from a notary, whose signature it must bear besides the server's own.
func (k *Keyring) askNotary(ctx context.Context, notary, server matrix.ServerName) (*keyDocument, error) {
	documents, err := k.notaryQueues.ask(ctx, notary, server, func(ctx context.Context, wanted KeyCriteria) ([]json.RawMessage, error) {
		return limited(ctx, k.slots, func() ([]json.RawMessage, error) { return k.source.QueryNotary(ctx, notary, wanted) })
	})
	if err != nil {
		return nil, err
	}
	err = errors.New("it has no document of the server")
	for _, raw := range documents {
		var doc *keyDocument
		if doc, err = parseKeyDocument(raw, server); err != nil {
			continue
		}
		if err = k.signedByNotary(ctx, raw, notary); err == nil {
			return doc, nil
		}
	}
	return nil, err
}

func (k *Keyring) signedByNotary(ctx context.Context, raw []byte, notary matrix.ServerName) error {
	var doc struct {
		Signatures map[string]map[string]json.RawMessage `json:"signatures"`
	}
	if err := matrix.Decode(raw, &doc); err != nil {
		return err
	}
	now := k.now().UnixMilli()
	for id := range doc.Signatures[string(notary)] {
		keyID, err := parseKeyID(id)
		if err != nil {
			continue
		}
		public, err := k.key(ctx, notary, keyID, now, true)
		if err != nil {
			continue
		}
		return matrix.VerifyJSON(raw, string(notary), keyID, public)
	}
	return errors.New("it is not signed by the notary")
}
