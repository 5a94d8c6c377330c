package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Resolver is the part of DNS that federation needs; *net.Resolver is one.
type Resolver interface {
	// LookupSRV returns the records of _service._proto.name in the order in which they are to be tried.
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	// LookupNetIP returns the addresses of a host, following aliases.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// DialFunc connects to "address:port". In production it is netguard's, which refuses addresses that are nobody's
// business; the address it is given is a literal, so nothing is resolved a second time.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

const (
	dialTimeout = 5 * time.Second
	tlsTimeout  = 5 * time.Second
	dialStagger = 250 * time.Millisecond // head start of an address over the next (RFC 8305)
	maxAddrs    = 6                      // of one host that are tried
)

// connector turns host and port into connections.
type connector struct {
	resolver Resolver
	dial     DialFunc
}

// connect dials the addresses of host, each a little after the one before, and returns the first connection.
func (c *connector) connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	addrs, err := c.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(addrs))
	for i, addr := range addrs {
		go func() {
			if !pause(ctx, time.Duration(i)*dialStagger) {
				results <- result{err: ctx.Err()}
				return
			}
			attempt, done := context.WithTimeout(ctx, dialTimeout)
			defer done()
			conn, err := c.dial(attempt, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(int(port))))
			results <- result{conn, err}
		}()
	}
	var errs []error
	for n := range addrs {
		r := <-results
		if r.err != nil {
			errs = append(errs, r.err)
			continue
		}
		cancel()
		go func() { // connections that came second
			for range len(addrs) - n - 1 {
				if late := <-results; late.conn != nil {
					_ = late.conn.Close()
				}
			}
		}()
		return r.conn, nil
	}
	return nil, fmt.Errorf("connecting to %s port %d: %w", host, port, errors.Join(errs...))
}

// addresses are host's, which may be a literal, families taking turns so that a broken one costs little.
func (c *connector) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, ok := parseIP(host); ok {
		return []netip.Addr{ip}, nil
	}
	found, err := c.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("looking up the address of %s: %w", host, err)
	}
	var six, four []netip.Addr
	for _, ip := range found {
		if ip = ip.Unmap(); ip.Is4() {
			four = append(four, ip)
		} else {
			six = append(six, ip)
		}
	}
	var addrs []netip.Addr
	for i := 0; len(addrs) < maxAddrs && (i < len(six) || i < len(four)); i++ {
		if i < len(six) {
			addrs = append(addrs, six[i])
		}
		if i < len(four) {
			addrs = append(addrs, four[i])
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return addrs, nil
}

// handshake makes conn a TLS connection whose certificate is valid for config.ServerName; conn is closed if it cannot.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS with %s as %q: %w", conn.RemoteAddr(), config.ServerName, err)
	}
	return secured, nil
}

// pause waits and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// splitPort splits a server name; port is "" if there is none. An IPv6 host keeps its brackets.
func splitPort(name string) (host, port string) {
	colon := strings.LastIndexByte(name, ':')
	if colon < 0 || strings.HasSuffix(name, "]") {
		return name, ""
	}
	return name[:colon], name[colon+1:]
}

// parseIP understands the IP literals of server names: dotted IPv4, IPv6 in brackets or bare. Zones are refused: they
// mean something only on one machine.
func parseIP(host string) (netip.Addr, bool) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	ip, err := netip.ParseAddr(host)
	return ip, err == nil && ip.Zone() == ""
}

// defaultResolver is the system's.
func defaultResolver() Resolver { return net.DefaultResolver }
