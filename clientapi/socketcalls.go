package clientapi

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// socketMethods are the calls of the socket. Each does what its endpoint does, and shares its transaction IDs.
var socketMethods = map[string]struct {
	operation string // of the endpoint
	limit     Limit
	run       func(*Server, *Request, json.RawMessage) (any, error)
}{
	"ping":         {"im.conclave.ws.sync", LimitRead, func(*Server, *Request, json.RawMessage) (any, error) { return nil, nil }},
	"send":         {"sendMessage", LimitSend, (*Server).socketSend},
	"receipt":      {"postReceipt", LimitSend, (*Server).socketReceipt},
	"read_markers": {"setReadMarker", LimitSend, (*Server).socketReadMarkers},
	"typing":       {"setTyping", LimitSend, (*Server).socketTyping},
	"presence":     {"setPresence", LimitChange, (*Server).socketPresence},
}

// inRoom is what the parameters of a call about a room have in common.
type inRoom struct {
	Room string `json:"room_id"`
}

func (s *Server) socketRoom(r *Request, in inRoom) (rooms.Ref, error) {
	id, err := matrix.ParseRoomID(in.Room)
	if err != nil {
		return rooms.Ref{}, matrix.InvalidParam("%.64q is not a room ID.", in.Room).With(err)
	}
	return s.Rooms.Lookup(r.Ctx(), id)
}

// socketSend is sendMessage.
func (s *Server) socketSend(r *Request, params json.RawMessage) (any, error) {
	var in struct {
		inRoom
		Type    string          `json:"type"`
		Txn     string          `json:"txn_id"`
		Content json.RawMessage `json:"content"`
	}
	if err := matrix.Decode(params, &in); err != nil {
		return nil, err
	}
	if in.Txn == "" {
		return nil, matrix.InvalidParam("A message needs a txn_id.")
	}
	if err := matrix.CheckObject(in.Content); err != nil {
		return nil, err
	}
	ref, err := s.socketRoom(r, in.inRoom)
	if err != nil {
		return nil, err
	}
	id, err := s.Send(r, ref, in.Type, in.Txn, in.Content)
	return json.RawMessage(eventAnswer(id)), err
}

// socketReceipt is postReceipt.
func (s *Server) socketReceipt(r *Request, params json.RawMessage) (any, error) {
	var in struct {
		inRoom
		Type   string  `json:"type"`
		Event  string  `json:"event_id"`
		Thread *string `json:"thread_id"`
	}
	if err := matrix.Decode(params, &in); err != nil {
		return nil, err
	}
	thread, err := threadOf(in.Thread)
	if err != nil {
		return nil, err
	}
	ref, err := s.socketRoom(r, in.inRoom)
	if err != nil {
		return nil, err
	}
	return nil, s.Receipt(r, ref, in.Type, in.Event, thread)
}

// socketReadMarkers is setReadMarker.
func (s *Server) socketReadMarkers(r *Request, params json.RawMessage) (any, error) {
	var in struct {
		inRoom
		ReadMarkers
	}
	if err := matrix.Decode(params, &in); err != nil {
		return nil, err
	}
	ref, err := s.socketRoom(r, in.inRoom)
	if err != nil {
		return nil, err
	}
	return nil, s.SetReadMarkers(r, ref, in.ReadMarkers)
}

// socketTyping is setTyping.
func (s *Server) socketTyping(r *Request, params json.RawMessage) (any, error) {
	var in struct {
		inRoom
		Typing  bool  `json:"typing"`
		Timeout int64 `json:"timeout"` // ms
	}
	if err := matrix.Decode(params, &in); err != nil {
		return nil, err
	}
	ref, err := s.socketRoom(r, in.inRoom)
	if err != nil {
		return nil, err
	}
	return nil, s.Typing(r, ref, in.Typing, in.Timeout)
}

// socketPresence is setPresence.
func (s *Server) socketPresence(r *Request, params json.RawMessage) (any, error) {
	var in presenceBody
	if err := matrix.Decode(params, &in); err != nil {
		return nil, err
	}
	return nil, s.SetPresence(r, in)
}
