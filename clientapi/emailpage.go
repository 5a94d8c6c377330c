package clientapi

import (
	"mime"
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// emailData is what the page of a link shows.
type emailData struct {
	State string // "ask", "done" or "gone"
	Token string
	Claim *accounts.AddressClaim
	Next  string
}

// title is the key of the page's title.
func (d emailData) title() string {
	if d.State == "ask" && d.Claim.Purpose == accounts.ForReset {
		return "email.reset"
	}
	return "email." + d.State
}

// Question is the key of the page's text.
func (d emailData) Question() string {
	switch {
	case d.State != "ask":
		return "email." + d.State + ".text"
	case d.Claim.Purpose == accounts.ForRegistration:
		return "email.ask.register"
	case d.Claim.Purpose == accounts.ForReset:
		return "email.ask.reset"
	}
	return "email.ask.add"
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
	return s.showEmail(r, emailData{State: state, Token: token, Claim: claim})
}

// submitToken is the form of that page, and the same for programs (Identity Service API, "POST
// /validate/email/submitToken"), which have to name the session too.
func (s *Server) submitToken(r *Request) (any, error) {
	if isForm(r) {
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
	form, err := s.pageForm(r)
	if err != nil {
		return nil, err
	}
	claim, err := s.Accounts.ConfirmAddress(r.Ctx(), form.Get("token"))
	if err != nil {
		return nil, err
	}
	if claim == nil {
		return s.showEmail(r, emailData{State: "gone"})
	}
	return s.showEmail(r, emailData{State: "done", Claim: claim, Next: claim.NextLink})
}

// showEmail writes the page.
func (s *Server) showEmail(r *Request, d emailData) (any, error) {
	p := page{Title: d.title(), Data: d}
	if d.State == "gone" {
		p.Status = http.StatusBadRequest
	}
	return s.show(r, "email", p)
}

// failEmail writes an error of submitToken to whoever sent it.
func (s *Server) failEmail(r *Request, err error) {
	if !isForm(r) {
		s.respond(r.Context, r.route.OperationID, nil, err)
		return
	}
	s.failPage(r, err)
}

// isForm says whether a request is a form's.
func isForm(r *Request) bool {
	kind, _, err := mime.ParseMediaType(r.Request().Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// unsubscribePage is where such mails lead whoever does not want them any more. It asks, and changes nothing, as
// confirmPage.
func (s *Server) unsubscribePage(r *Request) (any, error) {
	to, err := s.Pushers.Unsubscribable(r.Ctx(), r.QueryParam("token"))
	if err != nil {
		return nil, err
	}
	return s.showUnsubscribing(r, "ask", to)
}

// unsubscribe is the button of that page, which mail programs press too (RFC 8058). What they send with it is of no
// interest: the token stands in the address.
func (s *Server) unsubscribe(r *Request) (any, error) {
	to, err := s.Pushers.Unsubscribe(r.Ctx(), r.QueryParam("token"))
	if err != nil {
		return nil, err
	}
	return s.showUnsubscribing(r, "done", to)
}

func (s *Server) showUnsubscribing(r *Request, state, address string) (any, error) {
	switch {
	case address == "":
		return s.show(r, "text", page{Status: http.StatusBadRequest, Title: "unsubscribe.gone", Data: "unsubscribe.gone.text"})
	case state == "done":
		return s.show(r, "text", page{Title: "unsubscribe.done", Data: "unsubscribe.done.text"})
	}
	return s.show(r, "unsubscribe", page{Title: "unsubscribe.ask", Data: address})
}
