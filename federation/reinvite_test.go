package federation_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// invite makes an invitation of alice by the room's creator that is no part of the room yet.
func (w *siege) invite() *peer.Event {
	return w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(w.alice.ID), Content: object{"membership": "invite"}, Apart: true})
}

// offer hands an invitation in as the server of who invites does.
func (w *siege) offer(e *peer.Event) peer.Answer {
	body, err := json.Marshal(object{
		"room_version": w.room.Version.String(), "event": json.RawMessage(e.JSON), "invite_room_state": []json.RawMessage{w.room.Create.JSON},
	})
	if err != nil {
		w.t.Error(err)
		return peer.Answer{}
	}
	return w.p.Do(w.t, w.us, "PUT", peer.V2+"/invite/"+url.PathEscape(string(w.room.ID))+"/"+url.PathEscape(string(e.ID)), body)
}

// kick removes alice from the room.
func (w *siege) kick() *peer.Event {
	return w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(w.alice.ID), Content: object{"membership": "leave"}})
}

// race sends a removal and an invitation after it, in one of three orders, and returns how the invitation is answered.
func (w *siege) race(round int, kick, invite *peer.Event) (answer peer.Answer) {
	w.t.Helper()
	remove := func() {
		if v := w.send(fmt.Sprint("kick", round), kick)[kick.ID]; v != "" {
			w.t.Errorf("round %d: the removal is refused: %s", round, v)
		}
	}
	switch round % 3 {
	case 0: // the removal is taken, so that the invitation counts
		remove()
		return w.offer(invite)
	case 1:
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer = w.offer(invite)
		}()
		remove()
		<-done
	default:
		answer = w.offer(invite)
		remove()
	}
	return answer
}

// TestRemovalsRaceWithInvitations is threats F28: the only member that we have in a room is removed and invited again at
// the same time. Whatever comes first, she stands where the other server has her by what we answered it, and once nobody
// of ours is in the room nothing of it is taken in.
func TestRemovalsRaceWithInvitations(t *testing.T) {
	proof.Of(t, "F28")
	rounds := 12
	if os.Getenv("CONCLAVE_LONG") != "" {
		rounds = 1000
	}
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 12, nil)
		room := string(w.room.ID)
		taken := w.message("while she is in")
		if v, judged := w.send("control", taken)[taken.ID]; !judged || v != "" {
			t.Fatalf("an event of a room that she is in is judged %v, %q", judged, v)
		}
		since, answered := "", map[int]int{}
		for i := range rounds {
			kick := w.kick()
			invite := w.invite()
			a := w.race(i, kick, invite)
			answered[a.Status]++
			want := "leave"
			switch a.Status {
			case 200:
				want = "invite"
				w.room.Accept(invite.JSON, invite.ID)
			case 403: // it came before the removal
				if i%3 == 0 {
					t.Fatalf("round %d: her removal was taken, but the invitation after it is answered %s", i, a.Body)
				}
			default:
				t.Fatalf("round %d: the invitation is answered %d %s", i, a.Status, a.Body)
			}
			since = w.alice.SyncUntil(since, "the end of round "+fmt.Sprint(i)+", "+want, section(want, room))
			if i%2 == 0 && want == "invite" { // the same again, as part of a transaction
				w.send(fmt.Sprint("invite", i), invite)
			}
			now := w.alice.Sync("", 0)
			if invited := testserver.At(now, "rooms", "invite", room) != nil; invited != (want == "invite") || testserver.At(now, "rooms", "join", room) != nil {
				t.Fatalf("round %d: the invitation was answered %d, alice sees %v", i, a.Status, now["rooms"])
			}
			w.alice.Join(room, string(w.p.Name))
		}
		if answered[200] == 0 || answered[403] == 0 {
			t.Errorf("the rounds were answered %v, which is not every order", answered)
		}

		last := w.kick()
		w.send("last", last)
		w.alice.SyncUntil(since, "the last removal", section("leave", room))
		late := w.message("to nobody")
		if v, judged := w.send("late", late)[late.ID]; judged && v == "" { // one that is refused unread has no ID to answer by
			t.Error("an event of a room that nobody of ours is in was taken")
		}
	})
}
