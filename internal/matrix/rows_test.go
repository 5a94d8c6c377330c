package matrix

import (
	"fmt"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

// TestTooManyParents: 20 parents and 10 auth events are taken, more only as part of what is answered to backfill.
func TestTooManyParents(t *testing.T) {
	proof.Of(t, "RV-02")
	ids := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("$e%d:one", i))
		}
		return list
	}
	for _, v := range RoomVersions() {
		for _, c := range []struct {
			prev, auth int
			ok         bool
		}{{20, 10, true}, {21, 10, false}, {20, 11, false}} {
			text := fmt.Sprintf(`{"auth_events":%s,"content":{},"depth":7,"event_id":"$e:one","origin_server_ts":5,"prev_events":%s,"room_id":"!room:one","sender":"@a:one","type":"m"}`,
				list(v, ids(c.auth)...), list(v, ids(c.prev)...))
			if _, err := ParseEvent([]byte(text), v); (err == nil) != c.ok {
				t.Errorf("version %s: %d parents, %d auth events: %v", v, c.prev, c.auth, err)
			}
			e, err := ParseBackfilled([]byte(text), v)
			if err != nil || len(e.PrevEvents()) != c.prev || len(e.AuthEvents()) != c.auth {
				t.Errorf("version %s: %d parents, %d auth events, backfilled: %v", v, c.prev, c.auth, err)
			}
			if err == nil {
				if _, err := TrustedEvent(e.JSON(), e.ID(), v); err != nil {
					t.Errorf("version %s: out of the database: %v", v, err)
				}
			}
		}
	}
}

// TestRedactionsForClients: what a redaction removes stands in both places, whatever its version says of either.
func TestRedactionsForClients(t *testing.T) {
	proof.Of(t, "RV-06")
	for _, v := range RoomVersions() {
		tmpl := template()
		tmpl.Type, tmpl.Content, tmpl.Redacts = "m.room.redaction", []byte(`{"reason":"x","redacts":"$liar"}`), "$target"
		want := "$target"
		if v.RedactsInContent() {
			want = "$liar"
		}
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		text := ClientEvent(e, nil, true)
		top, _ := GetString(text, "redacts")
		inside, _ := GetString(text, "content", "redacts")
		reason, _ := GetString(text, "content", "reason")
		if CheckJSON(text, Limits{}) != nil || top != want || inside != want || reason != "x" {
			t.Errorf("version %s: %s", v, text)
		}
	}
}

// TestOldLevels are levels as old versions understand them.
func TestOldLevels(t *testing.T) {
	proof.Of(t, "RV-07")
	const none = -1 << 62
	for text, want := range map[string]struct{ floats, texts, integers int64 }{
		`50`:                     {50, 50, 50},
		`-5`:                     {-5, -5, -5},
		`"50"`:                   {50, 50, none},
		`" 50 "`:                 {50, 50, none},
		`"+50"`:                  {50, 50, none},
		`"-50"`:                  {-50, -50, none},
		`"0050"`:                 {50, 50, none},
		`"\t50\n"`:               {50, 50, none},
		`"5 0"`:                  {none, none, none},
		`"50.0"`:                 {none, none, none},
		`"1e2"`:                  {none, none, none},
		`"0x10"`:                 {none, none, none},
		`""`:                     {none, none, none},
		`50.9`:                   {50, none, none},
		`-1.9`:                   {-1, none, none},
		`1e2`:                    {100, none, none},
		`5e-1`:                   {0, none, none},
		`1e400`:                  {none, none, none},
		`1e300`:                  {none, none, none},
		`"NaN"`:                  {none, none, none},
		`"inf"`:                  {none, none, none},
		`"99999999999999999999"`: {none, none, none},
		`true`:                   {none, none, none},
		`null`:                   {none, none, none},
		`[50]`:                   {none, none, none},
	} {
		for _, v := range RoomVersions() {
			expect := want.integers
			switch {
			case !v.StrictCanonicalJSON():
				expect = want.floats
			case !v.IntegerPowerLevels():
				expect = want.texts
			}
			for _, where := range []string{`{"ban":%s}`, `{"users":{"@a:one":%s}}`, `{"events":{"m":%s}}`} {
				p, err := ParsePowerLevels([]byte(strings.Replace(where, "%s", text, 1)), v)
				got := p.Ban
				if strings.Contains(where, "users") {
					got = p.Users["@a:one"]
				} else if strings.Contains(where, "events") {
					got = p.Events["m"]
				}
				if (err != nil) != (expect == none) || err == nil && got != expect {
					t.Errorf("version %s: %s in %s: %d, %v, want %d", v, text, where, got, err, expect)
				}
			}
		}
	}
}
