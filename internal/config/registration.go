package config

import (
	"net/url"
	"regexp"
	"strings"
)

// Policy is a document, in one language, that people have to agree to when they make an account.
type Policy struct {
	ID      string
	Version string
	Lang    string // as in RFC 5646, such as "en" or "de-AT"
	URL     string
	Name    string // its title
}

// Policies are the documents of Terms, in their order.
func (r Registration) Policies() []Policy {
	policies := make([]Policy, 0, len(r.Terms))
	for _, text := range r.Terms {
		if p, ok := parsePolicy(text); ok {
			policies = append(policies, p)
		}
	}
	return policies
}

// parsePolicy reads ID VERSION LANGUAGE URL TITLE.
func parsePolicy(text string) (p Policy, ok bool) {
	words := strings.Fields(text)
	if len(words) < 5 {
		return p, false
	}
	return Policy{words[0], words[1], words[2], words[3], strings.Join(words[4:], " ")}, true
}

// IsReserved says whether a name, in lower case, is one that nobody may choose.
func (u Username) IsReserved(name string) bool {
	for _, pattern := range u.reserved {
		if pattern.MatchString(name) {
			return true
		}
	}
	return false
}

// Bounds of the settings of registration.
const (
	maxTerms       = 100
	maxReserved    = 1000
	maxPattern     = 1000
	maxNameMinimum = 64
)

var (
	opaque   = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)
	language = regexp.MustCompile(`^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}$`)
)

// checkRegistration looks at the documents and the rules for names, and compiles them.
func (c *Config) checkRegistration() error {
	r := &c.Registration
	if r.GuestsPerHour < 0 {
		return c.errorf("registration.guests_per_hour", "it must not be less than 0")
	}
	if r.GuestIdleDays < 1 {
		return c.errorf("registration.guest_idle_days", "it must be at least 1")
	}
	if len(r.Terms) > maxTerms {
		return c.errorf("registration.terms", "there are more than %d", maxTerms)
	}
	versions, seen := map[string]string{}, map[[2]string]bool{}
	for _, text := range r.Terms {
		p, ok := parsePolicy(text)
		u, err := url.Parse(p.URL)
		switch {
		case !ok || !opaque.MatchString(p.ID) || !opaque.MatchString(p.Version) || !language.MatchString(p.Lang) || p.Lang == "version":
			return c.errorf("registration.terms", "%q must be ID VERSION LANGUAGE URL TITLE, e.g. privacy 1.2 en https://example.org/privacy.html Privacy policy", text)
		case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "":
			return c.errorf("registration.terms", "%q must be the address of a document, https://…", p.URL)
		case versions[p.ID] != "" && versions[p.ID] != p.Version:
			return c.errorf("registration.terms", "%s has the versions %s and %s; all its languages have one", p.ID, versions[p.ID], p.Version)
		case seen[[2]string{p.ID, p.Lang}]:
			return c.errorf("registration.terms", "%s stands there twice in the language %s", p.ID, p.Lang)
		}
		versions[p.ID], seen[[2]string{p.ID, p.Lang}] = p.Version, true
	}
	if r.Username.MinLength < 1 || r.Username.MinLength > maxNameMinimum {
		return c.errorf("registration.username.min_length", "it must be from 1 to %d", maxNameMinimum)
	}
	if len(r.Username.Reserved) > maxReserved {
		return c.errorf("registration.username.reserved", "there are more than %d", maxReserved)
	}
	r.Username.reserved = nil
	for _, text := range r.Username.Reserved {
		pattern, err := regexp.Compile(`(?i)^(?:` + text + `)$`)
		if err != nil || text == "" || len(text) > maxPattern {
			return c.errorf("registration.username.reserved", "%.100q is not a regular expression of at most %d characters", text, maxPattern)
		}
		r.Username.reserved = append(r.Username.reserved, pattern)
	}
	return nil
}
