package clientapi

import (
	"errors"
	"net/http"
	"slices"

	"conclave/internal/accounts"
	"conclave/internal/mail"
	"conclave/internal/matrix"
)

// The addresses (third-party identifiers) of an account, and which identity servers publish them.
var threepidRoutes = []Route{
	op(get, "/account/3pid", "getAccount3PIDs", Token, LimitRead, (*Server).getAccount3PIDs),
	op(post, "/account/3pid", "post3PIDs", Token, LimitLogin, (*Server).post3PIDs),
	op(post, "/account/3pid/add", "add3PID", Token, LimitLogin, (*Server).add3PID),
	op(post, "/account/3pid/bind", "bind3PID", Token, LimitLogin, (*Server).bind3PID),
	op(post, "/account/3pid/delete", "delete3pidFromAccount", Token, LimitLogin, (*Server).delete3pidFromAccount),
	op(post, "/account/3pid/unbind", "unbind3pidFromAccount", Token, LimitLogin, (*Server).unbind3pidFromAccount),
}

// threepidAnswer is an address of an account.
type threepidAnswer struct {
	Medium    string `json:"medium"`
	Address   string `json:"address"`
	Validated int64  `json:"validated_at"` // ms
	Added     int64  `json:"added_at"`     // ms
}

// getAccount3PIDs is GET /account/3pid.
func (s *Server) getAccount3PIDs(r *Request) (any, error) {
	list, err := s.Accounts.Threepids(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	answer := make([]threepidAnswer, len(list))
	for i, t := range list {
		answer[i] = threepidAnswer{t.Medium, t.Address, t.Validated, t.Added}
	}
	return map[string]any{"threepids": answer}, nil
}

// add3PID is POST /account/3pid/add.
func (s *Server) add3PID(r *Request) (any, error) {
	var body struct {
		Auth   *accounts.AuthData `json:"auth"`
		SID    string             `json:"sid"`
		Secret string             `json:"client_secret"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.SID == "" || body.Secret == "" {
		return nil, matrix.MissingParam("sid and client_secret are needed.")
	}
	proof := accounts.NewAddressProof(body.SID, body.Secret)
	if err := s.Accounts.AddressConfirmed(r.Ctx(), proof); err != nil {
		return nil, err
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	lang := mail.Language(r.Request().Header.Get("Accept-Language"))
	return nil, s.Accounts.AddThreepid(r.Ctx(), r.Session, proof, lang, s.address(r.Request()))
}

// bindBody names a session in which an identity server has confirmed an address.
type bindBody struct {
	Secret   string `json:"client_secret"`
	SID      string `json:"sid"`
	IDServer string `json:"id_server"`
	IDToken  string `json:"id_access_token"`
}

// maxSession bounds what an identity server calls its sessions, and the secrets of clients.
const maxSession = 255

// bind3PID is POST /account/3pid/bind.
func (s *Server) bind3PID(r *Request) (any, error) {
	var body bindBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return nil, s.bind(r, body)
}

func (s *Server) bind(r *Request, body bindBody) error {
	for _, m := range []struct{ name, value string }{
		{"client_secret", body.Secret}, {"sid", body.SID}, {"id_server", body.IDServer}, {"id_access_token", body.IDToken},
	} {
		if m.value == "" {
			return matrix.MissingParam("To publish an address, %s is needed.", m.name)
		}
	}
	at, err := matrix.ParseServerName(body.IDServer)
	if err != nil {
		return matrix.InvalidParam("%.255q is not a server's name.", body.IDServer).With(err)
	}
	if !isHeaderToken(body.IDToken) || len(body.SID) > maxSession || len(body.Secret) > maxSession {
		return matrix.InvalidParam("id_access_token has at most %d bytes, sid and client_secret %d.", maxIdentityToken, maxSession)
	}
	return s.Accounts.BindThreepid(r.Ctx(), r.Session, at, body.IDToken, body.SID, body.Secret)
}

// post3PIDs is POST /account/3pid, which the specification has made an equivalent of bind. It adds nothing to the account:
// that takes the user's password (add3PID).
func (s *Server) post3PIDs(r *Request) (any, error) {
	var body struct {
		Creds *bindBody `json:"three_pid_creds"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Creds == nil {
		return nil, matrix.MissingParam("three_pid_creds is needed.")
	}
	err := s.bind(r, *body.Creds)
	var refused *matrix.Error
	unverified := []string{"M_NO_VALID_SESSION", "M_SESSION_NOT_VALIDATED", "M_SESSION_EXPIRED"}
	if errors.As(err, &refused) && slices.Contains(unverified, refused.Code) {
		err = matrix.Errorf(http.StatusForbidden, "M_THREEPID_AUTH_FAILED", "The identity server has not confirmed the address.").With(err)
	}
	return nil, err
}

// threepidBody names an address, and perhaps the identity server that publishes it.
type threepidBody struct {
	IDServer string `json:"id_server"`
	Medium   string `json:"medium"`
	Address  string `json:"address"`
}

func (b threepidBody) server() (matrix.ServerName, error) {
	if b.Medium == "" || b.Address == "" {
		return "", matrix.MissingParam("medium and address are needed.")
	}
	if b.Medium != "email" && b.Medium != "msisdn" || len(b.Address) > maxSession {
		return "", matrix.InvalidParam("There is no such address.")
	}
	if b.IDServer == "" {
		return "", nil
	}
	at, err := matrix.ParseServerName(b.IDServer)
	if err != nil {
		return "", matrix.InvalidParam("%.255q is not a server's name.", b.IDServer).With(err)
	}
	return at, nil
}

// unbindResult says whether an identity server has forgotten an address.
func unbindResult(done bool) map[string]string {
	if done {
		return map[string]string{"id_server_unbind_result": "success"}
	}
	return map[string]string{"id_server_unbind_result": "no-support"}
}

// delete3pidFromAccount is POST /account/3pid/delete.
func (s *Server) delete3pidFromAccount(r *Request) (any, error) {
	var body threepidBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	at, err := body.server()
	if err != nil {
		return nil, err
	}
	done, err := s.Accounts.DeleteThreepid(r.Ctx(), r.Session, body.Medium, body.Address, at, s.address(r.Request()))
	if err != nil {
		return nil, err
	}
	return unbindResult(done), nil
}

// unbind3pidFromAccount is POST /account/3pid/unbind.
func (s *Server) unbind3pidFromAccount(r *Request) (any, error) {
	var body threepidBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	at, err := body.server()
	if err != nil {
		return nil, err
	}
	done, err := s.Accounts.UnbindThreepid(r.Ctx(), r.Session, body.Medium, body.Address, at)
	if err != nil {
		return nil, err
	}
	return unbindResult(done), nil
}
