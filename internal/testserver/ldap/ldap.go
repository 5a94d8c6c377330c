//go:build unix

// Package ldap runs a real directory for tests: OpenLDAP's slapd over a temporary folder, on loopback, with people who can
// be added, renamed, disabled and removed while a server under test uses it. It even lets people in without a password, as
// careless directories do: whoever relies on it must not.
package ldap

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"conclave/internal/config"
	"conclave/internal/observe"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/ports"
	"conclave/internal/testserver/wait"
)

// Where things are in the directory, and as whom a server under test searches.
const (
	Base         = "dc=example,dc=org"
	People       = "ou=people," + Base
	AdminGroup   = "cn=chat-admins," + Base
	BindDN       = "cn=conclave," + Base
	BindPassword = "the password of the service"

	root         = "cn=root," + Base
	rootPassword = "the password of the root"
)

// Filter lets in whoever is not disabled, by name or address.
const Filter = "(&(objectClass=inetOrgPerson)(|(uid={name})(mail={name}))(!(employeeType=disabled)))"

// Directory is a directory that ends with its test.
type Directory struct {
	URL    string // ldap://…, which can become TLS
	TLSURL string // ldaps://…
	CA     *peer.CA

	t      testing.TB
	dir    string
	server *exec.Cmd
	ended  chan struct{}
}

// Start starts an empty directory.
func Start(t testing.TB) *Directory {
	t.Helper()
	d := &Directory{t: t, CA: peer.NewCA(t), dir: t.TempDir()}
	d.configure()
	taken := ports.Take(t, 2)
	d.URL, d.TLSURL = fmt.Sprintf("ldap://127.0.0.1:%d", taken[0]), fmt.Sprintf("ldaps://127.0.0.1:%d", taken[1])
	if !d.run() {
		log, _ := os.ReadFile(filepath.Join(d.dir, "log")) //nolint:errcheck // there is nothing else to show
		t.Fatalf("slapd does not start:\n%s", log)
	}
	t.Cleanup(d.Stop)
	d.do(func(c *ldap.Conn) error {
		for _, e := range []struct{ dn, class, attribute, value string }{
			{Base, "domain", "dc", "example"}, {People, "organizationalUnit", "ou", "people"},
		} {
			add := ldap.NewAddRequest(e.dn, nil)
			add.Attribute("objectClass", []string{e.class})
			add.Attribute(e.attribute, []string{e.value})
			if err := c.Add(add); err != nil {
				return err
			}
		}
		service := ldap.NewAddRequest(BindDN, nil)
		service.Attribute("objectClass", []string{"organizationalRole", "simpleSecurityObject"})
		service.Attribute("userPassword", []string{BindPassword})
		if err := c.Add(service); err != nil {
			return err
		}
		group := ldap.NewAddRequest(AdminGroup, nil)
		group.Attribute("objectClass", []string{"groupOfNames"})
		group.Attribute("member", []string{root}) // such a group has one at least
		return c.Add(group)
	})
	return d
}

// find is the first of some files that is there.
func find(t testing.TB, what string, patterns ...string) string {
	t.Helper()
	for _, p := range patterns {
		if found, err := filepath.Glob(p); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("the tests need %s, which comes with OpenLDAP's server (Debian: slapd)", what)
	return ""
}

func slapd(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("slapd"); err == nil {
		return path
	}
	return find(t, "slapd", "/usr/sbin/slapd", "/usr/libexec/slapd", "/usr/local/libexec/slapd", "/opt/homebrew/opt/openldap/libexec/slapd")
}

func (d *Directory) configure() {
	pair := d.CA.Issue(d.t, "localhost", "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	d.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	var b bytes.Buffer
	for _, name := range []string{"core", "cosine", "inetorgperson"} {
		schema := find(d.t, "its schema "+name, "/etc/ldap/schema/"+name+".schema", "/etc/openldap/schema/"+name+".schema", "/opt/homebrew/etc/openldap/schema/"+name+".schema")
		fmt.Fprintf(&b, "include %s\n", schema)
	}
	for _, dir := range []string{"/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap"} {
		if _, err := os.Stat(filepath.Join(dir, "back_mdb.so")); err == nil {
			fmt.Fprintf(&b, "modulepath %s\nmoduleload back_mdb\n", dir)
			break
		}
	}
	fmt.Fprintf(&b, `pidfile %[1]s/pid
TLSCACertificateFile %[2]s
TLSCertificateFile %[1]s/cert.pem
TLSCertificateKeyFile %[1]s/key.pem
allow bind_anon_cred
database mdb
suffix %[3]q
rootdn %[4]q
rootpw %[5]q
directory %[1]s/data
maxsize 16777216
dbnosync
index entryUUID,uid,mail eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=%[6]q read by * none
`, d.dir, d.CA.File, Base, root, rootPassword, BindDN)
	d.write("slapd.conf", b.Bytes())
	if err := os.Mkdir(filepath.Join(d.dir, "data"), 0o700); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Directory) write(name string, data []byte) {
	if err := os.WriteFile(filepath.Join(d.dir, name), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// run starts slapd, and says whether it answers.
func (d *Directory) run() bool {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	d.server = exec.Command(d.program(), "-f", filepath.Join(d.dir, "slapd.conf"), "-h", d.URL+" "+d.TLSURL, "-d", "none") //nolint:noctx // Stop ends it
	d.server.Stdout, d.server.Stderr = log, log
	d.server.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for those who use it
	if err := d.server.Start(); err != nil {
		d.t.Fatal(err)
	}
	server, ended := d.server, make(chan struct{})
	d.ended = ended
	go func() {
		_ = server.Wait()
		close(ended)
	}()
	answers := false
	wait.Until(d.t, "slapd answers or ends", func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		c, err := ldap.DialURL(d.URL)
		if err == nil {
			answers = c.Bind(root, rootPassword) == nil
			_ = c.Close()
		}
		return answers
	})
	return answers
}

// program is slapd. Where a profile of the system keeps it out of temporary folders, a copy of it runs that has none.
func (d *Directory) program() string {
	original := slapd(d.t)
	if _, err := os.Stat("/etc/apparmor.d/usr.sbin.slapd"); err != nil {
		return original
	}
	own := filepath.Join(d.dir, "slapd")
	if _, err := os.Stat(own); err == nil {
		return own
	}
	data, err := os.ReadFile(original)
	if err == nil {
		err = os.WriteFile(own, data, 0o700) //nolint:gosec // a program
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return own
}

// Stop lets the directory be out of reach.
func (d *Directory) Stop() {
	select {
	case <-d.ended:
		return
	default:
	}
	_ = d.server.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		_ = d.server.Process.Kill()
		<-d.ended
	}
}

// Resume brings a stopped directory back, with what it holds.
func (d *Directory) Resume() {
	d.t.Helper()
	if !d.run() {
		d.t.Fatal("slapd does not start again")
	}
}

// do changes the directory.
func (d *Directory) do(change func(*ldap.Conn) error) {
	d.t.Helper()
	c, err := ldap.DialURL(d.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Bind(root, rootPassword); err != nil {
		d.t.Fatal(err)
	}
	if err := change(c); err != nil {
		d.t.Fatal(err)
	}
}

func dn(name string) string { return "uid=" + ldap.EscapeDN(name) + "," + People }

// Add adds somebody, whose address is their name at example.org.
func (d *Directory) Add(name, password string) {
	d.t.Helper()
	d.do(func(c *ldap.Conn) error {
		add := ldap.NewAddRequest(dn(name), nil)
		for attribute, value := range map[string]string{
			"objectClass": "inetOrgPerson", "uid": name, "cn": "The " + name, "sn": name, "mail": strings.Map(letters, name) + "@example.org", "userPassword": password,
		} {
			add.Attribute(attribute, []string{value})
		}
		return c.Add(add)
	})
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// Set replaces the values of an attribute of somebody; none removes it.
func (d *Directory) Set(name, attribute string, values ...string) {
	d.t.Helper()
	d.do(func(c *ldap.Conn) error {
		change := ldap.NewModifyRequest(dn(name), nil)
		change.Replace(attribute, values)
		return c.Modify(change)
	})
}

// Rename calls somebody by another name.
func (d *Directory) Rename(name, other string) {
	d.t.Helper()
	d.do(func(c *ldap.Conn) error {
		return c.ModifyDN(ldap.NewModifyDNRequest(dn(name), "uid="+ldap.EscapeDN(other), true, ""))
	})
}

// Remove removes somebody.
func (d *Directory) Remove(name string) {
	d.t.Helper()
	d.do(func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn(name), nil)) })
}

// SetAdmins makes some people the members of AdminGroup.
func (d *Directory) SetAdmins(names ...string) {
	d.t.Helper()
	members := []string{root}
	for _, name := range names {
		members = append(members, dn(name))
	}
	d.do(func(c *ldap.Conn) error {
		change := ldap.NewModifyRequest(AdminGroup, nil)
		change.Replace("member", members)
		return c.Modify(change)
	})
}

// Config is the configuration of who asks this directory. Its certificates are trusted by CA.
func (d *Directory) Config() config.LDAP {
	return config.LDAP{
		URLs: []string{d.URL}, StartTLS: true, CAFile: d.CA.File, BindDN: BindDN, BindPassword: observe.Secret(BindPassword), BaseDN: Base, UserFilter: Filter,
		IDAttribute: "entryUUID", NameAttribute: "uid", DisplayAttribute: "cn", Create: true, TimeoutS: 10, CheckMinutes: 15,
	}
}

// Env is the same as variables of the environment.
func (d *Directory) Env() []string {
	const prefix = "CONCLAVE_LDAP_"
	return []string{
		prefix + "URLS=" + d.URL, prefix + "CA_FILE=" + d.CA.File, prefix + "BIND_DN=" + BindDN, prefix + "BIND_PASSWORD=" + BindPassword,
		prefix + "BASE_DN=" + Base, prefix + "USER_FILTER=" + Filter,
	}
}
