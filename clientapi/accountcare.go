package clientapi

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// What people with OAuth clients alone do on the pages of account management beside their security: a new password, the names
// of passkeys, all their data, and the end of the account.

// actionData leads to all that the server has of somebody. It is ours: the metadata must not name it.
const actionData = "im.conclave.data"

// minPagePassword is how many characters a password has that is set here, as in the client.
const minPagePassword = 10

// passwordHere sets a new password. Whoever does has signed in some minutes ago with all that the account asks for; the visit
// ends with it, as do all other sign-ins that are under way.
func (s *Server) passwordHere(r *Request, b *browser, form url.Values) (any, error) {
	password := form.Get("new_password")
	if utf8.RuneCountInString(password) < minPagePassword {
		return s.securityPage(r, b, page{Status: http.StatusBadRequest, Error: words(r).say("password_not_set")})
	}
	err := s.Accounts.ChangePassword(r.Ctx(), b.Who.Caring(b.SignIn), password, s.address(r.Request()), form.Get("sign_out") != "")
	var known *matrix.Error
	switch {
	case errors.As(err, &known):
		return s.securityPage(r, b, page{Status: known.Status, Error: words(r).say(problem(err, "password_not_set"))})
	case err != nil:
		return nil, err
	}
	s.keepVisit(r, "", "")
	return s.endPage(r, "password_set_title", "password_set")
}

// askPasskeyName asks for another name of a passkey.
func (s *Server) askPasskeyName(r *Request, b *browser, form url.Values) (any, error) {
	passkeys, err := s.Accounts.Passkeys(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	for _, k := range passkeys {
		if k.ID == form.Get("id") {
			return s.carePage(r, b, "rename", page{Title: "passkey_rename_title", Data: sureData{Name: k.Name, ID: k.ID, Back: "security"}})
		}
	}
	return s.securityPage(r, b, page{})
}

func (s *Server) renamePasskeyHere(r *Request, b *browser, form url.Values) (any, error) {
	if err := s.Accounts.RenamePasskey(r.Ctx(), b.Who.Caring(b.SignIn), form.Get("id"), form.Get("name")); err != nil {
		return s.securityFailed(r, b, err, "passkey_not_named")
	}
	return s.securityDone(r, b, "saved")
}

// exportData is what the page of somebody's data shows.
type exportData struct {
	exportAnswer
	Until string // when the archive is deleted
	Bytes string // how large it is
}

// sizeInWords is a number of bytes in whole units, rounded up, which every language writes alike.
func sizeInWords(bytes int64) string {
	unit, name := int64(1000), "kB"
	switch {
	case bytes >= 10_000_000_000:
		unit, name = 1_000_000_000, "GB"
	case bytes >= 10_000_000:
		unit, name = 1_000_000, "MB"
	}
	return strconv.FormatInt((bytes+unit-1)/unit, 10) + " " + name
}

// exportPage shows how far the archive of all data of whoever has signed in has come.
func (s *Server) exportPage(r *Request, b *browser, p page) (any, error) {
	r.Session = b.Who.Caring(b.SignIn)
	e, err := s.export(r)
	if err != nil {
		return nil, err
	}
	data := exportData{exportAnswer: exportState(e)}
	if data.State == "ready" {
		data.Until, data.Bytes = time.UnixMilli(data.Expires).UTC().Format("2006-01-02 15:04 UTC"), sizeInWords(data.Size)
	}
	p.Title, p.Data = "data_title", data
	return s.carePage(r, b, "data", p)
}

// exportHere has the archive put together.
func (s *Server) exportHere(r *Request, b *browser, _ url.Values) (any, error) {
	r.Session = b.Who.Caring(b.SignIn)
	err := s.newExport(r)
	var known *matrix.Error
	switch {
	case errors.As(err, &known):
		return s.exportPage(r, b, page{Status: known.Status, Error: words(r).say(problem(err, "not_saved"))})
	case err != nil:
		return nil, err
	}
	return s.exportPage(r, b, page{})
}

// dropExportHere removes the archive, or has no more of it made.
func (s *Server) dropExportHere(r *Request, b *browser, _ url.Values) (any, error) {
	if err := s.Media.DropExport(r.Ctx(), b.Who.User, b.Who.UserID); err != nil {
		return nil, err
	}
	return s.exportPage(r, b, page{Notice: words(r).say("removed")})
}

// exportFile is GET /oauth2/export: the archive, for somebody who has signed in to account management.
func (s *Server) exportFile(r *Request) (any, error) {
	b, err := s.browser(r)
	if err != nil || b.Visit.Purpose != accounts.ToManage || !b.signedIn() {
		return s.receive(r, &accounts.Visit{Purpose: accounts.ToManage, Action: actionData}, signInPageAt)
	}
	if b.Who.MustEnrol {
		return s.securityPage(r, b, page{})
	}
	r.Session = b.Who.Caring(b.SignIn)
	answer, err := s.downloadExport(r)
	var known *matrix.Error
	if errors.As(err, &known) && known.Code == "M_NOT_FOUND" { // its time was over meanwhile
		return s.exportPage(r, b, page{Status: http.StatusNotFound, Error: words(r).say("data_gone")})
	}
	return answer, err
}
