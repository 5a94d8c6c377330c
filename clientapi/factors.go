package clientapi

import (
	"encoding/base64"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// accountPath is where the operations are that care for one's own account and that the specification does not have.
const accountPath = "/_matrix/client/unstable/im.conclave.account"

// ownAccount is what their operation IDs begin with.
const ownAccount = "im.conclave.account."

// own declares one of them.
func own(method, path, id string, limit Limit, handler func(*Server, *Request) (any, error)) Route {
	return Route{Method: method, Path: accountPath + path, OperationID: ownAccount + id, Auth: Token, Limit: limit, Handler: handler}
}

// Second factors of one's own account. Whatever changes them wants to be confirmed, by the password and a second factor
// where there is one. What is set up in two steps is confirmed at the first, and the second is only for the same session.
var factorRoutes = []Route{
	own(get, "/factors", "factors", LimitRead, (*Server).factors),
	own(post, "/totp/begin", "totp.begin", LimitChange, (*Server).beginTOTP),
	own(post, "/totp/confirm", "totp.confirm", LimitLogin, (*Server).confirmTOTP),
	own(post, "/totp/remove", "totp.remove", LimitChange, (*Server).removeTOTP),
	own(post, "/recovery_codes", "recoveryCodes", LimitChange, (*Server).newRecoveryCodes),
	{Method: post, Path: "/_synapse/admin/v1/users/:userId/reset_2fa", OperationID: "im.conclave.admin.resetFactors", Auth: Admin, Limit: LimitChange, Handler: (*Server).resetFactors},
}

// factors is GET …/factors. required says whether the server's rule wants a second factor of this account, and due_ts by
// when, as long as there is none.
func (s *Server) factors(r *Request) (any, error) {
	f, err := s.Accounts.Factors(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	required, due, err := s.Accounts.FactorWanted(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{
		"totp": f.TOTP, "recovery_codes": f.Recovery, "passkeys": f.Passkeys, "passkeys_available": s.Accounts.HasPasskeys(), "required": required,
	}
	if f.Since != 0 {
		answer["since_ts"] = f.Since
	}
	if due != 0 {
		answer["due_ts"] = due
	}
	return answer, nil
}

// beginTOTP is POST …/totp/begin. What it answers is shown once.
func (s *Server) beginTOTP(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	e, err := s.Accounts.BeginTOTP(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"uri": e.URI, "secret": e.Secret, "qr_png": base64.StdEncoding.EncodeToString(e.QR),
		"expires_in_ms": max(0, time.Until(time.UnixMilli(e.Expires)).Milliseconds()),
	}, nil
}

// confirmTOTP is POST …/totp/confirm.
func (s *Server) confirmTOTP(r *Request) (any, error) {
	var body struct {
		Code string `json:"code"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Code == "" {
		return nil, matrix.MissingParam("code is what the authenticator app shows.")
	}
	codes, err := s.Accounts.ConfirmTOTP(r.Ctx(), r.Session, body.Code)
	if err != nil {
		return nil, err
	}
	return enrolled{Codes: codes}, nil
}

// enrolled is what is there now. New recovery codes are shown this once.
type enrolled struct {
	ID    string   `json:"id,omitempty"` // of a passkey
	Codes []string `json:"recovery_codes,omitempty"`
}

// removeTOTP is POST …/totp/remove.
func (s *Server) removeTOTP(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	return nil, s.Accounts.RemoveTOTP(r.Ctx(), r.Session)
}

// newRecoveryCodes is POST …/recovery_codes.
func (s *Server) newRecoveryCodes(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	codes, err := s.Accounts.NewRecoveryCodes(r.Ctx(), r.Session)
	if err != nil {
		return nil, err
	}
	return enrolled{Codes: codes}, nil
}

// resetFactors is POST /_synapse/admin/v1/users/{userId}/reset_2fa, for users who have lost what they prove themselves by.
// For themselves administrators confirm it like everybody else: otherwise a token alone would take their factors away.
func (s *Server) resetFactors(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if id.Server() != r.Session.UserID.Server() {
		return nil, matrix.InvalidParam("%s is no user of this server.", id)
	}
	account, err := s.Accounts.Find(r.Ctx(), id)
	if err != nil {
		return nil, err
	}
	if account.User == r.Session.User {
		if err := s.confirmed(r, body.Auth); err != nil {
			return nil, err
		}
	}
	return nil, s.Accounts.ResetFactors(r.Ctx(), string(r.Session.UserID), account.User)
}
