package clientapi

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
)

// openRoutes are the operations that answer without a session. A route that is to be one of them has to be added here
// too: nothing becomes open by accident (threats A01).
var openRoutes = []string{
	"checkUsernameAvailability", "getLoginFlows", "getRoomIdByAlias", "getRoomVisibilityOnDirectory", "getServerWellknown", "getWellknown",
	"im.conclave.sharedSecretNonce", "im.conclave.sharedSecretRegister", "login", "register",
}

// optionalRoutes are the operations that answer with and without a session.
var optionalRoutes = []string{
	"getContent", "getContentOverrideName", "getContentThumbnail", "getProfileField", "getRoomSummary", "getUserProfile", "getVersions",
}

// strangersMay are the operations that may succeed for somebody who is logged in and shares nothing with the room, the
// user and the device that the path names: what is public, what is about the caller alone, and content, which everybody
// may read who knows its ID. A new operation that succeeds for a stranger has to be judged, and added here.
var strangersMay = []string{
	"createContent", "createRoom", "getCapabilities", "getConfig", "getConfigAuthed", "getContentAuthed", "getContentOverrideNameAuthed",
	"getDevices", "getEvents", "getJoinedRooms", "getProtocols", "getPublicRooms", "getPushRule", "getPushRuleActions", "getPushRules", "getPushRulesGlobal", "getTokenOwner",
	"getNotifications", "getPushers", "im.conclave.ws.ticket", "initialSync", "isPushRuleEnabled", "logout", "logout_all", "queryPublicRooms", "reportRoom",
	"reportUser", "search", "sync", "uploadContent",
	// Keys: of the caller's own device, or public ones.
	"claimKeys", "getKeysChanges", "queryKeys", "sendToDevice", "uploadCrossSigningKeys", "uploadCrossSigningSignatures", "uploadKeys",
}

func TestRoutesThatNeedNoSession(t *testing.T) {
	got := map[Auth][]string{}
	for _, r := range Routes() {
		if !slices.Contains(got[r.Auth], r.OperationID) {
			got[r.Auth] = append(got[r.Auth], r.OperationID)
		}
	}
	for auth, want := range map[Auth][]string{NoAuth: openRoutes, OptionalToken: optionalRoutes, Ticket: {"im.conclave.ws.sync"}, Undeclared: nil} {
		slices.Sort(got[auth])
		if !slices.Equal(got[auth], want) {
			t.Errorf("authentication %d: %q, want %q", auth, got[auth], want)
		}
	}
}

// target fills in the paths of all routes with things of one user.
type target struct {
	params map[string]string
	body   []byte
}

func newTarget(t *testing.T, s *testserver.Server, owner *testserver.User) target {
	t.Helper()
	alias := "#" + testserver.Unique("private") + ":" + string(s.Name)
	room := owner.CreateRoom(testserver.JSON{"preset": "private_chat", "room_alias_name": strings.TrimPrefix(strings.Split(alias, ":")[0], "#")})
	event := owner.Say(room, "secret")
	uri, _ := owner.Must("POST", "/_matrix/media/v3/upload", []byte("x")).Body["content_uri"].(string)
	server, media, _ := strings.Cut(strings.TrimPrefix(uri, "mxc://"), "/")
	filter, _ := owner.Must("POST", testserver.Path("user", owner.ID, "filter"), testserver.JSON{}).Body["filter_id"].(string)
	owner.Must("PUT", testserver.Path("user", owner.ID, "account_data", "secret"), testserver.JSON{"a": 1})
	owner.Must("PUT", testserver.Path("user", owner.ID, "rooms", room, "account_data", "secret"), testserver.JSON{"a": 1})
	backup, _ := owner.Must("POST", "/room_keys/version", testserver.JSON{"algorithm": "m.test", "auth_data": testserver.JSON{}}).Body["version"].(string)
	return target{
		params: map[string]string{
			"roomId": room, "roomIdOrAlias": room, "roomAlias": alias, "eventId": event, "userId": owner.ID, "deviceId": owner.Device,
			"serverName": server, "mediaId": media, "fileName": "x", "filterId": filter, "type": "secret", "eventType": "m.room.topic", "stateKey": "",
			"receiptType": "m.read", "kind": "override", "ruleId": ".m.rule.master", "keyName": "displayname", "txnId": testserver.Unique("txn"),
			"destination": "elsewhere.test", "version": backup, "sessionId": "session", "relType": "m.thread", "reportId": "1",
			"appserviceId": "irc", "networkId": "libera", "protocol": "irc",
		},
		body: []byte(`{"user_id":"` + owner.ID + `","topic":"mine","typing":true,"timeout":1000,"m.read":"` + event + `","m.fully_read":"` + event +
			`","room_id":"` + room + `","reason":"mine","displayname":"mine","display_name":"mine","visibility":"public","devices":["` + owner.Device + `"]}`),
	}
}

// path is a route's path, filled in.
func (p target) path(t *testing.T, r Route, path string) string {
	t.Helper()
	for _, name := range r.pathParams() {
		value, ok := p.params[name]
		if !ok {
			t.Fatalf("%s: the test knows nothing to put in the place of %s", r.OperationID, name)
		}
		path = strings.Replace(path, ":"+name, url.PathEscape(value), 1)
	}
	return path
}

func (p target) call(t *testing.T, s *testserver.Server, r Route, path string, authorization ...string) (int, string) {
	t.Helper()
	var body io.Reader
	if r.Method == post || r.Method == put || r.Method == del {
		body = bytes.NewReader(p.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), r.Method, s.URL+p.path(t, r, path), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = authorization
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// TestNoRouteAnswersWithoutItsAuthentication calls every route with every kind of wrong credential.
func TestNoRouteAnswersWithoutItsAuthentication(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		p := newTarget(t, s, alice)
		ended := s.Login("alice")
		ended.Must("POST", "/logout", testserver.JSON{})
		gone := s.Register("gone")
		confirm := testserver.JSON{"auth": testserver.JSON{"type": "m.login.password", "user": "gone", "password": testserver.Password}}
		gone.Must("POST", "/account/deactivate", confirm)
		good := "Bearer " + alice.Token
		for name, headers := range map[string][]string{
			"nothing": nil, "no token": {"Bearer"}, "an empty token": {"Bearer "}, "garbage": {"Bearer garbage"}, "another scheme": {"Basic " + alice.Token},
			"the token alone": {alice.Token}, "two headers": {good, good}, "an ended session": {"Bearer " + ended.Token}, "a deactivated user": {"Bearer " + gone.Token},
		} {
			for _, r := range Routes() {
				if r.Auth == NoAuth {
					continue
				}
				if r.Auth == OptionalToken && name == "nothing" {
					continue
				}
				for _, path := range r.paths() {
					status, text := p.call(t, s, r, path, headers...)
					if status != http.StatusUnauthorized || r.Method != http.MethodHead && !strings.Contains(text, "_TOKEN") {
						t.Errorf("%s with %s: %d %s", r.OperationID, name, status, text)
					}
				}
			}
		}
		// A token in the address is none.
		for _, r := range Routes() {
			if r.Auth == Token || r.Auth == Admin {
				if status, _ := p.call(t, s, r, r.Path+"?access_token="+url.QueryEscape(alice.Token)); status != http.StatusUnauthorized {
					t.Errorf("%s with a token in its address: %d", r.OperationID, status)
				}
			}
		}
	})
}

// TestStrangers calls every route as somebody who has nothing to do with the room, user and device of its path.
func TestStrangers(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		p := newTarget(t, s, alice)
		s.Register("mallory")
		before := alice.Sync("", 0)["account_data"]
		may := map[string]bool{}
		for _, r := range Routes() {
			if r.Auth != Token && r.Auth != Admin {
				continue
			}
			mallory := s.Login("mallory") // a new session each time: some routes end it
			status, text := p.call(t, s, r, r.Path, "Bearer "+mallory.Token)
			switch {
			case status/100 == 2:
				may[r.OperationID] = true
				for _, secret := range []string{"secret", alice.Token} {
					if strings.Contains(text, secret) {
						t.Errorf("%s tells a stranger %s", r.OperationID, text)
					}
				}
			case status >= 500 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout:
				t.Errorf("%s: %d %s", r.OperationID, status, text)
			case r.Auth == Admin && status != http.StatusForbidden:
				t.Errorf("%s is for administrators and answers %d", r.OperationID, status)
			}
		}
		for id := range may {
			if !slices.Contains(strangersMay, id) {
				t.Errorf("%s succeeds for a stranger", id)
			}
		}
		if len(may) < 15 {
			t.Errorf("strangers may do only %d things: the test has gone blind", len(may))
		}
		alice.Must("GET", "/account/whoami", nil)
		if after := alice.Sync("", 0)["account_data"]; len(after.(testserver.JSON)) != len(before.(testserver.JSON)) {
			t.Errorf("alice's account data became %v", after)
		}
	})
}
