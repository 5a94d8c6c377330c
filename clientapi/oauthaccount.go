package clientapi

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The actions of account management (client-server API, "Account management URL actions"), and one of our own, which the
// metadata must not name.
const (
	actionProfile    = "org.matrix.profile"
	actionDevices    = "org.matrix.devices_list"
	actionDevice     = "org.matrix.device_view"
	actionDelete     = "org.matrix.device_delete"
	actionDeactivate = "org.matrix.account_deactivate"
	actionFactors    = "im.conclave.second_factors"
)

var managementActions = []string{actionProfile, actionDevices, actionDevice, actionDelete, actionDeactivate, accounts.ActionReset}

// section is a part of account management, with the action that leads to it.
type section struct {
	Name, Title, action string
	Here                bool
}

var sections = []section{
	{Name: "profile", Title: "profile_title", action: actionProfile},
	{Name: "sessions", Title: "devices_title", action: actionDevices},
	{Name: "security", Title: "security_title", action: actionFactors},
	{Name: "data", Title: "data_short", action: actionData},
	{Name: "reset", Title: "reset_short", action: accounts.ActionReset},
	{Name: "deactivate", Title: "deactivate_short", action: actionDeactivate},
}

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
	return s.manageAction(r, b, b.Visit.Action, b.Visit.Device)
}

// accountSection is a part of account management, for somebody who has signed in to it already or comes for it.
func (s *Server) accountSection(r *Request) (any, error) {
	i := slices.IndexFunc(sections, func(part section) bool { return part.Name == r.Param("section") })
	if i < 0 {
		return nil, matrix.NotFound("There is no such page.")
	}
	b, err := s.browser(r)
	if err != nil || b.Visit.Purpose != accounts.ToManage || !b.signedIn() {
		return s.receive(r, &accounts.Visit{Purpose: accounts.ToManage, Action: sections[i].action}, signInPageAt)
	}
	return s.manageAction(r, b, sections[i].action, "")
}

// manageAction shows what an action is for. Whoever has to set up a second factor first can do nothing else.
func (s *Server) manageAction(r *Request, b *browser, action string, device matrix.DeviceID) (any, error) {
	if b.Who.MustEnrol {
		return s.securityPage(r, b, page{})
	}
	switch action {
	case actionProfile:
		return s.profilePage(r, b, page{})
	case actionFactors:
		return s.securityPage(r, b, page{})
	case actionData:
		return s.exportPage(r, b, page{})
	case actionDelete:
		return s.askDelete(r, b, device)
	case actionDevice:
		return s.devicesPage(r, b, devicesQuery{only: device}, page{})
	case actionDeactivate:
		return s.carePage(r, b, "deactivate", page{Title: "deactivate_title"})
	case accounts.ActionReset:
		return s.carePage(r, b, "reset", page{Title: "reset_title"})
	}
	return s.devicesPage(r, b, devicesQuery{}, page{})
}

// sectionOf is the section that a page belongs to, by its template.
var sectionOf = map[string]string{
	"profile": "profile", "data": "data", "devices": "sessions", "delete": "sessions", "reset": "reset", "deactivate": "deactivate",
}

// carePage writes a page of account management.
func (s *Server) carePage(r *Request, b *browser, name string, p page) (any, error) {
	here := sectionOf[name]
	if here == "" {
		here = "security"
	}
	p.Wide, p.Sections = true, slices.Clone(sections)
	for i := range p.Sections {
		p.Sections[i].Here = p.Sections[i].Name == here
	}
	return s.visitPage(r, b, name, p)
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

// devicesQuery is which sessions a page shows.
type devicesQuery struct {
	only matrix.DeviceID // "": all
	from int             // how many come before
}

// devicesData is what it shows of them.
type devicesData struct {
	Devices []pageDevice
	All     bool
	Next    int // from where the list goes on, 0 if it does not
}

// devicesOnPage is how many sessions a page lists, of those that were seen last first.
const devicesOnPage = 50

// devicesPage lists the sessions of whoever has signed in, or shows one of them.
func (s *Server) devicesPage(r *Request, b *browser, q devicesQuery, p page) (any, error) {
	devices, err := s.Accounts.Devices(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	if q.only != "" {
		devices = slices.DeleteFunc(devices, func(d store.Device) bool { return d.ID != q.only })
	}
	slices.SortFunc(devices, func(a, b store.Device) int {
		return cmp.Or(cmp.Compare(b.Seen, a.Seen), cmp.Compare(a.ID, b.ID))
	})
	data := devicesData{All: q.only == ""}
	from := min(max(q.from, 0), len(devices))
	to := min(from+devicesOnPage, len(devices))
	if to < len(devices) {
		data.Next = to
	}
	for _, d := range devices[from:to] {
		shown, err := s.pageDevice(r, d)
		if err != nil {
			return nil, err
		}
		data.Devices = append(data.Devices, shown)
	}
	p.Title, p.Data = "devices_title", data
	if !data.All {
		p.Title = "device_title"
	}
	return s.carePage(r, b, "devices", p)
}

// deleteData is the session that is to end.
type deleteData struct {
	Device pageDevice
	Back   string
}

// askDelete asks whether a session is really to end.
func (s *Server) askDelete(r *Request, b *browser, id matrix.DeviceID) (any, error) {
	d, err := s.Accounts.Device(r.Ctx(), b.Who.User, id)
	if errors.Is(err, matrix.NotFound("")) {
		return s.devicesPage(r, b, devicesQuery{}, page{})
	}
	if err != nil {
		return nil, err
	}
	shown, err := s.pageDevice(r, *d)
	if err != nil {
		return nil, err
	}
	return s.carePage(r, b, "delete", page{Title: "delete_title", Data: deleteData{shown, "all"}})
}

// deleteHere ends a session.
func (s *Server) deleteHere(r *Request, b *browser, form url.Values) (any, error) {
	id := matrix.DeviceID(form.Get("device_id"))
	if id == "" {
		return s.devicesPage(r, b, devicesQuery{}, page{})
	}
	if err := s.Accounts.DeleteDevices(r.Ctx(), b.Who.User, []matrix.DeviceID{id}); err != nil {
		return nil, err
	}
	return s.devicesPage(r, b, devicesQuery{}, page{Notice: words(r).say("deleted")})
}

// careActs are what can be done on the pages of account management, by what a button says.
var careActs = map[string]func(*Server, *Request, *browser, url.Values) (any, error){
	"list": func(s *Server, r *Request, b *browser, form url.Values) (any, error) {
		from, _ := strconv.Atoi(form.Get("from")) // what is no number is the beginning
		return s.devicesPage(r, b, devicesQuery{from: from}, page{})
	},
	"ask_delete": func(s *Server, r *Request, b *browser, form url.Values) (any, error) {
		return s.askDelete(r, b, matrix.DeviceID(form.Get("device_id")))
	},
	"data": func(s *Server, r *Request, b *browser, _ url.Values) (any, error) {
		return s.exportPage(r, b, page{})
	},
	"delete":         (*Server).deleteHere,
	"reset":          (*Server).approveReset,
	"deactivate":     (*Server).deactivateHere,
	"displayname":    (*Server).newDisplayName,
	"avatar_remove":  (*Server).removeAvatar,
	"app_add":        (*Server).addAppHere,
	"app_ask":        (*Server).askApp,
	"app_remove":     (*Server).removeAppHere,
	"password":       (*Server).passwordHere,
	"passkey_name":   (*Server).askPasskeyName,
	"passkey_rename": (*Server).renamePasskeyHere,
	"data_begin":     (*Server).exportHere,
	"data_drop":      (*Server).dropExportHere,
}

// enrolActs are those that are open to somebody who has to set up a second factor first, too.
var enrolActs = map[string]func(*Server, *Request, *browser, url.Values) (any, error){
	"security": func(s *Server, r *Request, b *browser, _ url.Values) (any, error) {
		return s.securityPage(r, b, page{})
	},
	"totp_begin":     (*Server).beginTOTPHere,
	"totp_confirm":   (*Server).confirmTOTPHere,
	"totp_ask":       (*Server).askTOTP,
	"totp_remove":    (*Server).removeTOTPHere,
	"passkey_begin":  (*Server).beginPasskeyHere,
	"passkey_finish": (*Server).finishPasskeyHere,
	"passkey_ask":    (*Server).askPasskeyRemoval,
	"passkey_remove": (*Server).removePasskeyHere,
	"codes_ask":      (*Server).askCodes,
	"codes_new":      (*Server).newCodesHere,
	"leave":          func(s *Server, r *Request, b *browser, _ url.Values) (any, error) { return s.refuse(r, b) },
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
	act := enrolActs[form.Get("do")]
	if act == nil && !b.Who.MustEnrol {
		act = careActs[form.Get("do")]
	}
	if act == nil {
		return s.manageAction(r, b, actionDevices, "")
	}
	return act(s, r, b, form)
}

// approveReset approves that the cross-signing identity is replaced; the visit ends with it.
func (s *Server) approveReset(r *Request, b *browser, _ url.Values) (any, error) {
	err := s.Accounts.ApproveReset(r.Ctx(), b.Who, b.Visit.Confirms)
	var known *matrix.Error
	if errors.As(err, &known) {
		return s.carePage(r, b, "reset", page{Status: known.Status, Title: "reset_title", Error: words(r).say(problem(err, "reset_over"))})
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.Accounts.Refuse(r.Ctx(), b.Secret, b.SignIn); err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	return s.endPage(r, "reset_done_title", "reset_done")
}

// deactivateHere closes the account of whoever has signed in and typed its name, and erases what it leaves if that is wanted.
// Identity servers are asked by a job.
func (s *Server) deactivateHere(r *Request, b *browser, form url.Values) (any, error) {
	typed := strings.TrimSpace(form.Get("typed"))
	if typed != string(b.Who.UserID) && typed != b.Who.UserID.Localpart() {
		return s.carePage(r, b, "deactivate", page{Status: http.StatusBadRequest, Title: "deactivate_title", Error: words(r).say("deactivate_wrong")})
	}
	if err := s.Accounts.Close(r.Ctx(), accounts.Closing{User: b.Who.User, Erase: form.Get("erase") != ""}); err != nil {
		return nil, err
	}
	s.keepVisit(r, "", "")
	return s.endPage(r, "deactivated_title", "deactivated")
}
