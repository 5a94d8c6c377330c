package clientapi_test

import (
	"sync"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// TestServerNotices has an administrator tell somebody something, who first will not hear it.
func TestServerNotices(t *testing.T) {
	proof.Of(t, "RM-17")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		admin, alice := s.RegisterAdmin("admin"), s.Register("alice")
		const path = "/_synapse/admin/v1/send_server_notice"
		notice := func(text string) object {
			return object{"user_id": alice.ID, "content": object{"body": text}}
		}
		var both sync.WaitGroup
		for _, text := range []string{"one", "two"} {
			both.Go(func() {
				if a, err := admin.Do("POST", path, notice(text)); err != nil || a.Status != 200 {
					t.Errorf("a notice is answered %v %v", a, err)
				}
			})
		}
		both.Wait()
		once := testserver.Unique("txn")
		first := admin.Must("PUT", path+"/"+once, notice("three")).Body["event_id"]
		if again := admin.Must("PUT", path+"/"+once, notice("three")).Body["event_id"]; again != first {
			t.Errorf("the same transaction made %v and %v", first, again)
		}
		invites, _ := testserver.At(alice.Sync("", 0), "rooms", "invite").(object)
		if len(invites) != 1 {
			t.Fatalf("alice is invited to %v", invites)
		}
		room := ""
		for id := range invites {
			room = id
		}
		const code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
		alice.Refused(403, code, "POST", testserver.Path("rooms", room, "leave"), object{})
		alice.Refused(403, code, "PUT", testserver.Path("rooms", room, "state", "m.room.member", alice.ID), object{"membership": "leave"})
		alice.Join(room)
		body := alice.Sync("", 0)
		texts := map[string]bool{}
		for _, e := range testserver.Timeline(body, room) {
			if testserver.At(e, "content", "msgtype") == "m.server_notice" && e["sender"] == "@server-notices:"+string(s.Name) {
				texts[testserver.At(e, "content", "body").(string)] = true
			}
		}
		tags := alice.Must("GET", testserver.Path("user", alice.ID, "rooms", room, "tags"), nil).Body["tags"].(object)
		if _, tagged := tags["m.server_notice"]; len(texts) != 3 || !tagged {
			t.Errorf("alice reads %v in a room with the tags %v", texts, tags)
		}
		alice.Refused(403, "M_FORBIDDEN", "PUT", testserver.Path("rooms", room, "send", "m.room.message", "1"), object{"msgtype": "m.text", "body": "x"})
		alice.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("rooms", room, "invite"), object{"user_id": admin.ID})
		// Whoever has joined may leave, and is invited again with the next notice.
		alice.Must("POST", testserver.Path("rooms", room, "leave"), object{})
		admin.Must("POST", path, notice("four"))
		if testserver.At(alice.Sync("", 0), "rooms", "invite", room) == nil {
			t.Error("alice is not invited again")
		}
		// An invitation does not keep a closed account.
		deactivate(alice)
		wait.Until(t, "the closed account to leave", func() bool {
			a, err := admin.Do("POST", path, notice("five"))
			return err == nil && a.Status == 404
		})
		for who, want := range map[string]string{"@nobody:" + string(s.Name): "M_NOT_FOUND", "@a:elsewhere.test": "M_INVALID_PARAM"} {
			status := map[string]int{"M_NOT_FOUND": 404, "M_INVALID_PARAM": 400}[want]
			admin.Refused(status, want, "POST", path, object{"user_id": who, "content": object{"body": "x"}})
		}
		admin.Refused(400, "M_MISSING_PARAM", "POST", path, object{"user_id": admin.ID})
		bob := s.Register("bob")
		bob.Refused(403, "M_FORBIDDEN", "POST", path, object{"user_id": bob.ID, "content": object{"body": "x"}})
		s.Nobody().Refused(403, "M_FORBIDDEN", "POST", "/login", object{"type": "m.login.password", "user": "server-notices", "password": "x"})
	})
}
