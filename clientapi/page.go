package clientapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"

	"golang.org/x/text/language"

	"conclave/internal/matrix"
)

// Pages are for people whose client cannot lead them through something: plain HTML without scripts, in the language that
// the browser asks for. Their texts are in pages/LANGUAGE.json, by the same keys in each.

//go:embed pages
var pageFiles embed.FS

var pageTemplates = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// pageLanguages are those that pages are in; the first is for everybody else.
var pageLanguages = []language.Tag{language.English, language.German}

var pageMatcher = language.NewMatcher(pageLanguages)

// pageTexts are the texts of each language, by their keys.
var pageTexts = func() map[language.Tag]map[string]string {
	all := map[language.Tag]map[string]string{}
	for _, tag := range pageLanguages {
		raw, err := pageFiles.ReadFile("pages/" + tag.String() + ".json")
		texts := map[string]string{}
		if err == nil {
			err = json.Unmarshal(raw, &texts)
		}
		if err != nil {
			panic("clientapi: the texts of pages: " + err.Error()) // they are embedded
		}
		all[tag] = texts
	}
	return all
}()

// pageStyle is the pages' one style sheet, which their policy allows by its hash.
var pageStyle = func() string {
	text, err := pageFiles.ReadFile("pages/page.css")
	if err != nil {
		panic("clientapi: " + err.Error()) // embedded files can be read
	}
	return string(text)
}()

// pagePolicy lets a page have its own style and send its form here, and nothing else: no script, no frame around it.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}()

// page is what a template is filled in with.
type page struct {
	Title   string // key of a text
	Data    any
	Alert   string       // what went wrong, in words
	Refresh template.URL // where the browser goes by itself; checked by whoever sets it

	Lang   string
	Server string
	Style  template.CSS
	texts  map[string]string
}

// T is the text of a key.
func (p page) T(key string) (string, error) {
	text, ok := p.texts[key]
	if !ok {
		return "", fmt.Errorf("clientapi: no text %q in %s", key, p.Lang)
	}
	return text, nil
}

// show writes a page. Neither caches nor the pages that it links to learn its address, which may hold a secret.
func (s *Server) show(r *Request, status int, name string, p page) (any, error) {
	_, index := language.MatchStrings(pageMatcher, r.Request().Header.Get("Accept-Language"))
	tag := pageLanguages[index]
	p.Lang, p.texts, p.Server, p.Style = tag.String(), pageTexts[tag], s.Config.ServerName, template.CSS(pageStyle) //nolint:gosec // a file of ours
	var out bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&out, name, p); err != nil {
		return nil, err
	}
	h := r.Response().Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	r.Response().WriteHeader(status)
	r.Response().Write(out.Bytes()) //nolint:errcheck // a client that went away is nobody to tell
	return Done{}, nil
}

// showError shows an error that is meant for people as a page; others are answered as everywhere.
func (s *Server) showError(r *Request, err error) (any, error) {
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status == http.StatusUnauthorized {
		return nil, err
	}
	if e.Cause != nil {
		s.Log.Warn("a page shows an error", "operation", r.route.OperationID, "err", e.Cause)
	}
	return s.show(r, e.Status, "message.html", page{Title: "error.title", Data: e.Text})
}
