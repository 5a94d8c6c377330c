package statetree

import (
	"bytes"
	"context"
	"testing"
)

// FuzzDecode feeds hostile bytes to the decoder: it must not panic, and what it accepts must encode to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(encodeLeaf([]Entry{{Key{1}, 1}, {Key{2}, 1 << 40}}))
	f.Add(encodeInner(&[16]Name{3: {1}, 9: {2}}, 100))
	f.Add([]byte("L\x01"))
	f.Add([]byte("I\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decode(data)
		if err != nil {
			return
		}
		again := encodeLeaf(n.leaf)
		if n.inner {
			again = encodeInner(&n.children, n.count)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%x is read, but written as %x", data, again)
		}
	})
}

// FuzzOperations puts hostile bytes in the place of each node below a root.
func FuzzOperations(f *testing.F) {
	f.Add(encodeLeaf([]Entry{{Key{1}, 1}}), []byte{1}, true)
	f.Add(encodeInner(&[16]Name{0: {9}, 1: {9}}, 66), []byte{0}, false)
	f.Add(encodeInner(&[16]Name{0: {9}, 1: {9}}, 1<<23), []byte{0}, true) // of enough entries for a long walk below itself
	f.Fuzz(func(t *testing.T, data, key []byte, remove bool) {
		ctx := context.Background()
		child, root := Name{9}, Name{8}
		s := &store{nodes: map[Name][]byte{child: data, root: encodeInner(&[16]Name{0: child, 5: child}, 65)}}
		var k Key
		copy(k[:], key)
		change := Entry{Key: k}
		if !remove {
			change.Event = 1
		}
		for _, name := range []Name{child, root} {
			_, _ = Get(ctx, name, []Key{k}, s)
			_ = All(ctx, name, s, func(Entry) error { return nil })
			_, _ = Diff(ctx, name, Name{}, s)
			_, _, _ = Put(ctx, testHasher, name, []Entry{change}, s)
		}
	})
}
