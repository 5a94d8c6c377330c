package clientapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// Events reach a service in the order of the stream, if they concern one of its users, from when that came until it went.
func TestServiceHears(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-02", "AP-03")
		b := newBridge(t, engine, "receive_ephemeral: true\n")
		human, other := b.server.Register("human"), b.server.Register("other")
		ghost := b.ghost("_irc_ghost")
		room, secret := human.CreateRoom(object{"preset": "public_chat"}), other.CreateRoom(object{})
		human.Say(room, "before")
		other.Say(secret, "secret")
		human.Invite(room, ghost)
		b.waits("events", "the invitation", func(e object) bool {
			return e["type"] == "m.room.member" && e["state_key"] == ghost && e["room_id"] == room
		})
		b.as.Must("POST", acting(testserver.Path("join", room), ghost), object{})
		other.Join(room)
		for i := range 120 { // more than one transaction
			human.Say(room, fmt.Sprint("line ", i))
		}
		last := b.waits("events", "the last line", says("line 119"))
		var lines []string
		for _, event := range b.events("events") {
			body, _ := testserver.At(event, "content", "body").(string)
			if strings.HasPrefix(body, "line ") {
				lines = append(lines, body)
			}
			if body == "before" || body == "secret" {
				t.Errorf("the service was told %v", event)
			}
		}
		for i, line := range lines {
			if line != fmt.Sprint("line ", i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}

		human.Must("PUT", testserver.Path("rooms", room, "typing", human.ID), object{"typing": true, "timeout": 30000})
		b.waits("ephemeral", "typing", func(e object) bool { return e["type"] == "m.typing" && e["room_id"] == room })
		id := fmt.Sprint(last["event_id"])
		receipt := func(kind, user string) func(object) bool {
			return func(e object) bool {
				return e["type"] == "m.receipt" && e["room_id"] == room && testserver.At(e, "content", id, kind, user) != nil
			}
		}
		other.Must("POST", testserver.Path("rooms", room, "receipt", "m.read.private", id), object{})
		b.as.Must("POST", acting(testserver.Path("rooms", room, "receipt", "m.read.private", id), ghost), object{})
		human.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", id), object{})
		b.waits("ephemeral", "a receipt", receipt("m.read", human.ID))
		b.waits("ephemeral", "its user's private receipt", receipt("m.read.private", ghost))
		if slices.ContainsFunc(b.events("ephemeral"), receipt("m.read.private", other.ID)) {
			t.Error("the service was told of somebody else's private receipt")
		}
		human.Must("PUT", testserver.Path("presence", human.ID, "status"), object{"presence": "online", "status_msg": "here"})
		b.waits("ephemeral", "presence", func(e object) bool {
			return e["type"] == "m.presence" && e["sender"] == human.ID && testserver.At(e, "content", "status_msg") == "here"
		})

		b.as.Must("POST", acting(testserver.Path("rooms", room, "leave"), ghost), object{})
		human.Say(room, "after")
		human.Invite(room, b.as.ID)
		b.waits("events", "the next invitation", func(e object) bool { return e["state_key"] == b.as.ID })
		if slices.ContainsFunc(b.events("events"), says("after")) {
			t.Error("the service was told what came after its user went")
		}
	})
}

// What a service does not acknowledge comes again as it was, also when the server was killed meanwhile, until it does.
func TestServiceIsTold(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-02")
		b := newBridge(t, engine, "")
		room := b.as.CreateRoom(object{"preset": "public_chat"})
		human := b.server.Register("human")
		human.Join(room)
		b.waits("events", "the joining", func(e object) bool { return e["state_key"] == human.ID })

		repeated := func(text string, how http.HandlerFunc, between func()) {
			t.Helper()
			b.answers(how)
			id := human.Say(room, text)
			b.waits("events", text, says(text))
			all := b.transactions()
			first := all[len(all)-1]
			human.Say(room, text+" and more") // does not come into it
			human.Must("PUT", testserver.Path("rooms", room, "redact", id, "r"+id), object{})
			between()
			wait.Until(t, text+" again", func() bool { return len(b.transactions()) > len(all) })
			if again := b.transactions()[len(all)]; again.id != first.id || again.body != first.body {
				t.Errorf("%s came again as %s %s, it was %s %s", text, again.id, again.body, first.id, first.body)
			}
			b.answers(nil)
			b.waits("events", "what came meanwhile", says(text+" and more"))
		}
		repeated("killed", b.hangs, func() {
			b.server.Kill()
			b.answers(nil)
			b.server.Start()
		})
		repeated("failing", answering(500, "{}"), func() {})
		repeated("refused", answering(403, `{"errcode":"M_FORBIDDEN"}`), func() {})
		repeated("endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, func() {})
		b.server.Stop()
		if out, ok := b.server.Run("verify"); !ok {
			t.Errorf("verify: %s", out)
		}
	})
}

// The server asks a service for users and aliases that are not there, and whoever wants them waits.
func TestServiceIsAsked(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-09")
		b := newBridge(t, engine, "")
		human := b.server.Register("human")
		name := string(b.server.Name)
		b.answers(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/users/@_irc_made:"+name):
				b.ghost("_irc_made")
			case strings.HasSuffix(r.URL.Path, "/rooms/#_irc_made:"+name):
				b.as.CreateRoom(object{"preset": "public_chat", "room_alias_name": "_irc_made"})
			case strings.Contains(r.URL.Path, "/transactions/"):
			default:
				answering(404, `{"errcode":"COM.EXAMPLE_NOT_FOUND"}`)(w, r)
			}
		})
		human.Must("POST", testserver.Path("join", "#_irc_made:"+name), object{})
		room := human.CreateRoom(object{})
		human.Invite(room, "@_irc_made:"+name)
		human.Refused(404, "M_NOT_FOUND", "POST", testserver.Path("join", "#_irc_other:"+name), object{})
		human.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("profile", "@_irc_other:"+name), nil)
		human.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("profile", "@other:"+name), nil) // nobody is asked

		b.mu.Lock()
		asked := strings.Join(b.asked, " ")
		b.asked = nil
		b.mu.Unlock()
		if n := strings.Count(asked, "_irc_made"); n != 2 || strings.Contains(asked, "@other") || strings.Contains(asked, hsToken) {
			t.Errorf("asked %s", asked)
		}

		b.answers(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasPrefix(r.URL.Path, "/below/_matrix/"):
				answering(404, `{"errcode":"M_UNRECOGNIZED"}`)(w, r)
			case r.URL.Path == "/below/users/@_irc_old:"+name && r.URL.Query().Get("access_token") == hsToken:
				b.ghost("_irc_old")
			default:
				answering(404, `{"errcode":"M_NOT_FOUND"}`)(w, r)
			}
		})
		human.Must("GET", testserver.Path("profile", "@_irc_old:"+name), nil)

		b.answers(answering(502, "a proxy says no"))
		human.Refused(408, "M_UNKNOWN", "GET", testserver.Path("directory", "room", "#_irc_slow:"+name), nil)
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := strings.Count(strings.Join(b.asked, " "), url.PathEscape("#_irc_slow")); n != 3 {
			t.Errorf("asked %d times: %v", n, b.asked)
		}
	})
}

// A service has itself pinged, and learns what is wrong.
func TestPing(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-10")
		b := newBridge(t, engine, "")
		const path = "/_matrix/client/v1/appservice/irc/ping"
		if a := b.as.Must("POST", path, object{"transaction_id": "meow"}); a.Body["duration_ms"] == nil {
			t.Errorf("pinged: %s", a.Raw)
		}
		b.server.Register("human").Refused(403, "M_FORBIDDEN", "POST", path, object{})
		b.as.Refused(403, "M_FORBIDDEN", "POST", "/_matrix/client/v1/appservice/xmpp/ping", object{})
		quiet := b.server.Nobody()
		quiet.Token = "secret-of-the-quiet"
		quiet.Refused(400, "M_URL_NOT_SET", "POST", "/_matrix/client/v1/appservice/quiet/ping", object{})
		quiet.Refused(403, "M_FORBIDDEN", "POST", path, object{})
		b.answers(answering(403, `{"errcode":"M_FORBIDDEN"}`))
		a, err := b.as.Do("POST", path, object{})
		if err != nil || a.Status != 502 || a.Body["errcode"] != "M_BAD_STATUS" || a.Body["status"] != float64(403) || a.Body["body"] != `{"errcode":"M_FORBIDDEN"}` {
			t.Errorf("a bad status: %v %d %s", err, a.Status, a.Raw)
		}
		b.answers(b.hangs)
		b.as.Refused(504, "M_CONNECTION_TIMEOUT", "POST", path, object{})
		b.http.CloseClientConnections()
		b.http.Listener.Close() //nolint:errcheck // whatever it says, it listens no more
		b.as.Refused(502, "M_CONNECTION_FAILED", "POST", path, object{})
	})
}

// A service hears of invitations that its users get from rooms of other servers, with what they show of the room, and how
// they end; also for a user that it makes when it is asked.
func TestServiceInvitedAbroad(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-02", "AP-03")
		b := newBridge(t, engine, "")
		other := testserver.Start(t, testserver.Options{Engine: engine, CA: b.server.CA})
		ghost, made := b.ghost("_irc_ghost"), "@_irc_made:"+string(b.server.Name)
		far, human := other.Register("far"), b.server.Register("human")
		room := far.CreateRoom(object{"preset": "private_chat", "name": "Far away"})
		member := func(user, membership string) func(object) bool {
			return func(e object) bool {
				return e["type"] == "m.room.member" && e["state_key"] == user && e["room_id"] == room && testserver.At(e, "content", "membership") == membership
			}
		}
		far.Invite(room, human.ID)
		far.Invite(room, ghost)
		invitation := b.waits("events", "the invitation", member(ghost, "invite"))
		if shown := fmt.Sprint(testserver.At(invitation, "unsigned", "invite_room_state")); !strings.Contains(shown, "Far away") {
			t.Errorf("the invitation shows %s", shown)
		}
		far.Must("POST", testserver.Path("rooms", room, "kick"), object{"user_id": ghost, "reason": "a mistake"})
		b.waits("events", "the end of the invitation", member(ghost, "leave"))

		b.answers(func(_ http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/users/"+made) {
				b.ghost("_irc_made")
			}
		})
		far.Invite(room, made)
		b.waits("events", "the invitation of a user that it has made", member(made, "invite"))
		b.as.Must("POST", acting(testserver.Path("join", room), made), object{})
		far.Say(room, "from afar")
		b.waits("events", "what is said there", says("from afar"))
		if slices.ContainsFunc(b.events("events"), member(human.ID, "invite")) {
			t.Error("the service was told of somebody else's invitation")
		}
	})
}

// Protocols, users and locations of other networks are looked up with the services that know them, and their rooms have
// directories of their own.
func TestNetworks(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-11")
		b := newBridge(t, engine, "protocols: [irc]\n")
		human := b.server.Register("human")
		b.answers(func(w http.ResponseWriter, r *http.Request) {
			switch path := strings.TrimPrefix(r.URL.Path, "/below/_matrix/app/v1/thirdparty/"); {
			case path == "protocol/irc":
				fmt.Fprint(w, `{"user_fields":["nick"],"location_fields":["channel"],"icon":"mxc://a/b","field_types":{},"instances":[{"desc":"Libera","network_id":"libera","fields":{}},{"no":"network"}]}`)
			case path == "user/irc" && r.URL.RawQuery == "nick=a+b" || path == "user" && r.URL.Query().Get("userid") == b.as.ID:
				fmt.Fprint(w, `[{"userid":"@_irc_x:example.org","protocol":"irc","fields":{}},"nonsense"]`)
			case path == "location/irc" || path == "location":
				fmt.Fprint(w, `[{"alias":"#_irc_x:example.org","protocol":"irc","fields":{}}]`)
			default:
				answering(404, `{"errcode":"M_NOT_FOUND"}`)(w, r)
			}
		})
		all := human.Must("GET", "/thirdparty/protocols", nil).Body
		instances := testserver.Events(testserver.At(all, "irc", "instances"))
		if len(all) != 1 || len(instances) != 1 || instances[0]["desc"] != "Libera" || instances[0]["instance_id"] == nil {
			t.Fatalf("protocols: %v", all)
		}
		human.Must("GET", "/thirdparty/protocol/irc", nil)
		human.Refused(404, "M_NOT_FOUND", "GET", "/thirdparty/protocol/xmpp", nil)
		for path, want := range map[string]string{
			"/thirdparty/user/irc?nick=a+b": "@_irc_x", "/thirdparty/user?userid=" + url.QueryEscape(b.as.ID): "@_irc_x",
			"/thirdparty/location/irc?channel=%23x": "#_irc_x", "/thirdparty/location?alias=" + url.QueryEscape("#_irc_x:"+string(b.server.Name)): "#_irc_x",
		} {
			if raw := string(human.Must("GET", path, nil).Raw); !strings.HasPrefix(raw, "[") || !strings.Contains(raw, want) || strings.Contains(raw, "nonsense") {
				t.Errorf("%s: %s", path, raw)
			}
		}
		human.Refused(404, "M_NOT_FOUND", "GET", "/thirdparty/user/irc?nick=c", nil)
		human.Refused(404, "M_NOT_FOUND", "GET", "/thirdparty/user/xmpp?nick=c", nil)
		human.Refused(400, "M_INVALID_PARAM", "GET", "/thirdparty/user?userid=x", nil)

		room, public := b.as.CreateRoom(object{"preset": "public_chat"}), human.CreateRoom(object{"visibility": "public"})
		list := testserver.Path("directory", "list", "appservice", "libera", room)
		human.Refused(403, "M_FORBIDDEN", "PUT", list, object{"visibility": "public"})
		b.as.Must("PUT", list, object{"visibility": "public"})
		listed := func(q object) (ids []string) {
			for _, r := range testserver.Events(human.Must("POST", "/publicRooms", q).Body["chunk"]) {
				ids = append(ids, fmt.Sprint(r["room_id"]))
			}
			slices.Sort(ids)
			return ids
		}
		both := []string{room, public}
		slices.Sort(both)
		instance := instances[0]["instance_id"]
		if got := listed(object{"third_party_instance_id": instance}); !slices.Equal(got, []string{room}) {
			t.Errorf("the network has %v", got)
		}
		if got := listed(object{}); !slices.Equal(got, []string{public}) {
			t.Errorf("the server has %v", got)
		}
		if got := listed(object{"include_all_networks": true}); !slices.Equal(got, both) {
			t.Errorf("all have %v", got)
		}
		b.as.Must("PUT", list, object{"visibility": "private"})
		if got := listed(object{"third_party_instance_id": instance}); len(got) != 0 {
			t.Errorf("afterwards the network has %v", got)
		}
	})
}
