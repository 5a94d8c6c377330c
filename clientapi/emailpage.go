package clientapi

import (
	"mime"
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// emailPage is what the page of a link shows.
type emailPage struct {
	State string // "ask", "done" or "gone"
	Token string
	Claim *accounts.AddressClaim
	Next  string
}

// title is the key of the page's title.
func (p emailPage) title() string {
	if p.State == "ask" && p.Claim.Purpose == accounts.ForReset {
		return "email.reset"
	}
	return "email." + p.State
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
	return s.showEmail(r, emailPage{State: state, Token: token, Claim: claim})
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
	form, err := r.form()
	if err != nil {
		return nil, err
	}
	claim, err := s.Accounts.ConfirmAddress(r.Ctx(), form.Get("token"))
	if err != nil {
		return nil, err
	}
	if claim == nil {
		return s.showEmail(r, emailPage{State: "gone"})
	}
	return s.showEmail(r, emailPage{State: "done", Claim: claim, Next: claim.NextLink})
}

// showEmail writes the page.
func (s *Server) showEmail(r *Request, p emailPage) (any, error) {
	status := http.StatusOK
	if p.State == "gone" {
		status = http.StatusBadRequest
	}
	return s.show(r, status, "email.html", page{Title: p.title(), Data: p})
}

// unsubscribing is what the page shows that ends mails of what waits unread.
type unsubscribing struct {
	State   string // "ask", "done" or "gone"
	Address string
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
	status := http.StatusOK
	if address == "" {
		status, state = http.StatusBadRequest, "gone"
	}
	return s.show(r, status, "unsubscribe.html", page{Title: "unsubscribe." + state, Data: unsubscribing{state, address}})
}
