package clientapi_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

func TestDevices(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("list and rename", func(t *testing.T) { devicesListAndRename(t, s) })
		t.Run("deletion", func(t *testing.T) { deviceDeletion(t, s) })
		t.Run("confirmation", func(t *testing.T) { deviceConfirmation(t, s) })
		t.Run("dehydrated", func(t *testing.T) { dehydratedDevice(t, s) })
		t.Run("pass through", func(t *testing.T) { secretsPassThrough(t, s) })
	})
}

func device(u *testserver.User, id string) string { return testserver.Path("devices", id) }

func devicesListAndRename(t *testing.T, s *testserver.Server) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	publish(t, alice)
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	since := token(bob.Sync("", 0))
	second := s.Login(alice.ID)
	list := testserver.Events(alice.Must("GET", "/devices", nil).Body["devices"])
	if len(list) != 2 || list[0]["device_id"] != alice.Device || list[1]["device_id"] != second.Device || list[0]["display_name"] != "test" {
		t.Errorf("the devices are %v", list)
	}
	for _, d := range list {
		seen, _ := d["last_seen_ts"].(float64)
		if ago := time.Since(time.UnixMilli(int64(seen))); ago < -time.Minute || ago > 10*time.Minute || d["last_seen_ip"] != "127.0.0.1" {
			t.Errorf("the device was last seen %v ago from %v", ago, d["last_seen_ip"])
		}
	}
	second.Must("PUT", device(alice, alice.Device), object{"display_name": "phone"})
	alice.Must("PUT", device(alice, alice.Device), object{})
	if got := second.Must("GET", device(alice, alice.Device), nil).Body; got["display_name"] != "phone" || got["device_id"] != alice.Device {
		t.Errorf("the device is %v", got)
	}
	bob.SyncUntil(since, "the new name", func(body object) bool {
		return slices.Contains(names(testserver.At(body, "device_lists", "changed")), alice.ID)
	})
	for _, method := range []string{"GET", "PUT"} {
		bob.Refused(404, "M_NOT_FOUND", method, device(bob, alice.Device), object{"display_name": "mine"})
		alice.Refused(400, "M_INVALID_PARAM", method, "/devices/%00", object{"display_name": "x"})
		alice.Refused(400, "M_INVALID_PARAM", method, "/devices/%ff", object{"display_name": "x"})
	}
	// What a name has that looks like an escape stays.
	for _, id := range []string{"100%41", "a/b%2Fc", "+ ü"} {
		s.Nobody().Must("POST", "/login", object{
			"type": "m.login.password", "password": testserver.Password, "device_id": id, "identifier": object{"type": "m.id.user", "user": alice.ID},
		})
		if got := alice.Must("GET", device(alice, id), nil).Body; got["device_id"] != id {
			t.Errorf("the device %q is found as %v", id, got)
		}
	}
	alice.Refused(400, "M_INVALID_PARAM", "PUT", device(alice, alice.Device), object{"display_name": "a\x00b"})
	alice.Refused(400, "M_MISSING_PARAM", "POST", "/delete_devices", object{})
	auth := object{"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": alice.ID}}
	alice.Refused(400, "M_INVALID_PARAM", "POST", "/delete_devices", object{"devices": []string{"a\x00b"}, "auth": auth})
	alice.Must("POST", "/delete_devices", object{"devices": []string{"NOSUCH"}, "auth": auth})
	alice.Must("DELETE", device(alice, "NOSUCH"), object{"auth": auth})
}

// confirm repeats a request with the user's password, in the session that the server began.
func confirm(t *testing.T, u *testserver.User, method, path string, body object) {
	t.Helper()
	a, err := u.Do(method, path, body)
	session, _ := a.Body["session"].(string)
	if err != nil || a.Status != 401 || session == "" {
		t.Fatalf("%s %s without a password: %v, %v", method, path, a, err)
	}
	body["auth"] = password(u, session)
	u.Must(method, path, body)
}

func password(u *testserver.User, session string) object {
	return object{"type": "m.login.password", "session": session, "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": u.ID}}
}

// deviceDeletion deletes devices that hold sockets and long polls open, have keys, and for which messages wait.
func deviceDeletion(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-12")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	since := token(bob.Sync("", 0))
	for _, bulk := range []bool{false, true} {
		second := s.Login(alice.ID)
		publish(t, second)
		bob.Must("PUT", testserver.Path("sendToDevice", "m.test", testserver.Unique("t")), object{"messages": object{alice.ID: object{second.Device: object{}}}})
		since = bob.SyncUntil(since, "the new device", func(body object) bool {
			return slices.Contains(names(testserver.At(body, "device_lists", "changed")), alice.ID)
		})
		conn := second.Socket(nil)
		frames(t, conn, "the first frame", func(object) bool { return true })
		polled := make(chan int, 1)
		from := token(second.Sync("", 0))
		go func() {
			a, err := second.Do("GET", "/sync?"+url.Values{"since": {from}, "timeout": {"60000"}}.Encode(), nil)
			if err != nil {
				polled <- 0
				return
			}
			polled <- a.Status
		}()
		began := time.Now()
		if bulk {
			confirm(t, alice, "POST", "/delete_devices", object{"devices": []string{second.Device, second.Device, "NOSUCH"}})
		} else {
			confirm(t, alice, "DELETE", device(alice, second.Device), object{})
		}
		if code := closing(t, conn); code != 4001 {
			t.Errorf("the socket of the device was closed with %d", code)
		}
		// The poll may still say that a device of hers is gone.
		if status := <-polled; status != 401 && status != 200 {
			t.Errorf("the long poll of the device ended with %d", status)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the device's connections outlived it by %v", took)
		}
		second.Refused(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		alice.Refused(404, "M_NOT_FOUND", "GET", device(alice, second.Device), nil)
		since = bob.SyncUntil(since, "the end of the device", func(body object) bool {
			return slices.Contains(names(testserver.At(body, "device_lists", "changed")), alice.ID)
		})
		found := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
		if testserver.At(found, "device_keys", alice.ID, second.Device) != nil {
			t.Errorf("its keys are still there: %v", found)
		}
		claimed := bob.Must("POST", "/keys/claim", object{"one_time_keys": object{alice.ID: object{second.Device: "signed_curve25519"}}}).Body
		if testserver.At(claimed, "one_time_keys", alice.ID) != nil {
			t.Errorf("a key of it was claimed: %v", claimed)
		}
		// A new device under the old ID finds nothing of the old one's.
		again := s.Nobody()
		again.Token, _ = again.Must("POST", "/login", object{
			"type": "m.login.password", "password": testserver.Password, "device_id": second.Device, "identifier": object{"type": "m.id.user", "user": alice.ID},
		}).Body["access_token"].(string)
		if events := testserver.Events(testserver.At(again.Sync("", 0), "to_device", "events")); len(events) != 0 {
			t.Errorf("messages of the old device came: %v", events)
		}
		again.Must("POST", "/logout", object{})
	}
	if whole := alice.Must("GET", "/devices", nil).Body; len(testserver.Events(whole["devices"])) != 1 {
		t.Errorf("the devices are %v", whole)
	}
}

// deviceConfirmation tries to use the confirmation of one request for another (threats A03).
func deviceConfirmation(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A03")
	alice, mallory := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("mallory"))
	a, b := s.Login(alice.ID), s.Login(alice.ID)
	begin := func(u *testserver.User, method, path string, body object) string {
		t.Helper()
		answer, err := u.Do(method, path, body)
		session, _ := answer.Body["session"].(string)
		if err != nil || answer.Status != 401 || session == "" {
			t.Fatalf("%s %s: %v, %v", method, path, answer, err)
		}
		return session
	}
	session := begin(alice, "DELETE", device(alice, a.Device), object{})
	bulk := begin(alice, "POST", "/delete_devices", object{"devices": []string{a.Device}})
	for what, attempt := range map[string]struct {
		u            *testserver.User
		method, path string
		body         object
	}{
		"another device":     {alice, "DELETE", device(alice, b.Device), object{"auth": password(alice, session)}},
		"another operation":  {alice, "POST", "/delete_devices", object{"devices": []string{a.Device}, "auth": password(alice, session)}},
		"another body":       {alice, "POST", "/delete_devices", object{"devices": []string{a.Device, b.Device}, "auth": password(alice, bulk)}},
		"a member more":      {alice, "POST", "/delete_devices", object{"devices": []string{a.Device}, "x": 1, "auth": password(alice, bulk)}},
		"another user":       {mallory, "DELETE", device(alice, a.Device), object{"auth": password(mallory, session)}},
		"an unknown session": {alice, "DELETE", device(alice, a.Device), object{"auth": password(alice, "unknown")}},
		"a session alone":    {alice, "DELETE", device(alice, a.Device), object{"auth": object{"session": session}}},
		"a wrong password":   {alice, "DELETE", device(alice, a.Device), object{"auth": object{"type": "m.login.password", "session": session, "password": "wrong"}}},
	} {
		answer, err := attempt.u.Do(attempt.method, attempt.path, attempt.body)
		if err != nil || answer.Status != 401 {
			t.Errorf("%s: %v, %v", what, answer, err)
			continue
		}
		if same := answer.Body["session"] == session; same != (what == "a session alone" || what == "a wrong password") {
			t.Errorf("%s was answered with the session %v", what, answer.Body["session"])
		}
	}
	if n := len(testserver.Events(alice.Must("GET", "/devices", nil).Body["devices"])); n != 3 {
		t.Errorf("%d devices are left", n)
	}
	alice.Must("DELETE", device(alice, a.Device), object{"auth": password(alice, session)})
	answer, err := alice.Do("DELETE", device(alice, a.Device), object{"auth": object{"session": session}})
	if err != nil || answer.Status != 401 || answer.Body["session"] == session {
		t.Errorf("a session was used twice: %v, %v", answer, err)
	}
}

// dehydratedDevice is the HTTP side of MSC3814, in both forms that clients use.
func dehydratedDevice(t *testing.T, s *testserver.Server) {
	const path = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	if v := alice.Must("GET", "/_matrix/client/versions", nil).Body; testserver.At(v, "unstable_features", "org.matrix.msc3814") != true {
		t.Errorf("the versions are %v", v)
	}
	alice.Refused(404, "M_NOT_FOUND", "GET", path, nil)
	const id = "base64/with+signs"
	key := newSigner(t, alice.ID, id)
	body := object{
		"device_id": id, "device_data": object{"algorithm": "m.dehydration.v2", "device_pickle": "sealed"}, "initial_device_display_name": "dry",
		"device_keys": key.sign(t, object{
			"user_id": alice.ID, "device_id": id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"}, "dehydrated": true,
			"keys": object{key.id(): key.public(), "curve25519:" + id: id},
		}),
		"one_time_keys": object{"signed_curve25519:A": key.sign(t, object{"key": "k"})},
		"fallback_keys": object{"signed_curve25519:F": key.sign(t, object{"key": "f", "fallback": true})},
	}
	if got := alice.Must("PUT", path, body).Body; got["device_id"] != id {
		t.Errorf("stored as %v", got)
	}
	if got := alice.Must("GET", path, nil).Body; got["device_id"] != id || testserver.At(got, "device_data", "device_pickle") != "sealed" {
		t.Errorf("the device is %v", got)
	}
	bob.Refused(404, "M_NOT_FOUND", "GET", path, nil)
	found := bob.Must("POST", "/keys/query", object{"device_keys": object{alice.ID: []string{}}}).Body
	if testserver.At(found, "device_keys", alice.ID, id, "dehydrated") != true {
		t.Errorf("its keys are %v", found)
	}
	for n := range 103 {
		bob.Must("PUT", testserver.Path("sendToDevice", "m.test", testserver.Unique("t")), object{"messages": object{alice.ID: object{id: object{"n": n}}}})
	}
	events := path + testserver.Path(id, "events")
	read := func(next func(from string) object, end func(object) bool) {
		t.Helper()
		n, from := 0, ""
		for {
			page := next(from)
			for _, e := range testserver.Events(page["events"]) {
				if e["sender"] != bob.ID || testserver.At(e, "content", "n") != float64(n) {
					t.Errorf("message %d is %v", n, e)
				}
				n++
			}
			if end(page) {
				break
			}
			from, _ = page["next_batch"].(string)
		}
		if n != 103 {
			t.Errorf("%d messages came", n)
		}
	}
	read(func(from string) object {
		body := object{}
		if from != "" {
			body["next_batch"] = from
		}
		return alice.Must("POST", events, body).Body
	}, func(page object) bool {
		return len(testserver.Events(page["events"])) == 0 && page["next_batch"] != nil
	})
	read(func(from string) object { return alice.Must("GET", events+"?from="+from, nil).Body }, func(page object) bool { return page["next_batch"] == nil })
	bob.Refused(403, "M_FORBIDDEN", "POST", events, object{})
	alice.Refused(403, "M_FORBIDDEN", "POST", path+testserver.Path(alice.Device, "events"), object{})
	alice.Refused(400, "M_INVALID_PARAM", "GET", events+"?from=x", nil)
	s.Nobody().Refused(400, "M_INVALID_PARAM", "POST", "/login", object{
		"type": "m.login.password", "password": testserver.Password, "device_id": id, "identifier": object{"type": "m.id.user", "user": alice.ID},
	})
	if got := alice.Must("DELETE", path, nil).Body; got["device_id"] != id {
		t.Errorf("deleted as %v", got)
	}
	alice.Refused(404, "M_NOT_FOUND", "DELETE", path, nil)
	alice.Must("PUT", path, body)
	alice.Must("POST", "/logout/all", object{})
	again := s.Login(alice.ID)
	again.Refused(404, "M_NOT_FOUND", "GET", path, nil)
}

// secretsPassThrough stores secrets and sends requests for keys and verification: the server keeps and passes on every
// byte of them.
func secretsPassThrough(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-13")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	second := s.Login(alice.ID)
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	same := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s came as %v, not %v", what, got, want)
		}
	}
	// Secret storage.
	data := object{
		"m.secret_storage.default_key":  object{"key": "abc"},
		"m.secret_storage.key.abc":      object{"algorithm": "m.secret_storage.v1.aes-hmac-sha2", "iv": "YWJj", "mac": "ZGVm", "passphrase": object{"iterations": 500000.0, "algorithm": "m.pbkdf2"}},
		"m.cross_signing.master":        object{"encrypted": object{"abc": object{"iv": "16+byte", "ciphertext": "base64+/=", "mac": "x"}}},
		"m.megolm_backup.v1":            object{"encrypted": object{"abc": object{"iv": "a", "ciphertext": "b", "mac": "c"}}},
		"m.org.example.unknown_to_them": object{"deep": []any{1.0, object{"x": nil}, "ü"}},
	}
	since := token(second.Sync("", 0))
	for typ, content := range data {
		alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", typ), content)
	}
	got := object{}
	second.SyncUntil(since, "all secrets", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "account_data", "events")) {
			if typ, ok := e["type"].(string); ok && data[typ] != nil {
				got[typ] = e["content"]
			}
		}
		return len(got) == len(data)
	})
	for typ, content := range data {
		same(typ, got[typ], content)
		same(typ, second.Must("GET", testserver.Path("user", alice.ID, "account_data", typ), nil).Body, content)
	}
	bob.Refused(403, "M_FORBIDDEN", "GET", testserver.Path("user", alice.ID, "account_data", "m.cross_signing.master"), nil)

	// Key requests, secrets and verification between devices.
	messages := []string{"m.room_key_request", "m.forwarded_room_key", "m.secret.request", "m.room_key.withheld", "m.key.verification.request", "m.key.verification.start", "m.key.verification.mac", "m.room.encrypted"}
	for i, typ := range messages {
		alice.Must("PUT", testserver.Path("sendToDevice", typ, testserver.Unique("t")), object{"messages": object{alice.ID: object{second.Device: object{"n": i, "body": object{"session_id": "x", "unknown": []any{"ü"}}}}}})
	}
	n := 0
	since = second.SyncUntil(since, "all messages", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "to_device", "events")) {
			same("a message", e, object{"type": messages[n], "sender": alice.ID, "content": object{"n": float64(n), "body": object{"session_id": "x", "unknown": []any{"ü"}}}})
			n++
		}
		return n == len(messages)
	})
	// Verification in a room.
	content := object{"from_device": alice.Device, "methods": []any{"m.sas.v1"}, "m.relates_to": object{"rel_type": "m.reference", "event_id": "$x"}, "unknown": object{"a": 1.0}}
	id := alice.Send(room, "m.key.verification.ready", content)
	bobs := bob.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body
	same("the event", bobs["content"], content)
	wait.Until(t, "the event to come to her other device", func() bool {
		body := second.Sync(since, 0)
		return testserver.Has(testserver.Timeline(body, room), id)
	})
}
