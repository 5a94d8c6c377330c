package clientapi

import (
	"encoding/json"
	"slices"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var relationRoutes = []Route{
	{Method: get, Path: relationsPath, OperationID: "getRelatingEvents", Auth: Token, Limit: LimitRead, Handler: (*Server).getRelatingEvents},
	{Method: get, Path: relationsPath + "/:relType", OperationID: "getRelatingEventsWithRelType", Auth: Token, Limit: LimitRead, Handler: (*Server).getRelatingEvents},
	{Method: get, Path: relationsPath + "/:relType/:eventType", OperationID: "getRelatingEventsWithRelTypeAndEventType", Auth: Token, Limit: LimitRead, Handler: (*Server).getRelatingEvents},
	{Method: get, Path: "/_matrix/client/v1/rooms/:roomId/threads", OperationID: "getThreadRoots", Auth: Token, Limit: LimitRead, Handler: (*Server).getThreadRoots},
}

const relationsPath = "/_matrix/client/v1/rooms/:roomId/relations/:eventId"

// relationsAnswer is the answer of /relations.
type relationsAnswer struct {
	Chunk json.RawMessage `json:"chunk"`
	Next  string          `json:"next_batch,omitempty"`
	Prev  string          `json:"prev_batch,omitempty"`
	Depth int             `json:"recursion_depth,omitempty"`
}

// getRelatingEvents is GET /rooms/{roomId}/relations/{eventId}, also with /{relType} and /{eventType}.
func (s *Server) getRelatingEvents(r *Request) (any, error) {
	ref, viewer, id, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	reader, err := s.Rooms.Reader(r.Ctx(), r.Session.User, viewer)
	if err != nil {
		return nil, err
	}
	q := rooms.RelatedRequest{
		Ref: ref, Reader: reader, Event: id, RelType: r.Param("relType"), EventType: r.Param("eventType"), From: rooms.Newest, Backward: true,
	}
	if err := s.relationsQuery(r, &q); err != nil {
		return nil, err
	}
	page, err := s.Rooms.Related(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	events, err := s.Sync.BundledFor(r.Ctx(), r.viewpoint(), ref, reader, page.Events)
	if err != nil {
		return nil, err
	}
	answer := relationsAnswer{Chunk: sync.List(events), Prev: r.QueryParam("from")}
	if !page.Done {
		answer.Next = sync.FormatPlace(page.End)
	}
	if q.Recurse {
		answer.Depth = rooms.RecursionDepth
	}
	return answer, nil
}

// relationsQuery reads the parameters of /relations.
func (s *Server) relationsQuery(r *Request, q *rooms.RelatedRequest) (err error) {
	switch r.QueryParam("dir") {
	case "", "b":
	case "f":
		q.Backward, q.From = false, rooms.Place{}
	default:
		return matrix.InvalidParam(`dir is "b" or "f".`)
	}
	switch r.QueryParam("recurse") {
	case "", "false":
	case "true":
		q.Recurse = true
	default:
		return matrix.InvalidParam(`recurse is "true" or "false".`)
	}
	if from := r.QueryParam("from"); from != "" {
		if q.From, err = s.Sync.ParsePlace(from); err != nil {
			return err
		}
	}
	if to := r.QueryParam("to"); to != "" {
		place, err := s.Sync.ParsePlace(to)
		if err != nil {
			return err
		}
		q.To = &place
	}
	q.Limit, err = relationsLimit(r.QueryParam("limit"))
	return err
}

// relationsLimit reads how many events or threads are wanted at most.
func relationsLimit(text string) (int, error) {
	n, err := number(text, 20, 100)
	if err != nil || n == 0 {
		return 0, matrix.InvalidParam("limit is a number greater than zero.")
	}
	return n, nil
}

// threadsAnswer is the answer of /threads.
type threadsAnswer struct {
	Chunk json.RawMessage `json:"chunk"`
	Next  string          `json:"next_batch,omitempty"`
}

// getThreadRoots is GET /rooms/{roomId}/threads.
func (s *Server) getThreadRoots(r *Request) (any, error) {
	v, err := s.mayRead(r)
	if err != nil {
		return nil, err
	}
	q := rooms.ThreadsRequest{Ref: v.ref, UpTo: v.until, From: rooms.Newest}
	switch r.QueryParam("include") {
	case "", "all":
	case "participated":
		q.Participated = true
	default:
		return nil, matrix.InvalidParam(`include is "all" or "participated".`)
	}
	if from := r.QueryParam("from"); from != "" {
		if q.From, err = s.Sync.ParsePlace(from); err != nil {
			return nil, err
		}
	}
	if q.Limit, err = relationsLimit(r.QueryParam("limit")); err != nil {
		return nil, err
	}
	if q.Reader, err = s.Rooms.Reader(r.Ctx(), r.Session.User, v.viewer); err != nil {
		return nil, err
	}
	page, err := s.Rooms.Threads(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	shown, err := shownRoots(q.Reader, page.Events)
	if err != nil {
		return nil, err
	}
	events, err := s.Sync.BundledFor(r.Ctx(), r.viewpoint(), v.ref, q.Reader, shown)
	if err != nil {
		return nil, err
	}
	events = slices.DeleteFunc(events, func(event json.RawMessage) bool { // a thread of whose events none may be seen
		_, has := matrix.Get(event, "unsigned", "m.relations", "m.thread")
		return !has
	})
	answer := threadsAnswer{Chunk: sync.List(events)}
	if !page.Done {
		answer.Next = sync.FormatPlace(page.End)
	}
	return answer, nil
}

// shownRoots are the roots of threads as a reader gets them: those of ignored users redacted.
func shownRoots(reader rooms.Reader, rows []*store.EventRow) ([]*store.EventRow, error) {
	out := slices.Clone(rows)
	for i, row := range rows {
		if !slices.Contains(reader.Ignored, row.Sender) {
			continue
		}
		redacted := *row
		var err error
		if redacted.Event, err = row.Event.Redacted(); err != nil {
			return nil, err
		}
		redacted.Flags |= store.FlagRedacted // no edit of it is shown either
		out[i] = &redacted
	}
	return out, nil
}
