package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/netguard"
	"conclave/internal/store"
)

// Bounds of a call of a gateway.
const (
	gatewayTime   = 20 * time.Second
	maxAnswer     = 64 << 10
	perGateway    = 8
	maxPushedText = 1024 // bytes of names that are shown
)

// NewClient is the HTTP client that gateways are called with.
func NewClient(d *netguard.Dialer) *http.Client {
	return d.HTTPClient(netguard.HTTPOptions{Total: gatewayTime, Idle: gatewayTime / 2, PerHost: perGateway})
}

// statusError is a gateway's answer that it did not take a notification.
type statusError int

// Error implements error.
func (e statusError) Error() string {
	return fmt.Sprintf("the gateway answered with status %d", int(e))
}

// blamesContent reports whether the answer can mean that the gateway will never take this very notification.
func blamesContent(err error) bool {
	var status statusError
	return errors.As(err, &status) && slices.Contains([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity}, int(status))
}

// body is what a gateway is told (push gateway API, POST /_matrix/push/v1/notify).
type body struct {
	Notification notification `json:"notification"`
}

type notification struct {
	EventID    matrix.EventID  `json:"event_id,omitempty"`
	RoomID     matrix.RoomID   `json:"room_id,omitempty"`
	Type       string          `json:"type,omitempty"`
	Sender     matrix.UserID   `json:"sender,omitempty"`
	SenderName string          `json:"sender_display_name,omitempty"`
	RoomName   string          `json:"room_name,omitempty"`
	RoomAlias  string          `json:"room_alias,omitempty"`
	IsTarget   bool            `json:"user_is_target,omitempty"`
	Prio       string          `json:"prio,omitempty"`
	Content    json.RawMessage `json:"content,omitempty"`
	Counts     counts          `json:"counts"`
	Devices    []device        `json:"devices"`
}

type counts struct {
	Unread int64 `json:"unread,omitempty"`
}

type device struct {
	AppID  string                     `json:"app_id"`
	Key    string                     `json:"pushkey"`
	Since  int64                      `json:"pushkey_ts"` // seconds
	Data   map[string]json.RawMessage `json:"data"`
	Tweaks map[string]any             `json:"tweaks,omitempty"`
}

// bodyOf describes a notice, or without one how much is unread, to the gateway of a pusher.
func bodyOf(p *store.Pusher, n *Notice, unread int64) (target string, out body, err error) {
	d := device{AppID: p.AppID, Key: p.Key, Since: p.Created / 1000}
	if err := json.Unmarshal([]byte(p.Data), &d.Data); err != nil {
		return "", out, errors.New("the data of the pusher cannot be read")
	}
	if err := json.Unmarshal(d.Data["url"], &target); err != nil {
		return "", out, errors.New("the pusher names no gateway")
	}
	brief := string(d.Data["format"]) == `"event_id_only"`
	delete(d.Data, "url")
	out.Notification.Counts.Unread = unread
	if n != nil {
		d.Tweaks = tweaks(n.Actions)
		ev := n.Event
		out.Notification.EventID, out.Notification.RoomID = ev.ID(), n.Room
		out.Notification.Prio = priority(n)
		if !brief {
			out.Notification.Type, out.Notification.Sender = ev.Type(), ev.Sender()
			out.Notification.SenderName, out.Notification.RoomName, out.Notification.RoomAlias = short(n.SenderName), short(n.RoomName), short(n.RoomAlias)
			out.Notification.IsTarget = ev.Type() == "m.room.member" && ev.StateKeyEquals(string(p.UserID))
			if ev.Type() != "m.room.encrypted" { // what is in it is of no use to a gateway, and large
				out.Notification.Content = ev.Content()
			}
		}
	}
	out.Notification.Devices = []device{d}
	return target, out, nil
}

func short(text string) string {
	if len(text) > maxPushedText {
		return strings.ToValidUTF8(text[:maxPushedText], "")
	}
	return text
}

// tweaks are the tweaks of a rule's actions as a dictionary.
func tweaks(a pushrules.Actions) map[string]any {
	out := map[string]any{}
	for _, t := range a.Tweaks {
		switch {
		case t.Value != nil:
			out[t.Name] = t.Value
		case t.Name == "highlight":
			out[t.Name] = true
		}
	}
	return out
}

// priority is low for what neither makes a sound nor highlights. Of encrypted events that is not known.
func priority(n *Notice) string {
	if n.Actions.Highlight || n.Actions.Sound() != "" || n.Event.Type() == "m.room.encrypted" {
		return "high"
	}
	return "low"
}

// call tells the gateway of a pusher of a notice, or without one how much is unread. rejected says that the gateway knows
// the pusher's key no more. Errors name neither the address nor what was sent (law 16).
func call(ctx context.Context, client *http.Client, p *store.Pusher, n *Notice, unread int64) (rejected bool, err error) {
	target, b, err := bodyOf(p, n, unread)
	if err != nil {
		return false, err
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return false, errors.New("the notification does not encode")
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(raw))
	if err != nil {
		return false, errors.New("the gateway's address cannot be read")
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if errors.Is(err, netguard.ErrDenied) {
		return false, errors.New("the gateway is at an address to which no connections are made")
	}
	if err != nil {
		return false, errors.New("the gateway cannot be reached")
	}
	defer res.Body.Close() //nolint:errcheck // nothing is left to be read
	if res.StatusCode != http.StatusOK {
		return false, statusError(res.StatusCode)
	}
	answer, err := netguard.ReadAll(res, maxAnswer)
	if err != nil {
		return false, errors.New("the gateway's answer cannot be read")
	}
	var said struct {
		Rejected []string `json:"rejected"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return false, errors.New("the gateway's answer is not what a gateway answers")
	}
	return slices.Contains(said.Rejected, p.Key), nil
}
