package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
)

// CheckStep is one thing that Check looked at, in words.
type CheckStep struct {
	Topic string // what it is about: name, discovery, connection, certificate, version, keys, clock, requests, reach, ourselves
	Did   string
	Found string
	Fix   string // what would mend it; "" unless OK is false
	OK    bool
}

// maxClockSkew is the difference between two clocks from which on it is a fault: keys are judged by the clock. A clock in
// a header has whole seconds, and the request takes its time.
const maxClockSkew = 30 * time.Second

// Check goes through all it takes to talk with another server, and tells what it finds: how its name resolves, whether it
// can be connected to, its certificate and keys, whether it takes what we sign, and whether it can reach us. running
// says that our own server is up, without which nobody can reach us. It reports whether all is well, and goes on after a
// failure as far as that makes sense.
func (c *Client) Check(ctx context.Context, server matrix.ServerName, running bool, each func(CheckStep)) bool {
	k := &check{c: c, server: server, each: each, well: true}
	if !k.name() {
		return false
	}
	route := k.discover(ctx, server)
	if route == nil || !k.connect(ctx, route) {
		return false
	}
	if !k.version(ctx) {
		return false
	}
	k.keys(ctx)
	if !running {
		k.bad("reach", "looked whether our own server runs", "it does not: whether the other server takes our requests and reaches us cannot be told",
			"start the server (conclave serve) and check again")
		return false
	}
	k.requests(ctx)
	k.reach(ctx)
	if !k.well {
		k.ourselves(ctx)
	}
	return k.well
}

// check is one passage through the steps.
type check struct {
	c      *Client
	server matrix.ServerName
	each   func(CheckStep)
	well   bool
}

func (k *check) good(topic, did, found string) {
	k.each(CheckStep{Topic: topic, Did: did, Found: found, OK: true})
}

func (k *check) bad(topic, did, found, fix string) {
	k.well = false
	k.each(CheckStep{Topic: topic, Did: did, Found: found, Fix: fix})
}

// name looks whether there is anything to be checked.
func (k *check) name() bool {
	did := fmt.Sprintf("read the name %.255q", string(k.server))
	_, err := matrix.ParseServerName(string(k.server))
	switch {
	case err != nil:
		k.bad("name", did, "it is not a server name", "give the part of a user ID after the first colon, such as example.org")
	case k.c.own.IsOurs(k.server):
		k.bad("name", did, "it is our own", "give the name of another server")
	case !k.c.policy.Allowed(k.server):
		k.bad("name", did, "our configuration forbids to federate with it", "change federation.allow or federation.deny")
	default:
		k.good("name", did, "it is a server name that our configuration allows")
		return true
	}
	return false
}

// discover finds where a server is.
func (k *check) discover(ctx context.Context, server matrix.ServerName) *Location {
	route, err := k.c.discovery.Explain(ctx, server)
	if err != nil {
		k.bad("discovery", "looked for "+string(server), plain(err.Error()), "try again: the search was given up")
		return nil
	}
	for _, s := range route.Steps {
		k.good("discovery", "step "+s.Number+": "+s.Did, plain(s.Found))
	}
	return route
}

// connect tries every address to which a route leads, with its certificate. One that works is enough for the rest.
func (k *check) connect(ctx context.Context, route *Location) bool {
	some := false
	for _, target := range route.Targets {
		did := "connected to " + target.String()
		conn, err := k.c.transport.connector.connect(ctx, target.Host, target.Port)
		if err != nil {
			found, fix := explainConnection(err, target)
			k.bad("connection", did, found, fix)
			continue
		}
		k.good("connection", did, "it answers at "+conn.RemoteAddr().String())
		some = k.certificate(ctx, conn, route) || some
	}
	return some
}

// explainConnection says why a connection was not made, and what would help.
func explainConnection(err error, target Target) (found, fix string) {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "its name has no address: " + plain(err.Error()), "the other side must publish an A or AAAA record for " + target.Host + "; or look at the resolver of this machine"
	case errors.Is(err, netguard.ErrDenied):
		return plain(err.Error()), "if the other server is in your own network, name its range in network.allow_private"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there", "the other side must run its server and let port " + fmt.Sprint(target.Port) + " through"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "no answer in time", "look for a firewall on either side that drops connections to port " + fmt.Sprint(target.Port)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no way to its address from here", "look at the network of this machine"
	}
	return plain(err.Error()), "look at the network between the two servers"
}

// certificate looks at what a server presents, and verifies it as every request does.
func (k *check) certificate(ctx context.Context, conn net.Conn, route *Location) bool {
	config := k.c.transport.tls.Clone()
	config.ServerName = route.TLSName
	config.InsecureSkipVerify = true //nolint:gosec // nothing is sent over it; what it presents is verified below
	config.ClientSessionCache = nil
	secured, err := handshake(ctx, conn, config)
	did := "asked for a certificate for " + route.TLSName
	if err != nil {
		k.bad("certificate", did, plain(err.Error()), "the other side must serve TLS 1.2 or newer on this port, not plain HTTP")
		return false
	}
	defer func() { _ = secured.Close() }()
	chain := secured.ConnectionState().PeerCertificates
	leaf := chain[0]
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	what := fmt.Sprintf("it is for %s, valid until %s, issued by %s, over %s", plain(strings.Join(names, ", ")),
		leaf.NotAfter.UTC().Format(time.DateTime+" MST"), plain(leaf.Issuer.String()), tls.VersionName(secured.ConnectionState().Version))
	others := x509.NewCertPool()
	for _, cert := range chain[1:] {
		others.AddCert(cert)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: config.RootCAs, Intermediates: others, DNSName: route.TLSName, CurrentTime: k.c.now()})
	if err != nil {
		k.bad("certificate", did, what+"; "+plain(err.Error()), explainCertificate(err, route.TLSName))
		return false
	}
	if left := leaf.NotAfter.Sub(k.c.now()); left < 7*24*time.Hour {
		what += fmt.Sprintf("; it ends in %d hours", int(left.Hours()))
	}
	k.good("certificate", did, what)
	return true
}

// explainCertificate says what would make a certificate good.
func explainCertificate(err error, name string) string {
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		return "the other side needs a certificate for " + name + ": of the delegated name if there is a delegation, of the server name otherwise"
	case errors.As(err, &authority):
		return "the other side must present a certificate of a known authority with its intermediates; a private authority goes into federation.ca_file here"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the other side must renew its certificate (or the clock of this machine is wrong)"
	}
	return "the other side must present a valid certificate"
}

// version makes the simplest request there is, and compares the clocks.
func (k *check) version(ctx context.Context) bool {
	did := "asked which software it runs"
	asked := k.c.now()
	res, err := k.c.do(ctx, call{
		operation: "getVersion", server: k.server, method: http.MethodGet, unsigned: true, budget: queryBudget, path: v1 + "/version",
	})
	var body []byte
	if err == nil {
		body, err = io.ReadAll(res.Body)
		_ = res.Body.Close() // it was read
	}
	var answer struct {
		Server struct{ Name, Version string } `json:"server"`
	}
	if err == nil {
		err = matrix.Decode(body, &answer)
	}
	if err != nil {
		k.bad("version", did, plain(err.Error()), "what answers there is not a homeserver, or its proxy does not pass /_matrix/federation on")
		return false
	}
	k.good("version", did, plain(answer.Server.Name+" "+answer.Server.Version))
	theirs, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return true // it does not tell its time
	}
	did = "compared the clocks"
	if skew := theirs.Sub(asked).Abs(); skew > maxClockSkew {
		k.bad("clock", did, fmt.Sprintf("they differ by %s", skew.Round(time.Second)), "let both machines set their clocks from the network")
	} else {
		k.good("clock", did, "they agree")
	}
	return true
}

// keys fetches the server's signing keys and verifies its document.
func (k *check) keys(ctx context.Context) {
	did := "fetched its signing keys"
	raw, err := k.c.GetServerKey(ctx, k.server)
	if err != nil {
		k.bad("keys", did, plain(err.Error()), "its proxy must pass /_matrix/key on")
		return
	}
	doc, err := parseKeyDocument(raw, k.server)
	if err != nil {
		k.bad("keys", did, plain(err.Error()), "the other side must publish keys under its own name, signed with them; its server_name may be set wrongly")
		return
	}
	until := time.UnixMilli(doc.validUntil)
	var inUse, old []string
	for id, key := range doc.keys {
		if key.Expired == 0 {
			inUse = append(inUse, string(id))
		} else {
			old = append(old, string(id))
		}
	}
	found := fmt.Sprintf("%s in use, %d retired, valid until %s", strings.Join(inUse, " "), len(old), until.UTC().Format(time.DateTime+" MST"))
	if !until.After(k.c.now()) {
		k.bad("keys", did, found, "the document has run out: the clock of the other side, or of this machine, is wrong, or a cache stands in front of it")
		return
	}
	k.good("keys", did, found)
}

// requests asks something that needs a signature: for an alias that nobody has.
func (k *check) requests(ctx context.Context) {
	did := "made a signed request"
	_, _, err := k.c.QueryRoomDirectory(ctx, matrix.RoomAlias("#conclave-federation-check:"+string(k.server)))
	var refusal *Error
	switch answered := errors.As(err, &refusal); {
	case err == nil, answered && refusal.Status == http.StatusNotFound:
		k.good("requests", did, "it takes our signature")
	case answered && refusal.Status == http.StatusUnauthorized:
		k.bad("requests", did, "it does not take our signature: "+plain(refusal.Code+" "+refusal.Text),
			"it has to fetch our keys first: see whether it can reach us; a wrong clock and a changed signing key have the same effect")
	case answered && refusal.Status == http.StatusForbidden:
		k.bad("requests", did, "it refuses us: "+plain(refusal.Code+" "+refusal.Text), "ask the other side whether it federates with our server name")
	default:
		k.bad("requests", did, plain(err.Error()), "ask the other side what its log says of a request for "+v1+"/query/directory")
	}
}

// reach has the other server, as a notary, look for our own keys: it must come to us for them, because it is asked for
// keys that are valid for longer than any that it may remember.
func (k *check) reach(ctx context.Context) {
	own := k.c.own.Name()
	did := "had it fetch our keys"
	until := k.c.now().Add(documentLife - time.Minute).UnixMilli()
	documents, err := k.c.QueryNotary(ctx, k.server, KeyCriteria{own: {k.c.own.Key().ID: until}})
	if err != nil {
		k.bad("reach", did, plain(err.Error()), "the other side must be able to connect to "+string(own)+": see how our own name resolves below")
		return
	}
	for _, raw := range documents {
		if name, _ := matrix.GetString(raw, "server_name"); name != string(own) {
			continue
		}
		if k.oursIn(raw) {
			k.good("reach", did, "it has our keys, fresh: it can reach us")
		} else {
			k.bad("reach", did, "it has keys of ours that we do not use (any more)", "let the other side look where "+string(own)+" leads from there; an old server may still answer under our name")
		}
		return
	}
	k.bad("reach", did, "it could not fetch them", "the other side must be able to connect to "+string(own)+": see how our own name resolves below")
}

// oursIn reports whether a key document holds the key that we sign with, valid from now on.
func (k *check) oursIn(raw json.RawMessage) bool {
	doc, err := parseKeyDocument(raw, k.c.own.Name())
	if err != nil {
		return false
	}
	key, ok := doc.keys[k.c.own.Key().ID]
	return ok && key.Public.Equal(k.c.own.Key().Public()) && doc.validUntil > k.c.now().UnixMilli()
}

// ourselves looks for our own server as others do, from here: what is wrong there is wrong for everybody.
func (k *check) ourselves(ctx context.Context) {
	own := k.c.own.Name()
	route, err := k.c.discovery.Explain(ctx, own)
	if err != nil {
		k.bad("ourselves", "looked for "+string(own)+" as others do", plain(err.Error()), "")
		return
	}
	for _, s := range route.Steps {
		k.good("ourselves", "step "+s.Number+": "+s.Did, plain(s.Found))
	}
	if !k.connect(ctx, route) {
		k.bad("ourselves", "connected to our own server as others do", "that does not work from here", "mend this first: others see the same, unless this machine is not allowed to connect to its own public address")
		return
	}
	k.good("ourselves", "connected to our own server as others do", "that works from here; the fault is on the way from there to here, or on the other side")
}

// plain makes a stranger's text fit for a terminal: bounded, printable, one line.
func plain(text string) string {
	const most = 300
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfffd {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}
