package rooms_test

import (
	"encoding/json"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

func (l *local) upgrade(ref rooms.Ref, who rooms.Sender, v matrix.RoomVersion, creators ...matrix.UserID) rooms.Ref {
	l.t.Helper()
	id, err := l.rooms.Upgrade(l.t.Context(), rooms.UpgradeRequest{Room: ref, User: who, Version: v, Creators: creators})
	l.must(err)
	made, err := l.rooms.Lookup(l.t.Context(), id)
	l.must(err)
	return made
}

func (l *local) member(content, name string) string {
	raw, _ := matrix.Get([]byte(content), name)
	return string(raw)
}

func TestUpgrade(t *testing.T) {
	eachLocal(t, func(l *local) {
		proof.Of(l.t, "RM-05")
		alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
		alias := matrix.RoomAlias("#" + strings.ToLower(strings.TrimPrefix(string(alice.ID), "@")))
		old := l.create(alice, func(q *rooms.CreateRequest) {
			q.Version, q.Visibility, q.Name, q.Alias = 9, "public", "Old", alias
			q.CreationContent = map[string]json.RawMessage{"type": json.RawMessage(`"m.space"`)}
		})
		l.join(old, bob, carol)
		for typ, content := range map[string]string{
			"m.room.power_levels": `{"users":{"` + string(alice.ID) + `":100,"` + string(bob.ID) + `":60},"users_default":55,"events":{"m.room.tombstone":60,"m.room.server_acl":100},"invite":70}`,
			"m.room.server_acl":   `{"allow":["*"],"deny":["evil.test"]}`, "m.room.avatar": `{"url":"mxc://a.test/b"}`,
			"m.room.join_rules": `{"join_rule":"restricted","allow":[]}`, "test.own": `{"a":1}`,
		} {
			_, err := l.state(old, alice, typ, "", content)
			l.must(err)
		}
		last := l.text(old, carol, "last")
		_, err := l.rooms.Upgrade(l.t.Context(), rooms.UpgradeRequest{Room: old, User: carol, Version: 12})
		l.refused("an upgrade without the power for it", err, "M_FORBIDDEN")
		if l.current(old, "m.room.tombstone", "") != "" || l.current(old, "m.room.power_levels", "") == "" {
			l.t.Error("a refused upgrade left something")
		}

		// bob has the power to replace the room, and less than its first events need.
		middle := l.upgrade(old, bob, 10)
		create := l.current(middle, "m.room.create", "")
		if l.member(create, "type") != `"m.space"` || l.member(create, "room_version") != `"10"` ||
			l.member(create, "predecessor") != `{"event_id":"`+string(last)+`","room_id":"`+string(old.ID)+`"}` {
			l.t.Errorf("the creation is %s", create)
		}
		for _, typ := range []string{"m.room.name", "m.room.avatar", "m.room.server_acl", "m.room.join_rules", "m.room.history_visibility"} {
			if was, is := l.current(old, typ, ""), l.current(middle, typ, ""); was != is {
				l.t.Errorf("%s was %s and is %s", typ, was, is)
			}
		}
		if l.current(middle, "test.own", "") != "" || l.stands(middle, alice) != "" || l.stands(middle, bob) != "join" {
			l.t.Error("something came along that should not have")
		}
		power := l.current(middle, "m.room.power_levels", "")
		if l.member(power, "users") != `{"`+string(alice.ID)+`":100,"`+string(bob.ID)+`":60}` || l.member(power, "events_default") != "0" || l.member(power, "invite") != "70" {
			l.t.Errorf("the levels are %s", power)
		}
		if tomb := l.current(old, "m.room.tombstone", ""); l.member(tomb, "replacement_room") != `"`+string(middle.ID)+`"` {
			l.t.Errorf("the tombstone is %s", tomb)
		}
		if to, err := l.rooms.ResolveAlias(l.t.Context(), alias); err != nil || to != middle.ID {
			l.t.Errorf("the alias leads to %s (%v)", to, err)
		}
		if was, is := l.current(old, "m.room.canonical_alias", ""), l.current(middle, "m.room.canonical_alias", ""); was != "{}" || is != `{"alias":"`+string(alias)+`"}` {
			l.t.Errorf("the rooms call themselves %s and %s", was, is)
		}
		for ref, want := range map[rooms.Ref]bool{old: false, middle: true} {
			if public, err := l.rooms.IsPublic(l.t.Context(), ref.NID); err != nil || public != want {
				l.t.Errorf("in the directory: %v (%v)", public, err)
			}
		}
		_, err = l.rooms.Send(l.t.Context(), message(old, carol, "too late"))
		l.refused("a message in the replaced room", err, "M_FORBIDDEN")
	})
}

func TestUpgradeToPrivilegedCreators(t *testing.T) {
	eachLocal(t, func(l *local) {
		proof.Of(l.t, "RM-05", "RM-03")
		alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
		old := l.create(alice, func(q *rooms.CreateRequest) { q.Version = 11 })
		l.join(old, bob, carol)
		_, err := l.state(old, alice, "m.room.power_levels", "", `{"users":{"`+string(alice.ID)+`":100,"`+string(bob.ID)+`":100,"`+string(carol.ID)+`":50}}`)
		l.must(err)
		twelve := l.upgrade(old, alice, 12, bob.ID)
		create, power := l.current(twelve, "m.room.create", ""), l.current(twelve, "m.room.power_levels", "")
		if l.member(create, "additional_creators") != `["`+string(bob.ID)+`"]` || l.member(create, "predecessor") != `{"room_id":"`+string(old.ID)+`"}` {
			l.t.Errorf("the creation is %s", create)
		}
		if l.member(power, "users") != `{"`+string(carol.ID)+`":50}` || l.member(l.member(power, "events"), "m.room.tombstone") != "150" {
			l.t.Errorf("the levels are %s", power)
		}
		if l.member(l.current(old, "m.room.power_levels", ""), "events_default") != "50" {
			l.t.Error("the old room goes on")
		}
		next := l.upgrade(twelve, alice, 12)
		if create := l.current(next, "m.room.create", ""); strings.Contains(create, "additional_creators") {
			l.t.Errorf("creators were taken over: %s", create)
		}
		back := l.upgrade(next, alice, 6)
		if power := l.current(back, "m.room.power_levels", ""); l.member(l.member(power, "users"), string(alice.ID)) != "150" {
			l.t.Errorf("back in version 6 the levels are %s", power)
		}
	})
}
