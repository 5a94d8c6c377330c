package clientapi_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// The names of what services are told for encryption, as the proposals have them.
const (
	toDeviceList = "de.sorunome.msc2409.to_device"
	listsOf      = "org.matrix.msc3202.device_lists"
	countsOf     = "org.matrix.msc3202.device_one_time_keys_count"
	unusedOf     = "org.matrix.msc3202.device_unused_fallback_key_types"
)

// newest waits until the newest value that transactions have in a place is the wanted one.
func (b *bridge) newest(what string, want any, path ...string) {
	b.t.Helper()
	var got any
	wait.Until(b.t, what, func() bool {
		for _, one := range b.transactions() {
			if value := testserver.At(one.content, path...); value != nil {
				got = value
			}
		}
		return reflect.DeepEqual(got, want)
	})
}

// device makes a device of a user of the service.
func (b *bridge) device(user, id string) {
	b.t.Helper()
	if a, err := b.as.Do("PUT", acting(testserver.Path("devices", id), user), object{}); err != nil || a.Status != 201 {
		b.t.Fatalf("making the device %s: %v %d %s", id, err, a.Status, a.Raw)
	}
}

// lists waits until a user was named among those whose devices changed, or who left, after so many transactions.
func (b *bridge) lists(which string, user *testserver.User, after int) {
	b.t.Helper()
	wait.Until(b.t, user.ID+" among those who "+which, func() bool {
		for _, one := range b.transactions()[after:] {
			names, _ := testserver.At(one.content, listsOf, which).([]any)
			if slices.Contains(names, any(user.ID)) {
				return true
			}
		}
		return false
	})
}

// A service that encrypts is told of messages to its users' devices, of devices that changed and of keys that are left, and
// gets each message once.
func TestServiceEncrypts(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-02")
		b := newBridge(t, engine, "org.matrix.msc3202: true\n")
		ghost, human := b.ghost("_irc_ghost"), b.server.Register("human")
		b.device(ghost, "ONE")
		bridgeKeys(b, ghost, human)
		bridgeMessages(t, b, ghost, human)
		bridgeLists(b, ghost, human)
	})
}

func bridgeKeys(b *bridge, ghost string, human *testserver.User) {
	b.as.Must("POST", acting("/keys/upload", ghost, "device_id", "ONE"), object{
		"one_time_keys": object{"x:1": "k", "x:2": "k"}, "fallback_keys": object{"y:1": "k"},
	})
	b.newest("the keys that were uploaded", float64(2), countsOf, ghost, "ONE", "x")
	b.newest("the fallback key", []any{"y"}, unusedOf, ghost, "ONE")
	claim := func(algorithm string) {
		human.Must("POST", "/keys/claim", object{"one_time_keys": object{ghost: object{"ONE": algorithm}}})
	}
	claim("x")
	b.newest("one key less", float64(1), countsOf, ghost, "ONE", "x")
	claim("x")
	b.newest("no key", float64(0), countsOf, ghost, "ONE", "x")
	claim("y")
	b.newest("no unused fallback key", []any{}, unusedOf, ghost, "ONE")
}

func bridgeMessages(t *testing.T, b *bridge, ghost string, human *testserver.User) {
	send := func(txn, user, device string, n int) {
		human.Must("PUT", testserver.Path("sendToDevice", "m.test", txn), object{"messages": object{user: object{device: object{"n": n}}}})
	}
	numbered := func(n int) func(object) bool {
		return func(e object) bool { return testserver.At(e, "content", "n") == float64(n) }
	}
	b.answers(answering(503, "{}")) // they come whole, in order and once, whatever is in the way
	for n := range 5 {
		send(fmt.Sprint("m", n), ghost, "ONE", n)
	}
	b.answers(nil)
	last := b.waits(toDeviceList, "the last message", numbered(4))
	if want := (object{"type": "m.test", "sender": human.ID, "content": map[string]any{"n": 4.0}, "to_user_id": ghost, "to_device_id": "ONE"}); !reflect.DeepEqual(last, want) {
		t.Errorf("the message is %v, want %v", last, want)
	}
	shared := b.server.Register("shared_human")
	send("shared", shared.ID, "*", 100)
	b.waits(toDeviceList, "a message for somebody who has clients too", numbered(100))

	const lot = 510 // more than a transaction has, at one position
	for i := range lot {
		b.device(ghost, fmt.Sprint("D", i))
	}
	send("all", ghost, "*", 200)
	send("next", ghost, "ONE", 201)
	b.waits(toDeviceList, "what comes after many", numbered(201))
	var seen []float64
	devices := map[any]bool{}
	for _, e := range b.events(toDeviceList) {
		n, _ := testserver.At(e, "content", "n").(float64)
		if n == 200 {
			devices[e["to_device_id"]] = true
		}
		seen = append(seen, n)
	}
	if !slices.IsSorted(seen) || len(seen) != 5+1+lot+1+1 || len(devices) != lot+1 {
		t.Errorf("%d messages for %d devices came, in the order %v", len(seen), len(devices), seen)
	}
	waiting := func(u *testserver.User, path string) int {
		return len(testserver.Events(testserver.At(u.Must("GET", path, nil).Body, "to_device", "events")))
	}
	wait.Until(t, "what was delivered is gone", func() bool { return waiting(b.as, acting("/sync", ghost, "device_id", "ONE")) == 0 })
	if n := waiting(shared, "/sync"); n != 1 {
		t.Errorf("for somebody's own client %d messages are left, want 1", n)
	}
}

func bridgeLists(b *bridge, ghost string, human *testserver.User) {
	early := b.server.Register("early")
	room := early.CreateRoom(object{"preset": "public_chat"})
	now := len(b.transactions())
	b.as.Must("POST", acting(testserver.Path("join", room), ghost), object{})
	b.lists("changed", early, now)
	now = len(b.transactions())
	human.Join(room)
	b.lists("changed", human, now)
	now = len(b.transactions())
	human.Must("PUT", testserver.Path("devices", human.Device), object{"display_name": "another"})
	b.lists("changed", human, now)
	now = len(b.transactions())
	human.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	b.lists("left", human, now)
}
