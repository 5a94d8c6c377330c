package sealedclient

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"conclave/internal/matrix"
	"conclave/keys/sealed"
)

// delivered is the part of a sync response that the client reads. Contents stay text: what is signed is bytes.
type delivered struct {
	NextBatch string `json:"next_batch"`
	ToDevice  struct {
		Events []struct {
			Type    string          `json:"type"`
			Sender  matrix.UserID   `json:"sender"`
			Content json.RawMessage `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
	DeviceLists struct {
		Changed []matrix.UserID `json:"changed"`
		Left    []matrix.UserID `json:"left"`
	} `json:"device_lists"`
	Rooms struct {
		Join map[matrix.RoomID]struct {
			State struct {
				Events []roomEvent `json:"events"`
			} `json:"state"`
			Timeline struct {
				Limited bool        `json:"limited"`
				Events  []roomEvent `json:"events"`
			} `json:"timeline"`
		} `json:"join"`
	} `json:"rooms"`
}

// roomEvent is an event of a room.
type roomEvent struct {
	ID       matrix.EventID  `json:"event_id"`
	Type     string          `json:"type"`
	Sender   matrix.UserID   `json:"sender"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// Poll syncs once, waiting so many milliseconds at most, and takes in everything: keys first, for the messages that
// came with them.
func (c *Client) Poll(timeout int) {
	c.t.Helper()
	q := url.Values{"timeout": {fmt.Sprint(timeout)}}
	if c.since != "" {
		q.Set("since", c.since)
	}
	var d delivered
	c.must(matrix.Decode(c.Must("GET", "/sync?"+q.Encode(), nil).Raw, &d))
	for _, user := range append(d.DeviceLists.Changed, d.DeviceLists.Left...) {
		delete(c.peers, user)
	}
	for id := range d.Rooms.Join {
		if c.rooms[id] == nil {
			c.rooms[id] = &room{members: map[matrix.UserID]bool{}}
		}
	}
	for _, e := range d.ToDevice.Events {
		if e.Type == sealed.TypeEncrypted {
			c.receive(sealed.ToDevice{Sender: e.Sender, Type: e.Type, Content: e.Content})
		}
	}
	for id, part := range d.Rooms.Join {
		if part.Timeline.Limited && c.since != "" {
			c.rooms[id].limited = true
		}
		for _, e := range append(part.State.Events, part.Timeline.Events...) {
			c.take(id, e)
		}
	}
	c.since = d.NextBatch
}

// receive opens a message to this device.
func (c *Client) receive(e sealed.ToDevice) {
	opened, err := c.receiver.Open(e, time.Now())
	if err == nil && opened.Type == sealed.TypeRoomKey {
		_, err = c.inbound.Add(opened.Content, opened.Origin())
	}
	if err != nil {
		c.Refused = append(c.Refused, sealed.ClassOf(err))
		return
	}
	for _, r := range c.rooms { // what waited for this key
		waiting := r.waiting
		r.waiting = nil
		for _, event := range waiting {
			c.read(r, event)
		}
	}
}

// take takes an event of a room in.
func (c *Client) take(id matrix.RoomID, e roomEvent) {
	r := c.rooms[id]
	switch {
	case e.Type == "m.room.member" && e.StateKey != nil:
		membership, _ := matrix.GetString(e.Content, "membership")
		user := matrix.UserID(*e.StateKey)
		if r.members[user] && membership != "join" {
			r.left = true
		}
		if membership == "join" {
			r.members[user] = true
		} else {
			delete(r.members, user)
		}
	case e.Type == sealed.TypeEncrypted:
		r.messages = append(r.messages, Message{ID: e.ID, Sender: e.Sender})
		c.read(r, sealed.Event{ID: e.ID, Room: id, Sender: e.Sender, Type: e.Type, State: e.StateKey != nil, Content: e.Content})
	}
}

// read decrypts an event that stands in the timeline, or lets it wait for its key.
func (c *Client) read(r *room, e sealed.Event) {
	d, err := c.inbound.Decrypt(e)
	for i := range r.messages {
		m := &r.messages[i]
		if m.ID != e.ID {
			continue
		}
		if m.Failure = sealed.ClassOf(err); err == nil {
			m.Type, m.Content = d.Type, d.Content
		}
	}
	if sealed.ClassOf(err) == sealed.ErrNoKey {
		r.waiting = append(r.waiting, e)
	}
}
