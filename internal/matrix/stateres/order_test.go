package stateres

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"testing"

	"pgregory.net/rapid"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// families are versions of each algorithm and of each set of rules that it works with.
var families = []matrix.RoomVersion{1, 2, 5, 6, 8, 11, 12}

// TestOrderDoesNotMatter resolves states of random graphs in every order that comes to mind: the answer is the same,
// is that of the reference, keeps what is agreed, and holds nothing that was not there. 200 graphs per family, 10,000 in the long form.
func TestOrderDoesNotMatter(t *testing.T) {
	proof.Of(t, "F10", "SR-02", "SR-03", "SR-05", "SR-06", "SR-08")
	checks := "200"
	if os.Getenv("CONCLAVE_LONG") != "" {
		checks = "10000"
	}
	had := flag.Lookup("rapid.checks").Value.String()
	if err := flag.Set("rapid.checks", checks); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flag.Set("rapid.checks", had) }()
	for _, v := range families {
		disputes := 0
		t.Run(v.String(), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				g := randomGraph(t, rt, v)
				n := rapid.IntRange(2, 5).Draw(rt, "states")
				sets := make([]state, n)
				for i := range sets {
					sets[i] = g.after[rapid.SampledFrom(g.order).Draw(rt, "state")]
				}
				want := g.resolve(sets...)
				if _, disputed := separate(sets, false); len(disputed) > 0 {
					disputes++
				}
				if slow := (reference{v: v, events: g.events}).resolve(sets); !maps.Equal(slow, want) {
					rt.Fatalf("version %s: the specification resolves to\n%v, not\n%v", v, slow, want)
				}
				if plain := g.plainly(sets...); !maps.Equal(plain, want) {
					rt.Fatalf("version %s: without heights it resolves to\n%v, not\n%v", v, plain, want)
				}
				sameInParts(rt, g, sets, want)
				sameInAnyOrder(rt, g, sets, want)
				sane(rt, g, sets, want)
			})
		})
		if disputes < 50 {
			t.Errorf("version %s: only %d graphs had something to resolve", v, disputes)
		}
	}
}

func sameInAnyOrder(rt *rapid.T, g *graph, sets []state, want state) {
	for range 3 {
		order := rapid.Permutation(sets).Draw(rt, "order")
		again := append(order, order[0]) // a state that is given twice counts once
		for _, list := range [][]state{order, again} {
			if got := g.resolve(list...); !maps.Equal(got, want) {
				rt.Fatalf("version %s: another order of states resolves to\n%v, not\n%v", g.v, got, want)
			}
		}
	}
	// What was resolved adds nothing new to itself.
	if got := g.resolve(want, want); !maps.Equal(got, want) {
		rt.Fatalf("version %s: the result resolves to something else", g.v)
	}
}

// sameInParts resolves the places in which states differ alone, as it is done with large states.
func sameInParts(rt *rapid.T, g *graph, sets []state, want state) {
	common := state{}
	for key, id := range sets[0] {
		common[key] = id
		for _, other := range sets[1:] {
			if other[key] != id {
				delete(common, key)
			}
		}
	}
	parts := make([]state, len(sets))
	for i, set := range sets {
		parts[i] = state{}
		for key, id := range set {
			if _, same := common[key]; !same {
				parts[i][key] = id
			}
		}
	}
	all := Common{
		Lookup: func(keys []StateKey) (map[StateKey]matrix.EventID, error) {
			found := state{}
			for _, key := range keys {
				if id, ok := common[key]; ok {
					found[key] = id
				}
			}
			return found, nil
		},
		InChain: func(wanted map[matrix.EventID]bool) error {
			for _, id := range common {
				for a := range (reference{v: g.v, events: g.events}).chain(id) {
					delete(wanted, a)
				}
			}
			return nil
		},
	}
	got, err := ResolveParts(g.v, parts, all, g.get, func(matrix.EventID) bool { return false }, g.height, func() error { return nil })
	if err != nil {
		rt.Fatal(err)
	}
	for key, id := range common {
		if there, ok := got[key]; ok && there != id {
			rt.Fatalf("version %s: %v, on which all agree, is changed", g.v, key)
		}
		got[key] = id
	}
	if !maps.Equal(got, want) {
		rt.Fatalf("version %s: in parts it resolves to\n%v, not\n%v", g.v, got, want)
	}
}

func sane(rt *rapid.T, g *graph, sets []state, got state) {
	agreed, _ := separate(sets, g.v.StateRes() == 1)
	for key, id := range agreed {
		if got[key] != id {
			rt.Fatalf("version %s: all states agree on %v, the result does not", g.v, key)
		}
	}
	for key, id := range got {
		e := g.events[id]
		if e == nil || keyOf(e) != key {
			rt.Fatalf("version %s: %v holds event %s, which is not its own", g.v, key, id)
		}
	}
	if _, ok := got[StateKey{Type: "m.room.create"}]; !ok {
		rt.Fatalf("version %s: the room has lost its creation", g.v)
	}
}

// randomGraph grows a room by whatever its rules let four people do, on top of random ends.
func randomGraph(t *testing.T, rt *rapid.T, v matrix.RoomVersion) *graph {
	g := populated(t, v, `"@bob:one":50`)
	people := []string{alice, bob, carol, dave}
	for range rapid.IntRange(5, 25).Draw(rt, "events") {
		s := sketch{sender: rapid.SampledFrom(people).Draw(rt, "sender"), ts: int64(rapid.IntRange(1, 20).Draw(rt, "time"))}
		for range rapid.IntRange(1, 3).Draw(rt, "parents") {
			s.prev = append(s.prev, rapid.SampledFrom(g.order[1:]).Draw(rt, "parent"))
		}
		other := rapid.SampledFrom(people).Draw(rt, "other")
		word := rapid.IntRange(0, 99).Draw(rt, "word")
		switch rapid.IntRange(0, 7).Draw(rt, "kind") {
		case 0:
			s.typ, s.content = "m.room.topic", fmt.Sprintf(`{"topic":"%d"}`, word)
		case 1:
			s.typ, s.content = "m.room.name", fmt.Sprintf(`{"name":"%d"}`, word)
		case 2:
			s.typ, s.content = "m.room.power_levels", g.levels(fmt.Sprintf(`"@bob:one":%d,"@carol:two":%d`, word, rapid.IntRange(0, 100).Draw(rt, "level")))
		case 3:
			s.typ, s.content = "m.room.join_rules", fmt.Sprintf(`{"join_rule":%q}`, rapid.SampledFrom([]string{"public", "invite", "knock"}).Draw(rt, "rule"))
		case 4:
			s.typ, s.key, s.content = "m.room.member", other, `{"membership":"ban"}`
		case 5:
			s.typ, s.key, s.content = "m.room.member", other, `{"membership":"leave"}`
		case 6:
			s.typ, s.key, s.content = "m.room.member", other, `{"membership":"invite"}`
		case 7:
			s.typ, s.key, s.content = "m.room.member", s.sender, fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, word)
		}
		_, _ = g.add(s) // what is not allowed does not happen
	}
	return g
}

// BenchmarkResolve is a room of 1,000 members whose two halves have each gone on for 20 state events.
func BenchmarkResolve(b *testing.B) {
	for _, v := range []matrix.RoomVersion{1, 11, 12} {
		b.Run(v.String(), func(b *testing.B) {
			g := populated(b, v, `"@bob:one":50`)
			for n := range 1000 {
				user := fmt.Sprintf("@u%d:one", n)
				g.must(sketch{sender: user, typ: "m.room.member", key: user, content: `{"membership":"join"}`})
			}
			fork := g.newest()
			var ends []matrix.EventID
			for half, sender := range []string{alice, bob} {
				prev := fork
				for n := range 20 {
					prev = []matrix.EventID{g.must(sketch{sender: sender, typ: "org.example.n", key: fmt.Sprint(n), content: fmt.Sprintf(`{"half":%d}`, half), prev: prev}).ID()}
				}
				ends = append(ends, prev...)
			}
			sets := []state{g.after[ends[0]], g.after[ends[1]]}
			b.ReportAllocs()
			for b.Loop() {
				g.resolve(sets...)
			}
		})
	}
}
