package federation_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// at is the ID of a room's state event as the peer has it.
func at(r *peer.Room, typ, key string) matrix.EventID {
	for _, e := range r.State() {
		if e.Members["type"] == typ && e.Members["state_key"] == key {
			return e.ID
		}
	}
	return ""
}

// by makes an event of a user that cites exactly the given events.
func (w *siege) by(sender matrix.UserID, typ string, key *string, content object, prev, auth []matrix.EventID, knobs ...peer.Knob) *peer.Event {
	return w.room.Make(peer.Spec{Type: typ, StateKey: key, Sender: sender, Content: content, Prev: prev, Auth: auth, Apart: true}, knobs...)
}

// usual is what a message of a user of the peer cites as its auth events.
func (w *siege) usual(user matrix.UserID) []matrix.EventID {
	return []matrix.EventID{w.room.Create.ID, at(w.room, "m.room.power_levels", ""), at(w.room, "m.room.member", string(user))}
}

// answers has alice say something and returns what her message follows, as the peer is told it. Her message is what the
// peer's room ends in from then on.
func (w *siege) answers(text string) (prev []string) {
	w.t.Helper()
	id := w.alice.Say(string(w.room.ID), text)
	wait.Until(w.t, text+" at the peer", func() bool {
		for _, c := range w.p.Calls(peer.V1 + "/send/") {
			var body struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			c.JSON(w.t, &body)
			for _, raw := range body.PDUs {
				var pdu struct {
					Prev    []string `json:"prev_events"`
					Content struct {
						Body string `json:"body"`
					} `json:"content"`
				}
				if json.Unmarshal(raw, &pdu) == nil && pdu.Content.Body == text {
					w.room.Accept(raw, matrix.EventID(id))
					prev = pdu.Prev
					return true
				}
			}
		}
		return false
	})
	return prev
}

// takes sends events and one that is as it should be, waits until alice sees that one, and returns the verdicts.
func (w *siege) takes(good string, events ...*peer.Event) peer.Verdicts {
	w.t.Helper()
	last := w.message(good)
	v := w.send(good, append(events, last)...)
	if verdict, judged := v[last.ID]; !judged || verdict != "" {
		w.t.Errorf("the event as it should be, %s, is judged %q (%v)", good, verdict, judged)
	}
	w.sees(good)
	return v
}

// hidden checks that alice sees nothing that begins with "bad", and that her next message follows none of the events.
func (w *siege) hidden(what string, events ...*peer.Event) {
	w.t.Helper()
	for _, body := range w.bodies() {
		if strings.HasPrefix(body, "bad") {
			w.t.Errorf("%s: alice sees %q", what, body)
		}
	}
	prev := w.answers("after " + what)
	for _, e := range events {
		if slices.Contains(prev, string(e.ID)) {
			w.t.Errorf("%s: our event follows %s, %s", what, e.ID, e.JSON)
		}
	}
}

// content is the content of a state event as alice sees it, nil if there is none.
func (w *siege) content(typ string) object {
	w.t.Helper()
	a, err := w.alice.Do("GET", testserver.Path("rooms", string(w.room.ID), "state", typ, ""), nil)
	if err != nil || a.Status != 200 && a.Status != 404 {
		w.t.Fatalf("%s: %v %v", typ, a, err)
	}
	if a.Status == 404 {
		return nil
	}
	return a.Body
}

// TestHostileGraph is threats F07 to F09, F11 and F12 on a whole server, before and after a restart: a peer that signs
// everything as it should cites what does not belong, and so tries to take a room over, to come back into it, to put its
// events where they are not due, and to make the room costly for others.
func TestHostileGraph(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "F07", "F08", "F09", "F11", "F12", "AU-03", "PD-02", "PD-03", "PD-07")
		w := besiege(t, engine, 10, nil)
		w.citesWhatDoesNotBelong()
		w.standsOnRejected()
		w.comesBack()
		w.liesAboutDepth()
		w.redactsTheCreation()
		ends := 500
		switch {
		case os.Getenv("CONCLAVE_LONG") != "":
			ends = 5000
		case engine == "postgres": // which ends stay is decided before the database hears of it
			ends = 100
		}
		w.manyEnds(ends)
		bodies := w.bodies()
		w.s.Stop()
		if out, ok := w.s.Run("verify", "-full"); !ok {
			t.Errorf("the database afterwards: %s", out)
		}
		w.s.Start()
		if got := w.bodies(); !slices.Equal(got, bodies) {
			t.Errorf("after a restart the room says %q", got)
		}
		w.alice.Say(string(w.room.ID), "and on")
	})
}

// citesWhatDoesNotBelong sends events whose auth events are of another room, twice the same, or none of theirs (F07, F08).
func (w *siege) citesWhatDoesNotBelong() {
	w.t.Helper()
	bob := w.p.User("bob")
	other := w.p.NewRoom(w.room.Version, "mallory")
	other.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(bob)), Sender: bob, Content: object{"membership": "join"}})
	other.Make(peer.Spec{Type: "m.room.power_levels", StateKey: peer.Key(""), Content: object{"users": object{string(w.room.Creator): 100, string(bob): 100}}})
	other.Host(nil)
	w.alice.Join(string(other.ID), string(w.p.Name)) // so that all that is cited is here
	w.room.Host(nil)
	before := at(w.room, "m.room.power_levels", "")
	w.takes("levels", w.room.Make(peer.Spec{Type: "m.room.power_levels", StateKey: peer.Key(""), Content: object{"users": object{string(w.room.Creator): 100}}}))
	create, levels, member := w.room.Create.ID, at(w.room, "m.room.power_levels", ""), at(w.room, "m.room.member", string(bob))
	foreign := at(other, "m.room.power_levels", "")
	tip := []matrix.EventID{w.room.Events()[len(w.room.Events())-1].ID}
	var events []*peer.Event
	for name, auth := range map[string][]matrix.EventID{
		"levels of another room":   {create, foreign, member},
		"creation of another room": {other.Create.ID, levels, member},
		"member of another room":   {create, levels, at(other, "m.room.member", string(bob))},
		"both rooms":               {create, levels, foreign, member},
		"the same twice":           {create, levels, levels, member},
		"old and new levels":       {create, before, levels, member},
		"the history's visibility": {create, levels, member, at(w.room, "m.room.history_visibility", "")},
		"another member":           {create, levels, member, at(w.room, "m.room.member", string(w.room.Creator))},
		"no creation":              {levels, member},
		"no membership":            {create, levels},
		"nothing":                  {},
	} {
		events = append(events, w.by(bob, "m.room.message", nil, object{"msgtype": "m.text", "body": "bad: " + name}, tip, auth))
	}
	events = append(events, w.by(bob, "m.room.name", peer.Key(""), object{"name": "bob's"}, tip, []matrix.EventID{create, foreign, member}))
	w.takes("after what does not belong", events...)
	w.hidden("what does not belong", events...)
	if got := w.content("m.room.name"); got != nil {
		w.t.Errorf("by the levels of another room the room is called %v", got)
	}
}

// standsOnRejected sends a coup, what stands on it, and what only follows it, twice (F09).
func (w *siege) standsOnRejected() {
	w.t.Helper()
	bob := w.p.User("bob")
	usual := w.usual(bob)
	tip := []matrix.EventID{w.room.Events()[len(w.room.Events())-1].ID}
	coup := w.by(bob, "m.room.power_levels", peer.Key(""), object{"users": object{string(bob): 100}}, tip, usual)
	stands := []matrix.EventID{usual[0], coup.ID, usual[2]}
	use := w.by(bob, "m.room.name", peer.Key(""), object{"name": "bob's"}, []matrix.EventID{coup.ID}, stands)
	word := w.by(bob, "m.room.message", nil, object{"msgtype": "m.text", "body": "bad: by what was rejected"}, tip, stands)
	follows := w.room.Make(peer.Spec{Type: "m.room.message", Sender: bob, Content: object{"msgtype": "m.text", "body": "only follows"}, Prev: []matrix.EventID{use.ID}})
	for _, again := range []string{"once", "twice"} {
		w.takes("the coup "+again, coup, use, word, follows)
		w.sees("only follows")
		w.hidden("the coup "+again, coup, use, word)
		if users, _ := w.content("m.room.power_levels")["users"].(object); users[string(bob)] != nil || w.content("m.room.name") != nil {
			w.t.Errorf("the coup %s: the powers are %v, the room is called %v", again, users, w.content("m.room.name"))
		}
		for _, e := range []*peer.Event{coup, use, word} {
			if slices.Contains(w.s.EventIDs(string(w.room.ID)), string(e.ID)) {
				w.t.Errorf("the coup %s: %s is held as an event of the room", again, e.JSON)
			}
		}
	}
}

// comesBack bans a user who then speaks from before the ban (F11).
func (w *siege) comesBack() {
	w.t.Helper()
	eve := w.p.User("eve")
	join := w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(eve)), Sender: eve, Content: object{"membership": "join"}})
	auth := w.usual(eve)
	w.takes("before the ban", join)
	old := []matrix.EventID{w.room.Events()[len(w.room.Events())-1].ID}
	w.takes("the ban", w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(eve)), Content: object{"membership": "ban"}}))
	word := w.by(eve, "m.room.message", nil, object{"msgtype": "m.text", "body": "bad: still here"}, old, auth)
	again := w.by(eve, "m.room.member", peer.Key(string(eve)), object{"membership": "join", "displayname": "back"}, old, append(auth, at(w.room, "m.room.join_rules", "")))
	w.takes("the evasion", word, again)
	w.hidden("the evasion", word, again)
	// What an honest member cites is kept, and still not shown.
	cites := w.room.Make(peer.Spec{Type: "m.room.message", Sender: w.p.User("bob"), Content: object{"msgtype": "m.text", "body": "cites it"},
		Prev: []matrix.EventID{word.ID, w.room.Events()[len(w.room.Events())-1].ID}})
	w.takes("behind the evasion", cites)
	w.sees("cites it")
	w.hidden("the evasion that is cited", word, again)
	a := w.alice.Must("GET", testserver.Path("rooms", string(w.room.ID), "state", "m.room.member", string(eve)), nil)
	if a.Body["membership"] != "ban" {
		w.t.Errorf("eve is %s", a.Raw)
	}
}

// liesAboutDepth sends depths that are none (F12): each is dropped, and the event beside them is delivered.
func (w *siege) liesAboutDepth() {
	w.t.Helper()
	var events []*peer.Event
	for _, depth := range []any{-1, json.Number("9007199254740992"), json.Number("9223372036854775807"), json.Number("18446744073709551616"), "1", json.Number("1.5"), true, nil} {
		events = append(events, w.apart(fmt.Sprint("bad depth ", depth), peer.Set("depth", depth)))
	}
	verdicts := w.takes("beside the depths", events...)
	for _, e := range events {
		if verdict, judged := verdicts[e.ID]; judged && verdict == "" {
			w.t.Errorf("taken: %s", e.JSON)
		}
	}
	w.hidden("the depths", events...)
	// The greatest that there is puts nothing out of order.
	w.takes("the deepest", w.apart("as deep as can be", peer.Set("depth", json.Number("9007199254740991"))))
	if got := w.bodies(); !slices.Equal(got[:2], []string{"the deepest", "as deep as can be"}) {
		w.t.Errorf("alice reads %q", got[:2])
	}
}

// redactsTheCreation sends the redaction of the event that says the room's version, of which only the creator would be left:
// the room keeps it, and its version (F08).
func (w *siege) redactsTheCreation() {
	w.t.Helper()
	redaction := w.room.Make(peer.Spec{Type: "m.room.redaction"}, peer.Set("redacts", string(w.room.Create.ID)))
	w.takes("behind the redaction", redaction)
	if got := w.content("m.room.create"); got["room_version"] != w.room.Version.String() {
		w.t.Errorf("after its redaction the creation is %v", got)
	}
	for life := range 2 {
		user := w.p.User(fmt.Sprint("late", life))
		uri := peer.V1 + testserver.Path("make_join", string(w.room.ID), string(user))
		for query, status := range map[string]int{"?ver=" + w.room.Version.String(): 200, "?ver=1": 400} {
			a := w.p.Do(w.t, w.us, "GET", uri+query, nil)
			if v, _ := matrix.GetString(a.Body, "room_version"); a.Status != status || v != w.room.Version.String() {
				w.t.Errorf("a join after the redaction, %s: %d %s", query, a.Status, a.Body)
			}
		}
		w.answers(fmt.Sprint("after the redaction ", life))
		w.takes(fmt.Sprint("and after that ", life))
		if life == 0 {
			w.s.Stop() // what is remembered of the version is in the database
			w.s.Start()
		}
	}
}

// manyEnds makes hundreds of events that all follow the creation, or one old message, so that each is an end of the
// room (F12): what alice sends stays quick, follows few of them, and joins them. The state that each resolution has to
// make anew stays what it was.
func (w *siege) manyEnds(n int) {
	w.t.Helper()
	mallory, bob := w.room.Creator, w.p.User("bob")
	usual, create := w.usual(bob), []matrix.EventID{w.room.Create.ID}
	root := []matrix.EventID{w.room.Events()[len(w.room.Events())-1].ID}
	levels := w.content("m.room.power_levels")
	var batch []*peer.Event
	for i := range n {
		content := object{"msgtype": "m.text", "body": fmt.Sprint("end ", i)}
		e := w.by(bob, "m.room.message", nil, content, root, usual)
		switch i % 25 {
		case 0: // what may follow the creation: that its maker joins
			e = w.by(mallory, "m.room.member", peer.Key(string(mallory)), object{"membership": "join", "displayname": fmt.Sprint(i)}, create, create)
		case 5: // and what may not
			e = w.by(bob, "m.room.message", nil, object{"msgtype": "m.text", "body": fmt.Sprint("bad: follows the creation ", i)}, create, usual)
		}
		if batch = append(batch, e); len(batch) == 50 {
			w.send(fmt.Sprint("ends", i), batch...)
			batch = nil
		}
	}
	last := w.by(bob, "m.room.message", nil, object{"msgtype": "m.text", "body": "the last end"}, root, usual)
	w.send("the last end", last)
	w.sees("the last end")
	fastest := time.Hour
	for i := range 10 {
		began := time.Now()
		w.alice.Say(string(w.room.ID), fmt.Sprint("quick ", i))
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 200*time.Millisecond {
		w.t.Errorf("among %d ends the fastest message takes %s", n, fastest)
	}
	w.t.Logf("among %d ends a message takes %s", n, fastest)
	if got := w.answers("joins the ends"); len(got) != 1 {
		w.t.Errorf("after our messages the room still has %d ends", len(got))
	}
	most := 0
	for _, c := range w.p.Calls(peer.V1 + "/send/") {
		var body struct {
			PDUs []struct {
				Prev []any `json:"prev_events"`
			} `json:"pdus"`
		}
		c.JSON(w.t, &body)
		for _, pdu := range body.PDUs {
			most = max(most, len(pdu.Prev))
		}
	}
	if most < 2 || most > 20 {
		w.t.Errorf("what we sent follows up to %d events, want some and at most 20", most)
	}
	w.hidden("the ends")
	if got := members(w.alice, string(w.room.ID)); !slices.Contains(got, string(bob)) || !slices.Contains(got, string(mallory)) || !slices.Contains(got, w.alice.ID) {
		w.t.Errorf("the members are %v", got)
	}
	if got := w.content("m.room.power_levels"); fmt.Sprint(got) != fmt.Sprint(levels) {
		w.t.Errorf("the powers are %v, and were %v", got, levels)
	}
}
