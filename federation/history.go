package federation

import (
	"encoding/json"
	"strconv"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// transaction is the form in which events are answered that are no lists of state.
func (s *Server) transaction(events ...*matrix.Event) map[string]any {
	pdus := make([]json.RawMessage, 0, len(events))
	for _, ev := range events {
		pdus = append(pdus, ev.JSON())
	}
	return map[string]any{"origin": s.own.Name(), "origin_server_ts": s.now().UnixMilli(), "pdus": pdus}
}

func (s *Server) getEvent(r *Request) (any, error) {
	id, err := r.event()
	if err != nil {
		return nil, err
	}
	ev, err := s.options.Rooms.ServeEvent(r.Context(), r.Origin, id)
	if err != nil {
		return nil, err
	}
	return s.transaction(ev), nil
}

// serving opens the room of the path for the server that asks.
func (s *Server) serving(r *Request) (*rooms.Serving, error) {
	room, err := r.room()
	if err != nil {
		return nil, err
	}
	return s.options.Rooms.Serve(r.Context(), r.Origin, room)
}

// servingAt is serving with the event of the query.
func (s *Server) servingAt(r *Request) (*rooms.Serving, matrix.EventID, error) {
	id, err := parseEventID(r.URL.Query().Get("event_id"))
	if err != nil {
		return nil, "", err
	}
	serving, err := s.serving(r)
	return serving, id, err
}

func (s *Server) getRoomState(r *Request) (any, error) {
	serving, id, err := s.servingAt(r)
	if err != nil {
		return nil, err
	}
	out := newEventStream(r.Writer)
	err = serving.State(r.Context(), id, out.into("pdus"), out.into("auth_chain"))
	return Done, out.end(err, "pdus", "auth_chain")
}

func (s *Server) getRoomStateIDs(r *Request) (any, error) {
	serving, id, err := s.servingAt(r)
	if err != nil {
		return nil, err
	}
	state, chain, err := serving.StateIDs(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"pdu_ids": nonNil(state), "auth_chain_ids": nonNil(chain)}, nil
}

func (s *Server) getEventAuth(r *Request) (any, error) {
	serving, err := s.serving(r)
	if err != nil {
		return nil, err
	}
	id, err := r.event()
	if err != nil {
		return nil, err
	}
	out := newEventStream(r.Writer)
	err = serving.AuthChain(r.Context(), id, out.into("auth_chain"))
	return Done, out.end(err, "auth_chain")
}

// maxNamed bounds how many events a question for history may name.
const maxNamed = 100

func (s *Server) backfillRoom(r *Request) (any, error) {
	query := r.URL.Query()
	from, err := namedEvents(query["v"])
	if err != nil {
		return nil, err
	}
	limit, err := count(query.Get("limit"))
	if err != nil {
		return nil, err
	}
	serving, err := s.serving(r)
	if err != nil {
		return nil, err
	}
	events, err := serving.Backfill(r.Context(), from, limit)
	if err != nil {
		return nil, err
	}
	return s.transaction(events...), nil
}

func namedEvents(list []string) ([]matrix.EventID, error) {
	if len(list) > maxNamed {
		return nil, matrix.InvalidParam("At most %d events can be named.", maxNamed)
	}
	ids := make([]matrix.EventID, 0, len(list))
	for _, text := range list {
		id, err := parseEventID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (s *Server) getMissingEvents(r *Request) (any, error) {
	var body struct {
		Limit    *int     `json:"limit"`
		MinDepth int64    `json:"min_depth"`
		Earliest []string `json:"earliest_events"`
		Latest   []string `json:"latest_events"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	limit := 10 // the default of the specification
	if body.Limit != nil {
		limit = *body.Limit
	}
	if limit < 1 {
		return nil, matrix.InvalidParam("The limit is at least 1.")
	}
	had, err := namedEvents(body.Earliest)
	if err != nil {
		return nil, err
	}
	latest, err := namedEvents(body.Latest)
	if err != nil {
		return nil, err
	}
	serving, err := s.serving(r)
	if err != nil {
		return nil, err
	}
	events, err := serving.Missing(r.Context(), had, latest, limit, body.MinDepth)
	if err != nil {
		return nil, err
	}
	pdus := make([]json.RawMessage, 0, len(events))
	for _, ev := range events {
		pdus = append(pdus, ev.JSON())
	}
	return map[string]any{"events": pdus}, nil
}

// count reads a limit of a query.
func count(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, matrix.InvalidParam("The limit is missing or not a positive number.")
	}
	return n, nil
}

// getEventByTimestamp finds the event nearest to a time.
func (s *Server) getEventByTimestamp(r *Request) (any, error) {
	query := r.URL.Query()
	ts, err := strconv.ParseInt(query.Get("ts"), 10, 64)
	if err != nil {
		return nil, matrix.InvalidParam("ts is missing or not a number of milliseconds.").With(err)
	}
	if dir := query.Get("dir"); dir != "f" && dir != "b" {
		return nil, matrix.InvalidParam(`dir is "f" or "b".`)
	}
	serving, err := s.serving(r)
	if err != nil {
		return nil, err
	}
	return serving.EventNear(r.Context(), ts, query.Get("dir") == "f")
}
