package clientapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"mime"
	"net/http"
	"net/url"

	"conclave/internal/accounts"
	"conclave/internal/mail"
	"conclave/internal/matrix"
)

//go:embed pages
var pageFiles embed.FS

var emailPages = template.Must(template.ParseFS(pageFiles, "pages/email.html", "pages/email.de.html", "pages/email.en.html"))

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

// emailPage is what the page of a link shows.
type emailPage struct {
	Lang  string
	Style template.CSS
	State string // "ask", "done" or "gone"
	Token string
	Claim *accounts.AddressClaim
	Next  string
	Name  string // the server's
}

// confirmPage is the page that a link in a mail leads to. It asks, and changes nothing: programs that look through mails
// follow links, and what they see must not count as the owner's word.
func (s *Server) confirmPage(r *Request) (any, error) {
	token := r.QueryParam("token")
	claim, err := s.Accounts.Confirmable(r.Ctx(), token)
	if err != nil {
		return nil, err
	}
	state := "ask"
	if claim == nil {
		state, token = "gone", ""
	}
	return s.showPage(r, emailPage{State: state, Token: token, Claim: claim})
}

// submitToken is the form of that page, and the same for programs (Identity Service API, "POST
// /validate/email/submitToken"), which have to name the session too.
func (s *Server) submitToken(r *Request) (any, error) {
	kind, _, err := mime.ParseMediaType(r.Request().Header.Get("Content-Type"))
	if err == nil && kind == "application/x-www-form-urlencoded" {
		return s.submitForm(r)
	}
	var body struct {
		SID    string `json:"sid"`
		Secret string `json:"client_secret"`
		Token  string `json:"token"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.SID == "" || body.Secret == "" || body.Token == "" {
		return nil, matrix.MissingParam("sid, client_secret and token are needed.")
	}
	if err := s.Accounts.SubmitToken(r.Ctx(), body.SID, body.Secret, body.Token); err != nil {
		return nil, err
	}
	return Raw(`{"success":true}`), nil
}

// submitForm uses a link. Its token is the only thing that counts: no cookie could be abused by another site's form.
func (s *Server) submitForm(r *Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, matrix.InvalidParam("That is no form.").With(err)
	}
	claim, err := s.Accounts.ConfirmAddress(r.Ctx(), form.Get("token"))
	if err != nil {
		return nil, err
	}
	if claim == nil {
		return s.showPage(r, emailPage{State: "gone"})
	}
	return s.showPage(r, emailPage{State: "done", Claim: claim, Next: claim.NextLink})
}

// showPage writes a page in a language that the browser asks for.
func (s *Server) showPage(r *Request, p emailPage) (any, error) {
	p.Lang = mail.Language(r.Request().Header.Get("Accept-Language"))
	p.Style, p.Name = template.CSS(pageStyle), s.Config.ServerName //nolint:gosec // a file of ours
	var out bytes.Buffer
	if err := emailPages.ExecuteTemplate(&out, "email.html", p); err != nil {
		return nil, err
	}
	h := r.Response().Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer") // the address of the page holds the token
	h.Set("X-Frame-Options", "DENY")
	status := http.StatusOK
	if p.State == "gone" {
		status = http.StatusBadRequest
	}
	r.Response().WriteHeader(status)
	r.Response().Write(out.Bytes()) //nolint:errcheck // a client that went away is nobody to tell
	return Done{}, nil
}
