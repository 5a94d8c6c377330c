package netguard

import "net/netip"

// block is a range of addresses that no outgoing connection may reach.
type block struct {
	prefix netip.Prefix
	name   string
}

func blocks(list ...string) []block {
	out := make([]block, 0, len(list)/2)
	for i := 0; i < len(list); i += 2 {
		out = append(out, block{netip.MustParsePrefix(list[i]), list[i+1]})
	}
	return out
}

// denied are the special-purpose ranges (IANA registries of RFC 6890) that are nobody's business from outside.
var denied = blocks(
	"0.0.0.0/8", "of this network",
	"10.0.0.0/8", "private",
	"100.64.0.0/10", "carrier-grade NAT",
	"127.0.0.0/8", "loopback",
	"169.254.0.0/16", "link-local",
	"172.16.0.0/12", "private",
	"192.0.0.0/24", "reserved for protocols",
	"192.168.0.0/16", "private",
	"198.18.0.0/15", "for benchmarks",
	"224.0.0.0/4", "multicast",
	"240.0.0.0/4", "reserved",
	"::/96", "unspecified, loopback or IPv4-compatible",
	"64:ff9b:1::/48", "local NAT64",
	"100::/64", "the discard range",
	"fc00::/7", "private",
	"fe80::/10", "link-local",
	"fec0::/10", "site-local",
	"ff00::/8", "multicast",
)

// Ranges of IPv6 whose addresses carry an IPv4 address that a gateway will connect to in the end.
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	teredo = netip.MustParsePrefix("2001::/32")
)

// special names the denied range of an unmapped address, or returns "" if it may be connected to.
func special(ip netip.Addr) string {
	if !ip.IsValid() {
		return "no address"
	}
	if ip.Zone() != "" {
		return "bound to a network interface"
	}
	for _, b := range denied {
		if b.prefix.Contains(ip) {
			return b.name
		}
	}
	for _, inner := range embedded(ip) {
		if name := special(inner); name != "" {
			return "a wrapping of " + inner.String() + ", which is " + name
		}
	}
	return ""
}

// embedded returns the IPv4 addresses that an IPv6 address wraps.
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:16]))}
	case sixTo4.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case teredo.Contains(ip): // the server, and the client with its bits inverted (RFC 4380 section 4)
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	return nil
}
