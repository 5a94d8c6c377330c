package clientapi_test

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

const registrationTokens = "/_synapse/admin/v1/registration_tokens"

// registering is somebody who makes an account, stage by stage.
type registering struct {
	*testserver.User
	t       *testing.T
	body    object
	session string
	params  object
}

func begin(t *testing.T, s *testserver.Server, name string) *registering {
	t.Helper()
	g := &registering{User: s.Nobody(), t: t, body: object{"username": name, "password": testserver.Password}}
	g.auth(nil)
	return g
}

// auth makes the request with an auth member, in the session if there is one.
func (g *registering) auth(auth object) *testserver.Answer {
	g.t.Helper()
	body := object{}
	for k, v := range g.body {
		body[k] = v
	}
	if auth != nil {
		auth["session"] = g.session
		body["auth"] = auth
	}
	a := try(g.t, g.User, "POST", "/register", body)
	if id, ok := a.Body["session"].(string); ok {
		g.session = id
		g.params, _ = a.Body["params"].(object)
	}
	return a
}

// want compares an answer.
func want(t *testing.T, what string, a *testserver.Answer, status int, code string) {
	t.Helper()
	if got, _ := a.Body["errcode"].(string); a.Status != status || got != code {
		t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
	}
}

func withRegistration(engine, mode string, env ...string) testserver.Options {
	return testserver.Options{Engine: engine, Env: append([]string{"CONCLAVE_REGISTRATION_MODE=" + mode}, env...)}
}

// TestRegistrationByToken makes accounts by invitation, in each state that an invitation can be in.
func TestRegistrationByToken(t *testing.T) {
	proof.Of(t, "AN-05", "AN-10", "AN-12")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "token"))
		admin := s.RegisterAdmin("boss")
		const validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
		valid := func(token string) any { return s.Nobody().Must("GET", validity+token, nil).Body["valid"] }

		made := admin.Must("POST", registrationTokens+"/new", object{"uses_allowed": 2, "note": "for the choir"}).Body
		token, _ := made["token"].(string)
		if link := s.URL + "/#/register?token=" + token; len(token) != 16 || made["link"] != link || made["created_by"] != admin.ID ||
			made["pending"] != 0.0 || made["completed"] != 0.0 || made["expiry_time"] != nil || made["note"] != "for the choir" {
			t.Errorf("made %v", made)
		}
		if valid(token) != true || valid("none") != false || valid(strings.Repeat("x", 65)) != false || valid("a%2Fb") != false {
			t.Error("what is told of tokens is not right")
		}
		alice := begin(t, s, "alice")
		if alice.params["im.conclave.approval"] != nil {
			t.Errorf("who is invited needs no approval: %v", alice.params)
		}
		want(t, "without the stage", alice.auth(object{"type": "m.login.dummy"}), 401, "M_INVALID_PARAM")
		want(t, "an unknown token", alice.auth(object{"type": "m.login.registration_token", "token": "unknown"}), 401, "M_FORBIDDEN")
		if a := alice.auth(object{"type": "m.login.registration_token", "token": token}); a.Status != 200 || a.Body["user_id"] != "@alice:"+string(s.Name) {
			t.Fatalf("the token: %d %s", a.Status, a.Raw)
		}
		if now := admin.Must("GET", registrationTokens+"/"+token, nil).Body; now["completed"] != 1.0 || now["uses_allowed"] != 2.0 {
			t.Errorf("after one use: %v", now)
		}

		// Who is here already, only the invited learn (threats A08).
		want(t, "a name that somebody has", try(t, s.Nobody(), "POST", "/register", object{"username": "alice"}), 401, "")
		if a := try(t, s.Nobody(), "GET", "/register/available?username=alice", nil); a.Status != 200 {
			t.Errorf("availability: %d %s", a.Status, a.Raw)
		}
		again := begin(t, s, "alice")
		want(t, "a taken name", again.auth(object{"type": "m.login.registration_token", "token": token}), 400, "M_USER_IN_USE")
		if a := begin(t, s, "").auth(object{"type": "m.login.registration_token", "token": token}); a.Status != 200 {
			t.Errorf("the second use: %d %s", a.Status, a.Raw)
		}
		want(t, "a third use", begin(t, s, "carol").auth(object{"type": "m.login.registration_token", "token": token}), 401, "M_FORBIDDEN")
		if valid(token) != false {
			t.Error("a token that is used up is valid")
		}

		admin.Must("PUT", registrationTokens+"/"+token, object{"uses_allowed": nil})
		if valid(token) != true {
			t.Error("a token without bounds is not valid")
		}
		admin.Must("PUT", registrationTokens+"/"+token, object{"expiry_time": 4_000_000_000_000, "uses_allowed": 3})
		list := admin.Must("GET", registrationTokens+"?valid=true", nil).Body["registration_tokens"].([]any)
		if len(list) != 1 || list[0].(object)["expiry_time"] != 4e12 || list[0].(object)["note"] != "for the choir" {
			t.Errorf("the list: %v", list)
		}
		admin.Must("DELETE", registrationTokens+"/"+token, nil)
		admin.Refused(404, "M_NOT_FOUND", "GET", registrationTokens+"/"+token, nil)
		admin.Refused(404, "M_NOT_FOUND", "DELETE", registrationTokens+"/"+token, nil)
		for name, body := range map[string]object{
			"an empty token": {"token": ""}, "letters that are none": {"token": "a b"}, "too long": {"token": strings.Repeat("a", 65)}, "no length": {"length": 0},
			"the past": {"expiry_time": 1}, "less than none": {"uses_allowed": -1}, "half a use": {"uses_allowed": 0.5}, "no domain": {"email_domain": "a@b"},
			"a long note": {"note": strings.Repeat("a", 1001)},
		} {
			a := try(t, admin, "POST", registrationTokens+"/new", body)
			if a.Status != 400 {
				t.Errorf("%s: %d %s", name, a.Status, a.Raw)
			}
		}
		admin.Must("POST", registrationTokens+"/new", object{"token": "once", "email_domain": "Example.ORG"})
		admin.Refused(400, "M_INVALID_PARAM", "POST", registrationTokens+"/new", object{"token": "once"})
		if a := begin(t, s, "dora").auth(object{"type": "m.login.registration_token", "token": "once"}); a.Status != 401 || a.Body["errcode"] != "M_THREEPID_MEDIUM_NOT_SUPPORTED" {
			t.Errorf("a token that asks for an address, where none can be confirmed: %d %s", a.Status, a.Raw)
		}
	})
}

// TestOneUseMakesOneAccount has a hundred people use an invitation for one at the same time (threats A11).
func TestOneUseMakesOneAccount(t *testing.T) {
	proof.Of(t, "A11")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "token"))
		admin := s.RegisterAdmin("boss")
		admin.Must("POST", registrationTokens+"/new", object{"token": "for-one", "uses_allowed": 1})
		const people = 100
		var made atomic.Int64
		var wg sync.WaitGroup
		for i := range people {
			wg.Go(func() {
				a, err := s.Nobody().Do("POST", "/register", object{
					"username": fmt.Sprintf("user%d", i), "password": testserver.Password, "auth": object{"type": "m.login.registration_token", "token": "for-one"},
				})
				switch {
				case err != nil:
					t.Error(err)
				case a.Status == http.StatusOK:
					made.Add(1)
				case a.Body["errcode"] != "M_FORBIDDEN" && a.Body["errcode"] != "M_LIMIT_EXCEEDED":
					t.Errorf("%d %s", a.Status, a.Raw)
				}
			})
		}
		wg.Wait()
		now := admin.Must("GET", registrationTokens+"/for-one", nil).Body
		total := admin.Must("GET", "/_synapse/admin/v2/users", nil).Body["total"]
		if made.Load() != 1 || now["completed"] != 1.0 || total != 2.0 {
			t.Errorf("%d accounts were made; the token says %v, and there are %v accounts", made.Load(), now, total)
		}
	})
}

// TestRegistrationByApproval asks for accounts and has them approved and denied.
func TestRegistrationByApproval(t *testing.T) {
	proof.Of(t, "AN-12", "A08")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "approval"))
		admin := s.RegisterAdmin("boss")
		const requests = "/_synapse/admin/v1/registration_requests"
		ask := func(name string) *testserver.Answer {
			g := begin(t, s, name)
			if said, _ := g.params["im.conclave.approval"].(object); said["max_reason_bytes"] != 1000.0 {
				t.Errorf("clients are not told that somebody reads a reason: %v", g.params)
			}
			g.body["im.conclave.reason"] = "I sing alto"
			return g.auth(object{"type": "m.login.dummy"})
		}
		login := func(name, password string) *testserver.Answer {
			return try(t, s.Nobody(), "POST", "/login", object{"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.user", "user": name}})
		}
		for _, name := range []string{"alice", "bob", "carol"} {
			if a := ask(name); a.Status != 403 || a.Body["im.conclave.awaiting_approval"] != true || a.Body["access_token"] != nil {
				t.Fatalf("asking for %s: %d %s", name, a.Status, a.Raw)
			}
		}
		want(t, "a name that somebody waits for", ask("alice"), 400, "M_USER_IN_USE")
		if a := login("alice", testserver.Password); a.Status != 403 || a.Body["im.conclave.awaiting_approval"] != true {
			t.Errorf("whoever waits is told %d %s", a.Status, a.Raw)
		}
		if a, b := login("alice", "a wrong password"), login("nobody", "a wrong password"); a.Status != 403 || string(a.Raw) != string(b.Raw) {
			t.Errorf("others are told %s of who waits and %s of who does not exist", a.Raw, b.Raw)
		}
		page := admin.Must("GET", requests+"?limit=2", nil).Body
		list := page["requests"].([]any)
		if len(list) != 2 || page["total"] != 3.0 || list[0].(object)["user_id"] != "@alice:"+string(s.Name) || list[0].(object)["reason"] != "I sing alto" {
			t.Fatalf("the queue: %v", page)
		}
		rest := admin.Must("GET", fmt.Sprintf("%s?from=%s", requests, page["next_token"]), nil).Body["requests"].([]any)
		if len(rest) != 1 || rest[0].(object)["localpart"] != "carol" {
			t.Errorf("the rest of the queue: %v", rest)
		}
		admin.Must("POST", requests+"/alice/approve", object{})
		admin.Refused(404, "M_NOT_FOUND", "POST", requests+"/alice/approve", object{})
		admin.Must("POST", requests+"/bob/deny", object{"reason": "unknown to us"})
		admin.Refused(404, "M_NOT_FOUND", "POST", requests+"/dora/deny", object{})
		s.Login("alice")
		if a := login("bob", testserver.Password); a.Status != 403 || a.Body["im.conclave.awaiting_approval"] != nil {
			t.Errorf("who was denied is told %d %s", a.Status, a.Raw)
		}
		if a := ask("bob"); a.Status != 403 || a.Body["im.conclave.awaiting_approval"] != true {
			t.Errorf("the name of who was denied: %d %s", a.Status, a.Raw)
		}
		if got := events(t, admin, "user_id=@bob:"+string(s.Name)); strings.Join(got, " ") != "registration.requested registration.denied registration.requested" {
			t.Errorf("bob's entries in the audit log: %q", got)
		}
		told := admin.Sync("", 0)
		if invited, _ := testserver.At(told, "rooms", "invite").(object); len(invited) != 1 {
			t.Errorf("the administrator has the invitations %v, and should have that of the notices", invited)
		}
	})
}

// events are the names of entries of the audit log, the oldest first.
func events(t *testing.T, admin *testserver.User, query string) (names []string) {
	t.Helper()
	for _, e := range admin.Must("GET", "/_synapse/admin/v1/audit_log?"+query, nil).Body["entries"].([]any) {
		names = append([]string{e.(object)["event"].(string)}, names...)
	}
	return names
}

// solve does the work of a session.
func solve(params object) string {
	work, _ := params["im.conclave.login.pow"].(object)
	seed, _ := work["seed"].(string)
	difficulty, _ := work["difficulty"].(float64)
	for n := 0; ; n++ {
		nonce := fmt.Sprint(n)
		zeros := 0
		for _, b := range sha256.Sum256([]byte(seed + nonce)) {
			zeros += bits.LeadingZeros8(b)
			if b != 0 {
				break
			}
		}
		if zeros >= int(difficulty) {
			return nonce
		}
	}
}

// TestProofOfWork makes accounts where each costs some work, which counts once and for one session.
func TestProofOfWork(t *testing.T) {
	proof.Of(t, "AN-05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "open", "CONCLAVE_REGISTRATION_CHALLENGE=pow"))
		const stage = "im.conclave.login.pow"
		alice, bob := begin(t, s, "alice"), begin(t, s, "bob")
		want(t, "no work", alice.auth(object{"type": stage}), 401, "M_FORBIDDEN")
		want(t, "another stage", alice.auth(object{"type": "m.login.dummy"}), 401, "M_INVALID_PARAM")
		nonce := solve(alice.params)
		want(t, "somebody else's work", bob.auth(object{"type": stage, "nonce": nonce}), 401, "M_FORBIDDEN")
		want(t, "work of before the session", begin(t, s, "carol").auth(object{"type": stage, "nonce": nonce}), 401, "M_FORBIDDEN")
		alice.body["device_id"] = strings.Repeat("x", 300)
		want(t, "a device that cannot be", alice.auth(object{"type": stage, "nonce": nonce}), 400, "M_INVALID_PARAM")
		delete(alice.body, "device_id") // and the work still counts
		if a := alice.auth(object{"type": stage, "nonce": nonce}); a.Status != 200 {
			t.Errorf("the work: %d %s", a.Status, a.Raw)
		}
		want(t, "the same work again", alice.auth(object{"type": stage, "nonce": nonce}), 400, "M_USER_IN_USE")
		alice.body["username"] = "alice2"
		want(t, "the same work for another name", alice.auth(object{"type": stage, "nonce": nonce}), 401, "")
		difficulty := func() float64 {
			return begin(t, s, "dora").params[stage].(object)["difficulty"].(float64)
		}
		before := difficulty()
		for i := range 10 {
			s.RegisterAdmin(fmt.Sprintf("admin%d", i))
		}
		if after := difficulty(); after <= before {
			t.Errorf("after ten more accounts the difficulty is %v, and was %v", after, before)
		}
	})
}

// TestTermsAndNames makes accounts on a server with documents to agree to and names that nobody may choose.
func TestTermsAndNames(t *testing.T) {
	proof.Of(t, "AN-05", "AN-11", "AN-12")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, withRegistration(engine, "open", "CONCLAVE_REGISTRATION_USERNAME_MIN_LENGTH=3", "CONCLAVE_REGISTRATION_USERNAME_RESERVED=admin,conclave.*",
			"CONCLAVE_REGISTRATION_TERMS=privacy 1.2 en https://a.example/p Privacy policy,privacy 1.2 de https://a.example/d Datenschutz,house 3 en https://a.example/h House rules"))
		for name, code := range map[string]string{
			"al": "M_INVALID_USERNAME", "Not A Name": "M_INVALID_USERNAME", "admin": "M_EXCLUSIVE", "conclave-team": "M_EXCLUSIVE", "server-notices": "M_EXCLUSIVE",
		} {
			want(t, name, try(t, s.Nobody(), "POST", "/register", object{"username": name}), 400, code)
			if name != "Not A Name" {
				want(t, name+" by availability", try(t, s.Nobody(), "GET", "/register/available?username="+name, nil), 400, code)
			}
		}
		want(t, "documents that were not shown", try(t, s.Nobody(), "POST", "/register", object{
			"username": "alice", "password": testserver.Password, "auth": object{"type": "m.login.terms"},
		}), 401, "M_FORBIDDEN")
		alice := begin(t, s, "alice")
		policies, _ := testserver.At(alice.params, "m.login.terms", "policies").(object)
		privacy, _ := policies["privacy"].(object)
		if len(policies) != 2 || privacy["version"] != "1.2" || testserver.At(privacy, "de", "name") != "Datenschutz" || testserver.At(privacy, "en", "url") != "https://a.example/p" {
			t.Errorf("the documents: %v", policies)
		}
		if a := alice.auth(object{"type": "m.login.terms"}); a.Status != 200 {
			t.Fatalf("agreeing: %d %s", a.Status, a.Raw)
		}
		kept := false
		for _, text := range s.Kept() {
			kept = kept || strings.Contains(text, "privacy") && strings.Contains(text, "1.2")
		}
		if !kept {
			t.Error("what alice has agreed to is kept nowhere")
		}
		s.RegisterAdmin("admin") // whoever has the secret may
	})
}
