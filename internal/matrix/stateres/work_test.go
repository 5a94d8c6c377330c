package stateres

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"conclave/internal/matrix"
)

// TestEndsWhereItsCallerSays ends resolutions at each of their steps: there is the error and no state, and without one the
// state is the same as ever.
func TestEndsWhereItsCallerSays(t *testing.T) {
	enough := errors.New("enough")
	for _, v := range families {
		g := populated(t, v, `"@bob:one":50`)
		fork := g.newest()
		left := g.must(sketch{sender: bob, typ: "m.room.member", key: dave, content: `{"membership":"ban"}`, prev: fork})
		g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":0`), prev: fork})
		g.must(sketch{sender: alice, typ: "m.room.join_rules", content: `{"join_rule":"invite"}`})
		right := g.must(sketch{sender: dave, typ: "m.room.member", key: dave, content: `{"membership":"join","displayname":"D"}`})
		sets := []state{g.after[left.ID()], g.after[right.ID()]}
		none := func(matrix.EventID) bool { return false }
		want := g.resolve(sets...)
		for stop := 0; ; stop++ {
			steps := 0
			got, err := ResolveWithin(v, sets, g.get, none, g.height, func() error {
				if steps++; steps > stop {
					return enough
				}
				return nil
			})
			if err == nil {
				if !maps.Equal(got, want) || steps < 2 || steps > stop {
					t.Errorf("version %s: after %d steps %v, want %v", v, steps, got, want)
				}
				break
			}
			if !errors.Is(err, enough) || got != nil || steps != stop+1 {
				t.Fatalf("version %s: ended after %d of %d steps with %v, %v", v, steps, stop, got, err)
			}
		}
	}
}

// TestLongLinesOfPowerLevels is the graph that made the mainline ordering take time by the square (threats F13): power
// levels beside the mainline, each on top of the one before, and on each of them an event.
func TestLongLinesOfPowerLevels(t *testing.T) {
	const long = 300
	for _, v := range second() {
		if v != 6 && v != 12 {
			continue // one of each algorithm
		}
		g := populated(t, v, `"@bob:one":50`)
		fork := g.newest()
		for n := range long {
			g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(fmt.Sprintf(`"@bob:one":%d`, 50+n%2)), prev: fork})
			g.must(sketch{sender: bob, typ: "org.example", key: fmt.Sprint(n), content: `{}`})
			fork = g.newest()
		}
		left := fork
		g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":49`), prev: g.order[6:7]})
		right := g.newest()
		steps := 0
		_, err := ResolveWithin(v, []state{g.after[left[0]], g.after[right[0]]}, g.get, func(matrix.EventID) bool { return false }, g.height, func() error {
			steps++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if most := 20 * long; steps > most {
			t.Errorf("version %s: %d steps, want at most %d", v, steps, most)
		}
	}
}

// TestOldRoomsResolveAsFastAsYoungOnes forks a room whose auth chains are long by now: what lies below the fork is not
// looked at.
func TestOldRoomsResolveAsFastAsYoungOnes(t *testing.T) {
	for _, v := range second() {
		steps, fetched := map[int]int{}, map[int]int{}
		for _, age := range []int{10, 400} {
			g := populated(t, v, `"@bob:one":50`)
			for n := range age {
				g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(fmt.Sprintf(`"@bob:one":%d`, 50+n%2))})
				g.must(sketch{sender: bob, typ: "m.room.member", key: bob, content: fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, n)})
			}
			g.must(sketch{sender: dave, typ: "m.room.member", key: dave, content: `{"membership":"join","displayname":"new"}`})
			fork := g.newest()
			left := g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(`"@bob:one":60`), prev: fork})
			g.must(sketch{sender: bob, typ: "m.room.member", key: dave, content: `{"membership":"ban"}`, prev: fork})
			right := g.must(sketch{sender: bob, typ: "m.room.topic", content: `{"topic":"t"}`})
			get := func(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
				fetched[age] += len(ids)
				return g.get(ids)
			}
			step := func() error {
				steps[age]++
				return nil
			}
			got, err := ResolveWithin(v, []state{g.after[left.ID()], g.after[right.ID()]}, get, func(matrix.EventID) bool { return false }, g.height, step)
			if err != nil {
				t.Fatal(err)
			}
			g.holds("the fork", got, "m.room.power_levels", "", left)
			g.holds("the fork", got, "m.room.topic", "", right)
			if plain := g.plainly(g.after[left.ID()], g.after[right.ID()]); !maps.Equal(plain, got) {
				t.Errorf("version %s: without heights it resolves to %v", v, plain)
			}
		}
		if steps[400] > steps[10] || fetched[400] > fetched[10] {
			t.Errorf("version %s: %d steps and %d events in a young room, %d and %d in an old one", v, steps[10], fetched[10], steps[400], fetched[400])
		}
	}
}
