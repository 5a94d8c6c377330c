package matrix

import (
	"crypto/ed25519"
	"strings"
	"testing"
)

func benchEvent(b *testing.B) (*Template, ed25519.PrivateKey) {
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	content := `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"` + strings.Repeat("A", 1024) + `","device_id":"ABCDEFGH","sender_key":"` +
		strings.Repeat("B", 43) + `","session_id":"` + strings.Repeat("C", 43) + `"}`
	id := EventID("$" + strings.Repeat("x", 43))
	return &Template{RoomID: "!room:example.org", Sender: "@alice:example.org", Type: "m.room.encrypted", Content: []byte(content),
		PrevEvents: []EventID{id}, AuthEvents: []EventID{id, id, id}, Depth: 10, OriginServerTS: 1_700_000_000_000}, priv
}

func BenchmarkBuild(b *testing.B) {
	t, priv := benchEvent(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.Build(10, "example.org", "ed25519:a", priv); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEvent(b *testing.B) {
	t, priv := benchEvent(b)
	e, err := t.Build(10, "example.org", "ed25519:a", priv)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEvent(e.JSON(), 10); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTrustedEvent(b *testing.B) {
	t, priv := benchEvent(b)
	e, err := t.Build(10, "example.org", "ed25519:a", priv)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := TrustedEvent(e.JSON(), e.ID(), 10); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClientEvent(b *testing.B) {
	t, priv := benchEvent(b)
	e, err := t.Build(10, "example.org", "ed25519:a", priv)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ClientEvent(e, nil, false)
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	t, _ := benchEvent(b)
	b.SetBytes(int64(len(t.Content)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON(t.Content, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
