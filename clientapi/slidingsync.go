package clientapi

import (
	"context"
	"errors"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
)

// slidingSync is simplified sliding sync (MSC4186) at the place where clients look for it until it is stable. It waits as
// /sync does.
func (s *Server) slidingSync(r *Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	q := sync.SlidingRequest{Viewpoint: sync.Viewpoint{User: r.User(), Device: r.Session.Device, DeviceID: r.Session.DeviceID}}
	if q.Body, err = sync.ParseSlidingBody(body, r.Session.UserID); err != nil {
		return nil, err
	}
	if q.Timeout, err = milliseconds(r.QueryParam("timeout")); err != nil {
		return nil, err
	}
	shown, err := wish(r.QueryParam("set_presence"))
	if err != nil {
		return nil, err
	}
	pos := r.QueryParam("pos")
	if pos != "" {
		token, err := s.Sync.ParseSlidingToken(pos)
		if err != nil {
			return nil, err
		}
		q.Pos = &token
	}
	ctx, leave, err := s.hub.wait(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer s.present(r, shown)()
	answer, err := s.Sync.Slide(ctx, q)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return answer, nil
	case errors.Is(cause, errDraining) && q.Pos != nil:
		return map[string]string{"pos": pos}, nil // nothing happened; the client comes back to this node's successor
	case errors.Is(cause, errSessionEnded) || errors.Is(err, sync.ErrGone):
		return nil, matrix.UnknownToken(false)
	}
	return nil, err
}
