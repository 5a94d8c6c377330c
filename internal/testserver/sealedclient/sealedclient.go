// Package sealedclient is a device in sealed rooms without a screen, for tests: it has keys of its own, publishes them,
// cross-signs, gives its sessions to whoever may have them, sends and reads, all over the client API of a real server.
// It does what the browser client does when people talk, by way of package keys/sealed; it keeps everything in memory, and
// has neither a backup nor verification.
package sealedclient

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
	"conclave/keys/sealed"
)

// A Client is one device of a user. It is used by one goroutine.
type Client struct {
	*testserver.User
	Device   *sealed.Device
	Identity *sealed.Identity

	t         testing.TB
	published []byte // the device's keys, cross-signed
	receiver  *sealed.Receiver
	inbound   *sealed.Sessions
	outbound  map[matrix.RoomID]*session
	pins      map[matrix.UserID]string
	peers     map[matrix.UserID]*peer
	rooms     map[matrix.RoomID]*room
	since     string

	// Refused are the to-device messages that were not accepted, by class.
	Refused []sealed.Failure
}

// session is an outbound session and to whom it was given.
type session struct {
	*sealed.Outbound
	given map[string]bool // by the kid of the device's key
}

// peer is what is known of another user, asked for anew when a sync says that it changed.
type peer struct {
	identity *sealed.CrossSigning
	devices  map[string]*sealed.DeviceKeys // those that qualify
	raw      map[string][]byte             // all that the server gave out
}

// room is what the client knows of a room.
type room struct {
	members  map[matrix.UserID]bool
	messages []Message
	waiting  []sealed.Event // of sessions whose key has not come yet
	left     bool           // somebody left since the outbound session began
	limited  bool           // or may have: a sync left events out
}

// Message is an event of a sealed room as it came out.
type Message struct {
	ID      matrix.EventID
	Sender  matrix.UserID
	Type    string
	Content []byte
	Failure sealed.Failure // why it is not readable; empty if it is
}

// Body is the text of a text message.
func (m Message) Body() string {
	body, _ := matrix.GetString(m.Content, "body")
	return body
}

// New makes an account with an identity and one device that its identity vouches for.
func New(t testing.TB, s *testserver.Server, name string) *Client {
	t.Helper()
	c := &Client{
		User: s.Register(name), t: t, outbound: map[matrix.RoomID]*session{}, pins: map[matrix.UserID]string{},
		peers: map[matrix.UserID]*peer{}, rooms: map[matrix.RoomID]*room{},
	}
	var err error
	if c.Device, err = sealed.NewDevice(c.me(), c.User.Device); err != nil {
		t.Fatal(err)
	}
	if c.Identity, err = sealed.NewIdentity(c.me()); err != nil {
		t.Fatal(err)
	}
	c.inbound = sealed.NewSessions(func(id matrix.RoomID) bool { return c.rooms[id] != nil })
	c.receiver = &sealed.Receiver{Device: c.Device, Master: c.Identity.Master(), Lookup: c.lookup}
	c.publish()
	return c
}

func (c *Client) me() matrix.UserID { return matrix.UserID(c.User.ID) }

func (c *Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// publish uploads the device's keys and the identity, and then the identity's signature of the device.
func (c *Client) publish() {
	c.t.Helper()
	plain, err := c.Device.PublicKeys()
	c.must(err)
	c.Must("POST", "/keys/upload", testserver.JSON{"device_keys": json.RawMessage(plain)})
	p, err := c.Identity.Publish(c.Device)
	c.must(err)
	c.Must("POST", "/keys/device_signing/upload", testserver.JSON{
		"master_key": json.RawMessage(p.Master), "self_signing_key": json.RawMessage(p.SelfSigning), "user_signing_key": json.RawMessage(p.UserSigning),
		"auth": testserver.JSON{
			"type": "m.login.password", "password": testserver.Password, "identifier": testserver.JSON{"type": "m.id.user", "user": c.User.ID},
		},
	})
	c.published, err = c.Identity.SignDevice(plain)
	c.must(err)
	answer := c.Must("POST", "/keys/signatures/upload", testserver.JSON{
		c.User.ID: testserver.JSON{c.Device.ID: json.RawMessage(c.published)},
	})
	if failures, ok := answer.Body["failures"].(testserver.JSON); ok && len(failures) > 0 {
		c.t.Fatalf("the server refuses the identity's signature: %v", failures)
	}
}

// know asks the server for the keys of users and judges them. An identity is pinned at first sight.
func (c *Client) know(users ...matrix.UserID) {
	c.t.Helper()
	ask := map[matrix.UserID][]string{}
	for _, user := range users {
		if c.peers[user] == nil {
			ask[user] = []string{}
		}
	}
	if len(ask) == 0 {
		return
	}
	answer := c.Must("POST", "/keys/query", testserver.JSON{"device_keys": ask, "timeout": 10_000}).Raw
	for user := range ask {
		c.peers[user] = c.judge(user, answer)
	}
}

// judge decides which of a user's devices qualify.
func (c *Client) judge(user matrix.UserID, answer []byte) *peer {
	p := &peer{devices: map[string]*sealed.DeviceKeys{}, raw: map[string][]byte{}}
	part := func(name string) []byte {
		text, _ := matrix.Get(answer, name, string(user))
		return text
	}
	identity, err := sealed.ParseCrossSigning(sealed.Published{Master: part("master_keys"), SelfSigning: part("self_signing_keys")}, user, c.pins[user])
	if err != nil {
		c.t.Logf("%s: the identity of %s: %v", c.me(), user, err)
		return p
	}
	c.pins[user], p.identity = identity.MasterKey(), identity
	devices, _ := matrix.Members(part("device_keys"))
	for _, d := range devices {
		p.raw[d.Key] = d.Value
		keys, err := sealed.Qualify(d.Value, user, d.Key, identity)
		if err != nil {
			c.t.Logf("%s: device %s of %s: %v", c.me(), d.Key, user, err)
			continue
		}
		p.devices[d.Key] = keys
	}
	return p
}

// lookup is what the receiver asks for.
func (c *Client) lookup(user matrix.UserID, device string) (*sealed.CrossSigning, []byte) {
	c.know(user)
	p := c.peers[user]
	return p.identity, p.raw[device]
}

// CreateSealed makes a room that is encrypted from its beginning, and invites.
func (c *Client) CreateSealed(invite ...string) matrix.RoomID {
	c.t.Helper()
	return matrix.RoomID(c.CreateRoom(testserver.JSON{
		"preset": "private_chat", "invite": invite,
		"initial_state": []testserver.JSON{{"type": "m.room.encryption", "state_key": "", "content": testserver.JSON{"algorithm": sealed.AlgorithmGroup}}},
	}))
}

// SaySealed sends a text that only the devices of the room's members read. The client must have seen the room in a sync.
func (c *Client) SaySealed(id matrix.RoomID, text string) matrix.EventID {
	c.t.Helper()
	return c.SendSealed(id, "m.room.message", testserver.JSON{"msgtype": "m.text", "body": text})
}

// SendSealed encrypts an event, after it has given the session to every device that may have it.
func (c *Client) SendSealed(id matrix.RoomID, kind string, content testserver.JSON) matrix.EventID {
	c.t.Helper()
	r := c.rooms[id]
	if r == nil {
		c.t.Fatalf("%s has not seen %s yet", c.me(), id)
	}
	text, err := json.Marshal(content)
	c.must(err)
	s := c.session(id, r)
	c.share(s, r)
	encrypted, err := s.Encrypt(kind, text, func(uint32) error { return nil })
	c.must(err)
	path := testserver.Path("rooms", string(id), "send", sealed.TypeEncrypted, testserver.Unique("txn"))
	event, _ := c.Must("PUT", path, json.RawMessage(encrypted)).Body["event_id"].(string)
	return matrix.EventID(event)
}

// session is the outbound session of a room, a fresh one where the rules ask for it.
func (c *Client) session(id matrix.RoomID, r *room) *session {
	c.t.Helper()
	s := c.outbound[id]
	if s != nil {
		usage := sealed.Usage{Messages: int64(s.Index()), Age: time.Since(s.CreatedAt()), Left: r.left, Limited: r.limited}
		if usage.Rotate() == "" {
			return s
		}
	}
	fresh, err := sealed.NewOutbound(c.Device, id, "shared", time.Now())
	c.must(err)
	s = &session{Outbound: fresh, given: map[string]bool{}}
	c.outbound[id], r.left, r.limited = s, false, false
	key, err := s.RoomKey()
	c.must(err)
	_, err = c.inbound.Add(key, sealed.Origin{User: c.me(), Device: c.Device.ID, SigningKey: c.Device.SigningKey()})
	c.must(err)
	return s
}

// share gives the session, from here on, to the qualifying devices that do not have it.
func (c *Client) share(s *session, r *room) {
	c.t.Helper()
	key, err := s.RoomKey()
	c.must(err)
	sender := &sealed.Sender{Device: c.Device, Keys: c.published, Master: c.Identity.Master()}
	messages := map[matrix.UserID]map[string]json.RawMessage{}
	for user := range r.members {
		c.know(user)
		p := c.peers[user]
		for id, device := range p.devices {
			if s.given[device.Kid] || device.Kid == c.Device.Kid() {
				continue
			}
			envelope, err := sender.Seal(device, p.identity.MasterKey(), sealed.TypeRoomKey, key, time.Now())
			c.must(err)
			if messages[user] == nil {
				messages[user] = map[string]json.RawMessage{}
			}
			messages[user][id], s.given[device.Kid] = envelope, true
		}
	}
	if len(messages) > 0 {
		c.Must("PUT", testserver.Path("sendToDevice", sealed.TypeEncrypted, testserver.Unique("share")), testserver.JSON{"messages": messages})
	}
}

// Given says how many devices have the room's present session.
func (c *Client) Given(id matrix.RoomID) int {
	if c.outbound[id] == nil {
		return 0
	}
	return len(c.outbound[id].given)
}

// Messages are what was said in a room, in the order of the timeline, as far as it was synced.
func (c *Client) Messages(id matrix.RoomID) []Message {
	if c.rooms[id] == nil {
		return nil
	}
	return c.rooms[id].messages
}

// Heard reports whether a text was read from somebody in a room.
func (c *Client) Heard(id matrix.RoomID, from, text string) bool {
	for _, m := range c.Messages(id) {
		if m.Failure == "" && string(m.Sender) == from && m.Body() == text {
			return true
		}
	}
	return false
}

// Until syncs until a condition holds.
func (c *Client) Until(what string, holds func() bool) {
	c.t.Helper()
	wait.Until(c.t, fmt.Sprintf("%s: %s", c.me(), what), func() bool {
		if holds() {
			return true
		}
		c.Poll(500)
		return holds()
	})
}
