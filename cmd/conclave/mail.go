package main

import (
	"fmt"

	"conclave/internal/accounts"
	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
)

// makeAccounts builds the domain of accounts, and lets what works for it in the background work.
func (s *server) makeAccounts() error {
	secrets, err := s.conf.Secrets()
	if err != nil {
		return err
	}
	o := accounts.Options{
		DB: s.db, Server: s.identity.Name(), Config: s.conf, Bus: s.bus, Log: s.log, Provide: s.bridges.HasUser, Secrets: secrets, Limits: s.limits,
		Outgoing:  netguard.NewDialer(s.conf.Network.AllowPrivate, nil).HTTPClient(netguard.HTTPOptions{}),
		Exclusive: func(user matrix.UserID) bool { return s.services.UserOwner(user, nil) != nil },
		Closed: func(user store.UserNID) {
			s.presence.Closed(user)
			s.keys.Closed()
		},
	}
	sender, err := s.mailSender()
	if err != nil {
		return err
	}
	if sender != nil {
		o.Mail = sender
	}
	if s.remote != nil {
		o.Identities = s.remote.identities
	}
	s.accounts = accounts.New(o)
	passwords, factors, links := s.accounts.Looked()
	s.metrics.Count("conclave_passwords_checked_total", "Passwords of accounts that were looked at, right or wrong.", passwords)
	s.metrics.Count("conclave_second_factors_checked_total", "Second factors that were looked at, right or wrong.", factors)
	s.metrics.Count("conclave_links_checked_total", "Links in mails that were looked at, right or wrong.", links)
	s.work.Go("mail", s.accounts.RunMails)
	s.work.Go("expiry of requests and of the audit log", s.accounts.RunExpiry)
	if s.remote != nil {
		s.work.Go("addresses of closed accounts", s.accounts.RunUnbinds)
	}
	return nil
}

// mailSender is what hands mail to the organization's mail server; nil where none is configured.
func (s *server) mailSender() (*mail.Sender, error) {
	address := s.conf.Email.SMTPURL.Reveal()
	if address == "" {
		return nil, nil
	}
	to, err := mail.ParseServer(address)
	if err != nil {
		return nil, fmt.Errorf("email.smtp_url: %w", err)
	}
	if to.Roots, err = trusted("email.ca_file", s.conf.Email.CAFile); err != nil {
		return nil, err
	}
	from, err := mail.ParseFrom(s.conf.Email.From)
	if err != nil {
		return nil, fmt.Errorf("email.from: %w", err)
	}
	return mail.NewSender(to, from), nil
}
