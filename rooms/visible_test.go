package rooms

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// visibilities are all values of history_visibility: the four, none, and one that nobody understands.
var visibilities = []string{"world_readable", "shared", "invited", "joined", "", "nonsense"}

// TestMayBeSeen is the rule as a table, whole: a letter for each visibility at which an event may be seen (w, s, i, j), by
// what the user was and whether it was in the room later.
func TestMayBeSeen(t *testing.T) {
	for _, c := range []struct {
		was          store.Membership
		later, never string // seen if the user was in the room later, or was not
	}{
		{store.NotMember, "ws", "w"},
		{store.Join, "wsij", "wsij"},
		{store.Invite, "wsi", "w"},
		{store.Leave, "ws", "w"},
		{store.Ban, "ws", "w"},
		{store.Knock, "ws", "w"},
	} {
		for _, text := range visibilities {
			content := fmt.Sprintf(`{"history_visibility":%q}`, text)
			letter := "s" // the default
			if text == "" {
				content = `{}`
			} else if text != "nonsense" {
				letter = text[:1]
			}
			visibility := matrix.ParseHistoryVisibility([]byte(content))
			for later, want := range map[bool]string{true: c.later, false: c.never} {
				if got := mayBeSeen(visibility, c.was, later); got != strings.Contains(want, letter) {
					t.Errorf("visibility %q, membership %q, in the room later %v: seen %v", text, c.was, later, got)
				}
			}
		}
	}
}

// memberLives are what becomes of a user between one message and the next.
var memberLives = []string{
	"", "join", "join leave", "join leave join", "invite", "invite join", "invite leave", "join ban", "join leave invite leave",
	"join leave invite join leave", "invite join leave invite",
}

// TestServersSeeWhatTheirUsersMay brings users of other servers through every life under every visibility and change of
// it. One server has two of them, whose lives differ: it may have what either of them may see, and nothing else. The rule
// for one user is held against the specification by TestVisibility.
func TestServersSeeWhatTheirUsersMay(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for i, first := range visibilities {
			w := newWorldNamed(t, 11, matrix.RoomID(fmt.Sprintf("!seen%d:near.test", i)))
			n := newNode(t, db, w)
			ref := n.join()
			liveThrough(w, first, visibilities[(i+1)%len(visibilities)])
			events := w.pendingEvents(n, ref)
			n.bring(events...)
			for k := range memberLives {
				n.sameAsUsers(ref, events, fmt.Sprintf("s%d.test", k))
			}
		}
	})
}

// pair are the users of a server of the test, by its number: their lives are that one and the next.
func pair(k int) [2]matrix.UserID {
	return [2]matrix.UserID{matrix.UserID(fmt.Sprintf("@a:s%d.test", k)), matrix.UserID(fmt.Sprintf("@b:s%d.test", k))}
}

// liveThrough lets everybody take a step in turn, with a message after each, under one visibility and then another.
func liveThrough(w *world, first, second string) {
	w.t.Helper()
	set := func(value string) {
		content := map[string]any{"history_visibility": value}
		if value == "" {
			content = map[string]any{}
		}
		w.send(alice, "m.room.history_visibility", key(""), content)
		w.say(alice, "the visibility is "+value)
	}
	set(first)
	for step := range 5 {
		if step == 2 {
			set(second)
		}
		for k := range memberLives {
			w.keys[matrix.ServerName(fmt.Sprintf("s%d.test", k))] = newKey(matrix.ServerName(fmt.Sprintf("s%d.test", k)))
			for which, user := range pair(k) {
				if life := strings.Fields(memberLives[(k+which)%len(memberLives)]); step < len(life) {
					w.step(user, life[step])
				}
			}
		}
		w.say(alice, "a step further")
	}
}

// step changes what a user is in the room.
func (w *world) step(user matrix.UserID, to string) {
	w.t.Helper()
	sender := user
	if to == "invite" || to == "ban" {
		sender = alice
	}
	w.member(sender, user, to)
}

// pendingEvents are the events of the world, in their order, that a node does not hold.
func (w *world) pendingEvents(n *node, ref Ref) []*matrix.Event {
	n.t.Helper()
	var out []*matrix.Event
	for id := w.tip; n.row(ref, id) == nil; id = w.all[id].PrevEvents()[0] {
		out = append([]*matrix.Event{w.all[id]}, out...)
	}
	return out
}

// sameAsUsers compares what a server may have with what its users may see.
func (n *node) sameAsUsers(ref Ref, events []*matrix.Event, server string) {
	n.t.Helper()
	ctx := n.t.Context()
	var users []*Visibility
	ever := false
	for _, id := range []matrix.UserID{matrix.UserID("@a:" + server), matrix.UserID("@b:" + server)} {
		viewer, err := n.Viewer(ctx, ref.NID, n.sender(id))
		if err != nil {
			n.t.Fatal(err)
		}
		users = append(users, n.VisibleTo(ref, viewer))
		ever = ever || viewer.Member != nil && viewer.Member.Joined != 0
	}
	theirs, err := n.VisibleToServer(ctx, ref, matrix.ServerName(server))
	if !ever {
		var refused *matrix.Error
		if !errors.As(err, &refused) || refused.Code != "M_FORBIDDEN" {
			n.t.Errorf("%s never was in the room and is answered %v", server, err)
		}
		return
	}
	if err != nil {
		n.t.Fatal(err)
	}
	for at, ev := range events {
		row := n.row(ref, ev.ID())
		want := false
		for _, v := range users {
			ok, err := v.May(ctx, row)
			if err != nil {
				n.t.Fatal(err)
			}
			want = want || ok
		}
		got, err := theirs.May(ctx, row)
		if err != nil {
			n.t.Fatal(err)
		}
		if got != want {
			k, _ := ev.StateKey()
			n.t.Errorf("%s may have event %d (%s %s %s): %v, its users may see it: %v", server, at, ev.Type(), k, ev.Content(), got, want)
		}
	}
}
