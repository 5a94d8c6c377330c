package accounts

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// The bounds of addresses that clients register, in bytes.
const maxClientURI = 1024

// loopbacks are the hosts to which a native client may have its user sent back without a certificate.
var loopbacks = []string{"localhost", "127.0.0.1", "[::1]"}

// cleanURI parses an absolute address of plain ASCII without anything that programs read in different ways.
func cleanURI(text string) (*url.URL, bool) {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }
	if text == "" || len(text) > maxClientURI || strings.ContainsFunc(text, odd) || strings.Contains(text, "#") {
		return nil, false
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || !strings.HasPrefix(text, u.Scheme+":") { // Parse makes the scheme small
		return nil, false
	}
	return u, true
}

// webURI parses an https address with a host that can be somebody's.
func webURI(text string) (*url.URL, bool) {
	u, ok := cleanURI(text)
	if !ok || u.Scheme != "https" || u.Opaque != "" || u.User != nil || !validPort(u) {
		return nil, false
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return u, true
	}
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	return u, strings.Trim(host, letters) == "" && host != "" && host[0] != '.' && !strings.HasSuffix(host, ".") && !strings.Contains(host, "..")
}

func validPort(u *url.URL) bool {
	if !strings.Contains(strings.TrimPrefix(u.Host, "["+u.Hostname()+"]"), ":") {
		return true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// clientHost parses a client_uri and finds the host by which a client is known. Whatever anybody can register names
// below, such as co.uk, is nobody's.
func clientHost(uri string) (string, bool) {
	u, ok := webURI(uri)
	if !ok {
		return "", false
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return host, true
	}
	if suffix, _ := publicsuffix.PublicSuffix(host); suffix == host {
		return "", false
	}
	return host, true
}

// below reports whether an address is an https address on a host, or on one below it.
func below(uri, host string) bool {
	u, ok := webURI(uri)
	if !ok {
		return false
	}
	_, err := netip.ParseAddr(host)
	return u.Hostname() == host || err != nil && strings.HasSuffix(u.Hostname(), "."+host)
}

// validRedirect reports whether a client that is known by a host may have its user sent back to an address
// (client-server API, "Redirect URI validation").
func validRedirect(uri, host string, native bool) bool {
	u, ok := cleanURI(uri)
	switch {
	case !ok:
		return false
	case u.Scheme == "https":
		return below(uri, host)
	case !native:
		return false
	case u.Scheme == "http":
		return u.User == nil && slices.Contains(loopbacks, u.Host)
	}
	parts := strings.Split(host, ".")
	slices.Reverse(parts)
	rest, mine := strings.CutPrefix(u.Scheme, strings.Join(parts, "."))
	return mine && len(parts) > 1 && (rest == "" || rest[0] == '.') && !strings.HasPrefix(uri[len(u.Scheme):], "://")
}

// sameRedirect reports whether a request's redirect URI is the one that was registered: exactly, but for the port on
// loopback, which native clients learn only when they listen.
func sameRedirect(registered, given string) bool {
	if registered == given {
		return true
	}
	for _, host := range loopbacks {
		want, ok := strings.CutPrefix(registered, "http://"+host)
		if !ok {
			continue
		}
		got, ok := strings.CutPrefix(given, "http://"+host+":")
		if !ok {
			continue
		}
		digits := len(got) - len(strings.TrimLeft(got, "0123456789"))
		port, err := strconv.ParseUint(got[:digits], 10, 16)
		if err == nil && port > 0 && got[digits:] == want {
			return true
		}
	}
	return false
}
