package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The identifiers of the spec ("Identifier Grammar"), as strings that cannot be mixed up.
type (
	UserID     string // @localpart:server
	RoomID     string // !opaque:server, or !hash from room version 12
	EventID    string // $opaque:server, or $hash from room version 3
	RoomAlias  string // #name:server
	ServerName string // host or host:port
	DeviceID   string
	KeyID      string // algorithm:version, such as ed25519:abc
)

// maxID is the highest length of an identifier in bytes, sigil and server name included.
const maxID = 255

var errID = errors.New("matrix: malformed identifier")

// splitID checks what all identifiers share and returns what is between sigil and server name.
func splitID(s string, sigil byte) (local string, server ServerName, err error) {
	if err := checkID(s, sigil); err != nil {
		return "", "", err
	}
	local, domain, ok := strings.Cut(s[1:], ":")
	if !ok {
		return "", "", fmt.Errorf("%w: %.64q has no server name", errID, s)
	}
	server, err = ParseServerName(domain)
	return local, server, err
}

func checkID(s string, sigil byte) error {
	switch {
	case len(s) < 2 || s[0] != sigil:
		return fmt.Errorf("%w: %.64q does not begin with %c", errID, s, sigil)
	case len(s) > maxID:
		return fmt.Errorf("%w: longer than %d bytes", errID, maxID)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return fmt.Errorf("%w: %.64q has bytes that are no text", errID, s)
	}
	return nil
}

// ParseUserID checks a user ID by the historical grammar, which is what servers must accept from others: any text but
// colons and NUL, also none (appendices, "Historical User IDs").
func ParseUserID(s string) (UserID, error) {
	_, _, err := splitID(s, '@')
	return UserID(s), err
}

// Compliant reports whether a user ID has a localpart, of visible ASCII: others are accepted in events and referred to
// nowhere else (appendices, "Historical User IDs").
func (u UserID) Compliant() bool {
	local := u.Localpart()
	for _, c := range []byte(local) {
		if c < 0x21 || c > 0x7E {
			return false
		}
	}
	return local != ""
}

// ParseRoomID checks a room ID of either form.
func ParseRoomID(s string) (RoomID, error) {
	if err := checkID(s, '!'); err != nil {
		return "", err
	}
	if _, domain, ok := strings.Cut(s, ":"); ok {
		if _, err := ParseServerName(domain); err != nil {
			return "", err
		}
	}
	return RoomID(s), nil
}

// ParseEventID checks an event ID of any version.
func ParseEventID(s string) (EventID, error) { return EventID(s), checkID(s, '$') }

// ParseAlias checks a room alias.
func ParseAlias(s string) (RoomAlias, error) {
	_, _, err := splitID(s, '#')
	return RoomAlias(s), err
}

// ParseServerName checks a server name: a DNS name, an IPv4 address or a bracketed IPv6 address, with or without a port.
func ParseServerName(s string) (ServerName, error) {
	host, port, err := splitHost(s)
	if err != nil || len(s) > 230 {
		return "", fmt.Errorf("%w: %.64q is not a server name", errID, s)
	}
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", fmt.Errorf("%w: %.64q is not a server name", errID, s)
		}
	} else if !isHostName(host) {
		return "", fmt.Errorf("%w: %.64q is not a server name", errID, s)
	}
	if port != "" && !isPort(port) {
		return "", fmt.Errorf("%w: %.64q has no valid port", errID, s)
	}
	return ServerName(s), nil
}

// splitHost takes a port off a server name. The host of an IPv6 literal keeps its brackets.
func splitHost(s string) (host, port string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", errID
		}
		host, s = s[:end+1], s[end+1:]
		if s == "" {
			return host, "", nil
		}
		if s[0] != ':' || len(s) == 1 {
			return "", "", errID
		}
		return host, s[1:], nil
	}
	host, port, found := strings.Cut(s, ":")
	if host == "" || found && port == "" {
		return "", "", errID
	}
	return host, port, nil
}

func isHostName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return s != ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && len(s) <= 5 && s[0] >= '0' && s[0] <= '9'
}

// ValidLocalpart reports whether a name may be given to a new user: a-z, 0-9 and ._=-/+ only.
func ValidLocalpart(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("._=-/+", rune(c)) {
			return false
		}
	}
	return s != ""
}

func afterColon(s string) ServerName {
	_, server, _ := strings.Cut(s, ":")
	return ServerName(server)
}

// Server is the user's server.
func (u UserID) Server() ServerName { return afterColon(string(u)) }

// Localpart is the part between @ and the first colon.
func (u UserID) Localpart() string {
	local, _, _ := strings.Cut(strings.TrimPrefix(string(u), "@"), ":")
	return local
}

// Server is the server that named the room; IDs of version 12 name none.
func (r RoomID) Server() (ServerName, bool) {
	server := afterColon(string(r))
	return server, server != ""
}

// Server is the server that named the event, in room versions 1 and 2.
func (e EventID) Server() (ServerName, bool) {
	server := afterColon(string(e))
	return server, server != ""
}

// Server is the alias's server.
func (a RoomAlias) Server() ServerName { return afterColon(string(a)) }

// HostPort splits a server name. Port is 0 if there is none; the host of an IPv6 literal comes without brackets.
func (s ServerName) HostPort() (host string, port int, isIP bool) {
	host, text, err := splitHost(string(s))
	if err != nil {
		return string(s), 0, false
	}
	host = strings.Trim(host, "[]")
	port, _ = strconv.Atoi(text)
	_, err = netip.ParseAddr(host)
	return host, port, err == nil
}

// IsNamespaced reports whether a name follows the common namespaced identifier grammar: 1 to 255 of a-z, 0-9, "-", "_" and
// ".", beginning with a letter (appendices, "Common Namespaced Identifier Grammar").
func IsNamespaced(s string) bool {
	if s == "" || len(s) > maxID || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// IsOpaque reports whether a name follows the opaque identifier grammar: 1 to 255 of a-z, A-Z, 0-9, "-", ".", "_" and "~"
// (appendices, "Opaque Identifiers").
func IsOpaque(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~') {
			return false
		}
	}
	return true
}
