package clientapi

import (
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/limits"
	"conclave/internal/matrix"
)

// How somebody shows that an e-mail address is theirs (client-server API, "Administrative contact information"). There are
// no telephone numbers.
var emailRoutes = []Route{
	op(post, "/register/email/requestToken", "requestTokenToRegisterEmail", NoAuth, LimitLogin, requestToken(accounts.ForRegistration)),
	op(post, "/account/password/email/requestToken", "requestTokenToResetPasswordEmail", NoAuth, LimitLogin, requestToken(accounts.ForReset)),
	op(post, "/account/3pid/email/requestToken", "requestTokenTo3PIDEmail", OptionalToken, LimitLogin, requestToken(accounts.ForAdding)),
	op(post, "/register/msisdn/requestToken", "requestTokenToRegisterMSISDN", NoAuth, LimitLogin, (*Server).noTelephones),
	op(post, "/account/password/msisdn/requestToken", "requestTokenToResetPasswordMSISDN", NoAuth, LimitLogin, (*Server).noTelephones),
	op(post, "/account/3pid/msisdn/requestToken", "requestTokenTo3PIDMSISDN", OptionalToken, LimitLogin, (*Server).noTelephones),
	{Method: get, Path: accounts.ConfirmPath, OperationID: "im.conclave.email.page", Auth: NoAuth, Limit: LimitLogin, Page: true, Fail: (*Server).failPage, Handler: (*Server).confirmPage},
	{Method: post, Path: accounts.ConfirmPath, OperationID: "im.conclave.email.submitToken", Auth: NoAuth, Limit: LimitLogin, Page: true, Body: maxConfirm, Fail: (*Server).failEmail, Handler: (*Server).submitToken},
	{Method: get, Path: accounts.UnsubscribePath, OperationID: "im.conclave.email.unsubscribePage", Auth: NoAuth, Limit: LimitLogin, Page: true, Fail: (*Server).failPage, Handler: (*Server).unsubscribePage},
	{Method: post, Path: accounts.UnsubscribePath, OperationID: "im.conclave.email.unsubscribe", Auth: NoAuth, Limit: LimitLogin, Page: true, Body: maxConfirm, Fail: (*Server).failPage, Handler: (*Server).unsubscribe},
}

// maxConfirm bounds what a link's page sends.
const maxConfirm = 4096

// requestToken is the three endpoints …/email/requestToken. There is no submit_url in the answer: the link in the mail does
// without the client.
func requestToken(purpose accounts.Purpose) func(*Server, *Request) (any, error) {
	return func(s *Server, r *Request) (any, error) {
		var body struct {
			Secret   string  `json:"client_secret"`
			Email    *string `json:"email"`
			Attempt  *int64  `json:"send_attempt"`
			NextLink string  `json:"next_link"`
		}
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
		if body.Secret == "" || body.Email == nil || body.Attempt == nil {
			return nil, matrix.MissingParam("client_secret, email and send_attempt are needed.")
		}
		if purpose == accounts.ForRegistration {
			if err := s.mayRegister(); err != nil {
				return nil, err
			}
		}
		from := s.address(r.Request())
		sid, err := s.Accounts.RequestAddress(r.Ctx(), accounts.AddressRequest{
			Purpose: purpose, Session: r.Session, Address: *body.Email, Secret: body.Secret, Attempt: *body.Attempt, NextLink: body.NextLink,
			Accept: r.Request().Header.Get("Accept-Language"), From: from, Block: limits.Block(from),
		})
		if err != nil {
			return nil, err
		}
		return map[string]string{"sid": sid}, nil
	}
}

// noTelephones is the three endpoints …/msisdn/requestToken.
func (s *Server) noTelephones(*Request) (any, error) {
	return nil, matrix.Errorf(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "Accounts have no telephone numbers on this server. Use an e-mail address.")
}
