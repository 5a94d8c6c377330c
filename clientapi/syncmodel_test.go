package clientapi_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"conclave/internal/testserver"
)

// TestSyncFaces lets three users do at random what people do in rooms, and reads what happens through /sync, the WebSocket
// and sliding sync, at random moments: all show the same rooms, names, members, counts and timelines, nothing twice and
// nothing left out.
func TestSyncFaces(t *testing.T) {
	checks := "8"
	if os.Getenv("CONCLAVE_LONG") != "" {
		checks = "250"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true", "rapid.shrinktime": "5s"} {
		was := flag.Lookup(name).Value.String()
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, was) }) // what it was is allowed
	}
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		rapid.Check(t, func(rt *rapid.T) { newFaces(t, rt, s).run() })
	})
}

// faceRoom is what a client makes of a room.
type faceRoom struct {
	Membership string // join, invite, knock, or out
	Name       string
	Members    map[string]string
	Timeline   []string
	Joined     any
	Invited    any
	Unread     any
}

// faceView is what a client makes of everything it was told.
type faceView map[string]*faceRoom

func (v faceView) room(id string) *faceRoom {
	if v[id] == nil {
		v[id] = &faceRoom{Members: map[string]string{}}
	}
	return v[id]
}

// state takes a state event in.
func (r *faceRoom) state(e object) {
	switch key := fmt.Sprint(e["state_key"]); e["type"] {
	case "m.room.name":
		r.Name, _ = testserver.At(e, "content", "name").(string)
	case "m.room.member":
		r.Members[key], _ = testserver.At(e, "content", "membership").(string)
	}
}

// events takes a timeline in. What is there twice is an error.
func (r *faceRoom) events(list []object) error {
	for _, e := range list {
		id, _ := e["event_id"].(string)
		if slices.Contains(r.Timeline, id) {
			return fmt.Errorf("event %s of type %s comes twice", id, e["type"])
		}
		r.Timeline = append(r.Timeline, id)
	}
	return nil
}

// sync takes a response of /sync in.
func (v faceView) sync(body object) error {
	joined, _ := testserver.At(body, "rooms", "join").(object)
	left, _ := testserver.At(body, "rooms", "leave").(object)
	for membership, rooms := range map[string]object{"join": joined, "out": left} {
		for id, room := range rooms {
			r := v.room(id)
			if membership == "join" && r.Membership != "join" || testserver.At(room, "timeline", "limited") == true {
				r.Timeline = nil
			}
			if membership == "join" && r.Membership != "join" {
				r.Members, r.Name = map[string]string{}, ""
			}
			r.Membership = membership
			events := testserver.Events(testserver.At(room, "timeline", "events"))
			for _, e := range append(testserver.Events(testserver.At(room, "state", "events")), events...) {
				if _, ok := e["state_key"]; ok {
					r.state(e)
				}
			}
			if err := r.events(events); err != nil {
				return fmt.Errorf("room %s: %w", id, err)
			}
			take(&r.Joined, testserver.At(room, "summary", "m.joined_member_count"))
			take(&r.Invited, testserver.At(room, "summary", "m.invited_member_count"))
			take(&r.Unread, testserver.At(room, "unread_notifications", "notification_count"))
		}
	}
	for _, membership := range []string{"invite", "knock"} {
		rooms, _ := testserver.At(body, "rooms", membership).(object)
		for id := range rooms {
			v.room(id).Membership = membership
		}
	}
	return nil
}

func take(into *any, value any) {
	if value != nil {
		*into = value
	}
}

// slide takes an answer of sliding sync in.
func (v faceView) slide(body object) error {
	rooms, _ := body["rooms"].(object)
	for id := range rooms {
		room, r := slidRoom(body, id), v.room(id)
		if room["initial"] == true {
			r = &faceRoom{Members: map[string]string{}}
			v[id] = r
		}
		r.Membership, _ = room["membership"].(string)
		if r.Membership == "leave" || r.Membership == "ban" {
			r.Membership = "out"
		}
		if room["limited"] == true || room["unstable_expanded_timeline"] == true {
			r.Timeline = nil
		}
		for _, e := range testserver.Events(room["required_state"]) {
			r.state(e)
		}
		if name, told := room["name"]; told {
			if text, _ := name.(string); text != r.Name {
				return fmt.Errorf("room %s is called %q, and by its state %q", id, text, r.Name)
			}
		}
		if err := r.events(testserver.Events(room["timeline"])); err != nil {
			return fmt.Errorf("room %s: %w", id, err)
		}
		take(&r.Joined, room["joined_count"])
		take(&r.Invited, room["invited_count"])
		take(&r.Unread, room["notification_count"])
	}
	return nil
}

// faceUser is a user with a client on every face.
type faceUser struct {
	*testserver.User
	since        string
	conn         *websocket.Conn
	frames       chan object
	wide, narrow *slider
	stamps       map[string]float64
	views        map[string]faceView
}

var faceNames = []string{"sync", "socket", "wide", "narrow"}

// faces is one run of the model.
type faces struct {
	t        *testing.T
	rt       *rapid.T
	users    []*faceUser
	rooms    []string
	messages []([2]string) // room and event
	ignoring bool          // users ignore one another in this run: what was withheld depends on the moment of reading
}

func newFaces(t *testing.T, rt *rapid.T, s *testserver.Server) *faces {
	f := &faces{t: t, rt: rt, ignoring: rapid.IntRange(0, 3).Draw(rt, "ignoring") == 0}
	for _, name := range []string{"ann", "ben", "cat"} {
		u := &faceUser{User: s.Register(testserver.Unique(name)), stamps: map[string]float64{}, views: map[string]faceView{}, frames: make(chan object, 1000)}
		for _, face := range faceNames {
			u.views[face] = faceView{}
		}
		u.wide, u.narrow = slides(u.User, 0, 99, 100, [2]string{"*", "*"}), slides(u.User, 0, 0, 1)
		u.wide.body["conn_id"], u.narrow.body["conn_id"] = "wide", "narrow"
		u.conn = u.Socket(map[string][]string{"filter": {bigTimeline}})
		go u.read()
		f.users = append(f.users, u)
	}
	return f
}

// bigTimeline is a filter under which nothing is cut off.
const bigTimeline = `{"room":{"timeline":{"limit":100}}}`

// read reads the socket to its end.
func (u *faceUser) read() {
	defer close(u.frames)
	for {
		var frame object
		if u.conn.ReadJSON(&frame) != nil {
			return
		}
		u.frames <- frame
	}
}

func (f *faces) run() {
	defer func() {
		for _, u := range f.users {
			_ = u.conn.Close() // it has done its work
		}
	}()
	for i := range rapid.IntRange(8, 30).Draw(f.rt, "steps") {
		f.step()
		if f.ignoring { // everybody reads at the same moments
			f.compare()
		}
		for _, u := range f.users {
			for _, face := range []string{"sync", "wide", "narrow"} {
				if rapid.Bool().Draw(f.rt, "reads") {
					f.read(u, face)
				}
			}
		}
		if i%6 == 5 {
			f.compare()
		}
	}
	f.compare()
	for _, u := range f.users {
		f.compareNarrow(u)
	}
}

// step does something, which may be refused.
func (f *faces) step() {
	u := f.users[rapid.IntRange(0, 2).Draw(f.rt, "who")]
	if len(f.rooms) < 2 || len(f.rooms) < 4 && rapid.IntRange(0, 9).Draw(f.rt, "new") == 0 {
		preset := rapid.SampledFrom([]string{"public_chat", "private_chat"}).Draw(f.rt, "preset")
		f.rooms = append(f.rooms, u.CreateRoom(object{"preset": preset}))
		return
	}
	room, other := rapid.SampledFrom(f.rooms).Draw(f.rt, "room"), f.users[rapid.IntRange(0, 2).Draw(f.rt, "whom")]
	in := func(what ...string) string { return testserver.Path(append([]string{"rooms", room}, what...)...) }
	txn := testserver.Unique("txn")
	text := rapid.StringMatching(`[a-z]{3}`).Draw(f.rt, "text")
	switch kind := rapid.IntRange(0, 13).Draw(f.rt, "what"); kind {
	case 0, 1, 2, 3:
		if a := f.do(u, "PUT", in("send", "m.room.message", txn), object{"msgtype": "m.text", "body": text}); a.Status == 200 {
			f.messages = append(f.messages, [2]string{room, fmt.Sprint(a.Body["event_id"])})
		}
	case 4, 5:
		f.do(u, "POST", in("join"), object{})
	case 6:
		f.do(u, "POST", in("leave"), object{})
	case 7:
		f.do(u, "POST", in("invite"), object{"user_id": other.ID})
	case 8:
		f.do(u, "POST", in(rapid.SampledFrom([]string{"kick", "ban", "unban"}).Draw(f.rt, "how")), object{"user_id": other.ID})
	case 9:
		f.do(u, "PUT", in("state", "m.room.name", ""), object{"name": text})
	case 10:
		f.do(u, "PUT", in("state", "m.room.topic", ""), object{"topic": text})
	case 11, 12:
		if len(f.messages) == 0 {
			return
		}
		m := rapid.SampledFrom(f.messages).Draw(f.rt, "message")
		if kind == 11 {
			f.do(u, "POST", testserver.Path("rooms", m[0], "receipt", "m.read", m[1]), object{})
		} else {
			f.do(u, "PUT", testserver.Path("rooms", m[0], "redact", m[1], txn), object{})
		}
	case 13:
		if f.ignoring {
			list := object{}
			if rapid.Bool().Draw(f.rt, "ignore") && other != u {
				list[other.ID] = object{}
			}
			f.do(u, "PUT", testserver.Path("user", u.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": list})
		}
	}
}

// do makes a request that may be refused, but must not fail.
func (f *faces) do(u *faceUser, method, path string, body object) *testserver.Answer {
	a, err := u.Do(method, path, body)
	if err != nil || a.Status >= 500 {
		f.rt.Fatalf("%s %s: %v %v", method, path, err, a)
	}
	return a
}

// read lets one of a user's clients read what is new.
func (f *faces) read(u *faceUser, face string) {
	var err error
	switch face {
	case "sync":
		body := u.Sync(u.since, 0, "filter", bigTimeline)
		u.since, err = token(body), u.views[face].sync(body)
	case "wide":
		body := u.wide.next(0)
		if rapid.IntRange(0, 9).Draw(f.rt, "lost") == 0 { // the next answer is lost, and asked for again
			u.wide.peek(0)
		}
		if err = u.views[face].slide(body); err == nil && !f.ignoring { // whom one ignores moves rooms that there is no news of
			err = u.ordered(body)
		}
	case "narrow":
		first := rapid.IntRange(0, 2).Draw(f.rt, "first")
		last := first + rapid.IntRange(0, 1).Draw(f.rt, "more")
		u.narrow.list()["ranges"] = [][2]int{{first, last}}
		u.narrow.list()["timeline_limit"] = rapid.IntRange(0, 4).Draw(f.rt, "limit")
		state := [][2]string{{"m.room.name", ""}}
		if rapid.Bool().Draw(f.rt, "members") {
			state = append(state, [2]string{"m.room.member", "*"})
		}
		u.narrow.list()["required_state"] = state
		err = u.views[face].slide(u.narrow.next(0))
	}
	if err != nil {
		f.rt.Fatalf("%s by %s: %v", u.ID, face, err)
	}
}

// ordered checks that rooms stand in the order of their stamps.
func (u *faceUser) ordered(body object) error {
	rooms, _ := body["rooms"].(object)
	for id := range rooms {
		u.stamps[id], _ = slidRoom(body, id)["bump_stamp"].(float64)
	}
	order := slidOrder(body)
	if !slices.IsSortedFunc(order, func(a, b string) int { return int(u.stamps[b] - u.stamps[a]) }) {
		return fmt.Errorf("rooms are in the order %v, with the stamps %v", order, u.stamps)
	}
	return nil
}

// compare lets every client read all there is and compares what they make of it.
func (f *faces) compare() {
	for _, u := range f.users {
		f.read(u, "sync")
		f.read(u, "wide")
		want := f.shown(u.views["sync"])
		if got := f.shown(u.views["wide"]); !reflect.DeepEqual(got, want) {
			f.rt.Fatalf("%s sees by sliding sync\n%s\nand by /sync\n%s", u.ID, text(got), text(want))
		}
		late := time.After(20 * time.Second)
		for !reflect.DeepEqual(f.shown(u.views["socket"]), want) {
			select {
			case frame, open := <-u.frames:
				if err := u.views["socket"].sync(frame); err != nil || !open {
					f.rt.Fatalf("%s by the socket: %v", u.ID, err)
				}
			case <-late:
				f.rt.Fatalf("%s sees by the socket\n%s\nand by /sync\n%s", u.ID, text(f.shown(u.views["socket"])), text(want))
			}
		}
	}
}

// shown is what of a view can be compared: of rooms that the user is in everything, of others that they are none.
func (f *faces) shown(v faceView) map[string]faceRoom {
	out := map[string]faceRoom{}
	for id, r := range v {
		switch r.Membership {
		case "join":
			room := *r
			if f.ignoring {
				room.Unread = nil
			}
			room.Members = maps.Clone(r.Members)
			out[id] = room
		case "invite", "knock":
			if f.ignoring { // sliding sync shows an invitation once its sender is no longer ignored, /sync only to new clients
				continue
			}
			out[id] = faceRoom{Membership: r.Membership}
		}
	}
	return out
}

// compareNarrow lets the client with the narrow window ask for everything in the end: it has missed nothing.
func (f *faces) compareNarrow(u *faceUser) {
	u.narrow.body["lists"] = object{"all": object{"ranges": [][2]int{{0, 99}}, "timeline_limit": 100, "required_state": [][2]string{{"*", "*"}}}}
	for range 2 {
		if err := u.views["narrow"].slide(u.narrow.next(0)); err != nil {
			f.rt.Fatalf("%s by the narrow window: %v", u.ID, err)
		}
	}
	got, want := f.shown(u.views["narrow"]), f.shown(u.views["sync"])
	if f.ignoring { // this client reads at other moments: what it was not told, for whom was ignored then, is not comparable
		for _, rooms := range []map[string]faceRoom{got, want} {
			for id, r := range rooms {
				r.Timeline = nil
				rooms[id] = r
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		f.rt.Fatalf("%s sees by the narrow window\n%s\nand by /sync\n%s", u.ID, text(got), text(want))
	}
}

// text is a view to be read.
func text(v any) string {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
