package statetree

import (
	"bytes"
	"context"
	"slices"
)

// Change is a key in which two trees differ: the event of each, 0 where a tree does not have the key.
type Change struct {
	Key  Key
	A, B int64
}

// Diff returns where two trees differ, in ascending order of key. Equal subtrees are skipped, so it costs in proportion to the difference;
// each level is one load.
func Diff(ctx context.Context, a, b Name, from Loader) ([]Change, error) {
	var out []Change
	level := pairUp(nil, side{name: a}, side{name: b})
	for depth, left := 0, 0; len(level) > 0; depth++ {
		loaded, err := loadSides(ctx, level, from)
		if err != nil {
			return nil, err
		}
		if depth == 0 { // both roots are loaded: they say how large the trees are
			left = maxNodes(level[0].a.count()) + maxNodes(level[0].b.count())
		}
		if left -= loaded; left < 0 {
			return nil, corrupt("trees have more nodes than their entries need")
		}
		var next []pair
		for i := range level {
			p := &level[i]
			if !p.a.inner() && !p.b.inner() {
				out = diffLeaves(out, p.a.entries, p.b.entries)
				continue
			}
			if depth >= maxDepth {
				return nil, corrupt("tree is too deep")
			}
			as, bs := p.a.parts(depth), p.b.parts(depth)
			for nibble := range as {
				next = pairUp(next, as[nibble], bs[nibble])
			}
		}
		level = next
	}
	slices.SortFunc(out, func(x, y Change) int { return bytes.Compare(x.Key[:], y.Key[:]) })
	return out, nil
}

// side is one tree's part of a place: a node, by name until it is loaded, or the entries of a leaf that stood further up. The zero side is empty.
type side struct {
	name    Name
	most    int // entries that the node can have; 0 for a root
	node    *node
	entries []Entry
}

// pair is a place at which two trees differ.
type pair struct{ a, b side }

// pairUp adds a place to the next level unless both sides are known to be equal there.
func pairUp(level []pair, a, b side) []pair {
	if a.name == b.name && len(a.entries) == 0 && len(b.entries) == 0 {
		return level
	}
	return append(level, pair{a, b})
}

func (s *side) inner() bool { return s.node != nil && s.node.inner }

func (s *side) count() int {
	if s.node == nil {
		return 0
	}
	return s.node.count
}

// parts divides a side into those of the next level.
func (s *side) parts(depth int) (parts [16]side) {
	if s.inner() {
		most := s.node.mostBelow()
		for i, child := range s.node.children {
			parts[i].name, parts[i].most = child, most
		}
		return parts
	}
	for i, entries := range split(s.entries, depth) {
		parts[i].entries = entries
	}
	return parts
}

// loadSides loads the nodes that a level names, in one batch, and returns their number.
func loadSides(ctx context.Context, level []pair, from Loader) (int, error) {
	var named []*side
	wanted := map[Name]struct{}{}
	for i := range level {
		for _, s := range [2]*side{&level[i].a, &level[i].b} {
			if s.name != (Name{}) {
				named = append(named, s)
				wanted[s.name] = struct{}{}
			}
		}
	}
	nodes, err := load(ctx, from, namesOf(wanted))
	if err != nil {
		return 0, err
	}
	for _, s := range named {
		s.node = nodes[s.name]
		if s.most != 0 && s.node.count > s.most {
			return 0, corrupt("node %x has more entries than fit there", s.name)
		}
		s.entries = s.node.leaf
	}
	return len(named), nil
}

// diffLeaves merges two lists in order of key and keeps what differs.
func diffLeaves(out []Change, a, b []Entry) []Change {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = bytes.Compare(a[0].Key[:], b[0].Key[:])
		}
		var c Change
		if order <= 0 {
			c.Key, c.A, a = a[0].Key, a[0].Event, a[1:]
		}
		if order >= 0 {
			c.Key, c.B, b = b[0].Key, b[0].Event, b[1:]
		}
		if c.A != c.B {
			out = append(out, c)
		}
	}
	return out
}
