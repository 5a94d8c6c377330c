package clientapi

import "conclave/internal/accounts"

// The part of Synapse's administration API that programs use to make accounts, as its documentation describes it.
var adminRoutes = []Route{
	{Method: get, Path: "/_synapse/admin/v1/register", OperationID: "im.conclave.sharedSecretNonce", Auth: NoAuth, Limit: LimitRegister, Handler: (*Server).sharedSecretNonce},
	{Method: post, Path: "/_synapse/admin/v1/register", OperationID: "im.conclave.sharedSecretRegister", Auth: NoAuth, Limit: LimitRegister, Handler: (*Server).sharedSecretRegister},
}

// sharedSecretNonce is GET /_synapse/admin/v1/register.
func (s *Server) sharedSecretNonce(r *Request) (any, error) {
	nonce, err := s.Accounts.Nonce(r.Ctx())
	return map[string]string{"nonce": nonce}, err
}

// sharedSecretRegister is POST /_synapse/admin/v1/register.
func (s *Server) sharedSecretRegister(r *Request) (any, error) {
	var body struct {
		Nonce    string `json:"nonce"`
		Username string `json:"username"`
		Password string `json:"password"`
		Admin    bool   `json:"admin"`
		MAC      string `json:"mac"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	q := accounts.Registration{Username: body.Username, Password: body.Password, Admin: body.Admin,
		Device: &accounts.NewDevice{Address: s.address(r.Request())}}
	return s.loggedIn(s.Accounts.RegisterShared(r.Ctx(), body.Nonce, body.MAC, q))
}
