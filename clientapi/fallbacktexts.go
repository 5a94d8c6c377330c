package clientapi

import "golang.org/x/text/language"

// fallbackTexts are what the pages of the server say, by language. Those of a stage begin with its name.
var fallbackTexts = map[string]map[string]string{
	"en": {
		"button": "Continue", "agree": "I agree to:", "done": "Done", "done.text": "You can close this page and go on in your app.",
		"gone": "This page has expired", "gone.text": "Begin again in your app.", "error": "That did not work",
		"later":         "Too many attempts. Try again later.",
		"stage":         "Confirm",
		"m.login.dummy": "Continue", "m.login.dummy.text": "Press the button to go on.",
		"m.login.password": "Confirm with your password", "m.login.password.text": "Somebody who uses the account %s is about to change something. If it is you, enter the password of this account.",
		"m.login.password.wrong":     "The password is not right.",
		"m.login.sso":                "Confirm with your organization's sign-in",
		"m.login.registration_token": "Enter your invitation", "m.login.registration_token.text": "On this server you need an invitation to make an account.",
		"m.login.registration_token.wrong": "This invitation is not known, or cannot be used any more.",
		"m.login.terms":                    "Terms and policies", "m.login.terms.text": "Read these documents. You need to agree to all of them to make an account.",
		"m.login.terms.wrong":       "Agree to all documents to go on.",
		"im.conclave.second_factor": "Enter a code", "im.conclave.second_factor.text": "Enter a code from your authenticator app, or one of your recovery codes.",
		"im.conclave.second_factor.wrong": "The code is not right, or was used already.",
		"im.conclave.login.pow":           "One moment", "im.conclave.login.pow.text": "So that nobody makes accounts in bulk, your device has to do some work first. This takes a few seconds.",
		"im.conclave.login.pow.wrong": "The work was not right. It begins again.",
		"working":                     "Working …", "noscript": "This page needs JavaScript for that.",
		"user": "User name", "password": "Password", "token": "Invitation", "code": "Code",
		"login": "Sign in", "login.missing": "Enter a name and a password.", "login.done": "You are signed in", "login.button": "Sign in",
	},
	"de": {
		"button": "Weiter", "agree": "Ich stimme zu:", "done": "Fertig", "done.text": "Sie können diese Seite schließen und in Ihrer App weitermachen.",
		"gone": "Diese Seite gilt nicht mehr", "gone.text": "Beginnen Sie in Ihrer App noch einmal.", "error": "Das hat nicht funktioniert",
		"later":         "Zu viele Versuche. Versuchen Sie es später noch einmal.",
		"stage":         "Bestätigen",
		"m.login.dummy": "Weiter", "m.login.dummy.text": "Drücken Sie auf die Schaltfläche, um weiterzumachen.",
		"m.login.password": "Mit dem Passwort bestätigen", "m.login.password.text": "Jemand, der das Konto %s benutzt, will etwas ändern. Wenn Sie es sind, geben Sie das Passwort dieses Kontos ein.",
		"m.login.password.wrong":     "Das Passwort stimmt nicht.",
		"m.login.sso":                "Mit der Anmeldung Ihrer Organisation bestätigen",
		"m.login.registration_token": "Einladung eingeben", "m.login.registration_token.text": "Auf diesem Server brauchen Sie eine Einladung, um ein Konto anzulegen.",
		"m.login.registration_token.wrong": "Diese Einladung ist nicht bekannt oder gilt nicht mehr.",
		"m.login.terms":                    "Bedingungen und Richtlinien", "m.login.terms.text": "Lesen Sie diese Dokumente. Um ein Konto anzulegen, müssen Sie allen zustimmen.",
		"m.login.terms.wrong":       "Stimmen Sie allen Dokumenten zu, um weiterzumachen.",
		"im.conclave.second_factor": "Code eingeben", "im.conclave.second_factor.text": "Geben Sie einen Code aus Ihrer Authenticator-App ein oder einen Ihrer Wiederherstellungscodes.",
		"im.conclave.second_factor.wrong": "Der Code stimmt nicht oder wurde schon verwendet.",
		"im.conclave.login.pow":           "Einen Augenblick", "im.conclave.login.pow.text": "Damit niemand massenhaft Konten anlegt, muss Ihr Gerät zuerst etwas rechnen. Das dauert ein paar Sekunden.",
		"im.conclave.login.pow.wrong": "Das Ergebnis stimmte nicht. Es beginnt von vorn.",
		"working":                     "Es wird gerechnet …", "noscript": "Diese Seite braucht dafür JavaScript.",
		"user": "Benutzername", "password": "Passwort", "token": "Einladung", "code": "Code",
		"login": "Anmelden", "login.missing": "Geben Sie einen Namen und ein Passwort ein.", "login.done": "Sie sind angemeldet", "login.button": "Anmelden",
	},
}

var fallbackLanguages = language.NewMatcher([]language.Tag{language.English, language.German})

// pageLanguage is the language of a page for what a browser says that its user reads.
func pageLanguage(accept string) string {
	const most = 1000 // bytes of a header that is worth reading
	if len(accept) > most {
		return "en"
	}
	wanted, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return "en"
	}
	if _, i, _ := fallbackLanguages.Match(wanted...); i == 1 {
		return "de"
	}
	return "en"
}
