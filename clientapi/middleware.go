package clientapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"conclave/internal/matrix"
)

// authenticate finds whom a request speaks for, as far as its route asks.
func (s *Server) authenticate(r *Request) error {
	if done, err := s.asService(r); done || err != nil {
		return err
	}
	if r.route.Auth == NoAuth || r.route.Auth == Ticket {
		return nil
	}
	token, err := credential(r.Request())
	if err != nil {
		if r.route.Auth == OptionalToken && !hasCredential(r.Request()) {
			return nil
		}
		return err
	}
	return s.admit(r, token)
}

// admit is the gate that every request with a token passes, once: whom the token speaks for, and whether an account in
// its state may use the route (threats A06). A locked account may only log out; what a suspended one may do stands in
// suspended.go.
func (s *Server) admit(r *Request, token string) (err error) {
	authenticate := s.Accounts.Authenticate
	if slices.Contains(lockedMay, r.route.OperationID) {
		authenticate = s.Accounts.AuthenticateLocked
	}
	if r.Session, err = authenticate(r.Ctx(), token, s.address(r.Request())); err != nil {
		return err
	}
	return r.gate()
}

// gate says whether the session's account, which is not locked, may use the route.
func (r *Request) gate() error {
	if r.Session.MustEnrol && !slices.Contains(enrolling, r.route.OperationID) {
		return errEnrolFirst()
	}
	if r.Session.Guest {
		if err := r.guestMay(); err != nil {
			return err
		}
	}
	if r.route.Auth == Admin && !r.Session.Admin {
		return matrix.Forbidden("This is for administrators of the server.")
	}
	if r.Session.Suspended && !suspendedMay(r.route.OperationID, r.route.Method) {
		return matrix.UserSuspended()
	}
	return nil
}

func errEnrolFirst() error {
	return matrix.Forbidden("This server wants two-factor login from you, and the time to set it up is over. Sign in at the address of this server in a browser and set it up; then go on here.")
}

// enrolling are the operations of somebody whose second factor is overdue: setting one up, and what a client needs for it.
var enrolling = []string{
	"getTokenOwner", "logout", "logout_all", "getCapabilities", "im.conclave.account.factors", "im.conclave.account.totp.begin", "im.conclave.account.totp.confirm",
	"im.conclave.account.passkeys", "im.conclave.account.passkeys.begin", "im.conclave.account.passkeys.finish",
}

// hasCredential reports whether a request means to say who makes it.
func hasCredential(req *http.Request) bool {
	return len(req.Header.Values("Authorization")) > 0 || req.URL.Query().Has("access_token")
}

// credential reads the access token of a request: from its header, or, if it has none, from its query. The query is the
// older form, deprecated because addresses end up in logs; servers still have to take it (client-server API, "Using
// access tokens"). This server logs no queries.
func credential(req *http.Request) (string, error) {
	if len(req.Header.Values("Authorization")) > 0 {
		return bearer(req.Header)
	}
	if values := req.URL.Query()["access_token"]; len(values) == 1 && values[0] != "" {
		return values[0], nil
	}
	return "", matrix.MissingToken()
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
