package pushrules

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestModes(t *testing.T) {
	const room, other = "!a:one.example", "!b:one.example"
	names := func(key, value string) []json.RawMessage {
		return raws(`{"kind":"event_match","key":"` + key + `","pattern":"` + value + `"}`)
	}
	for name, test := range map[string]struct {
		change      func(r *Ruleset) error
		here, there Mode
	}{
		"predefined": {func(*Ruleset) error { return nil }, All, All},
		"a keyword": {func(r *Ruleset) error {
			return r.Put(Content, Rule{ID: "k", Pattern: "tea", Actions: raws(`"notify"`)}, "", "")
		}, All, All},
		"a muted room": {func(r *Ruleset) error {
			return r.Put(Override, Rule{ID: "m", Conditions: names("room_id", room)}, "", "")
		}, Nothing, All},
		"only mentions in a room": {func(r *Ruleset) error { return r.Put(Room, Rule{ID: room}, "", "") }, Mentions, All},
		"only mentions elsewhere": {func(r *Ruleset) error {
			if err := r.Put(Room, Rule{ID: room, Actions: raws(`"notify"`)}, "", ""); err != nil {
				return err
			}
			if err := r.SetEnabled(Underride, ".m.rule.message", false); err != nil {
				return err
			}
			return r.SetActions(Underride, ".m.rule.encrypted", nil)
		}, All, Mentions},
		"everything muted": {func(r *Ruleset) error { return r.SetEnabled(Override, master, true) }, Nothing, Nothing},
		"a rule that is off": {func(r *Ruleset) error {
			if err := r.Put(Room, Rule{ID: room}, "", ""); err != nil {
				return err
			}
			return r.SetEnabled(Room, room, false)
		}, All, All},
		"a room ID with a NUL": {func(r *Ruleset) error {
			return r.Put(Override, Rule{ID: "m", Conditions: names("room_id", `!a\u0000b`)}, "", "")
		}, All, All},
	} {
		set := Complete(nil, alice)
		if err := test.change(set); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		modes := ModesOf(set, Compile(set, alice))
		if modes.In(room) != test.here || modes.In(other) != test.there {
			t.Errorf("%s: %d here and %d elsewhere, want %d and %d", name, modes.In(room), modes.In(other), test.here, test.there)
		}
		for room := range modes.Rooms {
			if strings.ContainsRune(room, 0) || room[0] != '!' {
				t.Errorf("%s: a mode of %q", name, room)
			}
		}
	}
}

func TestCarryOver(t *testing.T) {
	set := Complete(nil, alice)
	if err := set.Put(Room, Rule{ID: "!a"}, "", ""); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if changed, err := set.CarryOver("!a", "!b"); err != nil || changed != want {
			t.Errorf("round %d: %v, %v, want %v", i, changed, err, want)
		}
	}
	if rule, ok := set.Find(Room, "!b"); !ok || !rule.Enabled || (*set.List(Room))[0].ID != "!a" {
		t.Errorf("the rules of rooms are %+v", *set.List(Room))
	}
}
