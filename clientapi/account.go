package clientapi

import (
	"slices"
	"strconv"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/config"
	"conclave/internal/limits"
	"conclave/internal/mail"
	"conclave/internal/matrix"
)

var accountRoutes = []Route{
	op(post, "/register", "register", NoAuth, LimitRegister, (*Server).register),
	op(get, "/account/whoami", "getTokenOwner", Token, LimitRead, (*Server).getTokenOwner),
	op(post, "/account/password", "changePassword", OptionalToken, LimitLogin, (*Server).changePassword),
	op(get, "/devices", "getDevices", Token, LimitRead, (*Server).getDevices),
	op(get, "/devices/:deviceId", "getDevice", Token, LimitRead, (*Server).getDevice),
	op(put, "/devices/:deviceId", "updateDevice", Token, LimitChange, (*Server).updateDevice),
	op(del, "/devices/:deviceId", "deleteDevice", Token, LimitChange, (*Server).deleteDevice),
	op(post, "/delete_devices", "deleteDevices", Token, LimitChange, (*Server).deleteDevices),
	op(post, "/account/deactivate", "deactivateAccount", Token, LimitLogin, (*Server).deactivateAccount),
}

// register is POST /register.
func (s *Server) register(r *Request) (any, error) {
	var body struct {
		Auth         *accounts.AuthData `json:"auth"`
		Type         string             `json:"type"`
		Username     string             `json:"username"`
		Password     string             `json:"password"`
		DeviceID     string             `json:"device_id"`
		DeviceName   string             `json:"initial_device_display_name"`
		InhibitLogin bool               `json:"inhibit_login"`
		Renews       bool               `json:"refresh_token"`
		GuestToken   string             `json:"guest_access_token"` // of the guest whose account it is to become
		Reason       string             `json:"im.conclave.reason"` // why somebody wants an account that has to be approved
	}
	if r.QueryParam("kind") == "guest" {
		return s.registerGuest(r)
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	device := &accounts.NewDevice{
		ID: matrix.DeviceID(body.DeviceID), Name: body.DeviceName, Address: s.address(r.Request()), Renews: body.Renews, Mark: r.mark,
	}
	if body.InhibitLogin {
		device = nil
	}
	if body.Type == serviceLogin {
		return s.registerByService(r, body.Username, device)
	}
	if err := s.mayRegister(); err != nil {
		return nil, err
	}
	var guest *accounts.Session
	if body.GuestToken != "" {
		var err error
		if guest, err = s.Accounts.CheckGuest(r.Ctx(), body.GuestToken, body.Username); err != nil {
			return nil, err
		}
	} else if body.Username != "" {
		if err := s.mayChoose(r, body.Username, s.Config.Registration.Mode == config.RegistrationOpen); err != nil {
			return nil, err
		}
	}
	if err := checkRegistration(body.Password, body.Reason, device); err != nil {
		return nil, err
	}
	// What confirms a registration is bound to the name alone, because clients add the password only to the last of
	// their requests.
	done, err := s.Accounts.Confirm(r.Ctx(), accounts.Confirm{
		Operation: accounts.OperationRegister, Body: []byte(body.Username), Flows: s.Accounts.RegistrationFlows(), Auth: body.Auth,
		Address: limits.Block(s.address(r.Request())),
	})
	if err != nil {
		return nil, err
	}
	email, err := done.Email()
	if err != nil {
		return nil, err
	}
	q := accounts.Registration{
		Username: body.Username, Password: body.Password, Device: device, Address: s.address(r.Request()), Reason: body.Reason,
		Email: email, Lang: mail.Language(r.Request().Header.Get("Accept-Language")),
	}.With(done)
	if guest != nil {
		q.Asks = s.Config.Registration.Mode == config.RegistrationApproval
		return s.loggedIn(s.Accounts.Upgrade(r.Ctx(), guest, q))
	}
	return s.registered(r, q)
}

// checkRegistration refuses what no account can be made with, before the confirmation is used up. The password may come later.
func checkRegistration(password, reason string, device *accounts.NewDevice) error {
	err := accounts.CheckReason(reason)
	if err == nil && password != "" {
		err = accounts.CheckPassword(password)
	}
	if err == nil && device != nil {
		err = device.Check()
	}
	return err
}

// getTokenOwner is GET /account/whoami.
func (s *Server) getTokenOwner(r *Request) (any, error) {
	answer := map[string]any{"user_id": r.Session.UserID, "is_guest": r.Session.Guest}
	if r.Session.DeviceID != "" {
		answer["device_id"] = r.Session.DeviceID
	}
	return answer, nil
}

// confirmed asks the session's owner to confirm a request whose body has an "auth" member.
func (s *Server) confirmed(r *Request, auth *accounts.AuthData) error {
	if r.confirmsItself() {
		return nil
	}
	_, err := s.confirmedHow(r, auth)
	return err
}

// confirmedHow is confirmed, for requests that every client has to have confirmed, and that want to know how it was.
func (s *Server) confirmedHow(r *Request, auth *accounts.AuthData) (*accounts.Confirmed, error) {
	flows, params, err := s.flows(r)
	if err != nil {
		return nil, err
	}
	return s.confirmedBy(r, auth, flows, params)
}

// confirmedBy asks whoever makes a request to confirm it by one of some flows.
func (s *Server) confirmedBy(r *Request, auth *accounts.AuthData, flows []accounts.Flow, params map[string]any) (*accounts.Confirmed, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	members, err := matrix.Members(raw)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(members, func(a, b matrix.Member) int { return strings.Compare(a.Key, b.Key) })
	bound := strconv.AppendQuote(nil, r.Request().URL.Path)
	for _, m := range members {
		if m.Key != "auth" {
			bound = append(strconv.AppendQuote(bound, m.Key), m.Value...)
		}
	}
	return s.Accounts.Confirm(r.Ctx(), accounts.Confirm{
		Session: r.Session, Operation: r.route.OperationID, Body: bound, Flows: flows, Params: params, Auth: auth,
	})
}

// flows are how the owner of a request's session can confirm it, and their parameters.
func (s *Server) flows(r *Request) ([]accounts.Flow, map[string]any, error) {
	if r.Session.Client != "" {
		flows, err := s.Accounts.ByOAuth(r.route.OperationID)
		return flows, nil, err
	}
	return s.Accounts.ByOwner(r.Ctx(), r.Session)
}

// changePassword is POST /account/password.
func (s *Server) changePassword(r *Request) (any, error) {
	var body struct {
		Auth         *accounts.AuthData `json:"auth"`
		Password     string             `json:"new_password"`
		LogoutOthers *bool              `json:"logout_devices"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if r.Session == nil && !s.Accounts.Mails() {
		return nil, matrix.MissingToken() // there is no other way to show who one is
	}
	if err := accounts.CheckPassword(body.Password); err != nil {
		return nil, err
	}
	others := body.LogoutOthers == nil || *body.LogoutOthers
	if r.Session == nil {
		return nil, s.resetPassword(r, body.Auth, body.Password, others)
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	return nil, s.Accounts.ChangePassword(r.Ctx(), r.Session, body.Password, s.address(r.Request()), others)
}

// resetPassword is changePassword for somebody who is not logged in: by an address of the account.
func (s *Server) resetPassword(r *Request, auth *accounts.AuthData, password string, logout bool) error {
	done, err := s.confirmedBy(r, auth, accounts.Flows([]string{accounts.StageEmail}), nil)
	if err != nil {
		return err
	}
	proof, err := done.Email()
	if err != nil {
		return err
	}
	return s.Accounts.ResetByEmail(r.Ctx(), *proof, password, s.address(r.Request()), logout)
}

// deviceAnswer is a device as its owner sees it.
type deviceAnswer struct {
	ID      matrix.DeviceID `json:"device_id"`
	Name    string          `json:"display_name,omitempty"`
	Seen    int64           `json:"last_seen_ts,omitempty"`
	Address string          `json:"last_seen_ip,omitempty"`
}

// getDevices is GET /devices.
func (s *Server) getDevices(r *Request) (any, error) {
	devices, err := s.Accounts.Devices(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	answer := make([]deviceAnswer, len(devices))
	for i, d := range devices {
		answer[i] = deviceAnswer{d.ID, d.Name, d.Seen, d.Address}
	}
	return map[string]any{"devices": answer}, nil
}

// getDevice is GET /devices/{deviceId}.
func (s *Server) getDevice(r *Request) (any, error) {
	d, err := s.Accounts.Device(r.Ctx(), r.Session.User, matrix.DeviceID(r.Param("deviceId")))
	if err != nil {
		return nil, err
	}
	return deviceAnswer{d.ID, d.Name, d.Seen, d.Address}, nil
}

// updateDevice is PUT /devices/{deviceId}.
func (s *Server) updateDevice(r *Request) (any, error) {
	var body struct {
		Name *string `json:"display_name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	id := matrix.DeviceID(r.Param("deviceId"))
	if r.Service != nil {
		return s.putDevice(r, id, body.Name)
	}
	if body.Name == nil {
		_, err := s.Accounts.Device(r.Ctx(), r.Session.User, id)
		return nil, err
	}
	return nil, s.Accounts.RenameDevice(r.Ctx(), r.Session.User, id, *body.Name)
}

// confirmedAlone is confirmed for a request whose body holds nothing else.
func (s *Server) confirmedAlone(r *Request) error {
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
	}
	if err := r.Decode(&body); err != nil {
		return err
	}
	return s.confirmed(r, body.Auth)
}

// deleteDevice is DELETE /devices/{deviceId}.
func (s *Server) deleteDevice(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	return nil, s.Accounts.DeleteDevices(r.Ctx(), r.Session.User, []matrix.DeviceID{matrix.DeviceID(r.Param("deviceId"))})
}

// deleteDevices is POST /delete_devices.
func (s *Server) deleteDevices(r *Request) (any, error) {
	var body struct {
		Auth    *accounts.AuthData `json:"auth"`
		Devices []matrix.DeviceID  `json:"devices"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Devices == nil {
		return nil, matrix.MissingParam("devices says which devices are meant.")
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	ids := slices.Compact(slices.Sorted(slices.Values(body.Devices)))
	if len(ids) == 0 {
		return nil, nil
	}
	return nil, s.Accounts.DeleteDevices(r.Ctx(), r.Session.User, ids)
}

// deactivateAccount is POST /account/deactivate. Identity servers that do not forget the account's addresses now are asked
// again later: the answer says how it stands.
func (s *Server) deactivateAccount(r *Request) (any, error) {
	var body struct {
		Auth  *accounts.AuthData `json:"auth"`
		Erase bool               `json:"erase"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	unbound, err := s.Accounts.UnbindAll(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	if err := s.Accounts.Close(r.Ctx(), accounts.Closing{User: r.Session.User, Erase: body.Erase}); err != nil {
		return nil, err
	}
	return unbindResult(unbound), nil
}
