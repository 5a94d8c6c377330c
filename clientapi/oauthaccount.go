package clientapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The actions of account management (client-server API, "Account management URL actions").
const (
	actionDevices    = "org.matrix.devices_list"
	actionDevice     = "org.matrix.device_view"
	actionDelete     = "org.matrix.device_delete"
	actionDeactivate = "org.matrix.account_deactivate"
)

var managementActions = []string{actionDevices, actionDevice, actionDelete, actionDeactivate, accounts.ActionReset}

// maxParameter bounds what a link to account management carries, in bytes.
const maxParameter = 255

// accountPage is the account management URL. Whoever comes signs in first: what is done here a stolen session must not do.
func (s *Server) accountPage(r *Request) (any, error) {
	b, err := s.browser(r)
	if err != nil || b.Visit.Purpose != accounts.ToManage || r.Request().URL.RawQuery != "" {
		q := r.QueryParams()
		for _, name := range []string{"action", "device_id", "session"} {
			if len(q.Get(name)) > maxParameter {
				return nil, matrix.InvalidParam("%s is too long.", name)
			}
		}
		// The names of before they were in the specification are still in clients.
		action := strings.Replace(q.Get("action"), "org.matrix.session", "org.matrix.device", 1)
		if action == "org.matrix.device_end" {
			action = actionDelete
		}
		v := &accounts.Visit{Purpose: accounts.ToManage, Action: action, Device: matrix.DeviceID(q.Get("device_id")), Confirms: q.Get("session")}
		return s.receive(r, v, signInPageAt)
	}
	if !b.signedIn() {
		return turnTo(r, signInPageAt)
	}
	switch b.Visit.Action {
	case actionDelete:
		return s.askDelete(r, b, b.Visit.Device)
	case actionDevice:
		return s.devicesPage(r, http.StatusOK, b, b.Visit.Device, "")
	case actionDeactivate:
		return s.visitPage(r, http.StatusOK, "deactivate", b, nil)
	case accounts.ActionReset:
		return s.visitPage(r, http.StatusOK, "reset", b, nil)
	}
	return s.devicesPage(r, http.StatusOK, b, "", "")
}

// pageDevice is a device as the pages show it.
type pageDevice struct {
	ID      matrix.DeviceID
	Name    string
	Client  string
	Seen    string
	Address string
}

func (s *Server) pageDevice(r *Request, d store.Device) (pageDevice, error) {
	p := pageDevice{ID: d.ID, Name: d.Name, Address: d.Address, Seen: words(r).say("never")}
	if d.Seen > 0 {
		p.Seen = time.UnixMilli(d.Seen).UTC().Format("2006-01-02 15:04 UTC")
	}
	if d.Client == "" {
		return p, nil
	}
	client, err := s.Accounts.OAuthClient(r.Ctx(), d.Client)
	if err == nil && client != nil {
		p.Client = client.Host()
	}
	return p, err
}

// devicesPage lists the sessions of whoever has signed in, or shows one of them.
func (s *Server) devicesPage(r *Request, status int, b *browser, only matrix.DeviceID, notice string) (any, error) {
	devices, err := s.Accounts.Devices(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	shown := []pageDevice{}
	for _, d := range devices {
		if only != "" && d.ID != only {
			continue
		}
		p, err := s.pageDevice(r, d)
		if err != nil {
			return nil, err
		}
		shown = append(shown, p)
	}
	data := map[string]any{"Devices": shown, "All": only == ""}
	if only != "" {
		data["Title"] = "device_title"
	}
	if notice != "" {
		data["Notice"] = words(r).say(notice)
	}
	return s.visitPage(r, status, "devices", b, data)
}

// askDelete asks whether a session is really to end.
func (s *Server) askDelete(r *Request, b *browser, id matrix.DeviceID) (any, error) {
	d, err := s.Accounts.Device(r.Ctx(), b.Who.User, id)
	if errors.Is(err, matrix.NotFound("")) {
		return s.devicesPage(r, http.StatusOK, b, "", "")
	}
	if err != nil {
		return nil, err
	}
	p, err := s.pageDevice(r, *d)
	if err != nil {
		return nil, err
	}
	return s.visitPage(r, http.StatusOK, "delete", b, map[string]any{"Device": p})
}

// manage does what somebody has asked for on a page of account management.
func (s *Server) manage(r *Request) (any, error) {
	b, form, err := s.posted(r)
	if err != nil {
		return nil, err
	}
	if b.Visit.Purpose != accounts.ToManage || !b.signedIn() {
		return turnTo(r, signInPageAt)
	}
	switch id := matrix.DeviceID(form.Get("device_id")); form.Get("do") {
	case "ask_delete":
		return s.askDelete(r, b, id)
	case "delete":
		if id == "" {
			break
		}
		if err := s.Accounts.DeleteDevices(r.Ctx(), b.Who.User, []matrix.DeviceID{id}); err != nil {
			return nil, err
		}
		return s.devicesPage(r, http.StatusOK, b, "", "deleted")
	case "ask_reset":
		return s.visitPage(r, http.StatusOK, "reset", b, nil)
	case "reset":
		return s.approveReset(r, b)
	case "ask_deactivate":
		return s.visitPage(r, http.StatusOK, "deactivate", b, nil)
	case "deactivate":
		return s.deactivateHere(r, b, form)
	case "leave":
		return s.refuse(r, b)
	}
	return s.devicesPage(r, http.StatusOK, b, "", "")
}

// approveReset approves that the cross-signing identity is replaced; the visit ends with it.
func (s *Server) approveReset(r *Request, b *browser) (any, error) {
	err := s.Accounts.ApproveReset(r.Ctx(), b.Who, b.Visit.Confirms)
	var known *matrix.Error
	if errors.As(err, &known) {
		return s.visitPage(r, known.Status, "reset", b, map[string]any{"Error": words(r).say("reset_over")})
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.Accounts.Refuse(r.Ctx(), b.Secret, b.SignIn); err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	return s.visitPage(r, http.StatusOK, "end", nil, map[string]any{"Title": "reset_done_title", "Text": "reset_done"})
}

// deactivateHere closes the account of whoever has signed in and typed its name.
func (s *Server) deactivateHere(r *Request, b *browser, form url.Values) (any, error) {
	typed := strings.TrimSpace(form.Get("typed"))
	if typed != string(b.Who.UserID) && typed != b.Who.UserID.Localpart() {
		return s.visitPage(r, http.StatusBadRequest, "deactivate", b, map[string]any{"Error": words(r).say("deactivate_wrong")})
	}
	if err := s.Accounts.Deactivate(r.Ctx(), b.Who.User); err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	return s.visitPage(r, http.StatusOK, "end", nil, map[string]any{"Title": "deactivated_title", "Text": "deactivated"})
}
