package mail

import (
	"bytes"
	"embed"
	"fmt"
	html "html/template"
	"strings"
	text "text/template"
	"time"
	"unicode"

	"golang.org/x/text/language"
)

// Kind says what a mail is about.
type Kind string

// The kinds of mails. The first ones answer somebody who may be anybody; the rest tell the owner of an account.
const (
	Register   Kind = "register"   // confirm the address of an account that is to be made
	Registered Kind = "registered" // there is an account with the address already
	Reset      Kind = "reset"      // confirm that a new password is wanted
	Unknown    Kind = "unknown"    // no account has the address for which a new password is wanted
	Add        Kind = "add"        // confirm the address that is to be an account's
	Taken      Kind = "taken"      // the address is another account's
	Password   Kind = "password"   // the password was changed
	Added      Kind = "added"      // the account has another address
	Removed    Kind = "removed"    // the account has an address less
	SignIn     Kind = "signin"     // there is a new session
	Factor     Kind = "factor"     // a second factor was set up, changed or removed
	Expired    Kind = "expired"    // nobody has answered the request for an account
	Exported   Kind = "exported"   // all that the server has of the account can be downloaded
	Digest     Kind = "digest"     // something waits unread
)

// Facts are what a mail tells. The name of a session, which whoever signs in chooses, is cut to a length at which nobody
// writes a letter of their own in it.
type Facts struct {
	Server  string    // the organization's server, by name
	User    string    // the account, "" if it is not told
	Link    string    // an address below the server's own
	Minutes int       // how long the link is good
	What    string    // the address, the session or the factor that it is about
	At      time.Time // when it happened
	From    string    // from which network address, "" if it is not known
	Waiting *Waiting  // of a digest
	Stop    string    // an address below the server's own where mails of this kind end, "" if they cannot
}

//go:embed templates
var files embed.FS

// Languages are those that mails are written in; the first stands for all others.
var Languages = []string{"en", "de"}

var (
	texts   = map[string]*text.Template{}
	layout  = html.Must(html.ParseFS(files, "templates/layout.html"))
	matcher language.Matcher
)

func init() {
	var tags []language.Tag
	for _, lang := range Languages {
		texts[lang] = text.Must(text.ParseFS(files, "templates/"+lang+".txt"))
		tags = append(tags, language.MustParse(lang))
	}
	matcher = language.NewMatcher(tags)
}

// maxAccept bounds the header in bytes: whoever understands more languages is served by the first ones.
const maxAccept = 200

// Language chooses one of Languages by what a request says it accepts (Accept-Language).
func Language(accept string) string {
	if len(accept) > maxAccept {
		accept = accept[:maxAccept]
		accept = accept[:max(0, strings.LastIndexByte(accept, ','))]
	}
	_, index := language.MatchStrings(matcher, accept)
	return Languages[index]
}

// maxShown bounds what others have a say in, in letters.
const maxShown = 120

// shown is a text of others as a mail shows it: on one line, and without what mail programs make links of.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.ReplaceAll(strings.ReplaceAll(s, "://", " "), "www.", "www ")
	if letters := []rune(s); len(letters) > maxShown {
		s = string(letters[:maxShown]) + "…"
	}
	return s
}

// Compose writes a mail in one of Languages. It has the same words as text and as HTML.
func Compose(kind Kind, lang string, f Facts) (Message, error) {
	words := texts[lang]
	if words == nil {
		lang, words = Languages[0], texts[Languages[0]]
	}
	data := struct {
		Facts
		Time string
	}{f, when(lang, f.At)}
	if kind == SignIn || kind == Factor { // whoever signs in names the session
		data.What = shown(f.What)
	}
	data.Waiting = f.Waiting.shown()
	var parts [5]string
	for i, name := range []string{string(kind) + ".subject", string(kind), "footer", "button", "stop"} {
		var out bytes.Buffer
		if err := words.ExecuteTemplate(&out, name, data); err != nil {
			return Message{}, fmt.Errorf("writing a mail of kind %q: %w", kind, err)
		}
		parts[i] = out.String()
	}
	m := Message{Subject: parts[0], Text: parts[1] + "\n\n-- \n" + parts[2] + "\n", Stop: f.Stop}
	if f.Stop != "" {
		m.Text = parts[1] + "\n\n" + parts[4] + "\n\n" + f.Stop + "\n\n-- \n" + parts[2] + "\n"
	}
	var out bytes.Buffer
	err := layout.Execute(&out, map[string]any{
		"Lang": lang, "Subject": parts[0], "Paragraphs": strings.Split(parts[1], "\n\n"), "Link": f.Link, "Footer": parts[2], "Button": parts[3],
		"Stop": f.Stop, "StopText": parts[4],
	})
	m.HTML = out.String()
	return m, err
}

// when is a time as people write it, in UTC: where the reader is nobody knows.
func when(lang string, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	if lang == "de" {
		return at.UTC().Format("02.01.2006 um 15:04") + " Uhr (UTC)"
	}
	return at.UTC().Format("2 January 2006 at 15:04") + " (UTC)"
}
