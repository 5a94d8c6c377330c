// Package config is the server's configuration: one struct whose tags hold each key's name, meaning and default.
//
// Load reads a YAML file strictly (an unknown key is an error that names its line), then the environment, where every key is
// CONCLAVE_ and its path in upper case with underscores (CONCLAVE_DATABASE_URL), and validates the whole. Print writes the commented
// example, so there is no second place to document a key. InitDir, EnsureDataDir and LoadSecrets deal with the files of a data directory.
// Nothing here knows Matrix beyond the shape of a server name.
package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"conclave/internal/observe"
)

// Config holds every key. A field's tags: `key` its name in YAML, `doc` its meaning, `default` its value when nobody sets it,
// `example` what the printed example shows instead of an empty default, `enum` the values allowed, `built` the values of enum whose feature is
// in this version (absent: all; on a key without enum, "default" says that only the default is).
type Config struct {
	ServerName string `key:"server_name" example:"example.org" doc:"The name after the colon in user IDs. Permanent: it cannot be changed once the server has users or rooms."`
	PublicURL  string `key:"public_url" example:"https://chat.example.org" doc:"Where browsers and apps reach this server. Empty: https:// and the server name."`
	DataDir    string `key:"data_dir" default:"./data" doc:"Holds the embedded database, the signing key, secrets and media; mode 0700. A relative path is below this file's folder."`

	Listen         Listen         `key:"listen" doc:"Addresses to listen on, as host:port."`
	TLS            TLS            `key:"tls" doc:"Certificates. Without files a self-signed pair is made in data_dir/tls."`
	TrustedProxies []netip.Prefix `key:"trusted_proxies" doc:"CIDRs of reverse proxies whose X-Forwarded-For counts for limits and logs, e.g. 127.0.0.0/8."`
	Database       Database       `key:"database" doc:"Where everything but media is kept."`
	Redis          Redis          `key:"redis" doc:"A Redis that several nodes over one PostgreSQL share."`
	Registration   Registration   `key:"registration" doc:"Who may make an account."`
	Auth           Auth           `key:"auth" doc:"How people prove who they are."`
	OIDC           OIDC           `key:"oidc" doc:"Single sign-on through the organization's OpenID Connect provider (Keycloak, Entra ID, Authentik, ...). Register this server there with the redirect URI public_url/_matrix/client/unstable/im.conclave.sso/callback."`
	Audit          Audit          `key:"audit" doc:"The log of what matters for the safety of accounts: logins, changes, administrators' acts."`
	RateLimits     RateLimits     `key:"rate_limits" doc:"Limits on requests per user and address."`
	Email          Email          `key:"email" doc:"Outgoing mail."`
	Federation     Federation     `key:"federation" doc:"Talking to other Matrix servers."`
	Identity       Identity       `key:"identity_servers" doc:"Identity servers: they tell which user an e-mail address or telephone number belongs to. Users of this server name one when they invite by address."`
	Network        Network        `key:"network" doc:"What outgoing connections may reach."`
	Media          Media          `key:"media" doc:"Uploaded files."`
	Presence       Presence       `key:"presence" doc:"Whether people are online."`
	URLPreviews    URLPreviews    `key:"url_previews" doc:"Previews of links, fetched by the server."`
	ServerNotices  ServerNotices  `key:"server_notices" doc:"What administrators have the server tell a user, over POST /_synapse/admin/v1/send_server_notice."`
	Profiles       Profiles       `key:"profiles" doc:"What people say of themselves."`
	TURN           TURN           `key:"turn" doc:"A relay for calls, such as coturn with use-auth-secret, between people who cannot reach one another directly."`
	Support        Support        `key:"support" doc:"Whom people turn to for help: shown to everybody, at /.well-known/matrix/support."`
	AppServices    []string       `key:"app_services" doc:"Registration files of application services (bridges, bots). A relative path is below this file's folder."`
	Log            Log            `key:"log" doc:"What is logged, on standard error."`

	origins  map[string]string // key path → where its value came from, for errors
	warnings []string
}

// Listen holds the addresses of the three ports.
type Listen struct {
	Client     string `key:"client" default:"127.0.0.1:8008" doc:"Client API and web client; plain HTTP unless tls.client."`
	Federation string `key:"federation" default:"127.0.0.1:8448" doc:"Server-server API; TLS unless tls.federation is false (behind a proxy). May equal client."`
	Admin      string `key:"admin" default:"127.0.0.1:8009" doc:"Metrics, health and profiling, without authentication: keep it on loopback or behind a firewall. Empty: off."`
}

// TLS names certificates and says which ports use them.
type TLS struct {
	CertFile   string `key:"cert_file" doc:"Certificate chain in PEM."`
	KeyFile    string `key:"key_file" doc:"Its private key in PEM."`
	Client     bool   `key:"client" default:"false" doc:"TLS on listen.client."`
	Federation bool   `key:"federation" default:"true" doc:"TLS on listen.federation."`
}

// Database says which engine holds the data.
type Database struct {
	URL observe.Secret `key:"url" default:"sqlite:conclave.db" doc:"sqlite:FILE (a relative path is below data_dir) or postgres://user:password@host/name."`
}

// Redis joins several nodes.
type Redis struct {
	URL    observe.Secret `key:"url" doc:"redis://user:password@host:port, or rediss://... for TLS. Rate limits are counted there, under hashes that all nodes make with the same auth.secret_key; while it does not answer each node counts for itself. Nothing that matters is kept there: maxmemory with the policy allkeys-lru suits it. In this version it is used for limits only, and a second node over the same database is still refused. Empty: limits are counted in this process."`
	CAFile string         `key:"ca_file" doc:"Certificates in PEM that are trusted in addition to the system's for rediss://."`
}

// Registration says who may make an account.
type Registration struct {
	Mode                string         `key:"mode" default:"closed" enum:"closed token approval open" doc:"closed: only the administrator makes accounts. token: with a token or a link that the administrator has made. approval: the administrator has to approve of each. open: everybody."`
	Challenge           string         `key:"challenge" default:"none" enum:"none pow" doc:"none, or pow: with open and approval the client has to do some work first, which costs whoever makes accounts in bulk. Clients that do not know it show a page of the server that does it."`
	RequireEmail        bool           `key:"require_email" default:"false" doc:"Whether whoever makes an account has to confirm an e-mail address first."`
	AllowedEmailDomains []string       `key:"allowed_email_domains" doc:"If not empty, only addresses of these domains may register, and whoever makes an account has to confirm one."`
	SharedSecret        observe.Secret `key:"shared_secret" doc:"Lets programs that know it make accounts over POST /_synapse/admin/v1/register. Empty: off."`
	Guests              bool           `key:"guests" default:"false" doc:"Whether anybody may come in as a guest, without an account: guests may join only the rooms that let them (m.room.guest_access), and read and write there."`
	GuestsPerHour       int            `key:"guests_per_hour" default:"10" doc:"How many guests one address may have in an hour. 0: any number."`
	GuestIdleDays       int            `key:"guest_idle_days" default:"30" doc:"After how many days without use the account of a guest is closed."`
	Terms               []string       `key:"terms" doc:"Documents that people have to agree to when they make an account: of each, a text for every language, as ID VERSION LANGUAGE URL TITLE, e.g. privacy 1.2 en https://example.org/privacy.html Privacy policy."`
	RequestDays         int            `key:"request_days" default:"30" doc:"How long a request for an account (mode: approval) waits for an answer, in days. Then it is over, its name is free, and whoever has given an address is told. 0: for ever."`
	Username            Username       `key:"username" doc:"Which names people may choose. Administrators and application services may give others."`
}

// The values of Registration.Mode beside closed, and of Registration.Challenge beside none.
const (
	RegistrationToken    = "token"
	RegistrationApproval = "approval"
	RegistrationOpen     = "open"
	ChallengeWork        = "pow"
)

// Username says which localparts people may choose.
type Username struct {
	MinLength int      `key:"min_length" default:"1" doc:"The least number of characters."`
	Reserved  []string `key:"reserved" default:"admin administrator root system security abuse postmaster hostmaster webmaster" doc:"Names that nobody may choose, as regular expressions (RE2) for the whole name, without regard to case."`

	reserved []*regexp.Regexp
}

// The values of Auth.Require2FA that ask somebody for a second factor.
const (
	Require2FAAdmins = "admins"
	Require2FAAll    = "all"
)

// Auth says how people prove who they are.
type Auth struct {
	Argon2     Argon2 `key:"argon2" doc:"Cost of a password hash (argon2id) in memory and time; raise it, rather than lower."`
	Require2FA string `key:"require_2fa" default:"none" enum:"none admins all" doc:"Who must use a second factor: none, admins or all. Nobody is locked out: whoever has none when the time is over can do nothing else than set one up, in this server's own client."`
	GraceHours int    `key:"grace_hours" default:"168" doc:"How long somebody may go without the second factor that require_2fa asks for, from when the server first sees them under that rule, in hours."`

	SecretKey observe.Secret `key:"secret_key" doc:"What secrets in the database, such as those of authenticator apps, are encrypted with: 32 random bytes in base64, e.g. from openssl rand -base64 32. All nodes need the same one, and with another one authenticator apps have to be set up again. Empty: the one in data_dir/secrets.yaml."`
}

// OIDC is the organization's own provider of logins.
type OIDC struct {
	Issuer        string         `key:"issuer" doc:"The provider's issuer, such as https://login.example.org/realms/staff. Empty: no single sign-on."`
	ClientID      string         `key:"client_id" doc:"What this server is called there."`
	ClientSecret  observe.Secret `key:"client_secret" doc:"Its secret there."`
	Name          string         `key:"name" default:"Single sign-on" doc:"What the button says."`
	Scopes        string         `key:"scopes" default:"openid profile email" doc:"What is asked of the provider, separated by blanks."`
	UsernameClaim string         `key:"username_claim" default:"preferred_username" doc:"The claim that a new account's name is made of."`
	Register      bool           `key:"register" default:"true" doc:"Whether somebody who has no account here gets one at the first sign-in. False: only whom an administrator has linked."`
}

// Argon2 holds the parameters of argon2id.
type Argon2 struct {
	MemoryKiB int `key:"memory_kib" default:"65536" doc:"Memory per login in KiB."`
	Time      int `key:"time" default:"2" doc:"Passes over the memory."`
	Threads   int `key:"threads" default:"1" doc:"Lanes computed in parallel."`
}

// Audit says how long the audit log is kept.
type Audit struct {
	RetentionDays int `key:"retention_days" default:"400" doc:"How long an entry is kept, in days; that older ones were removed is noted. 0: for ever."`
}

// RateLimits switches the limits on requests.
type RateLimits struct {
	Enabled bool `key:"enabled" default:"true" doc:"Off only for load tests on a private network."`
}

// Email says how mail leaves.
type Email struct {
	SMTPURL observe.Secret `key:"smtp_url" doc:"smtp://user:password@host:port, where TLS (STARTTLS) is required unless the host is this machine, or smtps://… for TLS from the first byte. Without a port 587 or 465. Empty: no mail is sent, and nobody can confirm an address."`
	From    string         `key:"from" example:"Conclave <conclave@example.org>" doc:"Sender's address, with or without a name before it. Needed with smtp_url."`
	CAFile  string         `key:"ca_file" doc:"Certificates in PEM that are trusted in addition to the system's when mail is handed over."`
}

// Federation says whom we talk to.
type Federation struct {
	Enabled bool     `key:"enabled" default:"true" doc:"Off: no other server is contacted or answered."`
	CAFile  string   `key:"ca_file" doc:"Certificates in PEM that are trusted in addition to the system's."`
	Allow   []string `key:"allow" doc:"If not empty, only these servers; * stands for any run of characters."`
	Deny    []string `key:"deny" doc:"Never these servers, whatever allow says."`

	Notaries           []string `key:"notaries" doc:"Servers that are asked, in this order, for the keys of servers that do not answer. Their answers count only with the signature of the server in question."`
	RequireDestination bool     `key:"require_destination" default:"true" doc:"Requests of other servers must say that they are for this one. False also lets in what very old servers sign, which somebody else may have been sent."`
}

// Identity says which identity servers may be asked.
type Identity struct {
	Allow []string `key:"allow" doc:"If not empty, only these servers; * stands for any run of characters."`
	Deny  []string `key:"deny" doc:"Never these servers, whatever allow says; [\"*\"] lets nobody invite by address."`
}

// Network limits outgoing connections.
type Network struct {
	AllowPrivate []netip.Prefix `key:"allow_private" doc:"CIDRs that outgoing connections may reach although private, e.g. 127.0.0.0/8 in tests or 10.1.0.0/16 for partners in the house."`
}

// Media says where uploads go and how large they may be.
type Media struct {
	Store               string `key:"store" default:"file" enum:"file s3" doc:"file: below data_dir/media, for a single node. s3: an S3 bucket, for any number of nodes."`
	MaxUploadBytes      int64  `key:"max_upload_bytes" default:"104857600" doc:"Largest plain upload."`
	MaxResumableBytes   int64  `key:"max_resumable_bytes" default:"10737418240" doc:"Largest resumable upload."`
	MaxBytesPerUser     int64  `key:"max_bytes_per_user" default:"0" doc:"How much one user may store, unfinished uploads counted whole; 0: no limit."`
	MaxBytesPerUserHour int64  `key:"max_bytes_per_user_hour" default:"21474836480" doc:"How much one user may upload in an hour; 0: no limit. Off with rate_limits.enabled: false."`
	S3                  S3     `key:"s3" doc:"Where the bucket is, with store: s3. Uploads wait in data_dir/media/pending until they are there."`
}

// S3 names a bucket.
type S3 struct {
	Endpoint  string         `key:"endpoint" doc:"https://host of the S3 service, with a port if need be; http:// only for one on this machine or a network of your own."`
	Region    string         `key:"region" doc:"Its region. Empty: it is asked."`
	Bucket    string         `key:"bucket" doc:"Name of the bucket, which has to exist. The server refuses one that everybody can read."`
	AccessKey string         `key:"access_key" doc:"Name of an access key that may read, write and delete in the bucket."`
	SecretKey observe.Secret `key:"secret_key" doc:"The access key's secret."`
}

// Presence switches the display of who is online.
type Presence struct {
	Enabled    bool `key:"enabled" default:"true" doc:"Off: nobody appears online, and presence from other servers is ignored."`
	Federation bool `key:"federation" default:"false" doc:"On: who is online is told to servers that share a room, and taken from them. It is what costs most of presence where rooms have many servers."`
}

// URLPreviews switches link previews. Any user names the pages, and reads what stands there: so network.allow_private,
// which is for partners that the administrator knows, does not count for them.
type URLPreviews struct {
	Enabled      bool           `key:"enabled" default:"false" doc:"On: the server fetches pages that people link to, and learns which. Their servers learn its address, not that of the people."`
	AllowPrivate []netip.Prefix `key:"allow_private" doc:"CIDRs of private addresses whose pages may be fetched: everybody with an account can read them. network.allow_private does not count here."`
	Ports        []string       `key:"ports" doc:"Ports that pages may be fetched from, beside 80 and 443."`
}

// ServerNotices says as whom the server speaks to its users.
type ServerNotices struct {
	Localpart string `key:"localpart" default:"server-notices" doc:"The localpart of the user ID that it uses: nobody's else. It is made with the first notice."`
	Name      string `key:"name" default:"Server notices" doc:"What this user and its rooms are called."`
}

// Profiles says what people may change of their profiles.
type Profiles struct {
	Fixed []string `key:"fixed" doc:"Fields that nobody can change by a client, e.g. displayname and avatar_url."`
}

// TURN names a relay for calls.
type TURN struct {
	URIs         []string       `key:"uris" doc:"Its addresses, e.g. turn:turn.example.org?transport=udp. Empty: there is none."`
	SharedSecret observe.Secret `key:"shared_secret" doc:"What the relay calls static-auth-secret. Users get passwords made of it that end by themselves."`
	TTL          int            `key:"ttl" default:"86400" doc:"How long such a password is good, in seconds."`
}

// Support names the people who run the server.
type Support struct {
	Page     string   `key:"page" doc:"A web page with help, https://…."`
	Admin    []string `key:"admin" doc:"User IDs and e-mail addresses for any question."`
	Security []string `key:"security" doc:"User IDs and e-mail addresses for what must stay between you and whoever reports it."`
}

// Log says how much is logged and in what form.
type Log struct {
	Level  string `key:"level" default:"info" enum:"debug info warn error" doc:"debug, info, warn or error."`
	Format string `key:"format" default:"text" enum:"text json" doc:"text for people, json for programs."`
}

// NeedsEmail reports whether an account can only be made with an e-mail address.
func (r Registration) NeedsEmail() bool { return r.RequireEmail || len(r.AllowedEmailDomains) > 0 }

// Warnings are sentences about settings that are allowed but deserve a second look; serve logs them.
func (c *Config) Warnings() []string { return c.warnings }

// OneListener reports whether the client and the federation API share a port (both behind one proxy).
func (c *Config) OneListener() bool { return c.Listen.Client == c.Listen.Federation }

// InData returns the path of a file of the data directory; an absolute name stays as it is.
func (c *Config) InData(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.DataDir, name)
}

// LoopbackOnly reports whether the client and federation ports are reachable from this machine alone.
func (c *Config) LoopbackOnly() bool {
	ports := []string{c.Listen.Client}
	if c.Federation.Enabled {
		ports = append(ports, c.Listen.Federation)
	}
	for _, address := range ports {
		if !isLoopback(address) {
			return false
		}
	}
	return true
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
