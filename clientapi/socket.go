package clientapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	gosync "sync"
	"time"

	"github.com/gorilla/websocket"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
)

// Close codes of the socket beside those of RFC 6455 (docs: contract of the WebSocket).
const (
	closeRevoked = 4001 // the session has ended
	closeTooSlow = 4008 // the client does not read; it may come back with the token it has
)

// Bounds of a socket.
const (
	socketBuffer   = 64 << 10         // bytes that the kernel may hold for a client that does not read
	stallTime      = 15 * time.Second // how long a frame may take before the client counts as not reading
	slowestClient  = 16 << 10         // bytes per second, of a frame beyond that
	farewellTime   = 15 * time.Second // for the frame under way and the last one
	socketProtocol = "m.json"
)

var upgrader = websocket.Upgrader{
	HandshakeTimeout: headerTime,
	ReadBufferSize:   4 << 10,
	WriteBufferSize:  16 << 10,
	WriteBufferPool:  &gosync.Pool{},
	Subprotocols:     []string{socketProtocol},
	// Whoever has a ticket or a token may come from anywhere: neither is sent by a browser of its own accord.
	CheckOrigin: func(*http.Request) bool { return true },
	Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
		http.Error(w, reason.Error(), status)
	},
}

// socket is GET …/im.conclave.ws/sync: responses of /sync as they come, and calls the other way.
func (s *Server) socket(r *Request) (any, error) {
	token, err := s.socketToken(r)
	if err != nil {
		return nil, err
	}
	if err := s.admit(r, token); err != nil {
		return nil, err
	}
	q, err := s.syncRequest(r)
	if err != nil {
		return nil, err
	}
	shown, err := wish(r.QueryParam("set_presence"))
	if err != nil {
		return nil, err
	}
	if !websocket.IsWebSocketUpgrade(r.Request()) {
		return nil, matrix.InvalidParam("This endpoint is a WebSocket.")
	}
	ctx, leave, err := s.hub.wait(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := upgrader.Upgrade(r.Response(), r.Request(), nil)
	if err != nil {
		return Done{}, nil //nolint:nilerr // the upgrader has answered
	}
	defer s.present(r, shown)()
	c := &socketConn{s: s, r: r, conn: conn}
	c.serve(ctx, q)
	return Done{}, nil
}

// socketToken finds the access token of a socket: by its ticket, or in the header that programs can send.
func (s *Server) socketToken(r *Request) (string, error) {
	text := r.QueryParam("ticket")
	if text == "" {
		return credential(r.Request())
	}
	token, ok := s.tickets.take(text)
	if !ok {
		return "", matrix.UnknownToken(false)
	}
	return token, nil
}

// socketConn is one open socket. One goroutine reads calls and answers them in order, another sends responses of sync;
// both write through write.
type socketConn struct {
	s      *Server
	r      *Request
	conn   *websocket.Conn
	cancel context.CancelCauseFunc

	mu      gosync.Mutex // of writes
	failure error        // the first write that failed; nothing follows it
}

// errTooSlow ends a socket whose client does not read.
var errTooSlow = errors.New("the client does not read")

// serve runs the socket until either side has had enough.
func (c *socketConn) serve(ctx context.Context, q sync.Request) {
	defer c.conn.Close() //nolint:errcheck // there is nothing left to save
	if tcp, ok := c.conn.NetConn().(interface{ SetWriteBuffer(int) error }); ok {
		_ = tcp.SetWriteBuffer(socketBuffer) // a larger one only means that a stalled client is noticed later
	}
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.cancel(c.read(ctx))
	}()
	go c.beat(ctx)
	err := c.s.Sync.Follow(ctx, q, func(answer *sync.Response) error {
		raw, err := answer.AppendJSON(nil)
		if err != nil {
			return err
		}
		return c.write(websocket.TextMessage, raw)
	})
	c.cancel(err)
	c.farewell(context.Cause(ctx))
	_ = c.conn.Close() // ends the reader
	<-done
}

// write sends one frame. A client that does not take it within its time counts as not reading: nothing follows but the
// farewell, for which the frame that has begun gets some time more, since nothing can be said in the middle of it.
func (c *socketConn) write(kind int, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return c.failure
	}
	patience := stallTime + time.Duration(len(data)/slowestClient)*time.Second
	stalled := time.AfterFunc(patience, func() {
		c.s.Log.Info("the client of a socket does not read")
		c.cancel(errTooSlow)
	})
	defer stalled.Stop()
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience + farewellTime)); err != nil {
		c.failure = err
		return err
	}
	if err := c.conn.WriteMessage(kind, data); err != nil {
		c.failure = err
		var timeout interface{ Timeout() bool }
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.failure = errTooSlow
		}
	}
	return c.failure
}

// beat asks a silent client for a sign of life.
func (c *socketConn) beat(ctx context.Context) {
	ticker := time.NewTicker(sync.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(stallTime)) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// farewell says why the socket closes.
func (c *socketConn) farewell(cause error) {
	code, text := websocket.CloseNormalClosure, ""
	switch {
	case errors.Is(cause, errDraining):
		code, text = websocket.CloseServiceRestart, "the server restarts"
	case errors.Is(cause, errSessionEnded):
		code, text = closeRevoked, "the session has ended"
	case errors.Is(cause, errTooSlow):
		code, text = closeTooSlow, "come back with since"
	case errors.Is(cause, errBadFrame):
		code, text = websocket.CloseInvalidFramePayloadData, "not a frame of m.json"
	case cause != nil && !errors.Is(cause, context.Canceled) && !isClose(cause):
		c.s.Log.Error("a socket failed", "err", cause)
		code, text = websocket.CloseInternalServerErr, "something went wrong on the server"
	}
	_ = c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(farewellTime))
}

// isClose says whether a socket ended because its client or the network did.
func isClose(err error) bool {
	var closed *websocket.CloseError
	var network interface{ Timeout() bool }
	return errors.As(err, &closed) || errors.As(err, &network) || errors.Is(err, errGone)
}

// errGone stands for a connection that broke without a word.
var errGone = errors.New("the client is gone")

// errBadFrame ends a socket whose client does not speak the protocol.
var errBadFrame = errors.New("a frame that is no call")

// call is a frame of the client.
type call struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// read takes calls and answers them, one after the other, until the connection ends.
func (c *socketConn) read(ctx context.Context) error {
	c.conn.SetReadLimit(maxClientJSON)
	alive := func(string) error { return c.conn.SetReadDeadline(time.Now().Add(3 * sync.Heartbeat)) }
	c.conn.SetPongHandler(alive)
	for {
		if err := alive(""); err != nil {
			return errGone
		}
		kind, data, err := c.conn.ReadMessage()
		if err != nil {
			if isClose(err) {
				return err
			}
			return errGone
		}
		var in call
		if kind != websocket.TextMessage || matrix.Decode(data, &in) != nil || !validID(in.ID) {
			return errBadFrame
		}
		raw, err := c.answer(ctx, in)
		if err != nil {
			return err
		}
		if err := c.write(websocket.TextMessage, raw); err != nil {
			return err
		}
	}
}

// validID says whether a call's id is a short string or number, which the answer repeats.
func validID(id json.RawMessage) bool {
	return len(id) > 0 && len(id) <= 128 && id[0] != '{' && id[0] != '[' && id[0] != 'n' && id[0] != 't' && id[0] != 'f'
}

// answer runs a call. Its error ends the socket; what only the call did wrong is in the answer.
func (c *socketConn) answer(ctx context.Context, in call) ([]byte, error) {
	session, err := c.s.Accounts.Again(ctx, c.r.Session)
	if err == nil && session.MustEnrol {
		err = errEnrolFirst()
	}
	if err != nil {
		return nil, ended{err}
	}
	r := *c.r // what the session may do can have changed since the socket was opened
	r.Session = session
	result, err := c.s.socketCall(&r, in)
	out := struct {
		ID     json.RawMessage `json:"id"`
		Result any             `json:"result,omitempty"`
		Error  *matrix.Error   `json:"error,omitempty"`
	}{ID: in.ID, Result: result}
	switch {
	case err != nil:
		out.Result, out.Error = nil, c.s.known(c.r.Context, "im.conclave.ws."+in.Method, err)
	case result == nil:
		out.Result = json.RawMessage(empty)
	}
	return json.Marshal(out)
}

// socketCall runs one method with the budget of the endpoint that it stands for.
func (s *Server) socketCall(r *Request, in call) (any, error) {
	method, ok := socketMethods[in.Method]
	if !ok {
		return nil, matrix.Unrecognized("There is no method %.32q.", in.Method)
	}
	if r.Session.Suspended && !suspendedMay(method.operation, put) {
		return nil, matrix.UserSuspended()
	}
	if err := s.spend(r.Ctx(), method.limit, string(r.Session.UserID)); err != nil {
		return nil, err
	}
	leave, err := s.turns.take(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(in.Params) == 0 {
		in.Params = json.RawMessage(empty)
	}
	result, err := method.run(s, r, in.Params)
	if err == nil {
		s.active(r, method.limit)
	}
	return result, err
}
