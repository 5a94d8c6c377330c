package clientapi_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// noPasswords are values in the place of a password that must not pass for one, in JSON: what stands for nothing, what
// other servers used inside as a mark, what a lenient decoder makes a text of, and what is nearly right.
func noPasswords() []string {
	values := []string{
		`null`, `""`, `[]`, `{}`, `true`, `false`, `0`, `1`, `-1`, `" "`, `"\u0000"`, `"null"`, `"undefined"`, `"*"`, `"!"`, `"x"`, `"%"`, `"' OR 1=1 --"`,
		`"$argon2id$v=19$m=8192,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"`, `"$argon2id$"`, `"\ufffd"`, `"\ufeff"`, `"\u202e"`, `"m.login.dummy"`,
		`["correct horse battery staple"]`, `{"password":"correct horse battery staple"}`, `{"$ne":""}`, `"correct horse battery staple "`, `" correct horse battery staple"`,
		`"correct horse battery staple\u0000"`, `"Correct horse battery staple"`, `"correct horse battery stapl"`, `"` + repeat("a", 513) + `"`, `"` + repeat("a", 100_000) + `"`,
		`"\ud800"`, `1e999`, `"unterminated`, `nul`,
	}
	seeded := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // noise that is the same each time
	for range 30 {
		noise := make([]byte, seeded.IntN(40))
		for i := range noise {
			noise[i] = byte(seeded.IntN(256))
		}
		values = append(values, `"`+string(noise)+`"`)
	}
	return values
}

// TestNothingPassesForAPassword puts them into every place where a password opens something. The changes that were asked
// for are not made.
func TestNothingPassesForAPassword(t *testing.T) {
	proof.Of(t, "A04")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice, bob := s.Register("alice"), s.Register("bob")
		gone := s.Register("gone")
		gone.Must("POST", "/account/deactivate", object{"auth": object{"type": "m.login.password", "user": "gone", "password": testserver.Password}})
		session, _ := try(t, alice, "POST", "/delete_devices", object{"devices": []string{alice.Device}}).Body["session"].(string)
		refused := func(u *testserver.User, path, body string) {
			t.Helper()
			a := try(t, u, "POST", path, []byte(body))
			if a.Status != 400 && a.Status != 401 && a.Status != 403 {
				t.Errorf("%s with %.200s: %d %s", path, body, a.Status, a.Raw)
			}
		}
		for _, value := range noPasswords() {
			for _, member := range []string{`"password":` + value, `"password":` + value + `,"user":"alice"`, `"user":"gone","password":` + value} {
				refused(alice, "/account/password", `{"new_password":"another password","auth":{"type":"m.login.password",`+member+`}}`)
			}
			refused(alice, "/delete_devices", `{"devices":["`+alice.Device+`"],"auth":{"type":"m.login.password","session":"`+session+`","password":`+value+`}}`)
			for _, name := range []string{"alice", "gone", "nobody"} {
				refused(s.Nobody(), "/login", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"`+name+`"},"password":`+value+`}`)
			}
		}
		right, _ := json.Marshal(testserver.Password)
		for _, auth := range []string{
			`null`, `{}`, `[]`, `""`, `true`, `{"type":"m.login.dummy"}`, `{"type":"m.login.password"}`, `{"type":""}`, `{"session":"` + session + `"}`, `{"type":"m.login.token","token":"x"}`,
			`{"type":"m.login.password","user":"bob","password":` + string(right) + `}`, `{"type":["m.login.password"],"password":` + string(right) + `}`,
		} {
			refused(alice, "/account/password", `{"new_password":"another password","auth":`+auth+`}`)
		}
		refused(bob, "/delete_devices", `{"devices":["`+alice.Device+`"],"auth":{"session":"`+session+`"}}`)
		s.Login("alice")
		alice.Must("GET", "/account/whoami", nil)
		alice.Must("POST", "/account/password", object{"new_password": "another password", "auth": object{"type": "m.login.password", "password": testserver.Password}})
	})
}

// TestTokensAreSecrets looks at tokens from outside and from inside the database: 256 bits that repeat nothing, kept as
// their hash only, taken from one good header, and worthless at once after a logout.
func TestTokensAreSecrets(t *testing.T) {
	proof.Of(t, "A05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice := s.Register("alice")
		tokens, ones := map[string]bool{}, 0
		for range 32 {
			token := s.Login("alice").Token
			random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "ccl_"))
			if err != nil || len(random) != 32 || tokens[token] {
				t.Fatalf("the token %q: %v", token, err)
			}
			tokens[token] = true
			for _, b := range random {
				for ; b > 0; b &= b - 1 {
					ones++
				}
			}
		}
		if ones < 3700 || ones > 4500 { // of 8192, within nine deviations
			t.Errorf("of 8192 random bits %d are set", ones)
		}
		hashed := false
		for where, text := range s.Kept() {
			for token := range tokens {
				if raw, _ := base64.RawURLEncoding.DecodeString(token[4:]); strings.Contains(text, token[4:]) || strings.Contains(text, string(raw)) {
					t.Errorf("a token stands in %s", where)
				}
				hash := sha256.Sum256([]byte(token))
				hashed = hashed || strings.Contains(text, string(hash[:])) || strings.Contains(text, hex.EncodeToString(hash[:]))
			}
		}
		if !hashed {
			t.Error("the test has gone blind: it does not find the hashes")
		}
		good := "Authorization: Bearer " + alice.Token
		for _, headers := range []string{
			"Authorization:", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: " + alice.Token, good + "\r\n" + good, good + "\r\nAuthorization: Bearer x",
			"Authorization: Bearer x\r\n" + good, good + ", Bearer " + alice.Token, good + " x", "Authorization: Basic " + alice.Token, "Cookie: access_token=" + alice.Token, "X-Access-Token: " + alice.Token,
		} {
			if got := byHand(t, s, "/whoami", headers); got != 401 {
				t.Errorf("%s: %d", strings.ReplaceAll(headers, alice.Token, "TOKEN"), got)
			}
		}
		for _, query := range []string{"access_token=", "access_token=x", "access_token=" + alice.Token + "&access_token=" + alice.Token, "token=" + alice.Token, "access_token[]=" + alice.Token} {
			if got := byHand(t, s, "/whoami?"+query, "X: y"); got != 401 {
				t.Errorf("%s: %d", query, got)
			}
		}
		if got := byHand(t, s, "/whoami", good); got != 200 {
			t.Errorf("the token itself: %d", got)
		}
		alice.Must("POST", "/logout", object{})
		if got := byHand(t, s, "/whoami", good); got != 401 {
			t.Errorf("after its end: %d", got)
		}
	})
}

// byHand writes a request below /account as it is, which no client of a library would, and returns the status.
func byHand(t *testing.T, s *testserver.Server, path, headers string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	if _, err := fmt.Fprintf(conn, "GET /_matrix/client/v3/account%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n", path, headers); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestPasswordsAreKeptNowhere registers, logs in, confirms and changes with passwords that are easily found again, right
// and wrong ones, and looks for them in everything that the server has written.
func TestPasswordsAreKeptNowhere(t *testing.T) {
	proof.Of(t, "A18")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		canary := func(n int) string { return fmt.Sprintf("canary-%d-of-the-mine", n) }
		nobody := s.Nobody()
		register := object{"username": "alice", "password": canary(1)}
		session, _ := try(t, nobody, "POST", "/register", register).Body["session"].(string)
		register["auth"] = object{"type": "m.login.dummy", "session": session}
		nobody.Must("POST", "/register", register)
		login := func(n int) *testserver.Answer {
			return try(t, nobody, "POST", "/login", object{"type": "m.login.password", "password": canary(n), "identifier": object{"type": "m.id.user", "user": "alice"}})
		}
		alice := s.Nobody()
		alice.Token, _ = login(1).Body["access_token"].(string)
		login(2) // wrong
		change := object{"new_password": canary(3)}
		session, _ = try(t, alice, "POST", "/account/password", change).Body["session"].(string)
		change["auth"] = object{"type": "m.login.password", "session": session, "password": canary(4)} // wrong
		try(t, alice, "POST", "/account/password", change)
		change["auth"] = object{"type": "m.login.password", "session": session, "password": canary(1)}
		alice.Must("POST", "/account/password", change)
		try(t, alice, "POST", "/account/deactivate", object{"auth": object{"type": "m.login.password", "password": canary(5)}})                                  // wrong
		try(t, alice, "GET", "/account/whoami?password="+canary(6), nil)                                                                                         // where it does not belong
		try(t, nobody, "POST", "/login", []byte(`{"type":"m.login.password","password":"`+canary(7)+`"`))                                                        // no JSON
		try(t, nobody, "POST", "/_synapse/admin/v1/register", object{"nonce": "x", "username": "bob", "password": canary(8), "mac": "00"})                       // refused
		try(t, nobody, "POST", "/login", object{"type": "m.login.password", "password": canary(9), "identifier": object{"type": "m.id.user", "user": "nobody"}}) // of nobody
		if a := login(3); a.Status != http.StatusOK {
			t.Fatalf("the new password: %d %s", a.Status, a.Raw)
		}
		found := func(kept map[string]string, secret string) (where []string) {
			for file, text := range kept {
				for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))[:20], escape(secret)} {
					if strings.Contains(text, form) {
						where = append(where, file)
					}
				}
			}
			return where
		}
		running := s.Kept()
		s.Stop()
		for _, kept := range []map[string]string{running, s.Kept()} {
			for n := range 10 {
				if where := found(kept, canary(n)); len(where) > 0 {
					t.Errorf("password %d stands in %q", n, where)
				}
			}
			if len(found(kept, "@alice:"+string(s.Name))) == 0 {
				t.Error("the test has gone blind: it does not even find the user")
			}
		}
	})
}
