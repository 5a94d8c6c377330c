package config

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave/internal/observe"
)

// LDAP is the organization's directory.
type LDAP struct {
	URLs           []string       `key:"urls" example:"ldaps://ldap.example.org" doc:"Its servers, tried in this order: ldaps://host is TLS from the first byte, ldap://host becomes TLS by StartTLS. A private address has to be in network.allow_private. Empty: no directory."`
	StartTLS       bool           `key:"start_tls" default:"true" doc:"Whether a connection to ldap:// becomes TLS before anything is said. False only for a directory on this machine."`
	AllowPlaintext bool           `key:"allow_plaintext" default:"false" doc:"Lets start_tls be false for other machines too: everybody's password then crosses the network for all to read."`
	CAFile         string         `key:"ca_file" doc:"Certificates in PEM that are trusted in addition to the system's."`
	BindDN         string         `key:"bind_dn" doc:"The entry as which this server searches, e.g. cn=conclave,ou=services,dc=example,dc=org. It needs to read, nothing else. Empty: nobody's."`
	BindPassword   observe.Secret `key:"bind_password" doc:"Its password."`
	BaseDN         string         `key:"base_dn" doc:"Below which entry people are, e.g. ou=people,dc=example,dc=org."`
	UserFilter     string         `key:"user_filter" default:"(&(objectClass=inetOrgPerson)(uid={name}))" doc:"Who may sign in, with {name} where the name that they typed belongs. Whom it matches no longer is signed out. Active Directory: (&(objectCategory=person)(objectClass=user)(sAMAccountName={name})(!(userAccountControl:1.2.840.113556.1.4.803:=2)))."`

	IDAttribute      string `key:"id_attribute" default:"entryUUID" doc:"What stays the same of somebody whatever they are called. Active Directory: objectGUID. It must not change once people have signed in."`
	NameAttribute    string `key:"name_attribute" default:"uid" doc:"What a new account's name is made of. Active Directory: sAMAccountName."`
	DisplayAttribute string `key:"display_attribute" default:"cn" doc:"What a new account is called at first. Active Directory: displayName."`
	MailAttribute    string `key:"mail_attribute" doc:"A new account's e-mail address, which counts as confirmed: only where people cannot change it themselves. Empty: none is taken."`
	AdminGroup       string `key:"admin_group" doc:"DN of a group (member or uniqueMember) whose members are administrators here, and nobody else of the directory is. Empty: the directory does not say."`

	Create       bool `key:"create" default:"true" doc:"Whether somebody who has no account here gets one at the first sign-in. False: only who has one already signs in by it."`
	TimeoutS     int  `key:"timeout_s" default:"10" doc:"How long all that one sign-in asks of the directory may take, in seconds."`
	CheckMinutes int  `key:"check_minutes" default:"15" doc:"How often the directory is asked whether it still has everybody. Who is gone is signed out everywhere; a directory that cannot be reached signs nobody out."`
}

// LDAPName stands in a user filter where the name belongs.
const LDAPName = "{name}"

// Timeout bounds what one sign-in asks.
func (l LDAP) Timeout() time.Duration { return time.Duration(l.TimeoutS) * time.Second }

// maxLDAPServers bounds how many servers are tried.
const maxLDAPServers = 5

func (c *Config) checkLDAP() error {
	l := c.LDAP
	if len(l.URLs) == 0 {
		if l.BindDN != "" || l.BaseDN != "" || l.BindPassword.Reveal() != "" {
			return c.errorf("ldap.urls", "it is missing")
		}
		return nil
	}
	if err := c.checkLDAPServers(); err != nil {
		return err
	}
	for _, k := range [][2]string{{"base_dn", l.BaseDN}, {"id_attribute", l.IDAttribute}, {"name_attribute", l.NameAttribute}} {
		if k[1] == "" {
			return c.errorf("ldap."+k[0], "it is missing, and ldap.urls is set")
		}
	}
	for _, k := range [][2]string{
		{"id_attribute", l.IDAttribute}, {"name_attribute", l.NameAttribute}, {"display_attribute", l.DisplayAttribute}, {"mail_attribute", l.MailAttribute},
	} {
		if strings.Trim(k[1], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "" {
			return c.errorf("ldap."+k[0], "%q is not the name of an attribute", k[1])
		}
	}
	switch {
	case (l.BindDN == "") != (l.BindPassword.Reveal() == ""):
		return c.errorf("ldap.bind_password", "bind_dn and bind_password belong together; set both or none")
	case !strings.HasPrefix(l.UserFilter, "(") || !strings.HasSuffix(l.UserFilter, ")") || !strings.Contains(l.UserFilter, "="+LDAPName):
		return c.errorf("ldap.user_filter", "%q must be a filter in parentheses that holds an attribute and =%s", l.UserFilter, LDAPName)
	case slices.ContainsFunc([]string{":", "~", "<", ">"}, func(sign string) bool { return strings.Contains(l.UserFilter, sign+"="+LDAPName) }):
		return c.errorf("ldap.user_filter", "before %s there has to be a plain =: the same filter finds people whatever their name is", LDAPName)
	case l.TimeoutS < 1 || l.TimeoutS > 60:
		return c.errorf("ldap.timeout_s", "it must be from 1 to 60 seconds")
	case l.CheckMinutes < 1 || l.CheckMinutes > 1440:
		return c.errorf("ldap.check_minutes", "it must be from 1 to 1440, which is a day")
	}
	return nil
}

func (c *Config) checkLDAPServers() error {
	l := c.LDAP
	if len(l.URLs) > maxLDAPServers {
		return c.errorf("ldap.urls", "there are more than %d", maxLDAPServers)
	}
	for _, address := range l.URLs {
		u, err := url.Parse(address)
		if err != nil || !slices.Contains([]string{"ldap", "ldaps"}, u.Scheme) || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return c.errorf("ldap.urls", "%q must be ldaps://host or ldap://host, with a port if need be and nothing after it", address)
		}
		if u.Scheme == "ldaps" || l.StartTLS || isLoopback(hostPort(u)) {
			continue
		}
		if !l.AllowPlaintext {
			return c.errorf("ldap.start_tls", "without it everybody's password crosses the network to %q for all to read; if that is what you want set ldap.allow_plaintext", address)
		}
		c.warnings = append(c.warnings, "ldap.allow_plaintext: everybody's password crosses the network for all to read")
	}
	return nil
}
