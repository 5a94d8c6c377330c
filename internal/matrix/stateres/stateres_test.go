package stateres

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// second are the versions with algorithm 2 and 2.1.
func second() (list []matrix.RoomVersion) {
	for _, v := range matrix.RoomVersions() {
		if v.StateRes() != 1 {
			list = append(list, v)
		}
	}
	return list
}

func TestAgreement(t *testing.T) {
	for _, v := range matrix.RoomVersions() {
		g := populated(t, v, "")
		s := g.at(g.newest()...)
		for _, sets := range [][]state{{s}, {s, s}, {s, s, s}} {
			if got := g.resolve(sets...); len(got) != len(s) {
				t.Errorf("version %s: %d entries of %d", v, len(got), len(s))
			}
		}
		if got := g.resolve(); len(got) != 0 {
			t.Errorf("version %s: nothing resolves to %v", v, got)
		}
	}
}

// TestBanGoesBeforeWhatTheBannedDid: bob names the room while alice bans him.
func TestBanGoesBeforeWhatTheBannedDid(t *testing.T) {
	proof.Of(t, "SR-03", "SR-04")
	for _, v := range second() {
		g := populated(t, v, `"@bob:one":50`)
		old := g.must(sketch{sender: alice, typ: "m.room.name", content: `{"name":"old"}`})
		fork := g.newest()
		ban := g.must(sketch{sender: alice, typ: "m.room.member", key: bob, content: `{"membership":"ban"}`, prev: fork, ts: 9_000_000})
		name := g.must(sketch{sender: bob, typ: "m.room.name", content: `{"name":"bob's"}`, prev: fork, ts: 1})
		s := g.at(ban.ID(), name.ID())
		g.holds("banned while naming", s, "m.room.member", bob, ban)
		g.holds("banned while naming", s, "m.room.name", "", old)
	}
}

// TestLaterOfEquals: two who may both, at the same power: the later one stands, and at the same time the larger ID.
func TestLaterOfEquals(t *testing.T) {
	proof.Of(t, "SR-05")
	for _, v := range second() {
		g := populated(t, v, `"@bob:one":50,"@carol:two":50`)
		fork := g.newest()
		b := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"b"}`, prev: fork, ts: 8_000_000})
		c := g.must(sketch{sender: carol, typ: "m.room.topic", content: `{"topic":"c"}`, prev: fork, ts: 7_000_000})
		g.holds("one later", g.at(b.ID(), c.ID()), "m.room.topic", "", b)
		d := g.must(sketch{sender: carol, typ: "m.room.topic", content: `{"topic":"d"}`, prev: fork, ts: 8_000_000})
		want := b
		if d.ID() > b.ID() {
			want = d
		}
		g.holds("at the same time", g.at(b.ID(), d.ID()), "m.room.topic", "", want)
	}
}

// TestMorePowerGoesFirst: alice takes bob's power while he gives some to carol, earlier by the clock.
func TestMorePowerGoesFirst(t *testing.T) {
	proof.Of(t, "SR-05")
	for _, v := range second() {
		g := populated(t, v, `"@bob:one":60`)
		g.must(sketch{sender: alice, typ: "m.room.power_levels", content: `{"events":{"m.room.power_levels":50},` + g.levels(`"@bob:one":60`)[1:]})
		fork := g.newest()
		given := g.must(sketch{sender: bob, typ: "m.room.power_levels", prev: fork, ts: 1,
			content: `{"events":{"m.room.power_levels":50},` + g.levels(`"@bob:one":60,"@carol:two":50`)[1:]})
		taken := g.must(sketch{sender: alice, typ: "m.room.power_levels", prev: fork, ts: 9_000_000, content: `{"events":{"m.room.power_levels":50},` + g.levels("")[1:]})
		g.holds("demoted while promoting", g.at(given.ID(), taken.ID()), "m.room.power_levels", "", taken)
	}
}

// TestMainline: what was done under older levels goes before what was done under newer ones, whatever the clocks say.
func TestMainline(t *testing.T) {
	proof.Of(t, "SR-03")
	for _, v := range second() {
		g := populated(t, v, `"@bob:one":50`)
		fork := g.newest()
		oldest := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"under the old levels"}`, prev: fork, ts: 9_000_000})
		g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":50,"@carol:two":50`), prev: fork})
		newer := g.must(sketch{sender: carol, typ: "m.room.topic", content: `{"topic":"under the new levels"}`, ts: 8_000_000})
		g.holds("two mainlines", g.at(oldest.ID(), newer.ID()), "m.room.topic", "", newer)
	}
}

// TestJoinRuleClosesTheDoor: the room becomes invite-only while somebody joins.
func TestJoinRuleClosesTheDoor(t *testing.T) {
	proof.Of(t, "SR-03", "SR-04")
	for _, v := range second() {
		g := populated(t, v, "")
		fork := g.newest()
		closed := g.must(sketch{sender: alice, typ: "m.room.join_rules", content: `{"join_rule":"invite"}`, prev: fork})
		joined := g.must(sketch{sender: "@eve:evil", typ: "m.room.member", key: "@eve:evil", content: `{"membership":"join"}`, prev: fork, ts: 1})
		s := g.at(closed.ID(), joined.ID())
		g.holds("closed while joining", s, "m.room.join_rules", "", closed)
		g.holds("closed while joining", s, "m.room.member", "@eve:evil", nil)
	}
}

// TestOwnLeaveIsNoPowerEvent: leaving by oneself is ordered with the rest, a kick is not.
func TestOwnLeaveIsNoPowerEvent(t *testing.T) {
	proof.Of(t, "SR-04")
	for _, v := range second() {
		g := populated(t, v, "")
		for content, want := range map[string]bool{`{"membership":"leave"}`: false, `{"membership":"join","displayname":"x"}`: false} {
			if got := isPower(g.must(sketch{sender: bob, typ: "m.room.member", key: bob, content: content, prev: g.order[len(g.order)-1:], state: g.at(g.order[6])})); got != want {
				t.Errorf("version %s: %s by oneself is a power event: %v", v, content, got)
			}
		}
		kick := g.must(sketch{sender: alice, typ: "m.room.member", key: carol, content: `{"membership":"leave"}`})
		if !isPower(kick) {
			t.Errorf("version %s: a kick is no power event", v)
		}
	}
}

// TestRejectedAuthEventsDoNotCount: levels that were rejected give nobody power during resolution.
func TestRejectedAuthEventsDoNotCount(t *testing.T) {
	proof.Of(t, "SR-07")
	for _, v := range second() {
		g := populated(t, v, "")
		levels := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":50`)})
		// Both states stand on the levels, so that they are not resolved, only looked up; and neither has them itself.
		g.must(sketch{sender: dave, typ: "m.room.member", key: dave, content: `{"membership":"join","displayname":"D"}`})
		other := g.at(g.newest()...)
		topic := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"x"}`})
		with := g.at(topic.ID())
		for _, s := range []state{with, other} {
			delete(s, StateKey{Type: "m.room.power_levels"})
		}
		for _, rejected := range []bool{false, true} {
			out, err := Resolve(v, []state{with, other}, g.get, func(id matrix.EventID) bool { return rejected && id == levels.ID() })
			if err != nil {
				t.Fatal(err)
			}
			if _, there := out[StateKey{Type: "m.room.topic"}]; there == rejected {
				t.Errorf("version %s: the levels were rejected: %v, and the topic is there: %v", v, rejected, there)
			}
		}
	}
}

// TestStartsFromNothing is the first regression that version 12 repaired (MSC4297): whoever set the levels has left
// since, in all states alike. Checked against that, both levels fall and the room has none; version 2.1 begins with an
// empty state, in which the levels' own auth events say that the sender was there.
func TestStartsFromNothing(t *testing.T) {
	proof.Of(t, "SR-06", "F10")
	for _, v := range second() {
		g := populated(t, v, `"@bob:one":100`)
		first := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":100,"@carol:two":50`)})
		then := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":100,"@carol:two":50,"@dave:two":50`)})
		left := g.must(sketch{sender: alice, typ: "m.room.member", key: alice, content: `{"membership":"leave"}`})
		a := g.at(left.ID())
		b := g.resolve(a)
		b[StateKey{Type: "m.room.power_levels"}] = first.ID()
		want := then
		if v.StateRes() == 2 {
			want = nil
		}
		s := g.resolve(a, b)
		g.holds("levels of somebody who left", s, "m.room.power_levels", "", want)
		g.holds("levels of somebody who left", s, "m.room.member", alice, left)
	}
}

// TestConflictedSubgraph is the second one: between two levels that the states dispute stand others that no state
// disputes and every chain has. Without them the newer cannot be reached from the older and the room falls back;
// version 2.1 adds what lies on the way.
func TestConflictedSubgraph(t *testing.T) {
	proof.Of(t, "SR-06", "F10")
	for _, v := range second() {
		g := newGraph(t, v)
		oldest := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels("")})
		g.must(sketch{sender: alice, typ: "m.room.join_rules", content: `{"join_rule":"public"}`})
		g.must(sketch{sender: bob, typ: "m.room.member", key: bob, content: `{"membership":"join"}`})
		g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":100`)})
		newest := g.must(sketch{sender: bob, typ: "m.room.power_levels", content: g.levels(`"@bob:one":100,"@carol:two":50`)})
		g.must(sketch{sender: carol, typ: "m.room.member", key: carol, content: `{"membership":"join"}`})
		a := g.at(g.newest()...)
		b := g.resolve(a)
		b[StateKey{Type: "m.room.power_levels"}] = oldest.ID()
		want := newest
		if v.StateRes() == 2 {
			want = oldest
		}
		g.holds("levels two steps apart", g.resolve(a, b), "m.room.power_levels", "", want)
	}
}

// TestVersion1 is the algorithm of room version 1.
func TestVersion1(t *testing.T) {
	proof.Of(t, "SR-02")
	g := populated(t, 1, `"@bob:one":50`)
	fork := g.newest()
	shallow := g.must(sketch{sender: alice, typ: "m.room.topic", content: `{"topic":"shallow"}`, prev: fork, ts: 9_000_000})
	deep := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"deep"}`, prev: fork, depth: 100, ts: 1})
	g.holds("the deepest", g.at(shallow.ID(), deep.ID()), "m.room.topic", "", deep)

	one := g.must(sketch{sender: alice, typ: "m.room.name", content: `{"name":"1"}`, prev: fork, depth: 50})
	two := g.must(sketch{sender: alice, typ: "m.room.name", content: `{"name":"2"}`, prev: fork, depth: 50})
	low := one
	x, y := sha1.Sum([]byte(one.ID())), sha1.Sum([]byte(two.ID()))
	if bytes.Compare(y[:], x[:]) < 0 {
		low = two
	}
	g.holds("as deep: the lowest hash", g.at(one.ID(), two.ID()), "m.room.name", "", low)

	// Levels: the first of the list stands, and those after it as long as each may follow the one before.
	base := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":50`) + ``, prev: fork})
	demoted := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(``), prev: fork, depth: 60})
	kept := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":50,"@carol:two":50`), prev: fork, depth: 70})
	g.holds("all may follow", g.at(base.ID(), demoted.ID(), kept.ID()), "m.room.power_levels", "", kept)

	// What only some of the states have is no conflict, and stays although it would not be allowed now.
	gone := g.must(sketch{sender: bob, typ: "org.example.mark", content: `{}`, prev: fork})
	s := g.resolve(g.at(gone.ID()), g.at(demoted.ID()))
	g.holds("only in one state", s, "org.example.mark", "", gone)

	// A ban and what the banned did: members are resolved before the rest.
	ban := g.must(sketch{sender: alice, typ: "m.room.member", key: bob, content: `{"membership":"ban"}`, prev: fork})
	late := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"late"}`, prev: []matrix.EventID{shallow.ID()}, depth: 500})
	renamed := g.must(sketch{sender: bob, typ: "m.room.member", key: bob, content: `{"membership":"join","displayname":"B"}`, prev: []matrix.EventID{late.ID()}, depth: 3})
	_ = renamed
	left := g.at(ban.ID())
	left[StateKey{Type: "m.room.topic"}] = shallow.ID()
	s = g.resolve(left, g.at(late.ID()))
	g.holds("banned while naming", s, "m.room.topic", "", shallow)
}

func TestFailuresOfTheFetch(t *testing.T) {
	own := errors.New("the disk is gone")
	for _, v := range matrix.RoomVersions() {
		g := populated(t, v, `"@bob:one":50`)
		fork := g.newest()
		a := g.must(sketch{sender: alice, typ: "m.room.topic", content: `{"topic":"a"}`, prev: fork})
		b := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"b"}`, prev: fork})
		sets := []state{g.after[a.ID()], g.after[b.ID()]}
		_, err := Resolve(v, sets, func([]matrix.EventID) (map[matrix.EventID]*matrix.Event, error) { return nil, own }, func(matrix.EventID) bool { return false })
		if !errors.Is(err, own) {
			t.Errorf("version %s: the error of the fetch came back as %v", v, err)
		}
		// Events that are not held are left out; the rest is resolved all the same.
		out, err := Resolve(v, sets, func(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
			found, err := g.get(ids)
			delete(found, b.ID())
			return found, err
		}, func(matrix.EventID) bool { return false })
		if err != nil || out[StateKey{Type: "m.room.topic"}] != a.ID() {
			t.Errorf("version %s: with one event not held the topic is %s, %v", v, out[StateKey{Type: "m.room.topic"}], err)
		}
	}
}
