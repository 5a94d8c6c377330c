package federation

import (
	"strings"

	"conclave/internal/matrix"
)

// Policy says with which servers this one federates at all (config federation.allow and federation.deny). It applies
// to requests in both directions. The zero Policy allows everybody.
type Policy struct {
	allow, deny []string
}

// NewPolicy makes a policy of server names. An entry is a host name, in which `*` stands for any run of characters and
// `?` for one, and which matches that host with every port; or a whole server name with a port. deny wins over allow,
// an empty allow list allows all.
func NewPolicy(allow, deny []string) *Policy {
	return &Policy{allow: lowered(allow), deny: lowered(deny)}
}

func lowered(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s = strings.ToLower(strings.TrimSpace(s)); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// Allowed reports whether the server may be spoken with.
func (p *Policy) Allowed(server matrix.ServerName) bool {
	if p == nil {
		return true
	}
	whole := strings.ToLower(string(server))
	host, _ := splitPort(whole)
	if listed(p.deny, whole, host) {
		return false
	}
	return len(p.allow) == 0 || listed(p.allow, whole, host)
}

func listed(list []string, whole, host string) bool {
	for _, glob := range list {
		if glob == whole || globMatch(glob, host) {
			return true
		}
	}
	return false
}

// globMatch matches in time linear in the product of the lengths at worst: it never goes back further than the last
// star.
func globMatch(glob, s string) bool {
	g, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, mark = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == s[i]):
			g++
			i++
		case star >= 0:
			mark++
			g, i = star+1, mark
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}
