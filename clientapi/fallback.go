package clientapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/limits"
	"conclave/internal/matrix"
)

// Pages for clients that do not know a stage of user-interactive authentication, or no way to log in at all (client-server
// API, "Fallback" and "Login Fallback").
var fallbackRoutes = []Route{
	onPage(op(get, "/auth/:authType/fallback/web", "im.conclave.authFallback", NoAuth, LimitRefresh, (*Server).authFallback)),
	onPage(op(post, "/auth/:authType/fallback/web", "im.conclave.authFallbackForm", NoAuth, LimitLogin, (*Server).authFallbackForm)),
	{Method: get, Path: "/_matrix/static/client/login/", OperationID: "im.conclave.loginFallback", Auth: NoAuth, Limit: LimitRefresh, Page: true, Fail: (*Server).failPage, Handler: (*Server).loginFallback},
	{Method: post, Path: "/_matrix/static/client/login/", OperationID: "im.conclave.loginFallbackForm", Auth: NoAuth, Limit: LimitLogin, Page: true, Fail: (*Server).failPage, Handler: (*Server).loginFallbackForm},
}

// onPage declares that a route answers with a page.
func onPage(r Route) Route {
	r.Page, r.Fail = true, (*Server).failPage
	return r
}

// fallbackData is what such a page asks for.
type fallbackData struct {
	Text     string // in words
	Button   string // key of a text
	Hidden   []pageField
	Fields   []pageField
	Policies []pagePolicyLink
	Work     *pageWork
	Again    string // where another e-mail address can be given
}

// pageField is a field of a form; its label is the key of a text.
type pageField struct{ Name, Value, Label, Type, Complete string }

type pagePolicyLink struct{ ID, Lang, Name, URL string }

type pageWork struct {
	Seed       string
	Difficulty int
}

// authFallback is GET /auth/{authType}/fallback/web: the page of a stage.
func (s *Server) authFallback(r *Request) (any, error) {
	f, err := s.Accounts.Fallback(r.Ctx(), r.QueryParam("session"), r.Param("authType"))
	if err != nil {
		return s.stageGone(r, err)
	}
	return s.stage(r, f, page{})
}

// stageGone says that there is no such session any more.
func (s *Server) stageGone(r *Request, err error) (any, error) {
	var known *matrix.Error
	if !errors.As(err, &known) || known.Status >= http.StatusInternalServerError {
		return nil, err
	}
	return s.show(r, "text", page{Status: known.Status, Title: "stage.gone", Data: "stage.gone.text"})
}

// stage shows a stage that is to be passed, or says that it is.
func (s *Server) stage(r *Request, f *accounts.Fallback, p page) (any, error) {
	if f.Done {
		return s.show(r, "text", page{Title: "stage.done", Data: "stage.done.text", Script: "done.js"})
	}
	say := words(r).say
	p.Title = "stage." + f.Stage
	d := fallbackData{Button: "continue"}
	if _, ok := words(r)[p.Title]; !ok { // no page can do what this stage asks for
		return s.show(r, "text", page{Status: http.StatusNotFound, Title: "stage.gone", Data: "stage.gone.text"})
	}
	d.Text = say(p.Title + ".text")
	switch f.Stage {
	case accounts.StagePassword:
		d.Text = say(p.Title+".text", f.User)
		d.Hidden = []pageField{{Name: "username", Value: string(f.User)}} // for programs that keep passwords
		d.Fields = []pageField{{Name: "password", Label: "password", Type: "password", Complete: "current-password"}}
	case accounts.StageToken:
		d.Fields = []pageField{{Name: "token", Label: "invitation", Type: "text", Complete: "off"}}
	case accounts.StageFactor:
		d.Fields = []pageField{{Name: "code", Label: "factor.code", Type: "text", Complete: "one-time-code"}}
	case accounts.StageEmail:
		if f.Mailed && r.QueryParam("again") == "" {
			again := url.Values{"session": {r.QueryParam("session")}, "again": {"yes"}}
			d.Text, d.Again = say(p.Title+".sent"), "?"+again.Encode()
			break
		}
		d.Fields = []pageField{{Name: "email", Label: "address", Type: "email", Complete: "email"}}
	case accounts.StageOAuth:
		return s.toApproval(r, f)
	case accounts.StageTerms:
		d.Policies = policiesIn(f.Params[accounts.StageTerms], languageOf(r.Request()).String())
	case accounts.StageWork:
		if err := reread(f.Params[accounts.StageWork], &d.Work); err != nil {
			return nil, err
		}
		d.Hidden, p.Script = []pageField{{Name: "nonce"}}, "pow.js"
	}
	p.Data = d
	return s.show(r, "fallback", p)
}

// toApproval sends somebody to the page on which they approve what their session asks for.
func (s *Server) toApproval(r *Request, f *accounts.Fallback) (any, error) {
	var where struct{ URL string }
	if err := reread(f.Params[accounts.StageOAuth], &where); err != nil {
		return nil, err
	}
	if where.URL == "" {
		where.URL = s.Accounts.ManagementURL(nil)
	}
	return turnTo(r, where.URL)
}

// mailStage has the mail sent that a form asks for.
func (s *Server) mailStage(r *Request, f *accounts.Fallback, session, to string) (any, error) {
	from := s.address(r.Request())
	mailed, err := s.Accounts.MailStage(r.Ctx(), session, accounts.AddressRequest{
		Address: to, Accept: r.Request().Header.Get("Accept-Language"), From: from, Block: limits.Block(from),
	})
	var known *matrix.Error
	switch {
	case err == nil && r.QueryParam("again") != "":
		return turnTo(r, r.Request().URL.EscapedPath()+"?"+url.Values{"session": {session}}.Encode())
	case err == nil:
		return s.stage(r, mailed, page{})
	case !errors.As(err, &known):
		return nil, err
	}
	refused := "stage.m.login.email.identity.bad"
	if known.Code == "M_THREEPID_DENIED" {
		refused = "stage.m.login.email.identity.refused"
	}
	f.Mailed = false
	return s.stage(r, f, page{Status: known.Status, Error: words(r).say(problem(err, refused))})
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
	form, err := s.pageForm(r)
	if err != nil {
		return nil, err
	}
	session, stage := r.QueryParam("session"), r.Param("authType")
	f, err := s.Accounts.Fallback(r.Ctx(), session, stage)
	if err != nil {
		return s.stageGone(r, err)
	}
	if f.Stage == accounts.StageEmail && !f.Done && form.Has("email") {
		return s.mailStage(r, f, session, form.Get("email"))
	}
	passed, err := s.passStage(r, f, session, form)
	if err == nil {
		return s.stage(r, passed, page{})
	}
	var known *matrix.Error
	if !errors.As(err, &known) {
		return nil, err
	}
	wrong := "stage." + stage + ".wrong"
	if known.Code == "M_INVALID_PARAM" || known.Code == "M_MISSING_PARAM" { // another stage comes first
		wrong = "stage.early"
	}
	if _, ok := words(r)[wrong]; !ok {
		wrong = "stage.failed"
	}
	return s.stage(r, f, page{Status: known.Status, Error: words(r).say(problem(err, wrong))})
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
	return s.Accounts.PassStage(r.Ctx(), answer, limits.Block(s.address(r.Request())))
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
