package clientapi

import (
	"html/template"
	"net/http"
)

// The page of the stage m.login.sso says what is to be confirmed, before it leads to the organization's provider: whoever
// has stolen a session can send its owner here, and they must be able to tell (client-server API, "SSO during
// User-Interactive Authentication", "Security considerations").

// stageOperation is the key of a text that says what an operation does that somebody is to confirm.
func stageOperation(r *Request, operation string) string {
	key := "stage_for." + operation
	if _, ok := words(r)[key]; !ok {
		return "stage_for.other"
	}
	return key
}

// leaveForStage is the form of that page: the browser goes to the provider, and is known by its cookie when it comes back.
func (s *Server) leaveForStage(r *Request, session string) (any, error) {
	location, browser, err := s.Accounts.BeginSSOStage(r.Ctx(), session)
	if err != nil {
		return s.ssoRefused(r, err)
	}
	http.SetCookie(r.Response(), s.ssoCookie(browser, 0))
	address := template.URL(location) //nolint:gosec // the provider's, as the configuration names it
	// A link, because browsers do not let the answer to a form lead to another site that the policy does not name.
	return s.show(r, "ssogo", page{Title: "sso_go.title", Refresh: address, Data: address})
}
