package clientapi

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"

	"conclave/internal/matrix"
)

// errForged refuses what was not sent from a page of ours.
var errForged = errors.New("a form that is not ours")

// fromHere reports whether a browser says that a page of ours sends a request. Those of today say so by Sec-Fetch-Site; the
// origin they hide from us too, as our pages send no referrer (Fetch, "append a request Origin header"). Browsers that say
// nothing are old, or none: then what the form carries has to be enough, a token of the visit (browser.csrf) or the secret
// that the page was reached by. Behind a proxy that changes the host only public_url is our own origin.
func (s *Server) fromHere(req *http.Request) bool {
	origin := req.Header.Get("Origin")
	switch site := req.Header.Get("Sec-Fetch-Site"); {
	case site != "" && site != "same-origin":
		return false
	case site != "" && origin == "null":
		return true
	}
	if origin == "" || origin+"/" == s.issuer() {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == req.Host
}

// pageForm reads a form that one of our pages has sent: every page's form comes in here (threats A12).
func (s *Server) pageForm(r *Request) (url.Values, error) {
	if !s.fromHere(r.Request()) {
		return nil, errForged
	}
	form, err := r.form()
	if err != nil {
		return nil, errForged
	}
	return form, nil
}

// form reads a body as forms send it. Only some fields have several values.
func (r *Request) form() (url.Values, error) {
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
	for name, values := range form {
		if !matrix.IsText(name) || slices.ContainsFunc(values, func(v string) bool { return !matrix.IsText(v) }) {
			return nil, matrix.InvalidParam("The form holds something that is not text.")
		}
	}
	return form, nil
}
