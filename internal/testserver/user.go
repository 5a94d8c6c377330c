package testserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // as the API of Synapse has it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// Password is that of every User.
const Password = "correct horse battery staple"

// JSON is an object as it came or goes.
type JSON = map[string]any

// User is a person of a test, on one device.
type User struct {
	Server *Server
	ID     string
	Device string
	Token  string

	t testing.TB
}

// Answer is what a request was answered.
type Answer struct {
	Status int
	Header http.Header
	Body   JSON // nil unless the answer is a JSON object
	Raw    []byte
}

var serial atomic.Int64

// Unique is a name that nothing else in this process has.
func Unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, serial.Add(1)) }

// Register makes an account with a session.
func (s *Server) Register(name string) *User {
	s.t.Helper()
	u := &User{Server: s, t: s.t}
	a := u.Must("POST", "/_matrix/client/v3/register", JSON{
		"username": name, "password": Password, "auth": JSON{"type": "m.login.dummy"}, "initial_device_display_name": "test",
	})
	u.keep(a.Body)
	return u
}

// RegisterAdmin makes an administrator's account with a session, with the shared secret of the configuration.
func (s *Server) RegisterAdmin(name string) *User {
	s.t.Helper()
	u := &User{Server: s, t: s.t}
	const path = "/_synapse/admin/v1/register"
	nonce, _ := u.Must("GET", path, nil).Body["nonce"].(string)
	mac := hmac.New(sha1.New, []byte("testing"))
	_, _ = mac.Write([]byte(nonce + "\x00" + name + "\x00" + Password + "\x00admin")) // a hash takes everything
	u.keep(u.Must("POST", path, JSON{
		"nonce": nonce, "username": name, "password": Password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	}).Body)
	return u
}

// Login opens another session of an account.
func (s *Server) Login(name string) *User {
	s.t.Helper()
	u := &User{Server: s, t: s.t}
	a := u.Must("POST", "/_matrix/client/v3/login", JSON{
		"type": "m.login.password", "password": Password, "identifier": JSON{"type": "m.id.user", "user": name},
	})
	u.keep(a.Body)
	return u
}

func (u *User) keep(body JSON) {
	u.ID, _ = body["user_id"].(string)
	u.Device, _ = body["device_id"].(string)
	u.Token, _ = body["access_token"].(string)
}

// Nobody speaks to a server without a session.
func (s *Server) Nobody() *User { return &User{Server: s, t: s.t} }

// requestTime bounds a request, long polls included.
const requestTime = 2 * time.Minute

// url is where a path is: below /_matrix/client/v3 unless it begins with /_ or /. or is a whole URL.
func (u *User) url(path string) string {
	switch {
	case strings.HasPrefix(path, "http"):
		return path
	case strings.HasPrefix(path, "/_"), strings.HasPrefix(path, "/."):
		return u.Server.URL + path
	}
	return u.Server.URL + "/_matrix/client/v3" + path
}

// Do makes a request. body is nil for none, []byte for bytes as they are, or anything that encodes to JSON.
// The path is read as url says.
func (u *User) Do(method, path string, body any) (*Answer, error) {
	ctx, cancel := context.WithTimeout(u.t.Context(), requestTime)
	defer cancel()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.url(path), reader)
	if err != nil {
		return nil, err
	}
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	}
	if _, bare := body.([]byte); reader != nil && !bare {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	a := &Answer{Status: res.StatusCode, Header: res.Header}
	if a.Raw, err = io.ReadAll(res.Body); err != nil {
		return nil, err
	}
	if json.Unmarshal(a.Raw, &a.Body) != nil {
		a.Body = nil
	}
	proof.Served(u.t, method, req.URL.EscapedPath(), a.Status)
	shapes.Check(u.t, method, req.URL.RequestURI(), a.Status, a.Header, a.Raw)
	return a, nil
}

// Must makes a request that has to be answered 200.
func (u *User) Must(method, path string, body any) *Answer {
	u.t.Helper()
	a, err := u.Do(method, path, body)
	if err != nil {
		u.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status != http.StatusOK {
		u.t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Raw)
	}
	return a
}

// Refused makes a request that has to be refused with a status and error code.
func (u *User) Refused(status int, code, method, path string, body any) {
	u.t.Helper()
	a, err := u.Do(method, path, body)
	if err != nil {
		u.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status != status || a.Body["errcode"] != code {
		u.t.Errorf("%s %s: %d %s, want %d %s", method, path, a.Status, a.Raw, status, code)
	}
}

// Path joins the segments of a path, escaping each.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// CreateRoom makes a room and returns its ID.
func (u *User) CreateRoom(options JSON) string {
	u.t.Helper()
	id, _ := u.Must("POST", "/createRoom", options).Body["room_id"].(string)
	return id
}

// Invite invites a user.
func (u *User) Invite(room, user string) {
	u.t.Helper()
	u.Must("POST", Path("rooms", room, "invite"), JSON{"user_id": user})
}

// Join joins a room, through other servers if they are given.
func (u *User) Join(room string, via ...string) {
	u.t.Helper()
	q := ""
	for i, server := range via {
		q += string("?&"[min(i, 1)]) + "via=" + url.QueryEscape(server)
	}
	u.Must("POST", Path("join", room)+q, JSON{})
}

// Say sends a text message and returns its event's ID.
func (u *User) Say(room, text string) string {
	u.t.Helper()
	return u.Send(room, "m.room.message", JSON{"msgtype": "m.text", "body": text})
}

// Send sends a message event under a new transaction ID.
func (u *User) Send(room, typ string, content JSON) string {
	u.t.Helper()
	id, _ := u.Must("PUT", Path("rooms", room, "send", typ, Unique("txn")), content).Body["event_id"].(string)
	return id
}

// Sync makes one request of /sync. since "" is the first one; timeout is in ms.
func (u *User) Sync(since string, timeout int, more ...string) JSON {
	u.t.Helper()
	q := url.Values{"timeout": {fmt.Sprint(timeout)}}
	if since != "" {
		q.Set("since", since)
	}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return u.Must("GET", "/sync?"+q.Encode(), nil).Body
}

// SyncUntil syncs from a token until a response satisfies seen, and returns the token that it led to.
func (u *User) SyncUntil(since, what string, seen func(JSON) bool) string {
	u.t.Helper()
	deadline := time.Now().Add(startTime)
	for {
		body := u.Sync(since, 2000)
		since, _ = body["next_batch"].(string)
		if seen(body) {
			return since
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("%s waited in vain for: %s", u.ID, what)
		}
	}
}

// At walks into nested objects and lists: At(body, "rooms", "join", id, "timeline", "events"). What is not there is nil.
func At(v any, path ...string) any {
	for _, key := range path {
		object, _ := v.(JSON)
		v = object[key]
	}
	return v
}

// Events are the objects of a list of events.
func Events(v any) []JSON {
	list, _ := v.([]any)
	var out []JSON
	for _, item := range list {
		if event, ok := item.(JSON); ok {
			out = append(out, event)
		}
	}
	return out
}

// Timeline are the events that a sync response has in a joined room's timeline.
func Timeline(body JSON, room string) []JSON {
	return Events(At(body, "rooms", "join", room, "timeline", "events"))
}

// Has says whether an event with an ID is among events.
func Has(events []JSON, id string) bool {
	for _, e := range events {
		if e["event_id"] == id {
			return true
		}
	}
	return false
}

// Socket opens the WebSocket of the contract. query holds since and filter, if any.
func (u *User) Socket(query url.Values) *websocket.Conn {
	u.t.Helper()
	if query == nil {
		query = url.Values{}
	}
	ticket, _ := u.Must("POST", "/_matrix/client/unstable/im.conclave.ws/ticket", JSON{}).Body["ticket"].(string)
	query.Set("ticket", ticket)
	dialer := websocket.Dialer{Subprotocols: []string{"m.json"}, HandshakeTimeout: startTime}
	conn, res, err := dialer.DialContext(u.t.Context(), "ws"+strings.TrimPrefix(u.Server.URL, "http")+"/_matrix/client/unstable/im.conclave.ws/sync?"+query.Encode(), nil)
	if err != nil {
		u.t.Fatal(err)
	}
	_ = res.Body.Close()
	u.t.Cleanup(func() { _ = conn.Close() })
	return conn
}
