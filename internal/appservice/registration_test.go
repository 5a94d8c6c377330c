package appservice

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// registration is a good file; each test changes one of its lines.
const registration = `id: irc
url: "http://127.0.0.1:9000/path/"
as_token: secret-of-the-service
hs_token: secret-of-the-server
sender_localpart: _irc_bot
namespaces:
  users:
    - {exclusive: true, regex: "@_irc_.*"}
  aliases:
    - {exclusive: false, regex: "#_irc_.*:example\\.org$"}
  rooms: []
protocols: [irc]
rate_limited: false
receive_ephemeral: true
org.example.extension: {anything: goes}
`

func write(t *testing.T, texts ...string) (paths []string) {
	for i, text := range texts {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// A registration says all that the specification has, and is found by its token.
func TestRegistration(t *testing.T) {
	proof.Of(t, "AP-01")
	all, err := Load(write(t, registration), "example.org")
	if err != nil {
		t.Fatal(err)
	}
	s := all.ByToken("secret-of-the-service")
	if s == nil || all.ByToken("secret-of-the-server") != nil || all.ByToken("") != nil || all.ByID("irc") != s || all.ByID("xmpp") != nil {
		t.Fatal("a service is found by its ID and its as_token, and by nothing else")
	}
	if s.Sender != "@_irc_bot:example.org" || s.url != "http://127.0.0.1:9000/path" || !s.Ephemeral || s.RateLimited || fmt.Sprint(s.Protocols) != "[irc]" {
		t.Errorf("read as %+v", s)
	}
	for user, may := range map[matrix.UserID]bool{
		"@_irc_a:example.org": true, "@_irc_bot:example.org": true, "@_irc_a:elsewhere.org": false, "@x_irc_a:example.org": false, "@alice:example.org": false,
	} {
		if all.MayBe(s, user) != may {
			t.Errorf("may it act as %s: %v", user, !may)
		}
	}
	if all.UserOwner("@_irc_bot:example.org", nil) != s || all.UserOwner("@_irc_a:example.org", s) != nil || all.UserOwner("@alice:example.org", nil) != nil {
		t.Error("its exclusive names are its own, and no others")
	}
	if !s.MayHave("#_irc_x:example.org") || s.MayHave("#_irc_x:example.org.evil") || all.AliasOwner("#_irc_x:example.org", nil) != nil {
		t.Error("a namespace that is not exclusive is its own too, though not alone")
	}
}

// What is wrong with a file is said with its name and line, without its secrets.
func TestWrongRegistrations(t *testing.T) {
	proof.Of(t, "AP-01")
	for _, test := range []struct{ old, new, want string }{
		{"id: irc", "id: ''", ":1: id must be a text"},
		{"id: irc\n", "", ":1: the key \"id\" is missing"},
		{"id: irc", "id: irc\nid: irc", ":2: the key \"id\" stands here twice"},
		{"id: irc", "id: irc\nidd: irc", ":2: unknown key \"idd\""},
		{`"http://127.0.0.1:9000/path/"`, "ftp://x", ":2: url must be"},
		{`"http://127.0.0.1:9000/path/"`, "http://a:secret@x", ":2: url must be"},
		{"as_token: secret-of-the-service", "as_token: 'a secret'", ":3: as_token must be"},
		{"hs_token: secret-of-the-server", "hs_token: null", ":4: hs_token must be"},
		{"sender_localpart: _irc_bot", "sender_localpart: IRC", "sender_localpart \"IRC\" cannot be"},
		{`"@_irc_.*"`, `"@(?!x)"`, ":8: the regex cannot be used"},
		{`"@_irc_.*"`, `"@(x{1000}){1000}"`, ":8: the regex cannot be used"},
		{`"@_irc_.*"`, strings.Repeat("a", 1025), ":8: regex must be a text"},
		{"exclusive: true, ", "", ":8: a namespace has a regex"},
		{"rate_limited: false", "rate_limited: 0", ":13: rate_limited must be true or false"},
		{"protocols: [irc]", "protocols: irc", ":12: protocols must be a list"},
		{registration, "", "EOF"},
		{registration, "[", "did not find"},
	} {
		paths := write(t, strings.Replace(registration, test.old, test.new, 1))
		_, err := Load(paths, "example.org")
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), paths[0]) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.60q: %v, want …%s", test.new, err, test.want)
		}
	}
	for what, second := range map[string]string{
		"id": strings.Replace(registration, "secret-of-the-service", "another", 1), "as_token": strings.Replace(registration, "id: irc", "id: xmpp", 1),
	} {
		if _, err := Load(write(t, registration, second), "example.org"); err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "secret") {
			t.Errorf("two services have the same %s: %v", what, err)
		}
	}
	if _, err := Load([]string{"/nowhere.yaml"}, "example.org"); err == nil {
		t.Error("a file that is not there was read")
	}
}
