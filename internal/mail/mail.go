// Package mail sends mail: it writes the messages in the language of who is to read them, and hands them to the
// organization's mail server. It knows nothing of accounts; what is to be sent waits in rows of the database until it is
// sent (package accounts).
//
// The mail server is the operator's own, named in the configuration like the database, so that its address may be a
// private one; nobody else has a say in where the connection goes.
package mail

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"conclave/internal/mail/address"
)

// sendTime bounds one attempt from the first packet to the last, however slowly the server answers.
const sendTime = 30 * time.Second

// Ports where mail servers listen, if the configuration names none.
const (
	portSubmission = 587
	portSecure     = 465
)

// Message is a mail to one address, which is in canonical form.
type Message struct {
	To      string
	Subject string
	Text    string
	HTML    string
	ID      string // what makes its Message-ID: the same for each attempt at the same mail; "" for a random one
	Stop    string // where whoever does not want such mails any more ends them (RFC 8058), "" if that is nowhere
}

// Sender hands mail to one mail server. It is safe for concurrent use.
type Sender struct {
	server Server
	from   *netmail.Address
	limit  time.Duration
}

// Server is a mail server as an smtp URL names it.
type Server struct {
	Host           string
	Port           int
	User, Password string
	Implicit       bool           // TLS from the first byte (smtps)
	Local          bool           // on this machine: TLS is not asked for
	Roots          *x509.CertPool // the system's if nil
}

// ParseServer reads smtp://user:password@host:port, where TLS has to be negotiated (STARTTLS) before anything is said
// unless the host is this machine, or smtps://…, which is TLS from the first byte. An error never repeats the text: it may
// hold a password.
func ParseServer(text string) (s Server, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return s, errors.New("it is not a valid address; characters such as @ or / in a password are written as %40 and %2F")
	}
	s.Host, s.Implicit = u.Hostname(), u.Scheme == "smtps"
	if !s.Implicit && u.Scheme != "smtp" || s.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return s, errors.New("it must be smtp://user:password@host:port, or smtps://… for TLS from the first byte")
	}
	s.Local = isLocal(s.Host)
	s.Port = portSubmission
	if s.Implicit {
		s.Port = portSecure
	}
	if port := u.Port(); port != "" {
		if s.Port, err = strconv.Atoi(port); err != nil || s.Port < 1 || s.Port > 65535 {
			return s, errors.New("its port must be a number from 1 to 65535")
		}
	}
	s.User = u.User.Username()
	s.Password, _ = u.User.Password()
	if s.User == "" && s.Password != "" {
		return s, errors.New("it has a password without a user")
	}
	return s, nil
}

func isLocal(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// ParseFrom reads the sender's address: name@example.org, or Name <name@example.org>.
func ParseFrom(text string) (*netmail.Address, error) {
	from, err := netmail.ParseAddress(text)
	if err != nil {
		return nil, errors.New("it must be an address: name@example.org, or Name <name@example.org>")
	}
	if _, ok := address.Fold(from.Address); !ok {
		return nil, errors.New("it must be an address: name@example.org, or Name <name@example.org>")
	}
	return from, nil
}

// NewSender makes a Sender.
func NewSender(server Server, from *netmail.Address) *Sender {
	return &Sender{server: server, from: from, limit: sendTime}
}

// Failure is why a mail was not taken. Its text names neither the address nor anything that the server said, which could
// repeat it (law 16).
type Failure struct {
	Code      int  // of the server's answer, 0 if there was none
	Permanent bool // trying again is in vain: this address will not be taken
	what      string
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Code != 0 {
		return fmt.Sprintf("%s: the mail server answered with code %d", f.what, f.Code)
	}
	return f.what
}

// Send hands one message over. An error is a *Failure.
func (s *Sender) Send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	msg, err := s.message(m)
	if err != nil {
		return &Failure{Permanent: true, what: "the mail cannot be written"}
	}
	client, err := s.client(ctx)
	if err != nil {
		return &Failure{what: "the mail server's settings do not do"}
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return &Failure{Code: replyCode(err), what: "the mail server does not let us in"}
	}
	err = client.SendWithSMTPClient(session, msg)
	_ = session.Quit() // what the server thinks of a good-bye changes nothing
	if msg.IsDelivered() || err == nil {
		return nil
	}
	f := &Failure{what: "the mail was not taken"}
	var refused *mail.SendError
	if errors.As(err, &refused) {
		f.Code = refused.ErrorCode()
		// A refusal of the sender or of the content would hit every mail: those are worth another attempt, once somebody
		// has mended the settings.
		f.Permanent = refused.Reason == mail.ErrSMTPRcptTo && f.Code/100 == 5
	}
	return f
}

// client prepares a connection to the server, which ends with ctx.
func (s *Sender) client(ctx context.Context) (*mail.Client, error) {
	options := []mail.Option{
		mail.WithPort(s.server.Port), mail.WithTimeout(s.limit), mail.WithDialContextFunc(s.dialIn(ctx)), mail.WithoutNoop(), mail.WithoutRset(),
		mail.WithTLSConfig(s.tlsConfig()), mail.WithHELO(s.hello()),
	}
	switch {
	case s.server.Implicit: // dial has done it; this makes the library see that
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	case s.server.Local:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if s.server.User != "" {
		kind := mail.SMTPAuthAutoDiscover
		if s.server.Local && !s.server.Implicit {
			kind = mail.SMTPAuthPlainNoEnc
		}
		options = append(options, mail.WithSMTPAuth(kind), mail.WithUsername(s.server.User), mail.WithPassword(s.server.Password))
	}
	return mail.NewClient(s.server.Host, options...)
}

func (s *Sender) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: s.server.Host, RootCAs: s.server.Roots, MinVersion: tls.VersionTLS12}
}

// hello is what the server introduces itself as: the domain that it writes from. The machine's own name is nobody's affair.
func (s *Sender) hello() string { return address.Domain(address.Route(s.from.Address)) }

// dialIn connects, for as long as ctx goes on: a server that answers a byte at a time could hold the connection for ever
// otherwise, for the library begins each step with a new limit.
func (s *Sender) dialIn(ctx context.Context) mail.DialContextFunc {
	return func(dialing context.Context, network, at string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(dialing, network, at)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever uses it gets an error
		if !s.server.Implicit {
			return conn, nil
		}
		secure := tls.Client(conn, s.tlsConfig())
		if err := secure.HandshakeContext(dialing); err != nil {
			_ = conn.Close() // it was never used
			return nil, err
		}
		return secure, nil
	}
}

// message writes a mail with its headers.
func (s *Sender) message(m Message) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	msg.FromMailAddress(s.from)
	if err := msg.EnvelopeFrom(s.from.Address); err != nil {
		return nil, err
	}
	if err := msg.To(address.Route(m.To)); err != nil {
		return nil, err
	}
	if m.ID == "" {
		random := make([]byte, 16)
		rand.Read(random)
		m.ID = hex.EncodeToString(random)
	}
	msg.SetMessageIDWithValue(m.ID + "@" + s.hello())
	msg.SetDate()
	msg.Subject(m.Subject)
	// No holiday greeting is to come back for it (RFC 3834).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	if m.Stop != "" {
		msg.SetGenHeader(mail.HeaderListUnsubscribe, "<"+m.Stop+">")
		if strings.HasPrefix(m.Stop, "https://") { // mail programs press the button themselves, but only there
			msg.SetGenHeader(mail.HeaderListUnsubscribePost, "List-Unsubscribe=One-Click")
		}
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// replyCode is the code of the answer that an error holds, 0 if there is none.
func replyCode(err error) int {
	code, _, _ := strings.Cut(err.Error(), " ")
	if n, bad := strconv.Atoi(code); bad == nil && n >= 400 && n < 600 {
		return n
	}
	return 0
}
