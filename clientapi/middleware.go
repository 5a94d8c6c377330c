package clientapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"conclave/internal/matrix"
)

// authenticate finds whom a request speaks for, as far as its route asks. Tokens come in the Authorization header
// alone: one in a URL would stand in every proxy's log (threats A05).
func (s *Server) authenticate(r *Request) error {
	if done, err := s.asService(r); done || err != nil {
		return err
	}
	if r.route.Auth == NoAuth || r.route.Auth == Ticket {
		return nil
	}
	token, err := bearer(r.Request().Header)
	if err != nil {
		if r.route.Auth == OptionalToken && token == "" && len(r.Request().Header.Values("Authorization")) == 0 {
			return nil
		}
		return err
	}
	if r.Session, err = s.Accounts.Authenticate(r.Ctx(), token, s.address(r.Request())); err != nil {
		return err
	}
	if r.route.Auth == Admin && !r.Session.Admin {
		return matrix.Forbidden("This is for administrators of the server.")
	}
	return nil
}

// bearer reads the access token of a request: exactly one header, of the form "Bearer …".
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return "", matrix.MissingToken()
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", matrix.MissingToken()
	}
	return token, nil
}

// address is the client's address, for limits and the list of sessions: that of the connection, or what trusted
// proxies say it was.
func (s *Server) address(req *http.Request) string {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		host = req.RemoteAddr
	}
	if !s.trusted(host) {
		return host
	}
	hops := strings.Split(strings.Join(req.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		if net.ParseIP(hop) == nil {
			break
		}
		host = hop
		if !s.trusted(hop) {
			break
		}
	}
	return host
}

func (s *Server) trusted(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(s.Config.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}
