package clientapi_test

import (
	"net/http"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

// deactivate closes an account.
func deactivate(u *testserver.User) {
	u.Must("POST", "/account/deactivate", object{"auth": object{
		"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": u.ID},
	}})
}

// TestDeactivatedUsersLeave closes accounts while the server runs, and just before it dies.
func TestDeactivatedUsersLeave(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register(testserver.Unique("alice"))
		for _, killed := range []bool{false, true} {
			bob := s.Register(testserver.Unique("bob"))
			var rooms []string
			for range 6 {
				room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
				bob.Join(room)
				rooms = append(rooms, room)
			}
			invited := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
			since := token(alice.Sync("", 0))
			deactivate(bob)
			if killed {
				s.Kill()
				s.Start()
			}
			bob.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/sync", nil)
			for _, room := range append(rooms, invited) {
				wait.Until(t, "bob to leave", func() bool {
					a := alice.Must("GET", testserver.Path("rooms", room, "state", "m.room.member", bob.ID), nil)
					return a.Body["membership"] == "leave"
				})
			}
			seen := map[string]bool{}
			alice.SyncUntil(since, "that bob left", func(body object) bool {
				for _, room := range rooms {
					for _, e := range testserver.Timeline(body, room) {
						if e["state_key"] == bob.ID && testserver.At(e, "content", "membership") == "leave" {
							seen[room] = true
						}
					}
				}
				return len(seen) == len(rooms)
			})
		}
	})
}

// TestNewUsersHaveTheirName checks that a new user has its name as display name, in its profile and in its rooms.
func TestNewUsersHaveTheirName(t *testing.T) {
	s := testserver.Start(t, testserver.Options{})
	alice := s.Register("alice")
	profile := alice.Must("GET", testserver.Path("profile", alice.ID), nil).Body
	if len(profile) != 1 || profile["displayname"] != "alice" {
		t.Errorf("the profile is %v", profile)
	}
	room := alice.CreateRoom(object{})
	member := testserver.Path("rooms", room, "state", "m.room.member", alice.ID)
	if got := alice.Must("GET", member, nil).Body["displayname"]; got != "alice" {
		t.Errorf("in a room she is called %v", got)
	}
	// Whoever wants none takes it away.
	alice.Must("DELETE", testserver.Path("profile", alice.ID, "displayname"), nil)
	if got, there := alice.Must("GET", member, nil).Body["displayname"]; there {
		t.Errorf("in a room she is still called %v", got)
	}
}
