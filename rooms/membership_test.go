package rooms_test

import (
	"encoding/json"
	"testing"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// TestMemberships walks through the life of memberships in a room of every version.
func TestMemberships(t *testing.T) {
	eachLocal(t, func(l *local) {
		for _, v := range matrix.RoomVersions() {
			walkMemberships(l, v)
		}
	})
}

func walkMemberships(l *local, v matrix.RoomVersion) {
	l.t.Helper()
	ctx := l.t.Context()
	alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
	ref := l.create(alice, func(q *rooms.CreateRequest) { q.Preset, q.Version = "private_chat", v })
	by := func(who rooms.Sender, target matrix.UserID) rooms.MemberRequest {
		return rooms.MemberRequest{Room: ref, Sender: who, Target: target, Reason: "because"}
	}
	join := func(who rooms.Sender) error {
		return l.rooms.Join(ctx, rooms.JoinRequest{Room: ref.ID, User: who, Profile: rooms.Profile{DisplayName: "N"}})
	}
	is := func(who rooms.Sender, want string) {
		l.t.Helper()
		if got := l.stands(ref, who); got != want {
			l.t.Fatalf("version %s: %s is %q, want %q", v, who.ID, got, want)
		}
	}
	l.refused("join without invitation", join(bob), "M_FORBIDDEN")
	_, err := l.rooms.Invite(ctx, by(bob, carol.ID))
	l.refused("invitation from outside", err, "M_FORBIDDEN")
	_, err = l.rooms.Invite(ctx, by(alice, bob.ID))
	l.must(err)
	is(bob, "invite")
	_, err = l.rooms.Invite(ctx, by(alice, bob.ID))
	l.must(err) // it may reach a client that lost the first
	l.must(join(bob))
	is(bob, "join")
	l.must(join(bob)) // joining again is nothing
	_, err = l.rooms.Invite(ctx, by(alice, bob.ID))
	l.refused("invitation of somebody inside", err, "M_FORBIDDEN")
	_, err = l.rooms.Kick(ctx, by(bob, alice.ID))
	l.refused("kick without power", err, "M_FORBIDDEN")
	_, err = l.rooms.Kick(ctx, by(alice, carol.ID))
	l.refused("kick of a stranger", err, "M_FORBIDDEN")
	_, err = l.rooms.Kick(ctx, by(alice, bob.ID))
	l.must(err)
	is(bob, "leave")
	if reason, _ := matrix.GetString([]byte(l.current(ref, "m.room.member", string(bob.ID))), "reason"); reason != "because" {
		l.t.Errorf("the reason is %q", reason)
	}
	l.refused("join after a kick", join(bob), "M_FORBIDDEN")
	l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: bob})) // leaving again is nothing
	_, err = l.rooms.Ban(ctx, by(alice, bob.ID))
	l.must(err)
	is(bob, "ban")
	_, err = l.rooms.Invite(ctx, by(alice, bob.ID))
	l.refused("invitation of somebody banned", err, "M_FORBIDDEN")
	l.refused("join of somebody banned", join(bob), "M_FORBIDDEN")
	l.refused("leave of somebody banned", l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: bob}), "M_FORBIDDEN")
	_, err = l.rooms.Unban(ctx, by(alice, carol.ID))
	l.refused("unban of somebody who is not", err, "M_FORBIDDEN")
	_, err = l.rooms.Unban(ctx, by(alice, bob.ID))
	l.must(err)
	is(bob, "leave")
	_, err = l.rooms.Invite(ctx, by(alice, bob.ID))
	l.must(err)
	l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: bob})) // declines
	is(bob, "leave")
	l.refused("leave of a stranger", l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: carol}), "M_NOT_FOUND")
	_, err = l.rooms.Send(ctx, message(ref, bob, "I am out"))
	l.refused("message from outside", err, "M_FORBIDDEN")
	is(alice, "join")
}

// TestMemberEventsAsState sends m.room.member the other way: the same checks hold.
func TestMemberEventsAsState(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice, bob := l.user("alice"), l.user("bob")
		ref := l.create(alice, func(q *rooms.CreateRequest) { q.Preset = "private_chat" })
		for _, c := range []struct{ who, key, content, code string }{
			{"alice", "bob", `{"membership":"invite"}`, "M_INVALID_PARAM"},
			{"alice", string(bob.ID), `{"membership":"away"}`, "M_BAD_JSON"},
			{"alice", string(bob.ID), `{}`, "M_BAD_JSON"},
			{"alice", string(bob.ID), `{"membership":"join"}`, "M_FORBIDDEN"},
			{"bob", string(bob.ID), `{"membership":"join"}`, "M_FORBIDDEN"},
			{"bob", string(bob.ID), `{"membership":"join","join_authorised_via_users_server":"@alice:one.example"}`, "M_BAD_JSON"},
		} {
			_, err := l.state(ref, l.user(c.who), "m.room.member", c.key, c.content)
			l.refused(c.content+" by "+c.who, err, c.code)
		}
		_, err := l.state(ref, alice, "m.room.member", string(bob.ID), `{"membership":"invite"}`)
		l.must(err)
		_, err = l.state(ref, bob, "m.room.member", string(bob.ID), `{"membership":"join","displayname":"Bob"}`)
		l.must(err)
		if l.stands(ref, bob) != "join" {
			l.t.Error("bob is not in")
		}
	})
}

// TestRestrictedRooms lets in who is in another room, through somebody who may invite.
func TestRestrictedRooms(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
		for _, v := range matrix.RoomVersions() {
			if !v.RestrictedJoins() {
				continue
			}
			club := l.create(alice, func(q *rooms.CreateRequest) { q.Version = v })
			rule, err := json.Marshal(map[string]any{"join_rule": "restricted", "allow": []any{map[string]any{"type": "m.room_membership", "room_id": club.ID}}})
			l.must(err)
			ref := l.create(alice, func(q *rooms.CreateRequest) {
				q.Version, q.InitialState = v, []rooms.StateEvent{{Type: "m.room.join_rules", Content: rule}}
			})
			l.refused("join from nowhere", l.rooms.Join(l.t.Context(), rooms.JoinRequest{Room: ref.ID, User: bob}), "M_FORBIDDEN")
			l.join(club, bob)
			l.join(ref, bob)
			if via, _ := matrix.GetString([]byte(l.current(ref, "m.room.member", string(bob.ID))), "join_authorised_via_users_server"); via != string(alice.ID) {
				l.t.Errorf("version %s: let in by %q", v, via)
			}
			_, err = l.rooms.Invite(l.t.Context(), rooms.MemberRequest{Room: ref, Sender: alice, Target: carol.ID})
			l.must(err)
			l.join(ref, carol)
		}
	})
}
