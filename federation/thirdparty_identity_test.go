package federation

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

const identityRoot = "/_matrix/identity/v2"

// says makes an identity server answer a path of its API in one way.
func says(id *peer.IdentityServer, method, path string, reply peer.Reply) {
	id.Handle(method, identityRoot+path, func(*peer.Call) peer.Reply { return reply })
}

func refusal(err error) (status int, code string) {
	var e *matrix.Error
	if errors.As(err, &e) {
		return e.Status, e.Code
	}
	return 0, fmt.Sprint(err)
}

// TestIdentityServersThatLie asks identity servers that answer what they should not: none of it gets further, nothing
// inside is reached, and no client believes that it is logged out here.
func TestIdentityServersThatLie(t *testing.T) {
	proof.Of(t, "RM-10", "O02")
	ca := peer.NewCA(t)
	port, reached := canary(t)
	inside := peer.Reply{Status: 307, Header: map[string]string{"Location": fmt.Sprintf("https://127.0.0.1:%d/", port)}}
	huge := peer.Reply{Body: []byte(`{"mappings":{},"x":"` + strings.Repeat("x", 100<<10) + `"}`)}
	s := identities(ca, nil, onLoopback)
	address, err := rooms.ParseAddress("email", "x@example.com")
	if err != nil {
		t.Fatal(err)
	}
	id := peer.NewIdentityServer(t, ca)
	by := rooms.IdentityService{Server: id.Name, Token: id.Token}
	lookup := func(what string, status int, code string) {
		t.Helper()
		user, err := s.Lookup(t.Context(), by, address)
		if gotStatus, gotCode := refusal(err); gotStatus != status || gotCode != code || user != "" {
			t.Errorf("looked up with %s: %q, %v; want %d %s", what, user, err, status, code)
		}
	}
	for what, reply := range map[string]peer.Reply{
		"a redirect inside": inside, "a huge answer": huge, "a list": {Body: []byte("[]")}, "no JSON": {Body: []byte("<html>")}, "trouble": peer.Refuse(500, "M_UNKNOWN"),
		"no algorithm": {Body: []byte(`{"lookup_pepper":"p","algorithms":[]}`)}, "another algorithm": {Body: []byte(`{"lookup_pepper":"p","algorithms":["md5"]}`)},
		"a large pepper": {Body: []byte(`{"lookup_pepper":"` + strings.Repeat("p", 300) + `","algorithms":["sha256"]}`)},
	} {
		says(id, "GET", "/hash_details", reply)
		lookup(what, 502, "M_UNKNOWN")
	}
	for what, c := range map[string]struct {
		reply  peer.Reply
		status int
		code   string
	}{
		"a token that it does not take": {peer.Refuse(401, "M_UNKNOWN_TOKEN"), 403, "M_FORBIDDEN"},
		"terms":                         {peer.Refuse(403, "M_TERMS_NOT_SIGNED"), 403, "M_TERMS_NOT_SIGNED"},
		"too many questions":            {peer.Refuse(429, "M_LIMIT_EXCEEDED"), 429, "M_LIMIT_EXCEEDED"},
	} {
		says(id, "GET", "/hash_details", c.reply)
		lookup(what, c.status, c.code)
	}
	says(id, "GET", "/hash_details", peer.Reply{Body: []byte(`{"lookup_pepper":"matrixrocks","algorithms":["none","sha256"]}`)})
	hash := "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc" // of alice@example.com, by the specification
	if address, err = rooms.ParseAddress("email", "Alice@Example.COM"); err != nil {
		t.Fatal(err)
	}
	says(id, "POST", "/lookup", peer.Reply{Body: map[string]any{"mappings": map[string]string{hash: "nobody"}}})
	lookup("a user that is none", 502, "M_UNKNOWN")
	says(id, "POST", "/lookup", peer.Reply{Body: map[string]any{"mappings": map[string]string{"another": "@mallory:x.test"}}})
	if user, err := s.Lookup(t.Context(), by, address); user != "" || err != nil {
		t.Errorf("told of what was not asked: %q, %v", user, err)
	}
	says(id, "POST", "/lookup", peer.Reply{Body: map[string]any{"mappings": map[string]string{hash: "@alice:x.test"}}})
	if user, err := s.Lookup(t.Context(), by, address); user != "@alice:x.test" || err != nil {
		t.Errorf("looked up: %q, %v", user, err)
	}
	says(id, "POST", "/lookup", peer.Refuse(400, "M_INVALID_PEPPER"))
	asked := len(id.Calls(identityRoot + "/lookup"))
	lookup("a pepper that changes all the time", 400, "M_INVALID_PARAM")
	if n := len(id.Calls(identityRoot+"/lookup")) - asked; n != 2 {
		t.Errorf("asked %d times although the pepper changes all the time, want twice", n)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
}

// TestOffersThatLie has identity servers answer invitations with what must not get into a room.
func TestOffersThatLie(t *testing.T) {
	proof.Of(t, "RM-10")
	ca := peer.NewCA(t)
	s := identities(ca, NewPolicy(nil, []string{"denied.test"}), onLoopback)
	address, err := rooms.ParseAddress("email", "straße@example.com")
	if err != nil {
		t.Fatal(err)
	}
	id := peer.NewIdentityServer(t, ca)
	q := rooms.StoredInvite{Address: address, Room: "!r:us.test", Sender: "@alice:us.test"}
	by := rooms.IdentityService{Server: id.Name, Token: id.Token}
	offered := func(change func(o, key map[string]any)) error {
		o := id.Offer("token")
		keys, _ := o["public_keys"].([]any)
		key, _ := keys[1].(map[string]any)
		change(o, key)
		says(id, "POST", "/store-invite", peer.Reply{Body: o})
		_, err := s.StoreInvite(t.Context(), by, q)
		return err
	}
	set := func(name string, value any) func(o, key map[string]any) {
		return func(o, _ map[string]any) { o[name] = value }
	}
	key := func(name string, value any) func(o, key map[string]any) {
		return func(_, key map[string]any) { key[name] = value }
	}
	for what, change := range map[string]func(o, key map[string]any){
		"no token": set("token", ""), "a token with a slash": set("token", "a/b"), "a long token": set("token", strings.Repeat("t", 256)), "a number": set("token", 7),
		"the address": set("display_name", "STRASSE@example.com"), "the address within": set("display_name", "to strasse@example.com!"), "the address unfolded": set("display_name", "Straße@Example.com"),
		"a long name": set("display_name", strings.Repeat("n", 300)), "no keys": set("public_keys", []any{}), "eleven keys": set("public_keys", make([]any, 11)),
		"a key of two bytes": key("public_key", "AAA"), "a key of small order": key("public_key", strings.Repeat("A", 43)), "no base64": key("public_key", "%"),
		"a key at http": key("key_validity_url", "http://id.test/"), "a key nowhere": key("key_validity_url", ""), "a key at a file": key("key_validity_url", "file:///etc/passwd"),
		"a key behind a password": key("key_validity_url", "https://a:b@id.test/"), "a key at no server's name": key("key_validity_url", "https://a b/"),
	} {
		if status, code := refusal(offered(change)); status != 502 || code != "M_UNKNOWN" {
			t.Errorf("an offer with %s: %d %s", what, status, code)
		}
	}
	if status, code := refusal(offered(key("key_validity_url", "https://denied.test/x"))); status != 403 || code != "M_SERVER_NOT_TRUSTED" {
		t.Errorf("an offer with a key at a server that the operator denies: %d %s", status, code)
	}
	if err := offered(func(map[string]any, map[string]any) {}); err != nil {
		t.Errorf("an offer as it should be: %v", err)
	}
	says(id, "POST", "/store-invite", peer.Refuse(400, "M_THREEPID_IN_USE"))
	if _, err := s.StoreInvite(t.Context(), by, q); err == nil {
		t.Error("an address that was bound meanwhile was invited")
	}
	by.Server = "denied.test"
	if status, code := refusal(func() error { _, err := s.StoreInvite(t.Context(), by, q); return err }()); status != 403 || code != "M_SERVER_NOT_TRUSTED" {
		t.Errorf("an identity server that the operator denies: %d %s", status, code)
	}
}

// TestIdentityServersThatBind has identity servers publish and forget addresses: what they say of others is not believed,
// their refusals are passed on, and none of them reads as a word about the client's session here.
func TestIdentityServersThatBind(t *testing.T) {
	proof.Of(t, "AN-16")
	ca := peer.NewCA(t)
	s := identities(ca, nil, onLoopback)
	s.own = testIdentity(t)
	id := peer.NewIdentityServer(t, ca)
	id.Trust(s.own.Name(), s.own.Key().ID, s.own.Key().Public())
	const user = "@alice:us.test"
	for what, c := range map[string]struct {
		reply  peer.Reply
		status int
		code   string
	}{
		"as asked":         {peer.Reply{Body: map[string]any{"medium": "email", "address": "Alice@A.test", "mxid": user}}, 0, "<nil>"},
		"somebody else":    {peer.Reply{Body: map[string]any{"medium": "email", "address": "a@a.test", "mxid": "@bob:us.test"}}, 502, "M_UNKNOWN"},
		"no address":       {peer.Reply{Body: map[string]any{"medium": "email", "address": "a", "mxid": user}}, 502, "M_UNKNOWN"},
		"not confirmed":    {peer.Refuse(400, "M_SESSION_NOT_VALIDATED"), 400, "M_SESSION_NOT_VALIDATED"},
		"unknown":          {peer.Refuse(404, "M_NO_VALID_SESSION"), 404, "M_NO_VALID_SESSION"},
		"terms":            {peer.Refuse(403, "M_TERMS_NOT_SIGNED"), 403, "M_TERMS_NOT_SIGNED"},
		"an unknown token": {peer.Refuse(401, "M_UNKNOWN_TOKEN"), 403, "M_FORBIDDEN"},
		"a strange code":   {peer.Refuse(400, "<script>"), 400, "M_INVALID_PARAM"},
		"trouble":          {peer.Refuse(500, "M_SESSION_NOT_VALIDATED"), 502, "M_UNKNOWN"},
	} {
		says(id, "POST", "/3pid/bind", c.reply)
		_, address, err := s.Bind(t.Context(), id.Name, id.Token, "sid", "secret", user)
		if status, code := refusal(err); status != c.status || code != c.code || err == nil && address != "alice@a.test" {
			t.Errorf("%s: %q %v", what, address, err)
		}
	}
	for what, c := range map[string]struct {
		reply     peer.Reply
		supported bool
		code      string
	}{
		"as asked": {peer.Reply{Body: map[string]any{}}, true, "<nil>"}, "not done": {peer.Reply{Status: 400, Body: []byte("no")}, false, "<nil>"},
		"no endpoint": {peer.Refuse(404, "M_UNRECOGNIZED"), false, "<nil>"}, "not implemented": {peer.Refuse(501, "M_UNKNOWN"), false, "<nil>"},
		"refused": {peer.Refuse(403, "M_FORBIDDEN"), false, "M_FORBIDDEN"}, "trouble": {peer.Refuse(500, "M_UNKNOWN"), false, "M_UNKNOWN"},
	} {
		id.Handle("POST", identityRoot+"/3pid/unbind", func(call *peer.Call) peer.Reply {
			if call.Origin != s.own.Name() {
				t.Errorf("%s: the request is not signed: %v", what, call.Header)
			}
			return c.reply
		})
		supported, err := s.Unbind(t.Context(), id.Name, user, "email", "alice@a.test")
		if _, code := refusal(err); supported != c.supported || code != c.code {
			t.Errorf("%s: %v %v", what, supported, err)
		}
	}
}
