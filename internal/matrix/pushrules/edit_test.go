package pushrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func ids(rules []Rule) (out []string) {
	for _, rule := range rules {
		out = append(out, rule.ID)
	}
	return out
}

func TestPut(t *testing.T) {
	set := Complete(nil, alice)
	for _, step := range []struct{ id, before, after, want string }{
		{"a", "", "", "a"}, {"b", "", "", "b a"}, {"c", "a", "", "b c a"}, {"d", "", "a", "b c a d"}, {"a", "", "", "b c a d"},
		{"a", "b", "", "a b c d"}, {"b", "", "d", "a c d b"}, {"d", "a", "c", "d a c b"},
	} {
		if err := set.Put(Override, Rule{ID: step.id, Actions: raws(`"notify"`)}, step.before, step.after); err != nil {
			t.Fatal(err)
		}
		want := append([]string{master}, strings.Fields(step.want)...)
		if got := ids(set.Override)[:len(want)]; !reflect.DeepEqual(got, want) {
			t.Fatalf("after %+v: %q", step, got)
		}
	}
	if rule, ok := set.Find(Override, "a"); !ok || !rule.Enabled || rule.Default || rule.Conditions == nil {
		t.Errorf("the rule is %+v", rule)
	}
	if err := set.SetEnabled(Override, "a", false); err != nil {
		t.Fatal(err)
	}
	if err := set.Put(Override, Rule{ID: "a", Actions: raws()}, "", ""); err != nil {
		t.Fatal(err)
	}
	if rule, _ := set.Find(Override, "a"); rule.Enabled || len(rule.Actions) != 0 {
		t.Errorf("a replaced rule is %+v", rule)
	}
	before := len(set.Override)
	if err := set.Delete(Override, "a"); err != nil || len(set.Override) != before-1 {
		t.Errorf("Delete: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	set := Complete(nil, alice)
	untouched, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", MaxPattern+1)
	put := func(kind Kind, rule Rule, before, after string) func() error {
		return func() error { return set.Put(kind, rule, before, after) }
	}
	for name, test := range map[string]struct {
		do   func() error
		want error
	}{
		"no ID":             {put(Override, Rule{}, "", ""), ErrInvalid},
		"predefined ID":     {put(Override, Rule{ID: ".mine"}, "", ""), ErrInvalid},
		"slash":             {put(Override, Rule{ID: "a/b"}, "", ""), ErrInvalid},
		"backslash":         {put(Override, Rule{ID: `a\b`}, "", ""), ErrInvalid},
		"long ID":           {put(Override, Rule{ID: strings.Repeat("i", 256)}, "", ""), ErrInvalid},
		"unknown kind":      {put("sideways", Rule{ID: "a"}, "", ""), ErrNotFound},
		"no pattern":        {put(Content, Rule{ID: "a"}, "", ""), ErrInvalid},
		"long pattern":      {put(Content, Rule{ID: "a", Pattern: long}, "", ""), ErrInvalid},
		"bad action":        {put(Room, Rule{ID: "a", Actions: raws(`5`)}, "", ""), ErrInvalid},
		"null action":       {put(Room, Rule{ID: "a", Actions: raws(`null`)}, "", ""), ErrInvalid},
		"empty action":      {put(Room, Rule{ID: "a", Actions: raws(``)}, "", ""), ErrInvalid},
		"many actions":      {put(Room, Rule{ID: "a", Actions: make([]json.RawMessage, MaxActions+1)}, "", ""), ErrInvalid},
		"bad condition":     {put(Override, Rule{ID: "a", Conditions: raws(`"x"`)}, "", ""), ErrInvalid},
		"many conditions":   {put(Override, Rule{ID: "a", Conditions: make([]json.RawMessage, MaxConditions+1)}, "", ""), ErrInvalid},
		"unknown anchor":    {put(Override, Rule{ID: "a"}, "", "b"), ErrAnchor},
		"predefined anchor": {put(Override, Rule{ID: "a"}, master, ""), ErrAnchor},
		"itself as anchor":  {put(Override, Rule{ID: "a"}, "a", ""), ErrAnchor},
		"delete predefined": {func() error { return set.Delete(Override, master) }, ErrInvalid},
		"delete nothing":    {func() error { return set.Delete(Override, "a") }, ErrNotFound},
		"enable nothing":    {func() error { return set.SetEnabled("sideways", "a", true) }, ErrNotFound},
		"actions, bad":      {func() error { return set.SetActions(Override, master, raws(`5`)) }, ErrInvalid},
		"actions, nothing":  {func() error { return set.SetActions(Override, "a", nil) }, ErrNotFound},
	} {
		if err := test.do(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if now, err := json.Marshal(set); err != nil || string(now) != string(untouched) {
		t.Errorf("a refused change left a trace: %s", now)
	}
}

func TestSizeLimits(t *testing.T) {
	set := Complete(nil, alice)
	var err error
	n := 0
	for ; err == nil && n <= MaxRules; n++ {
		err = set.Put(Room, Rule{ID: fmt.Sprintf("!r%d:x", n)}, "", "")
		if n == 0 { // fill up in one go; the check itself is what is tested
			for len(set.Room) < 950 {
				set.Room = append(set.Room, Rule{ID: fmt.Sprintf("!f%d:x", len(set.Room)), Enabled: true, Actions: raws()})
			}
		}
	}
	if !errors.Is(err, ErrTooMany) || len(Complete(set, alice).Room) != len(set.Room) {
		t.Errorf("%d rules: %v", n, err)
	}
	set = Complete(nil, alice)
	condition := `{"kind":"event_match","key":"type","pattern":"` + strings.Repeat("x", MaxPattern) + `"}`
	big := make([]json.RawMessage, MaxConditions)
	for i := range big {
		big[i] = json.RawMessage(condition)
	}
	err = nil
	for n = 0; err == nil && n < 20; n++ {
		err = set.Put(Override, Rule{ID: fmt.Sprint("r", n), Conditions: big}, "", "")
	}
	if !errors.Is(err, ErrTooMany) || n < 5 {
		t.Errorf("%d large rules: %v", n, err)
	}
}

// What is stored may be a whole set of an earlier version: own rules stay, changes of defaults stay, unknown defaults go, new ones come.
func TestComplete(t *testing.T) {
	set := Complete(nil, alice)
	if err := errors.Join(
		set.Put(Override, Rule{ID: "mine", Conditions: raws(`{"kind":"x.unknown","deep":[1]}`), Actions: raws(`"dont_notify"`)}, "", ""),
		set.Put(Content, Rule{ID: "tea", Pattern: "tea"}, "", ""),
		set.SetEnabled(Override, ".m.rule.reaction", false),
		set.SetActions(Underride, ".m.rule.call", raws(`"notify"`)),
	); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(Complete(stored, alice)); err != nil || string(again) != string(data) {
		t.Errorf("completing changes a complete set:\n%s\n%s", data, again)
	}
	if !strings.Contains(string(data), `"conditions":[{"kind":"x.unknown","deep":[1]}],"actions":[]`) {
		t.Errorf("an unknown condition is not handed back: %s", data)
	}
	stored.Override = append(stored.Override[2:], Rule{ID: ".m.rule.contains_user_name", Default: true, Enabled: true})
	stored.Override = append(stored.Override, Rule{ID: "last", Default: true})
	got := ids(Complete(stored, alice).Override)
	if len(got) != len(Defaults(alice).Override)+1 || got[0] != master || got[1] != "last" || got[2] != ".m.rule.suppress_notices" {
		t.Errorf("an older set is completed to %q", got)
	}
	if rule, _ := Complete(stored, alice).Find(Override, "last"); rule.Default {
		t.Error("a user's own rule passes for a default")
	}
	if _, err := Parse([]byte(`{"override":5}`)); err == nil {
		t.Error("nonsense was read")
	}
	if _, err := Parse(make([]byte, MaxBytes+1)); err == nil {
		t.Error("an oversized set was read")
	}
}
