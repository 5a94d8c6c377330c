package federation_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/wait"
)

// bigRoom is a room at a peer in which many users of a second server joined, left and joined again: one event of each is
// in the state, two are in its auth chain only. Its events lie in files, not in memory.
type bigRoom struct {
	t       *testing.T
	near    *peer.Peer // resident, and answers
	far     *peer.Peer // whose users are members
	id      matrix.RoomID
	version matrix.RoomVersion
	ts      int64
	tip     matrix.EventID
	depth   int64

	create, levels, rules, owner matrix.EventID

	state, chain struct {
		path string
		w    *bufio.Writer
		n    int
	}
	events, users int
}

func newBigRoom(t *testing.T, near, far *peer.Peer, users int) *bigRoom {
	t.Helper()
	b := &bigRoom{t: t, near: near, far: far, users: users, version: 12, ts: time.Now().UnixMilli() - int64(time.Hour/time.Millisecond)}
	var files []*os.File
	for _, part := range []*struct {
		path string
		w    *bufio.Writer
		n    int
	}{&b.state, &b.chain} {
		f, err := os.Create(filepath.Join(t.TempDir(), "events"))
		if err != nil {
			t.Fatal(err)
		}
		part.path, part.w, files = f.Name(), bufio.NewWriter(f), append(files, f)
	}
	alice := near.User("alice")
	create := b.make(near, alice, "m.room.create", "", `{"room_version":"12"}`, true)
	b.create, b.id = create.ID(), create.RoomID()
	b.owner = b.make(near, alice, "m.room.member", string(alice), `{"membership":"join"}`, true).ID()
	b.levels = b.make(near, alice, "m.room.power_levels", "", `{"users":{}}`, true, b.owner).ID()
	b.rules = b.make(near, alice, "m.room.join_rules", "", `{"join_rule":"public"}`, true, b.owner, b.levels).ID()
	b.make(near, alice, "m.room.history_visibility", "", `{"history_visibility":"shared"}`, true, b.owner, b.levels)
	b.make(near, alice, "m.room.name", "", `{"name":"big"}`, true, b.owner, b.levels)
	for i := range users {
		user := far.User(fmt.Sprint("user", i))
		join := fmt.Sprintf(`{"displayname":"User number %d","membership":"join"}`, i)
		first := b.make(far, user, "m.room.member", string(user), join, false, b.levels, b.rules)
		left := b.make(far, user, "m.room.member", string(user), `{"membership":"leave"}`, false, b.levels, first.ID())
		b.make(far, user, "m.room.member", string(user), join, true, b.levels, b.rules, left.ID())
	}
	for i, w := range []*bufio.Writer{b.state.w, b.chain.w} {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := files[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	near.Handle("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}", func(c *peer.Call) peer.Reply {
		user := c.Path[strings.LastIndex(c.Path, "/")+1:]
		return peer.Reply{Body: map[string]any{"room_version": b.version.String(), "event": map[string]any{
			"type": "m.room.member", "room_id": b.id, "sender": user, "state_key": user, "content": map[string]any{"membership": "join"},
			"depth": b.depth + 1, "prev_events": []matrix.EventID{b.tip}, "auth_events": []matrix.EventID{b.levels, b.rules},
		}}}
	})
	return b
}

func (b *bigRoom) make(by *peer.Peer, sender matrix.UserID, typ, key, content string, state bool, auth ...matrix.EventID) *matrix.Event {
	b.t.Helper()
	b.ts++
	b.depth++
	b.events++
	tmpl := matrix.Template{
		RoomID: b.id, Sender: sender, Type: typ, StateKey: &key, Content: []byte(content), AuthEvents: auth, Depth: b.depth, OriginServerTS: b.ts,
	}
	if b.tip != "" {
		tmpl.PrevEvents = []matrix.EventID{b.tip}
	}
	ev, err := tmpl.Build(b.version, by.Name, by.KeyID, by.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.tip = ev.ID()
	part := &b.chain
	if state {
		part = &b.state
	}
	if part.n++; part.n > 1 {
		_ = part.w.WriteByte(',')
	}
	_, _ = part.w.Write(ev.JSON())
	return ev
}

// answer is the reply to a join, with the auth chain first or last. half, if it is not nil, is called in the middle of
// the first list.
func (b *bigRoom) answer(chainFirst bool, half func()) peer.Reply {
	return peer.Reply{Write: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		lists := []string{"state", "auth_chain"}
		paths := map[string]string{"state": b.state.path, "auth_chain": b.chain.path}
		if chainFirst {
			lists[0], lists[1] = lists[1], lists[0]
		}
		_, _ = io.WriteString(w, `{"servers_in_room":["`+string(b.near.Name)+`"],"members_omitted":false`)
		for i, list := range lists {
			_, _ = io.WriteString(w, `,"`+list+`":[`)
			f, err := os.Open(paths[list])
			if err != nil {
				return
			}
			if i == 0 && half != nil {
				info, _ := f.Stat()
				_, _ = io.CopyN(w, f, info.Size()/2)
				half()
			}
			_, _ = io.Copy(w, f)
			_ = f.Close()
			_, _ = io.WriteString(w, "]")
		}
		_, _ = io.WriteString(w, `,"origin":"peer"}`)
	}}
}

func (b *bigRoom) onJoin(answer func(n int64) peer.Reply) *atomic.Int64 {
	var asked atomic.Int64
	b.near.Handle("PUT", "/_matrix/federation/v2/send_join/{roomId}/{eventId}", func(*peer.Call) peer.Reply { return answer(asked.Add(1)) })
	return &asked
}

// bigUsers is how many users the room has; each has three events.
func bigUsers() int {
	if os.Getenv("CONCLAVE_LONG") != "" {
		return 100_000
	}
	return 650
}

// memory is the most memory that a process has had, in MiB.
func memory(t *testing.T, pid int) (mib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &mib); err == nil {
			return mib >> 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// joined waits until a user is in a room.
func (b *bigRoom) joined(user *testserver.User) {
	b.t.Helper()
	wait.Within(b.t, 15*time.Minute, "the join", func() bool {
		a, err := user.Do("GET", "/joined_rooms", nil)
		return err == nil && strings.Contains(string(a.Raw), string(b.id))
	})
}

// usable checks that a room lives: its state is there, and what is said in it reaches the other server.
func (b *bigRoom) usable(user *testserver.User) {
	b.t.Helper()
	if got := user.Must("GET", testserver.Path("rooms", string(b.id), "state", "m.room.name"), nil); got.Body["name"] != "big" {
		b.t.Errorf("the name of the room: %s", got.Raw)
	}
	last := b.far.User(fmt.Sprint("user", b.users-1))
	user.Must("GET", testserver.Path("rooms", string(b.id), "state", "m.room.member", string(last)), nil)
	id := user.Say(string(b.id), "hello")
	wait.Until(b.t, id+" at the other server", func() bool {
		for _, c := range b.near.Calls("/_matrix/federation/v1/send/") {
			if strings.Contains(string(c.Body), `"hello"`) {
				return true
			}
		}
		return false
	})
}

// clean checks that the database is sound.
func clean(t *testing.T, s *testserver.Server) {
	t.Helper()
	s.Stop()
	if out, ok := s.Run("verify"); !ok {
		t.Errorf("verify: %s", out)
	}
}

// TestJoinOfALargeRoom joins a room of two thousand events, of 300,000 in the long form. The server is killed in the
// middle of the answer, and again when the answer is whole and not yet checked: it goes on by itself, and the second time
// without asking again. In all that it needs less than 700 MiB.
func TestJoinOfALargeRoom(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		ca := peer.NewCA(t)
		near, far := peer.New(t, ca, peer.Options{}), peer.New(t, ca, peer.Options{})
		b := newBigRoom(t, near, far, bigUsers())
		inChecks, open := make(chan struct{}), make(chan struct{})
		var once sync.Once
		far.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
			once.Do(func() { close(inChecks) })
			<-open
			return peer.Reply{Body: far.KeyDocument(nil)}
		})
		half, killed := make(chan struct{}), make(chan struct{})
		asked := b.onJoin(func(n int64) peer.Reply {
			if n == 1 {
				return b.answer(true, func() { close(half); <-killed }) // more than is staged at once
			}
			return b.answer(false, nil)
		})
		s := testserver.Start(t, testserver.Options{CA: ca, Engine: engine})
		user := s.Register("joiner")
		go func() { // its answer is lost with the server
			_, _ = user.Do("POST", testserver.Path("join", string(b.id))+"?via="+string(near.Name), map[string]any{})
		}()
		<-half
		s.Kill()
		close(killed)
		s.Start()
		<-inChecks
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		s.Kill()
		close(open)
		began := time.Now()
		s.Start()
		b.joined(user)
		t.Logf("%s: %d events, judged and joined after %s, at most %d MiB", engine, b.events, time.Since(began).Round(time.Millisecond), memory(t, s.Pid()))
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times, although the answer was there", n)
		}
		b.usable(user)
		b.again(s)
		if mib := memory(t, s.Pid()); mib > 700 {
			t.Errorf("%d MiB", mib)
		}
		clean(t, s)
	})
}

// again has another user join the room, who needs no other server any more.
func (b *bigRoom) again(s *testserver.Server) {
	b.t.Helper()
	other := s.Register("second")
	var joined struct {
		Room string `json:"room_id"`
	}
	a := other.Must("POST", testserver.Path("join", string(b.id)), map[string]any{})
	if err := json.Unmarshal(a.Raw, &joined); err != nil || joined.Room != string(b.id) {
		b.t.Errorf("%s", a.Raw)
	}
}

// TestJoinBrokenOff has one of two servers break off its answer, the other tell a whole one.
func TestJoinBrokenOff(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		ca := peer.NewCA(t)
		near, far := peer.New(t, ca, peer.Options{}), peer.New(t, ca, peer.Options{})
		b := newBigRoom(t, near, far, 400)
		broken := peer.New(t, ca, peer.Options{})
		broken.Handle("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}", func(c *peer.Call) peer.Reply {
			user := c.Path[strings.LastIndex(c.Path, "/")+1:]
			return peer.Reply{Body: map[string]any{"room_version": "12", "event": map[string]any{
				"type": "m.room.member", "room_id": b.id, "sender": user, "state_key": user, "content": map[string]any{"membership": "join"},
				"depth": b.depth + 1, "prev_events": []matrix.EventID{b.tip}, "auth_events": []matrix.EventID{b.levels, b.rules},
			}}}
		})
		broken.Handle("PUT", "/_matrix/federation/v2/send_join/{roomId}/{eventId}", func(*peer.Call) peer.Reply {
			return b.answer(true, func() { panic(http.ErrAbortHandler) })
		})
		b.onJoin(func(int64) peer.Reply { return b.answer(false, nil) })
		s := testserver.Start(t, testserver.Options{CA: ca, Engine: engine})
		user := s.Register("joiner")
		user.Join(string(b.id), string(broken.Name), string(near.Name))
		if len(broken.Calls("/_matrix/federation/v2/send_join/")) != 1 {
			t.Error("the first server was not asked")
		}
		b.usable(user)
		clean(t, s)
	})
}
