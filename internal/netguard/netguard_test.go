package netguard

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"conclave/internal/testserver/proof"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// Every range, its first and last address, each way of wrapping an IPv4 address, and the neighbours that must stay reachable.
func TestCheck(t *testing.T) {
	d := NewDialer(nil, nil)
	for _, ip := range strings.Fields(`0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255
		169.254.0.0 169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.255 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255
		224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.255
		:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.1.2.3 ::ffff:169.254.169.254
		64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8 2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe::1 2002:c0a8:1::
		2001:0:7f00:1::f7f7:f7f7 2001:0:808:808::80ff:fffe 2001::f5ff:fffe 100::1 fc00::1 fdff:ffff::1 fe80::1 fe80::1%eth0 2606:4700::1%eth0 febf::1 fec0::1 feff::1 ff02::1 ff0e::1`) {
		if err := d.Check(netip.MustParseAddr(ip)); !errors.Is(err, ErrDenied) {
			t.Errorf("%s may be connected to: %v", ip, err)
		}
	}
	for _, ip := range strings.Fields(`1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
		172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
		::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1 2001:0:808:808::f7f7:f7f7 2606:4700::1111 2a00:1450::1 fbff::1`) {
		if err := d.Check(netip.MustParseAddr(ip)); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
	}
	if err := d.Check(netip.Addr{}); !errors.Is(err, ErrDenied) {
		t.Errorf("no address at all: %v", err)
	}
}

func TestAllowPrivate(t *testing.T) {
	d := NewDialer(prefixes("10.1.0.0/16", "fd00:1::/32"), nil)
	for ip, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "fd00:1::5": true, "8.8.8.8": true,
		"10.2.0.1": false, "fd00:2::1": false, "127.0.0.1": false, "64:ff9b::10.1.2.3": false, "2002:a01:203::": false, "fd00:1::5%eth0": false,
	} {
		if err := d.Check(netip.MustParseAddr(ip)); (err == nil) != want {
			t.Errorf("%s: %v, want allowed %v", ip, err, want)
		}
	}
}

// canary listens on loopback and counts who gets through.
func canary(t *testing.T) (port string, reached *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	reached = new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, reached
}

// Forty spellings of addresses of this machine and its neighbours, as they could stand in a server name, a delegation or a push URL: none may
// connect, and nothing may arrive at the canary.
func TestNoSpellingReachesLoopback(t *testing.T) {
	proof.Of(t, "O01")
	port, reached := canary(t)
	d := NewDialer(nil, dnsServer(t, func(string) string { return "" })) // names resolve to nothing: no question leaves the machine
	forms := strings.Fields(`127.0.0.1 127.1 127.0.1 127.0.0.001 0177.0.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001 127.255.255.254 0 0.0.0.0
		localhost LOCALHOST localhost. 127.0.0.1. ::1 0:0:0:0:0:0:0:1 0000:0000:0000:0000:0000:0000:0000:0001 :: ::ffff:127.0.0.1 ::ffff:7f00:1 ::FFFF:127.0.0.1
		::127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::7f00:1 2002:7f00:1:: 2002:7f00:0001::1 2001:0:7f00:1:: 2001::80ff:fffe
		fe80::1%lo ::1%lo ::ffff:127.0.0.1%lo fe80::1 fc00::1 fec0::1 10.0.0.1 169.254.169.254 192.168.0.1 172.16.0.1 ::ffff:169.254.169.254 ff02::1`)
	if len(forms) < 40 {
		t.Fatalf("only %d forms", len(forms))
	}
	for _, form := range forms {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(form, port))
		cancel()
		if err == nil {
			_ = conn.Close()
			t.Errorf("%s connects to %s", form, conn.RemoteAddr())
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is not refused at once: %v", form, err)
		}
	}
	for _, network := range []string{"unix", "udp", "ip4:icmp"} {
		if _, err := d.DialContext(t.Context(), network, "127.0.0.1:"+port); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", network, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
}

// dnsServer answers A questions on loopback with what resolve gives for a name (nothing for "") and returns a resolver that asks it.
func dnsServer(t *testing.T, resolve func(name string) string) *net.Resolver {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := answerDNS(buf[:n], resolve); answer != nil {
				_, _ = socket.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", socket.LocalAddr().String())
	}}
}

func answerDNS(question []byte, resolve func(name string) string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeSuccess, nil
	ip := resolve(strings.TrimSuffix(q.Name.String(), "."))
	switch {
	case ip == "":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()}}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// A name that gives an allowed address first and loopback afterwards must not lead anywhere the second time: nothing is remembered from a
// check made earlier, the address connected to is the one judged.
func TestRebinding(t *testing.T) {
	proof.Of(t, "O03")
	port, reached := canary(t)
	var asked atomic.Int64
	d := NewDialer(prefixes("127.0.0.2/32"), dnsServer(t, func(name string) string {
		if name != "rebind.example" {
			return ""
		}
		if asked.Add(1) <= 2 { // A and AAAA of the first look-up
			return "127.0.0.2"
		}
		return "127.0.0.1"
	}))
	address := net.JoinHostPort("rebind.example", port)
	if conn, err := d.DialContext(t.Context(), "tcp", address); err == nil {
		_ = conn.Close()
	} else if errors.Is(err, ErrDenied) {
		t.Fatalf("the allowed address is denied: %v", err)
	}
	before := reached.Load()
	if conn, err := d.DialContext(t.Context(), "tcp", address); !errors.Is(err, ErrDenied) {
		t.Errorf("rebound: %v, %v", conn, err)
	}
	if reached.Load() != before {
		t.Error("the canary was reached")
	}
	if asked.Load() < 3 {
		t.Errorf("the name was looked up %d times, so nothing was rebound", asked.Load())
	}
}

// FuzzCheck holds the classification against a second, independent reading of the ranges for IPv4 and against what wrapping must not change.
func FuzzCheck(f *testing.F) {
	for _, ip := range []string{"127.0.0.1", "8.8.8.8", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::80ff:fffe", "::ffff:10.0.0.1"} {
		b := netip.MustParseAddr(ip).As16()
		f.Add(b[:])
	}
	d := NewDialer(nil, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		var b [16]byte
		copy(b[:], data)
		ip := netip.AddrFrom16(b)
		allowed := d.Check(ip) == nil
		if std := net.IP(b[:]); allowed && (std.IsLoopback() || std.IsPrivate() || std.IsUnspecified() || std.IsMulticast() || std.IsLinkLocalUnicast()) {
			t.Errorf("%s is allowed, but net.IP knows it as special", ip)
		}
		if again, err := netip.ParseAddr(ip.String()); err != nil || (d.Check(again) == nil) != allowed {
			t.Errorf("%s changes its class when it is written and read", ip)
		}
		four := netip.AddrFrom4([4]byte(b[:4]))
		plain := d.Check(four) == nil
		n := binary.BigEndian.Uint32(b[:4])
		for _, wrapped := range []netip.Addr{
			netip.AddrFrom16(four.As16()),
			netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}),
			netip.AddrFrom16([16]byte{0x20, 0x02, b[0], b[1], b[2], b[3], 15: 1}),
			netip.AddrFrom16([16]byte{0x20, 0x01, 4: 8, 5: 8, 6: 8, 7: 8, 12: byte(^n >> 24), 13: byte(^n >> 16), 14: byte(^n >> 8), 15: byte(^n)}),
		} {
			if (d.Check(wrapped) == nil) != plain {
				t.Errorf("%s is allowed %v, but wrapped as %s it is not the same", four, plain, wrapped)
			}
		}
	})
}
