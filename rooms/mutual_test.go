package rooms

import (
	"errors"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestMutualRooms: the rooms that two users share come in pages, whose tokens are opaque, last for ten minutes at least,
// and mean nothing to anybody else.
func TestMutualRooms(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RM-19", "ID-09")
		at := time.Unix(1_800_000_000, 0)
		n := startNode(t, db, func(o *Options) { o.Clock = func() time.Time { return at } })
		enter := func(ref Ref, u Sender) {
			if err := n.Join(t.Context(), JoinRequest{Room: ref.ID, User: u}); err != nil {
				t.Fatal(err)
			}
		}
		leave := func(ref Ref, u Sender) {
			if err := n.Leave(t.Context(), MemberRequest{Room: ref, Sender: u, Target: u.ID}); err != nil {
				t.Fatal(err)
			}
		}
		alice, bob, eve := n.sender("@alice:ours.test"), n.sender("@bob:ours.test"), n.sender("@eve:ours.test")
		var shared []matrix.RoomID
		for i := range 8 {
			ref := n.roomOf(alice)
			if i%2 == 0 {
				enter(ref, bob)
				shared = append(shared, ref.ID)
			}
		}
		left, gone := n.roomOf(alice), n.roomOf(bob)
		enter(left, bob)
		leave(left, bob)
		enter(gone, alice)
		leave(gone, alice)

		var got []matrix.RoomID
		tokens := []string{""}
		for {
			page, err := n.mutual(t.Context(), alice, bob.ID, tokens[len(tokens)-1], 2)
			if err != nil || page.Count != len(shared) || len(page.Rooms) == 0 {
				t.Fatalf("%+v, %v", page, err)
			}
			if got = append(got, page.Rooms...); page.Next == "" {
				break
			}
			if !matrix.IsOpaque(page.Next) || len(page.Rooms) != 2 {
				t.Errorf("%+v", page)
			}
			tokens = append(tokens, page.Next)
			at = at.Add(10 * time.Minute)
		}
		if !slices.Equal(got, shared) {
			t.Errorf("got %v, want %v", got, shared)
		}
		for _, other := range []matrix.UserID{eve.ID, "@nobody:far.test"} {
			if page, err := n.Mutual(t.Context(), alice, other, ""); err != nil || page.Count != 0 || page.Rooms == nil || len(page.Rooms) != 0 {
				t.Errorf("with %s: %+v, %v", other, page, err)
			}
		}
		wrong := func(what string, user Sender, other matrix.UserID, from string) {
			t.Helper()
			var e *matrix.Error
			if page, err := n.Mutual(t.Context(), user, other, from); !errors.As(err, &e) || e.Status != 400 || e.Code != "M_INVALID_PARAM" {
				t.Errorf("%s: %+v, %v", what, page, err)
			}
		}
		last := tokens[len(tokens)-1]
		wrong("oneself", alice, alice.ID, "")
		wrong("no token", alice, bob.ID, "x y")
		wrong("a token that is cut", alice, bob.ID, last[:20])
		wrong("a token that was changed", alice, bob.ID, "BBBB"+last[4:])
		wrong("a token of somebody else", eve, bob.ID, last)
		wrong("a token of another pair", alice, eve.ID, last)
		at = at.Add(time.Hour)
		wrong("an old token", alice, bob.ID, last)
	})
}
