package sealed

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"conclave/internal/matrix"
)

// recorded is a record of indices that never fails.
func recorded(uint32) error { return nil }

// TestPaddingHidesLengths holds that a padded length is enough, idempotent, monotonous, and costs little.
func TestPaddingHidesLengths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, maxPlaintext).Draw(t, "length")
		padded, err := paddedLength(n)
		if err != nil {
			t.Fatal(err)
		}
		again, err := paddedLength(padded)
		if err != nil || again != padded || padded < n || padded < smallest {
			t.Fatalf("%d is padded to %d, that to %d, %v", n, padded, again, err)
		}
		if n > smallest && (padded-n)*100 > 12*n {
			t.Fatalf("%d is padded to %d", n, padded)
		}
		if next, err := paddedLength(n + 1); err == nil && next < padded {
			t.Fatalf("%d is padded to %d, but one more to %d", n, padded, next)
		}
	})
}

// TestRatchetsCompose holds that it does not matter in how many goes one steps.
func TestRatchetsCompose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint32Range(0, 50).Draw(t, "a"), rapid.Uint32Range(0, 50).Draw(t, "b")
		r := ratchet(seeded("compose").Seed())
		if r.at(a).at(b) != r.at(a+b) {
			t.Fatalf("%d and %d are not %d", a, b, a+b)
		}
	})
}

// contents draws the content of an event, with a relation or without one.
func contents(t *rapid.T) []byte {
	content := map[string]any{"body": rapid.StringN(0, 400, 1200).Draw(t, "body"), "n": rapid.Int64Range(-1<<53+1, 1<<53-1).Draw(t, "n")}
	if kind := rapid.SampledFrom([]string{"", "m.thread", "m.replace", "m.annotation", "m.reference"}).Draw(t, "relation"); kind != "" {
		content["m.relates_to"] = map[string]any{"rel_type": kind, "event_id": "$other", "key": "x"}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestMessagesComeOut holds that what one device encrypts, whoever has its key from the index on reads, once, in any order,
// and whoever has a later key does not.
func TestMessagesComeOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := outbound(alice(), rapid.Uint32Range(0, 900).Draw(t, "start"))
		n := rapid.IntRange(1, 6).Draw(t, "messages")
		joins := rapid.IntRange(0, n-1).Draw(t, "joins before")
		var key []byte
		var sent, said [][]byte
		for i := range n {
			if i == joins {
				var err error
				if key, err = o.RoomKey(); err != nil {
					t.Fatal(err)
				}
			}
			content := contents(t)
			event, err := o.Encrypt("m.room.message", content, recorded)
			if err != nil {
				t.Fatal(err)
			}
			sent, said = append(sent, event), append(said, content)
		}
		s := NewSessions(func(matrix.RoomID) bool { return true })
		if _, err := s.Add(key, alice().origin()); err != nil {
			t.Fatal(err)
		}
		for _, i := range rapid.Permutation(indices(n)).Draw(t, "order") {
			d, err := s.Decrypt(Event{ID: matrix.EventID("$" + string(rune('a'+i))), Room: testRoom, Sender: alice().User, Type: TypeEncrypted, Content: sent[i]})
			if i < joins {
				if !errors.Is(err, ErrUnknownIndex) {
					t.Fatalf("a newcomer reads message %d: %v", i, err)
				}
				continue
			}
			if want, _ := Canonical(said[i]); err != nil || !bytes.Equal(d.Content, want) {
				t.Fatalf("message %d: %v", i, err)
			}
		}
	})
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestAlteredMessagesDoNot holds that no byte of a message can be changed.
func TestAlteredMessagesDoNot(t *testing.T) {
	key, err := outbound(alice(), 0).RoomKey()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		event, err := outbound(alice(), 0).Encrypt("m.room.message", contents(t), recorded)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(event)-1).Draw(t, "at")
		altered := bytes.Clone(event)
		altered[at] ^= byte(1 << rapid.IntRange(0, 6).Draw(t, "bit"))
		s := NewSessions(func(matrix.RoomID) bool { return true })
		if _, err := s.Add(key, alice().origin()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Decrypt(Event{ID: "$e", Room: testRoom, Sender: alice().User, Type: TypeEncrypted, Content: altered}); err == nil {
			t.Fatalf("%s still opens", altered)
		} else if ClassOf(err) == "" {
			t.Fatalf("no class: %v", err)
		}
	})
}

// TestSealedMessagesComeOut holds the same for messages to one device.
func TestSealedMessagesComeOut(t *testing.T) {
	to := bob().qualified(t)
	rapid.Check(t, func(rt *rapid.T) {
		content := contents(rt)
		event, err := alice().sender().Seal(to, bob().master(), TypeRoomKey, content, sentAt)
		if err != nil {
			rt.Fatal(err)
		}
		opened, err := bob().receiver(t, alice()).Open(ToDevice{Sender: alice().User, Type: TypeEncrypted, Content: event}, sentAt)
		if err != nil {
			rt.Fatal(err)
		}
		if want, _ := Canonical(content); !bytes.Equal(opened.Content, want) || opened.Origin() != alice().origin() {
			rt.Fatalf("%s came out as %s", content, opened.Content)
		}
	})
}

// TestAttachmentsComeOut holds the same for files, through the key as it travels.
func TestAttachmentsComeOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(rt, "plaintext")
		var ciphertext bytes.Buffer
		f, err := EncryptAttachment(&ciphertext, bytes.NewReader(plaintext))
		if err != nil {
			rt.Fatal(err)
		}
		text, err := f.MarshalJSON()
		if err != nil {
			rt.Fatal(err)
		}
		if f, err = ParseEncryptedFile(text); err != nil {
			rt.Fatal(err)
		}
		var private spool
		r, err := DecryptAttachment(f, &ciphertext, &private, 5000)
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plaintext) {
			rt.Fatalf("%x came out as %x, %v", plaintext, got, err)
		}
	})
}

// spool is a private file in memory.
type spool struct {
	data []byte
	at   int
}

func (s *spool) Write(p []byte) (int, error) {
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *spool) Read(p []byte) (int, error) {
	if s.at == len(s.data) {
		return 0, io.EOF
	}
	n := copy(p, s.data[s.at:])
	s.at += n
	return n, nil
}

func (s *spool) Seek(int64, int) (int64, error) {
	s.at = 0
	return 0, nil
}
