package pushrules

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"conclave/internal/testserver/proof"
)

// reference is the pattern as a regular expression, the independent way to say the same (Go's are linear, too, but far slower).
func reference(pattern string, words bool) *regexp.Regexp {
	var b strings.Builder
	for _, r := range foldText(pattern) {
		switch r {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if words {
		return regexp.MustCompile(`(?s)(?:^|[^A-Za-z0-9_])` + b.String() + `(?:$|[^A-Za-z0-9_])`)
	}
	return regexp.MustCompile(`(?s)^` + b.String() + `$`)
}

func checkGlob(t interface{ Errorf(string, ...any) }, pattern, text string) {
	g, folded := compileGlob(pattern), foldText(text)
	if got, want := g.matchAll(folded), reference(pattern, false).MatchString(folded); got != want {
		t.Errorf("%q as a whole against %q: %v, want %v", text, pattern, got, want)
	}
	if pattern == "" {
		return // refused in rules about bodies
	}
	if got, want := g.matchWords(folded), reference(pattern, true).MatchString(folded); got != want {
		t.Errorf("%q by words against %q: %v, want %v", text, pattern, got, want)
	}
}

func TestGlobAgainstReference(t *testing.T) {
	proof.Of(t, "ID-13")
	letters := rapid.SampledFrom([]rune("aaabB_9 -.éßς*"))
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(letters, 0, 30, -1).Draw(t, "text")
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("aabB_ -é***??")), 0, 8, -1).Draw(t, "pattern")
		checkGlob(t, pattern, text)
	})
}

// Long patterns have states in several words.
func TestLongGlobsAgainstReference(t *testing.T) {
	letters := rapid.SampledFrom([]rune("aab "))
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(letters, 100, 300, -1).Draw(t, "text")
		pattern := []byte(text[:rapid.IntRange(50, len(text)).Draw(t, "length")])
		for range rapid.IntRange(0, 20).Draw(t, "wildcards") {
			pattern[rapid.IntRange(0, len(pattern)-1).Draw(t, "at")] = "*?"[rapid.IntRange(0, 1).Draw(t, "which")]
		}
		checkGlob(t, string(pattern), text)
		checkGlob(t, string(pattern)+"*", text)
		checkGlob(t, "*"+string(pattern), "b"+text)
	})
}

func TestGlobEdges(t *testing.T) {
	for _, pattern := range []string{"", "*", "?", "**", "*?*", "a", "a*", "*a", "?a", strings.Repeat("?", 63), strings.Repeat("?", 64), strings.Repeat("?", 65),
		strings.Repeat("a", 63) + "*", strings.Repeat("a", 62) + "**b", "*" + strings.Repeat("a?", 64)} {
		for _, text := range []string{"", "a", "A", "-", "é", "ab", "-a-", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("é", 65), strings.Repeat("a", 128)} {
			checkGlob(t, pattern, text)
		}
	}
}

// hostile are patterns at which backtracking or naive search would take forever, with texts of the size of an event (threats A15).
func hostile() map[string][2]string {
	long := strings.Repeat("a", 60<<10)
	return map[string][2]string{
		"stars":       {strings.Repeat("*a", 511) + "*b", long},
		"questions":   {strings.Repeat("a", 500) + "?" + strings.Repeat("a", 500) + "b", long},
		"literal":     {strings.Repeat("a", 1000), strings.Repeat(strings.Repeat("a", 1001)+" ", 60)},
		"at the end":  {"*a*" + strings.Repeat("?", 1000), long},
		"punctuation": {strings.Repeat("-", 1000) + "x", strings.Repeat("-", 60<<10)},
		"overlapping": {strings.Repeat("-", 1000), strings.Repeat(strings.Repeat("-", 1000)+"a", 60)},
	}
}

func TestHostilePatternsAreLinear(t *testing.T) {
	proof.Of(t, "A15")
	for name, h := range hostile() {
		g, text := compileGlob(h[0]), foldText(h[1])
		best := time.Hour
		for range 5 { // the best of some runs: other programs share the machine
			began := time.Now()
			g.matchAll(text)
			g.matchWords(text)
			best = min(best, time.Since(began))
		}
		if best > 500*time.Millisecond { // about 5 ms on an idle machine; the race detector makes it 20 times as long
			t.Errorf("%s takes %v", name, best)
		}
	}
}

func BenchmarkHostileGlob(b *testing.B) {
	h := hostile()["stars"]
	g, text := compileGlob(h[0]), foldText(h[1])
	for b.Loop() {
		g.matchWords(text)
	}
}

func BenchmarkDefaultRules(b *testing.B) {
	p := Compile(Complete(nil, alice), alice)
	e := event(b, `{"type":"m.room.message","sender":"`+bob+`","content":{"msgtype":"m.text","body":"some tea","m.mentions":{}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if !p.Evaluate(e, Person{UserID: alice}).Notify {
			b.Fatal("does not notify")
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("ex*ple", "An exciting triple-whammy")
	f.Add("lunc?*", "LUNCH")
	f.Add("*?*", "é")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > MaxPattern/8 || len(text) > 4096 {
			return
		}
		checkGlob(t, pattern, text)
	})
}

// FuzzRules feeds whole rule sets and events: nothing may panic, and evaluating twice gives the same.
func FuzzRules(f *testing.F) {
	defaults, err := json.Marshal(Defaults(alice))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(defaults), `{"type":"m.room.message","content":{"body":"hi","m.mentions":{"user_ids":["@alice:example.org"]}}}`)
	f.Add(`{"override":[{"rule_id":"a","enabled":true,"conditions":[{"kind":"event_match","key":"a\\","pattern":"?"}],"actions":[{"set_tweak":"sound","value":[]}]}]}`, `{"a\\":"x"}`)
	f.Fuzz(func(t *testing.T, rules, text string) {
		set, err := Parse([]byte(rules))
		if err != nil || !json.Valid([]byte(text)) || !strings.HasPrefix(strings.TrimSpace(text), "{") {
			return
		}
		complete := Complete(set, alice)
		p := Compile(complete, alice)
		ModesOf(complete, p)
		if _, err := complete.CarryOver("!a", "!b"); err != nil && !errors.Is(err, ErrTooMany) && !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		e := event(t, text)
		first := p.Evaluate(e, Person{alice, "Alice"})
		_, _ = first.Sound(), e.Names()
		if again := p.Evaluate(event(t, text), Person{alice, "Alice"}); again.Rule != first.Rule {
			t.Errorf("%s, then %s", first.Rule, again.Rule)
		}
	})
}
