package clientapi

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/rooms"
)

var sendRoutes = []Route{
	op(put, "/rooms/:roomId/send/:eventType/:txnId", "sendMessage", Token, LimitSend, (*Server).sendMessage),
	op(put, "/rooms/:roomId/state/:eventType/:stateKey", "setRoomStateWithKey", Token, LimitChange, (*Server).setRoomStateWithKey),
	op(put, "/rooms/:roomId/state/:eventType", "setRoomStateWithKey", Token, LimitChange, (*Server).setRoomStateWithKey),
	op(put, "/rooms/:roomId/state/:eventType/", "setRoomStateWithKey", Token, LimitChange, (*Server).setRoomStateWithKey),
	op(put, "/rooms/:roomId/redact/:eventId/:txnId", "redactEvent", Token, LimitSend, (*Server).redactEvent),
}

// sendMessage is PUT /rooms/{roomId}/send/{eventType}/{txnId}.
func (s *Server) sendMessage(r *Request) (any, error) {
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	id, err := s.Send(r, ref, r.Param("eventType"), r.Param("txnId"), content)
	return eventAnswer(id), err
}

// Send sends a message event for a request or a socket's frame: both roads share their transaction IDs.
func (s *Server) Send(r *Request, ref rooms.Ref, typ, txnID string, content []byte) (matrix.EventID, error) {
	if err := checkName(typ, "event type"); err != nil {
		return "", err
	}
	if err := checkName(txnID, "transaction ID"); err != nil {
		return "", err
	}
	q := rooms.SendRequest{
		Room: ref, Sender: r.User(), Type: typ, Content: content,
		Txn: rooms.TxnKey(r.Session.Device, "send", ref.ID, typ, txnID), TxnID: txnID,
	}
	if r.Session.Suspended && typ != "m.room.redaction" {
		return "", matrix.UserSuspended()
	}
	var err error
	if q.TS, err = r.massaged(); err != nil {
		return "", err
	}
	switch typ {
	case "m.room.message":
		if err := checkMessage(content); err != nil {
			return "", err
		}
	case "m.room.redaction":
		if err := moveRedacts(&q); err != nil {
			return "", err
		}
		if err := s.mayRedact(r, ref, q.Redacts); err != nil {
			return "", err
		}
	}
	return s.Rooms.Send(r.Ctx(), q)
}

// checkMessage refuses (M_BAD_JSON) a message that no client could show (client-server API, "Instant Messaging").
func checkMessage(content []byte) error {
	for _, member := range []string{"msgtype", "body"} {
		if _, ok := matrix.GetString(content, member); !ok {
			return matrix.BadJSON("A message has a msgtype and a body, which are texts.")
		}
	}
	return nil
}

// moveRedacts puts what a redaction redacts where the room's version has it: before version 11 that is not in the content.
func moveRedacts(q *rooms.SendRequest) error {
	target, ok := matrix.GetString(q.Content, "redacts")
	if !ok {
		return matrix.MissingParam("A redaction names the event that it redacts.")
	}
	if len(target) > 255 || !matrix.IsText(target) {
		return matrix.InvalidParam("%.64q is not an event ID.", target)
	}
	q.Redacts = matrix.EventID(target)
	if q.Room.Version.RedactsInContent() {
		return nil
	}
	var rest map[string]json.RawMessage
	if err := json.Unmarshal(q.Content, &rest); err != nil {
		return matrix.BadJSON("The content of a redaction is an object.").With(err)
	}
	delete(rest, "redacts")
	content, err := json.Marshal(rest)
	q.Content = content
	return err
}

// setRoomStateWithKey is PUT /rooms/{roomId}/state/{eventType}/{stateKey}.
func (s *Server) setRoomStateWithKey(r *Request) (any, error) {
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	typ, key := r.Param("eventType"), r.Param("stateKey")
	if err := checkName(typ, "event type"); err != nil {
		return nil, err
	}
	if typ == "m.room.member" && key == string(r.Session.UserID) {
		if membership, _ := matrix.GetString(content, "membership"); membership == "leave" {
			if err := s.mayReject(r, ref); err != nil {
				return nil, err
			}
		}
	}
	ts, err := r.massaged()
	if err != nil {
		return nil, err
	}
	id, err := s.Rooms.Send(r.Ctx(), rooms.SendRequest{
		Room: ref, Sender: r.User(), Type: typ, StateKey: &key, Content: content, TS: ts,
		Resolve: func(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, error) {
			id, _, err := s.resolveAlias(ctx, alias)
			return id, err
		},
	})
	return eventAnswer(id), err
}

// redactEvent is PUT /rooms/{roomId}/redact/{eventId}/{txnId}.
func (s *Server) redactEvent(r *Request) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	target, err := matrix.ParseEventID(r.Param("eventId"))
	if err != nil {
		return nil, matrix.InvalidParam("%q is not an event ID.", r.Param("eventId"))
	}
	if err := s.mayRedact(r, ref, target); err != nil {
		return nil, err
	}
	content := map[string]string{}
	if body.Reason != "" {
		content["reason"] = body.Reason
	}
	if ref.Version.RedactsInContent() {
		content["redacts"] = string(target)
	}
	raw, err := matrix.Encode(content)
	if err != nil {
		return nil, err
	}
	id, err := s.Rooms.Send(r.Ctx(), rooms.SendRequest{
		Room: ref, Sender: r.User(), Type: "m.room.redaction", Content: raw, Redacts: target,
		Txn: rooms.TxnKey(r.Session.Device, "redact", ref.ID, string(target), r.Param("txnId")), TxnID: r.Param("txnId"),
	})
	return eventAnswer(id), err
}

// eventAnswer is {"event_id": …}, made without a detour: it is the answer of the hottest path.
func eventAnswer(id matrix.EventID) Raw {
	quoted, err := json.Marshal(string(id))
	if err != nil {
		return empty
	}
	return append(append([]byte(`{"event_id":`), quoted...), '}')
}

// checkName bounds the names that come in paths (threats.md section 1).
func checkName(name, what string) error {
	if name == "" || len(name) > 255 || !matrix.IsText(name) {
		return matrix.InvalidParam("The %s has to have 1 to 255 bytes, and no NUL among them.", what)
	}
	return nil
}
