package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/rooms"
)

var _ accounts.IdentityServers = (*IdentityServices)(nil)

// Bind implements accounts.IdentityServers (Identity Service API, "POST /3pid/bind").
func (s *IdentityServices) Bind(ctx context.Context, at matrix.ServerName, token, sid, secret string, user matrix.UserID) (medium, address string, err error) {
	var answer struct {
		Medium  string        `json:"medium"`
		Address string        `json:"address"`
		UserID  matrix.UserID `json:"mxid"`
	}
	body := map[string]any{"sid": sid, "client_secret": secret, "mxid": user}
	err = s.ask(ctx, rooms.IdentityService{Server: at, Token: token}, http.MethodPost, "/3pid/bind", body, &answer)
	if err != nil {
		return "", "", bindForClient(at, err)
	}
	bound, err := rooms.ParseAddress(answer.Medium, answer.Address)
	if err == nil && answer.UserID != user {
		err = fmt.Errorf("%w: it has bound an address to somebody else", errStrange)
	}
	if err != nil {
		return "", "", identityForClient(at, fmt.Errorf("%w: %w", errStrange, err))
	}
	return bound.Medium, bound.Text, nil
}

// Unbind implements accounts.IdentityServers (Identity Service API, "POST /3pid/unbind"): this server signs the request.
func (s *IdentityServices) Unbind(ctx context.Context, at matrix.ServerName, user matrix.UserID, medium, address string) (supported bool, err error) {
	if !s.policy.Allowed(at) {
		return false, identityForClient(at, ErrNotAllowed)
	}
	const path = identityV2 + "/3pid/unbind"
	body, err := matrix.Encode(map[string]any{"mxid": user, "threepid": map[string]string{"medium": medium, "address": address}})
	if err != nil {
		return false, err
	}
	message, err := signedRequest(http.MethodPost, path, s.own.Name(), at, body)
	if err != nil {
		return false, err
	}
	key := s.own.Key()
	signed := Credentials{s.own.Name(), at, key.ID, ed25519.Sign(key.Private, message)}.String()
	var answer struct{}
	err = s.do(ctx, http.MethodPost, "https://"+string(at)+path, signed, json.RawMessage(body), &answer)
	var refused *identityError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &refused) && (refused.code == "" || refused.code == "M_UNRECOGNIZED") && refused.status/100 == 4,
		errors.As(err, &refused) && refused.status == http.StatusNotImplemented:
		return false, nil // it does not do such a thing
	}
	return false, bindForClient(at, err)
}

// bindForClient passes on what an identity server refuses, as the specification wants it, except where the client would
// take it for a word about its own session here.
func bindForClient(at matrix.ServerName, err error) error {
	var refused *identityError
	if errors.As(err, &refused) && refused.status/100 == 4 && refused.status != http.StatusUnauthorized && isErrorCode(refused.code) &&
		refused.code != "M_UNKNOWN_TOKEN" && refused.code != "M_MISSING_TOKEN" && refused.code != "M_USER_LOCKED" && refused.code != "M_LIMIT_EXCEEDED" {
		return matrix.Errorf(refused.status, refused.code, "The identity server %s refuses that.", at).With(err)
	}
	return identityForClient(at, err)
}

// isErrorCode says whether a text has the form of the specification's error codes.
func isErrorCode(code string) bool {
	rest, ok := strings.CutPrefix(code, "M_")
	return ok && rest != "" && len(code) <= 64 && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == ""
}
