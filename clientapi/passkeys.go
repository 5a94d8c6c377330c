package clientapi

import (
	"encoding/json"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// Passkeys of one's own account (factors.go says what confirms a change).
var passkeyRoutes = []Route{
	own(get, "/passkeys", "passkeys", LimitRead, (*Server).passkeys),
	own(post, "/passkeys/begin", "passkeys.begin", LimitChange, (*Server).beginPasskey),
	own(post, "/passkeys/finish", "passkeys.finish", LimitLogin, (*Server).finishPasskey),
	own(put, "/passkeys/:passkeyId", "passkeys.rename", LimitChange, (*Server).renamePasskey),
	own(del, "/passkeys/:passkeyId", "passkeys.remove", LimitChange, (*Server).removePasskey),
}

// passkeyAnswer is a passkey as its owner sees it.
type passkeyAnswer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Created int64  `json:"created_ts"`
	Used    int64  `json:"last_used_ts,omitempty"`
}

// passkeys is GET …/passkeys.
func (s *Server) passkeys(r *Request) (any, error) {
	list, err := s.Accounts.Passkeys(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	answer := make([]passkeyAnswer, len(list))
	for i, p := range list {
		answer[i] = passkeyAnswer(p)
	}
	return map[string]any{"passkeys": answer}, nil
}

// beginPasskey is POST …/passkeys/begin. options is for navigator.credentials.create.
func (s *Server) beginPasskey(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	return challengeAnswer(s.Accounts.BeginPasskeyRegistration(r.Ctx(), r.Session))
}

// finishPasskey is POST …/passkeys/finish.
func (s *Server) finishPasskey(r *Request) (any, error) {
	var body struct {
		Challenge  string          `json:"challenge"`
		Name       string          `json:"name"`
		Credential json.RawMessage `json:"credential"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Challenge == "" || len(body.Credential) == 0 {
		return nil, matrix.MissingParam("challenge and credential are needed.")
	}
	id, codes, err := s.Accounts.FinishPasskeyRegistration(r.Ctx(), r.Session, body.Challenge, body.Name, body.Credential)
	if err != nil {
		return nil, err
	}
	return enrolled{id, codes}, nil
}

// renamePasskey is PUT …/passkeys/{passkeyId}.
func (s *Server) renamePasskey(r *Request) (any, error) {
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
		Name string             `json:"name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Name == "" {
		return nil, matrix.MissingParam("name is what the passkey is to be called.")
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	return nil, s.Accounts.RenamePasskey(r.Ctx(), r.Session, r.Param("passkeyId"), body.Name)
}

// removePasskey is DELETE …/passkeys/{passkeyId}.
func (s *Server) removePasskey(r *Request) (any, error) {
	if err := s.confirmedAlone(r); err != nil {
		return nil, err
	}
	return nil, s.Accounts.RemovePasskey(r.Ctx(), r.Session, r.Param("passkeyId"))
}
