package clientapi

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/text/language"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// Our own pages: where people sign in for an OAuth client, let devices in, and look after their account. They are made
// here, work without scripts (but for passkeys), load nothing from anywhere, and no other site can show them in a frame.

// Their languages and texts are those of all pages (page.go).
var (
	visitStyle     = mustRead("style.css")
	passkeyScript  = mustRead("passkey.js")
	visitTemplates = func() map[language.Tag]*template.Template {
		all := map[language.Tag]*template.Template{}
		for _, tag := range pageLanguages {
			words := template.FuncMap{"t": pageWords(pageTexts[tag]).say}
			all[tag] = template.Must(template.New(tag.String()).Funcs(words).Parse(mustRead("pages.html")))
		}
		return all
	}()
)

func mustRead(name string) string {
	text, err := pageFiles.ReadFile("pages/visit/" + name)
	if err != nil {
		panic("clientapi: " + err.Error()) // embedded files can be read
	}
	return string(text)
}

// pageWords are the texts of a language.
type pageWords map[string]string

// say is a text of these pages, with what belongs into its gaps. What is no key is a text already.
func (w pageWords) say(key string, gaps ...any) string {
	text, ok := w["visit."+key]
	if !ok {
		return key
	}
	if len(gaps) > 0 {
		return fmt.Sprintf(text, gaps...)
	}
	return text
}

// languageOf is the language of the pages for a request.
func languageOf(req *http.Request) language.Tag {
	_, i := language.MatchStrings(pageMatcher, req.Header.Get("Accept-Language"))
	return pageLanguages[i]
}

func words(r *Request) pageWords { return pageTexts[languageOf(r.Request())] }

// pageHeaders are those of every answer of a page's address. Referrers stay here: an address of ours is nobody's business.
// They are not switched off altogether, because browsers then hide where a form comes from from us, too.
func pageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", visitPolicy("", false))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
	h.Set("Vary", "Accept-Language, Cookie")
}

// visitPolicy is the Content-Security-Policy of a page. target is where its forms may lead in the end, beside here: browsers
// look at redirects too.
func visitPolicy(target string, script bool) string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	policy := "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; style-src " + hash(visitStyle) + "; form-action 'self'"
	if target != "" {
		policy += " " + target
	}
	if script {
		policy += "; script-src " + hash(passkeyScript)
	}
	return policy
}

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

// visitPage writes a page.
func (s *Server) visitPage(r *Request, status int, name string, b *browser, data map[string]any) (any, error) {
	tag := languageOf(r.Request())
	all := map[string]any{
		"Server": s.Config.ServerName, "Style": template.CSS(visitStyle), "Title": name + "_title", "Error": "", "Notice": "", //nolint:gosec // ours
		"Script": template.JS(""), "Visit": (*accounts.Visit)(nil), "CSRF": "", "ClientName": "",
	}
	target := ""
	if b != nil {
		all["Visit"], all["CSRF"] = b.Visit, b.csrf()
		target = formTarget(b.Visit.Redirect)
		if c := b.Visit.Client; c != nil {
			all["ClientName"] = clientName(c, tag.String())
		}
		if b.Who != nil {
			all["UserID"] = b.Who.UserID
		}
	}
	script := name == "passkey"
	if script {
		all["Script"] = template.JS(passkeyScript) //nolint:gosec // ours
	}
	maps.Copy(all, data)
	var out bytes.Buffer
	if err := visitTemplates[tag].ExecuteTemplate(&out, name, all); err != nil {
		return nil, err
	}
	h := r.Response().Header()
	h.Set("Content-Security-Policy", visitPolicy(target, script))
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", tag.String())
	r.Response().WriteHeader(status)
	_, _ = r.Response().Write(out.Bytes()) // a browser that went away is nobody to tell
	return Done{}, nil
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
	return b, err
}

// errForged refuses what was not sent from a page of ours.
var errForged = errors.New("a form that is not ours")

// fromHere reports whether a browser says that a page of ours sends a request. Browsers that say nothing are old, or none:
// then what the form carries has to be enough. Behind a proxy that changes the host only public_url is our own origin.
func (s *Server) fromHere(req *http.Request) bool {
	if site := req.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := req.Header.Get("Origin")
	if origin == "" || origin+"/" == s.issuer() {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == req.Host
}

// posted reads a form that one of our pages has sent, and finds who has (threats A12).
func (s *Server) posted(r *Request) (*browser, url.Values, error) {
	if !s.fromHere(r.Request()) {
		return nil, nil, errForged
	}
	form, err := r.oauthForm()
	if err != nil {
		return nil, nil, errForged
	}
	b, err := s.browser(r)
	if err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare([]byte(form.Get("csrf")), []byte(b.csrf())) != 1 {
		return nil, nil, errForged
	}
	return b, form, nil
}

// failPage writes an error as a page.
func (s *Server) failPage(r *Request, err error) {
	status, key := http.StatusForbidden, "forged"
	if !errors.Is(err, errForged) {
		known := s.known(r.Context, r.route.OperationID, err)
		status, key = known.Status, problem(known, "visit_over")
	}
	text := words(r).say(key)
	if _, err := s.visitPage(r, status, "error", nil, map[string]any{"Title": "failed_title", "Error": text}); err != nil {
		s.respond(r.Context, r.route.OperationID, nil, err)
	}
}

// problem is what a page says of an error; refused is for what is simply wrong.
func problem(err error, refused string) string {
	var known *matrix.Error
	switch {
	case !errors.As(err, &known):
		return "server_error"
	case known.Code == "M_LIMIT_EXCEEDED":
		return "too_many"
	case known.Code == "M_USER_LOCKED":
		return "locked"
	case known.Status >= http.StatusInternalServerError:
		return "server_error"
	}
	return refused
}
