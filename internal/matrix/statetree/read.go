package statetree

import (
	"bytes"
	"context"
	"slices"
	"sort"
)

// batch bounds how many nodes All asks for at once, and with it the memory it needs in a room of any size.
const batch = 1024

// Get looks keys up in a tree: one load per level, each node once. Keys that the tree does not have are left out of the answer.
func Get(ctx context.Context, root Name, keys []Key, from Loader) (map[Key]int64, error) {
	out := make(map[Key]int64, len(keys))
	if root == (Name{}) || len(keys) == 0 {
		return out, nil
	}
	level := map[Name][]Key{root: keys}
	for depth := 0; len(level) > 0; depth++ {
		nodes, err := load(ctx, from, namesOf(level))
		if err != nil {
			return nil, err
		}
		next := map[Name][]Key{}
		for name, wanted := range level {
			n := nodes[name]
			if n.inner && depth >= maxDepth {
				return nil, corrupt("tree is too deep")
			}
			for _, key := range wanted {
				if n.inner {
					if child := n.children[key.nibble(depth)]; child != (Name{}) {
						next[child] = append(next[child], key)
					}
				} else if event, ok := n.find(key); ok {
					out[key] = event
				}
			}
		}
		level = next
	}
	return out, nil
}

// namesOf returns a level's names in a fixed order, so that what a Loader is asked does not vary from run to run.
func namesOf[V any](level map[Name]V) []Name {
	names := make([]Name, 0, len(level))
	for name := range level {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b Name) int { return bytes.Compare(a[:], b[:]) })
	return names
}

func (n *node) find(key Key) (int64, bool) {
	i := sort.Search(len(n.leaf), func(i int) bool { return bytes.Compare(n.leaf[i].Key[:], key[:]) >= 0 })
	if i < len(n.leaf) && n.leaf[i].Key == key {
		return n.leaf[i].Event, true
	}
	return 0, false
}

// place is a node together with the prefix of keys that leads to it.
type place struct {
	name   Name
	prefix Key
}

// All calls visit for every entry of a tree, in no particular order, and stops at visit's first error. A state of 10,000 entries is three
// loads. What it has in memory is bounded, however large the room, and damaged nodes that refer to themselves are noticed.
func All(ctx context.Context, root Name, from Loader, visit func(Entry) error) error {
	if root == (Name{}) {
		return nil
	}
	count, err := Count(ctx, root, from)
	if err != nil {
		return err
	}
	type group struct {
		depth  int
		places []place
	}
	stack := []group{{0, []place{{name: root}}}}
	for left := maxNodes(count); len(stack) > 0; {
		g := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if left -= len(g.places); left < 0 {
			return corrupt("tree has more nodes than its %d entries need", count)
		}
		var below []place
		if err := walk(ctx, from, g.depth, g.places, &below, visit); err != nil {
			return err
		}
		for part := range slices.Chunk(below, batch) {
			stack = append(stack, group{g.depth + 1, part})
		}
	}
	return nil
}

// maxNodes bounds the nodes of a tree: at most a leaf for each entry, and inner nodes of more than maxLeaf entries at each depth.
func maxNodes(count int) int { return count + maxDepth*(count/maxLeaf+1) }

// walk visits the leaves among nodes of one depth and collects the children of the others.
func walk(ctx context.Context, from Loader, depth int, places []place, below *[]place, visit func(Entry) error) error {
	byName := make(map[Name]struct{}, len(places))
	for _, p := range places {
		byName[p.name] = struct{}{}
	}
	nodes, err := load(ctx, from, namesOf(byName))
	if err != nil {
		return err
	}
	for _, p := range places {
		n := nodes[p.name]
		if n.inner && depth >= maxDepth {
			return corrupt("tree is too deep")
		}
		for i, child := range n.children {
			if child != (Name{}) {
				*below = append(*below, place{name: child, prefix: p.prefix.with(depth, i)})
			}
		}
		for _, e := range n.leaf {
			if !e.Key.under(p.prefix, depth) {
				return corrupt("node %x holds a key of another place", p.name)
			}
			if err := visit(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// with sets a nibble of a prefix.
func (k Key) with(depth, nibble int) Key {
	if depth%2 == 0 {
		nibble <<= 4
	}
	k[depth/2] |= byte(nibble)
	return k
}

// under reports whether the first depth nibbles of a key are those of a prefix.
func (k Key) under(prefix Key, depth int) bool {
	whole := depth / 2
	return bytes.Equal(k[:whole], prefix[:whole]) && (depth%2 == 0 || k[whole]>>4 == prefix[whole]>>4)
}

// Count returns the number of entries of a tree; it loads one node.
func Count(ctx context.Context, root Name, from Loader) (int, error) {
	if root == (Name{}) {
		return 0, nil
	}
	nodes, err := load(ctx, from, []Name{root})
	if err != nil {
		return 0, err
	}
	return nodes[root].count, nil
}
