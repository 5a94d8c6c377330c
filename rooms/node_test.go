package rooms

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
)

// node is a server of ours in the test.
type node struct {
	*Rooms
	t  *testing.T
	db *store.DB
	w  *world
}

func newNode(t *testing.T, db *store.DB, w *world) *node {
	t.Helper()
	return newNodeNamed(t, db, w, ours)
}

// newNodeNamed is newNode by another name than ours.
func newNodeNamed(t *testing.T, db *store.DB, w *world, name matrix.ServerName) *node {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r, err := New(ctx, Options{
		DB: db, Identity: Identity{Name: name, KeyID: keyID, Key: newKey(name)}, Source: w, Bus: cluster.NewLocal(), Clock: w.now,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &node{Rooms: r, t: t, db: db, w: w}
}

// sender is a user of ours.
func (n *node) sender(id matrix.UserID) Sender {
	n.t.Helper()
	u, err := n.User(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return Sender{NID: u.NID, ID: id}
}

// join joins the world's room and returns it.
func (n *node) join() Ref {
	n.t.Helper()
	if err := n.tryJoin(near); err != nil {
		n.t.Fatal(err)
	}
	return n.ref()
}

func (n *node) tryJoin(via ...matrix.ServerName) error {
	return n.Join(n.t.Context(), JoinRequest{Room: n.w.room, User: n.sender(me), Via: via})
}

func (n *node) ref() Ref {
	n.t.Helper()
	ref, err := n.Lookup(n.t.Context(), n.w.room)
	if err != nil {
		n.t.Fatal(err)
	}
	return ref
}

// deliver brings events as a transaction of a server does, and returns the verdicts.
func (n *node) deliver(from matrix.ServerName, raws ...json.RawMessage) []Admitted {
	n.t.Helper()
	verdicts := n.Admit(n.t.Context(), from, raws)
	if err := n.db.Write(n.t.Context(), func(tx *store.Tx) error { return n.Stage(tx, from, verdicts) }); err != nil {
		n.t.Fatal(err)
	}
	return verdicts
}

func raws(events ...*matrix.Event) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, ev := range events {
		out[i] = ev.JSON()
	}
	return out
}

// bring is deliver for events that pass Admit; it returns once none of them waits.
func (n *node) bring(events ...*matrix.Event) {
	n.t.Helper()
	for _, v := range n.deliver(near, raws(events...)...) {
		if v.Err != nil {
			n.t.Fatalf("%s: %v", v.ID, v.Err)
		}
	}
	n.settled()
}

// settled waits until no drain is at work.
func (n *node) settled() {
	n.t.Helper()
	if err := n.abroad.Wait(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// row is what is held of an event, nil if nothing.
func (n *node) row(ref Ref, id matrix.EventID) *store.EventRow {
	n.t.Helper()
	var row *store.EventRow
	err := n.db.Read(n.t.Context(), func(tx *store.Tx) (err error) {
		row, err = tx.EventInRoom(ref.NID, id)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return row
}

// state is the room's current state.
func (n *node) state(ref Ref) worldState {
	n.t.Helper()
	now, err := n.CurrentState(n.t.Context(), ref.NID)
	if err != nil {
		n.t.Fatal(err)
	}
	rows, err := n.AllState(n.t.Context(), ref.NID, now, true)
	if err != nil {
		n.t.Fatal(err)
	}
	out := worldState{}
	for _, row := range rows {
		k, _ := row.Event.StateKey()
		out[stateres.StateKey{Type: row.Event.Type(), Key: k}] = row.Event.ID()
	}
	return out
}

// bodies are the texts of the room's messages in the order of its timeline, as a user sees them.
func (n *node) bodies(ref Ref, user matrix.UserID) []string {
	n.t.Helper()
	viewer, err := n.Viewer(n.t.Context(), ref.NID, n.sender(user))
	if err != nil {
		n.t.Fatal(err)
	}
	page, err := n.Page(n.t.Context(), PageRequest{Ref: ref, Viewer: viewer, Limit: 1000})
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, row := range page.Events {
		if body, ok := matrix.GetString(row.Event.Content(), "body"); ok {
			out = append(out, body)
		}
	}
	return out
}

// ends are the events that the next one of ours would follow.
func (n *node) ends(ref Ref) []matrix.EventID {
	n.t.Helper()
	ids, err := n.endIDs(n.t.Context(), ref)
	if err != nil {
		n.t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// say sends a message of ours and puts it into the world's graph.
func (n *node) say(ref Ref, text string) *matrix.Event {
	n.t.Helper()
	id, err := n.Send(n.t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.message", Content: []byte(fmt.Sprintf(`{"body":%q}`, text))})
	if err != nil {
		n.t.Fatal(err)
	}
	return n.w.add(n.row(ref, id).Event)
}

// sameState fails the test unless the room's state is the world's behind events.
func (n *node) sameState(ref Ref, ends ...matrix.EventID) {
	n.t.Helper()
	if diff := n.stateDiff(ref, ends...); diff != "" {
		n.t.Error(diff)
	}
}

// stateDiff says where the room's state is not the world's behind events.
func (n *node) stateDiff(ref Ref, ends ...matrix.EventID) (diff string) {
	n.t.Helper()
	want, have := n.w.before(ends), n.state(ref)
	for k, id := range want {
		if have[k] != id {
			diff += fmt.Sprintf("state (%s, %q) is %s, want %s\n", k.Type, k.Key, have[k], id)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			diff += fmt.Sprintf("state (%s, %q) should not be\n", k.Type, k.Key)
		}
	}
	n.sameMembers(ref, have)
	return diff
}

// sameMembers fails the test unless the projection of members is what the state says.
func (n *node) sameMembers(ref Ref, state worldState) {
	n.t.Helper()
	for k, id := range state {
		if k.Type != "m.room.member" {
			continue
		}
		want := n.row(ref, id).Event.Membership()
		row, err := n.Membership(n.t.Context(), ref.NID, n.sender(matrix.UserID(k.Key)).NID)
		if err != nil {
			n.t.Fatal(err)
		}
		if row == nil || row.Membership.String() != want {
			n.t.Errorf("%s is %v in the projection, %s in the state", k.Key, row, want)
		}
	}
}
