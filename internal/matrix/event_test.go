package matrix

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

var eventKey = ed25519.NewKeyFromSeed([]byte("the seed of a key for tests only"))

func stateKey(s string) *string { return &s }

// template is an ordinary event.
func template() Template {
	return Template{
		RoomID: "!room:one", Sender: "@a:one", Type: "m.room.message", Content: []byte(`{"msgtype":"m.text","body":"ü"}`),
		PrevEvents: []EventID{"$p:one"}, AuthEvents: []EventID{"$x:one", "$y:one"}, Depth: 7, OriginServerTS: 1_700_000_000_000,
	}
}

// TestBuild makes an event in every version and takes it apart again by the specification's own words.
func TestBuild(t *testing.T) {
	proof.Of(t, "SG-03", "SG-04")
	for _, v := range RoomVersions() {
		tmpl := template()
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		if canon, err := StrictCanonicalJSON(e.JSON()); err != nil || string(canon) != string(e.JSON()) {
			t.Errorf("version %s: the text is not canonical: %s", v, e.JSON())
		}
		// Content hash: all but unsigned, signatures and hashes.
		rest, err := without(e.JSON(), "unsigned", "signatures", "hashes")
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(rest)
		if said, _ := GetString(e.JSON(), "hashes", "sha256"); said != EncodeBase64(hash[:]) || !e.CheckContentHash() {
			t.Errorf("version %s: the content hash is %s", v, said)
		}
		// Signature: the redacted event without signatures, here written by hand.
		red := fmt.Sprintf(`{"auth_events":%s,"content":{},"depth":7,%s"hashes":{"sha256":"%s"},"origin_server_ts":1700000000000,"prev_events":%s,"room_id":"!room:one","sender":"@a:one","type":"m.room.message"}`,
			list(v, "$x:one", "$y:one"), idMember(e), EncodeBase64(hash[:]), list(v, "$p:one"))
		if string(e.SigningBytes()) != red {
			t.Errorf("version %s: signed is\n%s, want\n%s", v, e.SigningBytes(), red)
		}
		sig, ok := e.Signature("one", "ed25519:k")
		if !ok || VerifyBytes(eventKey.Public().(ed25519.PublicKey), []byte(red), sig) != nil {
			t.Errorf("version %s: the signature does not fit", v)
		}
		if !slices.Equal(e.SignatureKeys("one"), []KeyID{"ed25519:k"}) || e.SignatureKeys("two") != nil {
			t.Errorf("version %s: the keys are %v", v, e.SignatureKeys("one"))
		}
		checkID12(t, e, red)
		again, err := ParseEvent(e.JSON(), v)
		if err != nil || again.ID() != e.ID() || string(again.JSON()) != string(e.JSON()) || !slices.Equal(again.PrevEvents(), tmpl.PrevEvents) ||
			!slices.Equal(again.AuthEvents(), tmpl.AuthEvents) || again.Depth() != 7 || again.OriginServerTS() != tmpl.OriginServerTS || again.IsState() {
			t.Errorf("version %s: read back as %v, %v", v, again, err)
		}
	}
}

// checkID12 finds the ID that an event should have.
func checkID12(t *testing.T, e *Event, redacted string) {
	t.Helper()
	hash := sha256.Sum256([]byte(redacted))
	want := "$" + EncodeURLBase64(hash[:])
	switch {
	case e.Version().EventIDsInEvent():
		if server, ok := e.ID().Server(); !ok || server != "one" {
			t.Errorf("version %s: the ID is %s", e.Version(), e.ID())
		}
		return
	case !e.Version().URLSafeEventIDs():
		want = "$" + EncodeBase64(hash[:])
	}
	if string(e.ID()) != want {
		t.Errorf("version %s: the ID is %s, want %s", e.Version(), e.ID(), want)
	}
}

// list writes prev_events and auth_events as a version has them.
func list(v RoomVersion, ids ...string) string {
	for i, id := range ids {
		ids[i] = `"` + id + `"`
		if v.EventIDsInEvent() {
			ids[i] = `["` + id + `",{}]`
		}
	}
	return "[" + strings.Join(ids, ",") + "]"
}

func idMember(e *Event) string {
	if e.Version().EventIDsInEvent() {
		return fmt.Sprintf(`"event_id":%q,`, e.ID())
	}
	return ""
}

// TestBuildRefuses tries what cannot be sent.
func TestBuildRefuses(t *testing.T) {
	for _, v := range RoomVersions() {
		for what, change := range map[string]func(*Template){
			"M_BAD_JSON a fraction":            func(m *Template) { m.Content = []byte(`{"a":1.5}`) },
			"M_BAD_JSON a large number":        func(m *Template) { m.Content = []byte(`{"a":9007199254740992}`) },
			"M_BAD_JSON a list":                func(m *Template) { m.Content = []byte(`[]`) },
			"M_BAD_JSON a long type":           func(m *Template) { m.Type = strings.Repeat("x", 256) },
			"M_BAD_JSON a long key in bytes":   func(m *Template) { m.StateKey = stateKey(strings.Repeat("ü", 128)) },
			"M_BAD_JSON a sender that is none": func(m *Template) { m.Sender = "a" },
			"M_BAD_JSON no room":               func(m *Template) { m.RoomID = "" },
			"M_BAD_JSON too many parents":      func(m *Template) { m.PrevEvents = make([]EventID, 21) },
			"M_BAD_JSON too many auth events":  func(m *Template) { m.AuthEvents = make([]EventID, 11) },
			"M_TOO_LARGE":                      func(m *Template) { m.Content = []byte(`{"a":"` + strings.Repeat("x", 65_500) + `"}`) },
		} {
			tmpl := template()
			change(&tmpl)
			_, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(what, e.Code) {
				t.Errorf("version %s: %s: %v", v, what, err)
			}
		}
	}
}

// TestSizeIsCountedInBytes finds the largest event that can be built and sees the same limit on receipt.
func TestSizeIsCountedInBytes(t *testing.T) {
	proof.Of(t, "PD-08", "F17")
	for _, v := range RoomVersions() {
		tmpl := template()
		tmpl.Content = []byte(`{"a":""}`)
		empty, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		room := MaxEventSize - empty.Size()
		for extra, fits := range map[int]bool{0: true, 1: false} {
			tmpl.Content = []byte(`{"a":"` + strings.Repeat("x", room+extra) + `"}`)
			e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
			if (err == nil) != fits || fits && e.Size() != MaxEventSize {
				t.Errorf("version %s: %d bytes more: %v", v, extra, err)
			}
		}
		e, _ := (&Template{RoomID: "!room:one", Sender: "@a:one", Type: "m", Content: []byte(`{"a":"` + strings.Repeat("x", room-100) + `"}`), OriginServerTS: 1}).Build(v, "one", "ed25519:k", eventKey)
		large := strings.Replace(string(e.JSON()), `"content":{"a":"`, `"content":{"a":"`+strings.Repeat("y", MaxEventSize-e.Size()+1), 1)
		if _, err := ParseEvent([]byte(large), v); !errors.Is(err, ErrEvent) {
			t.Errorf("version %s: %d bytes are taken on receipt: %v", v, len(large), err)
		}
	}
}

// TestLongListsAreBoundedByBytes: of an event the specification bounds the bytes. One that other servers take is taken here,
// however many things it lists: rooms would fall apart over it.
func TestLongListsAreBoundedByBytes(t *testing.T) {
	proof.Of(t, "PD-08")
	for _, v := range RoomVersions() {
		tmpl := template()
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		many := strings.Replace(string(e.JSON()), `"content":{`, `"content":{"list":[0`+strings.Repeat(",0", 32_000)+`],`, 1)
		long, err := ParseEvent([]byte(many), v)
		if err != nil {
			t.Errorf("version %s: %v", v, err)
			continue
		}
		if long.CheckContentHash() { // read to its end
			t.Errorf("version %s: the hash of another content fits", v)
		}
	}
}

// TestParseRefuses changes one member of a good event at a time.
func TestParseRefuses(t *testing.T) {
	proof.Of(t, "RV-01")
	for _, v := range RoomVersions() {
		good := fmt.Sprintf(`{"auth_events":%s,"content":{},"depth":7,"event_id":"$e:one","origin_server_ts":5,"prev_events":%s,"room_id":"!room:one","sender":"@a:one","type":"m","unsigned":{"age":5}}`,
			list(v, "$x:one"), list(v, "$p:one"))
		e, err := ParseEvent([]byte(good), v)
		if err != nil {
			t.Fatal(err)
		}
		if _, has := Get(e.JSON(), "unsigned"); has {
			t.Errorf("version %s: unsigned is kept", v)
		}
		if _, has := Get(e.JSON(), "event_id"); has != v.EventIDsInEvent() {
			t.Errorf("version %s: event_id is kept: %v", v, has)
		}
		for old, fresh := range map[string]string{
			`"content":{}`: `"content":[]`, `"content":{},`: ``, `"depth":7`: `"depth":-1`, `"depth":7,`: ``, `"origin_server_ts":5`: `"origin_server_ts":"5"`,
			`"origin_server_ts":5,`: ``, `"sender":"@a:one",`: ``, `"@a:one"`: `"a"`, `"type":"m"`: `"type":7`, `,"type":"m"`: ``, `"room_id":"!room:one"`: `"room_id":7`,
			`"!room:one"`: `"room"`, `"room_id":"!room:one",`: ``, list(v, "$p:one"): `{}`, list(v, "$x:one"): `["",7]`,
			`"prev_events":` + list(v, "$p:one") + `,`: ``, `"type":"m",`: `"type":"m","state_key":null,`, `{"auth`: `{"depth":7,"auth`,
		} {
			text := strings.Replace(good, old, fresh, 1)
			if text == good {
				t.Fatalf("nothing is changed by %s", old)
			}
			if e, err := ParseEvent([]byte(text), v); !errors.Is(err, ErrEvent) {
				t.Errorf("version %s: %s in the place of %s is taken: %v", v, fresh, old, e)
			}
		}
		for _, id := range []string{"", "x", "$", "!x:one", `$a\u0000b`, "$" + strings.Repeat("x", 255)} {
			for _, was := range []string{"$x:one", "$p:one"} {
				if _, err := ParseEvent([]byte(strings.Replace(good, list(v, was), list(v, id), 1)), v); !errors.Is(err, ErrEvent) {
					t.Errorf("version %s: %.20q in the place of %s is taken: %v", v, id, was, err)
				}
			}
		}
		for depth, ok := range map[string]bool{"9007199254740991": true, "9007199254740992": v < 6, "9223372036854775807": v < 6, "9223372036854775808": false, "1.5": false, `"1"`: false, "null": false} {
			if _, err := ParseEvent([]byte(strings.Replace(good, `"depth":7`, `"depth":`+depth, 1)), v); (err == nil) != ok {
				t.Errorf("version %s: depth %s: %v", v, depth, err)
			}
		}
		for number, strictly := range map[string]bool{"1.5": false, "9007199254740992": false, "-0": false, "1e3": false, "5": true} {
			_, err := ParseEvent([]byte(strings.Replace(good, `"content":{}`, `"content":{"n":`+number+`}`, 1)), v)
			if want := strictly || !v.StrictCanonicalJSON(); (err == nil) != want {
				t.Errorf("version %s: %s in the content: %v", v, number, err)
			}
		}
		if v.EventIDsInEvent() {
			if _, err := ParseEvent([]byte(strings.Replace(good, `"event_id":"$e:one"`, `"event_id":"e"`, 1)), v); err == nil {
				t.Errorf("version %s: any text is an event's ID", v)
			}
		}
	}
}

// TestCreateNamesTheRoom: from version 12 the creation has no room_id, and is the only event without one.
func TestCreateNamesTheRoom(t *testing.T) {
	proof.Of(t, "RV-04")
	for _, v := range RoomVersions() {
		tmpl := Template{Sender: "@a:one", Type: "m.room.create", StateKey: stateKey(""), Content: []byte(`{}`), Depth: 1, OriginServerTS: 1}
		if !v.RoomIDIsCreateHash() {
			tmpl.RoomID = "!room:one"
		}
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		_, has := Get(e.JSON(), "room_id")
		if has == v.RoomIDIsCreateHash() || v.RoomIDIsCreateHash() && string(e.RoomID()[1:]) != string(e.ID()[1:]) {
			t.Errorf("version %s: %s is of room %s", v, e.JSON(), e.RoomID())
		}
		if trusted, err := TrustedEvent(e.JSON(), e.ID(), v); err != nil || trusted.RoomID() != e.RoomID() {
			t.Errorf("version %s: out of the database it is of room %s, %v", v, trusted.RoomID(), err)
		}
	}
}

// TestRequiredSigners are the servers that have to sign, by version and event.
func TestRequiredSigners(t *testing.T) {
	proof.Of(t, "SG-06")
	for _, v := range RoomVersions() {
		for _, c := range []struct{ typ, content, always, restricted string }{
			{"m.room.message", `{"join_authorised_via_users_server":"@v:via"}`, "two", ""},
			{"m.room.member", `{"membership":"join"}`, "two", ""},
			{"m.room.member", `{"membership":"join","join_authorised_via_users_server":"@v:via"}`, "two", " via"},
			{"m.room.member", `{"membership":"leave","join_authorised_via_users_server":"@v:via"}`, "two", " via"},
			{"m.room.member", `{"membership":"join","join_authorised_via_users_server":"@v:two"}`, "two", ""},
			{"m.room.member", `{"membership":"join","join_authorised_via_users_server":7}`, "two", " "},
			{"m.room.member", `{"membership":"invite","third_party_invite":{}}`, "", ""},
			{"m.room.member", `{"membership":"join","third_party_invite":{}}`, "two", ""},
		} {
			tmpl := Template{RoomID: "!r:one", Sender: "@a:two", Type: c.typ, StateKey: stateKey("@a:two"), Content: []byte(c.content), OriginServerTS: 1}
			e, err := tmpl.Build(v, "three", "ed25519:k", eventKey)
			if err != nil {
				t.Fatal(err)
			}
			want := c.always
			if v.EventIDsInEvent() {
				want = strings.TrimSpace(want + " three") // whose ID it is
			}
			if v.RestrictedJoins() {
				want += c.restricted
			}
			got := fmt.Sprint(e.RequiredSigners())
			if got != "["+want+"]" {
				t.Errorf("version %s: %s %s: %s, want [%s]", v, c.typ, c.content, got, want)
			}
		}
	}
}

func TestAddedSignature(t *testing.T) {
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	for _, v := range RoomVersions() {
		tmpl := template()
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		both, err := e.WithSignature("two", "ed25519:k2", other)
		if err != nil || both.ID() != e.ID() {
			t.Fatalf("version %s: %v", v, err)
		}
		for server, key := range map[ServerName]ed25519.PrivateKey{"one": eventKey, "two": other} {
			id := both.SignatureKeys(server)
			sig, ok := both.Signature(server, id[0])
			if !ok || VerifyBytes(key.Public().(ed25519.PublicKey), both.SigningBytes(), sig) != nil {
				t.Errorf("version %s: the signature of %s does not fit", v, server)
			}
		}
	}
	for _, weak := range smallOrder {
		var pub [32]byte
		if _, err := fmt.Sscanf(weak, "%x", new([]byte)); err != nil {
			t.Fatal(err)
		}
		for i := range pub {
			_, _ = fmt.Sscanf(weak[2*i:2*i+2], "%02x", &pub[i])
		}
		for _, sign := range []byte{0, 0x80} {
			key := append([]byte{}, pub[:]...)
			key[31] |= sign
			if CheckPublicKey(key) == nil {
				t.Errorf("the key %x is taken", key)
			}
		}
	}
	if CheckPublicKey(make([]byte, 31)) == nil || CheckPublicKey(nil) == nil {
		t.Error("a key that is too short is taken")
	}
}

// FuzzEvents reads hostile events in every version: what is taken can be written, redacted and read again as the same.
func FuzzEvents(f *testing.F) {
	for _, v := range RoomVersions() {
		tmpl := template()
		tmpl.Type, tmpl.StateKey, tmpl.Content = "m.room.member", stateKey("@a:one"), []byte(`{"membership":"join","third_party_invite":{"signed":{"a":1}}}`)
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.JSON(), uint8(v))
	}
	f.Add([]byte(`{"auth_events":[],"content":{"n":1e5},"depth":1.0,"origin_server_ts":1,"prev_events":[],"room_id":"!a","sender":"@a:b","type":""}`), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, version uint8) {
		v := FirstRoomVersion + RoomVersion(version)%LastRoomVersion
		e, err := ParseEvent(data, v)
		if err != nil {
			return
		}
		again, err := ParseEvent(e.JSON(), v)
		if err != nil || again.ID() != e.ID() || string(again.JSON()) != string(e.JSON()) {
			t.Fatalf("version %s: %s is read again as %v, %v", v, e.JSON(), again, err)
		}
		red, err := e.Redacted()
		if err != nil || !red.IsRedacted() || string(red.SigningBytes()) != string(e.SigningBytes()) {
			t.Fatalf("version %s: redacted it is %v, %v", v, red, err)
		}
		if once, err := ParseEvent(red.JSON(), v); err != nil || once.ID() != e.ID() {
			t.Fatalf("version %s: the redacted form has another ID: %v, %v", v, once, err)
		}
		_, _ = e.CheckContentHash(), e.RequiredSigners()
		_, _ = ParsePowerLevels(e.Content(), v)
		_, _, _ = ParseJoinRule(e.Content()), Creators(e), ParseHistoryVisibility(e.Content())
		if client := ClientEvent(e, nil, true); CheckJSON(client, Limits{}) != nil {
			t.Fatalf("version %s: clients get %s", v, client)
		}
		if stripped := Stripped(e); CheckJSON(stripped, Limits{}) != nil {
			t.Fatalf("version %s: invitations show %s", v, stripped)
		}
	})
}
