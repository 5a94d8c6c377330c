package statetree

import (
	"context"
	"testing"
)

// BenchmarkPut changes one entry of a tree of 10,000; it reports the nodes and bytes that have to be stored.
func BenchmarkPut(b *testing.B) {
	s, root := largeTree(b, 10_000)
	nodes, bytes, i := 0, 0, 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		_, made, err := Put(context.Background(), testHasher, root, []Entry{{hashKey(i % 10_000), int64(i) + 2_000_000}}, s)
		if err != nil {
			b.Fatal(err)
		}
		for _, data := range made {
			nodes++
			bytes += len(data)
		}
	}
	b.ReportMetric(float64(nodes)/float64(b.N), "nodes/op")
	b.ReportMetric(float64(bytes)/float64(b.N), "stored-B/op")
}

// BenchmarkGet looks up eight keys, as authorising an event does.
func BenchmarkGet(b *testing.B) {
	s, root := largeTree(b, 10_000)
	keys := make([]Key, 8)
	for i := range keys {
		keys[i] = hashKey(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Get(context.Background(), root, keys, s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAll reads a whole state of 10,000 entries.
func BenchmarkAll(b *testing.B) {
	s, root := largeTree(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := All(context.Background(), root, s, func(Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
