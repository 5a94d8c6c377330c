package rooms_test

import (
	"encoding/json"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// TestCreatePresets makes a room of every preset in every version and reads back what is in it.
func TestCreatePresets(t *testing.T) {
	eachLocal(t, func(l *local) {
		proof.Of(l.t, "RM-02")
		alice, guest := l.user("alice"), l.user("guest")
		for _, v := range matrix.RoomVersions() {
			for preset, want := range map[string][3]string{
				"private_chat": {"invite", "shared", "can_join"}, "trusted_private_chat": {"invite", "shared", "can_join"}, "public_chat": {"public", "shared", "forbidden"},
			} {
				ref := l.create(alice, func(q *rooms.CreateRequest) {
					q.Version, q.Preset, q.Name, q.Topic, q.Direct = v, preset, "name", "topic", true
					q.Invite = []matrix.UserID{guest.ID}
				})
				if ref.Version != v || v.RoomIDIsCreateHash() == strings.Contains(string(ref.ID), ":") {
					l.t.Errorf("version %s: room %s of version %s", v, ref.ID, ref.Version)
				}
				for typ, value := range map[string][2]string{
					"m.room.join_rules": {"join_rule", want[0]}, "m.room.history_visibility": {"history_visibility", want[1]}, "m.room.guest_access": {"guest_access", want[2]},
					"m.room.name": {"name", "name"}, "m.room.topic": {"topic", "topic"}, "m.room.create": {"room_version", v.String()},
				} {
					if got, _ := matrix.GetString([]byte(l.current(ref, typ, "")), value[0]); got != value[1] {
						l.t.Errorf("version %s, %s: %s says %q, want %q", v, preset, typ, got, value[1])
					}
				}
				if l.stands(ref, alice) != "join" || l.stands(ref, guest) != "invite" {
					l.t.Errorf("version %s, %s: alice %s, guest %s", v, preset, l.stands(ref, alice), l.stands(ref, guest))
				}
				powers(l, ref, preset, alice, guest)
			}
		}
	})
}

// powers checks who has what power in a new room.
func powers(l *local, ref rooms.Ref, preset string, alice, guest rooms.Sender) {
	l.t.Helper()
	levels, err := matrix.ParsePowerLevels([]byte(l.current(ref, "m.room.power_levels", "")), ref.Version)
	l.must(err)
	var create struct {
		Creator string   `json:"creator"`
		More    []string `json:"additional_creators"`
	}
	l.must(json.Unmarshal([]byte(l.current(ref, "m.room.create", "")), &create))
	trusted := preset == "trusted_private_chat"
	if ref.Version.CreatorInSender() != (create.Creator == "") {
		l.t.Errorf("version %s: creator %q", ref.Version, create.Creator)
	}
	if ref.Version.CreatorsPrivileged() {
		if len(levels.Users) != 0 || trusted != (len(create.More) == 1 && create.More[0] == string(guest.ID)) || levels.EventLevel("m.room.tombstone", true) != 150 {
			l.t.Errorf("version %s, %s: users %v, creators %v", ref.Version, preset, levels.Users, create.More)
		}
		return
	}
	want := int64(0)
	if trusted {
		want = 100
	}
	if levels.UserLevel(alice.ID) != 100 || levels.UserLevel(guest.ID) != want {
		l.t.Errorf("version %s, %s: alice %d, guest %d", ref.Version, preset, levels.UserLevel(alice.ID), levels.UserLevel(guest.ID))
	}
}

func TestCreateAsAsked(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		ref := l.create(alice, func(q *rooms.CreateRequest) {
			q.Preset, q.Visibility, q.Alias = "", "public", "#here:"+homeName
			q.InitialState = []rooms.StateEvent{
				{Type: "m.room.join_rules", Content: json.RawMessage(`{"join_rule":"knock"}`)},
				{Type: "m.room.encryption", Content: json.RawMessage(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
			}
			q.CreationContent = map[string]json.RawMessage{"m.federate": json.RawMessage("false"), "room_version": json.RawMessage(`"1"`), "creator": json.RawMessage(`"@x:y"`)}
			q.PowerOverride = map[string]json.RawMessage{"invite": json.RawMessage("77")}
		})
		if ref.Version != matrix.DefaultRoomVersion {
			l.t.Errorf("the default version is %s", ref.Version)
		}
		create := []byte(l.current(ref, "m.room.create", ""))
		version, _ := matrix.GetString(create, "room_version")
		_, creator := matrix.Get(create, "creator")
		if federate, _ := matrix.Get(create, "m.federate"); string(federate) != "false" || version != ref.Version.String() || creator {
			l.t.Errorf("the creation says %s", create)
		}
		if rule, _ := matrix.GetString([]byte(l.current(ref, "m.room.join_rules", "")), "join_rule"); rule != "knock" {
			l.t.Errorf("join rule %q: initial_state goes before the preset", rule)
		}
		if guests, _ := matrix.GetString([]byte(l.current(ref, "m.room.guest_access", "")), "guest_access"); guests != "forbidden" {
			l.t.Errorf("guest access %q: a public room has the preset public_chat", guests)
		}
		if invite, _ := matrix.GetInt([]byte(l.current(ref, "m.room.power_levels", "")), "invite"); invite != 77 {
			l.t.Errorf("the level to invite is %d", invite)
		}
		if room, err := l.rooms.ResolveAlias(l.t.Context(), "#here:"+homeName); err != nil || room != ref.ID {
			l.t.Errorf("the alias leads to %s, %v", room, err)
		}
		if public, err := l.rooms.IsPublic(l.t.Context(), ref.NID); err != nil || !public {
			l.t.Errorf("it is in the directory: %v, %v", public, err)
		}
		if list, err := l.rooms.JoinedRooms(l.t.Context(), alice.NID); err != nil || len(list) != 1 || list[0] != ref.ID {
			l.t.Errorf("alice is in %v, %v", list, err)
		}
	})
}

// TestCreateRefuses tries requests that no room can be made of: nothing is left of them.
func TestCreateRefuses(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		l.create(alice, func(q *rooms.CreateRequest) { q.Alias = "#taken:" + homeName })
		for what, change := range map[string]func(*rooms.CreateRequest){
			"an unknown preset": func(q *rooms.CreateRequest) { q.Preset = "cosy" },
			"state of the creation": func(q *rooms.CreateRequest) {
				q.InitialState = []rooms.StateEvent{{Type: "m.room.create", Content: json.RawMessage("{}")}}
			},
			"state of a member": func(q *rooms.CreateRequest) {
				q.InitialState = []rooms.StateEvent{{Type: "m.room.member", StateKey: "@x:y", Content: json.RawMessage("{}")}}
			},
			"a fraction": func(q *rooms.CreateRequest) {
				q.InitialState = []rooms.StateEvent{{Type: "x", Content: json.RawMessage(`{"a":1.5}`)}}
			},
			"state that is too long": func(q *rooms.CreateRequest) {
				q.InitialState = []rooms.StateEvent{{Type: "x", Content: json.RawMessage(`{"a":"` + string(make([]byte, 70_000)) + `"}`)}}
			},
			"levels that are none": func(q *rooms.CreateRequest) {
				q.PowerOverride = map[string]json.RawMessage{"users": json.RawMessage(`7`)}
			},
			"a creator that is none": func(q *rooms.CreateRequest) {
				q.CreationContent = map[string]json.RawMessage{"additional_creators": json.RawMessage(`["x"]`)}
			},
			"an alias that is taken": func(q *rooms.CreateRequest) { q.Alias = "#taken:" + homeName },
		} {
			req := rooms.CreateRequest{Creator: alice}
			change(&req)
			if id, err := l.rooms.Create(l.t.Context(), req); err == nil {
				l.t.Errorf("%s makes room %s", what, id)
			}
		}
		if list, err := l.rooms.JoinedRooms(l.t.Context(), alice.NID); err != nil || len(list) != 1 {
			l.t.Errorf("left behind: %v, %v", list, err)
		}
	})
}

// TestLevelsAreIntegers: clients cannot set levels in the forms that old versions let pass, and an upgrade leaves those
// that are there behind.
func TestLevelsAreIntegers(t *testing.T) {
	l := newLocal(t, dbtest.Open(t, "sqlite"))
	proof.Of(t, "RV-08")
	alice := l.user("alice")
	ref := l.create(alice, func(q *rooms.CreateRequest) { q.Version = 5 })
	for _, level := range []string{`"50"`, `" 7 "`, `50.0`, `5e1`, `9007199254740992`, `-9007199254740992`, `null`, `true`} {
		for _, content := range []string{`{"ban":` + level + `}`, `{"events":{"m.room.name":` + level + `}}`, `{"users":{"` + string(alice.ID) + `":100,"@b:b.test":` + level + `}}`} {
			_, err := l.state(ref, alice, "m.room.power_levels", "", content)
			l.refused("a change to "+content, err, "M_BAD_JSON")
			var override map[string]json.RawMessage
			if err := json.Unmarshal([]byte(content), &override); err != nil {
				t.Fatal(err)
			}
			_, err = l.rooms.Create(t.Context(), rooms.CreateRequest{Creator: alice, Version: 5, PowerOverride: override})
			l.refused("a room with "+content, err, "M_BAD_JSON")
			_, err = l.rooms.Create(t.Context(), rooms.CreateRequest{Creator: alice, Version: 5, InitialState: []rooms.StateEvent{{Type: "m.room.power_levels", Content: json.RawMessage(content)}}})
			l.refused("a room that begins with "+content, err, "M_BAD_JSON")
		}
	}
}
