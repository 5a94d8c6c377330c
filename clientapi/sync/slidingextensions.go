package sync

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// slidingExtensions are what an answer brings beside rooms.
type slidingExtensions struct {
	ToDevice *slidingMessages   `json:"to_device,omitempty"`
	E2EE     *slidingKeys       `json:"e2ee,omitempty"`
	Data     *slidingData       `json:"account_data,omitempty"`
	Typing   *slidingRoomEvents `json:"typing,omitempty"`
	Receipts *slidingRoomEvents `json:"receipts,omitempty"`
}

// slidingMessages are messages to the device, and how far the client has them then.
type slidingMessages struct {
	NextBatch string            `json:"next_batch"`
	Events    []json.RawMessage `json:"events"`
}

// slidingKeys is what end-to-end encryption needs to hear of.
type slidingKeys struct {
	DeviceLists *DeviceLists   `json:"device_lists,omitempty"`
	KeyCounts   map[string]int `json:"device_one_time_keys_count"`
	Fallback    []string       `json:"device_unused_fallback_key_types"`
}

// slidingData is the user's own data.
type slidingData struct {
	Global []json.RawMessage                   `json:"global,omitempty"`
	Rooms  map[matrix.RoomID][]json.RawMessage `json:"rooms,omitempty"`
}

// slidingRoomEvents is one event of each of some rooms.
type slidingRoomEvents struct {
	Rooms map[matrix.RoomID]json.RawMessage `json:"rooms,omitempty"`
}

func (x *slidingRoomEvents) add(id matrix.RoomID, event json.RawMessage) *slidingRoomEvents {
	if x == nil {
		x = &slidingRoomEvents{Rooms: map[matrix.RoomID]json.RawMessage{}}
	}
	x.Rooms[id] = event
	return x
}

// extensions adds what the request asks for beside rooms.
func (s *slide) extensions() error {
	for nid, w := range s.wanted {
		r, k := s.rank.rooms[nid], s.now.rooms[nid]
		if _, knows := s.now.rooms[nid]; !knows || r.member.Membership != store.Join {
			continue
		}
		flags, err := s.roomExtensions(r, w, k)
		if err != nil {
			return err
		}
		k.flags = flags
		s.set(nid, k)
	}
	for _, step := range []func() error{s.globalOwnData, s.messages, s.encryption} {
		if err := step(); err != nil {
			return err
		}
	}
	ext := &s.res.Extensions
	s.res.news = s.res.news || ext.Data != nil || ext.Typing != nil || ext.Receipts != nil
	return nil
}

// roomExtensions adds what goes with a room beside its events, and returns what the client knows of it then. An extension
// that was not asked for before brings all, as for a room that is new to the client.
func (s *slide) roomExtensions(r *ranked, w *wish, k known) (knownFlags, error) {
	asked, nid := &s.body.Extensions, r.ref.NID
	had := s.had.rooms[nid]
	for _, x := range []struct {
		ask     *slidingSwitch
		flag    knownFlags
		touched bool
		tell    func(r *ranked, since store.Pos) error
	}{
		{asked.Data, knownData, s.touched.data[nid], s.tellData},
		{asked.Receipts, knownReceipts, s.touched.receipts[nid], s.tellReceipts},
		{asked.Typing, knownTyping, s.touched.typing[nid], s.tellTyping},
	} {
		first := s.fresh[nid] || k.flags&x.flag == 0
		since := s.position(had)
		if first {
			since = 0
		}
		switch covers := x.ask.covers(r.ref.ID, w); {
		case covers && (first || had.asOf != 0 || x.touched):
			if err := x.tell(r, since); err != nil {
				return 0, err
			}
			k.flags |= x.flag
		case !covers && (x.touched || had.asOf != 0):
			k.flags &^= x.flag
		}
	}
	return k.flags, nil
}

func (s *slide) tellData(r *ranked, since store.Pos) error {
	events, err := s.accountData(r.ref.NID, since, &EventFilter{})
	if err != nil || len(events) == 0 {
		return err
	}
	ext := s.dataAnswer()
	if ext.Rooms == nil {
		ext.Rooms = map[matrix.RoomID][]json.RawMessage{}
	}
	ext.Rooms[r.ref.ID] = events
	return nil
}

func (s *slide) dataAnswer() *slidingData {
	if s.res.Extensions.Data == nil {
		s.res.Extensions.Data = &slidingData{}
	}
	return s.res.Extensions.Data
}

func (s *slide) tellReceipts(r *ranked, since store.Pos) error {
	event, err := s.e.receiptEvent(s.ctx, s.q.User, r.ref, since, s.bound)
	if err == nil && event != nil {
		s.res.Extensions.Receipts = s.res.Extensions.Receipts.add(r.ref.ID, event)
	}
	return err
}

// tellTyping says who types in a room: to a client that was told of the room before also that nobody does.
func (s *slide) tellTyping(r *ranked, since store.Pos) error {
	if event := s.e.typing.event(r.ref.NID, 0, since == 0); event != nil {
		s.res.Extensions.Typing = s.res.Extensions.Typing.add(r.ref.ID, event)
	}
	return nil
}

// globalOwnData adds the user's own data that is of no room.
func (s *slide) globalOwnData() error {
	a := *s.assembly
	a.res = &Response{}
	switch {
	case !s.body.Extensions.Data.on():
		if s.now.data && (s.ownData || !s.inTail) { // something may go by that the client is not told
			s.change().data = false
		}
		return nil
	case !s.had.data:
		a.from, a.q.Since = 0, nil
		s.change().data = true
	case !s.ownData && s.inTail:
		return nil
	}
	err := a.globalData()
	if err == nil && a.res.AccountData != nil {
		s.dataAnswer().Global = a.res.AccountData.Events
	}
	return err
}

// messages adds the messages that wait for the device.
func (s *slide) messages() error {
	ask := s.body.Extensions.ToDevice
	if ask == nil || !ask.Enabled {
		return nil
	}
	out := &slidingMessages{Events: []json.RawMessage{}}
	last := s.bound
	if s.pos == nil || ask.from < s.from || s.ownMessages || !s.inTail {
		limit := maxToDevice
		if ask.Limit != nil {
			limit = max(1, min(*ask.Limit, maxToDevice))
		}
		events, upTo, err := s.e.keys.ToDevice(s.ctx, s.q.Device, ask.from, s.bound, limit)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			out.Events, last = events, upTo
			s.res.news = true
			s.l.setDelivered(s.q.Device, last)
		}
	}
	out.NextBatch = Token{Pos: last, Generation: s.e.generation}.String()
	s.next.Messages = last
	s.res.Extensions.ToDevice = out
	return nil
}

// encryption adds whose devices changed, and how many keys of this one are left.
func (s *slide) encryption() error {
	moved := s.pos == nil || s.lists || !s.inTail || s.movedRooms()
	since := s.from
	switch on := s.body.Extensions.E2EE.on(); {
	case !on && moved && s.now.lists == 0: // it is told of this once it asks again
		s.change().lists = since
		if s.pos == nil {
			s.change().lists = s.bound
		}
		return nil
	case !on:
		return nil
	case s.had.lists != 0:
		since, moved = s.had.lists, true
		s.change().lists = 0
	}
	a := *s.assembly
	a.res = &Response{}
	if err := a.keyCounts(); err != nil {
		return err
	}
	out := &slidingKeys{KeyCounts: a.res.KeyCounts, Fallback: a.res.Fallback}
	if out.KeyCounts == nil {
		out.KeyCounts = map[string]int{}
	}
	if s.pos != nil && moved {
		changed, left, err := s.e.keys.DeviceListChanges(s.ctx, s.q.User.NID, since, s.bound)
		if err != nil {
			return err
		}
		if len(changed)+len(left) > 0 {
			out.DeviceLists = &DeviceLists{changed, left}
		}
	}
	s.res.Extensions.E2EE = out
	s.res.news = s.res.news || a.res.news || out.DeviceLists != nil
	return nil
}
