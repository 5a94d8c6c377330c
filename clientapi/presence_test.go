package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

func TestPresence(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Presence: true})
		t.Run("closed account", func(t *testing.T) { presenceClosed(t, s) }) // the first, whose status is stored at once
		t.Run("open accounts", func(t *testing.T) {
			for name, test := range map[string]func(*testing.T, *testserver.Server){
				"requests": presenceRequests, "set_presence": presenceOfPolls, "sync": presenceInSync, "socket": presenceOnSocket,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel() // each waits for rounds in which changes are told
					test(t, s)
				})
			}
		})
		s.Stop()
		if got := s.StatusMessages(); slices.Contains(got, "secret") || !slices.Contains(got, "over the socket") {
			t.Errorf("in the end the database has the status messages %q", got)
		}
	})
}

func status(u *testserver.User) string { return testserver.Path("presence", u.ID, "status") }

// shown is what somebody is told of a user who is asked about.
func shown(who, of *testserver.User) string {
	return summary(who.Must("GET", status(of), nil).Body)
}

func summary(content any) string {
	text := fmt.Sprint(testserver.At(content, "presence"))
	if message := testserver.At(content, "status_msg"); message != nil {
		text += fmt.Sprint(" ", message)
	}
	return text
}

// presences are the states that a sync response tells, by user.
func presences(t *testing.T, body object) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, e := range testserver.Events(testserver.At(body, "presence", "events")) {
		sender, _ := e["sender"].(string)
		if _, twice := found[sender]; twice || e["type"] != "m.presence" || testserver.At(e, "content", "currently_active") == nil {
			t.Errorf("among the presence there is %v", e)
		}
		found[sender] = summary(e["content"])
	}
	return found
}

func presenceClosed(t *testing.T, s *testserver.Server) {
	alice, bob, _ := together(t, s)
	alice.Must("PUT", status(alice), object{"presence": "unavailable", "status_msg": "secret"})
	wait.Until(t, "the status message in the database", func() bool { return slices.Contains(s.StatusMessages(), "secret") })
	if got := shown(bob, alice); got != "unavailable secret" {
		t.Errorf("bob is told %q", got)
	}
	deactivate(alice)
	if got := s.StatusMessages(); len(got) != 0 {
		t.Errorf("the account is closed, and the database has %q", got)
	}
	a, err := bob.Do("GET", status(alice), nil)
	if err != nil || strings.Contains(string(a.Raw), "secret") || a.Body["presence"] != nil && a.Body["presence"] != "offline" {
		t.Errorf("bob is told %s (%v)", a.Raw, err)
	}
}

func presenceRequests(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-12")
	alice, bob, room := together(t, s)
	stranger := s.Register(testserver.Unique("stranger"))
	long := strings.Repeat("x", 1024)
	for _, c := range []struct {
		body   any
		status int
		code   string
	}{
		{object{"presence": "online", "status_msg": long}, 200, ""},
		{object{"presence": "online", "status_msg": long + "x"}, 400, "M_INVALID_PARAM"},
		{object{"presence": "asleep"}, 400, "M_INVALID_PARAM"},
		{object{"presence": "Online"}, 400, "M_INVALID_PARAM"},
		{object{"presence": ""}, 400, "M_MISSING_PARAM"},
		{object{"status_msg": "here"}, 400, "M_MISSING_PARAM"},
		{object{"presence": 1}, 400, "M_BAD_JSON"},
		{object{"presence": "offline", "status_msg": 1}, 400, "M_BAD_JSON"},
		{[]string{"offline"}, 400, "M_BAD_JSON"},
		{[]byte(`{"presence":"offline"`), 400, "M_NOT_JSON"},
		{[]byte(`{"presence":"offline","presence":"online"}`), 400, "M_NOT_JSON"},
	} {
		a, err := alice.Do("PUT", status(alice), c.body)
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := a.Body["errcode"].(string); a.Status != c.status || code != c.code || c.status == 200 && string(a.Raw) != "{}" {
			t.Errorf("%.60v is answered %d %.200s", c.body, a.Status, a.Raw)
		}
	}
	for who, as := range map[*testserver.User]string{alice: "herself", bob: "bob"} {
		if got := shown(who, alice); got != "online "+long {
			t.Errorf("to %s alice is %.60q", as, got)
		}
	}
	own := bob.Must("GET", status(alice), nil).Body
	if ago, ok := own["last_active_ago"].(float64); !ok || ago < 0 || own["currently_active"] != true || own["displayname"] != nil {
		t.Errorf("alice's presence is %.200v", own)
	}
	alice.Must("PUT", status(alice), object{"presence": "unavailable", "status_msg": "a\x00b"}) // no database takes a NUL
	if got := shown(bob, alice); got != "unavailable ab" {
		t.Errorf("to bob alice is %q", got)
	}
	nobody := &testserver.User{ID: "@nobody:" + string(s.Name)}
	for _, of := range []*testserver.User{alice, nobody, {ID: "@x:other.test"}} { // nobody learns who exists
		stranger.Refused(403, "M_FORBIDDEN", "GET", status(of), nil)
		stranger.Refused(403, "M_FORBIDDEN", "PUT", status(of), object{"presence": "online", "status_msg": "forged"})
	}
	bob.Refused(403, "M_FORBIDDEN", "PUT", status(alice), object{"presence": "offline"})
	bob.Refused(400, "M_INVALID_PARAM", "GET", "/presence/alice/status", nil)
	bob.Refused(400, "M_INVALID_PARAM", "PUT", "/presence/alice/status", object{"presence": "online"})
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", status(alice), nil)
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "PUT", status(alice), object{"presence": "online"})
	if got := shown(alice, alice); got != "unavailable ab" {
		t.Errorf("after what was refused alice is %q", got)
	}
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	bob.Refused(403, "M_FORBIDDEN", "GET", status(alice), nil)
	alice.Must("PUT", status(alice), object{"presence": "offline"}) // without a message there is none
	if got := shown(alice, alice); got != "offline" {
		t.Errorf("in the end alice is %q", got)
	}
}

// presenceOfPolls polls with set_presence: what a client does not say makes it online.
func presenceOfPolls(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-12", "SY-09")
	alice := s.Register(testserver.Unique("alice"))
	for _, c := range [][2]string{
		{"unavailable", "unavailable"}, {"online", "online"}, {"offline", "offline"}, {"", "online"}, {"offline", "offline"}, {"unavailable", "unavailable"},
	} {
		query := "/sync?timeout=0"
		if c[0] != "" {
			query += "&set_presence=" + c[0]
		}
		alice.Must("GET", query, nil)
		if got := shown(alice, alice); got != c[1] {
			t.Errorf("set_presence=%s shows alice %s", c[0], got)
		}
	}
	for _, wrong := range []string{"busy", "Online", "on%00line", "true"} {
		alice.Refused(400, "M_INVALID_PARAM", "GET", "/sync?timeout=0&set_presence="+wrong, nil)
	}
	if got := shown(alice, alice); got != "unavailable" {
		t.Errorf("a wrong value shows alice %s", got)
	}
}

// presenceInSync is the filter's section presence, and that nothing is told of whom one ignores.
func presenceInSync(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-02", "US-12")
	alice, bob, room := together(t, s)
	carol, dave := s.Register(testserver.Unique("carol")), s.Register(testserver.Unique("dave"))
	for _, u := range []*testserver.User{carol, dave} {
		alice.Invite(room, u.ID)
		u.Join(room)
	}
	others := map[*testserver.User]string{alice: "unavailable first", carol: "online first", dave: "online first"}
	for u, as := range others {
		state, message, _ := strings.Cut(as, " ")
		u.Must("PUT", status(u), object{"presence": state, "status_msg": message})
	}
	heard := map[string]string{}
	everybody := func(body object) bool {
		for user, as := range presences(t, body) {
			heard[user] = as
		}
		return heard[alice.ID] == others[alice] && heard[carol.ID] == others[carol] && heard[dave.ID] == others[dave]
	}
	if first := bob.Sync("", 0); !everybody(first) { // what the first answer tells is not told again
		bob.SyncUntil(token(first), "everybody's presence", everybody)
	}
	filtered(t, bob, alice, carol, dave)

	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{dave.ID: object{}}})
	body := bob.Sync("", 0)
	if got := presences(t, body); got[dave.ID] != "" || got[alice.ID] != others[alice] {
		t.Errorf("whoever ignores dave is told %v", got)
	}
	from := token(carol.Sync("", 0))
	dave.Must("PUT", status(dave), object{"presence": "unavailable", "status_msg": "second"})
	alice.Must("PUT", status(alice), object{"presence": "online", "status_msg": "second"})
	alice.Must("PUT", testserver.Path("profile", alice.ID, "displayname"), object{"displayname": "Alice in Wonderland"})
	clear(heard)
	named := 0 // in presence, and in the room
	carol.SyncUntil(from, "what changed", func(body object) bool {
		for user, as := range presences(t, body) {
			heard[user] = as
		}
		for _, e := range append(testserver.Timeline(body, room), testserver.Events(testserver.At(body, "presence", "events"))...) {
			if e["sender"] == alice.ID && testserver.At(e, "content", "displayname") == "Alice in Wonderland" {
				named |= map[any]int{"m.presence": 1, "m.room.member": 2}[e["type"]]
			}
		}
		return heard[alice.ID] == "online second" && heard[dave.ID] == "unavailable second" && named == 3
	})
	if got := presences(t, bob.Sync(token(body), 0)); got[dave.ID] != "" || got[alice.ID] != "online second" {
		t.Errorf("whoever ignores dave is then told %v", got)
	}
	oneByOne(t, carol, from, alice, dave)
	clear(heard)
	conn := carol.Socket(url.Values{"since": {from}, "filter": {`{"presence":{"limit":1}}`}})
	frames(t, conn, "both, frame by frame", func(frame object) bool {
		for user, as := range presences(t, frame) {
			heard[user] = as
		}
		return heard[alice.ID] == "online second" && heard[dave.ID] == "unavailable second"
	})
	// A token of a process whose clock went ahead: the client starts afresh.
	ahead := regexp.MustCompile(`\.\d+_`).ReplaceAllString(from, ".9000000000000000000_")
	if got := presences(t, carol.Sync(ahead, 0)); ahead == from || got[alice.ID] != "online second" {
		t.Errorf("with the token %s carol is told %v", ahead, got)
	}
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{}})
	if got := presences(t, bob.Sync("", 0)); got[dave.ID] != "unavailable second" {
		t.Errorf("whoever ignores dave no more is told %v", got)
	}
}

// filtered has bob sync with filters: of alice, carol and dave he is told of those whose letters stand beside each.
func filtered(t *testing.T, bob, alice, carol, dave *testserver.User) {
	t.Helper()
	stored, _ := bob.Must("POST", testserver.Path("user", bob.ID, "filter"), object{"presence": object{"senders": []string{carol.ID}}}).Body["filter_id"].(string)
	for filter, want := range map[string]string{
		`{}`:                                    "acd",
		`{"presence":{"types":["m.presence"]}}`: "acd",
		`{"presence":{"types":["m.pre*"],"limit":100000}}`:              "acd",
		`{"presence":{"types":["m.typing","m.room.*"]}}`:                "",
		`{"presence":{"types":[]}}`:                                     "",
		`{"presence":{"not_types":["m.typing"]}}`:                       "acd",
		`{"presence":{"types":["m.presence"],"not_types":["m.*"]}}`:     "",
		`{"presence":{"senders":["A"]}}`:                                "a",
		`{"presence":{"senders":["A","D","@x:other.test"]}}`:            "ad",
		`{"presence":{"senders":[]}}`:                                   "",
		`{"presence":{"not_senders":["A"]}}`:                            "cd",
		`{"presence":{"senders":["A","C"],"not_senders":["A"]}}`:        "c",
		`{"room":{"timeline":{"types":[]}},"account_data":{"limit":1}}`: "acd", // which say nothing of presence
		stored: "c",
	} {
		query := strings.NewReplacer(`"A"`, quoted(alice.ID), `"C"`, quoted(carol.ID), `"D"`, quoted(dave.ID)).Replace(filter)
		told := presences(t, bob.Sync("", 0, "filter", query))
		got := ""
		for letter, u := range map[string]*testserver.User{"a": alice, "c": carol, "d": dave} {
			if told[u.ID] != "" {
				got += letter
			}
		}
		if letters := []byte(got); want != string(sorted(letters)) {
			t.Errorf("with %s bob is told of %q, want %q", filter, got, want)
		}
	}
	for limit, want := range map[int]int{1: 1, 2: 2} {
		if told := presences(t, bob.Sync("", 0, "filter", fmt.Sprintf(`{"presence":{"limit":%d}}`, limit))); len(told) != want {
			t.Errorf("of at most %d bob is told of %v", limit, told)
		}
	}
	if told := presences(t, bob.Sync("", 0, "filter", fmt.Sprintf(`{"presence":{"limit":1,"senders":[%q]}}`, alice.ID))); told[alice.ID] == "" {
		t.Errorf("of at most one, who is to be alice, bob is told of %v", told)
	}
}

func quoted(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func sorted(letters []byte) []byte {
	slices.Sort(letters)
	return letters
}

// oneByOne has somebody sync with a limit of one: both who changed are told of, each once.
func oneByOne(t *testing.T, who *testserver.User, from string, changed ...*testserver.User) {
	t.Helper()
	times := map[string]int{}
	for range 6 { // others who come and go may be among them
		body := who.Sync(from, 0, "filter", `{"presence":{"limit":1}}`)
		told := presences(t, body)
		if len(told) > 1 {
			t.Errorf("of at most one there are %v", told)
		}
		for user := range told {
			times[user]++
		}
		from = token(body)
	}
	for _, u := range changed {
		if times[u.ID] != 1 {
			t.Errorf("of %s one is told %d times: %v", u.ID, times[u.ID], times)
		}
	}
}

// presenceOnSocket sets presence over a socket, and hears of it on another.
func presenceOnSocket(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-12")
	alice, bob, room := together(t, s)
	ear := bob.Socket(url.Values{"set_presence": {"offline"}, "filter": {`{"presence":{"senders":[` + quoted(alice.ID) + `]}}`}})
	conn := alice.Socket(url.Values{"set_presence": {"unavailable"}})
	wait.Until(t, "the sockets", func() bool { return shown(bob, alice) == "unavailable" })
	if got := shown(alice, bob); got != "offline" {
		t.Errorf("bob, who hides, is %s", got)
	}
	a := ask(t, conn, "presence", object{"presence": "online", "status_msg": "over the socket"})
	if result, _ := a["result"].(object); result == nil || len(result) != 0 || a["error"] != nil {
		t.Errorf("presence was answered %v", a)
	}
	if got := shown(bob, alice); got != "online over the socket" {
		t.Errorf("to bob alice is %q", got)
	}
	frames(t, ear, "alice's presence", func(frame object) bool {
		told := presences(t, frame)
		if told[bob.ID] != "" {
			t.Errorf("bob, who wants to hear of alice alone, is told %v", told)
		}
		return told[alice.ID] == "online over the socket"
	})
	for code, bad := range map[string][]object{
		"M_INVALID_PARAM": {{"presence": "asleep"}, {"presence": "offline", "status_msg": strings.Repeat("x", 1025)}},
		"M_MISSING_PARAM": {{}, nil, {"status_msg": "here"}},
		"M_BAD_JSON":      {{"presence": 1}, {"presence": "offline", "status_msg": object{}}},
	} {
		for _, params := range bad {
			if a := ask(t, conn, "presence", params); testserver.At(a, "error", "errcode") != code {
				t.Errorf("presence %.60v was answered %v, want %s", params, a, code)
			}
		}
	}
	if got := shown(bob, alice); got != "online over the socket" {
		t.Errorf("after what was refused alice is %q", got)
	}
	ask(t, conn, "presence", object{"presence": "offline", "status_msg": "over the socket"})
	ask(t, conn, "typing", object{"room_id": room, "typing": true, "timeout": 1000}) // whoever hides does so in this too
	if got := shown(bob, alice); got != "offline over the socket" {
		t.Errorf("hidden, alice is %q", got)
	}
	_, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+
		"/_matrix/client/unstable/im.conclave.ws/sync?set_presence=busy", http.Header{"Authorization": {"Bearer " + alice.Token}})
	if err == nil || res == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("a socket with set_presence=busy was answered %v (%v)", res, err)
	}
}
