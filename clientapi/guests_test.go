package clientapi_test

import (
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// guest comes in without an account.
func guest(t *testing.T, s *testserver.Server) *testserver.User {
	t.Helper()
	u := s.Nobody()
	a := u.Must("POST", "/register?kind=guest", object{"initial_device_display_name": "a visitor's", "username": "root", "password": "x", "device_id": "MINE"})
	u.ID, u.Token, u.Device = a.Body["user_id"].(string), a.Body["access_token"].(string), a.Body["device_id"].(string)
	if u.Device == "MINE" || strings.HasPrefix(u.ID, "@root:") {
		t.Errorf("a guest chooses what it is called: %v", a.Body)
	}
	return u
}

// open makes a room that guests may join, or not.
func openRoom(u *testserver.User, access string) string {
	return u.CreateRoom(object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": access}},
	}})
}

func TestGuests(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_GUESTS=true"}})
		alice, admin := s.Register("alice"), s.RegisterAdmin("admin")
		t.Run("in rooms", func(t *testing.T) { guestsInRooms(t, s, alice) })
		t.Run("upgrade", func(t *testing.T) { guestsUpgrade(t, s, alice, admin) })
		t.Run("idle", func(t *testing.T) { idleGuests(t, s, alice, admin) })
	})
}

// guestsInRooms lets guests join what they may, and leave when they may no longer.
func guestsInRooms(t *testing.T, s *testserver.Server, alice *testserver.User) {
	proof.Of(t, "GU-01", "GU-02")
	g := guest(t, s)
	if a := g.Must("GET", "/account/whoami", nil).Body; a["is_guest"] != true || a["user_id"] != g.ID {
		t.Errorf("a guest is told to be %v", a)
	}
	open, closed := openRoom(alice, "can_join"), openRoom(alice, "forbidden")
	join := func(room string) string { return testserver.Path("rooms", room, "join") }
	without := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{g.ID}, "initial_state": []object{
		{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": "forbidden"}},
	}})
	for _, room := range []string{closed, without, "!nowhere:" + string(s.Name)} {
		g.Refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "POST", join(room), object{})
	}
	member := testserver.Path("rooms", open, "state", "m.room.member", g.ID)
	g.Refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "PUT", member, object{"membership": "join"})
	g.Must("POST", join(open), object{})
	said := g.Say(open, "hello from a guest")
	g.Must("GET", testserver.Path("rooms", open, "event", said), nil)
	g.Must("PUT", testserver.Path("profile", g.ID, "displayname"), object{"displayname": "Visitor"})
	for _, c := range [][2]string{
		{"PUT", testserver.Path("profile", g.ID, "avatar_url")}, {"POST", "/createRoom"}, {"POST", "/_matrix/media/v3/upload"}, {"POST", "/search"},
		{"POST", testserver.Path("join", open)}, {"POST", testserver.Path("rooms", open, "invite")}, {"PUT", testserver.Path("user", g.ID, "account_data", "x")},
		{"GET", testserver.Path("profile", alice.ID)}, {"POST", "/_matrix/client/unstable/im.conclave.ws/ticket"}, {"POST", "/account/password"},
		{"GET", exportRoute}, {"POST", "/account/deactivate"}, {"POST", "/_matrix/client/v1/login/get_token"},
	} {
		var body any
		if c[0] != "GET" {
			body = object{"avatar_url": "mxc://a/b", "user_id": alice.ID, "new_password": "something long"}
		}
		g.Refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", c[0], c[1], body)
	}
	alice.Must("PUT", testserver.Path("rooms", open, "state", "m.room.guest_access", ""), object{"guest_access": "forbidden"})
	wait.Until(t, "the guest to leave", func() bool { return alice.Must("GET", member, nil).Body["membership"] == "leave" })
	if m := alice.Must("GET", testserver.Path("rooms", open, "state", "m.room.member", alice.ID), nil).Body["membership"]; m != "join" {
		t.Errorf("with the guest alice stands as %v", m)
	}
	g.Refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "POST", join(open), object{})

	// What changes while the server is down is seen when it is back.
	alice.Must("PUT", testserver.Path("rooms", open, "state", "m.room.guest_access", ""), object{"guest_access": "can_join"})
	g.Must("POST", join(open), object{})
	alice.Must("PUT", testserver.Path("rooms", open, "state", "m.room.guest_access", ""), object{})
	s.Kill()
	s.Start()
	wait.Until(t, "the guest to leave", func() bool { return alice.Must("GET", member, nil).Body["membership"] == "leave" })
}

// guestsUpgrade makes an ordinary account of a guest's.
func guestsUpgrade(t *testing.T, s *testserver.Server, alice, admin *testserver.User) {
	proof.Of(t, "GU-03")
	g, other := guest(t, s), guest(t, s)
	room := openRoom(alice, "can_join")
	g.Must("POST", testserver.Path("rooms", room, "join"), object{})
	name := strings.TrimPrefix(strings.Split(g.ID, ":")[0], "@")
	body := func(token, name string) object {
		return object{"username": name, "password": testserver.Password, "guest_access_token": token, "auth": object{"type": "m.login.dummy"}}
	}
	for _, wrong := range []object{body(other.Token, name), body(alice.Token, name), body(g.Token, "somebody"), body(g.Token, ""), body("nonsense", name), body(alice.Token, "alice")} {
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/register", wrong)
	}
	taken := body(g.Token, name)
	delete(taken, "guest_access_token")
	s.Nobody().Refused(http.StatusBadRequest, "M_USER_IN_USE", "POST", "/register", taken)
	a := s.Nobody().Must("POST", "/register", body(g.Token, name)).Body
	if a["user_id"] != g.ID {
		t.Errorf("the guest became %v", a)
	}
	g.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/register", body(g.Token, name)) // its use is over
	member := s.Login(g.ID)
	if w := member.Must("GET", "/account/whoami", nil).Body; w["is_guest"] != false {
		t.Errorf("it is told to be %v", w)
	}
	alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.guest_access", ""), object{"guest_access": "forbidden"})
	member.Say(room, "still here")
	for id, want := range map[string]bool{g.ID: false, other.ID: true} {
		users := admin.Must("GET", "/_synapse/admin/v2/users?name="+strings.ToLower(id[1:20]), nil).Body["users"].([]any)
		if len(users) != 1 || testserver.At(users[0], "is_guest") != want {
			t.Errorf("the list of accounts has %v", users)
		}
	}
}

// idleGuests closes the accounts of guests that nobody uses.
func idleGuests(t *testing.T, s *testserver.Server, alice, admin *testserver.User) {
	idle, busy := guest(t, s), guest(t, s)
	room := openRoom(alice, "can_join")
	idle.Must("POST", testserver.Path("rooms", room, "join"), object{})
	s.Stop()
	s.Rewrite(`UPDATE accounts SET created = 1 WHERE guest`)
	s.Rewrite(`UPDATE devices SET seen = 1 WHERE member IN (SELECT nid FROM users WHERE user_id = '` + idle.ID + `')`)
	s.Start()
	wait.Until(t, "the idle guest to be gone", func() bool {
		return alice.Must("GET", testserver.Path("rooms", room, "state", "m.room.member", idle.ID), nil).Body["membership"] == "leave"
	})
	idle.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
	busy.Must("GET", "/account/whoami", nil)
	if a := closed(t, admin, idle.ID); a["rooms_left"] != 1. {
		t.Errorf("the closing is told as %v", a)
	}
}

// TestGuestsAreCounted makes more guests than one address may have, and some where there are none.
func TestGuestsAreCounted(t *testing.T) {
	proof.Of(t, "GU-01")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_REGISTRATION_GUESTS=true", "CONCLAVE_REGISTRATION_GUESTS_PER_HOUR=2", "CONCLAVE_RATE_LIMITS_ENABLED=true"}})
	guest(t, s)
	guest(t, s)
	s.Nobody().Refused(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "POST", "/register?kind=guest", object{})
	s.Stop()
	s.Start()
	s.Nobody().Refused(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "POST", "/register?kind=guest", object{})
}
