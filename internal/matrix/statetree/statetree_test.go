package statetree

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// store is a Loader over a map that counts what it is asked for.
type store struct {
	nodes        map[Name][]byte
	loads, asked int
}

func newStore() *store { return &store{nodes: map[Name][]byte{}} }

func (s *store) Nodes(_ context.Context, names []Name) (map[Name][]byte, error) {
	out := map[Name][]byte{}
	s.loads++
	for _, name := range names {
		s.asked++
		if data, ok := s.nodes[name]; ok {
			out[name] = data
		}
	}
	return out, nil
}

func (s *store) reset() { s.loads, s.asked = 0, 0 }

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (s *store) put(t fataler, h Hasher, root Name, changes []Entry) (Name, map[Name][]byte) {
	t.Helper()
	name, made, err := Put(context.Background(), h, root, changes, s)
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	maps.Copy(s.nodes, made)
	return name, made
}

func (s *store) all(t fataler, root Name) map[Key]int64 {
	t.Helper()
	out := map[Key]int64{}
	err := All(context.Background(), root, s, func(e Entry) error {
		if _, twice := out[e.Key]; twice {
			t.Fatalf("All visits %x twice", e.Key)
		}
		out[e.Key] = e.Event
		return nil
	})
	if err != nil {
		t.Fatalf("All: %v", err)
	}
	return out
}

var testHasher = NewHasher([]byte("secret of a database in a test.."))

// deepKey makes keys that share a long prefix, as no outsider can; hashKey makes ordinary ones.
func deepKey(i int) (k Key) {
	binary.BigEndian.PutUint16(k[10:], uint16(i))
	return k
}

func hashKey(i int) Key { return testHasher.KeyOf("m.test", string(rune(i))) }

// drawChanges draws a group of changes; keys repeat often, so that groups delete and overwrite.
func drawChanges(t *rapid.T, most int) []Entry {
	n := rapid.IntRange(0, most).Draw(t, "changes")
	seed := rapid.Uint64().Draw(t, "seed")
	random := rand.New(rand.NewPCG(seed, 1))
	deletes := rapid.IntRange(0, 10).Draw(t, "deletes in ten")
	changes := make([]Entry, n)
	for i := range changes {
		key := hashKey(random.IntN(600))
		if random.IntN(2) == 0 {
			key = deepKey(random.IntN(300))
		}
		changes[i] = Entry{key, random.Int64N(1<<40) + 1}
		if random.IntN(10) < deletes {
			changes[i].Event = 0
		}
	}
	return changes
}

func applyTo(model map[Key]int64, changes []Entry) {
	for _, c := range changes {
		if c.Event == 0 {
			delete(model, c.Key)
		} else {
			model[c.Key] = c.Event
		}
	}
}

// TestModel holds trees made by random groups of changes against a plain map: content, look-ups, differences, and that the root's name depends on
// the content alone.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model, root := newStore(), map[Key]int64{}, Name{}
		for range rapid.IntRange(1, 6).Draw(t, "groups") {
			before, was := root, maps.Clone(model)
			changes := drawChanges(t, 400)
			root, _ = s.put(t, testHasher, root, changes)
			applyTo(model, changes)
			checkDiff(t, s, before, root, was, model)
			checkDiff(t, s, root, before, model, was)
		}
		if got := s.all(t, root); !maps.Equal(got, model) {
			t.Fatalf("All gives %d entries, want %d", len(got), len(model))
		}
		keys := []Key{hashKey(5), deepKey(7), {255}}
		for key := range model {
			keys = append(keys, key)
		}
		found, err := Get(context.Background(), root, keys, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if found[key] != model[key] {
				t.Fatalf("Get(%x) = %d, want %d", key, found[key], model[key])
			}
		}
		if n, err := Count(context.Background(), root, s); err != nil || n != len(model) {
			t.Fatalf("Count = %d, %v, want %d", n, err, len(model))
		}
		checkRebuilt(t, root, model, rapid.IntRange(1, 200).Draw(t, "group size"))
	})
}

// checkRebuilt builds the same content in one go, and in groups in random order, and wants the same root each time.
func checkRebuilt(t *rapid.T, root Name, model map[Key]int64, size int) {
	var entries []Entry
	for key, event := range model {
		entries = append(entries, Entry{key, event})
	}
	s := newStore()
	if once, made := s.put(t, testHasher, Name{}, entries); once != root {
		t.Fatalf("the root depends on history: %d entries", len(model))
	} else if len(made) > maxNodes(len(model)) {
		t.Fatalf("%d nodes for %d entries", len(made), len(model))
	}
	piecewise := Name{}
	for group := range slices.Chunk(entries, size) { // the order of a map is random
		piecewise, _ = s.put(t, testHasher, piecewise, group)
	}
	if piecewise != root {
		t.Fatalf("the root depends on grouping")
	}
}

func checkDiff(t *rapid.T, s *store, a, b Name, from, to map[Key]int64) {
	changes, err := Diff(context.Background(), a, b, s)
	if err != nil {
		t.Fatal(err)
	}
	got := maps.Clone(from)
	for i, c := range changes {
		if c.A == c.B || from[c.Key] != c.A || to[c.Key] != c.B {
			t.Fatalf("Diff says %x was %d and is %d; it was %d and is %d", c.Key, c.A, c.B, from[c.Key], to[c.Key])
		}
		if i > 0 && slices.Compare(changes[i-1].Key[:], c.Key[:]) >= 0 {
			t.Fatalf("Diff is not in order of key")
		}
		applyTo(got, []Entry{{c.Key, c.B}})
	}
	if !maps.Equal(got, to) {
		t.Fatalf("Diff leaves out changes")
	}
}

// TestEveryNodeMadeIsCanonical checks the names and bytes of stored nodes, and that Put makes none that is not part of the new tree.
func TestEveryNodeMadeIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		root, _ := s.put(t, testHasher, Name{}, drawChanges(t, 500))
		root, made := s.put(t, testHasher, root, drawChanges(t, 500))
		used := map[Name]bool{}
		for level := []Name{root}; len(level) > 0 && root != (Name{}); {
			var next []Name
			for _, name := range level {
				used[name] = true
				n, err := decode(s.nodes[name])
				if err != nil {
					t.Fatal(err)
				}
				for _, child := range n.children {
					if child != (Name{}) {
						next = append(next, child)
					}
				}
			}
			level = next
		}
		for name, data := range made {
			if _, _, err := testHasher.CheckNode(name, data); err != nil {
				t.Fatal(err)
			}
			if !used[name] {
				t.Fatalf("node %x is made but not used", name)
			}
		}
	})
}

// largeTree builds a tree of n entries.
func largeTree(t fataler, n int) (*store, Name) {
	s := newStore()
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = Entry{hashKey(i), int64(i) + 1_000_000}
	}
	root, _ := s.put(t, testHasher, Name{}, entries)
	s.reset()
	return s, root
}

// The figures of the architecture for a room of 10,000: a change is 3 nodes and about 1.5 kB, the whole state 273 nodes in 3 loads.
func TestFiguresOfALargeRoom(t *testing.T) {
	s, root := largeTree(t, 10_000)
	if got := s.all(t, root); len(got) != 10_000 || s.asked > 280 || s.loads > 4 {
		t.Errorf("All: %d entries by %d nodes in %d loads", len(got), s.asked, s.loads)
	}
	s.reset()
	next, made := s.put(t, testHasher, root, []Entry{{hashKey(77), 5_000_000}})
	bytes := 0
	for _, data := range made {
		bytes += len(data)
	}
	if len(made) != 3 || bytes > 1700 || s.asked != 3 || s.loads != 3 {
		t.Errorf("one change: %d nodes, %d bytes, %d loaded in %d loads", len(made), bytes, s.asked, s.loads)
	}
	s.reset()
	if changes, err := Diff(context.Background(), root, next, s); err != nil || len(changes) != 1 || s.asked != 6 || s.loads != 3 {
		t.Errorf("Diff: %v, %v by %d nodes in %d loads", changes, err, s.asked, s.loads)
	}
	s.reset()
	if back, _ := s.put(t, testHasher, next, []Entry{{hashKey(77), 77 + 1_000_000}}); back != root {
		t.Error("undoing a change does not give the old root")
	}
	s.reset()
	if same, made := s.put(t, testHasher, root, []Entry{{hashKey(77), 77 + 1_000_000}, {Key{1}, 0}}); same != root || len(made) != 0 {
		t.Errorf("a change that changes nothing makes %d nodes", len(made))
	}
}

func TestShrinkingToNothing(t *testing.T) {
	s, root := largeTree(t, 3000)
	var gone []Entry
	for i := range 2970 {
		gone = append(gone, Entry{Key: hashKey(i)})
	}
	root, made := s.put(t, testHasher, root, gone)
	if len(made) != 1 || s.loads > 8 {
		t.Errorf("a tree of 30 entries is made of %d nodes, by %d loads", len(made), s.loads)
	}
	for i := range 30 {
		root, _ = s.put(t, testHasher, root, []Entry{{Key: hashKey(2970 + i)}})
	}
	if root != (Name{}) {
		t.Error("the empty tree must have the zero name")
	}
}

func TestErrors(t *testing.T) {
	ctx := context.Background()
	s, root := largeTree(t, 500)
	if _, _, err := Put(ctx, testHasher, root, []Entry{{hashKey(1), -1}}, s); err == nil {
		t.Error("a negative event number was accepted")
	}
	for name := range s.nodes {
		if name != root {
			delete(s.nodes, name)
		}
	}
	if _, err := Get(ctx, root, []Key{hashKey(1)}, s); !errors.Is(err, ErrMissing) {
		t.Errorf("Get: %v", err)
	}
	if err := All(ctx, root, s, func(Entry) error { return nil }); !errors.Is(err, ErrMissing) {
		t.Errorf("All: %v", err)
	}
	if _, err := Diff(ctx, root, Name{}, s); !errors.Is(err, ErrMissing) {
		t.Errorf("Diff: %v", err)
	}
	if _, _, err := Put(ctx, testHasher, root, []Entry{{hashKey(1), 1}}, s); !errors.Is(err, ErrMissing) {
		t.Errorf("Put: %v", err)
	}
	stop := errors.New("stop")
	s, root = largeTree(t, 500)
	if err := All(ctx, root, s, func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("All does not stop: %v", err)
	}
}

// Nodes that name themselves cannot come about without a collision of the hash, but a damaged database must not make a server run for ever.
func TestSelfReference(t *testing.T) {
	ctx := context.Background()
	name := Name{1}
	for children := 1; children <= 16; children++ {
		var c [16]Name
		for i := range children {
			c[i] = name
		}
		s := &store{nodes: map[Name][]byte{name: encodeInner(&c, 100)}}
		if err := All(ctx, name, s, func(Entry) error { return nil }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("All: %v", err)
		}
		if _, err := Get(ctx, name, []Key{{}}, s); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Get: %v", err)
		}
		if _, _, err := Put(ctx, testHasher, name, []Entry{{Key{}, 1}}, s); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Put: %v", err)
		}
		if _, err := Diff(ctx, name, Name{}, s); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Diff: %v", err)
		}
	}
}

func TestKeysAndSecrets(t *testing.T) {
	other := NewHasher([]byte("another secret"))
	if testHasher.KeyOf("a", "bc") == testHasher.KeyOf("ab", "c") {
		t.Error("type and state key run into one another")
	}
	if key := testHasher.KeyOf("a", "b"); key == other.KeyOf("a", "b") || key != NewHasher([]byte("secret of a database in a test..")).KeyOf("a", "b") {
		t.Error("keys must depend on the secret and the text alone")
	}
	s := newStore()
	one, _ := s.put(t, testHasher, Name{}, []Entry{{Key{1}, 1}})
	if two, _ := s.put(t, other, Name{}, []Entry{{Key{1}, 1}}); one == two {
		t.Error("names must depend on the secret")
	}
	if _, _, err := other.CheckNode(one, s.nodes[one]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("CheckNode: %v", err)
	}
}
