package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestPushRules(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("changes", func(t *testing.T) { ruleChanges(t, s) })
		t.Run("refusals", func(t *testing.T) { ruleRefusals(t, s) })
		t.Run("counts", func(t *testing.T) { ruleCounts(t, s) })
		t.Run("counts of threads and encrypted rooms", func(t *testing.T) { ruleCountsElsewhere(t, s) })
		t.Run("newcomers", func(t *testing.T) { ruleNewcomers(t, s) })
	})
}

func rulePath(kind, id string, more ...string) string {
	return testserver.Path(append([]string{"pushrules", "global", kind, id}, more...)...)
}

var (
	notifies   = []any{"notify"}
	highlights = []any{"notify", object{"set_tweak": "highlight"}}
)

// ruleIDs are the rules of a kind in their order, with a mark for those that are off.
func ruleIDs(rules any, kind string) string {
	list, _ := testserver.At(rules, "global", kind).([]any)
	var out []string
	for _, rule := range list {
		id, _ := testserver.At(rule, "rule_id").(string)
		if on, _ := testserver.At(rule, "enabled").(bool); !on {
			id += " (off)"
		}
		if isDefault, _ := testserver.At(rule, "default").(bool); isDefault != strings.HasPrefix(id, ".") {
			id += " (default wrong)"
		}
		out = append(out, id)
	}
	return strings.Join(out, " ")
}

// ruleChanges changes rules in every way and finds each change in the answers and in the next sync.
func ruleChanges(t *testing.T, s *testserver.Server) {
	bob := s.Register(testserver.Unique("bob"))
	proof.Of(t, "PU-07", "PU-08")
	since := token(bob.Sync("", 0))
	expect := func(kind, want string) {
		t.Helper()
		rules := bob.Must("GET", "/pushrules/", nil).Body
		if got := ruleIDs(rules, kind); got != want {
			t.Errorf("the rules of kind %s are\n%s, want\n%s", kind, got, want)
		}
		next := bob.Sync(since, 10_000)
		since = token(next)
		for _, from := range []object{next, bob.Sync("", 0)} {
			synced := ""
			for _, e := range testserver.Events(testserver.At(from, "account_data", "events")) {
				if e["type"] == "m.push_rules" {
					synced = fmt.Sprint(e["content"])
				}
			}
			if synced != fmt.Sprint(rules) {
				t.Errorf("the sync brings the rules\n%s, want\n%v", synced, rules)
			}
		}
		if data := bob.Must("GET", testserver.Path("user", bob.ID, "account_data", "m.push_rules"), nil).Body; fmt.Sprint(data) != fmt.Sprint(rules) {
			t.Errorf("the account data is %v", data)
		}
	}
	put := func(id, query string) {
		t.Helper()
		bob.Must("PUT", rulePath("content", id)+query, object{"pattern": id, "actions": notifies})

	}
	put("one", "")
	expect("content", "one")
	put("two", "")
	expect("content", "two one")
	put("three", "?after=two")
	expect("content", "two three one")
	put("four", "?before=one")
	expect("content", "two three four one")
	put("two", "?after=one")
	expect("content", "three four one two")
	bob.Must("PUT", rulePath("content", "four", "enabled"), object{"enabled": false})
	expect("content", "three four (off) one two")
	put("four", "")
	expect("content", "three four (off) one two")
	bob.Must("DELETE", rulePath("content", "one"), nil)
	expect("content", "three four (off) two")
	bob.Must("PUT", rulePath("override", "mine"), object{"actions": []any{"dont_notify", "coalesce"}, "conditions": []any{object{"kind": "im.example.unknown", "x": 1}}})
	bob.Must("PUT", rulePath("override", ".m.rule.suppress_notices", "enabled"), object{"enabled": false})
	expect("override", ".m.rule.master (off) mine .m.rule.suppress_notices (off) .m.rule.invite_for_me .m.rule.member_event .m.rule.is_user_mention "+
		".m.rule.is_room_mention .m.rule.tombstone .m.rule.reaction .m.rule.room.server_acl .m.rule.suppress_edits")
	rule := bob.Must("GET", rulePath("override", "mine"), nil).Body
	if got := fmt.Sprint(rule); got != "map[actions:[] conditions:[map[kind:im.example.unknown x:1]] default:false enabled:true rule_id:mine]" {
		t.Errorf("the rule is %s", got)
	}
	bob.Must("PUT", rulePath("underride", ".m.rule.message", "actions"), object{"actions": highlights})
	if got := bob.Must("GET", rulePath("underride", ".m.rule.message", "actions"), nil).Body; fmt.Sprint(got["actions"]) != fmt.Sprint(highlights) {
		t.Errorf("the actions of a predefined rule are %v", got)
	}
	if got := bob.Must("GET", rulePath("content", "four", "enabled"), nil).Body; got["enabled"] != false {
		t.Errorf("a rule that is off says %v", got)
	}
	if _, other := bob.Must("GET", "/pushrules/global/", nil).Body["sender"].([]any); !other {
		t.Error("the global rules have no list of kind sender")
	}
}

func ruleRefusals(t *testing.T, s *testserver.Server) {
	bob := s.Register(testserver.Unique("bob"))
	proof.Of(t, "PU-07")
	plain := object{"pattern": "x", "actions": notifies}
	bob.Must("PUT", rulePath("content", "one"), plain)
	long := strings.Repeat("x", 1025)
	many := make([]any, 33)
	for i := range many {
		many[i] = object{"kind": "room_member_count", "is": "2"}
	}
	for _, c := range []struct {
		what         string
		status       int
		code         string
		method, path string
		body         any
	}{
		{"an ID with a dot", 400, "M_INVALID_PARAM", "PUT", rulePath("content", ".m.mine"), plain},
		{"an ID with a slash", 400, "M_INVALID_PARAM", "PUT", "/pushrules/global/content/a%2Fb", plain},
		{"an ID with a backslash", 400, "M_INVALID_PARAM", "PUT", rulePath("content", `a\b`), plain},
		{"a long ID", 400, "M_INVALID_PARAM", "PUT", rulePath("content", long), plain},
		{"an unknown kind", 400, "M_INVALID_PARAM", "PUT", rulePath("overrule", "x"), plain},
		{"an unknown anchor", 400, "M_UNKNOWN", "PUT", rulePath("content", "x") + "?before=nothing", plain},
		{"a predefined anchor", 400, "M_UNKNOWN", "PUT", rulePath("override", "x") + "?after=" + url.QueryEscape(".m.rule.master"), plain},
		{"a content rule without a pattern", 400, "M_INVALID_PARAM", "PUT", rulePath("content", "x"), object{"actions": notifies}},
		{"a long pattern", 400, "M_INVALID_PARAM", "PUT", rulePath("content", "x"), object{"pattern": long, "actions": notifies}},
		{"no actions", 400, "M_MISSING_PARAM", "PUT", rulePath("content", "x"), object{"pattern": "x"}},
		{"actions that are none", 400, "M_INVALID_PARAM", "PUT", rulePath("content", "x"), object{"pattern": "x", "actions": []any{object{"tweak": 1}}}},
		{"too many conditions", 400, "M_INVALID_PARAM", "PUT", rulePath("override", "x"), object{"conditions": many, "actions": notifies}},
		{"a condition that is none", 400, "M_INVALID_PARAM", "PUT", rulePath("override", "x"), object{"conditions": []any{"x"}, "actions": notifies}},
		{"a rule that is not there", 404, "M_NOT_FOUND", "GET", rulePath("content", "x"), nil},
		{"no rule to delete", 404, "M_NOT_FOUND", "DELETE", rulePath("content", "x"), nil},
		{"no rule to switch", 404, "M_NOT_FOUND", "PUT", rulePath("content", "x", "enabled"), object{"enabled": true}},
		{"no switch", 400, "M_MISSING_PARAM", "PUT", rulePath("content", "one", "enabled"), object{}},
		{"no rule to change", 404, "M_NOT_FOUND", "PUT", rulePath("content", "x", "actions"), object{"actions": notifies}},
		{"a predefined rule to delete", 400, "M_INVALID_PARAM", "DELETE", rulePath("override", ".m.rule.master"), nil},
		{"the account data", 405, "M_BAD_JSON", "PUT", testserver.Path("user", bob.ID, "account_data", "m.push_rules"), object{"global": object{}}},
	} {
		t.Run(c.what, func(t *testing.T) { bob.Refused(c.status, c.code, c.method, c.path, c.body) })
	}
	big := object{"conditions": []any{object{"kind": "event_match", "key": "content.x", "pattern": long[:1000]}}, "actions": notifies}
	rules, _ := json.Marshal(bob.Must("GET", "/pushrules/", nil).Body)
	for size := len(rules); size < 256<<10; size += 1100 { // all together have 256 KiB at most
		answer, err := bob.Do("PUT", rulePath("override", testserver.Unique("rule")), big)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status == 413 && size > 200<<10 {
			return
		}
		if answer.Status != 200 {
			t.Fatalf("with %d bytes of rules: %d %v", size, answer.Status, answer.Body)
		}
	}
	bob.Refused(413, "M_TOO_LARGE", "PUT", rulePath("override", "last"), big)
}
