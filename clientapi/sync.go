package clientapi

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
)

var syncRoutes = []Route{
	op(get, "/sync", "sync", Token, LimitRead, (*Server).sync),
	{Method: post, Path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", OperationID: "org.matrix.simplified_msc3575.sync", Auth: Token, Limit: LimitRead, Handler: (*Server).slidingSync},
	{Method: post, Path: "/_matrix/client/unstable/im.conclave.ws/ticket", OperationID: "im.conclave.ws.ticket", Auth: Token, Limit: LimitRead, Handler: (*Server).socketTicket},
	{Method: get, Path: "/_matrix/client/unstable/im.conclave.ws/sync", OperationID: "im.conclave.ws.sync", Auth: Ticket, Limit: LimitRead, Handler: (*Server).socket},
}

// sync is GET /sync. It waits as long as the client allows; the end of its session, or of the server, ends the wait.
func (s *Server) sync(r *Request) (any, error) {
	q, err := s.syncRequest(r)
	if err != nil {
		return nil, err
	}
	if q.Timeout, err = milliseconds(r.QueryParam("timeout")); err != nil {
		return nil, err
	}
	shown, err := wish(r.QueryParam("set_presence"))
	if err != nil {
		return nil, err
	}
	ctx, leave, err := s.hub.wait(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer s.present(r, shown)()
	answer, err := s.Sync.Sync(ctx, q)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return answer, nil
	case errors.Is(cause, errDraining) && q.Since != nil:
		// The client is told that nothing happened and comes back, to this node's successor.
		return map[string]string{"next_batch": r.QueryParam("since")}, nil
	case errors.Is(cause, errSessionEnded):
		return nil, cause
	}
	return nil, err
}

// syncRequest reads what /sync and the socket are asked in their query.
func (s *Server) syncRequest(r *Request) (q sync.Request, err error) {
	q.Viewpoint = sync.Viewpoint{User: r.User(), Device: r.Session.Device, DeviceID: r.Session.DeviceID}
	if since := r.QueryParam("since"); since != "" {
		token, err := s.Sync.ParseToken(since)
		if err != nil {
			return q, err
		}
		q.Since = &token
	}
	if q.FullState, err = flag(r.QueryParam("full_state")); err != nil {
		return q, err
	}
	if q.StateAfter, err = flag(r.QueryParam("use_state_after")); err != nil {
		return q, err
	}
	if !q.StateAfter {
		if q.OldStateAfter, err = flag(r.QueryParam("org.matrix.msc4222.use_state_after")); err != nil {
			return q, err
		}
	}
	switch text := r.QueryParam("filter"); {
	case text == "":
	case strings.HasPrefix(text, "{"):
		q.Filter, err = sync.ParseFilter([]byte(text))
	default:
		var stored string
		if stored, err = s.storedFilter(r, text); err == nil {
			q.Filter, err = sync.ParseFilter([]byte(stored))
		}
	}
	return q, err
}

// flag reads a boolean of the query; absent is false.
func flag(text string) (bool, error) {
	switch text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, matrix.InvalidParam("%.32q is neither true nor false.", text)
}

// milliseconds reads a duration of the query; absent is none.
func milliseconds(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return 0, matrix.InvalidParam("%.32q is not a number of milliseconds.", text)
	}
	return time.Duration(min(ms, int64(time.Hour/time.Millisecond))) * time.Millisecond, nil
}
