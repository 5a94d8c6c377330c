// Package statetree keeps a room's state as an immutable tree: a set of entries (key, event number) in a persistent 16-way hash tree.
//
// The shape depends on the content alone. A subtree of up to 64 entries is one leaf; a larger one is an inner node whose children hold the
// entries by the next nibble of their key. A node's name is a keyed hash of its bytes, and an inner node's bytes hold its children's
// names, so equal sets of entries have the same root name however they came about, equal subtrees are shared and can be skipped, and a change in a
// tree of 10,000 entries makes three new nodes. Because the hash is keyed with a secret of the database, nobody outside can prepare
// collisions or keys that share a long prefix.
//
// The package is pure: nodes come from a Loader, in batches, and new ones are handed back to be stored. The zero Name is the empty tree.
package statetree

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Name identifies a node within a database; the zero Name is the empty tree.
type Name [16]byte

// Key stands for a (type, state_key) pair; Hasher.KeyOf makes it.
type Key [16]byte

// Entry says which event holds a key's place in a state. In a group of changes Event 0 deletes the key; stored numbers are positive.
type Entry struct {
	Key   Key
	Event int64
}

// Loader fetches the bytes of nodes. Names it does not have are left out of the answer, which makes the calling function fail with ErrMissing.
// The bytes are only read and may be shared.
type Loader interface {
	Nodes(ctx context.Context, names []Name) (map[Name][]byte, error)
}

// ErrMissing is the cause when a Loader does not have a node that the tree names; ErrCorrupt when a node's bytes, or its place, make no sense.
var (
	ErrMissing = errors.New("state tree node is missing")
	ErrCorrupt = errors.New("state tree node is corrupt")
)

// Hasher makes keys and names with a secret of the database. It is safe for concurrent use.
type Hasher struct{ pool *sync.Pool }

// NewHasher returns a Hasher for a secret, which should be 32 random bytes.
func NewHasher(secret []byte) Hasher {
	key := append([]byte(nil), secret...)
	return Hasher{&sync.Pool{New: func() any { return &macState{mac: hmac.New(sha256.New, key)} }}}
}

// macState is a reusable HMAC with room for its sum, so that hashing does not allocate.
type macState struct {
	mac hash.Hash
	sum [sha256.Size]byte
	buf []byte
}

// hash is HMAC-SHA-256 cut to 16 bytes.
func (h Hasher) hash(fill func(buf []byte) []byte) (out [16]byte) {
	s := h.pool.Get().(*macState)
	s.buf = fill(s.buf[:0])
	s.mac.Reset()
	s.mac.Write(s.buf)
	copy(out[:], s.mac.Sum(s.sum[:0]))
	h.pool.Put(s)
	return out
}

// KeyOf returns the key of a state event's type and state_key. Keys and names cannot be mistaken for one another: what is hashed begins with a
// letter that says which it is.
func (h Hasher) KeyOf(typ, stateKey string) Key {
	return h.hash(func(buf []byte) []byte {
		buf = append(buf, 'K')
		buf = binary.AppendUvarint(buf, uint64(len(typ)))
		buf = append(buf, typ...)
		return append(buf, stateKey...)
	})
}

// nameOf returns the name of a node with these bytes.
func (h Hasher) nameOf(encoded []byte) Name {
	return h.hash(func(buf []byte) []byte { return append(buf, encoded...) })
}

// CheckNode reports whether stored bytes are a node of that name, and what it refers to: the names of its children, or
// its entries. It is for the verification of a database.
func (h Hasher) CheckNode(name Name, data []byte) (children []Name, entries []Entry, err error) {
	n, err := decode(data)
	if err != nil {
		return nil, nil, fmt.Errorf("node %x: %w", name, err)
	}
	if h.nameOf(data) != name {
		return nil, nil, fmt.Errorf("node %x: its bytes have another name: %w", name, ErrCorrupt)
	}
	for _, child := range n.children {
		if child != (Name{}) {
			children = append(children, child)
		}
	}
	return children, n.leaf, nil
}

// load fetches and decodes nodes, in one batch.
func load(ctx context.Context, from Loader, names []Name) (map[Name]*node, error) {
	if len(names) == 0 {
		return nil, nil
	}
	found, err := from.Nodes(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("loading %d state tree nodes: %w", len(names), err)
	}
	nodes := make(map[Name]*node, len(names))
	for _, name := range names {
		data, ok := found[name]
		if !ok {
			return nil, fmt.Errorf("node %x: %w", name, ErrMissing)
		}
		n, err := decode(data)
		if err != nil {
			return nil, fmt.Errorf("node %x: %w", name, err)
		}
		nodes[name] = n
	}
	return nodes, nil
}
