package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/work"
)

// DefaultPort is where a homeserver listens when neither its name nor a delegation says otherwise.
const DefaultPort = 8448

// Target is a place to connect to: a DNS name or an IP literal without brackets, and a port.
type Target struct {
	Host string
	Port uint16
}

// String is host:port, as in a dialled address.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// Location says how to reach a homeserver (Server-Server API, "Resolving server names").
type Location struct {
	Server  matrix.ServerName
	Host    string   // for the Host header
	TLSName string   // DNS name or IP address that the certificate must be for
	Targets []Target // to be tried in order; never empty
	Step    string   // the spec's step that decided, e.g. "3.3"
	Steps   []Step   // all that was tried, for people

	until time.Time // when the delegation document it rests on must be fetched again; zero if it rests on none
}

// Step is one thing that discovery tried, in words.
type Step struct {
	Number string // as in the spec
	Did    string // what was looked at
	Found  string // what came of it
	Fix    string // what would make it work, "" if nothing is wrong
}

// Discovery finds out where homeservers are. It is safe for concurrent use.
type Discovery struct {
	resolver  Resolver
	wellKnown *wellKnown
	now       func() time.Time
	routes    *otter.Cache[matrix.ServerName, routeEntry]
	flights   work.Flights[matrix.ServerName, *Location]
}

type routeEntry struct {
	route   *Location
	expires time.Time
}

const (
	routeLife       = 5 * time.Minute // DNS answers are kept this long; well-known documents have their own times
	discoverTimeout = 30 * time.Second
	maxTargets      = 8
)

func newDiscovery(resolver Resolver, wk *wellKnown, now func() time.Time) *Discovery {
	return &Discovery{
		resolver: resolver, wellKnown: wk, now: now,
		routes: otter.Must(&otter.Options[matrix.ServerName, routeEntry]{MaximumSize: 10_000}),
	}
}

// Locate returns how to reach server, from memory if it was found out a short while ago.
func (d *Discovery) Locate(ctx context.Context, server matrix.ServerName) (*Location, error) {
	if e, ok := d.routes.GetIfPresent(server); ok && d.now().Before(e.expires) {
		return e.route, nil
	}
	return d.flights.Do(ctx, server, func(ctx context.Context) (*Location, error) {
		ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
		defer cancel()
		route, err := d.Explain(ctx, server)
		if err != nil {
			return nil, err
		}
		expires := d.now().Add(routeLife)
		if !route.until.IsZero() && route.until.Before(expires) {
			expires = route.until
		}
		d.routes.Set(server, routeEntry{route, expires})
		return route, nil
	})
}

// Suspect says that the known route to server did not work, so that it is looked for again soon.
func (d *Discovery) Suspect(server matrix.ServerName) {
	d.routes.Invalidate(server)
	host, port := splitPort(string(server))
	if port == "" {
		d.wellKnown.suspect(host)
	}
}

// Explain goes through the steps of the spec without the memory of routes (well-known documents are still remembered)
// and tells what each found.
func (d *Discovery) Explain(ctx context.Context, server matrix.ServerName) (*Location, error) {
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return nil, fmt.Errorf("%q is not a server name: %w", server, err)
	}
	host, port := splitPort(string(server))
	w := &walk{d: d, route: &Location{Server: server}}
	if w.literal("1", host, port) || w.explicit("2", host, port) {
		return w.route, nil
	}
	document, err := d.wellKnown.get(ctx, host)
	if err != nil {
		return nil, err
	}
	w.route.until = document.expires
	url := "https://" + host + wellKnownPath
	if document.err == nil {
		w.did("3", "fetched "+url, "delegates to "+string(document.server), "")
		w.delegated(ctx, string(document.server))
		return w.route, nil
	}
	w.did("3", "fetched "+url, "no delegation: "+document.err.Error(), "serve {\"m.server\": \"host:port\"} there, if delegation is wanted")
	if !w.service(ctx, "4", "matrix-fed", host) && !w.service(ctx, "5", "matrix", host) {
		w.fallback("6", host)
	}
	return w.route, nil
}

// walk is one passage through the steps.
type walk struct {
	d     *Discovery
	route *Location
}

func (w *walk) did(number, did, found, fix string) {
	w.route.Steps = append(w.route.Steps, Step{number, did, found, fix})
}

func (w *walk) decide(step, hostHeader, tlsName string, targets ...Target) {
	w.route.Step, w.route.Host, w.route.TLSName, w.route.Targets = step, hostHeader, tlsName, targets
}

// delegated is the ladder of step 3, for the name that a well-known document gives.
func (w *walk) delegated(ctx context.Context, name string) {
	host, port := splitPort(name)
	if w.literal("3.1", host, port) || w.explicit("3.2", host, port) ||
		w.service(ctx, "3.3", "matrix-fed", host) || w.service(ctx, "3.4", "matrix", host) {
		return
	}
	w.fallback("3.5", host)
}

// literal handles a host that is an IP literal.
func (w *walk) literal(step, host, port string) bool {
	ip, ok := parseIP(host)
	if !ok {
		return false
	}
	header := host
	if port != "" {
		header += ":" + port
	}
	target := Target{ip.String(), portNumber(port)}
	w.decide(step, header, ip.String(), target)
	w.did(step, "looked at "+header, "it is an IP address: connect to "+target.String(), "")
	return true
}

// explicit handles a host name with a port.
func (w *walk) explicit(step, host, port string) bool {
	if port == "" {
		return false
	}
	target := Target{host, portNumber(port)}
	w.decide(step, host+":"+port, host, target)
	w.did(step, "looked at "+host+":"+port, "it names a port: connect to "+target.String(), "")
	return true
}

// service handles a host name with SRV records. Failing look-ups count as "no records": the certificate is checked for
// the same name wherever the connection goes, so a lie in DNS gains nothing.
func (w *walk) service(ctx context.Context, step, service, host string) bool {
	record := "_" + service + "._tcp." + host
	_, records, err := w.d.resolver.LookupSRV(ctx, service, "tcp", host)
	if err != nil {
		found := "no such record"
		var dns *net.DNSError
		if !errors.As(err, &dns) || !dns.IsNotFound {
			found = "the look-up failed: " + err.Error()
		}
		w.did(step, "looked up SRV "+record, found, "")
		return false
	}
	var targets []Target
	for _, r := range records {
		name := strings.TrimSuffix(r.Target, ".")
		if name == "" || r.Port == 0 || len(targets) == maxTargets {
			continue // "." means that the service is not there
		}
		targets = append(targets, Target{name, r.Port})
	}
	if len(targets) == 0 {
		w.did(step, "looked up SRV "+record, "it names no target", "let the record name a host and a port, or remove it")
		return false
	}
	w.decide(step, host, host, targets...)
	w.did(step, "looked up SRV "+record, "connect to "+targets[0].String(), "")
	return true
}

func (w *walk) fallback(step, host string) {
	target := Target{host, DefaultPort}
	w.decide(step, host, host, target)
	w.did(step, "found neither port nor SRV records for "+host, "connect to "+target.String(), "")
}

// portNumber reads a port that the grammar of server names has let pass; none is the default one.
func portNumber(port string) uint16 {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return DefaultPort
	}
	return uint16(n)
}
