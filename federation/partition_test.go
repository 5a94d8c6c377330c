package federation_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

// healTime is how long servers may take to agree once they reach one another again: that is what we promise. By themselves they
// take a second or two.
const healTime = 15 * time.Second

// three are three servers with two people on each, and what lies between them.
type three struct {
	t       *testing.T
	net     *testserver.Net
	servers []*testserver.Server
	chiefs  []*testserver.User // one on each server, with the power to do everything
	others  []*testserver.User // one on each server, to whom things are done
	before  []string           // the events of the room from before all were in it: history need not be everywhere
}

func startThree(t *testing.T, engine string) *three {
	t.Helper()
	w := &three{t: t, net: testserver.NewNet()}
	first := testserver.New(t, testserver.Options{Engine: engine, Net: w.net})
	w.servers = append(w.servers, first)
	for range 2 {
		w.servers = append(w.servers, testserver.New(t, testserver.Options{Engine: engine, Net: w.net, CA: first.CA}))
	}
	for _, s := range w.servers {
		s.Start()
		w.chiefs = append(w.chiefs, s.Register("chief"))
		w.others = append(w.others, s.Register("other"))
	}
	return w
}

// room makes a room that everybody is in, where all chiefs have the same power.
func (w *three) room(version string) string {
	w.t.Helper()
	levels := testserver.JSON{}
	for _, u := range w.chiefs[1:] {
		levels[u.ID] = 100
	}
	if version != "12" {
		levels[w.chiefs[0].ID] = 100
	}
	room := w.chiefs[0].CreateRoom(testserver.JSON{
		"room_version": version, "preset": "public_chat", "power_level_content_override": testserver.JSON{"users": levels},
	})
	for _, u := range append(w.chiefs[1:], w.others...) {
		u.Join(room, string(w.servers[0].Name))
	}
	// A server that was cut off before it has heard of another's join would, by the rules of state resolution, put it out of
	// the room if nobody may join by then.
	wait.Until(w.t, "everybody to be in the room for all", func() bool {
		for at := range w.servers {
			state := w.state(room, at)
			for _, u := range append(w.chiefs[:len(w.chiefs):len(w.chiefs)], w.others...) {
				if state["m.room.member "+u.ID] == "" {
					return false
				}
			}
		}
		return true
	})
	w.before = w.servers[0].EventIDs(room)
	return room
}

// act does something at random at one server. What the room does not allow is no failure.
func (w *three) act(r *rand.Rand, room string, at int) {
	chief, target := w.chiefs[at], w.others[r.IntN(len(w.others))]
	state := func(typ string, content testserver.JSON) (string, string, any) {
		return "PUT", testserver.Path("rooms", room, "state", typ, ""), content
	}
	member := func(what string) (string, string, any) {
		return "POST", testserver.Path("rooms", room, what), testserver.JSON{"user_id": target.ID}
	}
	by := chief
	var method, path string
	var body any
	switch r.IntN(11) {
	case 0:
		method, path, body = member("ban")
	case 1:
		method, path, body = member("unban")
	case 2:
		method, path, body = member("kick")
	case 3:
		method, path, body = member("invite")
	case 4:
		method, path, body = state("m.room.join_rules", testserver.JSON{"join_rule": []string{"public", "invite"}[r.IntN(2)]})
	case 5:
		got, err := chief.Do("GET", testserver.Path("rooms", room, "state", "m.room.power_levels"), nil)
		if err != nil || got.Status != http.StatusOK {
			return
		}
		users, _ := got.Body["users"].(testserver.JSON)
		users[target.ID] = []int{0, 40, 60}[r.IntN(3)]
		method, path, body = state("m.room.power_levels", got.Body)
	case 6:
		method, path, body = state("m.room.topic", testserver.JSON{"topic": fmt.Sprint(r.Uint32())})
	case 7:
		by = w.others[at]
		method, path, body = "POST", testserver.Path("join", room), testserver.JSON{}
	case 8:
		by = w.others[at]
		method, path, body = "POST", testserver.Path("rooms", room, "leave"), testserver.JSON{}
	default:
		if r.IntN(2) == 0 {
			by = w.others[at]
		}
		method, path = "PUT", testserver.Path("rooms", room, "send", "m.room.message", testserver.Unique("txn"))
		body = testserver.JSON{"msgtype": "m.text", "body": fmt.Sprint(r.Uint32())}
	}
	a, err := by.Do(method, path, body)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
	} else if a.Status != http.StatusOK && a.Status != http.StatusForbidden && a.Status != http.StatusBadGateway && a.Status != http.StatusNotFound {
		w.t.Errorf("%s %s by %s: %d %s", method, path, by.ID, a.Status, a.Raw)
	}
}

// life is what happens to a room while the servers are cut off from one another by turns.
func (w *three) life(r *rand.Rand, room string) {
	const rounds, acts = 4, 3
	for range rounds {
		w.net.Heal()
		alone := r.IntN(len(w.servers) + 1) // one of them, or each from each
		for i, a := range w.servers {
			for j, b := range w.servers[:i] {
				if alone == len(w.servers) || i == alone || j == alone {
					w.net.Cut(a, b)
				}
			}
		}
		seeds := []uint64{r.Uint64(), r.Uint64(), r.Uint64()}
		var all sync.WaitGroup
		for at := range w.servers {
			all.Go(func() {
				own := rand.New(rand.NewPCG(seeds[at], 0)) //nolint:gosec // chance that can be repeated
				for range acts {
					w.act(own, room, at)
				}
			})
		}
		all.Wait()
	}
	w.net.Heal()
}

// state is the room's state as a server has it.
func (w *three) state(room string, at int) map[string]string {
	a, err := w.chiefs[at].Do("GET", testserver.Path("rooms", room, "state"), nil)
	if err != nil || a.Status != http.StatusOK {
		return nil
	}
	return stateIDs(a.Raw)
}

// events are the events that a server holds of the time in which all were in the room, shown or not.
func (w *three) events(room string, at int) []string {
	return slices.DeleteFunc(w.servers[at].EventIDs(room), func(id string) bool { return slices.Contains(w.before, id) })
}

// difference says how two servers differ about a room, "" if they do not.
func (w *three) difference(room string) string {
	var out []string
	for at := 1; at < len(w.servers); at++ {
		first, second := w.state(room, 0), w.state(room, at)
		if first == nil || second == nil {
			out = append(out, "a state could not be read")
			continue
		}
		for key, id := range first {
			if second[key] != id {
				out = append(out, fmt.Sprintf("%s is %s at server 0 and %s at server %d", key, id, second[key], at))
			}
		}
		for key := range second {
			if first[key] == "" {
				out = append(out, fmt.Sprintf("%s is at server %d only", key, at))
			}
		}
		a, b := w.events(room, 0), w.events(room, at)
		if !slices.Equal(a, b) {
			out = append(out, fmt.Sprintf("server 0 holds %d events, server %d %d", len(a), at, len(b)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// lacking tells which events some servers hold and others do not, and which they hold without building on them.
func (w *three) lacking(room string) string {
	var out strings.Builder
	all := map[string]int{}
	for at := range w.servers {
		for _, id := range w.events(room, at) {
			all[id] = at
		}
	}
	for at, s := range w.servers {
		for _, id := range s.SoftFailed(room) {
			fmt.Fprintf(&out, "server %d does not build on %s: %s\n", at, id, s.EventJSON(id))
		}
		held, waiting := w.events(room, at), s.Waiting(room)
		for id, holder := range all {
			if !slices.Contains(held, id) {
				fmt.Fprintf(&out, "server %d lacks %s (waits there: %v): %s\n", at, id, slices.Contains(waiting, id), w.servers[holder].EventJSON(id))
			}
		}
	}
	return out.String()
}

// agree waits until the servers agree about a room.
func (w *three) agree(seed int, room string) {
	w.t.Helper()
	began := time.Now()
	for {
		diff := w.difference(room)
		if diff == "" {
			break
		}
		if time.Since(began) > healTime {
			w.t.Fatalf("seed %d: %s after it was healed the servers differ about %s:\n%s\n%s", seed, healTime, room, diff, w.lacking(room))
		}
		select {
		case <-time.After(50 * time.Millisecond): // between two looks
		case <-w.t.Context().Done():
			return
		}
	}
	w.t.Logf("seed %d: the servers agree after %s", seed, time.Since(began).Round(time.Millisecond))
}

// TestPartitions: three servers that are cut off from one another by turns while power levels, bans and join rules change
// on all sides come to the same state and the same events once they are healed.
func TestPartitions(t *testing.T) {
	seeds := 1
	if os.Getenv("CONCLAVE_LONG") != "" {
		seeds = 50
	}
	versions := []string{"12", "11", "10", "6", "2"}
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := startThree(t, engine)
		for seed := range seeds {
			r := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // chance that can be repeated
			room := w.room(versions[seed%len(versions)])
			w.life(r, room)
			w.agree(seed, room)
		}
		for _, s := range w.servers {
			s.Stop()
			if out, ok := s.Run("verify", "-full"); !ok {
				t.Errorf("%s: %s", s.Name, out)
			}
		}
	})
}

// stateIDs are the event IDs of a state by type and key.
func stateIDs(raw []byte) map[string]string {
	var events []testserver.JSON
	if json.Unmarshal(raw, &events) != nil {
		return nil
	}
	out := map[string]string{}
	for _, e := range events {
		typ, _ := e["type"].(string)
		key, _ := e["state_key"].(string)
		id, _ := e["event_id"].(string)
		out[typ+" "+key] = id
	}
	return out
}
