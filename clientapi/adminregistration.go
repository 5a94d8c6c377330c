package clientapi

import (
	"encoding/json"
	"net/url"
	"strconv"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The part of Synapse's administration API for tokens of registration, as its documentation describes it, with a few members
// more; and of our own beside it the queue of requests for accounts.
var adminRegistrationRoutes = []Route{
	{Method: get, Path: tokensPath, OperationID: "im.conclave.listRegistrationTokens", Auth: Admin, Limit: LimitRead, Handler: (*Server).listRegistrationTokens},
	{Method: post, Path: tokensPath + "/new", OperationID: "im.conclave.newRegistrationToken", Auth: Admin, Limit: LimitChange, Handler: (*Server).newRegistrationToken},
	{Method: get, Path: tokensPath + "/:token", OperationID: "im.conclave.getRegistrationToken", Auth: Admin, Limit: LimitRead, Handler: (*Server).getRegistrationToken},
	{Method: put, Path: tokensPath + "/:token", OperationID: "im.conclave.setRegistrationToken", Auth: Admin, Limit: LimitChange, Handler: (*Server).setRegistrationToken},
	{Method: del, Path: tokensPath + "/:token", OperationID: "im.conclave.deleteRegistrationToken", Auth: Admin, Limit: LimitChange, Handler: (*Server).deleteRegistrationToken},
	{Method: get, Path: requestsPath, OperationID: "im.conclave.listRegistrationRequests", Auth: Admin, Limit: LimitRead, Handler: (*Server).listRegistrationRequests},
	{Method: post, Path: requestsPath + "/:localpart/approve", OperationID: "im.conclave.approveRegistration", Auth: Admin, Limit: LimitChange, Handler: (*Server).approveRegistration},
	{Method: post, Path: requestsPath + "/:localpart/deny", OperationID: "im.conclave.denyRegistration", Auth: Admin, Limit: LimitChange, Handler: (*Server).denyRegistration},
}

const (
	tokensPath   = "/_synapse/admin/v1/registration_tokens"
	requestsPath = "/_synapse/admin/v1/registration_requests"
)

// tokenOfRegistration is a token as administrators get it. What stands behind Link is not in Synapse's API.
type tokenOfRegistration struct {
	Token       string `json:"token"`
	UsesAllowed *int64 `json:"uses_allowed"` // null: any number
	Pending     int64  `json:"pending"`
	Completed   int64  `json:"completed"`
	Expires     *int64 `json:"expiry_time"` // ms, null: never

	Link        string `json:"link"` // where people make an account with it
	EmailDomain string `json:"email_domain,omitempty"`
	Note        string `json:"note,omitempty"`
	MadeBy      string `json:"created_by"`
	Created     int64  `json:"created_ts"` // ms
}

func (s *Server) invitation(i *accounts.Invitation) tokenOfRegistration {
	t := tokenOfRegistration{
		Token: i.Token, Pending: i.Pending, Completed: i.Completed, Link: s.Config.PublicURL + "/#/register?token=" + url.QueryEscape(i.Token),
		EmailDomain: i.EmailDomain, Note: i.Note, MadeBy: i.MadeBy, Created: i.Created,
	}
	if i.UsesAllowed >= 0 {
		t.UsesAllowed = &i.UsesAllowed
	}
	if i.Expires != 0 {
		t.Expires = &i.Expires
	}
	return t
}

// tokenChange is what administrators say of a token: members that are absent stay as they are, null takes a bound away.
type tokenChange struct {
	UsesAllowed json.RawMessage `json:"uses_allowed"`
	Expires     json.RawMessage `json:"expiry_time"`
	EmailDomain *string         `json:"email_domain"`
	Note        *string         `json:"note"`
}

// apply makes the changes, which checkInvitation checks.
func (c tokenChange) apply(t *store.RegistrationToken) {
	if c.UsesAllowed != nil {
		t.UsesAllowed = bound(c.UsesAllowed, -1)
	}
	if c.Expires != nil {
		t.Expires = bound(c.Expires, 0)
	}
	if c.EmailDomain != nil {
		t.EmailDomain = *c.EmailDomain
	}
	if c.Note != nil {
		t.Note = *c.Note
	}
}

// check refuses bounds that are none.
func (c tokenChange) check() error {
	for name, raw := range map[string]json.RawMessage{"uses_allowed": c.UsesAllowed, "expiry_time": c.Expires} {
		if raw == nil || string(raw) == "null" {
			continue
		}
		if n, err := strconv.ParseInt(string(raw), 10, 64); err != nil || n < 0 || n > maxTimestamp || n == 0 && name == "expiry_time" {
			return matrix.InvalidParam("%s is a number, or null for no bound.", name)
		}
	}
	return nil
}

// bound reads a number that check has seen.
func bound(raw json.RawMessage, none int64) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return none
	}
	return n
}

// listRegistrationTokens is GET /_synapse/admin/v1/registration_tokens. Beside valid it takes limit (at most 1000) and from,
// the next_token of the page before.
func (s *Server) listRegistrationTokens(r *Request) (any, error) {
	var valid *bool
	if text := r.QueryParam("valid"); text != "" {
		only, err := flag(text)
		if err != nil {
			return nil, err
		}
		valid = &only
	}
	limit, err := number(r.QueryParam("limit"), 1000, 1000)
	if err != nil || limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 1000.")
	}
	list, next, err := s.Accounts.Invitations(r.Ctx(), r.QueryParam("from"), limit, valid)
	if err != nil {
		return nil, err
	}
	tokens := make([]tokenOfRegistration, len(list))
	for i := range list {
		tokens[i] = s.invitation(&list[i])
	}
	answer := map[string]any{"registration_tokens": tokens}
	if next != "" {
		answer["next_token"] = next
	}
	return answer, nil
}

// invited answers with a token.
func (s *Server) invited(i *accounts.Invitation, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return s.invitation(i), nil
}

// newRegistrationToken is POST /_synapse/admin/v1/registration_tokens/new.
func (s *Server) newRegistrationToken(r *Request) (any, error) {
	var body struct {
		tokenChange
		Token  *string `json:"token"`
		Length *int    `json:"length"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	t, length := store.RegistrationToken{UsesAllowed: -1}, 0
	body.apply(&t)
	if body.Token != nil {
		if t.Token = *body.Token; t.Token == "" {
			return nil, matrix.InvalidParam("token must not be empty.")
		}
	}
	if body.Length != nil {
		if length = *body.Length; length == 0 {
			return nil, matrix.InvalidParam("length is from 1 to 64.")
		}
	}
	return s.invited(s.Accounts.NewInvitation(r.Ctx(), r.Session, t, length))
}

// getRegistrationToken is GET /_synapse/admin/v1/registration_tokens/{token}.
func (s *Server) getRegistrationToken(r *Request) (any, error) {
	return s.invited(s.Accounts.Invitation(r.Ctx(), r.Param("token")))
}

// setRegistrationToken is PUT /_synapse/admin/v1/registration_tokens/{token}.
func (s *Server) setRegistrationToken(r *Request) (any, error) {
	var body tokenChange
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	return s.invited(s.Accounts.ChangeInvitation(r.Ctx(), r.Session, r.Param("token"), body.apply))
}

// deleteRegistrationToken is DELETE /_synapse/admin/v1/registration_tokens/{token}.
func (s *Server) deleteRegistrationToken(r *Request) (any, error) {
	return nil, s.Accounts.DropInvitation(r.Ctx(), r.Session, r.Param("token"))
}

// requestedAccount is a request for an account as administrators get it.
type requestedAccount struct {
	Localpart string        `json:"localpart"`
	ID        matrix.UserID `json:"user_id"`
	Email     string        `json:"email,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Address   string        `json:"ip,omitempty"`
	Created   int64         `json:"requested_ts"` // ms
}

// listRegistrationRequests is GET /_synapse/admin/v1/registration_requests: those who wait, the oldest first. from is the
// next_token of the page before, limit at most 500.
func (s *Server) listRegistrationRequests(r *Request) (any, error) {
	limit, err := number(r.QueryParam("limit"), 100, 500)
	if err != nil || limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 500.")
	}
	var after *store.RegistrationRequest
	if from := r.QueryParam("from"); from != "" {
		created, localpart, ok := cutNumber(from)
		if !ok {
			return nil, matrix.InvalidParam("from is not the text that an earlier answer gave.")
		}
		after = &store.RegistrationRequest{Created: created, Localpart: localpart}
	}
	list, total, err := s.Accounts.Requests(r.Ctx(), after, limit)
	if err != nil {
		return nil, err
	}
	requests := make([]requestedAccount, len(list))
	for i, q := range list {
		requests[i] = requestedAccount{q.Localpart, s.userNamed(q.Localpart), q.Email, q.Reason, q.Address, q.Created}
	}
	answer := map[string]any{"requests": requests, "total": total}
	if len(list) == limit {
		last := list[limit-1]
		answer["next_token"] = strconv.FormatInt(last.Created, 10) + "_" + last.Localpart
	}
	return answer, nil
}

// cutNumber reads a number, an underscore and a text.
func cutNumber(text string) (n int64, rest string, ok bool) {
	for i := range len(text) {
		if text[i] == '_' {
			n, err := strconv.ParseInt(text[:i], 10, 64)
			return n, text[i+1:], err == nil
		}
	}
	return 0, "", false
}

// approveRegistration is POST /_synapse/admin/v1/registration_requests/{localpart}/approve.
func (s *Server) approveRegistration(r *Request) (any, error) {
	id, err := s.Accounts.Approve(r.Ctx(), r.Session, r.Param("localpart"))
	return map[string]matrix.UserID{"user_id": id}, err
}

// denyRegistration is POST /_synapse/admin/v1/registration_requests/{localpart}/deny.
func (s *Server) denyRegistration(r *Request) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return nil, s.Accounts.Deny(r.Ctx(), r.Session, r.Param("localpart"), body.Reason)
}
