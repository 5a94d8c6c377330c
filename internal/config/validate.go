package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/mail"
	"conclave/internal/mail/address"
)

// resolve turns relative paths into ones that do not depend on the working directory of the caller: those of the file are below its folder,
// those of the environment below the working directory.
func (c *Config) resolve(base string) {
	for key, path := range map[string]*string{
		"data_dir": &c.DataDir, "tls.cert_file": &c.TLS.CertFile, "tls.key_file": &c.TLS.KeyFile, "federation.ca_file": &c.Federation.CAFile, "email.ca_file": &c.Email.CAFile, "redis.ca_file": &c.Redis.CAFile,
	} {
		from := base
		if strings.HasPrefix(c.origins[key], "CONCLAVE_") {
			from = "."
		}
		*path = filepathFrom(from, *path)
	}
	for i, path := range c.AppServices {
		c.AppServices[i] = filepathFrom(base, path)
	}
	if abs, err := filepath.Abs(c.DataDir); err == nil {
		c.DataDir = abs
	}
	if c.PublicURL == "" && c.ServerName != "" {
		c.PublicURL = "https://" + c.ServerName
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
}

// errorf makes the error about a key's value, led by the place it was written at.
func (c *Config) errorf(path, format string, args ...any) error {
	return fmt.Errorf("%s%s: %s", c.origins[path], path, fmt.Sprintf(format, args...))
}

func (c *Config) validate() error {
	checks := []func() error{c.checkFeatures, c.checkNames, c.checkListen, c.checkTLS, c.checkDatabase, c.checkRedis, c.checkAuth, c.checkOIDC, c.checkMedia, c.checkFederation, c.checkPreviews, c.checkTURN, c.checkSupport, c.checkNotices, c.checkEmail, c.checkRegistration}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	if c.Registration.Mode == "open" && c.Registration.Challenge == "none" && !c.LoopbackOnly() {
		c.warnings = append(c.warnings, "registration is open to everybody without a challenge, on an address that others can reach")
	}
	slices.Sort(c.warnings)
	return nil
}

// checkFeatures refuses values that are not in a key's list, and those whose feature this version does not have.
func (c *Config) checkFeatures() error {
	for _, f := range leaves(reflect.ValueOf(c).Elem(), "") {
		enum, built := strings.Fields(f.tag.Get("enum")), strings.Fields(f.tag.Get("built"))
		switch {
		case len(enum) > 0 && !slices.Contains(enum, f.text()):
			return c.errorf(f.path, "%q is none of %s", f.text(), strings.Join(enum, ", "))
		case len(enum) > 0 && len(built) > 0 && !slices.Contains(built, f.text()):
			return c.errorf(f.path, "%q is not available in this version; use %s", f.text(), strings.Join(built, " or "))
		case len(enum) == 0 && len(built) > 0 && !f.atDefault():
			return c.errorf(f.path, "this is not available in this version; remove the key")
		}
	}
	return nil
}

func (c *Config) checkNames() error {
	const key = "server_name"
	name := c.ServerName
	switch {
	case name == "":
		return c.errorf(key, "it is missing; write the name that is to stand in user IDs, e.g. server_name: example.org")
	case len(name) > 230: // leaves room for a localpart: a user ID has at most 255 bytes
		return c.errorf(key, "it is longer than 230 characters")
	case strings.Contains(name, "://"), strings.ContainsAny(name, "/ @?#%\t\r\n"):
		return c.errorf(key, "%q must be a host name, without https:// or a path", name)
	case name != strings.ToLower(name):
		return c.errorf(key, "%q must be in lower case", name)
	}
	u, err := url.Parse("https://" + name)
	if err != nil || u.Host != name || u.Hostname() == "" || (u.Port() == "" && strings.HasSuffix(name, ":")) {
		return c.errorf(key, "%q is not host or host:port", name)
	}
	p, err := url.Parse(c.PublicURL)
	if err != nil || (p.Scheme != "https" && p.Scheme != "http") || p.Host == "" || p.User != nil || p.Path != "" || p.RawQuery != "" || p.Fragment != "" {
		return c.errorf("public_url", "%q must be https://host, with a port if need be and nothing after it", c.PublicURL)
	}
	return nil
}

func (c *Config) checkListen() error {
	ports := []struct {
		key, address string
		optional     bool
	}{{"listen.client", c.Listen.Client, false}, {"listen.federation", c.Listen.Federation, !c.Federation.Enabled}, {"listen.admin", c.Listen.Admin, true}}
	for _, p := range ports {
		if p.address == "" && p.optional {
			continue
		}
		_, port, err := net.SplitHostPort(p.address)
		if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
			return c.errorf(p.key, "%q must be host:port, e.g. 127.0.0.1:8008, or :8008 for every address", p.address)
		}
	}
	if _, port, _ := net.SplitHostPort(c.Listen.Admin); port != "0" && (c.Listen.Admin == c.Listen.Client || c.Listen.Admin == c.Listen.Federation) {
		return c.errorf("listen.admin", "it must not share a port with the public APIs; choose another port")
	}
	if c.OneListener() && c.TLS.Client != c.TLS.Federation {
		return c.errorf("listen.federation", "it is the same address as listen.client, so tls.client and tls.federation must be equal")
	}
	if c.Listen.Admin != "" && !isLoopback(c.Listen.Admin) {
		c.warnings = append(c.warnings, "listen.admin is not on loopback: metrics and profiling can be read by whoever reaches it")
	}
	return nil
}

func (c *Config) checkPreviews() error {
	for _, port := range c.URLPreviews.Ports {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
			return c.errorf("url_previews.ports", "%q must be a port, e.g. 8080", port)
		}
	}
	if c.URLPreviews.Enabled && len(c.URLPreviews.AllowPrivate) > 0 {
		c.warnings = append(c.warnings, "url_previews.allow_private: everybody with an account can read web pages at these addresses")
	}
	return nil
}

func (c *Config) checkTLS() error {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return c.errorf("tls", "cert_file and key_file belong together; set both or none")
	}
	files := []struct{ key, path string }{{"tls.cert_file", c.TLS.CertFile}, {"tls.key_file", c.TLS.KeyFile}, {"federation.ca_file", c.Federation.CAFile}, {"email.ca_file", c.Email.CAFile}, {"redis.ca_file", c.Redis.CAFile}}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			return c.errorf(f.key, "cannot read it: %v", err)
		}
	}
	return nil
}

// checkDatabase looks at the scheme only, and never repeats the address: it may hold a password.
func (c *Config) checkDatabase() error {
	address := c.Database.URL.Reveal()
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok && path != "" {
		return nil
	}
	if strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://") {
		if _, err := url.Parse(address); err != nil {
			return c.errorf("database.url", "it is not a valid address; characters such as @ or / in a password are written as %%40 and %%2F")
		}
		return nil
	}
	return c.errorf("database.url", "it must begin with sqlite: or postgres://")
}

// checkRedis does not repeat the address either.
func (c *Config) checkRedis() error {
	address := c.Redis.URL.Reveal()
	if address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" {
		return c.errorf("redis.url", "it must be redis://host:port or rediss://host:port (TLS), with user:password@ before the host if need be; characters such as @ or / in a password are written as %%40 and %%2F")
	}
	if u.Scheme == "redis" && !isLoopback(hostPort(u)) {
		c.warnings = append(c.warnings, "redis.url is without TLS: whoever is on the way can read the password of Redis, and lift limits")
	}
	return nil
}

func (c *Config) checkAuth() error {
	if c.Auth.GraceHours < 0 || c.Auth.GraceHours > 8760 {
		return c.errorf("auth.grace_hours", "it must be from 0 to 8760, which is a year")
	}
	for key, days := range map[string]int{"audit.retention_days": c.Audit.RetentionDays, "registration.request_days": c.Registration.RequestDays} {
		if days < 0 || days > 36500 {
			return c.errorf(key, "it must be from 0, for ever, to 36500, a hundred years")
		}
	}
	a := c.Auth.Argon2
	if a.Threads < 1 || a.Threads > 64 {
		return c.errorf("auth.argon2.threads", "it must be between 1 and 64")
	}
	if a.Time < 1 || a.Time > 100 {
		return c.errorf("auth.argon2.time", "it must be between 1 and 100")
	}
	if low := 8 * a.Threads; a.MemoryKiB < low || a.MemoryKiB > 4<<20 {
		return c.errorf("auth.argon2.memory_kib", "it must be between %d and %d", low, 4<<20)
	}
	if key := c.Auth.SecretKey.Reveal(); key != "" {
		if _, err := parseMaster(key); err != nil {
			return c.errorf("auth.secret_key", "it must be 32 random bytes in base64; make one with: openssl rand -base64 32")
		}
	}
	if a.MemoryKiB*a.Time < 19456*2 { // the least that OWASP's password storage advice gives for argon2id: 19 MiB twice
		c.warnings = append(c.warnings, "auth.argon2 is weaker than 19456 KiB with two passes: passwords in a stolen database are easier to guess")
	}
	return nil
}

func (c *Config) checkMedia() error {
	if c.Media.MaxUploadBytes < 1 {
		return c.errorf("media.max_upload_bytes", "it must be at least 1")
	}
	if c.Media.MaxResumableBytes < c.Media.MaxUploadBytes {
		return c.errorf("media.max_resumable_bytes", "it must be at least media.max_upload_bytes, %d", c.Media.MaxUploadBytes)
	}
	if c.Media.MaxBytesPerUser < 0 {
		return c.errorf("media.max_bytes_per_user", "it must be at least 0, which is no limit")
	}
	if c.Media.MaxBytesPerUserHour < 0 {
		return c.errorf("media.max_bytes_per_user_hour", "it must be at least 0, which is no limit")
	}
	return c.checkS3()
}

// What S3 holds: an object that is written at once, and one of 10,000 pieces of 16 MiB.
const (
	s3Upload    = 5 << 30
	s3Resumable = 10_000 * 16 << 20
)

func (c *Config) checkOIDC() error {
	o := c.OIDC
	if o.Issuer == "" {
		if o.ClientID != "" || o.ClientSecret.Reveal() != "" {
			return c.errorf("oidc.issuer", "it is missing")
		}
		return nil
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(hostPort(u))) {
		return c.errorf("oidc.issuer", "%q must be https://host and what the provider says comes after it", o.Issuer)
	}
	for _, k := range [][2]string{{"client_id", o.ClientID}, {"client_secret", o.ClientSecret.Reveal()}, {"username_claim", o.UsernameClaim}} {
		if k[1] == "" {
			return c.errorf("oidc."+k[0], "it is missing, and oidc.issuer is set")
		}
	}
	if !slices.Contains(strings.Fields(o.Scopes), "openid") {
		return c.errorf("oidc.scopes", "openid has to be one of them")
	}
	return nil
}

// hostPort is the host of a URL with a port, as isLoopback reads it.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "80")
}

func (c *Config) checkS3() error {
	s3 := c.Media.S3
	if c.Media.Store != "s3" {
		if s3 != (S3{}) {
			c.warnings = append(c.warnings, "media.s3 is set and media.store is not s3: nothing is kept in the bucket")
		}
		return nil
	}
	for _, k := range [][2]string{{"endpoint", s3.Endpoint}, {"bucket", s3.Bucket}, {"access_key", s3.AccessKey}, {"secret_key", s3.SecretKey.Reveal()}} {
		if k[1] == "" {
			return c.errorf("media.s3."+k[0], "it is missing, and media.store is s3")
		}
	}
	u, err := url.Parse(s3.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return c.errorf("media.s3.endpoint", "%q must be https://host, with a port if need be and nothing after it", s3.Endpoint)
	}
	if u.Scheme == "http" && !isLoopback(net.JoinHostPort(u.Hostname(), "80")) {
		c.warnings = append(c.warnings, "media.s3.endpoint is without TLS: whoever is on the way can read files")
	}
	if c.Media.MaxUploadBytes > s3Upload {
		return c.errorf("media.max_upload_bytes", "with media.store: s3 it must be at most %d", s3Upload)
	}
	if c.Media.MaxResumableBytes > s3Resumable {
		return c.errorf("media.max_resumable_bytes", "with media.store: s3 it must be at most %d", int64(s3Resumable))
	}
	return nil
}

func (c *Config) checkFederation() error {
	for key, list := range map[string][]string{"federation.allow": c.Federation.Allow, "federation.deny": c.Federation.Deny, "federation.notaries": c.Federation.Notaries,
		"identity_servers.allow": c.Identity.Allow, "identity_servers.deny": c.Identity.Deny} {
		for _, name := range list {
			if name == "" || len(name) > 255 || strings.ContainsAny(name, "/ @") || key == "federation.notaries" && strings.ContainsAny(name, "*?") {
				return c.errorf(key, "%q is not a server name", name)
			}
		}
	}
	return nil
}

// maxTURN bounds how long a password for the relay is good: a month, in seconds.
const maxTURN = 31 * 24 * 60 * 60

func (c *Config) checkTURN() error {
	for _, uri := range c.TURN.URIs {
		rest, found := strings.CutPrefix(uri, "turn:")
		if !found {
			rest, found = strings.CutPrefix(uri, "turns:")
		}
		if !found || rest == "" || strings.ContainsAny(rest, " /@") {
			return c.errorf("turn.uris", "%q must be turn:host:port or turns:host:port, perhaps with ?transport=udp", uri)
		}
	}
	switch {
	case len(c.TURN.URIs) > 0 && c.TURN.SharedSecret.Reveal() == "":
		return c.errorf("turn.shared_secret", "it is missing; write what the relay has as static-auth-secret")
	case c.TURN.TTL < 60 || c.TURN.TTL > maxTURN:
		return c.errorf("turn.ttl", "it must be from 60 to %d seconds", maxTURN)
	}
	return nil
}

func (c *Config) checkSupport() error {
	if page := c.Support.Page; page != "" {
		u, err := url.Parse(page)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return c.errorf("support.page", "%q must be https://…", page)
		}
	}
	for key, list := range map[string][]string{"support.admin": c.Support.Admin, "support.security": c.Support.Security} {
		for _, address := range list {
			user, isUser := strings.CutPrefix(address, "@")
			local, host, ok := strings.Cut(address, "@")
			if isUser {
				local, host, ok = strings.Cut(user, ":")
			}
			if !ok || local == "" || host == "" || strings.ContainsAny(address, " \t\r\n") {
				return c.errorf(key, "%q is neither a user ID, @name:server, nor an e-mail address", address)
			}
		}
	}
	return nil
}

func (c *Config) checkNotices() error {
	name := c.ServerNotices.Localpart
	if name == "" || len(name) > 24 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._=-") != "" {
		return c.errorf("server_notices.localpart", "%q must be of 1 to 24 small letters, digits and . _ = -", name)
	}
	if c.ServerNotices.Name == "" || len(c.ServerNotices.Name) > 100 {
		return c.errorf("server_notices.name", "it must have 1 to 100 bytes")
	}
	return nil
}

// checkEmail never repeats the address of the mail server: it may hold a password.
func (c *Config) checkEmail() error {
	set := c.Email.SMTPURL.Reveal() != ""
	if set {
		if _, err := mail.ParseServer(c.Email.SMTPURL.Reveal()); err != nil {
			return c.errorf("email.smtp_url", "%v", err)
		}
		if _, err := mail.ParseFrom(c.Email.From); err != nil {
			return c.errorf("email.from", "%q: %v", c.Email.From, err)
		}
	}
	for _, domain := range c.Registration.AllowedEmailDomains {
		if _, ok := address.Mailbox("a@" + domain); !ok {
			return c.errorf("registration.allowed_email_domains", "%q is not the domain of e-mail addresses", domain)
		}
	}
	if c.Registration.NeedsEmail() && !set {
		return c.errorf("email.smtp_url", "it is missing, and registration needs e-mail addresses")
	}
	return nil
}
