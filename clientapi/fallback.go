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
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// Pages for clients that do not know a stage of user-interactive authentication, or no way to log in at all (client-server
// API, "Fallback" and "Login Fallback").
var fallbackRoutes = []Route{
	onPage(op(get, "/auth/:authType/fallback/web", "im.conclave.authFallback", NoAuth, LimitRefresh, (*Server).authFallback)),
	onPage(op(post, "/auth/:authType/fallback/web", "im.conclave.authFallbackForm", NoAuth, LimitLogin, (*Server).authFallbackForm)),
	{Method: get, Path: "/_matrix/static/client/login/", OperationID: "im.conclave.loginFallback", Auth: NoAuth, Limit: LimitRefresh, Page: true, Handler: (*Server).loginFallback},
	{Method: post, Path: "/_matrix/static/client/login/", OperationID: "im.conclave.loginFallbackForm", Auth: NoAuth, Limit: LimitLogin, Page: true, Handler: (*Server).loginFallbackForm},
}

// onPage declares that a route answers with a page.
func onPage(r Route) Route {
	r.Page = true
	return r
}

//go:embed fallback
var fallbackFiles embed.FS

var fallbackPage = template.Must(template.ParseFS(fallbackFiles, "fallback/page.html"))

func fallbackFile(name string) string {
	text, err := fallbackFiles.ReadFile("fallback/" + name)
	if err != nil {
		panic("clientapi: " + err.Error()) // embedded files can be read
	}
	return string(text)
}

var (
	fallbackStyle = fallbackFile("style.css")
	doneScript    = fallbackFile("done.js")
	workScript    = fallbackFile("pow.js")
	loginScript   = fallbackFile("login.js")
)

// shownPage is what a page holds.
type shownPage struct {
	Status              int
	Lang, Server, Title string
	Text, Error         string
	Form                bool
	Button              string
	Agree               string
	Working, NoScript   string
	Hidden              []pageField
	Fields              []pageField
	Policies            []pagePolicyLink
	Work                *pageWork
	Script              template.JS
	Style               template.CSS
	Response            string // JSON that a script hands on
}

type pageField struct{ Name, Value, Label, Type, Complete string }

type pagePolicyLink struct{ ID, Lang, Name, URL string }

type pageWork struct {
	Seed       string
	Difficulty int
}

// newPage begins a page in a language that the browser asks for.
func (s *Server) newPage(r *Request) *shownPage {
	lang := pageLanguage(r.Request().Header.Get("Accept-Language"))
	return &shownPage{
		Status: http.StatusOK, Lang: lang, Server: s.Config.ServerName, Style: template.CSS(fallbackStyle), //nolint:gosec // a file of ours
		Button: fallbackTexts[lang]["button"],
	}
}

func (p *shownPage) say(key string) string { return fallbackTexts[p.Lang][key] }

// hashed is a source of a Content-Security-Policy that allows one text.
func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// show writes a page. Nothing runs in it but the script that it comes with, it sends its form nowhere else, and no other
// page can frame it.
func (p *shownPage) show(r *Request) (any, error) {
	var out bytes.Buffer
	if err := fallbackPage.Execute(&out, p); err != nil {
		return nil, err
	}
	script := "'none'"
	if p.Script != "" {
		script = hashed(string(p.Script))
	}
	h := r.Response().Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Lang)
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+hashed(fallbackStyle)+"; script-src "+script+
		"; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the session
	h.Set("X-Frame-Options", "DENY")
	r.Response().WriteHeader(p.Status)
	r.Response().Write(out.Bytes()) //nolint:errcheck // a client that went away is nobody to tell
	return Done{}, nil
}

// refuse turns an error that is the visitor's into what the page says: wrong is the text for a wrong answer. Other errors
// are not the page's.
func (p *shownPage) refuse(err error, wrong string) error {
	var known *matrix.Error
	if !errors.As(err, &known) {
		return err
	}
	p.Status, p.Error = known.Status, wrong
	if known.Code == "M_LIMIT_EXCEEDED" {
		p.Error = p.say("later")
	}
	if p.Error == "" {
		p.Error = known.Text
	}
	return nil
}

// form reads a form that came from a page of ours: browsers say where a form comes from, and another site's is not taken.
func (r *Request) form() (url.Values, error) {
	if site := r.Request().Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return nil, matrix.Forbidden("This form came from another site.")
	}
	kind, _, err := mime.ParseMediaType(r.Request().Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, matrix.InvalidParam("This is for the form of a page.")
	}
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, matrix.InvalidParam("That is no form.").With(err)
	}
	for _, values := range form {
		if slices.ContainsFunc(values, func(v string) bool { return !matrix.IsText(v) }) {
			return nil, matrix.InvalidParam("The form holds something that is not text.")
		}
	}
	return form, nil
}

// authFallback is GET /auth/{authType}/fallback/web: the page of a stage.
func (s *Server) authFallback(r *Request) (any, error) {
	p := s.newPage(r)
	f, err := s.Accounts.Fallback(r.Ctx(), r.QueryParam("session"), r.Param("authType"))
	if err != nil {
		return p.gone(r, err)
	}
	return p.stage(r, f)
}

// gone says that there is no such session any more.
func (p *shownPage) gone(r *Request, err error) (any, error) {
	if err := p.refuse(err, ""); err != nil {
		return nil, err
	}
	p.Title, p.Text, p.Error = p.say("gone"), p.say("gone.text"), ""
	return p.show(r)
}

// stage shows a stage that is to be passed, or says that it is.
func (p *shownPage) stage(r *Request, f *accounts.Fallback) (any, error) {
	if f.Done {
		p.Title, p.Text, p.Script = p.say("done"), p.say("done.text"), template.JS(doneScript) //nolint:gosec // a file of ours
		return p.show(r)
	}
	p.Form, p.Title, p.Text = true, p.say(f.Stage), p.say(f.Stage+".text")
	switch f.Stage {
	case accounts.StageDummy:
	case accounts.StageSSO:
		p.Text = p.ssoStage(f)
	case accounts.StagePassword:
		p.Text = fmt.Sprintf(p.Text, f.User)
		p.Hidden = []pageField{{Name: "username", Value: string(f.User)}} // for programs that keep passwords
		p.Fields = []pageField{{Name: "password", Label: p.say("password"), Type: "password", Complete: "current-password"}}
	case accounts.StageToken:
		p.Fields = []pageField{{Name: "token", Label: p.say("token"), Type: "text", Complete: "off"}}
	case accounts.StageFactor:
		p.Fields = []pageField{{Name: "code", Label: p.say("code"), Type: "text", Complete: "one-time-code"}}
	case accounts.StageTerms:
		p.Agree, p.Policies = p.say("agree"), policiesIn(f.Params[accounts.StageTerms], p.Lang)
	case accounts.StageWork:
		if err := reread(f.Params[accounts.StageWork], &p.Work); err != nil {
			return nil, err
		}
		p.Hidden, p.Script = []pageField{{Name: "nonce"}}, template.JS(workScript) //nolint:gosec // a file of ours
		p.Working, p.NoScript = p.say("working"), p.say("noscript")
	default:
		p.Form, p.Title, p.Text = false, p.say("gone"), p.say("gone.text")
	}
	return p.show(r)
}

// reread brings parameters into another form that has the same JSON.
func reread(from, into any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// policiesIn are the documents of a stage in a language, or in another if there is none in it.
func policiesIn(params any, lang string) []pagePolicyLink {
	var terms struct {
		Policies map[string]map[string]json.RawMessage `json:"policies"`
	}
	if reread(params, &terms) != nil {
		return nil
	}
	var links []pagePolicyLink
	for id, texts := range terms.Policies {
		var best pagePolicyLink
		rank := 0
		for tag, raw := range texts {
			var text struct{ Name, URL string }
			if tag == "version" || json.Unmarshal(raw, &text) != nil {
				continue
			}
			base, _, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(tag), "_", "-"), "-")
			is := map[string]int{lang: 3, "en": 2}[base]
			if is = max(is, 1); is > rank || is == rank && tag < best.Lang {
				best, rank = pagePolicyLink{id, tag, text.Name, text.URL}, is
			}
		}
		links = append(links, best)
	}
	slices.SortFunc(links, func(a, b pagePolicyLink) int { return strings.Compare(a.ID, b.ID) })
	return links
}

// authFallbackForm is the form of that page. The session's ID is what counts: nobody but its client knows it.
func (s *Server) authFallbackForm(r *Request) (any, error) {
	form, err := r.form()
	if err != nil {
		return nil, err
	}
	p, session, stage := s.newPage(r), r.QueryParam("session"), r.Param("authType")
	f, err := s.Accounts.Fallback(r.Ctx(), session, stage)
	if err != nil {
		return p.gone(r, err)
	}
	if stage == accounts.StageSSO && !f.Done {
		return s.leaveForStage(r, session)
	}
	passed, err := s.passStage(r, f, session, form)
	if err == nil {
		return p.stage(r, passed)
	}
	if err := p.refuse(err, p.say(stage+".wrong")); err != nil {
		return nil, err
	}
	return p.stage(r, f)
}

// passStage hands on what a form says.
func (s *Server) passStage(r *Request, f *accounts.Fallback, session string, form url.Values) (*accounts.Fallback, error) {
	if !f.Done && agreesNot(f, form) {
		return nil, matrix.Forbidden("Not all documents were agreed to.")
	}
	answer, err := stageAnswer(f, session, form)
	if err != nil {
		return nil, err
	}
	return s.Accounts.PassStage(r.Ctx(), answer, block(s.address(r.Request())))
}

// agreesNot says whether a form agrees to fewer documents than it has to.
func agreesNot(f *accounts.Fallback, form url.Values) bool {
	if f.Stage != accounts.StageTerms {
		return false
	}
	return slices.ContainsFunc(policiesIn(f.Params[accounts.StageTerms], "en"), func(p pagePolicyLink) bool { return !slices.Contains(form["agree"], p.ID) })
}

// stageAnswer is what a client would send that knows the stage.
func stageAnswer(f *accounts.Fallback, session string, form url.Values) (*accounts.AuthData, error) {
	answer := map[string]any{"type": f.Stage, "session": session}
	switch f.Stage {
	case accounts.StagePassword:
		answer["password"] = form.Get("password")
	case accounts.StageToken:
		answer["token"] = strings.TrimSpace(form.Get("token"))
	case accounts.StageWork:
		answer["nonce"] = form.Get("nonce")
	case accounts.StageFactor:
		answer["factor"], answer["code"] = factorOf(form.Get("code"))
	}
	raw, err := matrix.Encode(answer)
	if err != nil {
		return nil, err
	}
	return &accounts.AuthData{Type: f.Stage, Session: session, Answer: raw}, nil
}

// factorOf says what kind of second factor a code is, and what it is without the spaces that people leave in it: those of
// authenticator apps have six digits, recovery codes are longer.
func factorOf(code string) (kind accounts.Evidence, bare string) {
	if bare = strings.ReplaceAll(code, " ", ""); len(bare) == 6 && strings.Trim(bare, "0123456789") == "" {
		return accounts.ByTOTP, bare
	}
	return accounts.ByRecoveryCode, bare
}
