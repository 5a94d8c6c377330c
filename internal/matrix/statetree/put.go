package statetree

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// spot is a place in a tree that is being changed. It starts as a name; when a change goes through it, it is loaded; what is written back
// is decided once everything below is known.
type spot struct {
	name   Name // as stored; zero if nothing is
	node   *node
	below  [16]*spot // of an inner node: the children that were opened
	depth  int
	stored int // entries it had when it was loaded
}

// Put applies a group of changes to a tree and returns the new root's name with the nodes that have to be stored for it (some may be
// stored already, when a state returns to an earlier one). Each existing node on the way is loaded once, in one batch per level. An entry
// with Event 0 deletes its key; if a key is named twice, the later change counts.
func Put(ctx context.Context, h Hasher, root Name, changes []Entry, from Loader) (Name, map[Name][]byte, error) {
	sorted, err := lastOfEach(changes)
	if err != nil {
		return Name{}, nil, err
	}
	made := map[Name][]byte{}
	if len(sorted) == 0 {
		return root, made, nil
	}
	top := &spot{name: root}
	if err := apply(ctx, top, sorted, from); err != nil {
		return Name{}, nil, err
	}
	top.recount()
	if err := gather(ctx, top, from); err != nil {
		return Name{}, nil, err
	}
	w := writer{hasher: h, made: made}
	return w.write(top), made, nil
}

// lastOfEach sorts changes by key and keeps the last of each.
func lastOfEach(changes []Entry) ([]Entry, error) {
	sorted := slices.Clone(changes)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	out := sorted[:0]
	for _, e := range sorted {
		if e.Event < 0 {
			return nil, fmt.Errorf("state tree: event number %d is negative", e.Event)
		}
		if len(out) > 0 && out[len(out)-1].Key == e.Key {
			out[len(out)-1] = e
		} else {
			out = append(out, e)
		}
	}
	return out, nil
}

// work is a spot and the changes that go through it.
type work struct {
	at      *spot
	changes []Entry
}

// apply opens, level by level, every node that a change goes through and changes the leaves.
func apply(ctx context.Context, top *spot, changes []Entry, from Loader) error {
	for level := []work{{top, changes}}; len(level) > 0; {
		spots := make([]*spot, len(level))
		for i, w := range level {
			spots[i] = w.at
		}
		if err := open(ctx, spots, from); err != nil {
			return err
		}
		var next []work
		for _, w := range level {
			if !w.at.node.inner {
				for _, e := range w.at.node.leaf {
					if !e.Key.under(w.changes[0].Key, w.at.depth) {
						return corrupt("node %x holds a key of another place", w.at.name)
					}
				}
				w.at.node = changeLeaf(w.at.node, w.changes)
				continue
			}
			for i, part := range split(w.changes, w.at.depth) {
				if len(part) > 0 {
					w.at.below[i] = &spot{name: w.at.node.children[i], depth: w.at.depth + 1}
					next = append(next, work{w.at.below[i], part})
				}
			}
		}
		level = next
	}
	return nil
}

// open loads the nodes of spots; where nothing is stored an empty leaf stands.
func open(ctx context.Context, spots []*spot, from Loader) error {
	var names []Name
	for _, s := range spots {
		if s.name != (Name{}) {
			names = append(names, s.name)
		}
	}
	nodes, err := load(ctx, from, names)
	if err != nil {
		return err
	}
	for _, s := range spots {
		if s.node = nodes[s.name]; s.name == (Name{}) {
			s.node = &node{}
		}
		s.stored = s.node.count
		if s.node.inner && s.depth >= maxDepth {
			return corrupt("tree is too deep")
		}
	}
	return nil
}

// split divides entries in order of key by a nibble.
func split(entries []Entry, depth int) (parts [16][]Entry) {
	for start := 0; start < len(entries); {
		nibble, end := entries[start].Key.nibble(depth), start+1
		for end < len(entries) && entries[end].Key.nibble(depth) == nibble {
			end++
		}
		parts[nibble] = entries[start:end]
		start = end
	}
	return parts
}

// changeLeaf merges changes into a leaf's entries; the result may have any size.
func changeLeaf(n *node, changes []Entry) *node {
	out := make([]Entry, 0, len(n.leaf)+len(changes))
	old := n.leaf
	for _, c := range changes {
		for len(old) > 0 && bytes.Compare(old[0].Key[:], c.Key[:]) < 0 {
			out, old = append(out, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].Key == c.Key {
			old = old[1:]
		}
		if c.Event != 0 {
			out = append(out, c)
		}
	}
	out = append(out, old...)
	return &node{leaf: out, count: len(out)}
}

// recount brings the number of entries of every opened inner node up to date.
func (s *spot) recount() {
	for _, child := range s.below {
		if child != nil {
			child.recount()
			s.node.count += child.node.count - child.stored
		}
	}
}

// gathering collects the entries below an inner node that is to become a leaf.
type gathering struct {
	target  *spot
	entries []Entry
	front   []*spot // opened nodes not looked at yet
}

// gather turns every topmost inner node that now has few enough entries into one leaf, loading what else lies below it.
func gather(ctx context.Context, top *spot, from Loader) error {
	all := shrunken(top, nil)
	for busy := len(all) > 0; busy; {
		busy = false
		var closed []*spot
		for _, g := range all {
			if closed = g.step(closed); len(g.front) > g.target.node.count {
				return corrupt("node %x has more nodes below it than entries", g.target.name)
			}
			busy = busy || len(g.front) > 0
		}
		if err := open(ctx, closed, from); err != nil {
			return err
		}
	}
	for _, g := range all {
		if len(g.entries) != g.target.node.count {
			return corrupt("node %x says it has %d entries, but %d were found", g.target.name, g.target.node.count, len(g.entries))
		}
		slices.SortFunc(g.entries, func(a, b Entry) int { return bytes.Compare(a.Key[:], b.Key[:]) })
		g.target.node = &node{leaf: g.entries, count: len(g.entries)}
	}
	return nil
}

// shrunken finds the topmost inner nodes with no more entries than a leaf holds.
func shrunken(s *spot, out []*gathering) []*gathering {
	if !s.node.inner {
		return out
	}
	if s.node.count <= maxLeaf {
		return append(out, &gathering{target: s, front: []*spot{s}})
	}
	for _, child := range s.below {
		if child != nil {
			out = shrunken(child, out)
		}
	}
	return out
}

// step goes one level down; children that were not opened yet are added to closed.
func (g *gathering) step(closed []*spot) []*spot {
	var next []*spot
	for _, s := range g.front {
		g.entries = append(g.entries, s.node.leaf...)
		for i, name := range s.node.children {
			child := s.below[i]
			if child == nil && name == (Name{}) || child != nil && child.node.count == 0 {
				continue
			}
			if child == nil {
				child = &spot{name: name, depth: s.depth + 1}
				closed = append(closed, child)
			}
			next = append(next, child)
		}
	}
	g.front = next
	return closed
}

// writer names and collects what has to be stored.
type writer struct {
	hasher Hasher
	made   map[Name][]byte
}

// write returns the name of a changed subtree.
func (w writer) write(s *spot) Name {
	switch n := s.node; {
	case n.count == 0:
		return Name{}
	case n.inner:
		children := n.children
		for i, child := range s.below {
			if child != nil {
				children[i] = w.write(child)
			}
		}
		return w.add(s.name, encodeInner(&children, n.count))
	case n.count <= maxLeaf:
		return w.add(s.name, encodeLeaf(n.leaf))
	default:
		var children [16]Name
		for i, part := range split(n.leaf, s.depth) {
			children[i] = w.write(&spot{node: &node{leaf: part, count: len(part)}, depth: s.depth + 1})
		}
		return w.add(s.name, encodeInner(&children, n.count))
	}
}

// add names a node and keeps it unless it is what stands there already.
func (w writer) add(old Name, encoded []byte) Name {
	name := w.hasher.nameOf(encoded)
	if name != old {
		w.made[name] = encoded
	}
	return name
}
