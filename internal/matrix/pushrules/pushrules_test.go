package pushrules

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

const alice, bob = "@alice:example.org", "@bob:example.org"

// event makes a view of an event in client form.
func event(t testing.TB, text string) *Event {
	t.Helper()
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	e := &Event{RoomID: "!room:example.org", Members: 5, MayNotify: func(key string) bool { return key == "room" }}
	e.Get = func(path ...string) ([]byte, bool) {
		raw := json.RawMessage(text)
		for _, name := range path {
			m, err := members(raw)
			if err != nil {
				return nil, false
			}
			var ok bool
			if raw, ok = m[name]; !ok {
				return nil, false
			}
		}
		return raw, true
	}
	_ = json.Unmarshal(whole["sender"], &e.Sender)
	return e
}

// vectors are the examples that the specification publishes.
func vectors(t *testing.T) (v struct {
	Defaults map[string]json.RawMessage `json:"default_push_rules"`
	Grammar  struct {
		Paths []struct {
			Path    []string
			Encoded string
		} `json:"dot_paths"`
		Match    []vector `json:"push_event_match"`
		Is       []vector `json:"push_event_property_is"`
		Contains []vector `json:"push_event_property_contains"`
	} `json:"grammar_and_matching"`
}) {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type vector struct {
	Key, Pattern     string
	Value            json.RawMessage
	Matches, Rejects []json.RawMessage
}

func TestDefaultsAreThePublishedOnes(t *testing.T) {
	proof.Of(t, "PU-02", "PU-03", "PU-04")
	published := vectors(t).Defaults
	placeholder := string(published["placeholder"])
	delete(published, "placeholder")
	want, err := json.Marshal(published)
	if err != nil {
		t.Fatal(err)
	}
	own, err := json.Marshal(alice)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(Defaults(alice))
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal([]byte(strings.ReplaceAll(string(want), placeholder, string(own))), &a) != nil || json.Unmarshal(got, &b) != nil {
		t.Fatal("not JSON")
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the default rules are\n%s, want\n%s", got, want)
	}
	if strings.Contains(string(got), ownerMark) {
		t.Error("a placeholder is left")
	}
}

func TestPublishedConditions(t *testing.T) {
	v := vectors(t)
	checked := 0
	for kind, list := range map[string][]vector{"event_match": v.Grammar.Match, "event_property_is": v.Grammar.Is, "event_property_contains": v.Grammar.Contains} {
		for _, one := range list {
			fields := map[string]any{"kind": kind, "key": one.Key}
			if kind == "event_match" {
				fields["pattern"] = one.Pattern
			} else {
				fields["value"] = one.Value
			}
			raw, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			holds, _, _ := compileCondition(raw, alice)
			names := parsePath(one.Key).names
			for want, values := range map[bool][]json.RawMessage{true: one.Matches, false: one.Rejects} {
				for _, value := range values {
					checked++
					e := event(t, `{"content":{`+quote(t, names[1])+`:`+string(value)+`}}`)
					if holds(e, Person{}) != want {
						t.Errorf("%s on %s: %v, want %v", raw, value, !want, want)
					}
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d examples", checked)
	}
}

func quote(t *testing.T, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPaths(t *testing.T) {
	proof.Of(t, "ID-14")
	for _, one := range vectors(t).Grammar.Paths {
		if got := parsePath(one.Encoded).names; !reflect.DeepEqual(got, one.Path) {
			t.Errorf("%s is %q, want %q", one.Encoded, got, one.Path)
		}
	}
	for text, want := range map[string][]string{"": {""}, "a..b": {"a", "", "b"}, `a\`: {`a\`}, `a\\.b`: {`a\`, "b"}, `\.`: {"."}} {
		if got := parsePath(text).names; !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}

// Each row is a condition, an event, and whether it holds for Alice, whose name is "Alice (work)" in the room.
func TestConditions(t *testing.T) {
	proof.Of(t, "PU-05")
	for _, test := range []struct {
		condition, event string
		want             bool
	}{
		{`{"kind":"event_match","key":"type","pattern":"M.ROOM.*"}`, `{"type":"m.room.message"}`, true},
		{`{"kind":"event_match","key":"type","pattern":"m.room"}`, `{"type":"m.room.message"}`, false},
		{`{"kind":"event_match","key":"state_key","pattern":""}`, `{"state_key":""}`, true},
		{`{"kind":"event_match","key":"state_key","pattern":""}`, `{}`, false},
		{`{"kind":"event_match","key":"state_key","pattern":"*"}`, `{}`, false},
		{`{"kind":"event_match","key":"state_key","pattern":"` + alice + `"}`, `{"state_key":"` + alice + `"}`, true},
		{`{"kind":"event_match","key":"content.n","pattern":"1"}`, `{"content":{"n":1}}`, false},
		{`{"kind":"event_match","key":"content.n"}`, `{"content":{"n":"1"}}`, false},
		{`{"kind":"event_match","key":"content.n","Pattern":"1"}`, `{"content":{"n":"1"}}`, false},
		{`{"kind":"event_match","key":"content.body","pattern":"TEA"}`, `{"content":{"body":"some tea?"}}`, true},
		{`{"kind":"event_match","key":"content.body","pattern":"tea"}`, `{"content":{"body":"steam tea_time teas"}}`, false},
		{`{"kind":"event_match","key":"content.body","pattern":"tea"}`, `{"content":{"body":"teatea tea"}}`, true},
		{`{"kind":"event_match","key":"content.body","pattern":"straße"}`, `{"content":{"body":"die STRAßE."}}`, true},
		{`{"kind":"event_match","key":"content.body","pattern":"té"}`, `{"content":{"body":"du THÉ, TÉ"}}`, true},
		{`{"kind":"event_match","key":"content.body","pattern":"ea"}`, `{"content":{"body":"téea"}}`, true},
		{`{"kind":"event_property_is","key":"content.n","value":9007199254740991}`, `{"content":{"n":9007199254740991}}`, true},
		{`{"kind":"event_property_is","key":"content.n","value":9007199254740992}`, `{"content":{"n":9007199254740992}}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":1.5}`, `{"content":{"n":1.5}}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":-1}`, `{"content":{"n":-1}}`, true},
		{`{"kind":"event_property_is","key":"content.n","value":null}`, `{"content":{"n":null}}`, true},
		{`{"kind":"event_property_is","key":"content.n","value":null}`, `{"content":{}}`, false},
		{`{"kind":"event_property_is","key":"content.n"}`, `{"content":{"n":null}}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":"A"}`, `{"content":{"n":"a"}}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":["a"]}`, `{"content":{"n":["a"]}}`, false},
		{`{"kind":"event_property_contains","key":"content.n","value":2}`, `{"content":{"n":[{},"2",[2],2]}}`, true},
		{`{"kind":"event_property_contains","key":"content.n","value":2}`, `{"content":{"n":[{},"2",[2],2.0]}}`, false},
		{`{"kind":"event_property_contains","key":"content.n","value":2}`, `{"content":{"n":2}}`, false},
		{`{"kind":"contains_display_name"}`, `{"content":{"body":"ask alice (WORK)!"}}`, true},
		{`{"kind":"contains_display_name"}`, `{"content":{"body":"malice (work)"}}`, false},
		{`{"kind":"room_member_count","is":"5"}`, `{}`, true}, {`{"kind":"room_member_count","is":"==5"}`, `{}`, true},
		{`{"kind":"room_member_count","is":"<5"}`, `{}`, false}, {`{"kind":"room_member_count","is":"<=5"}`, `{}`, true},
		{`{"kind":"room_member_count","is":">4"}`, `{}`, true}, {`{"kind":"room_member_count","is":">=6"}`, `{}`, false},
		{`{"kind":"room_member_count","is":"=5"}`, `{}`, false}, {`{"kind":"room_member_count","is":""}`, `{}`, false},
		{`{"kind":"room_member_count","is":">"}`, `{}`, false}, {`{"kind":"room_member_count","is":"-5"}`, `{}`, false},
		{`{"kind":"room_member_count","is":"==+5"}`, `{}`, false}, {`{"kind":"room_member_count","is":5}`, `{}`, false},
		{`{"kind":"room_member_count","is":"99999999999999999999"}`, `{}`, false},
		{`{"kind":"sender_notification_permission","key":"room"}`, `{}`, true},
		{`{"kind":"sender_notification_permission","key":"here"}`, `{}`, false},
		{`{"kind":"device"}`, `{}`, false}, {`{"Kind":"room_member_count","is":"5"}`, `{}`, false}, {`{}`, `{}`, false}, {`null`, `{}`, false}, {`[]`, `{}`, false}, {`"x"`, `{}`, false},
	} {
		holds, _, _ := compileCondition(json.RawMessage(test.condition), alice)
		if got := holds(event(t, test.event), Person{alice, "Alice (work)"}); got != test.want {
			t.Errorf("%s on %s: %v, want %v", test.condition, test.event, got, test.want)
		}
	}
}

func raws(list ...string) (out []json.RawMessage) {
	for _, one := range list {
		out = append(out, json.RawMessage(one))
	}
	return out
}

// The outcomes of the predefined rules for Alice.
func TestDefaultOutcomes(t *testing.T) {
	proof.Of(t, "PU-02", "PU-03")
	for _, test := range []struct {
		event   string
		members int
		rule    string
		notify  bool
		light   bool
		sound   string
	}{
		{`{"type":"m.room.message","content":{"msgtype":"m.text","body":"hi"}}`, 5, ".m.rule.message", true, false, ""},
		{`{"type":"m.room.message","content":{"msgtype":"m.text","body":"hi"}}`, 2, ".m.rule.room_one_to_one", true, false, "default"},
		{`{"type":"m.room.message","content":{"msgtype":"m.notice","body":"hi"}}`, 2, ".m.rule.suppress_notices", false, false, ""},
		{`{"type":"m.room.encrypted","content":{}}`, 5, ".m.rule.encrypted", true, false, ""},
		{`{"type":"m.room.encrypted","content":{}}`, 2, ".m.rule.encrypted_room_one_to_one", true, false, "default"},
		{`{"type":"m.room.message","content":{"body":"hi","m.mentions":{"user_ids":["@x:y","` + alice + `"]}}}`, 5, ".m.rule.is_user_mention", true, true, "default"},
		{`{"type":"m.room.message","content":{"body":"hi","m.mentions":{"user_ids":["` + bob + `"]}}}`, 5, ".m.rule.message", true, false, ""},
		{`{"type":"m.room.message","content":{"body":"hi","m.mentions":{"room":true}}}`, 5, ".m.rule.is_room_mention", true, true, ""},
		{`{"type":"m.room.message","content":{"body":"hi","m.mentions":{"room":"true"}}}`, 5, ".m.rule.message", true, false, ""},
		{`{"type":"m.room.member","state_key":"` + alice + `","content":{"membership":"invite"}}`, 5, ".m.rule.invite_for_me", true, false, "default"},
		{`{"type":"m.room.member","state_key":"` + bob + `","content":{"membership":"invite"}}`, 5, ".m.rule.member_event", false, false, ""},
		{`{"type":"m.room.tombstone","state_key":"","content":{}}`, 5, ".m.rule.tombstone", true, true, ""},
		{`{"type":"m.room.tombstone","content":{}}`, 5, "", false, false, ""},
		{`{"type":"m.reaction","content":{}}`, 2, ".m.rule.reaction", false, false, ""},
		{`{"type":"m.room.server_acl","state_key":"","content":{}}`, 2, ".m.rule.room.server_acl", false, false, ""},
		{`{"type":"m.room.message","content":{"body":"* hi","m.relates_to":{"rel_type":"m.replace"}}}`, 2, ".m.rule.suppress_edits", false, false, ""},
		{`{"type":"m.call.invite","content":{}}`, 5, ".m.rule.call", true, false, "ring"},
		{`{"type":"m.room.topic","state_key":"","content":{"topic":"x"}}`, 2, "", false, false, ""},
		{`{"type":"m.room.message","sender":"` + alice + `","content":{"body":"hi"}}`, 2, "", false, false, ""},
	} {
		e := event(t, test.event)
		e.Members = test.members
		a := Evaluate(Complete(nil, alice), e, Person{UserID: alice})
		if a.Rule != test.rule || a.Notify != test.notify || a.Highlight != test.light || a.Sound() != test.sound {
			t.Errorf("%s with %d members: %+v", test.event, test.members, a)
		}
	}
}

// Own rules come before the defaults of their kind, kinds in their order, the master rule before everything.
func TestOrder(t *testing.T) {
	proof.Of(t, "PU-01")
	const text = `{"type":"m.room.message","sender":"` + bob + `","content":{"msgtype":"m.notice","body":"some tea"}}`
	set := Complete(nil, alice)
	expect := func(rule string) {
		t.Helper()
		if got := Evaluate(set, event(t, text), Person{UserID: alice}).Rule; got != rule {
			t.Errorf("the rule is %s, want %s", got, rule)
		}
	}
	put := func(kind Kind, rule Rule) {
		t.Helper()
		rule.Actions = raws(`"notify"`)
		if err := set.Put(kind, rule, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	enable := func(kind Kind, id string, on bool) {
		t.Helper()
		if err := set.SetEnabled(kind, id, on); err != nil {
			t.Fatal(err)
		}
	}
	expect(".m.rule.suppress_notices")
	put(Underride, Rule{ID: "under"})
	put(Sender, Rule{ID: bob})
	put(Room, Rule{ID: "!room:example.org"})
	put(Content, Rule{ID: "tea", Pattern: "tea"})
	expect(".m.rule.suppress_notices")
	enable(Override, ".m.rule.suppress_notices", false)
	for _, step := range []struct {
		kind Kind
		id   string
	}{{Content, "tea"}, {Room, "!room:example.org"}, {Sender, bob}, {Underride, "under"}} {
		expect(step.id)
		enable(step.kind, step.id, false)
	}
	expect(".m.rule.message")
	put(Override, Rule{ID: "over", Conditions: raws()})
	enable(Override, ".m.rule.suppress_notices", true)
	expect("over")
	enable(Override, master, true)
	expect(master)
}

func TestActions(t *testing.T) {
	proof.Of(t, "PU-06")
	for _, test := range []struct {
		list   []string
		want   Actions
		sounds string
	}{
		{nil, Actions{}, ""},
		{[]string{`"notify"`}, Actions{Notify: true}, ""},
		{[]string{`"dont_notify"`}, Actions{}, ""},
		{[]string{`"coalesce"`, `"shout"`, `5`, `null`, `{}`, `{"set_tweak":5}`}, Actions{}, ""},
		{[]string{`{"set_tweak":"highlight"}`}, Actions{Tweaks: []Tweak{{"highlight", nil}}}, ""},
		{[]string{`"notify"`, `{"set_tweak":"highlight"}`}, Actions{Notify: true, Highlight: true, Tweaks: []Tweak{{"highlight", nil}}}, ""},
		{[]string{`"notify"`, `{"set_tweak":"highlight","value":false}`}, Actions{Notify: true, Tweaks: []Tweak{{"highlight", json.RawMessage("false")}}}, ""},
		{[]string{`"notify"`, `{"set_tweak":"sound","value":"ring"}`}, Actions{Notify: true, Tweaks: []Tweak{{"sound", json.RawMessage(`"ring"`)}}}, "ring"},
		{[]string{`"notify"`, `{"set_tweak":"sound","value":7}`}, Actions{Notify: true, Tweaks: []Tweak{{"sound", json.RawMessage(`7`)}}}, ""},
	} {
		if got := parseActions(raws(test.list...)); !reflect.DeepEqual(got, test.want) || got.Sound() != test.sounds {
			t.Errorf("%s: %+v, want %+v", test.list, got, test.want)
		}
	}
}

// Programs of different owners with the same rules have one fingerprint, and then one outcome for everybody whom the event does not name.
func TestFingerprint(t *testing.T) {
	a, b := Compile(Complete(nil, alice), alice), Compile(Complete(nil, bob), bob)
	if a.Fingerprint() != b.Fingerprint() || a.Personal() {
		t.Error("the default rules must be the same for everybody")
	}
	for _, text := range []string{
		`{"type":"m.room.message","content":{"body":"hi","m.mentions":{"user_ids":["` + alice + `"]}}}`,
		`{"type":"m.room.member","state_key":"` + alice + `","content":{"membership":"invite"}}`,
	} {
		e := event(t, text)
		if names := e.Names(); !reflect.DeepEqual(names, []string{alice}) {
			t.Errorf("%s names %q", text, names)
		}
		for _, p := range []*Program{a, b} {
			if p.Evaluate(e, Person{UserID: alice}).Notify == p.Evaluate(e, Person{UserID: "@carol:example.org"}).Highlight {
				t.Errorf("%s is the same for Alice and others", text)
			}
			if !p.Evaluate(e, Person{UserID: alice}).Notify {
				t.Errorf("%s does not notify Alice by the program of another with the same rules", text)
			}
		}
	}
	own := Complete(nil, alice)
	if err := own.SetActions(Underride, ".m.rule.message", raws()); err != nil {
		t.Fatal(err)
	}
	if Compile(own, alice).Fingerprint() == a.Fingerprint() {
		t.Error("changed actions must change the fingerprint")
	}
	if err := own.Put(Override, Rule{ID: "name", Conditions: raws(`{"kind":"contains_display_name"}`)}, "", ""); err != nil {
		t.Fatal(err)
	}
	if !Compile(own, alice).Personal() {
		t.Error("a rule that looks for the display name is personal")
	}
}
