// Package ldap asks the organization's directory who somebody is: it finds a person by the name that they typed, checks
// their password by signing in as them there (search, then bind), and says which of the people who have accounts here the
// directory still has. It knows nothing of accounts.
//
// Each question has a connection of its own, which is opened by the dialer that every outgoing connection goes through, is
// TLS before anything is said unless the configuration says otherwise, and ends with the question. Referrals are followed
// nowhere. No error repeats what was asked, what was answered or a password.
package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"conclave/internal/config"
)

// Bounds of what a directory is asked, and of what is read of its answers.
const (
	maxTyped    = 255     // bytes of a name
	maxPassword = 512     // bytes
	maxValue    = 1000    // bytes of a person's attribute
	maxRead     = 4 << 20 // bytes from one connection
	places      = 8       // questions at the same time
)

// Errors of a directory. Each is about the person; whatever else goes wrong is that the directory could not be asked.
var (
	ErrNobody    = errors.New("the directory has nobody of that name whom the filter lets in")
	ErrPassword  = errors.New("the directory does not let somebody in by that password")
	ErrAmbiguous = errors.New("the directory has several people of that name; the filter has to match one")
)

// Person is somebody in the directory.
type Person struct {
	ID      string // stays the same whatever they are called
	Name    string
	Display string // "" if the directory does not say
	Mail    string // "" if it does not say, or is not asked
	Admin   bool   // a member of the group of administrators; false where there is none

	dn string
}

// Directory asks one directory. It is safe for concurrent use.
type Directory struct {
	conf   config.LDAP
	roots  *x509.CertPool
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	places chan struct{}
}

// New makes a Directory; nil where none is configured. Roots are the certificates that are trusted, the system's if nil.
// It connects to nothing yet, so that the server starts without its directory.
func New(conf config.LDAP, dial func(ctx context.Context, network, address string) (net.Conn, error), roots *x509.CertPool) (*Directory, error) {
	if len(conf.URLs) == 0 {
		return nil, nil
	}
	d := &Directory{conf: conf, roots: roots, dial: dial, places: make(chan struct{}, places)}
	if _, err := ldap.CompileFilter(d.byName("a*b(c)")); err != nil {
		return nil, fmt.Errorf("ldap.user_filter cannot be read: %w", err)
	}
	for key, dn := range map[string]string{"base_dn": conf.BaseDN, "bind_dn": conf.BindDN, "admin_group": conf.AdminGroup} {
		if _, err := ldap.ParseDN(dn); err != nil {
			return nil, fmt.Errorf("ldap.%s cannot be read: %w", key, err)
		}
	}
	return d, nil
}

// ManagesAdmins says whether the directory decides who is an administrator.
func (d *Directory) ManagesAdmins() bool { return d.conf.AdminGroup != "" }

// Creates says whether somebody whom the directory lets in gets an account.
func (d *Directory) Creates() bool { return d.conf.Create }

// Every is how often the directory is to be asked whether it still has everybody.
func (d *Directory) Every() time.Duration { return time.Duration(d.conf.CheckMinutes) * time.Minute }

// byName is the filter of whoever has a name, which somebody has typed.
func (d *Directory) byName(typed string) string {
	return strings.ReplaceAll(d.conf.UserFilter, config.LDAPName, ldap.EscapeFilter(typed))
}

// byIDs is the filter of those who have one of some IDs, and whom the user filter lets in whatever they are called.
func (d *Directory) byIDs(ids ...string) string {
	var b strings.Builder
	b.WriteString("(&" + strings.ReplaceAll(d.conf.UserFilter, config.LDAPName, "*") + "(|")
	for _, id := range ids {
		b.WriteString("(" + d.conf.IDAttribute + "=" + ldap.EscapeFilter(rawID(id)) + ")")
	}
	b.WriteString("))")
	return b.String()
}

// hexPrefix marks IDs that are bytes rather than text, such as Active Directory's.
const hexPrefix = "hex:"

func textID(raw []byte) string {
	if plain(string(raw)) && !strings.HasPrefix(string(raw), hexPrefix) {
		return string(raw)
	}
	return hexPrefix + hex.EncodeToString(raw)
}

func rawID(id string) string {
	if rest, ok := strings.CutPrefix(id, hexPrefix); ok {
		if raw, err := hex.DecodeString(rest); err == nil {
			return string(raw)
		}
	}
	return id
}

// plain says whether a text is one that people can read.
func plain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}

// Check finds the person of a name that somebody has typed, and checks their password (ErrNobody, ErrPassword,
// ErrAmbiguous). Before the password is looked at, may is asked; if it says no the answer is ErrPassword.
func (d *Directory) Check(ctx context.Context, typed, password string, may func(Person) bool) (*Person, error) {
	if typed == "" || len(typed) > maxTyped || !plain(typed) {
		return nil, ErrNobody
	}
	return d.check(ctx, d.byName(typed), password, may)
}

// CheckID is Check for somebody whose ID is known.
func (d *Directory) CheckID(ctx context.Context, id, password string, may func(Person) bool) (*Person, error) {
	return d.check(ctx, d.byIDs(id), password, may)
}

// check never asks with an empty password, or one that a careless server reads as an empty one: to sign in with none is to
// sign in as nobody, which directories let everybody do (RFC 4513, section 5.1.2; threats A04).
func (d *Directory) check(ctx context.Context, filter, password string, may func(Person) bool) (found *Person, err error) {
	if password == "" || len(password) > maxPassword || strings.Contains(password, "\x00") {
		return nil, ErrPassword
	}
	err = d.ask(ctx, func(c *ldap.Conn) error {
		p, err := d.one(c, filter)
		if err == nil && (p.dn == "" || !may(*p)) {
			err = ErrPassword
		}
		if err != nil {
			return err
		}
		if p.Admin, err = d.isAdmin(c, p.dn); err != nil {
			return err
		}
		if err := c.Bind(p.dn, password); err != nil {
			return refusal(err)
		}
		found = p
		return nil
	})
	return found, err
}

// Present returns those of some people, by their IDs, whom the directory still has and lets in.
func (d *Directory) Present(ctx context.Context, ids []string) (map[string]Person, error) {
	present := map[string]Person{}
	err := d.ask(ctx, func(c *ldap.Conn) error {
		entries, err := d.search(c, d.byIDs(ids...), 2*len(ids))
		if err != nil {
			return err
		}
		for _, e := range entries {
			p, err := d.person(e)
			if err == nil {
				p.Admin, err = d.isAdmin(c, p.dn)
			}
			if err != nil {
				return err
			}
			present[p.ID] = *p
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return present, nil
}

// one is the only person whom a filter matches.
func (d *Directory) one(c *ldap.Conn, filter string) (*Person, error) {
	entries, err := d.search(c, filter, 2)
	switch {
	case err != nil:
		return nil, err
	case len(entries) == 0:
		return nil, ErrNobody
	case len(entries) > 1:
		return nil, ErrAmbiguous
	}
	return d.person(entries[0])
}

// search finds entries below the base, at most so many.
func (d *Directory) search(c *ldap.Conn, filter string, most int) ([]*ldap.Entry, error) {
	attributes := []string{d.conf.IDAttribute, d.conf.NameAttribute}
	for _, name := range []string{d.conf.DisplayAttribute, d.conf.MailAttribute} {
		if name != "" {
			attributes = append(attributes, name)
		}
	}
	found, err := c.Search(ldap.NewSearchRequest(d.conf.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, most, d.conf.TimeoutS, false, filter, attributes, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return nil, ErrAmbiguous
	}
	if err != nil {
		return nil, trouble("searching", err)
	}
	return found.Entries, nil
}

// person reads an entry.
func (d *Directory) person(e *ldap.Entry) (*Person, error) {
	id := e.GetRawAttributeValue(d.conf.IDAttribute)
	if len(id) == 0 || len(id) > maxTyped {
		return nil, fmt.Errorf("an entry has no %s: name another ldap.id_attribute, or let this server read it", d.conf.IDAttribute)
	}
	text := func(name string) string {
		if value := e.GetAttributeValue(name); name != "" && len(value) <= maxValue && plain(value) {
			return value
		}
		return ""
	}
	return &Person{ID: textID(id), Name: text(d.conf.NameAttribute), Display: text(d.conf.DisplayAttribute), Mail: text(d.conf.MailAttribute), dn: e.DN}, nil
}

// isAdmin says whether an entry is a member of the group of administrators.
func (d *Directory) isAdmin(c *ldap.Conn, dn string) (bool, error) {
	if d.conf.AdminGroup == "" {
		return false, nil
	}
	member := ldap.EscapeFilter(dn)
	found, err := c.Search(ldap.NewSearchRequest(d.conf.AdminGroup, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, d.conf.TimeoutS, false,
		"(|(member="+member+")(uniqueMember="+member+"))", []string{"1.1"}, nil))
	if err != nil {
		return false, trouble("looking at ldap.admin_group", err)
	}
	return len(found.Entries) == 1, nil
}

// ask opens a connection, signs in as this server, and lets question use it. All of it takes at most the configured time.
func (d *Directory) ask(ctx context.Context, question func(*ldap.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout())
	defer cancel()
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	case <-ctx.Done():
		return fmt.Errorf("waiting to ask the directory: %w", ctx.Err())
	}
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if d.conf.BindDN != "" {
		if err := c.Bind(d.conf.BindDN, d.conf.BindPassword.Reveal()); err != nil {
			return trouble("signing in as ldap.bind_dn", err)
		}
	}
	return question(c)
}

// connect reaches the first server that can be reached.
func (d *Directory) connect(ctx context.Context) (*ldap.Conn, error) {
	var errs []error
	for i, address := range d.conf.URLs {
		// One that hangs must leave time for the others.
		part, cancel := context.WithTimeout(ctx, d.conf.Timeout()/time.Duration(len(d.conf.URLs)-i+1))
		c, err := d.reach(part, address)
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// reach opens a connection to a server, which is TLS where it has to be.
func (d *Directory) reach(ctx context.Context, address string) (*ldap.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	port, secure := u.Port(), u.Scheme == "ldaps"
	if port == "" {
		port = map[bool]string{false: ldap.DefaultLdapPort, true: ldap.DefaultLdapsPort}[secure]
	}
	conn, err := d.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	conn = &bounded{Conn: conn, left: maxRead}
	settings := &tls.Config{ServerName: u.Hostname(), RootCAs: d.roots, MinVersion: tls.VersionTLS12}
	if secure {
		over := tls.Client(conn, settings)
		if err := over.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", u.Host, err)
		}
		conn = over
	}
	c := ldap.NewConn(conn, secure)
	c.SetTimeout(d.conf.Timeout())
	c.Start()
	if secure || !d.conf.StartTLS {
		return c, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := c.StartTLS(settings); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("StartTLS with %s: %w", u.Host, withoutWords(err))
	}
	return c, nil
}

// bounded is a connection that ends when too much has come over it.
type bounded struct {
	net.Conn
	left int
}

// Read implements net.Conn.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the directory answers with more than is read")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// refusal tells a directory that does not let somebody in from one that has trouble.
func refusal(err error) error {
	for _, code := range []uint16{
		ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultInsufficientAccessRights,
		ldap.LDAPResultNoSuchObject, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInvalidDNSyntax,
		ldap.ErrorEmptyPassword,
	} {
		if ldap.IsErrorWithCode(err, code) {
			return ErrPassword
		}
	}
	return trouble("signing in as somebody", err)
}

// trouble is an error without what the directory says in it, which may name people.
func trouble(doing string, err error) error {
	return fmt.Errorf("%s: %w", doing, withoutWords(err))
}

func withoutWords(err error) error {
	var answer *ldap.Error
	if !errors.As(err, &answer) {
		return err
	}
	if answer.ResultCode == ldap.ErrorNetwork {
		return errors.New("the connection to the directory broke")
	}
	return fmt.Errorf("the directory answers %d, %s", answer.ResultCode, ldap.LDAPResultCodeMap[answer.ResultCode])
}
