package clientapi

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/keys"
)

// backupRoutes are server-side key backups (client-server API, "Server-side key backups").
var backupRoutes = []Route{
	op(post, "/room_keys/version", "postRoomKeysVersion", Token, LimitChange, (*Server).postRoomKeysVersion),
	op(get, "/room_keys/version", "getRoomKeysVersionCurrent", Token, LimitRead, (*Server).getRoomKeysVersion),
	op(get, "/room_keys/version/:version", "getRoomKeysVersion", Token, LimitRead, (*Server).getRoomKeysVersion),
	op(put, "/room_keys/version/:version", "putRoomKeysVersion", Token, LimitChange, (*Server).putRoomKeysVersion),
	op(del, "/room_keys/version/:version", "deleteRoomKeysVersion", Token, LimitChange, (*Server).deleteRoomKeysVersion),
	op(put, "/room_keys/keys/:roomId/:sessionId", "putRoomKeyBySessionId", Token, LimitSend, (*Server).putRoomKeyBySessionID),
	op(get, "/room_keys/keys/:roomId/:sessionId", "getRoomKeyBySessionId", Token, LimitRead, (*Server).getRoomKeyBySessionID),
	op(del, "/room_keys/keys/:roomId/:sessionId", "deleteRoomKeyBySessionId", Token, LimitSend, (*Server).deleteRoomKeys),
	large(op(put, "/room_keys/keys/:roomId", "putRoomKeysByRoomId", Token, LimitSend, (*Server).putRoomKeysByRoomID)),
	op(get, "/room_keys/keys/:roomId", "getRoomKeysByRoomId", Token, LimitRead, (*Server).getRoomKeysByRoomID),
	op(del, "/room_keys/keys/:roomId", "deleteRoomKeysByRoomId", Token, LimitChange, (*Server).deleteRoomKeys),
	large(op(put, "/room_keys/keys", "putRoomKeys", Token, LimitSend, (*Server).putRoomKeys)),
	op(get, "/room_keys/keys", "getRoomKeys", Token, LimitRead, (*Server).getRoomKeys),
	op(del, "/room_keys/keys", "deleteRoomKeys", Token, LimitChange, (*Server).deleteRoomKeys),
}

// maxBackupJSON bounds an upload of sessions, in bytes: some eight thousand of the usual size.
const maxBackupJSON = 8 << 20

// large lets a route take a body of many sessions.
func large(r Route) Route {
	r.Body = maxBackupJSON
	return r
}

// backupVersion is the version that a request for sessions names.
func (r *Request) backupVersion() (string, error) {
	version := r.QueryParam("version")
	if version == "" {
		return "", matrix.MissingParam("version says which key backup is meant.")
	}
	return version, nil
}

// sessions are the room and the session that a path names, "" where the route has none. An empty name must not be taken
// for none: it would mean all.
func (r *Request) sessions() (room, session string, err error) {
	room, session = r.Param("roomId"), r.Param("sessionId")
	names := r.ParamNames()
	if room == "" && slices.Contains(names, "roomId") || session == "" && slices.Contains(names, "sessionId") {
		return "", "", matrix.InvalidParam("The path names no room or session.")
	}
	return room, session, nil
}

// uploads bounds the uploads that are larger than other requests may be: each takes some times its size in memory. A user
// has one at a time.
type uploads struct {
	mu  sync.Mutex
	who map[store.UserNID]bool
}

// maxUploads is how many large uploads are taken at a time, and uploadTime how long one may take to arrive.
const (
	maxUploads = 4
	uploadTime = time.Minute
)

// enter lets a request with a large body in, or tells it to come again (M_LIMIT_EXCEEDED). Call leave when it is done.
func (u *uploads) enter(r *Request) (leave func(), err error) {
	if n := r.Request().ContentLength; n >= 0 && n <= maxClientJSON {
		return func() {}, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	user := r.Session.User
	if u.who[user] || len(u.who) >= maxUploads {
		return nil, matrix.LimitExceeded(1000)
	}
	if u.who == nil {
		u.who = map[store.UserNID]bool{}
	}
	u.who[user] = true
	_ = http.NewResponseController(r.Response()).SetReadDeadline(time.Now().Add(uploadTime))
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.who, user)
	}, nil
}

// postRoomKeysVersion is POST /room_keys/version.
func (s *Server) postRoomKeysVersion(r *Request) (any, error) {
	var body keys.BackupVersion
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	version, err := s.Keys.CreateBackup(r.Ctx(), r.owner(), body)
	if err != nil {
		return nil, err
	}
	return map[string]string{"version": version}, nil
}

// getRoomKeysVersion is GET /room_keys/version, for the newest version, and GET /room_keys/version/{version}.
func (s *Server) getRoomKeysVersion(r *Request) (any, error) {
	return orError(s.Keys.Backup(r.Ctx(), r.owner(), r.Param("version")))
}

// putRoomKeysVersion is PUT /room_keys/version/{version}.
func (s *Server) putRoomKeysVersion(r *Request) (any, error) {
	var body keys.BackupVersion
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return nil, s.Keys.UpdateBackup(r.Ctx(), r.owner(), r.Param("version"), body)
}

// deleteRoomKeysVersion is DELETE /room_keys/version/{version}.
func (s *Server) deleteRoomKeysVersion(r *Request) (any, error) {
	return nil, s.Keys.DeleteBackup(r.Ctx(), r.owner(), r.Param("version"))
}

// backUp stores sessions.
func (s *Server) backUp(r *Request, rooms map[string]keys.RoomSessions) (any, error) {
	version, err := r.backupVersion()
	if err != nil {
		return nil, err
	}
	return orError(s.Keys.BackUp(r.Ctx(), r.owner(), version, rooms))
}

// putRoomKeyBySessionID is PUT /room_keys/keys/{roomId}/{sessionId}.
func (s *Server) putRoomKeyBySessionID(r *Request) (any, error) {
	var body keys.BackedUp
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	one := map[string]keys.BackedUp{r.Param("sessionId"): body}
	return s.backUp(r, map[string]keys.RoomSessions{r.Param("roomId"): {Sessions: one}})
}

// putRoomKeysByRoomID is PUT /room_keys/keys/{roomId}.
func (s *Server) putRoomKeysByRoomID(r *Request) (any, error) {
	leave, err := s.uploads.enter(r)
	if err != nil {
		return nil, err
	}
	defer leave()
	var body keys.RoomSessions
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return s.backUp(r, map[string]keys.RoomSessions{r.Param("roomId"): body})
}

// putRoomKeys is PUT /room_keys/keys.
func (s *Server) putRoomKeys(r *Request) (any, error) {
	leave, err := s.uploads.enter(r)
	if err != nil {
		return nil, err
	}
	defer leave()
	var body struct {
		Rooms map[string]keys.RoomSessions `json:"rooms"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Rooms == nil {
		return nil, matrix.BadJSON("The member rooms is missing.")
	}
	return s.backUp(r, body.Rooms)
}

// deleteRoomKeys is DELETE /room_keys/keys, …/{roomId} and …/{roomId}/{sessionId}.
func (s *Server) deleteRoomKeys(r *Request) (any, error) {
	version, err := r.backupVersion()
	if err != nil {
		return nil, err
	}
	room, session, err := r.sessions()
	if err != nil {
		return nil, err
	}
	return orError(s.Keys.DropBackedUp(r.Ctx(), r.owner(), version, room, session))
}

// getRoomKeyBySessionID is GET /room_keys/keys/{roomId}/{sessionId}.
func (s *Server) getRoomKeyBySessionID(r *Request) (any, error) {
	version, err := r.backupVersion()
	if err != nil {
		return nil, err
	}
	room, session, err := r.sessions()
	if err != nil {
		return nil, err
	}
	var found Raw
	err = s.Keys.BackedUpSessions(r.Ctx(), r.owner(), version, room, session, func(page []keys.Session) error {
		found = appendSession(nil, &page[0])
		return nil
	})
	if err == nil && found == nil {
		err = matrix.NotFound("The key backup has no key for this session.")
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// getRoomKeysByRoomID is GET /room_keys/keys/{roomId}.
func (s *Server) getRoomKeysByRoomID(r *Request) (any, error) {
	return s.sendSessions(r, &sessionWriter{}, `{"sessions":{`, `}}`)
}

// getRoomKeys is GET /room_keys/keys.
func (s *Server) getRoomKeys(r *Request) (any, error) {
	return s.sendSessions(r, &sessionWriter{byRoom: true}, `{"rooms":{`, `}}`)
}

// backupPatience is how long a client may take to read one page of its backup.
const backupPatience = 30 * time.Second

// sendSessions answers with the sessions of a backup. They are written as they are read, since there may be hundreds of
// thousands. What goes wrong on the way breaks the answer off: a client must not take a part of its keys for all of them.
func (s *Server) sendSessions(r *Request, w *sessionWriter, head, tail string) (any, error) {
	version, err := r.backupVersion()
	if err != nil {
		return nil, err
	}
	room, _, err := r.sessions()
	if err != nil {
		return nil, err
	}
	w.to, w.text = r, append(w.text, head...)
	err = s.Keys.BackedUpSessions(r.Ctx(), r.owner(), version, room, "", func(page []keys.Session) error {
		for i := range page {
			w.add(&page[i])
		}
		return w.send()
	})
	if err == nil {
		w.end()
		w.text = append(w.text, tail...)
		err = w.send()
	}
	if err != nil && w.begun {
		s.Log.Info("a key backup was not sent whole", "err", err)
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		return nil, err
	}
	return Done{}, nil
}

// sessionWriter writes sessions that come in the order of rooms.
type sessionWriter struct {
	to     *Request
	begun  bool // something was sent
	text   []byte
	byRoom bool   // each room is an object of its own
	room   string // whose object is open
	some   bool   // the open object has a member
}

// send sends what was written.
func (w *sessionWriter) send() error {
	out := w.to.Response()
	if !w.begun {
		w.begun = true
		out.Header().Set("Content-Type", "application/json")
		out.Header().Set("Cache-Control", "no-store")
		out.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(out).SetWriteDeadline(time.Now().Add(backupPatience))
	_, err := out.Write(w.text)
	w.text = w.text[:0]
	return err
}

func (w *sessionWriter) add(s *keys.Session) {
	if w.byRoom && w.room != s.Room {
		if w.room != "" {
			w.text = append(w.text, `}},`...)
		}
		w.text = append(matrix.AppendString(w.text, s.Room), `:{"sessions":{`...)
		w.room, w.some = s.Room, false
	}
	if w.some {
		w.text = append(w.text, ',')
	}
	w.some = true
	w.text = append(matrix.AppendString(w.text, s.ID), ':')
	w.text = appendSession(w.text, s)
}

// end closes the room that is open.
func (w *sessionWriter) end() {
	if w.room != "" {
		w.text = append(w.text, `}}`...)
	}
}

// appendSession appends a session as KeyBackupData.
func appendSession(text []byte, s *keys.Session) []byte {
	text = strconv.AppendInt(append(text, `{"first_message_index":`...), s.FirstIndex, 10)
	text = strconv.AppendInt(append(text, `,"forwarded_count":`...), s.Forwarded, 10)
	text = strconv.AppendBool(append(text, `,"is_verified":`...), s.Verified)
	return append(append(append(text, `,"session_data":`...), s.Data...), '}')
}
