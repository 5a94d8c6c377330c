package statetree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	maxLeaf  = 64 // entries a leaf holds at most
	maxDepth = 32 // nibbles of a key

	maxEntries = 1 << 24 // of a tree: far more than a room's state ever has, so that damage is noticed
)

// node is a decoded node: a leaf (entries in ascending order of key) or an inner node (children by nibble).
type node struct {
	leaf     []Entry
	children [16]Name // of an inner node; the zero Name where there is no child
	count    int      // entries in the whole subtree
	inner    bool
}

// mostBelow is how many entries a child can have: each of the others has one at least. A damaged node that is below itself
// has too many.
func (n *node) mostBelow() int {
	most := n.count + 1
	for _, child := range n.children {
		if child != (Name{}) {
			most--
		}
	}
	return most
}

// nibble returns the depth-th nibble of a key.
func (k Key) nibble(depth int) int {
	b := k[depth/2]
	if depth%2 == 0 {
		return int(b >> 4)
	}
	return int(b & 15)
}

// Bytes of a leaf: 'L', number of entries, then for each its key and its event number as a varint.
// Bytes of an inner node: 'I', number of entries below as a varint, two bytes saying which children exist, and their names.

func encodeLeaf(entries []Entry) []byte {
	out := make([]byte, 0, 2+len(entries)*21)
	out = append(out, 'L', byte(len(entries)))
	for _, e := range entries {
		out = append(out, e.Key[:]...)
		out = binary.AppendUvarint(out, uint64(e.Event))
	}
	return out
}

func encodeInner(children *[16]Name, count int) []byte {
	out := make([]byte, 0, 6+16*16)
	out = append(out, 'I')
	out = binary.AppendUvarint(out, uint64(count))
	var mask uint16
	for i, child := range children {
		if child != (Name{}) {
			mask |= 1 << i
		}
	}
	out = binary.BigEndian.AppendUint16(out, mask)
	for _, child := range children {
		if child != (Name{}) {
			out = append(out, child[:]...)
		}
	}
	return out
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrCorrupt)
}

// decode reads a node strictly: exactly the bytes that encodeLeaf and encodeInner write are accepted.
func decode(data []byte) (*node, error) {
	switch {
	case len(data) > 0 && data[0] == 'L':
		return decodeLeaf(data[1:])
	case len(data) > 0 && data[0] == 'I':
		return decodeInner(data[1:])
	}
	return nil, corrupt("it is neither leaf nor inner node")
}

func decodeLeaf(data []byte) (*node, error) {
	if len(data) == 0 || data[0] == 0 || data[0] > maxLeaf {
		return nil, corrupt("number of entries")
	}
	n := &node{leaf: make([]Entry, data[0]), count: int(data[0])}
	data = data[1:]
	for i := range n.leaf {
		e := &n.leaf[i]
		if len(data) < len(e.Key) {
			return nil, corrupt("leaf is too short")
		}
		copy(e.Key[:], data)
		if i > 0 && bytes.Compare(n.leaf[i-1].Key[:], e.Key[:]) >= 0 {
			return nil, corrupt("keys are not in order")
		}
		event, size := uvarint(data[len(e.Key):])
		if size == 0 || event == 0 || event > 1<<63-1 {
			return nil, corrupt("event number")
		}
		e.Event = int64(event)
		data = data[len(e.Key)+size:]
	}
	if len(data) != 0 {
		return nil, corrupt("leaf is too long")
	}
	return n, nil
}

func decodeInner(data []byte) (*node, error) {
	count, size := uvarint(data)
	if size == 0 || count <= maxLeaf || count > maxEntries {
		return nil, corrupt("number of entries")
	}
	data = data[size:]
	if len(data) < 2 {
		return nil, corrupt("inner node is too short")
	}
	mask := binary.BigEndian.Uint16(data)
	data = data[2:]
	if mask == 0 || len(data) != 16*bits.OnesCount16(mask) {
		return nil, corrupt("number of children")
	}
	n := &node{inner: true, count: int(count)}
	for i := range n.children {
		if mask&(1<<i) == 0 {
			continue
		}
		copy(n.children[i][:], data)
		if n.children[i] == (Name{}) {
			return nil, corrupt("name of a child")
		}
		data = data[16:]
	}
	return n, nil
}

// uvarint is binary.Uvarint, but refuses all but the shortest form; size 0 is failure.
func uvarint(data []byte) (value uint64, size int) {
	value, size = binary.Uvarint(data)
	if size <= 0 || (size > 1 && data[size-1] == 0) {
		return 0, 0
	}
	return value, size
}
