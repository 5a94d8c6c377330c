package clientapi

import (
	"fmt"
	"html/template"
	"net/http"

	"conclave/internal/accounts"
)

// The page of the stage m.login.sso says what is to be confirmed, before it leads to the organization's provider: whoever
// has stolen a session can send its owner here, and they must be able to tell (client-server API, "SSO during
// User-Interactive Authentication", "Security considerations").

// stageOperations are what a session of user-interactive authentication is about, in the words of that page.
var stageOperations = map[string]map[string]string{
	"en": {
		"":                                     "change something in the account",
		"deleteDevice":                         "end a session of the account",
		"deleteDevices":                        "end sessions of the account",
		"changePassword":                       "set a new password for the account",
		"deactivateAccount":                    "close the account for good",
		"uploadCrossSigningKeys":               "replace the keys by which others know the account",
		"generateLoginToken":                   "sign in another app to the account",
		"add3PID":                              "add an e-mail address to the account",
		"im.conclave.account.totp.begin":       "set up an authenticator app for the account",
		"im.conclave.account.totp.remove":      "remove the authenticator app of the account",
		"im.conclave.account.recoveryCodes":    "make new recovery codes for the account",
		"im.conclave.account.passkeys.begin":   "add a passkey to the account",
		"im.conclave.account.passkeys.remove":  "remove a passkey of the account",
		"im.conclave.account.appPasswords.add": "make an app password for the account",
		"text":                                 "An app is about to %s: %s. If it is you, go on: your organization's sign-in asks who you are. If you did not expect this, close this page and end your other sessions: somebody else may be using your account.",
	},
	"de": {
		"":                                     "etwas am Konto ändern",
		"deleteDevice":                         "eine Sitzung des Kontos beenden",
		"deleteDevices":                        "Sitzungen des Kontos beenden",
		"changePassword":                       "dem Konto ein neues Passwort geben",
		"deactivateAccount":                    "das Konto endgültig schließen",
		"uploadCrossSigningKeys":               "die Schlüssel ersetzen, an denen andere das Konto erkennen",
		"generateLoginToken":                   "eine weitere App beim Konto anmelden",
		"add3PID":                              "dem Konto eine E-Mail-Adresse hinzufügen",
		"im.conclave.account.totp.begin":       "eine Authenticator-App für das Konto einrichten",
		"im.conclave.account.totp.remove":      "die Authenticator-App des Kontos entfernen",
		"im.conclave.account.recoveryCodes":    "neue Wiederherstellungscodes für das Konto anlegen",
		"im.conclave.account.passkeys.begin":   "dem Konto einen Passkey hinzufügen",
		"im.conclave.account.passkeys.remove":  "einen Passkey des Kontos entfernen",
		"im.conclave.account.appPasswords.add": "ein App-Passwort für das Konto anlegen",
		"text":                                 "Eine App will %s: %s. Wenn Sie es sind, gehen Sie weiter: Die Anmeldung Ihrer Organisation fragt, wer Sie sind. Wenn Sie damit nicht gerechnet haben, schließen Sie diese Seite und beenden Sie Ihre anderen Sitzungen: Vielleicht benutzt jemand anderes Ihr Konto.",
	},
}

// ssoStage is what the page says.
func (p *shownPage) ssoStage(f *accounts.Fallback) string {
	texts := stageOperations[p.Lang]
	what, ok := texts[f.For]
	if !ok {
		what = texts[""]
	}
	return fmt.Sprintf(texts["text"], what, f.User)
}

// leaveForStage is the form of that page: the browser goes to the provider, and is known by its cookie when it comes back.
func (s *Server) leaveForStage(r *Request, session string) (any, error) {
	location, browser, err := s.Accounts.BeginSSOStage(r.Ctx(), session)
	if err != nil {
		return s.showError(r, err)
	}
	http.SetCookie(r.Response(), s.ssoCookie(browser, 0))
	address := template.URL(location) //nolint:gosec // the provider's, as the configuration names it
	// A link, because browsers do not let the answer to a form lead to another site that the policy does not name.
	return s.show(r, http.StatusOK, "ssogo.html", page{Title: "ssogo.title", Refresh: address, Data: address})
}
