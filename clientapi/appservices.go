package clientapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/appservice"
	"conclave/internal/matrix"
)

// serviceLogin is how application services register users and log in as them (application service API, "Server admin
// style permissions").
const serviceLogin = "m.login.application_service"

// asService finds out whether a request has the token of an application service, and if so whom it speaks for: the user
// that it names, or the service's sender ("Identity assertion"). Where nobody needs to be logged in only the service
// counts.
func (s *Server) asService(r *Request) (done bool, err error) {
	token, err := credential(r.Request())
	if err != nil {
		return false, nil // what is missing the others say
	}
	service := s.Services.ByToken(token)
	if service == nil {
		return false, nil
	}
	r.Service = service
	r.SetRequest(r.Request().WithContext(appservice.By(r.Ctx(), service)))
	if r.route.Auth == NoAuth || r.route.Auth == Ticket {
		return false, nil
	}
	query := r.QueryParams()
	user := service.Sender
	if query.Has("user_id") {
		user = matrix.UserID(query.Get("user_id"))
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return false, matrix.InvalidParam("%.255q is not a user ID.", user).With(err)
		}
		if !s.Services.MayBe(service, user) {
			return false, matrix.Forbidden("The application service may not act as %s: no namespace of its has that user.", user)
		}
	}
	device := query.Get("device_id")
	if device == "" {
		device = query.Get("org.matrix.msc3202.device_id") // what bridges send that are older than the specification's
	}
	if r.Session, err = s.Accounts.Acting(r.Ctx(), service.ID, user, matrix.DeviceID(device)); err != nil {
		return false, err
	}
	if r.Session.Locked && !slices.Contains(lockedMay, r.route.OperationID) {
		return false, matrix.UserLocked()
	}
	return true, r.gate()
}

// unlimited says whether a request is under no rate limit: those of an application service are not, unless its
// registration wants limits for the users that it acts as.
func (r *Request) unlimited() bool {
	if r.Service == nil {
		return false
	}
	return !r.Service.RateLimited || r.Session != nil && r.Session.UserID == r.Service.Sender
}

// maxTimestamp is the latest origin_server_ts that an event can have: what canonical JSON has a number for.
const maxTimestamp = 1<<53 - 1

// massaged is the time (ms) that an application service gives an event, 0 for the present ("Timestamp massaging"). For everybody
// else ts means nothing.
func (r *Request) massaged() (int64, error) {
	if r.Service == nil || !r.QueryParams().Has("ts") {
		return 0, nil
	}
	ts, err := strconv.ParseInt(r.QueryParam("ts"), 10, 64)
	if err != nil || ts < 1 || ts > maxTimestamp {
		return 0, matrix.InvalidParam("ts is not a time in milliseconds that an event can have.")
	}
	return ts, nil
}

// requireDevice refuses what only a device can do where an application service names none.
func (r *Request) requireDevice() error {
	if r.Session.DeviceID == "" {
		return matrix.MissingParam("This takes a device: name one with device_id.")
	}
	return nil
}

// unconfirmed are the operations that application services need no password for ("Device management",
// "Cross-signing").
var unconfirmed = map[string]bool{"deleteDevice": true, "deleteDevices": true, "uploadCrossSigningKeys": true}

func (r *Request) confirmsItself() bool { return r.Service != nil && unconfirmed[r.route.OperationID] }

// putDevice is PUT /devices/{deviceId} by an application service, which makes devices with it.
func (s *Server) putDevice(r *Request, id matrix.DeviceID, name *string) (any, error) {
	if name == nil {
		name = new(string)
	}
	made, err := s.Accounts.PutDevice(r.Ctx(), r.Session.User, id, *name, s.address(r.Request()))
	if err != nil || !made {
		return nil, err
	}
	return Status{http.StatusCreated, empty}, nil
}

// userNamed is the user of ours that a localpart or a user ID names.
func (s *Server) userNamed(name string) matrix.UserID {
	if !strings.HasPrefix(name, "@") {
		name = "@" + name + ":" + s.Config.ServerName
	}
	return matrix.UserID(name)
}

// reservedName refuses (M_EXCLUSIVE) names of users that another application service has for itself.
func (s *Server) reservedName(name string, by *appservice.Service) error {
	if owner := s.Services.UserOwner(s.userNamed(strings.ToLower(name)), by); owner != nil {
		return matrix.Exclusive("That name belongs to an application service.")
	}
	return nil
}

// reservedAlias refuses (M_EXCLUSIVE) aliases that an application service has for itself, and to application services
// all that are not in their namespaces.
func (s *Server) reservedAlias(r *Request, alias matrix.RoomAlias) error {
	if s.Services.AliasOwner(alias, r.Service) != nil {
		return matrix.Exclusive("The alias %s belongs to an application service.", alias)
	}
	if r.Service != nil && !r.Service.MayHave(alias) {
		return matrix.Exclusive("The alias %s is in no namespace of the application service.", alias)
	}
	return nil
}

// mayProvide says whether a registration or login is that of an application service for a user whom it may act as.
// Without its token it is refused as a request without a session is.
func (s *Server) mayProvide(r *Request, name string) error {
	if r.Service == nil {
		if _, err := credential(r.Request()); err != nil {
			return err
		}
		return matrix.UnknownToken(false)
	}
	if name == "" {
		return matrix.MissingParam("The name of a user is needed.")
	}
	if err := s.reservedName(name, r.Service); err != nil {
		return err
	}
	if !s.Services.MayBe(r.Service, s.userNamed(name)) {
		return matrix.Exclusive("The user is in no namespace of the application service.")
	}
	return nil
}

// registerByService makes a user without a password for an application service, whoever else may register.
func (s *Server) registerByService(r *Request, name string, device *accounts.NewDevice) (any, error) {
	if err := s.mayProvide(r, name); err != nil {
		return nil, err
	}
	return s.loggedIn(s.Accounts.Register(r.Ctx(), accounts.Registration{Username: name, NoLogin: true, Device: device}))
}

// loginByService opens a session of a user for an application service.
func (s *Server) loginByService(r *Request, name string, device accounts.NewDevice) (any, error) {
	if err := s.mayProvide(r, name); err != nil {
		return nil, err
	}
	return s.loggedIn(s.Accounts.LoginActing(r.Ctx(), s.userNamed(name), device))
}
