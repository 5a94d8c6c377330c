package federation_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
)

// TestAnswersToQuestions asks what servers otherwise ask only one another in the tests: as the peer asks it, each answer is
// compared with the shape that the specification gives it (package shapes), and it is seen here that it is no empty one.
func TestAnswersToQuestions(t *testing.T) {
	w := besiege(t, "sqlite", 12, nil)
	w.publishKeys()
	w.alice.Must("PUT", testserver.Path("profile", w.alice.ID, "avatar_url"), testserver.JSON{"avatar_url": "mxc://localhost/face"})
	space := w.alice.CreateRoom(testserver.JSON{
		"preset": "public_chat", "visibility": "public", "name": "Space", "topic": "Rooms", "room_alias_name": "space", "creation_content": testserver.JSON{"type": "m.space"},
	})
	child := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat", "name": "Room"})
	w.alice.Must("PUT", testserver.Path("rooms", space, "state", "m.space.child", child), testserver.JSON{"via": []string{string(w.s.Name)}})
	alias := url.QueryEscape("#space:" + string(w.s.Name))
	device := testserver.JSON{w.alice.ID: testserver.JSON{w.alice.Device: "signed_curve25519"}}
	for _, c := range []struct {
		method, path string
		body         testserver.JSON
		holds        []string // a place in the answer where something is
	}{
		{"GET", testserver.Path("user", "devices", w.alice.ID), nil, []string{"devices"}},
		{"GET", testserver.Path("user", "devices", w.alice.ID), nil, []string{"self_signing_key", "keys"}},
		{"POST", "/user/keys/query", testserver.JSON{"device_keys": testserver.JSON{w.alice.ID: []string{}}}, []string{"device_keys", w.alice.ID, w.alice.Device}},
		{"POST", "/user/keys/query", testserver.JSON{"device_keys": testserver.JSON{w.alice.ID: []string{}}}, []string{"master_keys", w.alice.ID}},
		{"POST", "/user/keys/claim", testserver.JSON{"one_time_keys": device}, []string{"one_time_keys", w.alice.ID, w.alice.Device}},
		{"GET", "/query/directory?room_alias=" + alias, nil, []string{"servers"}},
		{"GET", "/query/profile?user_id=" + url.QueryEscape(w.alice.ID), nil, []string{"avatar_url"}},
		{"GET", "/publicRooms?limit=1", nil, []string{"chunk"}},
		{"POST", "/publicRooms", testserver.JSON{"filter": testserver.JSON{"generic_search_term": "space"}}, []string{"chunk"}},
		{"GET", testserver.Path("hierarchy", space), nil, []string{"children"}},
		{"GET", testserver.Path("timestamp_to_event", string(w.room.ID)) + fmt.Sprintf("?dir=b&ts=%d", time.Now().UnixMilli()), nil, []string{"event_id"}},
	} {
		var text []byte
		if c.body != nil {
			var err error
			if text, err = json.Marshal(c.body); err != nil {
				t.Fatal(err)
			}
		}
		a := w.p.Do(t, w.us, c.method, peer.V1+c.path, text)
		var body testserver.JSON
		if err := json.Unmarshal(a.Body, &body); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s %s: %d %s, %v", c.method, c.path, a.Status, a.Body, err)
			continue
		}
		found := testserver.At(body, c.holds...)
		if list, ok := found.([]any); found == nil || ok && len(list) == 0 {
			t.Errorf("%s %s: there is nothing in %v of %s", c.method, c.path, c.holds, a.Body)
		}
	}
}

// publishKeys gives alice keys of every kind: of her device, for one message, and of her person.
func (w *siege) publishKeys() {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	public := matrix.EncodeBase64(key.Public().(ed25519.PublicKey))
	signed := func(id string, o testserver.JSON) json.RawMessage {
		raw, err := json.Marshal(o)
		if err == nil {
			raw, err = matrix.SignJSON(raw, w.alice.ID, matrix.KeyID(id), key)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return raw
	}
	own, master := "ed25519:"+w.alice.Device, "ed25519:"+public
	w.alice.Must("POST", "/keys/upload", testserver.JSON{
		"device_keys": signed(own, testserver.JSON{
			"user_id": w.alice.ID, "device_id": w.alice.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
			"keys": testserver.JSON{own: public, "curve25519:" + w.alice.Device: public},
		}),
		"one_time_keys": testserver.JSON{"signed_curve25519:AAAA": signed(own, testserver.JSON{"key": "k"})},
	})
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	self := matrix.EncodeBase64(other.Public().(ed25519.PublicKey))
	w.alice.Must("POST", "/keys/device_signing/upload", testserver.JSON{
		"master_key":       testserver.JSON{"user_id": w.alice.ID, "usage": []string{"master"}, "keys": testserver.JSON{master: public}},
		"self_signing_key": signed(master, testserver.JSON{"user_id": w.alice.ID, "usage": []string{"self_signing"}, "keys": testserver.JSON{"ed25519:" + self: self}}),
	})
}
