package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// load writes a file and loads it with an environment.
func load(t *testing.T, text string, environ ...string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, environ)
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	c, err := load(t, "server_name: example.org\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"client", c.Listen.Client, "127.0.0.1:8008"}, {"federation", c.Listen.Federation, "127.0.0.1:8448"}, {"admin", c.Listen.Admin, "127.0.0.1:8009"},
		{"database", c.Database.URL.Reveal(), "sqlite:conclave.db"}, {"mode", c.Registration.Mode, "closed"}, {"challenge", c.Registration.Challenge, "none"},
		{"memory", c.Auth.Argon2.MemoryKiB, 65536}, {"time", c.Auth.Argon2.Time, 2}, {"threads", c.Auth.Argon2.Threads, 1},
		{"tls client", c.TLS.Client, false}, {"tls federation", c.TLS.Federation, true}, {"upload", c.Media.MaxUploadBytes, int64(104857600)},
		{"resumable", c.Media.MaxResumableBytes, int64(10737418240)}, {"presence", c.Presence.Enabled, true}, {"limits", c.RateLimits.Enabled, true},
		{"previews", c.URLPreviews.Enabled, false}, {"level", c.Log.Level, "info"}, {"format", c.Log.Format, "text"},
		{"public", c.PublicURL, "https://example.org"}, {"data", filepath.Base(c.DataDir), "data"}, {"warnings", len(c.Warnings()), 0},
	} {
		if check.got != check.want {
			t.Errorf("%s is %v, want %v", check.what, check.got, check.want)
		}
	}
}

func TestFileAndEnvironment(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, `
server_name: a.example
tls: {client: true, federation: false}
trusted_proxies: [10.1.2.3/8, "::1/128"]
network: {allow_private: []}
registration:
    mode: open
    shared_secret_file: `+secret+`
federation: {deny: [bad.example]}
log:
`, "CONCLAVE_SERVER_NAME=b.example:8448", "CONCLAVE_NETWORK_ALLOW_PRIVATE=127.0.0.0/8, ::1/128", "CONCLAVE_DATABASE_URL=postgres://u:p@h/d",
		"CONCLAVE_AUTH_ARGON2_TIME=3", "CONCLAVE_PRESENCE_ENABLED=false", "CONCLAVE_AUTH_ARGON2_THREADS=", "CONCLAVE_TLS_CLIENT=", "PATH=/bin", "CONCLAVE_SERVICE_HOST=10.0.0.1", "CONCLAVE_DATABASE_URI=x",
		"CONCLAVE_URL_PREVIEWS_ENABLED=true", "CONCLAVE_URL_PREVIEWS_PORTS=8080,8443", "CONCLAVE_URL_PREVIEWS_ALLOW_PRIVATE=10.1.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "b.example:8448" || !c.TLS.Client || c.TLS.Federation || c.Auth.Argon2.Time != 3 || c.Presence.Enabled {
		t.Errorf("not what was written: %+v", c)
	}
	if len(c.TrustedProxies) != 2 || c.TrustedProxies[0].String() != "10.0.0.0/8" || len(c.Network.AllowPrivate) != 2 {
		t.Errorf("lists: %v %v", c.TrustedProxies, c.Network.AllowPrivate)
	}
	if c.Registration.SharedSecret.Reveal() != "from a file" || c.Database.URL.Reveal() != "postgres://u:p@h/d" {
		t.Error("secrets were not read")
	}
	if p := c.URLPreviews; !p.Enabled || len(p.Ports) != 2 || len(p.AllowPrivate) != 1 {
		t.Errorf("previews: %+v", p)
	}
	if w := c.Warnings(); len(w) != 2 || !strings.Contains(w[0], "CONCLAVE_DATABASE_URI") || !strings.Contains(w[1], "everybody with an account") {
		t.Errorf("warnings: %q", w)
	}
}

func TestWarnsOfOpenRegistrationBeyondLoopback(t *testing.T) {
	c, err := load(t, "server_name: a.example\nregistration: {mode: open}\nlisten: {client: \":8008\"}\n")
	if err != nil || len(c.Warnings()) != 1 || !strings.Contains(c.Warnings()[0], "registration is open") {
		t.Errorf("%v, %v", c, err)
	}
}

// Each row is one mistake; the error must be one line that names the place and says what to do.
func TestErrors(t *testing.T) {
	for _, test := range []struct{ text, env, want string }{
		{"server_name: a.example\nserver_nam: b\n", "", `config.yaml:2: unknown key "server_nam" at the top level; known are server_name`},
		{"server_name: a.example\ndatabase:\n  uri: x\n", "", `config.yaml:3: unknown key "uri" in database; known are url`},
		{"server_name: a\nserver_name: b\n", "", `config.yaml:2: the key "server_name" stands here twice`},
		{"server_name: a\ntls:\n  client: perhaps\n", "", `config.yaml:3: tls.client must be true or false`},
		{"server_name: a\nauth: {argon2: {time: many}}\n", "", `config.yaml:2: auth.argon2.time must be a whole number`},
		{"server_name: a\ntrusted_proxies: 10.0.0.1\n", "", `config.yaml:2: trusted_proxies must be a list`},
		{"server_name: a\ntrusted_proxies: [10.0.0.1]\n", "", `config.yaml:2: trusted_proxies: "10.0.0.1" is not a CIDR`},
		{"server_name: a\nlisten: 8008\n", "", `config.yaml:2: listen must hold keys`},
		{"server_name: [a]\n", "", `config.yaml:1: server_name must be a single value`},
		{"- a\n", "", `config.yaml:1: the file must hold keys and values`},
		{"server_name: &x a\n", "", `config.yaml:1: YAML anchors`},
		{"a: b\nc: d: e\n", "", "config.yaml: line 2"},
		{"server_name: a\n---\nserver_name: b\n", "", "only one YAML document"},
		{"", "", "server_name: it is missing; write"},
		{"server_name: https://a.example\n", "", "config.yaml:1: server_name: \"https://a.example\" must be a host name"},
		{"server_name: A.example\n", "", "must be in lower case"},
		{"server_name: \"a:b\"\n", "", "is not host or host:port"},
		{"server_name: a\npublic_url: a.example\n", "", "config.yaml:2: public_url: \"a.example\" must be https://host"},
		{"server_name: a\nlisten: {client: \"8008\"}\n", "", "config.yaml:2: listen.client: \"8008\" must be host:port"},
		{"server_name: a\nlisten: {admin: \"127.0.0.1:8008\"}\n", "", "listen.admin: it must not share"},
		{"server_name: a\nlisten: {federation: \"127.0.0.1:8008\"}\n", "", "tls.client and tls.federation must be equal"},
		{"server_name: a\ntls: {cert_file: a.pem}\n", "", "cert_file and key_file belong together"},
		{"server_name: a\nfederation: {ca_file: none.pem}\n", "", "config.yaml:2: federation.ca_file: cannot read it"},
		{"server_name: a\ndatabase: {url: \"mysql://x:hidden@y\"}\n", "", "config.yaml:2: database.url: it must begin with sqlite: or postgres://"},
		{"server_name: a\ndatabase: {url: x, url_file: y}\n", "", "config.yaml:2: database.url and database.url_file exclude each other"},
		{"server_name: a\ndatabase: {url_file: nowhere}\n", "", "config.yaml:2: database.url_file: open"},
		{"server_name: a\nauth: {argon2: {memory_kib: 1}}\n", "", "auth.argon2.memory_kib: it must be between 8"},
		{"server_name: a\nmedia: {max_upload_bytes: 0}\n", "", "media.max_upload_bytes: it must be at least 1"},
		{"server_name: a\nlog: {level: loud}\n", "", `log.level: "loud" is none of debug, info, warn, error`},
		{"server_name: a\nregistration: {require_email: true}\n", "", "email.smtp_url: it is missing, and registration needs e-mail addresses"},
		{"server_name: a\nregistration: {allowed_email_domains: [a.example]}\n", "", "email.smtp_url: it is missing, and registration needs e-mail addresses"},
		{"server_name: a\nregistration: {allowed_email_domains: [\"@a.example\"]}\n", "", "config.yaml:2: registration.allowed_email_domains: \"@a.example\" is not the domain"},
		{"server_name: a\nemail: {smtp_url: \"smtp://x\"}\n", "", "email.from: \"\": it must be an address"},
		{"server_name: a\nemail: {smtp_url: \"http://u:hidden@x\", from: a@b.example}\n", "", "config.yaml:2: email.smtp_url: it must be smtp://"},
		{"server_name: a\nemail: {smtp_url: \"smtp://u:hidden@x:70000\", from: a@b.example}\n", "", "config.yaml:2: email.smtp_url: its port must be"},
		{"server_name: a\nemail: {smtp_url: \"smtp://u:hid/den@x\", from: a@b.example}\n", "", "config.yaml:2: email.smtp_url: it"},
		{"server_name: a\nemail: {smtp_url: \"smtp://x\", from: \"a@b.example\\r\\nBcc: c@d.example\"}\n", "", "config.yaml:2: email.from:"},
		{"server_name: a\nauth: {require_2fa: some}\n", "", `auth.require_2fa: "some" is none of none, admins, all`},
		{"server_name: a\nauth: {grace_hours: -1}\n", "", "auth.grace_hours: it must be from 0 to 8760"},
		{"server_name: a\noidc: {issuer: 'https://login.a'}\n", "", "oidc.client_id: it is missing"},
		{"server_name: a\noidc: {issuer: 'http://login.a', client_id: x, client_secret: y}\n", "", "oidc.issuer: \"http://login.a\" must be https://host"},
		{"server_name: a\noidc: {client_id: x}\n", "", "oidc.issuer: it is missing"},
		{"server_name: a\nregistration: {mode: tokens}\n", "", `config.yaml:2: registration.mode: "tokens" is none of closed, token, approval, open`},
		{"server_name: a\nregistration: {terms: [\"privacy 1 en https://a.example\"]}\n", "", `config.yaml:2: registration.terms: "privacy 1 en https://a.example" must be ID VERSION`},
		{"server_name: a\nregistration: {terms: [\"privacy 1 en javascript:x Privacy\"]}\n", "", `config.yaml:2: registration.terms: "javascript:x" must be the address`},
		{"server_name: a\nregistration: {terms: [\"p 1 en https://a.example P\", \"p 2 de https://a.example P\"]}\n", "", "registration.terms: p has the versions 1 and 2"},
		{"server_name: a\nregistration: {terms: [\"p 1 en https://a.example P\", \"p 1 en https://b.example P\"]}\n", "", "registration.terms: p stands there twice in the language en"},
		{"server_name: a\nregistration: {username: {min_length: 0}}\n", "", "registration.username.min_length: it must be from 1"},
		{"server_name: a\nregistration: {username: {reserved: [\"(\"]}}\n", "", `registration.username.reserved: "(" is not a regular expression`},
		{"server_name: a\nturn: {uris: [\"turn:a\"]}\n", "", "turn.shared_secret: it is missing"},
		{"server_name: a\nturn: {uris: [\"stun:a\"], shared_secret: x}\n", "", "config.yaml:2: turn.uris: \"stun:a\" must be turn:host:port"},
		{"server_name: a\nserver_notices: {localpart: \"A B\"}\n", "", "config.yaml:2: server_notices.localpart: \"A B\" must be"},
		{"server_name: a\nturn: {ttl: 5}\n", "", "config.yaml:2: turn.ttl: it must be from 60"},
		{"server_name: a\nsupport: {page: \"javascript:x\"}\n", "", "config.yaml:2: support.page: \"javascript:x\" must be https"},
		{"server_name: a\nsupport: {admin: [\"@a:b\", \"help\"]}\n", "", "config.yaml:2: support.admin: \"help\" is neither"},
		{"server_name: a\nurl_previews: {ports: [\"080\"]}\n", "", "config.yaml:2: url_previews.ports: \"080\" must be a port"},
		{"server_name: a\n", "CONCLAVE_URL_PREVIEWS_PORTS=8080,65536", "CONCLAVE_URL_PREVIEWS_PORTS: url_previews.ports: \"65536\" must be a port"},
		{"server_name: a\nmedia: {max_bytes_per_user: -1}\n", "", "media.max_bytes_per_user: it must be at least 0"},
		{"server_name: a\nmedia: {store: s3}\n", "", "media.s3.endpoint: it is missing"},
		{"server_name: a\nmedia: {store: s3, s3: {endpoint: 'ftp://x', bucket: b, access_key: a, secret_key: s}}\n", "", "media.s3.endpoint: \"ftp://x\" must be https://host"},
		{"server_name: a\nmedia: {store: s3, s3: {endpoint: 'https://x', bucket: b, access_key: a}}\n", "", "media.s3.secret_key: it is missing"},
		{"server_name: a\nmedia: {store: s3, max_resumable_bytes: 200000000000, s3: {endpoint: 'https://x', bucket: b, access_key: a, secret_key: s}}\n", "", "media.max_resumable_bytes: with media.store: s3"},
		{"server_name: a\n", "CONCLAVE_REDIS_URL=http://hidden", "CONCLAVE_REDIS_URL: redis.url: it must be redis://host:port"},
		{"server_name: a\nredis: {url: \"redis://:hid/den@x\"}\n", "", "redis.url: it must be redis://host:port"},
		{"server_name: a\nredis: {url: \"rediss://x\", ca_file: gone.pem}\n", "", "redis.ca_file: cannot read it"},
		{"server_name: a\n", "CONCLAVE_RATE_LIMITS_ENABLED=1", "environment: rate_limits.enabled must be true or false"},
	} {
		_, err := load(t, test.text, test.env)
		if err == nil {
			t.Errorf("%q %q was accepted", test.text, test.env)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q gives %q, want %q", test.text, err, test.want)
		}
	}
}

func TestEveryKeyIsDocumentedAndSettableFromTheEnvironment(t *testing.T) {
	for _, f := range allFields(t) {
		if doc := f.tag.Get("doc"); !strings.HasSuffix(doc, ".") {
			t.Errorf("%s: its doc must be a sentence, not %q", f.path, doc)
		}
		if f.isSection() {
			continue
		}
		value := "probe"
		switch {
		case f.isList():
			value = "10.0.0.0/8"
		case f.text() == "true":
			value = "false"
		case f.text() == "false":
			value = "true"
		case strings.Trim(f.text(), "0123456789") == "" && f.text() != "":
			value = "7"
		}
		c := defaults()
		if err := c.environment([]string{f.env() + "=" + value}); err != nil {
			t.Errorf("%s=%s: %v", f.env(), value, err)
		}
		for _, now := range leaves(reflect.ValueOf(c).Elem(), "") {
			if now.atDefault() == (now.path == f.path) {
				t.Errorf("%s=%s: %s is at its default: %v", f.env(), value, now.path, now.atDefault())
			}
		}
	}
}

// The example in the root of the repository is what the binary prints; regenerate it with: go run ./cmd/conclave config print > config.example.yaml
func TestExampleFile(t *testing.T) {
	const example = "../../config.example.yaml"
	var printed bytes.Buffer
	if err := Print(&printed); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stored, printed.Bytes()) {
		t.Error("config.example.yaml differs from what config.Print writes; run: go run ./cmd/conclave config print > config.example.yaml")
	}
	c, err := Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "example.org" || len(c.Warnings()) != 0 {
		t.Errorf("the example reads as %+v", c)
	}
	for _, f := range allFields(t) {
		if !f.isSection() && !strings.Contains(printed.String(), " "+f.name()+": ") && !strings.Contains(printed.String(), "\n"+f.name()+": ") {
			t.Errorf("%s is not in the example", f.path)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c, err := load(t, "server_name: a\nregistration: {shared_secret: canary}\ndatabase: {url: \"postgres://u:canary@h/d\"}\n")
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.ToLower(strings.Join([]string{sprint("%v", c), sprint("%+v", c), sprint("%#v", c.Registration)}, " ")); strings.Contains(text, "canary") {
		t.Errorf("a secret is printed: %s", text)
	}
}
