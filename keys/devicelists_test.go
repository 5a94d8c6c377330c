package keys_test

import (
	"encoding/json"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/keys"
)

func TestDeviceListsFollowRooms(t *testing.T) {
	proof.Of(t, "E2-05")
	each(t, func(t *testing.T, w *world) {
		alice, bob, carol := w.user("alice"), w.user("bob"), w.user("carol")
		for _, p := range []*person{alice, bob, carol} {
			w.publish(p, 0)
		}
		step := func(do func()) store.Pos {
			start := w.pos()
			do()
			return start
		}
		at := step(func() { w.join(1, alice.ID, bob.ID) })
		w.wantChanges(alice, at, []matrix.UserID{bob.ID}, nil)
		w.wantChanges(bob, at, []matrix.UserID{alice.ID}, nil)
		w.wantChanges(carol, at, nil, nil)

		// Another common room is no news; a change is, to those who share a room.
		at = step(func() { w.join(2, alice.ID, bob.ID, carol.ID) })
		w.wantChanges(alice, at, []matrix.UserID{carol.ID}, nil)
		w.wantChanges(carol, at, []matrix.UserID{alice.ID, bob.ID}, nil)
		at = step(func() { w.publish(w.device("bob", "NEW"), 0) })
		w.wantChanges(alice, at, []matrix.UserID{bob.ID}, nil)

		// Leaving one of two rooms is no end; leaving the last is.
		at = step(func() { w.leave(2, bob.ID) })
		w.wantChanges(alice, at, nil, nil)
		w.wantChanges(carol, at, nil, []matrix.UserID{bob.ID})
		w.wantChanges(bob, at, nil, []matrix.UserID{carol.ID})
		at = step(func() { w.leave(1, alice.ID) })
		w.wantChanges(alice, at, nil, []matrix.UserID{bob.ID})
		w.wantChanges(bob, at, nil, []matrix.UserID{alice.ID})

		// What changes meanwhile is told when they meet again, and a profile change after a join hides nothing.
		at = step(func() { w.publish(w.device("alice", "NEW"), 0) })
		w.wantChanges(bob, at, nil, nil)
		at = step(func() { w.join(1, alice.ID) })
		joined := w.pos()
		w.join(1, alice.ID)
		changed, _, err := w.DeviceListChanges(t.Context(), bob.User.NID, at, joined)
		must(t, err)
		if !slices.Equal(changed, []matrix.UserID{alice.ID}) {
			t.Errorf("after they met again bob is told of %v", changed)
		}
		w.wantChanges(bob, joined, nil, nil)

		// In one step: left and joined elsewhere.
		at = step(func() { w.leave(1, alice.ID); w.join(3, alice.ID, bob.ID) })
		w.wantChanges(bob, at, []matrix.UserID{alice.ID}, nil)
	})
}

type update struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id"`
	StreamID int64           `json:"stream_id"`
	PrevID   []int64         `json:"prev_id"`
	Deleted  bool
	Keys     json.RawMessage
	Master   json.RawMessage `json:"master_key"`
	Self     json.RawMessage `json:"self_signing_key"`
	User     json.RawMessage `json:"user_signing_key"`
	typ      string
}

func (w *world) outgoing(server store.ServerNID, after store.Pos, limit int) (list []update, last store.Pos) {
	w.t.Helper()
	edus, last, err := w.OutgoingDeviceLists(w.t.Context(), server, after, w.pos(), limit)
	must(w.t, err)
	for _, e := range edus {
		u := update{typ: e.Type}
		must(w.t, json.Unmarshal(e.Content, &u))
		list = append(list, u)
	}
	return list, last
}

func TestOutgoingDeviceLists(t *testing.T) {
	proof.Of(t, "E2-08", "E2-12")
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.user("alice"), w.user("bob")
		far := matrix.UserID("@far:" + there)
		server, err := w.db.Server(t.Context(), there)
		must(t, err)
		w.publish(alice, 0)
		w.publish(bob, 0)
		concerned := func(since store.Pos, want bool) {
			t.Helper()
			servers, err := w.Concerned(t.Context(), since, w.pos())
			must(t, err)
			if slices.Contains(servers, server) != want || len(servers) > 1 {
				t.Errorf("concerned are %v", servers)
			}
		}
		at := w.pos()
		w.join(1, far, alice.ID)
		concerned(at, true)
		list, last := w.outgoing(server, at, 10)
		if len(list) != 1 || list[0].UserID != alice.ID || len(list[0].PrevID) != 0 || list[0].Keys == nil || last != w.pos() {
			t.Fatalf("on her arrival: %+v", list)
		}
		first := list[0].StreamID

		at = w.pos()
		w.join(2, far, alice.ID) // shared before
		if list, _ := w.outgoing(server, at, 10); len(list) != 0 {
			t.Errorf("a second room: %+v", list)
		}

		// A device, changed twice; another; cross-signing keys; somebody who shares no room.
		second := w.device("alice", "SECOND")
		w.publish(second, 0)
		must(t, w.UploadCrossSigning(t.Context(), alice.User, alice.crossSigning(t), false))
		_, err = w.UploadSignatures(t.Context(), alice.User, keys.Signatures{alice.ID: {
			string(second.DeviceID): sign(t, second.deviceKeys(t), alice.ID, public(alice.self), alice.self),
		}})
		must(t, err)
		must(t, w.UploadCrossSigning(t.Context(), bob.User, bob.crossSigning(t), false))
		concerned(at, true)
		list, _ = w.outgoing(server, at, 10)
		if len(list) != 2 || list[0].typ != "m.signing_key_update" || list[0].Master == nil || list[0].Self == nil || list[0].User != nil ||
			list[1].DeviceID != second.DeviceID || len(list[1].PrevID) != 1 || list[1].PrevID[0] != first {
			t.Fatalf("updates: %+v after %d", list, first)
		}
		if _, ok := matrix.GetString(list[1].Keys, "signatures", string(alice.ID), "ed25519:"+public(alice.self)); !ok {
			t.Errorf("the device goes out without its signature: %s", list[1].Keys)
		}
		newest := list[1].StreamID

		// A page at a time gives the same chain; deletions; what is only for local readers.
		at = w.pos()
		third := w.device("alice", "THIRD")
		w.publish(third, 0)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.DeviceListChanged(alice.User.NID) }))
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.DeleteDevices(alice.User.NID, []matrix.DeviceID{second.DeviceID})
		}))
		page, last := w.outgoing(server, at, 1)
		rest, end := w.outgoing(server, last, 1)
		if len(page) != 1 || len(rest) != 1 || page[0].DeviceID != "THIRD" || page[0].PrevID[0] != newest ||
			!rest[0].Deleted || rest[0].DeviceID != "SECOND" || rest[0].PrevID[0] != page[0].StreamID || end != w.pos() {
			t.Errorf("pages: %+v, %+v", page, rest)
		}
		devices, err := w.UserDevices(t.Context(), alice.ID)
		must(t, err)
		if devices.StreamID != rest[0].StreamID || len(devices.Devices) != 2 || devices.Master == nil {
			t.Errorf("the whole list is %+v", devices)
		}
		_, err = w.UserDevices(t.Context(), far)
		refused(t, err, "M_NOT_FOUND")
		_, err = w.UserDevices(t.Context(), "@nobody:"+matrix.UserID(here))
		refused(t, err, "M_NOT_FOUND")

		// Who shares no room any more is told nothing.
		w.leave(1, far)
		w.leave(2, far)
		at = w.pos()
		w.publish(w.device("alice", "FOURTH"), 0)
		concerned(at, false)
		if list, _ := w.outgoing(server, at, 10); len(list) != 0 {
			t.Errorf("a server without a common room is told %+v", list)
		}
	})
}
