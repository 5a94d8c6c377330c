package mail

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"conclave/internal/mail/catcher"
	"conclave/internal/testserver/peer"
)

// start starts a mail server and makes a Sender for it.
func start(t *testing.T, o catcher.Options, change func(*Server)) (*catcher.Server, *Sender) {
	t.Helper()
	server, err := catcher.Start(o)
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return server, sender(t, server.Address(), change)
}

func sender(t *testing.T, address string, change func(*Server)) *Sender {
	t.Helper()
	s, err := ParseServer("smtp://" + address)
	must(t, err)
	if change != nil {
		change(&s)
	}
	from, err := ParseFrom("Die Konklave <conclave@example.org>")
	must(t, err)
	return NewSender(s, from)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hello(to string) Message {
	return Message{To: to, Subject: "Grüße", Text: "Ein Text\n.\nmit Punkt " + strings.Repeat("lang ", 300), HTML: "<p>Ein Text</p>", ID: "one"}
}

func TestSend(t *testing.T) {
	server, s := start(t, catcher.Options{}, nil)
	must(t, s.Send(t.Context(), hello("bob@bücher.example")))
	mails := server.Mails("bob@xn--bcher-kva.example")
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	m := mails[0]
	if m.From != "conclave@example.org" || m.Subject != "Grüße" || !strings.Contains(m.Text, "\n.\nmit Punkt lang") || m.HTML != "<p>Ein Text</p>" {
		t.Errorf("%+v", m)
	}
	for name, want := range map[string]string{
		"From": `"Die Konklave" <conclave@example.org>`, "Message-Id": "<one@example.org>", "Auto-Submitted": "auto-generated", "Mime-Version": "1.0",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for line := range bytes.Lines(m.Raw) {
		if len(line) > 998 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// TestNothingIsSaidBeforeTLS sends to servers elsewhere, as far as the Sender knows: without TLS, or with a certificate of
// somebody else, it says nothing.
func TestNothingIsSaidBeforeTLS(t *testing.T) {
	ca := peer.NewCA(t)
	pem, err := os.ReadFile(ca.File)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	good := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1")}, MinVersion: tls.VersionTLS12}
	other := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "mail.example.org")}, MinVersion: tls.VersionTLS12}
	remote := func(s *Server) { s.Local, s.Roots, s.User, s.Password = false, roots, "me", "secret" }
	secure := func(s *Server) {
		remote(s)
		s.Implicit = true
	}
	login := catcher.Options{User: "me", Password: "secret", Insecure: true}
	with := func(c *tls.Config, implicit bool) catcher.Options {
		o := login
		o.TLS, o.Implicit = c, implicit
		return o
	}
	for _, c := range []struct {
		name   string
		server catcher.Options
		change func(*Server)
		taken  bool
	}{
		{"no TLS", login, remote, false},
		{"STARTTLS", with(good, false), remote, true},
		{"STARTTLS of another server", with(other, false), remote, false},
		{"TLS", with(good, true), secure, true},
		{"TLS of another server", with(other, true), secure, false},
		{"TLS of an unknown authority", with(good, true), func(s *Server) { secure(s); s.Roots = x509.NewCertPool() }, false},
		{"a wrong password", with(good, false), func(s *Server) { remote(s); s.Password = "guess" }, false},
		{"this machine", login, func(s *Server) { s.User, s.Password = "me", "secret" }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, s := start(t, c.server, c.change)
			err := s.Send(t.Context(), hello("bob@b.example"))
			if (err == nil) != c.taken || len(server.Mails("")) > 0 != c.taken {
				t.Errorf("%v, %d mails", err, len(server.Mails("")))
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "bob")) {
				t.Errorf("the error tells too much: %v", err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	server, s := start(t, catcher.Options{}, nil)
	for _, c := range []struct {
		name       string
		rcpt, data error
		code       int
		permanent  bool
	}{
		{"nobody", catcher.Error(550, "no bob@b.example here"), nil, 550, true},
		{"later", catcher.Error(451, "bob@b.example is busy"), nil, 451, false},
		{"not this content", nil, catcher.Error(554, "spam for bob@b.example"), 554, false},
	} {
		server.Refuse(func(string) error { return c.rcpt }, func() error { return c.data })
		err := s.Send(t.Context(), hello("bob@b.example"))
		var f *Failure
		if !errors.As(err, &f) || f.Code != c.code || f.Permanent != c.permanent || strings.Contains(err.Error(), "bob") {
			t.Errorf("%s: %#v", c.name, err)
		}
	}
	server.Refuse(nil, nil)
	must(t, s.Send(t.Context(), hello("bob@b.example")))
	must(t, server.Close())
	if err := s.Send(t.Context(), hello("bob@b.example")); err == nil {
		t.Error("a server that is down took a mail")
	}
}

// TestASlowServer answers a byte now and then, for ever: the attempt ends with its time all the same.
func TestASlowServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close() //nolint:errcheck // the test is over
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the other side has gone
				for {
					if _, err := fmt.Fprint(conn, "220-slow\r\n"); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond) // this is what slow means
				}
			}()
		}
	}()
	s := sender(t, l.Addr().String(), nil)
	s.limit = 200 * time.Millisecond
	began := time.Now()
	if err := s.Send(t.Context(), hello("bob@b.example")); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// TestCompose writes every kind of mail in every language: whole, the same in both forms, and with nothing in the subject
// that is not for everybody's eyes.
func TestCompose(t *testing.T) {
	f := Facts{
		Server: "chat.example.org", User: "@alice:example.org", Link: "https://chat.example.org/x?token=C0DE&a=b", Minutes: 15,
		What: "<b>Phone</b>\nhttps://evil.example", At: time.Unix(1700000000, 0), From: "192.0.2.7",
	}
	for _, kind := range []Kind{Register, Registered, Reset, Unknown, Add, Taken, Password, Added, Removed, SignIn, Factor, Exported, Expired} {
		for _, lang := range Languages {
			m, err := Compose(kind, lang, f)
			must(t, err)
			name := fmt.Sprint(kind, " ", lang)
			if m.Subject == "" || strings.ContainsAny(m.Subject, "\r\n{") || strings.Contains(m.Subject, "C0DE") || strings.Contains(m.Subject, "alice") {
				t.Errorf("%s: subject %q", name, m.Subject)
			}
			for _, want := range []string{"192.0.2.7", "2023", "chat.example.org"} {
				if !strings.Contains(m.Text, want) || !strings.Contains(m.HTML, want) {
					t.Errorf("%s does not tell %s:\n%s", name, want, m.Text)
				}
			}
			if strings.Contains(m.HTML, "<b>") || strings.Contains(m.Text, "{{") || strings.Contains(m.Text, "\n\n\n") {
				t.Errorf("%s:\n%s\n%s", name, m.Text, m.HTML)
			}
			if confirms := kind == Register || kind == Reset || kind == Add; confirms &&
				(!strings.Contains(m.Text, "\n"+f.Link+"\n") || !strings.Contains(m.HTML, `href="https://chat.example.org/x?token=C0DE&amp;a=b"`) || !strings.Contains(m.Text, "15")) {
				t.Errorf("%s has no link:\n%s\n%s", name, m.Text, m.HTML)
			}
			if kind == SignIn && (strings.Contains(m.Text, "://evil") || !strings.Contains(m.Text, "Phone")) {
				t.Errorf("a session's name makes a link:\n%s", m.Text)
			}
			if _, err := url.Parse(f.Link); err != nil {
				t.Error(err)
			}
		}
	}
	if en, err := Compose(Reset, "fr", f); err != nil || !strings.Contains(en.Text, "Somebody") {
		t.Errorf("%v %s", err, en.Text)
	}
}

// TestComposeDigest tells of rooms whose names are somebody else's idea.
func TestComposeDigest(t *testing.T) {
	f := Facts{
		Server: "chat.example.org", User: "@bob:example.org", Link: "https://chat.example.org/", Stop: "https://chat.example.org/stop?token=T0KEN&a=b",
		Waiting: &Waiting{Pusher: 1, Token: "T0KEN", More: 3, Rooms: []WaitingRoom{
			{Name: "Plan\n\nhttps://evil.example/", Unread: 3, Mentions: 1, From: []string{"Alice", "<b>Carol</b>"}, Others: 2},
			{Unread: 1, From: []string{"Dave"}}, {Name: "Fest", Invited: true, From: []string{"Eve"}},
		}},
	}
	for lang, wants := range map[string][]string{
		"en": {`example/": 3 unread messages, 1 of them mentions you, from Alice, <b>Carol</b> and 2 more`, "\n1 unread message, from Dave\n", `An invitation to "Fest", from Eve`, "3 more rooms"},
		"de": {`example/“: 3 ungelesene Nachrichten, 1 davon erwähnt dich, von Alice, <b>Carol</b> und 2 weiteren`, "\n1 ungelesene Nachricht, von Dave\n", `Eine Einladung in „Fest“, von Eve`, "3 weiteren Unterhaltungen"},
	} {
		m, err := Compose(Digest, lang, f)
		must(t, err)
		for _, want := range append(wants, "\n"+f.Link+"\n", "\n"+f.Stop+"\n") {
			if !strings.Contains(strings.ReplaceAll(m.Text, "\u2060", ""), want) {
				t.Errorf("%s does not tell %q:\n%s", lang, want, m.Text)
			}
		}
		if strings.Contains(m.Text, "evil.example") || strings.Contains(m.Text, "//evil") || strings.Contains(m.HTML, "<b>") || strings.Contains(m.Text, "\n\n\n") ||
			!strings.Contains(m.HTML, `href="https://chat.example.org/stop?token=T0KEN&amp;a=b"`) {
			t.Errorf("%s:\n%s\n%s", lang, m.Text, m.HTML)
		}
		for _, c := range []struct{ stop, button string }{{f.Stop, "List-Unsubscribe=One-Click"}, {"http://localhost/stop", ""}} {
			server, s := start(t, catcher.Options{}, nil)
			m.To, m.Stop = "bob@b.example", c.stop
			must(t, s.Send(t.Context(), m))
			h := server.Mails("")[0].Header
			if h.Get("List-Unsubscribe") != "<"+c.stop+">" || h.Get("List-Unsubscribe-Post") != c.button {
				t.Errorf("%v", h)
			}
		}
	}
}

func TestLanguage(t *testing.T) {
	for accept, want := range map[string]string{
		"": "en", "de": "de", "de-AT,de;q=0.9,en;q=0.5": "de", "en-GB,de;q=0.9": "en", "fr,de;q=0.5": "de", "fr": "en", "*": "en", ";;;": "en",
		strings.Repeat("x-", 100_000): "en", strings.Repeat("fr,", 60) + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,de": "en",
	} {
		if got := Language(accept); got != want {
			t.Errorf("%.40q gets %s, want %s", accept, got, want)
		}
	}
}

func TestServers(t *testing.T) {
	for text, want := range map[string]Server{
		"smtp://mail.example.org":                 {Host: "mail.example.org", Port: 587},
		"smtps://me:a%40b@mail.example.org":       {Host: "mail.example.org", Port: 465, User: "me", Password: "a@b", Implicit: true},
		"smtp://localhost:25":                     {Host: "localhost", Port: 25, Local: true},
		"smtp://[::1]:25/":                        {Host: "::1", Port: 25, Local: true},
		"smtp://127.0.0.1.example.org":            {Host: "127.0.0.1.example.org", Port: 587},
		"smtp://localhost.example.org:25":         {Host: "localhost.example.org", Port: 25},
		"smtp://:x@mail.example.org":              {},
		"mail.example.org":                        {},
		"smtp://":                                 {},
		"smtp://mail.example.org?starttls=no":     {},
		"smtp://mail.example.org:0":               {},
		"smtp://me:pass/word@mail.example.org:25": {},
	} {
		got, err := ParseServer(text)
		if (err == nil) != (want.Host != "") || err == nil && got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
}
