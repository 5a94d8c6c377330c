package clientapi

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// maxOAuthBody bounds what clients and browsers send to the OAuth endpoints, in bytes.
const maxOAuthBody = 16 << 10

// oauthRoutes are what OAuth clients call (client-server API, "OAuth 2.0 API"). The pages that their users see are in
// oauthpages.go.
var oauthRoutes = []Route{
	{
		Method: get, Path: "/_matrix/client/v1/auth_metadata", OperationID: "getAuthMetadata", Auth: NoAuth, Limit: LimitRead, Handler: (*Server).getAuthMetadata,
		Aliases: []string{
			"/_matrix/client/unstable/org.matrix.msc2965/auth_metadata", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server",
		},
	},
	oauth("/oauth2/register", "im.conclave.oauth.register", (*Server).registerOAuthClient),
	oauth("/oauth2/token", "im.conclave.oauth.token", (*Server).oauthToken),
	oauth("/oauth2/revoke", "im.conclave.oauth.revoke", (*Server).revokeOAuthToken),
	oauth("/oauth2/device", "im.conclave.oauth.device", (*Server).authorizeDevice),
}

// oauth declares an endpoint that answers errors as OAuth does.
func oauth(path, id string, handler func(*Server, *Request) (any, error)) Route {
	return Route{
		Method: post, Path: path, OperationID: id, Auth: NoAuth, Limit: LimitRefresh, Body: maxOAuthBody, Handler: handler, Fail: (*Server).failOAuth,
	}
}

// getAuthMetadata is GET /auth_metadata, and the same where programs look that know OAuth but not Matrix (RFC 8414).
func (s *Server) getAuthMetadata(*Request) (any, error) {
	base := s.issuer() + "oauth2"
	return map[string]any{
		"issuer":                                         s.issuer(),
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"revocation_endpoint":                            base + "/revoke",
		"registration_endpoint":                          base + "/register",
		"device_authorization_endpoint":                  base + "/device",
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query", "fragment"},
		"grant_types_supported":                          []string{accounts.GrantCode, accounts.GrantRefresh, accounts.GrantDevice},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"revocation_endpoint_auth_methods_supported":     []string{"none"},
		"authorization_response_iss_parameter_supported": true,
		"account_management_uri":                         s.Accounts.ManagementURL(nil),
		"account_management_actions_supported":           managementActions,
	}, nil
}

// issuer names this server among authorization servers (RFC 8414, section 2).
func (s *Server) issuer() string {
	return strings.TrimSuffix(s.Accounts.ManagementURL(nil), "oauth2/account")
}

// registerOAuthClient is dynamic client registration (RFC 7591).
func (s *Server) registerOAuthClient(r *Request) (any, error) {
	if kind := r.Request().Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return nil, &accounts.OAuthError{Code: "invalid_client_metadata", Text: "The metadata has to be sent as application/json."}
	}
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	client, err := s.Accounts.RegisterClient(r.Ctx(), body)
	if err != nil {
		return nil, err
	}
	answer := client.Metadata()
	answer["client_id"] = client.ID
	return Status{http.StatusCreated, answer}, nil
}

// oauthForm reads a body as forms send it, which has to have some parameters. What is there twice is refused (RFC 6749,
// section 3.2).
func (r *Request) oauthForm(needed ...string) (url.Values, error) {
	form, err := r.form() // no body reads as {}, which is nothing that is needed
	if err != nil {
		return nil, err
	}
	for name, values := range form {
		if len(values) != 1 || !matrix.IsText(name) || !matrix.IsText(values[0]) {
			return nil, &accounts.OAuthError{Code: "invalid_request", Text: "Each parameter is text, and may be there once."}
		}
	}
	for _, name := range needed {
		if form.Get(name) == "" {
			return nil, &accounts.OAuthError{Code: "invalid_request", Text: name + " is needed."}
		}
	}
	return form, nil
}

// oauthToken is the token endpoint.
func (s *Server) oauthToken(r *Request) (any, error) {
	form, err := r.oauthForm("grant_type", "client_id")
	if err != nil {
		return nil, err
	}
	client, address := form.Get("client_id"), s.address(r.Request())
	var login *accounts.Login
	switch form.Get("grant_type") {
	case accounts.GrantCode:
		if form, err = r.oauthForm("code", "redirect_uri", "code_verifier"); err == nil {
			login, err = s.Accounts.RedeemCode(r.Ctx(), client, form.Get("code"), form.Get("redirect_uri"), form.Get("code_verifier"), address)
		}
	case accounts.GrantRefresh:
		if form, err = r.oauthForm("refresh_token"); err == nil {
			login, err = s.Accounts.RefreshOAuth(r.Ctx(), form.Get("refresh_token"), client)
		}
	case accounts.GrantDevice:
		if form, err = r.oauthForm("device_code"); err == nil {
			login, err = s.Accounts.PollDeviceGrant(r.Ctx(), client, form.Get("device_code"), address)
		}
	default:
		err = &accounts.OAuthError{Code: "unsupported_grant_type", Text: "This server does not know the grant_type."}
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"access_token": login.Token, "token_type": "Bearer", "expires_in": int64(login.Lasts.Seconds()),
		"refresh_token": login.RefreshToken, "scope": accounts.Scope(login.DeviceID),
	}, nil
}

// revokeOAuthToken is the revocation endpoint (RFC 7009).
func (s *Server) revokeOAuthToken(r *Request) (any, error) {
	form, err := r.oauthForm("token")
	if err != nil {
		return nil, err
	}
	return nil, s.Accounts.Revoke(r.Ctx(), form.Get("token"))
}

// authorizeDevice is the device authorization endpoint (RFC 8628).
func (s *Server) authorizeDevice(r *Request) (any, error) {
	form, err := r.oauthForm("client_id", "scope")
	if err != nil {
		return nil, err
	}
	g, err := s.Accounts.BeginDeviceGrant(r.Ctx(), form.Get("client_id"), form.Get("scope"))
	if err != nil {
		return nil, err
	}
	link := s.issuer() + "oauth2/link"
	return map[string]any{
		"device_code": g.DeviceCode, "user_code": g.UserCode, "verification_uri": link,
		"verification_uri_complete": link + "?" + url.Values{"user_code": {g.UserCode}}.Encode(),
		"expires_in":                int64(g.Lasts.Seconds()), "interval": int64(g.Pause.Seconds()),
	}, nil
}

// failOAuth writes an error as OAuth clients read it (RFC 6749, section 5.2).
func (s *Server) failOAuth(r *Request, err error) {
	status, code, text := http.StatusBadRequest, "", ""
	var fault *accounts.OAuthError
	if errors.As(err, &fault) {
		code, text = fault.Code, fault.Text
		if code == "invalid_client" {
			status = http.StatusUnauthorized
		}
	} else {
		known := s.known(r.Context, r.route.OperationID, err)
		status, text = known.Status, known.Text
		switch {
		case known.Code == "M_USER_LOCKED": // for a while: a client that is told 4xx would forget its session
			status, code = http.StatusServiceUnavailable, "temporarily_unavailable"
		case status == http.StatusTooManyRequests:
			code = "temporarily_unavailable"
			if ms, ok := known.Fields["retry_after_ms"].(int64); ok {
				r.Response().Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
			}
		case status >= http.StatusInternalServerError:
			code = "server_error"
		default:
			code = "invalid_request"
		}
	}
	r.Response().Header().Set("Pragma", "no-cache")
	s.respond(r.Context, r.route.OperationID, Status{status, map[string]string{"error": code, "error_description": text}}, nil)
}
