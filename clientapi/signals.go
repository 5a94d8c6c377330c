package clientapi

import (
	"errors"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var signalRoutes = []Route{
	op(post, "/rooms/:roomId/receipt/:receiptType/:eventId", "postReceipt", Token, LimitSend, (*Server).postReceipt),
	op(post, "/rooms/:roomId/read_markers", "setReadMarker", Token, LimitSend, (*Server).setReadMarker),
	op(put, "/rooms/:roomId/typing/:userId", "setTyping", Token, LimitSend, (*Server).setTyping),
}

// wake tells this node's readers, and other nodes', that something was committed that is not an event.
func (s *Server) wake() { s.Bus.Publish(cluster.Stream, 0) }

// postReceipt is POST /rooms/{roomId}/receipt/{receiptType}/{eventId}.
func (s *Server) postReceipt(r *Request) (any, error) {
	var body struct {
		Thread *string `json:"thread_id"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	thread, err := threadOf(body.Thread)
	if err != nil {
		return nil, err
	}
	return nil, s.Receipt(r, ref, r.Param("receiptType"), r.Param("eventId"), thread)
}

// threadOf checks the thread of a receipt; absent is none.
func threadOf(id *string) (string, error) {
	switch {
	case id == nil:
		return "", nil
	case *id == "" || len(*id) > 255:
		return "", matrix.InvalidParam("thread_id is \"main\" or the ID of a thread's root.")
	}
	return *id, nil
}

// Receipt stores a receipt for a request or a socket's frame.
func (s *Server) Receipt(r *Request, ref rooms.Ref, kind, event, thread string) error {
	if kind == "m.fully_read" {
		if thread != "" {
			return matrix.InvalidParam("The read marker has no threads.")
		}
		return s.readMarker(r, ref, event)
	}
	id, err := matrix.ParseEventID(event)
	if err != nil {
		return matrix.InvalidParam("%.64q is not an event ID.", event).With(err)
	}
	err = s.Rooms.Receipt(r.Ctx(), ref, r.User(), kind, id, thread)
	if err == nil {
		s.wake()
	}
	return err
}

// setReadMarker is POST /rooms/{roomId}/read_markers.
func (s *Server) setReadMarker(r *Request) (any, error) {
	var body ReadMarkers
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	return nil, s.SetReadMarkers(r, ref, body)
}

// ReadMarkers is the body of read_markers.
type ReadMarkers struct {
	FullyRead string `json:"m.fully_read"`
	Read      string `json:"m.read"`
	Private   string `json:"m.read.private"`
}

// SetReadMarkers moves the markers that are given, for a request or a socket's frame.
func (s *Server) SetReadMarkers(r *Request, ref rooms.Ref, m ReadMarkers) error {
	var errs error
	if m.FullyRead != "" {
		errs = errors.Join(errs, s.readMarker(r, ref, m.FullyRead))
	}
	if m.Read != "" {
		errs = errors.Join(errs, s.Receipt(r, ref, "m.read", m.Read, ""))
	}
	if m.Private != "" {
		errs = errors.Join(errs, s.Receipt(r, ref, "m.read.private", m.Private, ""))
	}
	return errs
}

// readMarker sets m.fully_read, which is the user's own data of the room.
func (s *Server) readMarker(r *Request, ref rooms.Ref, event string) error {
	if err := s.Rooms.RequireJoined(r.Ctx(), ref.NID, r.Session.User); err != nil {
		return err
	}
	id, err := matrix.ParseEventID(event)
	if err != nil {
		return matrix.InvalidParam("%.64q is not an event ID.", event).With(err)
	}
	content, err := matrix.Encode(map[string]any{"event_id": id})
	if err != nil {
		return err
	}
	return s.DB.Write(r.Ctx(), func(tx *store.Tx) error {
		if err := tx.StillOpen(r.Session.User); err != nil {
			return err
		}
		tx.AfterCommit(s.wake)
		return tx.PutAccountData(r.Session.User, ref.NID, "m.fully_read", string(content))
	})
}

// setTyping is PUT /rooms/{roomId}/typing/{userId}.
func (s *Server) setTyping(r *Request) (any, error) {
	var body struct {
		Typing  bool  `json:"typing"`
		Timeout int64 `json:"timeout"` // ms
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := r.ownPath(); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	return nil, s.Typing(r, ref, body.Typing, body.Timeout)
}

// defaultTyping is how long typing lasts where the client does not say.
const defaultTyping = 30 * time.Second

// Typing notes that the caller types or has stopped, for a request or a socket's frame.
func (s *Server) Typing(r *Request, ref rooms.Ref, typing bool, timeoutMS int64) error {
	if err := s.Rooms.RequireJoined(r.Ctx(), ref.NID, r.Session.User); err != nil {
		return err
	}
	lasts := time.Duration(0)
	if typing {
		if lasts = defaultTyping; timeoutMS > 0 && timeoutMS < 120_000 {
			lasts = time.Duration(timeoutMS) * time.Millisecond
		}
	}
	changed := s.Sync.SetTyping(ref.NID, r.Session.UserID, lasts)
	if changed && s.Signals != nil {
		s.Signals.Typing(ref, r.Session.UserID, typing)
	}
	return nil
}
