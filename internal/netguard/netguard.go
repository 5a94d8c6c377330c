// Package netguard is the one way out: every connection the server opens to an address that somebody else had a say in (federation, media,
// push gateways, previews, identity providers) goes through its Dialer, which refuses loopback, private, link-local and otherwise special addresses.
//
// The check stands at the socket, after every name is resolved and every redirect followed, on the address the kernel is about to connect to.
// So a name that resolves differently the second time, an odd spelling of an address, or an IPv6 form that wraps an IPv4 address changes nothing.
// HTTPClient builds clients with the time-outs and limits of outgoing requests, ReadAll bounds what is read.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	keepAlive   = 30 * time.Second
)

// ErrDenied is the cause when a connection is refused because of its address.
var ErrDenied = errors.New("outgoing connections to this address are not allowed")

// Dialer opens outgoing TCP connections. It is safe for concurrent use.
type Dialer struct {
	allow  []netip.Prefix
	dialer net.Dialer
}

// NewDialer returns the dialer of a process. The prefixes (network.allow_private of the configuration) may be connected to although they
// are private. The resolver is the system's if nil.
func NewDialer(allowPrivate []netip.Prefix, resolver *net.Resolver) *Dialer {
	d := &Dialer{allow: allowPrivate}
	d.dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive, Resolver: resolver, ControlContext: d.control}
	return d
}

// DialContext connects to "host:port" by TCP. The error wraps ErrDenied if every address of the host is denied or the last one tried was.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return d.dialer.DialContext(ctx, network, address)
	}
	return nil, fmt.Errorf("network %q: %w", network, ErrDenied)
}

// control runs between the making of a socket and its connecting; address is literal.
func (d *Dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, ErrDenied)
	}
	return d.Check(target.Addr())
}

// Check reports whether an address may be connected to: nil, or an error that wraps ErrDenied and names the range. It is for those who do not
// connect themselves, such as the relay for calls.
func (d *Dialer) Check(ip netip.Addr) error {
	ip = ip.Unmap()
	for _, p := range d.allow {
		if p.Contains(ip) {
			return nil
		}
	}
	if name := special(ip); name != "" {
		return fmt.Errorf("%s is %s: %w", ip, name, ErrDenied)
	}
	return nil
}
