package clientapi

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// openRoutes are the operations that answer without a session. A route that is to be one of them has to be added here
// too: nothing becomes open by accident (threats A01).
var openRoutes = []string{
	"checkUsernameAvailability", "getAuthMetadata", "getLoginFlows", "getRoomVisibilityOnDirectory", "getServerWellknown", "getWellknown",
	"getWellknownSupport", "im.conclave.authFallback", "im.conclave.authFallbackForm", "im.conclave.email.page", "im.conclave.email.submitToken",
	"im.conclave.email.unsubscribe", "im.conclave.email.unsubscribePage", "im.conclave.link", "im.conclave.link.poll", "im.conclave.loginFallback", "im.conclave.loginFallbackForm",
	"im.conclave.oauth.device", "im.conclave.oauth.register", "im.conclave.oauth.revoke", "im.conclave.oauth.token", "im.conclave.page.account",
	"im.conclave.page.authorize", "im.conclave.page.avatar", "im.conclave.page.decide", "im.conclave.page.export", "im.conclave.page.factor", "im.conclave.page.file", "im.conclave.page.link", "im.conclave.page.manage",
	"im.conclave.page.passkey", "im.conclave.page.password", "im.conclave.page.provider", "im.conclave.page.section", "im.conclave.page.signIn", "im.conclave.page.sso", "im.conclave.page.userCode", "im.conclave.passkeySignIn",
	"im.conclave.passkeySignInChallenge", "im.conclave.sharedSecretNonce", "im.conclave.sharedSecretRegister", "im.conclave.signIn",
	"im.conclave.signInChallenge", "im.conclave.signInFactor", "im.conclave.ssoCallback", "im.conclave.ssoContinue", "login",
	"redirectToIdP", "redirectToSSO", "refresh", "register", "registrationTokenValidity", "requestTokenToRegisterEmail", "requestTokenToRegisterMSISDN",
	"requestTokenToResetPasswordEmail", "requestTokenToResetPasswordMSISDN",
}

// optionalRoutes are the operations that answer with and without a session.
var optionalRoutes = []string{
	"changePassword", "getContent", "getContentOverrideName", "getContentThumbnail", "getRoomIdByAlias", "getRoomSummary", "getVersions",
	"requestTokenTo3PIDEmail", "requestTokenTo3PIDMSISDN",
}

// strangersMay are the operations that may succeed for somebody who is logged in and shares nothing with the room, the
// user and the device that the path names: what is public, what is about the caller alone, and content, which everybody
// may read who knows its ID. A new operation that succeeds for a stranger has to be judged, and added here.
var strangersMay = []string{
	"getAccount3PIDs", "createContent", "createRoom", "getCapabilities", "getConfig", "getConfigAuthed", "getContentAuthed", "getContentOverrideNameAuthed",
	"getDevices", "getEvents", "getJoinedRooms", "getProtocols", "getPublicRooms", "getPushRule", "getPushRuleActions", "getPushRules", "getPushRulesGlobal", "getTokenOwner",
	"getNotifications", "getPushers", "getProfileField", "getTurnServer", "getUserProfile", "im.conclave.account.appPasswords", "im.conclave.account.export", "im.conclave.account.export.drop", "im.conclave.account.factors", "im.conclave.account.passkeys", "im.conclave.ws.ticket", "initialSync", "isPushRuleEnabled", "logout", "logout_all",
	"queryLocationByAlias",
	"org.matrix.simplified_msc3575.sync", "queryLocationByProtocol", "queryPublicRooms", "queryUserByID", "queryUserByProtocol", "reportRoom", "reportUser", "search",
	"searchUserDirectory", "sync", "uploadContent",
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

// TestRulesNameOperations finds rules for operations that do not exist: a wrong name judges nothing.
func TestRulesNameOperations(t *testing.T) {
	there := map[string]bool{}
	for _, r := range Routes() {
		there[r.OperationID] = true
	}
	names := slices.Concat(waitingRoutes, lockedMay, slices.Collect(maps.Keys(suspendedRules)), slices.Collect(maps.Keys(unconfirmed)), slices.Collect(maps.Keys(guestsMay)))
	for _, name := range names {
		if !there[name] {
			t.Errorf("there is a rule for %s, which is no operation", name)
		}
	}
}

// target fills in the paths of all routes with things of one user.
type target struct {
	params map[string]string
	body   []byte
	token  string // of the owner
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
		token: owner.Token,
		params: map[string]string{
			"roomId": room, "roomIdOrAlias": room, "roomAlias": alias, "eventId": event, "userId": owner.ID, "deviceId": owner.Device,
			"serverName": server, "mediaId": media, "fileName": "x", "filterId": filter, "type": "secret", "eventType": "m.room.topic", "stateKey": "",
			"receiptType": "m.read", "kind": "override", "ruleId": ".m.rule.master", "keyName": "displayname", "txnId": testserver.Unique("txn"),
			"destination": "elsewhere.test", "version": backup, "sessionId": "session", "relType": "m.thread", "reportId": "1",
			"tag": "u.secret", "uploadId": media, "protocol": "irc", "appserviceId": "irc", "networkId": "libera", "id": "AAAA", "passkeyId": "AAAA", "section": "security", "file": "none", "idpId": "none",
			"token": "choir", "localpart": "applicant", "authType": "m.login.password",
		},
		body: []byte(`{"user_id":"` + owner.ID + `","topic":"mine","typing":true,"timeout":1000,"m.read":"` + event + `","m.fully_read":"` + event +
			`","room_id":"` + room + `","reason":"mine","search_term":"alice","displayname":"mine","display_name":"mine","visibility":"public","devices":["` + owner.Device + `"]}`),
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
	res, err := shapes.Do(t, http.DefaultClient, req)
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
		// A token in the address is one, as the specification asks, if it is the only one and good.
		for _, r := range Routes() {
			if r.Auth == NoAuth {
				continue
			}
			for _, query := range []string{"access_token=garbage", "access_token=", "access_token=x&access_token=y", "access_token=" + gone.Token} {
				if status, _ := p.call(t, s, r, r.Path+"?"+query); status != http.StatusUnauthorized {
					t.Errorf("%s with %s: %d", r.OperationID, query, status)
				}
			}
		}
		whoami := slices.IndexFunc(Routes(), func(r Route) bool { return r.OperationID == "getTokenOwner" })
		for query, want := range map[string]int{alice.Token: 200, alice.Token + "&access_token=" + alice.Token: 401} {
			if status, _ := p.call(t, s, Routes()[whoami], Routes()[whoami].Path+"?access_token="+query); status != want {
				t.Errorf("with %s in the address: %d, want %d", query, status, want)
			}
		}
	})
}

// leaversMay are the operations that may succeed beyond that for somebody who has left the room, or was put out of it:
// what was there until then can be read.
var leaversMay = []string{
	"forgetRoom", "getEventContext", "getMembersByRoom", "getOneEvent", "getOneRoomEvent", "getRelatingEvents", "getRelatingEventsWithRelType",
	"getRelatingEventsWithRelTypeAndEventType", "getRoomEvents", "getRoomState", "getRoomStateWithKey", "getThreadRoots", "roomInitialSync",
	"leaveRoom", // which changes nothing
}

// adminsMay are the operations that may succeed beyond that of strangers for administrators, and those that are theirs.
var adminsMay = []string{"deleteRoomAlias", "getWhoIs"}

// TestStrangers calls every route as somebody who has nothing to do with the room, user and device of its path, or no
// more: a stranger, an administrator, one who has left and one who is banned.
func TestStrangers(t *testing.T) {
	proof.Of(t, "A01")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		p := newTarget(t, s, alice)
		room := p.params["roomId"]
		callers := map[string]*testserver.User{"stranger": s.Register("stranger"), "admin": s.RegisterAdmin("admin"), "left": s.Register("left"), "banned": s.Register("banned")}
		for _, name := range []string{"left", "banned"} {
			alice.Invite(room, callers[name].ID)
			callers[name].Join(room)
		}
		p.params["eventId"] = alice.Say(room, "while they were there")
		callers["left"].Must("POST", testserver.Path("rooms", room, "leave"), testserver.JSON{})
		alice.Must("POST", testserver.Path("rooms", room, "ban"), testserver.JSON{"user_id": callers["banned"].ID})
		alice.Say(room, "a secret of later")
		alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.topic", ""), testserver.JSON{"topic": "a secret of later"})
		before := alice.Sync("", 0)["account_data"]
		for name, caller := range callers {
			may := slices.Clone(strangersMay)
			secret := "secret"
			switch name {
			case "left", "banned":
				may, secret = append(may, leaversMay...), "secret of later"
			case "admin":
				may = append(may, adminsMay...)
			}
			p.callAll(t, s, name, caller, may, secret)
		}
		alice.Must("GET", "/account/whoami", nil)
		if after := alice.Sync("", 0)["account_data"]; len(after.(testserver.JSON)) != len(before.(testserver.JSON)) {
			t.Errorf("alice's account data became %v", after)
		}
	})
}

// callAll calls every route as a caller who may have success with some operations only, and does not read a secret.
func (p target) callAll(t *testing.T, s *testserver.Server, name string, caller *testserver.User, may []string, secret string) {
	t.Helper()
	routes := Routes()
	slices.SortStableFunc(routes, func(a, b Route) int { // what a caller has forgotten it cannot read any more
		return strings.Compare(strings.Repeat("z", strings.Count(a.OperationID, "forgetRoom")), strings.Repeat("z", strings.Count(b.OperationID, "forgetRoom")))
	})
	successes := 0
	for _, r := range routes {
		if r.Auth != Token && r.Auth != Admin || name == "admin" && r.OperationID == "im.conclave.admin.deactivate" { // which is the owner's end
			continue
		}
		status, text := p.call(t, s, r, r.Path, "Bearer "+caller.Token)
		switch {
		case status/100 == 2:
			successes++
			if !slices.Contains(may, r.OperationID) && !(name == "admin" && r.Auth == Admin) {
				t.Errorf("%s succeeds for the caller %q: %s", r.OperationID, name, text)
			}
			for _, secret := range []string{secret, p.token} {
				if strings.Contains(text, secret) {
					t.Errorf("%s tells the caller %q %s", r.OperationID, name, text)
				}
			}
		case status >= 500 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout:
			t.Errorf("%s for the caller %q: %d %s", r.OperationID, name, status, text)
		case r.Auth == Admin && status != http.StatusForbidden && name != "admin":
			t.Errorf("%s is for administrators and answers %d", r.OperationID, status)
		}
		if strings.HasPrefix(r.OperationID, "logout") {
			caller.Token = s.Login(caller.ID).Token
		}
	}
	if successes < 15 {
		t.Errorf("the caller %q may do only %d things: the test has gone blind", name, successes)
	}
}

// TestModeratedCallers calls every route as somebody whose account is locked, and as a member of the room whose account
// is suspended.
func TestModeratedCallers(t *testing.T) {
	proof.Of(t, "A01", "A06", "AN-19", "AN-20")
	s := testserver.Start(t, testserver.Options{})
	alice, admin := s.Register("alice"), s.RegisterAdmin("admin")
	p := newTarget(t, s, alice)
	room := p.params["roomId"]
	moderate := func(flag string, u *testserver.User, on bool) {
		action := map[string]string{"locked": "lock", "suspended": "suspend"}[flag]
		admin.Must("PUT", "/_matrix/client/v1/admin"+testserver.Path(action, u.ID), testserver.JSON{flag: on})
	}
	locked, suspended := s.Register("locked"), s.Register("suspended")
	for _, u := range []*testserver.User{locked, suspended} {
		alice.Invite(room, u.ID)
		u.Join(room)
	}
	moderate("suspended", suspended, true)
	moderate("locked", locked, true)
	judged := map[string]bool{}
	for _, r := range Routes() {
		judged[r.OperationID] = true
		if r.Auth == NoAuth {
			continue
		}
		for _, path := range r.paths() {
			if slices.Contains(lockedMay, r.OperationID) {
				moderate("locked", locked, false)
				u := s.Login("locked")
				moderate("locked", locked, true)
				if status, text := p.call(t, s, r, path, "Bearer "+u.Token); status != http.StatusOK {
					t.Errorf("%s for a locked account: %d %s", r.OperationID, status, text)
				}
				if r.OperationID == "logout_all" {
					moderate("locked", locked, false)
					locked.Token = s.Login("locked").Token
					moderate("locked", locked, true)
				}
				continue
			}
			status, text := p.call(t, s, r, path, "Bearer "+locked.Token)
			if status != http.StatusUnauthorized || r.Method != http.MethodHead && !(strings.Contains(text, "M_USER_LOCKED") && strings.Contains(text, `"soft_logout":true`)) {
				t.Errorf("%s for a locked account: %d %s", r.OperationID, status, text)
			}
		}
		if r.Auth == Admin || r.Auth == Ticket {
			continue
		}
		u := suspended
		if rule := suspendedRules[r.OperationID]; rule == allowed {
			u = s.Login("suspended") // it may be the session's last
		}
		status, text := p.call(t, s, r, r.Path, "Bearer "+u.Token)
		refused := status == http.StatusForbidden && strings.Contains(text, "M_USER_SUSPENDED")
		if rule, named := suspendedRules[r.OperationID]; rule == partly {
			continue
		} else if want := !named && r.Method != get && r.Method != http.MethodHead || named && rule == forbidden; refused != want {
			t.Errorf("%s for a suspended account: %d %s", r.OperationID, status, text)
		}
		if r.OperationID == "logout_all" {
			suspended.Token = s.Login("suspended").Token
		}
	}
	for _, id := range []string{"joinRoom", "joinRoomById", "knockRoom", "inviteUser", "createRoom", "upgradeRoom", "setRoomStateWithKey", "setProfileField",
		"deleteProfileField", "kick", "ban", "unban", "uploadContent", "setRoomAlias", "setTyping", "setPresence"} {
		if !judged[id] || suspendedMay(id, post) {
			t.Errorf("%s has to be forbidden to suspended accounts", id)
		}
	}
}

// TestGuestCallers calls every route as a guest who is in no room.
func TestGuestCallers(t *testing.T) {
	proof.Of(t, "A01", "GU-01")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_REGISTRATION_GUESTS=true"}})
	p := newTarget(t, s, s.Register("alice"))
	token, _ := s.Nobody().Must("POST", "/register?kind=guest", testserver.JSON{}).Body["access_token"].(string)
	for _, r := range Routes() {
		if r.Auth == NoAuth {
			continue
		}
		status, text := p.call(t, s, r, r.Path, "Bearer "+token)
		refused := status == http.StatusForbidden && (r.Method == http.MethodHead || strings.Contains(text, "M_GUEST_ACCESS_FORBIDDEN"))
		switch {
		case !guestsMay[r.OperationID] && !refused:
			t.Errorf("%s for a guest: %d %s", r.OperationID, status, text)
		case guestsMay[r.OperationID] && status/100 == 2 && strings.Contains(text, "secret"):
			t.Errorf("%s tells a guest %s", r.OperationID, text)
		case guestsMay[r.OperationID] && status >= 500 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout:
			t.Errorf("%s for a guest: %d %s", r.OperationID, status, text)
		}
	}
}

// TestPreflights asks every route as a browser does before it sends a request from another page, and looks whether an
// answer may be read from there.
func TestPreflights(t *testing.T) {
	proof.Of(t, "CG-04")
	s := testserver.Start(t, testserver.Options{})
	alice := s.Register("alice")
	p := newTarget(t, s, alice)
	for _, r := range Routes() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.URL+p.path(t, r, r.Path), bytes.NewReader(p.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+alice.Token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if r.Page { // nobody's business but ours
			if res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Access-Control-Allow-Methods") != "" {
				t.Errorf("the preflight of %s is answered %d %v", r.OperationID, res.StatusCode, res.Header)
			}
			continue
		}
		methods, headers := res.Header.Get("Access-Control-Allow-Methods"), res.Header.Get("Access-Control-Allow-Headers")
		for _, want := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", r.Method} {
			if !strings.Contains(methods, want) {
				t.Errorf("%s allows the methods %q, not %s", r.OperationID, methods, want)
			}
		}
		for _, want := range []string{"X-Requested-With", "Content-Type", "Authorization"} {
			if !strings.Contains(headers, want) {
				t.Errorf("%s allows the headers %q", r.OperationID, headers)
			}
		}
		if res.StatusCode/100 != 2 || res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("the preflight of %s is answered %d %v", r.OperationID, res.StatusCode, res.Header)
		}
	}
	// None of that did anything: alice is still logged in, in her room, and has her name.
	alice.Must("GET", "/account/whoami", nil)
	if rooms := alice.Must("GET", "/joined_rooms", nil).Body["joined_rooms"].([]any); len(rooms) != 1 || rooms[0] != p.params["roomId"] {
		t.Errorf("alice is in %v", rooms)
	}
	if name := alice.Must("GET", testserver.Path("profile", alice.ID), nil).Body["displayname"]; name != "alice" {
		t.Errorf("alice is called %v", name)
	}
	for _, path := range []string{"/_matrix/client/v3/account/whoami", "/_matrix/client/v3/none"} {
		a, err := s.Nobody().Do("GET", path, nil)
		if err != nil || a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("the refusal at %s: %v %v", path, a, err)
		}
	}
}
