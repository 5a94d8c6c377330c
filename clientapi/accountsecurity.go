package clientapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// Second factors and app passwords on the pages of account management, for people whose client was let in by OAuth: such a
// session cannot confirm anything by a password (OA-09). What confirms a change here is that whoever makes it has signed in
// on these pages, with all that the account asks for, some minutes ago at most.

// keptThing is a passkey or an app password as the page lists it.
type keptThing struct{ ID, Name, Made, Used string }

// securityData is what the page shows.
type securityData struct {
	accounts.Factors
	Overdue     bool // a second factor is demanded before anything else
	CanPasskey  bool
	HasPassword bool
	Passkeys    []keptThing
	Apps        []keptThing
}

// Any reports whether there is a second factor.
func (d securityData) Any() bool { return d.Factors.Any() }

func day(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.DateOnly)
}

// securityPage shows how the account of whoever has signed in is protected.
func (s *Server) securityPage(r *Request, b *browser, p page) (any, error) {
	f, err := s.Accounts.Factors(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	data := securityData{Factors: f, Overdue: b.Who.MustEnrol && !f.Any(), CanPasskey: s.Accounts.HasPasskeys()}
	passkeys, err := s.Accounts.Passkeys(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	for _, k := range passkeys {
		data.Passkeys = append(data.Passkeys, keptThing{k.ID, k.Name, day(k.Created), day(k.Used)})
	}
	apps, err := s.Accounts.AppPasswords(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		data.Apps = append(data.Apps, keptThing{a.ID, a.Name, day(a.Created), day(a.Used)})
	}
	if data.HasPassword, err = s.Accounts.HasPassword(r.Ctx(), b.Who.User); err != nil {
		return nil, err
	}
	p.Title, p.Data = "security_title", data
	return s.carePage(r, b, "security", p)
}

// securityFailed shows it again with what went wrong; refused is the key for what is simply wrong.
func (s *Server) securityFailed(r *Request, b *browser, err error, refused string) (any, error) {
	var known *matrix.Error
	if !errors.As(err, &known) {
		return nil, err
	}
	return s.securityPage(r, b, page{Status: known.Status, Error: s.refusal(r, err, refused)})
}

func (s *Server) securityDone(r *Request, b *browser, notice string) (any, error) {
	return s.securityPage(r, b, page{Notice: words(r).say(notice)})
}

// enrolData is what somebody puts into their authenticator app.
type enrolData struct {
	QR     template.URL
	URI    template.URL
	Secret string
	Back   string
}

func (s *Server) beginTOTPHere(r *Request, b *browser, _ url.Values) (any, error) {
	e, err := s.Accounts.BeginTOTP(r.Ctx(), b.Who.Caring(b.SignIn))
	if err != nil {
		return s.securityFailed(r, b, err, "not_saved")
	}
	picture := "data:image/png;base64," + base64.StdEncoding.EncodeToString(e.QR)
	return s.carePage(r, b, "enrol", page{
		Title: "totp_setup", Data: enrolData{template.URL(picture), template.URL(e.URI), e.Secret, "security"}, //nolint:gosec // both are made here
	})
}

func (s *Server) confirmTOTPHere(r *Request, b *browser, form url.Values) (any, error) {
	codes, err := s.Accounts.ConfirmTOTP(r.Ctx(), b.Who.Caring(b.SignIn), form.Get("code"))
	var known *matrix.Error
	switch {
	case errors.As(err, &known) && known.Code == "M_FORBIDDEN": // the seed is not shown a second time
		return s.carePage(r, b, "enrol", page{Status: known.Status, Title: "totp_setup", Error: words(r).say("totp_wrong"), Data: enrolData{Back: "security"}})
	case err != nil:
		return s.securityFailed(r, b, err, "totp_over")
	}
	return s.enrolledHere(r, b, accounts.ByTOTP, codes, "totp_added")
}

// enrolledHere goes on after a second factor was set up. New recovery codes are shown this once.
func (s *Server) enrolledHere(r *Request, b *browser, kind accounts.Evidence, codes []string, notice string) (any, error) {
	if err := s.Accounts.CareShown(r.Ctx(), b.SignIn, kind); err != nil {
		return nil, err
	}
	if len(codes) == 0 {
		return s.securityDone(r, b, notice)
	}
	return s.carePage(r, b, "codes", page{Title: "recovery_title", Notice: words(r).say(notice), Data: codes})
}

// sureData is what somebody is asked whether they are sure of.
type sureData struct {
	Means, Name, ID string
	Do, Button      string
	Back            string
}

func (s *Server) askTOTP(r *Request, b *browser, _ url.Values) (any, error) {
	return s.carePage(r, b, "sure", page{Title: "totp_remove_title", Data: sureData{Means: "totp_remove_means", Do: "totp_remove", Button: "totp_remove", Back: "security"}})
}

func (s *Server) removeTOTPHere(r *Request, b *browser, _ url.Values) (any, error) {
	if err := s.Accounts.RemoveTOTP(r.Ctx(), b.Who.Caring(b.SignIn)); err != nil {
		return s.securityFailed(r, b, err, "factor_needed")
	}
	return s.securityDone(r, b, "removed")
}

func (s *Server) beginPasskeyHere(r *Request, b *browser, form url.Values) (any, error) {
	options, challenge, err := s.Accounts.BeginPasskeyRegistration(r.Ctx(), b.Who.Caring(b.SignIn))
	if err != nil {
		return s.securityFailed(r, b, err, "passkey_not_made")
	}
	raw, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	return s.visitPage(r, b, "passkey", page{Title: "passkey_make", Script: "passkey.js", Data: passkeyData{
		Action: "/oauth2/account", Options: string(raw), Challenge: challenge, Make: true, Name: form.Get("name"), Back: "/oauth2/account/security",
	}})
}

func (s *Server) finishPasskeyHere(r *Request, b *browser, form url.Values) (any, error) {
	made := json.RawMessage(form.Get("credential"))
	_, codes, err := s.Accounts.FinishPasskeyRegistration(r.Ctx(), b.Who.Caring(b.SignIn), form.Get("challenge"), form.Get("name"), made)
	if err != nil {
		return s.securityFailed(r, b, err, "passkey_not_made")
	}
	return s.enrolledHere(r, b, accounts.ByPasskey, codes, "passkey_added")
}

func (s *Server) askPasskeyRemoval(r *Request, b *browser, form url.Values) (any, error) {
	passkeys, err := s.Accounts.Passkeys(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	for _, k := range passkeys {
		if k.ID == form.Get("id") {
			data := sureData{Means: "passkey_remove_means", Name: k.Name, ID: k.ID, Do: "passkey_remove", Button: "remove", Back: "security"}
			return s.carePage(r, b, "sure", page{Title: "passkey_remove_title", Data: data})
		}
	}
	return s.securityPage(r, b, page{})
}

func (s *Server) removePasskeyHere(r *Request, b *browser, form url.Values) (any, error) {
	if err := s.Accounts.RemovePasskey(r.Ctx(), b.Who.Caring(b.SignIn), form.Get("id")); err != nil {
		return s.securityFailed(r, b, err, "factor_needed")
	}
	return s.securityDone(r, b, "removed")
}

func (s *Server) askCodes(r *Request, b *browser, _ url.Values) (any, error) {
	return s.carePage(r, b, "sure", page{Title: "recovery_new", Data: sureData{Means: "codes_new_means", Do: "codes_new", Button: "recovery_new", Back: "security"}})
}

func (s *Server) newCodesHere(r *Request, b *browser, _ url.Values) (any, error) {
	codes, err := s.Accounts.NewRecoveryCodes(r.Ctx(), b.Who.Caring(b.SignIn))
	if err != nil {
		return s.securityFailed(r, b, err, "not_saved")
	}
	return s.carePage(r, b, "codes", page{Title: "recovery_title", Data: codes})
}

func (s *Server) addAppHere(r *Request, b *browser, form url.Values) (any, error) {
	if err := s.caring(r, b); err != nil {
		return s.securityPage(r, b, page{Status: http.StatusForbidden, Error: words(r).say("suspended")})
	}
	_, password, err := s.Accounts.NewAppPassword(r.Ctx(), r.Session, form.Get("name"))
	if err != nil {
		return s.securityFailed(r, b, err, "app_not_made")
	}
	return s.carePage(r, b, "apppassword", page{Title: "app_password", Data: password})
}

func (s *Server) askApp(r *Request, b *browser, form url.Values) (any, error) {
	apps, err := s.Accounts.AppPasswords(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		if a.ID == form.Get("id") {
			data := sureData{Means: "app_remove_means", Name: a.Name, ID: a.ID, Do: "app_remove", Button: "remove", Back: "security"}
			return s.carePage(r, b, "sure", page{Title: "app_remove_title", Data: data})
		}
	}
	return s.securityPage(r, b, page{})
}

func (s *Server) removeAppHere(r *Request, b *browser, form url.Values) (any, error) {
	err := s.Accounts.RemoveAppPassword(r.Ctx(), b.Who.Caring(b.SignIn), form.Get("id"))
	if err != nil && !errors.Is(err, matrix.NotFound("")) {
		return s.securityFailed(r, b, err, "not_saved")
	}
	return s.securityDone(r, b, "removed")
}
