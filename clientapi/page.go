package clientapi

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"

	"golang.org/x/text/language"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// Our own pages: where people sign in for a client, let devices in, look after their account, or get through something that
// their client cannot lead them through. They are made here, work without scripts wherever that is possible, load nothing
// from anywhere else, and no other site can show them in a frame. All have one layout (pages/layout.html), one style sheet
// in the look of the client, and their texts in pages/LANGUAGE.json, by the same keys in each language.

//go:embed pages
var pageFiles embed.FS

func pageFile(name string) []byte {
	text, err := pageFiles.ReadFile("pages/" + name)
	if err != nil {
		panic("clientapi: " + err.Error()) // embedded files can be read
	}
	return text
}

// pageLanguages are those that pages are in; the first is for everybody else.
var pageLanguages = []language.Tag{language.English, language.German}

var pageMatcher = language.NewMatcher(pageLanguages)

// pageWords are the texts of a language.
type pageWords map[string]string

// say is a text, with what belongs into its gaps.
func (w pageWords) say(key string, gaps ...any) string {
	text, err := w.text(key, gaps...)
	if err != nil {
		return key
	}
	return text
}

func (w pageWords) text(key string, gaps ...any) (string, error) {
	text, ok := w[key]
	switch {
	case !ok:
		return "", fmt.Errorf("clientapi: no text %q", key)
	case len(gaps) > 0:
		return fmt.Sprintf(text, gaps...), nil
	}
	return text, nil
}

// pageTexts are the texts of each language.
var pageTexts = func() map[language.Tag]pageWords {
	all := map[language.Tag]pageWords{}
	for _, tag := range pageLanguages {
		texts := pageWords{}
		if err := json.Unmarshal(pageFile(tag.String()+".json"), &texts); err != nil {
			panic("clientapi: the texts of pages: " + err.Error()) // they are embedded
		}
		all[tag] = texts
	}
	return all
}()

var pageTemplates = func() map[language.Tag]*template.Template {
	all := map[language.Tag]*template.Template{}
	for _, tag := range pageLanguages {
		t := template.New(tag.String()).Funcs(template.FuncMap{"t": pageTexts[tag].text})
		all[tag] = template.Must(t.ParseFS(pageFiles, "pages/*.html"))
	}
	return all
}()

// maxAcceptLanguage is how much of what a browser says that its user reads is worth reading, in bytes.
const maxAcceptLanguage = 1000

// languageOf is the language of the pages for a request.
func languageOf(req *http.Request) language.Tag {
	accept := req.Header.Get("Accept-Language")
	if len(accept) > maxAcceptLanguage {
		return pageLanguages[0]
	}
	_, i := language.MatchStrings(pageMatcher, accept)
	return pageLanguages[i]
}

func words(r *Request) pageWords { return pageTexts[languageOf(r.Request())] }

// assetPath is where the pages' style sheet and scripts are. Their names hold a hash of what is in them, so that they can be
// kept for good.
const assetPath = "/oauth2/page/"

// pageAsset is a file that pages load.
type pageAsset struct {
	name, kind string
	content    []byte
}

// pageAssets are those files, by the name in their address; assetNames are those names, by the file's.
var pageAssets, assetNames = func() (assets map[string]pageAsset, names map[string]string) {
	assets, names = map[string]pageAsset{}, map[string]string{}
	for name, kind := range map[string]string{
		"page.css": "text/css; charset=utf-8", "passkey.js": "text/javascript; charset=utf-8", "done.js": "text/javascript; charset=utf-8",
		"login.js": "text/javascript; charset=utf-8", "pow.js": "text/javascript; charset=utf-8",
	} {
		content := pageFile(name)
		sum := sha256.Sum256(content)
		ext := path.Ext(name)
		names[name] = strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:8]) + ext
		assets[names[name]] = pageAsset{name, kind, content}
	}
	return assets, names
}()

var pageAssetRoutes = []Route{
	{Method: get, Path: assetPath + ":file", OperationID: "im.conclave.page.file", Auth: NoAuth, Limit: LimitRead, Page: true, Handler: (*Server).pageAssetFile},
}

// pageAssetFile is GET /oauth2/page/{file}.
func (s *Server) pageAssetFile(r *Request) (any, error) {
	asset, ok := pageAssets[r.Param("file")]
	if !ok {
		return nil, matrix.NotFound("There is no such file.")
	}
	h := r.Response().Header()
	h.Del("Vary")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", asset.kind)
	_, _ = r.Response().Write(asset.content) // a browser that went away is nobody to tell
	return Done{}, nil
}

// page is what a template is filled in with.
type page struct {
	Status  int          // 0: 200
	Title   string       // key of a text
	Error   string       // what went wrong, in words
	Notice  string       // what went well, in words
	Wide    bool         // more than a question
	Script  string       // the file that runs in it, "" if none does
	Refresh template.URL // where the browser goes by itself; checked by whoever sets it
	Data    any

	// Of somebody's visit (visitPage).
	CSRF       string
	UserID     matrix.UserID
	Client     *accounts.Client
	ClientName string
	Sections   []section // of account management, if the page is part of it

	// Of show itself.
	Lang, Server, Nonce string
	target              string // where its forms may lead in the end, beside here
}

// Asset is the address of a file that the page loads.
func (page) Asset(name string) (string, error) {
	file, ok := assetNames[name]
	if !ok {
		return "", fmt.Errorf("clientapi: pages have no file %q", name)
	}
	return assetPath + file, nil
}

// pageHeaders are those of every answer of a page's address, which may hold a secret: no cache and no other page learns it.
func pageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", (&page{}).policy())
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
	h.Set("Vary", "Accept-Language, Cookie")
}

// policy is the Content-Security-Policy of a page: only the style sheet and the script that its own template names are taken,
// by a number used once. Browsers look at the redirects of forms too.
func (p *page) policy() string {
	policy := "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
	if p.target != "" {
		policy += " " + p.target
	}
	if p.Nonce == "" {
		return policy
	}
	policy += "; img-src 'self' data:; style-src 'nonce-" + p.Nonce + "'"
	if p.Script != "" {
		policy += "; script-src 'nonce-" + p.Nonce + "'; require-trusted-types-for 'script'"
	}
	return policy
}

// show writes a page, by the name of its template.
func (s *Server) show(r *Request, name string, p page) (any, error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	tag := languageOf(r.Request())
	p.Lang, p.Server, p.Nonce = tag.String(), s.Config.ServerName, base64.RawURLEncoding.EncodeToString(nonce[:])
	var out bytes.Buffer
	if err := pageTemplates[tag].ExecuteTemplate(&out, name, &p); err != nil {
		return nil, err
	}
	if p.Status == 0 {
		p.Status = http.StatusOK
	}
	h := r.Response().Header()
	h.Set("Content-Security-Policy", p.policy())
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	r.Response().WriteHeader(p.Status)
	_, _ = r.Response().Write(out.Bytes()) // a browser that went away is nobody to tell
	return Done{}, nil
}

// failPage writes an error as a page. What is not for people in the language of the page is told by its kind.
func (s *Server) failPage(r *Request, err error) {
	p := page{Status: http.StatusForbidden, Title: "failed_title", Error: words(r).say("forged")}
	if !errors.Is(err, errForged) {
		known := s.known(r.Context, r.route.OperationID, err)
		p.Status, p.Error = known.Status, words(r).say(problem(known, refusals[r.route.OperationID]))
	}
	if _, err := s.show(r, "error", p); err != nil {
		s.respond(r.Context, r.route.OperationID, nil, err)
	}
}

// refusals are what pages say of an error that is nobody's fault but the visitor's, by operation; the rest are over.
var refusals = map[string]string{
	"im.conclave.ssoCallback": "sso_refused", "im.conclave.ssoContinue": "sso_refused",
}

// problem is the key of what a page says of an error; refused is for what is simply wrong, "" for a visit that is over.
func problem(err error, refused string) string {
	var known *matrix.Error
	switch {
	case !errors.As(err, &known):
		return "server_error"
	case known.Code == "M_LIMIT_EXCEEDED":
		return "too_many"
	case known.Code == "M_USER_LOCKED":
		return "locked"
	case known.Code == "M_USER_DEACTIVATED":
		return "account_closed"
	case known.Status == http.StatusBadGateway:
		return "provider_away"
	case known.Status >= http.StatusInternalServerError:
		return "server_error"
	case refused == "":
		return "visit_over"
	}
	return refused
}
