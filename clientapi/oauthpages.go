package clientapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"conclave/internal/accounts"
)

// formTarget is a redirect URI as a source of a Content-Security-Policy.
func formTarget(redirect string) string {
	u, err := url.Parse(redirect)
	switch {
	case err != nil || redirect == "":
		return ""
	case u.Scheme != "https" && u.Scheme != "http" || strings.HasPrefix(u.Host, "["): // addresses in brackets are no sources
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}

// visitPage writes a page of somebody's visit.
func (s *Server) visitPage(r *Request, b *browser, name string, p page) (any, error) {
	p.CSRF, p.Client, p.target = b.csrf(), b.Visit.Client, formTarget(b.Visit.Redirect)
	if p.Client != nil {
		p.ClientName = clientName(p.Client, languageOf(r.Request()).String())
	}
	if b.Who != nil {
		p.UserID = b.Who.UserID
	}
	return s.show(r, name, p)
}

// endPage says how a visit has ended.
func (s *Server) endPage(r *Request, title, text string) (any, error) {
	return s.show(r, "text", page{Title: title, Data: text})
}

// clientName is what people are shown as a client's name.
func clientName(c *accounts.Client, tag string) string {
	if name := c.In(tag, "client_name", c.Name); name != "" {
		return name
	}
	return c.Host()
}

// turnTo sends the browser to an address.
func turnTo(r *Request, where string) (any, error) {
	r.Response().Header().Set("Location", where)
	r.Response().WriteHeader(http.StatusSeeOther) // a form's contents do not come along (RFC 9700, section 4.12)
	return Done{}, nil
}

// browser is somebody in front of our pages.
type browser struct {
	Secret string // of the visit
	SignIn string // of the sign-in, "" if it has not begun
	Visit  *accounts.Visit
	Who    *accounts.SignedIn // nil if nobody has signed in
}

// csrf is what our forms carry, and those of other sites cannot.
func (b *browser) csrf() string {
	sum := sha256.Sum256([]byte("csrf\x00" + b.Secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// signedIn reports whether nothing is missing of signing in.
func (b *browser) signedIn() bool { return b.Who != nil && b.Who.Ready() }

// cookieName is the name of the one cookie: of this host alone, which the browser makes sure of. Without TLS, as on a
// developer's machine, browsers do not take such a name.
func (s *Server) cookieName() string {
	if s.secure() {
		return "__Host-conclave-visit"
	}
	return "conclave-visit"
}

func (s *Server) secure() bool { return strings.HasPrefix(s.issuer(), "https://") }

// keepVisit has the browser remember a visit, until it ends or the browser does; "" has it forget.
func (s *Server) keepVisit(r *Request, secret, signIn string) {
	value, age := secret+"."+signIn, 0
	if secret == "" {
		value, age = "", -1
	}
	http.SetCookie(r.Response(), &http.Cookie{
		Name: s.cookieName(), Value: value, Path: "/", MaxAge: age, Secure: s.secure(), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// browser finds who is in front of a page (M_FORBIDDEN if nobody was sent here).
func (s *Server) browser(r *Request) (*browser, error) {
	b := &browser{}
	if cookie, err := r.Request().Cookie(s.cookieName()); err == nil {
		b.Secret, b.SignIn, _ = strings.Cut(cookie.Value, ".")
	}
	var err error
	if b.Visit, err = s.Accounts.Visit(r.Ctx(), b.Secret); err != nil {
		return nil, err
	}
	if b.SignIn != "" {
		b.Who, err = s.Accounts.SignedIn(r.Ctx(), b.SignIn)
	}
	if b.Who != nil && b.Who.KnownAgain && b.Visit.Purpose == accounts.ToManage {
		b.Who = nil // ssoCallback has said why
	}
	return b, err
}

// posted reads a form that one of our pages has sent to somebody who visits, and finds who has.
func (s *Server) posted(r *Request) (*browser, url.Values, error) {
	form, err := s.pageForm(r)
	if err != nil {
		return nil, nil, err
	}
	b, err := s.visitor(r, form["csrf"])
	if err != nil {
		return nil, nil, err
	}
	for _, values := range form {
		if len(values) > 1 {
			return nil, nil, errForged
		}
	}
	return b, form, nil
}

// visitor finds who has sent a form, which has to carry the token of the same visit.
func (s *Server) visitor(r *Request, csrf []string) (*browser, error) {
	b, err := s.browser(r)
	if err != nil {
		return nil, err
	}
	if len(csrf) != 1 || subtle.ConstantTimeCompare([]byte(csrf[0]), []byte(b.csrf())) != 1 {
		return nil, errForged
	}
	return b, nil
}
