package sealed

import (
	"bytes"
	"strings"
	"testing"

	"conclave/internal/matrix"
)

// classified fails for an error without a class: whatever comes from outside has to be refused by name.
func classified(t *testing.T, err error) {
	t.Helper()
	if err != nil && ClassOf(err) == "" {
		t.Fatalf("no class: %v", err)
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":[1,-2,{"\u00e9":null}],"a":"\ud83d\ude00<"}`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := Canonical(text)
		classified(t, err)
		if err != nil {
			return
		}
		twice, err := Canonical(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q becomes %q, %v", once, twice, err)
		}
	})
}

func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "AA", "AB", "AAA=", "A\nA", "__", "++", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := decode64(s); err == nil && matrix.EncodeBase64(b) != s {
			t.Fatalf("%q is not the one way to write %x", s, b)
		}
		if b, err := decodeURL64(s); err == nil && matrix.EncodeURLBase64(b) != s {
			t.Fatalf("%q is not the one way to write %x", s, b)
		}
	})
}

func FuzzDeviceKeys(f *testing.F) {
	a := alice()
	identity, err := ParseCrossSigning(a.published, a.User, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.keys)
	f.Add(bytes.Replace(a.keys, []byte(`"signatures"`), []byte(`"dehydrated":true,"signatures"`), 1))
	f.Add([]byte(`{"algorithms":["` + AlgorithmSealed + `"],"device_id":"` + a.ID + `","keys":null,"signatures":{},"user_id":"` + string(a.User) + `"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Qualify(text, a.User, a.ID, identity)
		classified(t, err)
		if err == nil && k.SigningKey() != a.SigningKey() {
			t.Fatal("a key qualified that was never signed")
		}
	})
}

func FuzzCrossSigning(f *testing.F) {
	a := alice()
	f.Add(a.published.Master, a.published.SelfSigning, a.published.UserSigning)
	f.Add(a.published.Master, a.published.UserSigning, []byte{})
	f.Fuzz(func(t *testing.T, master, self, user []byte) {
		c, err := ParseCrossSigning(Published{master, self, user}, a.User, a.master())
		classified(t, err)
		if err == nil && !bytes.Equal(c.SelfSigning, seeded("alice", "self-signing")[32:]) {
			t.Fatal("a self-signing key passed that the master key never signed")
		}
	})
}

// FuzzOpen gives a receiver whatever a server may send.
func FuzzOpen(f *testing.F) {
	b := bob()
	for _, compact := range []string{"", "....", "a.b.c.d.e", strings.Repeat("AA", 40) + ".AA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA"} {
		f.Add([]byte(`{"algorithm":"` + AlgorithmSealed + `","ciphertext":"` + compact + `","sender_device":"X"}`))
	}
	header := matrix.EncodeURLBase64([]byte(`{"alg":"RSA-OAEP-256","cty":"JWT","enc":"A256GCM","kid":"` + b.Kid() + `"}`))
	f.Add([]byte(`{"algorithm":"` + AlgorithmSealed + `","ciphertext":"` + header + `.AA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA","sender_device":"X"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := &Receiver{Device: b.Device, Master: b.master(), Lookup: func(matrix.UserID, string) (*CrossSigning, []byte) { return nil, nil }}
		_, err := r.Open(ToDevice{Sender: alice().User, Type: TypeEncrypted, Content: content}, sentAt)
		if err == nil {
			t.Fatal("something opened that nobody sealed")
		}
		classified(t, err)
	})
}

// FuzzSigned gives a receiver whatever anybody may have encrypted to it: a JWS with any payload.
func FuzzSigned(f *testing.F) {
	a, b := alice(), bob()
	identity, err := ParseCrossSigning(a.published, a.User, a.master())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"alg":"EdDSA","kid":"ed25519:`+a.ID+`","typ":"`+AlgorithmSealed+`"}`), []byte(`{"type":"`+TypeRoomKey+`","content":{},"sender":"`+string(a.User)+`","sender_device":"`+a.ID+
		`","sender_device_keys":`+string(a.keys)+`,"sender_master_key":"`+a.master()+`","recipient":"@b:c","recipient_device":"B","recipient_kid":"k","recipient_master_key":"m","msg_id":"1","iat":1}`), make([]byte, 64))
	f.Fuzz(func(t *testing.T, header, payload, signature []byte) {
		r := b.receiver(t)
		r.Lookup = func(matrix.UserID, string) (*CrossSigning, []byte) { return identity, nil }
		compact := matrix.EncodeURLBase64(header) + "." + matrix.EncodeURLBase64(payload) + "." + matrix.EncodeURLBase64(signature)
		_, err := r.read(compact, a.User)
		if err == nil {
			t.Fatal("accepted what Alice never signed")
		}
		classified(t, err)
	})
}

func FuzzRoomKey(f *testing.F) {
	content, err := outbound(alice(), 3).RoomKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte(`{"algorithm":"` + AlgorithmGroup + `","index":1024,"room_id":"","session_id":"","ratchet":"","history_visibility":"","proof":""}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := NewSessions(func(matrix.RoomID) bool { return false })
		held, err := s.Add(content, alice().origin())
		classified(t, err)
		if err == nil && held.session != outbound(alice(), 0).ID() {
			t.Fatal("a session was accepted whose key did not sign")
		}
	})
}

func FuzzDecrypt(f *testing.F) {
	o := outbound(alice(), 3)
	key, err := o.RoomKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, content := range []string{`{"body":"x"}`, `{"m.relates_to":{"rel_type":"m.thread","event_id":"$x"}}`} {
		event, err := o.Encrypt("m.room.message", []byte(content), recorded)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(event)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := NewSessions(func(matrix.RoomID) bool { return true })
		if _, err := s.Add(key, alice().origin()); err != nil {
			t.Fatal(err)
		}
		d, err := s.Decrypt(Event{ID: "$e", Room: testRoom, Sender: alice().User, Type: TypeEncrypted, Content: content})
		classified(t, err)
		if err == nil && d.Type != "m.room.message" {
			t.Fatal("something decrypted that nobody encrypted")
		}
	})
}

// FuzzPlaintext reads what a member of the room may have encrypted, who is as hostile as anybody.
func FuzzPlaintext(f *testing.F) {
	f.Add([]byte(`{"room_id":"!r","type":"m.reaction","content":{"m.relates_to":{"rel_type":"m.annotation","event_id":"$e","key":"+"}}}  `))
	f.Add([]byte(`{"room_id":"!r","type":"t","content":{"m.relates_to":{"rel_type":null}}}`))
	f.Fuzz(func(t *testing.T, plaintext []byte) {
		e, err := encryptedContent(plaintext)
		classified(t, err)
		if err != nil {
			return
		}
		relation, err := e.clearRelation()
		classified(t, err)
		if err == nil && relation != nil {
			if err := (&message{relation: relation}).checkClearRelation(); err != nil {
				t.Fatalf("a receiver would refuse %s: %v", relation, err)
			}
		}
	})
}

func FuzzEncryptedFile(f *testing.F) {
	text, err := (&EncryptedFile{URL: "mxc://a/b"}).MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := ParseEncryptedFile(text)
		classified(t, err)
		if err != nil {
			return
		}
		again, err := file.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ParseEncryptedFile(again); err != nil || *same != *file {
			t.Fatalf("%s becomes another file: %v", again, err)
		}
	})
}
