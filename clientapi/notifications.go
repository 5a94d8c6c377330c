package clientapi

import (
	"encoding/json"
	"strconv"

	"conclave/internal/matrix"
	"conclave/internal/push"
	"conclave/internal/store"
	"conclave/rooms"
)

var notificationRoutes = []Route{
	op(get, "/notifications", "getNotifications", Token, LimitRead, (*Server).getNotifications),
	op(get, "/pushers", "getPushers", Token, LimitRead, (*Server).getPushers),
	op(post, "/pushers/set", "postPusher", Token, LimitChange, (*Server).postPusher),
}

// notification is an entry of the list of notifications.
type notification struct {
	Actions []any           `json:"actions"`
	Event   json.RawMessage `json:"event"`
	Read    bool            `json:"read"`
	RoomID  matrix.RoomID   `json:"room_id"`
	TS      int64           `json:"ts"` // ms
}

// getNotifications is GET /notifications. Its tokens are places in the stream.
func (s *Server) getNotifications(r *Request) (any, error) {
	limit, err := pageSize(r.QueryParam("limit"))
	if err != nil {
		return nil, err
	}
	before := store.Pos(1) << 62
	if from := r.QueryParam("from"); from == "" {
		bound, err := s.DB.StreamBound(r.Ctx())
		if err != nil {
			return nil, err
		}
		before = bound + 1
	} else {
		n, err := strconv.ParseInt(from, 10, 64)
		if err != nil || n < 1 {
			return nil, matrix.InvalidParam("from is no token of this list.")
		}
		before = min(before, store.Pos(n))
	}
	if only := r.QueryParam("only"); only != "" && only != "highlight" {
		return nil, matrix.InvalidParam("only can be highlight, or be left out.")
	}
	list, next, err := s.Rooms.Noticed(r.Ctx(), r.User(), before, max(1, limit), r.QueryParam("only") == "highlight")
	if err != nil {
		return nil, err
	}
	out := struct {
		Notifications []notification `json:"notifications"`
		Next          string         `json:"next_token,omitempty"`
	}{Notifications: make([]notification, 0, len(list))}
	if next != 0 {
		out.Next = strconv.FormatInt(int64(next), 10)
	}
	for _, n := range list {
		one, err := s.notification(r, n)
		if err != nil {
			return nil, err
		}
		out.Notifications = append(out.Notifications, one)
	}
	return out, nil
}

func (s *Server) notification(r *Request, n rooms.Notice) (out notification, err error) {
	events, err := s.Sync.Timeline(r.Ctx(), r.viewpoint(), n.Ref, []*store.EventRow{n.Row})
	if err != nil {
		return out, err
	}
	return notification{
		Actions: n.Actions.List(), Event: events[0], Read: n.Read, RoomID: n.Ref.ID, TS: n.Row.Event.OriginServerTS(),
	}, nil
}

// pusher is a pusher as its owner sees it.
type pusher struct {
	Key        string          `json:"pushkey"`
	Kind       string          `json:"kind"`
	AppID      string          `json:"app_id"`
	AppName    string          `json:"app_display_name"`
	DeviceName string          `json:"device_display_name"`
	Profile    string          `json:"profile_tag,omitempty"`
	Lang       string          `json:"lang"`
	Data       json.RawMessage `json:"data"`
}

// getPushers is GET /pushers.
func (s *Server) getPushers(r *Request) (any, error) {
	list, err := s.Pushers.Of(r.Ctx(), r.Session.User)
	out := make([]pusher, 0, len(list))
	for _, p := range list {
		out = append(out, pusher{p.Key, p.Kind, p.AppID, p.AppName, p.DeviceName, p.Profile, p.Lang, json.RawMessage(p.Data)})
	}
	return map[string]any{"pushers": out}, err
}

// postPusher is POST /pushers/set.
func (s *Server) postPusher(r *Request) (any, error) {
	var body push.Wanted
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if raw, ok := matrix.Get(r.body, "kind"); !ok || len(raw) == 0 {
		return nil, matrix.MissingParam("There must be a kind; null removes the pusher.")
	}
	return nil, s.Pushers.Set(r.Ctx(), r.Session.User, r.Session.Device, body)
}
