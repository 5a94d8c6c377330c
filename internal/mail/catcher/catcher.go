// Package catcher is a mail server in the process of a test or of `conclave dev`: it takes every mail, keeps it, and sends
// nothing on. On demand it is slow, refuses, or hangs up.
package catcher

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Bounds of what is kept.
const (
	maxMails = 1000 // the oldest go first
	maxBytes = 1 << 20
)

// Mail is one that was taken.
type Mail struct {
	From, To string // of the envelope
	Header   mail.Header
	Subject  string // decoded
	Text     string
	HTML     string
	Raw      []byte
	At       time.Time
}

// Link is the first address in the mail's text, "" if there is none.
func (m *Mail) Link() string { return link.FindString(m.Text) }

var link = regexp.MustCompile(`https?://\S+`)

// Options say how a server behaves.
type Options struct {
	Address  string      // to listen on; "" is any port of loopback
	TLS      *tls.Config // offers STARTTLS; nil: no TLS
	Implicit bool        // TLS from the first byte instead
	User     string      // who has to log in; "": nobody
	Password string
	Insecure bool // logging in without TLS is offered
	UTF8     bool // takes names in all alphabets
	Arrived  func(*Mail)
}

// Server takes mails. It is safe for concurrent use.
type Server struct {
	options  Options
	listener net.Listener
	smtp     *smtp.Server

	mu    sync.Mutex
	mails []*Mail
	tried int
	rcpt  func(to string) error
	data  func() error
}

// Start starts a server.
func Start(o Options) (*Server, error) {
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, listener: l}
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return s.session(), nil }))
	s.smtp.Domain, s.smtp.MaxMessageBytes, s.smtp.MaxRecipients = "localhost", maxBytes, 1
	s.smtp.ReadTimeout, s.smtp.WriteTimeout = time.Minute, time.Minute
	s.smtp.ErrorLog = log.New(io.Discard, "", 0) // who hangs up is no news
	s.smtp.AllowInsecureAuth, s.smtp.EnableSMTPUTF8 = o.Insecure, o.UTF8
	if o.Implicit {
		l = tls.NewListener(l, o.TLS)
	} else {
		s.smtp.TLSConfig = o.TLS
	}
	go func() { _ = s.smtp.Serve(l) }() // it ends with Close
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// URL is its address for the configuration of a homeserver.
func (s *Server) URL() string { return "smtp://" + s.Address() }

// Close ends it.
func (s *Server) Close() error { return s.smtp.Close() }

// Refuse makes the server answer every recipient, and what comes after, with these errors; nil takes them again.
func (s *Server) Refuse(rcpt func(to string) error, data func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcpt, s.data = rcpt, data
}

// Error is an answer with a code.
func Error(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: text}
}

// Mails are those to an address, or all if it is "", oldest first.
func (s *Server) Mails(to string) []*Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Mail
	for _, m := range s.mails {
		if to == "" || m.To == to {
			out = append(out, m)
		}
	}
	return out
}

// Tried counts how often a recipient was named, whether it was taken or not.
func (s *Server) Tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried
}

func (s *Server) keep(m *Mail) {
	s.mu.Lock()
	s.mails = append(s.mails, m)
	if len(s.mails) > maxMails {
		s.mails = s.mails[1:]
	}
	s.mu.Unlock()
	if s.options.Arrived != nil {
		s.options.Arrived(m)
	}
}

func (s *Server) session() smtp.Session {
	base := &session{server: s}
	if s.options.User == "" {
		return base
	}
	return &loginSession{session: base}
}

// session takes the mails of one connection.
type session struct {
	server   *Server
	from, to string
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	s.server.tried++
	refuse := s.server.rcpt
	s.server.mu.Unlock()
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	s.to = to
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	refuse := s.server.data
	s.server.mu.Unlock()
	if refuse != nil {
		if err := refuse(); err != nil {
			return err
		}
	}
	m, err := parse(raw)
	if err != nil {
		return Error(554, err.Error())
	}
	m.From, m.To = s.from, s.to
	s.server.keep(m)
	return nil
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.from, s.to = "", "" }

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// loginSession is a session that has to log in.
type loginSession struct {
	*session
	in bool
}

// AuthMechanisms implements smtp.AuthSession.
func (s *loginSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (s *loginSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.server.options.User || password != s.server.options.Password {
			return errors.New("wrong user or password")
		}
		s.in = true
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *loginSession) Mail(from string, o *smtp.MailOptions) error {
	if !s.in {
		return smtp.ErrAuthRequired
	}
	return s.session.Mail(from, o)
}

// parse reads a mail as a mail program would. One that a program could not read is refused.
func parse(raw []byte) (*Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("no mail: %w", err)
	}
	m := &Mail{Header: msg.Header, Raw: raw, At: time.Now()}
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject")); err != nil {
		return nil, fmt.Errorf("its subject: %w", err)
	}
	return m, m.read(msg.Header.Get("Content-Type"), msg.Header.Get("Content-Transfer-Encoding"), msg.Body)
}

// read reads a part.
func (m *Mail) read(contentType, encoding string, body io.Reader) error {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("its content type: %w", err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			part, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := m.read(part.Header.Get("Content-Type"), part.Header.Get("Content-Transfer-Encoding"), part); err != nil {
				return err
			}
		}
	}
	if strings.EqualFold(encoding, "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	data, err := io.ReadAll(body)
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	switch kind {
	case "text/plain":
		m.Text = text
	case "text/html":
		m.HTML = text
	}
	return err
}
