package sealed

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"

	"conclave/internal/matrix"
)

const testRoom = matrix.RoomID("!room:alice.example")

// outbound is Alice's session in the vectors, stepped to an index.
func outbound(p *person, index uint32) *Outbound {
	return &Outbound{
		device: p.Device, room: testRoom, signing: seeded(string(p.User), "session"), history: "shared",
		ratchet: ratchet(seeded(string(p.User), "ratchet").Seed()).at(index), index: index,
	}
}

func (m *maker) roomKeyContent(p *person, index uint32) string {
	m.t.Helper()
	content, err := outbound(p, index).RoomKey()
	m.must(err)
	return string(content)
}

// heldFrom is a session of a person as it is held from an index on.
func heldFrom(p *person, index uint32) *sessionInput {
	o := outbound(p, index)
	return &sessionInput{
		Room: o.room, Session: o.ID(), Sender: p.User, Device: p.ID, Key: p.SigningKey(), Ratchet: matrix.EncodeBase64(o.ratchet[:]),
		Index: index, Visibility: o.history, Source: "direct",
	}
}

func (m *maker) roomKeys() {
	a := alice()
	in := func(content string, known *sessionInput) roomKeyInput {
		return roomKeyInput{content, a.User, a.ID, a.SigningKey(), known}
	}
	held := func(index uint32) map[string]any {
		s := heldFrom(a, index)
		return map[string]any{
			"room_id": s.Room, "session_id": s.Session, "ratchet": s.Ratchet, "index": index, "history_visibility": s.Visibility,
		}
	}
	vouched := func(s *sessionInput) *sessionInput { s.Source = "vouched"; return s }
	other := func(s *sessionInput) *sessionInput {
		s.Ratchet = matrix.EncodeBase64(seeded("other").Seed())
		return s
	}
	m.good("room_key", "new", "", in(m.roomKeyContent(a, 3), nil), held(3))
	m.good("room_key", "lower index", "the same session from earlier on", in(m.roomKeyContent(a, 3), heldFrom(a, 9)), held(3))
	m.good("room_key", "higher index", "what is known opens more", in(m.roomKeyContent(a, 9), heldFrom(a, 3)), held(3))
	m.good("room_key", "direct replaces vouched", "", in(m.roomKeyContent(a, 5), vouched(other(heldFrom(a, 0)))), held(5))
	m.bad("room_key", "another ratchet", "", in(m.roomKeyContent(a, 3), other(heldFrom(a, 3))), ErrConflictingSession)
	m.bad("room_key", "another ratchet from earlier on", "", in(m.roomKeyContent(a, 9), other(heldFrom(a, 3))), ErrConflictingSession)
	m.bad("room_key", "no proof", "", in(m.without(m.roomKeyContent(a, 0), "proof"), nil), ErrMalformed)
	m.bad("room_key", "another room", "the proof is for another", in(m.with(m.roomKeyContent(a, 0), "room_id", "!other:alice.example"), nil), ErrForgedSignature)
	m.bad("room_key", "another visibility", "the server would share the history", in(m.with(m.roomKeyContent(a, 0), "history_visibility", "world_readable"), nil), ErrForgedSignature)
	m.bad("room_key", "no such visibility", "", in(m.with(m.roomKeyContent(a, 0), "history_visibility", "all"), nil), ErrMalformed)
	c := in(m.roomKeyContent(a, 0), nil)
	c.Sender, c.Device, c.Key = mallory().User, mallory().ID, mallory().SigningKey()
	m.bad("room_key", "occupied", "Mallory claims the session that he saw on the wire", c, ErrForgedSignature)
	m.bad("room_key", "index too high", "", in(m.with(m.roomKeyContent(a, 0), "index", 1024), nil), ErrOversize)
	m.bad("room_key", "negative index", "", in(m.with(m.roomKeyContent(a, 0), "index", -1), nil), ErrMalformed)
	m.bad("room_key", "short ratchet", "", in(m.with(m.roomKeyContent(a, 0), "ratchet", "AAAA"), nil), ErrMalformed)
	m.bad("room_key", "megolm", "", in(m.with(m.roomKeyContent(a, 0), "algorithm", "m.megolm.v1.aes-sha2"), nil), ErrUnknownAlgorithm)
	m.bad("room_key", "small order", "", in(m.with(m.roomKeyContent(a, 0), "session_id", matrix.EncodeBase64(make([]byte, 32))), nil), ErrWeakKey)
}

// making is an encrypted event on its way, with everything in it open to change.
type making struct {
	plaintext string               // before it is padded
	relation  string               // the clear one; "" for none
	room      matrix.RoomID        // that is authenticated
	device    string               // likewise
	key       ed25519.PrivateKey   // that signs
	content   func(string) string  // changes the content of the event
	input     func(in *groupInput) // changes what surrounds it
	padded    bool                 // the plaintext is as it should be encrypted
}

const atIndex = 7

func (m *maker) newMaking() *making {
	return &making{
		plaintext: `{"content":{"body":"Good morning","msgtype":"m.text"},"room_id":"` + string(testRoom) + `","type":"m.room.message"}`,
		room:      testRoom, device: alice().ID, key: outbound(alice(), 0).signing, content: same, input: func(*groupInput) {},
	}
}

func (m *maker) buildEvent(k *making) groupInput {
	m.t.Helper()
	o := outbound(alice(), atIndex)
	salt := seeded("message salt").Seed()[:saltLength]
	msg := &message{device: k.device, session: o.ID(), index: o.index, salt: matrix.EncodeBase64(salt)}
	if k.relation != "" {
		var err error
		msg.relation, err = Canonical([]byte(k.relation))
		m.must(err)
	}
	padded := []byte(k.plaintext)
	if !k.padded {
		var err error
		padded, err = pad(padded)
		m.must(err)
	}
	aad, err := msg.additional(k.room, alice().User)
	m.must(err)
	msg.ciphertext, err = o.ratchet.seal(salt, padded, aad)
	m.must(err)
	msg.signature = matrix.EncodeBase64(ed25519.Sign(k.key, msg.signed(aad)))
	content, err := msg.encode()
	m.must(err)
	event, err := json.Marshal(map[string]any{
		"event_id": "$event", "sender": alice().User, "type": TypeEncrypted, "content": json.RawMessage(k.content(string(content))),
	})
	m.must(err)
	in := groupInput{Session: heldFrom(alice(), 2), Room: testRoom, Event: string(event), Seen: []seenInput{{6, "$before"}}}
	k.input(&in)
	return in
}

func (m *maker) decrypts(name, comment string, change func(*making)) {
	m.t.Helper()
	k := m.newMaking()
	change(k)
	content, _ := matrix.Get([]byte(k.plaintext), "content")
	canonical, err := Canonical(content)
	m.must(err)
	kind, _ := matrix.GetString([]byte(k.plaintext), "type")
	m.good("group", name, comment, m.buildEvent(k), map[string]any{"type": kind, "content_json": string(canonical), "index": atIndex})
}

func (m *maker) refuses(name, comment string, change func(*making), class Failure) {
	m.t.Helper()
	k := m.newMaking()
	change(k)
	m.bad("group", name, comment, m.buildEvent(k), class)
}

// saying sets the encrypted content.
func (k *making) saying(content string) {
	k.plaintext = `{"content":` + content + `,"room_id":"` + string(testRoom) + `","type":"m.room.message"}`
}

func (m *maker) group() {
	m.decrypts("text", "", func(*making) {})
	m.decrypts("long", "padded to the Padmé length", func(k *making) { k.saying(`{"body":"` + strings.Repeat("sea ", 900) + `","msgtype":"m.text"}`) })
	m.decrypts("text of the world", "", func(k *making) {
		k.saying("{\"body\":\"Grüße 世界 \U0001F30A \\n\\u0001<&>\",\"msgtype\":\"m.text\"}")
	})
	m.decrypts("held from here on", "", func(k *making) { k.input = func(in *groupInput) { in.Session = heldFrom(alice(), atIndex) } })
	m.decrypts("the same event again", "", func(k *making) { k.input = func(in *groupInput) { in.Seen = []seenInput{{atIndex, "$event"}} } })
	m.decrypts("reply", "only inside", func(k *making) {
		k.saying(`{"body":"Yes","m.relates_to":{"m.in_reply_to":{"event_id":"$question"}},"msgtype":"m.text"}`)
	})
	m.decrypts("thread", "", func(k *making) {
		k.saying(`{"body":"Yes","m.relates_to":{"event_id":"$root","is_falling_back":true,"m.in_reply_to":{"event_id":"$last"},"rel_type":"m.thread"},"msgtype":"m.text"}`)
		k.relation = `{"event_id":"$root","rel_type":"m.thread"}`
	})
	m.decrypts("edit", "", func(k *making) {
		k.saying(`{"body":"* Hi","m.new_content":{"body":"Hi","msgtype":"m.text"},"m.relates_to":{"event_id":"$old","rel_type":"m.replace"},"msgtype":"m.text"}`)
		k.relation = `{"event_id":"$old","rel_type":"m.replace"}`
	})
	m.decrypts("reaction", "a mere reference outside", func(k *making) {
		k.plaintext = "{\"content\":{\"m.relates_to\":{\"event_id\":\"$liked\",\"key\":\"\U0001F44D\",\"rel_type\":\"m.annotation\"}},\"room_id\":\"" + string(testRoom) + `","type":"m.reaction"}`
		k.relation = `{"event_id":"$liked","rel_type":"m.reference"}`
	})
	m.decrypts("a new member", "nothing authenticates it, and it is passed over", func(k *making) {
		k.content = func(c string) string { return m.with(c, "future", 1) }
	})
	m.groupForms()
	m.groupPlaces()
	m.groupRelations()
}

func (m *maker) groupForms() {
	m.refuses("megolm", "", func(k *making) {
		k.content = func(c string) string { return m.with(c, "algorithm", "m.megolm.v1.aes-sha2") }
	}, ErrUnknownAlgorithm)
	m.refuses("no algorithm", "", func(k *making) { k.content = func(c string) string { return m.without(c, "algorithm") } }, ErrMalformed)
	m.refuses("no signature", "", func(k *making) { k.content = func(c string) string { return m.without(c, "signature") } }, ErrMalformed)
	m.refuses("salt too short", "", func(k *making) { k.content = func(c string) string { return m.with(c, "salt", "AAAA") } }, ErrMalformed)
	m.refuses("padded base64", "", func(k *making) {
		k.content = func(c string) string {
			return m.with(c, "salt", matrix.EncodeBase64(seeded("message salt").Seed()[:saltLength])+"==")
		}
	}, ErrMalformed)
	m.refuses("index is a text", "", func(k *making) { k.content = func(c string) string { return m.with(c, "index", "7") } }, ErrMalformed)
	m.refuses("index too high", "", func(k *making) { k.content = func(c string) string { return m.with(c, "index", 1024) } }, ErrOversize)
	m.refuses("content too large", "", func(k *making) {
		k.content = func(c string) string { return m.with(c, "more", strings.Repeat("x", 64<<10)) }
	}, ErrOversize)
	m.refuses("plaintext too large", "", func(k *making) {
		k.saying(`{"body":"` + strings.Repeat("x", 40_961) + `"}`)
		k.padded = true
	}, ErrOversize)
	m.refuses("name twice inside", "", func(k *making) { k.saying(`{"body":"one","body":"two"}`) }, ErrDuplicateKey)
	m.refuses("not an object inside", "", func(k *making) { k.plaintext = `"text"` }, ErrMalformed)
	m.refuses("fraction inside", "", func(k *making) { k.saying(`{"body":"x","size":1.5}`) }, ErrMalformed)
	m.refuses("encrypted twice", "", func(k *making) {
		k.plaintext = strings.Replace(k.plaintext, `"m.room.message"`, `"m.room.encrypted"`, 1)
	}, ErrUnknownType)
	m.refuses("redaction inside", "a redaction is the servers' word", func(k *making) {
		k.plaintext = strings.Replace(k.plaintext, `"m.room.message"`, `"m.room.redaction"`, 1)
	}, ErrUnknownType)
}

func (m *maker) groupPlaces() {
	m.refuses("no key", "", func(k *making) { k.input = func(in *groupInput) { in.Session, in.Seen = nil, nil } }, ErrNoKey)
	m.refuses("before the key", "the session is held from a later index on", func(k *making) {
		k.input = func(in *groupInput) { in.Session = heldFrom(alice(), atIndex+1) }
	}, ErrUnknownIndex)
	m.refuses("moved to another room", "by the server", func(k *making) { k.input = func(in *groupInput) { in.Room = "!other:alice.example" } }, ErrWrongRoom)
	m.refuses("moved, and the session too", "the session's room is checked against its proof, the event's by what is authenticated", func(k *making) {
		k.input = func(in *groupInput) { in.Room, in.Session.Room = "!other:alice.example", "!other:alice.example" }
	}, ErrForgedSignature)
	m.refuses("another room inside", "the sender's own mistake, or an attack by the sender", func(k *making) {
		k.plaintext = strings.Replace(k.plaintext, string(testRoom), "!other:alice.example", 1)
	}, ErrWrongRoom)
	m.refuses("as another sender", "the server names Mallory", func(k *making) {
		k.input = func(in *groupInput) {
			in.Event = strings.Replace(in.Event, string(alice().User), string(mallory().User), 1)
		}
	}, ErrWrongSender)
	m.refuses("under a member's session", "Bob's event in Alice's session, of which every member has the ratchet", func(k *making) {
		k.key = bob().signing
	}, ErrForgedSignature)
	m.refuses("as another device", "", func(k *making) { k.content = func(c string) string { return m.with(c, "device_id", "ANOTHER") } }, ErrWrongSender)
	m.refuses("index altered", "", func(k *making) { k.content = func(c string) string { return m.with(c, "index", 8) } }, ErrForgedSignature)
	m.refuses("salt altered", "", func(k *making) {
		k.content = func(c string) string {
			return m.with(c, "salt", matrix.EncodeBase64(seeded("other salt").Seed()[:saltLength]))
		}
	}, ErrForgedSignature)
	m.refuses("ciphertext altered", "", func(k *making) {
		k.content = func(c string) string {
			ciphertext, _ := matrix.GetString([]byte(c), "ciphertext")
			return m.with(c, "ciphertext", flip(ciphertext, 0))
		}
	}, ErrForgedSignature)
	m.refuses("tag does not hold", "signed by the session, but not what the ratchet opens", func(k *making) {
		k.input = func(in *groupInput) { in.Session.Ratchet = matrix.EncodeBase64(seeded("other").Seed()) }
	}, ErrUndecryptable)
	m.refuses("replayed", "the index was seen on another event", func(k *making) {
		k.input = func(in *groupInput) { in.Seen = []seenInput{{atIndex, "$earlier"}} }
	}, ErrReplayedIndex)
}

func (m *maker) groupRelations() {
	thread := `{"body":"Yes","m.relates_to":{"event_id":"$root","rel_type":"m.thread"},"msgtype":"m.text"}`
	m.refuses("relation added", "by a server: another signature would be needed", func(k *making) {
		k.content = func(c string) string {
			return m.with(c, "m.relates_to", json.RawMessage(`{"event_id":"$other","rel_type":"m.replace"}`))
		}
	}, ErrForgedSignature)
	m.refuses("relation taken away", "", func(k *making) {
		k.saying(thread)
		k.relation = `{"event_id":"$root","rel_type":"m.thread"}`
		k.content = func(c string) string { return m.without(c, "m.relates_to") }
	}, ErrForgedSignature)
	relation := func(name, comment, inside, outside string) {
		m.refuses(name, comment, func(k *making) {
			k.saying(inside)
			k.relation = outside
		}, ErrAlteredRelation)
	}
	relation("relation to another event", "outside another than inside", thread, `{"event_id":"$other","rel_type":"m.thread"}`)
	relation("relation of another kind", "", thread, `{"event_id":"$root","rel_type":"m.replace"}`)
	relation("relation only inside", "", thread, "")
	relation("relation only outside", "", `{"body":"x","msgtype":"m.text"}`, `{"event_id":"$root","rel_type":"m.thread"}`)
	relation("reaction seen outside", "the emoji would be the servers' to count", `{"m.relates_to":{"event_id":"$e","key":"x","rel_type":"m.annotation"}}`,
		`{"event_id":"$e","key":"x","rel_type":"m.annotation"}`)
	relation("reaction of its own kind outside", "", `{"m.relates_to":{"event_id":"$e","key":"x","rel_type":"m.annotation"}}`, `{"event_id":"$e","rel_type":"m.annotation"}`)
	relation("more outside than allowed", "", thread, `{"event_id":"$root","is_falling_back":true,"rel_type":"m.thread"}`)
}

func (m *maker) attachments() {
	plaintext := []byte(strings.Repeat("a picture of the sea\n", 300))
	f := &EncryptedFile{URL: "mxc://alice.example/picture", key: [32]byte(seeded("attachment").Seed())}
	copy(f.iv[:8], seeded("attachment iv").Seed())
	var ciphertext strings.Builder
	m.must(f.encrypt(&ciphertext, strings.NewReader(string(plaintext))))
	file, err := f.MarshalJSON()
	m.must(err)
	in := func(file string, ciphertext string) map[string]string {
		return map[string]string{"file_json": file, "ciphertext": matrix.EncodeBase64([]byte(ciphertext))}
	}
	whole := ciphertext.String()
	m.good("attachment", "opens", "", in(string(file), whole), map[string]any{"plaintext": matrix.EncodeBase64(plaintext)})
	empty := *f
	ciphertext.Reset()
	m.must(empty.encrypt(&ciphertext, strings.NewReader("")))
	nothing, err := empty.MarshalJSON()
	m.must(err)
	m.good("attachment", "empty", "", in(string(nothing), ""), map[string]any{"plaintext": ""})
	m.bad("attachment", "altered", "one bit", in(string(file), string(whole[0]^1)+whole[1:]), ErrWrongHash)
	m.bad("attachment", "cut off", "", in(string(file), whole[:len(whole)-1]), ErrWrongHash)
	m.bad("attachment", "continued", "", in(string(file), whole+"x"), ErrWrongHash)
	m.bad("attachment", "version 1", "", in(m.with(string(file), "v", "v1"), whole), ErrMalformed)
	m.bad("attachment", "no hash", "", in(m.with(string(file), "hashes", map[string]string{}), whole), ErrMalformed)
	m.bad("attachment", "counter not at 0", "libraries differ in how they carry", in(m.with(string(file), "iv", matrix.EncodeBase64(append(f.iv[:15:15], 1))), whole), ErrMalformed)
	key, _ := matrix.Get(file, "key")
	m.bad("attachment", "short key", "", in(m.with(string(file), "key", json.RawMessage(m.with(string(key), "k", "AAAA"))), whole), ErrMalformed)
	m.bad("attachment", "another algorithm", "", in(m.with(string(file), "key", json.RawMessage(m.with(string(key), "alg", "A256CBC"))), whole), ErrMalformed)
}
