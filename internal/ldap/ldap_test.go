package ldap_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"conclave/internal/config"
	"conclave/internal/ldap"
	"conclave/internal/netguard"
	directory "conclave/internal/testserver/ldap"
	"conclave/internal/testserver/proof"
)

const password = "a password of the directory"

var loopback = netguard.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)

func open(t *testing.T, slapd *directory.Directory, change func(*config.LDAP)) *ldap.Directory {
	t.Helper()
	conf := slapd.Config()
	change(&conf)
	d, err := ldap.New(conf, loopback.DialContext, slapd.CA.Pool())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func anybody(ldap.Person) bool { return true }

func TestDirectory(t *testing.T) {
	slapd := directory.Start(t)
	for _, name := range []string{"alice", "bob", "o(dd*\\n", "müller"} {
		slapd.Add(name, password)
	}
	plain := func(*config.LDAP) {}
	t.Run("people", func(t *testing.T) { people(t, slapd, open(t, slapd, plain)) })
	t.Run("names are no filters", func(t *testing.T) { injection(t, open(t, slapd, plain)) })
	t.Run("no password is none", func(t *testing.T) { noPassword(t, open(t, slapd, plain)) })
	t.Run("who is there", func(t *testing.T) { present(t, slapd, open(t, slapd, plain)) })
	t.Run("administrators", func(t *testing.T) {
		d := open(t, slapd, func(c *config.LDAP) { c.AdminGroup = directory.AdminGroup })
		for _, want := range []bool{false, true, false} {
			if want {
				slapd.SetAdmins("bob")
			}
			if p, err := d.Check(t.Context(), "bob", password, anybody); err != nil || p.Admin != want {
				t.Errorf("%+v, %v, want %v", p, err, want)
			}
			slapd.SetAdmins()
		}
	})
	t.Run("roads", func(t *testing.T) { roads(t, slapd) })
	t.Run("trouble", func(t *testing.T) { trouble(t, slapd) })
}

func people(t *testing.T, slapd *directory.Directory, d *ldap.Directory) {
	alice, err := d.Check(t.Context(), "alice", password, anybody)
	if err != nil || alice.Name != "alice" || alice.Display != "The alice" || alice.Mail != "" || alice.Admin || len(alice.ID) != 36 {
		t.Fatalf("%+v, %v", alice, err)
	}
	for _, typed := range []string{"ALICE", "alice@example.org", " alice "} { // as the directory compares names
		if p, err := d.Check(t.Context(), typed, password, anybody); err != nil || p.ID != alice.ID {
			t.Errorf("%q is %+v, %v", typed, p, err)
		}
	}
	for _, typed := range []string{"o(dd*\\n", "müller"} {
		if p, err := d.Check(t.Context(), typed, password, anybody); err != nil || p.Name != typed {
			t.Errorf("%q is %+v, %v", typed, p, err)
		}
	}
	for typed, want := range map[string]error{"alice": ldap.ErrPassword, "nobody": ldap.ErrNobody} {
		if _, err := d.Check(t.Context(), typed, "wrong", anybody); !errors.Is(err, want) {
			t.Errorf("%s with a wrong password: %v, want %v", typed, err, want)
		}
	}
	// Whoever guesses too much is not let near the password, and cannot tell.
	if _, err := d.Check(t.Context(), "alice", password, func(ldap.Person) bool { return false }); !errors.Is(err, ldap.ErrPassword) {
		t.Errorf("not let: %v", err)
	}
	// Renamed, and found by what stays.
	slapd.Rename("alice", "alicia")
	defer slapd.Rename("alicia", "alice")
	if _, err := d.Check(t.Context(), "alice", password, anybody); !errors.Is(err, ldap.ErrNobody) {
		t.Errorf("by her name of before: %v", err)
	}
	if p, err := d.CheckID(t.Context(), alice.ID, password, anybody); err != nil || p.ID != alice.ID || p.Name != "alicia" {
		t.Errorf("%+v, %v", p, err)
	}
	// Disabled.
	slapd.Set("bob", "employeeType", "disabled")
	if _, err := d.Check(t.Context(), "bob", password, anybody); !errors.Is(err, ldap.ErrNobody) {
		t.Errorf("disabled: %v", err)
	}
	slapd.Set("bob", "employeeType")
	// Two of one name.
	slapd.Set("bob", "uid", "bob", "alicia")
	if _, err := d.Check(t.Context(), "alicia", password, anybody); !errors.Is(err, ldap.ErrAmbiguous) {
		t.Errorf("two of one name: %v", err)
	}
	slapd.Set("bob", "uid", "bob")
}

// injection tries names that would mean more than a name if they came into the filter as they are.
func injection(t *testing.T, d *ldap.Directory) {
	for _, typed := range []string{
		"*", "al*", "alice)(uid=*", "*)(objectClass=*", "alice)(|(uid=*", "x)(|(uid=bob", "alice))(|(uid=*", "\\2a", "\\61lice", "alice\x00", "", "(uid=alice)",
		"alice\n", strings.Repeat("a", 256), "\xff",
	} {
		if p, err := d.Check(t.Context(), typed, password, anybody); !errors.Is(err, ldap.ErrNobody) {
			t.Errorf("%q is %+v, %v", typed, p, err)
		}
	}
	for _, id := range []string{"*", "", "x)(uid=*", "hex:zz"} {
		if p, err := d.CheckID(t.Context(), id, password, anybody); err == nil {
			t.Errorf("the ID %q is %+v", id, p)
		}
	}
}

// noPassword signs in with what careless directories take for nobody's sign-in, which they let everybody do.
func noPassword(t *testing.T, d *ldap.Directory) {
	proof.Of(t, "A04")
	for _, p := range []string{"", "\x00", "\x00x", "a\x00", strings.Repeat("x", 513)} {
		if who, err := d.Check(t.Context(), "alice", p, anybody); !errors.Is(err, ldap.ErrPassword) {
			t.Errorf("the password %q lets in %+v, %v", p, who, err)
		}
	}
}

func present(t *testing.T, slapd *directory.Directory, d *ldap.Directory) {
	var ids []string
	for _, name := range []string{"alice", "bob"} {
		p, err := d.Check(t.Context(), name, password, anybody)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	count := func(want int) {
		t.Helper()
		there, err := d.Present(t.Context(), append(ids, "00000000-0000-0000-0000-000000000000"))
		if err != nil || len(there) != want {
			t.Errorf("%d are there, %v, want %d", len(there), err, want)
		}
	}
	count(2)
	slapd.Set("bob", "employeeType", "disabled")
	count(1)
	slapd.Set("bob", "employeeType")
	slapd.Rename("bob", "bobby")
	count(2)
	slapd.Rename("bobby", "bob")
}

// roads goes over each kind of connection, and over none that is not allowed.
func roads(t *testing.T, slapd *directory.Directory) {
	check := func(change func(*config.LDAP)) error {
		_, err := open(t, slapd, change).Check(t.Context(), "alice", password, anybody)
		return err
	}
	for name, change := range map[string]func(*config.LDAP){
		"StartTLS":              func(*config.LDAP) {},
		"TLS":                   func(c *config.LDAP) { c.URLs = []string{slapd.TLSURL} },
		"plain":                 func(c *config.LDAP) { c.StartTLS = false },
		"the second of several": func(c *config.LDAP) { c.URLs = []string{"ldaps://127.0.0.1:1", slapd.URL} },
	} {
		if err := check(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Certificates that nobody has signed whom we trust, or that are another's.
	for _, address := range []string{slapd.URL, slapd.TLSURL, strings.Replace(slapd.TLSURL, "127.0.0.1", "127.0.0.2", 1)} {
		conf := slapd.Config()
		conf.URLs = []string{address}
		d, err := ldap.New(conf, loopback.DialContext, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Check(t.Context(), "alice", password, anybody); err == nil || errors.Is(err, ldap.ErrPassword) {
			t.Errorf("a certificate of nobody: %v", err)
		}
	}
	// The dialer's rules hold.
	d, err := ldap.New(slapd.Config(), netguard.NewDialer(nil, nil).DialContext, slapd.CA.Pool())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Check(t.Context(), "alice", password, anybody); !errors.Is(err, netguard.ErrDenied) {
		t.Errorf("a private address that is not allowed: %v", err)
	}
}

// trouble is whatever says nothing about anybody's password.
func trouble(t *testing.T, slapd *directory.Directory) {
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // the test is over
	for name, change := range map[string]func(*config.LDAP){
		"nobody there":             func(c *config.LDAP) { c.URLs = []string{"ldap://127.0.0.1:1"} },
		"silence":                  func(c *config.LDAP) { c.URLs, c.TimeoutS = []string{"ldap://" + silent.Addr().String()}, 1 },
		"silence under TLS":        func(c *config.LDAP) { c.URLs, c.TimeoutS = []string{"ldaps://" + silent.Addr().String()}, 1 },
		"a wrong service password": func(c *config.LDAP) { c.BindPassword = "wrong" },
		"nobody's search":          func(c *config.LDAP) { c.BindDN = "" },
		"no such base":             func(c *config.LDAP) { c.BaseDN = "ou=nowhere," + directory.Base },
		"no such ID":               func(c *config.LDAP) { c.IDAttribute = "employeeNumber" },
		"no such group":            func(c *config.LDAP) { c.AdminGroup = "cn=nowhere," + directory.Base },
	} {
		began := time.Now()
		_, err := open(t, slapd, change).Check(t.Context(), "alice", password, anybody)
		if err == nil || errors.Is(err, ldap.ErrPassword) || errors.Is(err, ldap.ErrNobody) || strings.Contains(err.Error(), "alice") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, slapd, func(*config.LDAP) {}).Check(ended, "alice", password, anybody); err == nil {
		t.Error("a request that has ended was answered")
	}
	for _, filter := range []string{"(uid={name}", "(&(uid={name}))(x)", "uid={name}"} {
		conf := slapd.Config()
		conf.UserFilter = filter
		if _, err := ldap.New(conf, loopback.DialContext, nil); err == nil {
			t.Errorf("%q is a filter", filter)
		}
	}
}
