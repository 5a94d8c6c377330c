package sync

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"conclave/internal/matrix"
)

// SlidingRequest is one request of simplified sliding sync (MSC4186).
type SlidingRequest struct {
	Viewpoint
	Pos     *SlidingToken // nil for the first of a connection
	Timeout time.Duration
	Body    *SlidingBody
}

// SlidingToken is where a connection of sliding sync stands: in the stream, and by its state, which has a number. Messages
// is how far messages to the device were given out on it, 0 if none were.
type SlidingToken struct {
	Token
	State int64
}

// String is the form that clients keep.
func (t SlidingToken) String() string { return fmt.Sprintf("p%d_%s", t.State, t.Token) }

// UnknownPos is M_UNKNOWN_POS: the client has to begin anew, without a position (MSC4186, "Connections").
func UnknownPos() *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN_POS", "The position is not known, or not known any more. Start again without one.")
}

// ParseSlidingToken reads a pos. Whatever is not one of this database's is unknown (M_UNKNOWN_POS).
func (e *Engine) ParseSlidingToken(text string) (SlidingToken, error) {
	number, rest, ok := strings.Cut(text, "_")
	number, marked := strings.CutPrefix(number, "p")
	state, err := strconv.ParseInt(number, 10, 64)
	if !ok || !marked || err != nil || state <= 0 {
		return SlidingToken{}, UnknownPos()
	}
	token, err := e.ParseToken(rest)
	if err != nil || token.Pos == 0 {
		return SlidingToken{}, UnknownPos()
	}
	return SlidingToken{token, state}, nil
}

// SlidingResponse is the answer of sliding sync.
type SlidingResponse struct {
	Pos        string                         `json:"pos"`
	Lists      map[string]*slidingCount       `json:"lists,omitempty"`
	Rooms      map[matrix.RoomID]*slidingRoom `json:"rooms,omitempty"`
	Extensions slidingExtensions              `json:"extensions"`
	news       bool
}

// slidingCount says how many rooms there are in a list, and which are in its ranges.
type slidingCount struct {
	Count int         `json:"count"`
	Ops   []slidingOp `json:"ops,omitempty"`
}

// slidingOp is the only operation that is left of the lists of old: these rooms stand in this range.
type slidingOp struct {
	Op    string          `json:"op"`
	Range [2]int          `json:"range"`
	Rooms []matrix.RoomID `json:"room_ids"`
}

// Slide answers sliding sync: at once if there is something to tell, else as soon as there is or when the time is up.
func (e *Engine) Slide(ctx context.Context, q SlidingRequest) (*SlidingResponse, error) {
	if q.Pos != nil {
		known, err := e.knows(ctx, q.Pos.Token)
		if err != nil {
			return nil, err
		}
		if !known {
			return nil, UnknownPos()
		}
	}
	l, err := e.listeners.join(ctx, e, q.User)
	if err != nil {
		return nil, err
	}
	defer e.listeners.leave(l)
	if err := e.reach(ctx, e.db.Written()); err != nil {
		return nil, err
	}
	had := &slidingState{}
	if q.Pos != nil {
		if had, err = e.slidingState(ctx, l, q); err != nil {
			return nil, err
		}
	}
	if err := e.acknowledgeSliding(ctx, l, &q); err != nil {
		return nil, err
	}
	wait := time.NewTimer(min(max(q.Timeout, 0), maxWait))
	defer wait.Stop()
	for {
		awake := l.awake()
		s, err := e.slide(ctx, l, q, had)
		if err != nil {
			return nil, err
		}
		if q.Pos == nil || s.res.news {
			return s.res, s.settle()
		}
		select {
		case <-awake:
		case <-wait.C:
			return s.res, s.settle()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// slide is the work on one answer of sliding sync: an assembly, and what the connection makes of it.
type slide struct {
	*assembly
	body *SlidingBody
	pos  *SlidingToken
	had  *slidingState // what the client knew
	now  *slidingState // what it knows by the answer; the same as had if nothing of it changed
	rank *ranking
	res  *SlidingResponse
	next SlidingToken

	wanted  map[roomNID]*wish // the rooms that the request asks for
	touched touched           // what happened since the client's position
	placed  int               // how many places of lists the answer names
	opened  int               // how many rooms the answer shows for the first time
}

// slide builds the answer to a request as of the tail's present.
func (e *Engine) slide(ctx context.Context, l *listener, q SlidingRequest, had *slidingState) (*slide, error) {
	plain := Request{Viewpoint: q.Viewpoint, Filter: &Filter{}, StateAfter: true}
	if q.Pos != nil {
		plain.Since = &q.Pos.Token
	}
	s := &slide{body: q.Body, pos: q.Pos, had: had, now: had, res: &SlidingResponse{Rooms: map[matrix.RoomID]*slidingRoom{}}}
	for s.rank == nil || s.rank.upTo != s.bound { // somebody of the user's may have asked later and been quicker
		var err error
		if s.assembly, err = e.assembly(ctx, l, plain); err != nil {
			return nil, err
		}
		if s.rank, err = l.ranking(s.assembly); err != nil {
			return nil, err
		}
	}
	s.next.Token = s.assembly.res.next
	if q.Pos != nil {
		s.next.Messages = q.Pos.Messages
	}
	for _, step := range []func() error{s.windows, s.look, s.rooms, s.others, s.extensions} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	s.res.news = s.res.news || len(s.res.Rooms) > 0
	return s, nil
}

// settle makes the answer good: what it changes of the connection's state is stored before the client hears of it.
func (s *slide) settle() error {
	s.next.State = s.had.number
	if s.now != s.had || s.pos == nil {
		number, err := s.e.keepSlidingState(s.ctx, s.l, s.q.Device, s.body.ConnID, s.had.number, s.now)
		if err != nil {
			return err
		}
		s.next.State = number
	}
	s.res.Pos = s.next.String()
	return nil
}

// acknowledgeSliding removes the messages to the device that the client has shown to have: by the extension's own token,
// or else by its position. Where it has none, it is given all.
func (e *Engine) acknowledgeSliding(ctx context.Context, l *listener, q *SlidingRequest) error {
	ext := q.Body.Extensions.ToDevice
	if ext == nil || !ext.Enabled {
		return nil
	}
	if ext.Since != "" {
		token, err := e.ParseToken(ext.Since)
		if err != nil {
			return err
		}
		ext.from = token.messages()
	} else if q.Pos != nil {
		ext.from = q.Pos.Messages
	}
	if ext.from == 0 {
		return nil
	}
	return e.acknowledge(ctx, l, Request{Viewpoint: q.Viewpoint, Since: &Token{Pos: ext.from}})
}

// raw writes a value whose form is certain.
func raw(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return text
}
