package rooms_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

func (l *local) viewer(ref rooms.Ref, who rooms.Sender) rooms.Viewer {
	l.t.Helper()
	v, err := l.rooms.Viewer(l.t.Context(), ref.NID, who)
	l.must(err)
	return v
}

// TestPagesWalkEverything reads a room's history in both directions with pages of every size: each event comes once, in
// order, whatever the size.
func TestPagesWalkEverything(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		ref := l.create(alice)
		for n := range 60 {
			l.text(ref, alice, fmt.Sprint(n))
		}
		var want []matrix.EventID
		for _, row := range l.timeline(ref) {
			want = append(want, row.Event.ID())
		}
		for _, backward := range []bool{false, true} {
			expected := slices.Clone(want)
			from := rooms.Place{}
			if backward {
				slices.Reverse(expected)
				from = rooms.Newest
			}
			for _, limit := range []int{1, 7, 20, 66, 67, 500} {
				q := rooms.PageRequest{Ref: ref, Viewer: l.viewer(ref, alice), From: from, Backward: backward, Limit: limit}
				if got := l.walk(q); !slices.Equal(got, expected) {
					l.t.Errorf("backward %v in pages of %d: %d events of %d", backward, limit, len(got), len(expected))
				}
				q.Keep = func(row *store.EventRow) bool { return row.Event.Type() == "m.room.message" }
				if got := l.walk(q); len(got) != 60 {
					l.t.Errorf("backward %v in pages of %d: %d messages", backward, limit, len(got))
				}
			}
		}
		middle := want[len(want)/2]
		row, before, after, err := l.rooms.Around(l.t.Context(), ref, l.viewer(ref, alice), middle, 11, nil)
		l.must(err)
		i := len(want) / 2
		if row.Event.ID() != middle || len(before.Events) != 5 || before.Events[0].Event.ID() != want[i-1] || len(after.Events) != 6 || after.Events[0].Event.ID() != want[i+1] {
			l.t.Errorf("around: %d before, %d after", len(before.Events), len(after.Events))
		}
	})
}

// walk reads pages until there is nothing behind them.
func (l *local) walk(q rooms.PageRequest) (ids []matrix.EventID) {
	l.t.Helper()
	for range 1000 {
		page, err := l.rooms.Page(l.t.Context(), q)
		l.must(err)
		if len(page.Events) > q.Limit {
			l.t.Errorf("a page of %d has %d events", q.Limit, len(page.Events))
		}
		for _, row := range page.Events {
			ids = append(ids, row.Event.ID())
		}
		if page.Done {
			return ids
		}
		q.From = page.End
	}
	l.t.Error("the pages do not end")
	return ids
}

// TestEventsStayInTheirRoom asks one room for the events of another.
func TestEventsStayInTheirRoom(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		here, there := l.create(alice), l.create(alice)
		id := l.text(there, alice, "there")
		_, err := l.rooms.EventInRoom(l.t.Context(), here.NID, id)
		l.refused("an event of another room", err, "M_NOT_FOUND")
		_, _, _, err = l.rooms.Around(l.t.Context(), here, l.viewer(here, alice), id, 4, nil)
		l.refused("the surroundings of one", err, "M_NOT_FOUND")
		l.refused("a receipt for one", l.rooms.Receipt(l.t.Context(), here, alice, "m.read", id, ""), "M_NOT_FOUND")
		_, err = l.rooms.Send(l.t.Context(), rooms.SendRequest{Room: here, Sender: alice, Type: "m.room.redaction", Content: fmt.Appendf(nil, `{"redacts":%q}`, id)})
		l.must(err) // it may name what is not here, and does nothing to it
		if l.row(there, id).Flags.Has(store.FlagRedacted) {
			l.t.Error("a redaction reached into another room")
		}
	})
}

// lives are histories of a membership, as what becomes of the viewer between one message and the next.
var lives = []string{
	"", "join", "join leave", "join leave join", "invite", "invite join", "invite leave", "join ban", "join leave invite leave", "join leave invite join leave",
}

// TestVisibility compares who sees what with an oracle that knows nothing but the specification: every visibility,
// every life, and changes of the visibility on the way.
func TestVisibility(t *testing.T) {
	values := []string{"world_readable", "shared", "invited", "joined", "", "nonsense"}
	eachLocal(t, func(l *local) {
		proof.Of(l.t, "HV-01", "HV-02", "HV-03")
		for i, first := range values {
			for n, life := range lives {
				// The second value comes into force half way, so that every pair of neighbours is tried.
				checkVisibility(l, first, values[(i+1+n)%len(values)], life)
			}
		}
	})
}

// moment is what an event's place says for the viewer: the visibility and its membership before and after the event.
type moment struct {
	id                  matrix.EventID
	before, after       string // visibility
	wasMember, isMember string
	own                 bool // it is about the viewer's own membership
	turn                bool // it changes the visibility
}

func checkVisibility(l *local, first, second, life string) {
	l.t.Helper()
	alice, eve := l.user("alice"), l.user("eve")
	ref := l.create(alice)
	visibility, member := "shared", ""
	var moments []moment
	change := func(do func() matrix.EventID, to string) {
		id := do()
		moments = append(moments, moment{id: id, before: visibility, after: to, wasMember: member, isMember: member, turn: to != visibility})
		visibility = to
	}
	set := func(value string) {
		content := fmt.Sprintf(`{"history_visibility":%q}`, value)
		if value == "" {
			content = `{}`
		}
		change(func() matrix.EventID {
			id, err := l.state(ref, alice, "m.room.history_visibility", "", content)
			l.must(err)
			return id
		}, value)
	}
	say := func() { change(func() matrix.EventID { return l.text(ref, alice, "x") }, visibility) }
	set(first)
	say()
	steps := strings.Fields(life)
	for n, step := range steps {
		id := l.becomes(ref, alice, eve, step)
		moments = append(moments, moment{id: id, before: visibility, after: visibility, wasMember: member, isMember: step, own: true})
		member = step
		say()
		if n == len(steps)/2 {
			set(second)
			say()
		}
	}
	if len(steps) == 0 {
		set(second)
		say()
	}
	viewer := l.viewer(ref, eve)
	sees := l.rooms.VisibleTo(ref, viewer)
	for n, m := range moments {
		got, err := sees.May(l.t.Context(), l.row(ref, m.id))
		l.must(err)
		if want := oracle(moments, n); got != want {
			l.t.Errorf("%q then %q, life %q: event %d of %d is visible: %v, want %v", first, second, life, n, len(moments), got, want)
		}
	}
}

// oracle is the specification's text, rule by rule ("Room history visibility", "Server behaviour"), over the moments of a
// whole room. "In all cases except world_readable, a user needs to join a room to view events in that room."
func oracle(moments []moment, n int) bool {
	joinsLater := false
	for _, m := range moments[n:] {
		joinsLater = joinsLater || m.isMember == "join"
	}
	allows := func(visibility, member string) bool {
		switch {
		case visibility == "world_readable":
			return true
		case member == "join":
			return true
		case visibility == "invited":
			return member == "invite" && joinsLater
		case visibility == "joined":
			return false
		}
		return joinsLater // shared, which is also what is not understood
	}
	m := moments[n]
	switch {
	case m.own:
		return allows(m.after, m.wasMember) || allows(m.after, m.isMember)
	case m.turn:
		return allows(m.before, m.isMember) || allows(m.after, m.isMember)
	}
	return allows(m.after, m.isMember)
}

// becomes changes eve's membership and returns the event that did.
func (l *local) becomes(ref rooms.Ref, alice, eve rooms.Sender, step string) matrix.EventID {
	l.t.Helper()
	ctx := context.Background()
	var err error
	switch step {
	case "join":
		l.join(ref, eve)
	case "leave":
		err = l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: eve})
	case "invite":
		_, err = l.rooms.Invite(ctx, rooms.MemberRequest{Room: ref, Sender: alice, Target: eve.ID})
	case "ban":
		_, err = l.rooms.Ban(ctx, rooms.MemberRequest{Room: ref, Sender: alice, Target: eve.ID})
	}
	l.must(err)
	rows := l.timeline(ref)
	return rows[len(rows)-1].Event.ID()
}

// TestCounters follows the running numbers of law 6 through messages, notices, edits, mentions and threads.
func TestCounters(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice, bob := l.user("alice"), l.user("bob")
		ref := l.create(alice)
		l.join(ref, bob)
		var want store.Counts
		send := func(what string, who rooms.Sender, content string, notify, highlight int64) matrix.EventID {
			l.t.Helper()
			req := message(ref, who, "")
			req.Content = []byte(content)
			id, err := l.rooms.Send(l.t.Context(), req)
			l.must(err)
			want.Notify += notify
			want.Highlight += highlight
			if got := l.row(ref, id).Counts; got != want {
				l.t.Errorf("%s: the numbers are %+v, want %+v", what, got, want)
			}
			return id
		}
		root := send("message", bob, `{"msgtype":"m.text","body":"x"}`, 1, 0)
		send("notice", bob, `{"msgtype":"m.notice","body":"x"}`, 0, 0)
		send("edit", bob, fmt.Sprintf(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, root), 0, 0)
		send("@room with the power", alice, `{"msgtype":"m.text","body":"x","m.mentions":{"room":true}}`, 1, 1)
		send("@room without", bob, `{"msgtype":"m.text","body":"x","m.mentions":{"room":true}}`, 1, 0)
		send("@room that is no truth value", alice, `{"msgtype":"m.text","body":"x","m.mentions":{"room":"true"}}`, 1, 0)
		inThread := fmt.Sprintf(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root)
		for n := range 3 {
			want.ThreadNotify = int64(n) + 1
			send("in a thread", bob, inThread, 0, 0)
		}
		want.ThreadNotify, want.ThreadHighlight = 4, 1
		send("@room in a thread", alice, `{"msgtype":"m.text","body":"x","m.mentions":{"room":true},`+inThread[len(`{"msgtype":"m.text","body":"x",`):], 0, 0)
		want.ThreadNotify, want.ThreadHighlight = 0, 0
		id, err := l.state(ref, alice, "m.room.tombstone", "", `{"body":"moved"}`)
		l.must(err)
		want.Notify, want.Highlight = want.Notify+1, want.Highlight+1
		if got := l.row(ref, id).Counts; got != want {
			l.t.Errorf("tombstone: the numbers are %+v, want %+v", got, want)
		}
		other := send("message of a second thread's root", bob, `{"msgtype":"m.text","body":"y"}`, 1, 0)
		want.ThreadNotify = 1
		send("in a second thread", bob, fmt.Sprintf(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, other), 0, 0)
	})
}
