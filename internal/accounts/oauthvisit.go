package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// visitTime is how long a browser may stay: signing in, and saying yes or no.
const (
	visitTime   = 20 * time.Minute
	visitPrefix = "ccv_"
)

// VisitPurpose is why a browser was sent to one of our pages.
type VisitPurpose string

// The purposes of visits.
const (
	ToAuthorize VisitPurpose = "authorize" // a client wants a session, and gets a code by redirect
	ToLink      VisitPurpose = "link"      // a device elsewhere wants a session, and shows a user code
	ToManage    VisitPurpose = "manage"    // somebody looks after their account
	ToSSO       VisitPurpose = "sso"       // a client that knows no OAuth wants a login token
)

// Visit is what a browser is in the middle of.
type Visit struct {
	Purpose  VisitPurpose `json:"-"`
	Client   *Client      `json:"-"` // nil where no client wants anything, or its user code was not typed yet
	Redirect string       // of the request, exactly
	Fragment bool         // whether the answer goes into the fragment of the redirect, else into its query
	State    string
	Device   matrix.DeviceID // that the client wants to have, or that is to be managed
	Hint     string          // the name of the account, as the client believes

	Challenge string // of PKCE
	Grant     []byte // hash of the device code
	Code      string // the user code that was typed
	Action    string // of account management
	Confirms  string // the session of user-interactive authentication that waits for this visit
}

// errVisit says that a browser's cookie leads nowhere.
var errVisit = matrix.Forbidden("This visit is not known, or too old. Go back to your app and begin again.")

// BeginVisit keeps a visit and gives the secret by which the browser goes on with it.
func (a *Accounts) BeginVisit(ctx context.Context, v *Visit) (secret string, err error) {
	details, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	now := a.now()
	secret, hash := newToken(visitPrefix)
	row := store.OAuthVisit{Hash: hash[:], Purpose: string(v.Purpose), Details: string(details), Expires: now.Add(visitTime).UnixMilli()}
	if v.Client != nil {
		row.Client = v.Client.ID
	}
	return secret, a.db.Write(ctx, func(tx *store.Tx) error { return tx.AddOAuthVisit(row, now.UnixMilli()) })
}

// Visit finds a visit by its secret (M_FORBIDDEN).
func (a *Accounts) Visit(ctx context.Context, secret string) (v *Visit, err error) {
	hash := sha256.Sum256([]byte(secret))
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		row, err := tx.OAuthVisit(hash[:])
		if err != nil {
			return err
		}
		v, err = a.visitOf(tx, row)
		return err
	})
	return v, err
}

func (a *Accounts) visitOf(tx *store.Tx, row *store.OAuthVisit) (*Visit, error) {
	if row == nil || row.Expires < a.now().UnixMilli() {
		return nil, errVisit
	}
	v := &Visit{}
	if err := json.Unmarshal([]byte(row.Details), v); err != nil {
		return nil, err
	}
	v.Purpose = VisitPurpose(row.Purpose)
	if row.Client == "" {
		return v, nil
	}
	client, err := oauthClient(tx, row.Client)
	if err == nil && client == nil {
		err = errVisit
	}
	v.Client = client
	return v, err
}

// The scopes of Matrix, and how they were called before they were in the specification.
const (
	scopeAPI    = "urn:matrix:client:api:*"
	scopeDevice = "urn:matrix:client:device:"
	oldAPI      = "urn:matrix:org.matrix.msc2967.client:api:*"
	oldDevice   = "urn:matrix:org.matrix.msc2967.client:device:"
)

// Scope is what a session on a device may do: everything.
func Scope(device matrix.DeviceID) string { return scopeAPI + " " + scopeDevice + string(device) }

// maxScopeDevice is the longest ID of a device that a client may choose, in bytes.
const maxScopeDevice = 255

// readScope finds the device that a scope is for. Scopes that are not Matrix's are left out of what is granted.
func readScope(scope string) (matrix.DeviceID, *OAuthError) {
	var api bool
	var devices []string
	for _, token := range strings.Fields(scope) {
		switch {
		case token == scopeAPI || token == oldAPI:
			api = true
		case strings.HasPrefix(token, scopeDevice):
			devices = append(devices, token[len(scopeDevice):])
		case strings.HasPrefix(token, oldDevice):
			devices = append(devices, token[len(oldDevice):])
		}
	}
	devices = slices.Compact(devices)
	if !api || len(devices) != 1 {
		return "", &OAuthError{"invalid_scope", "The scope has to be " + scopeAPI + " and exactly one " + scopeDevice + "…"}
	}
	id := matrix.DeviceID(devices[0])
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	if id == "" || len(id) > maxScopeDevice || strings.Trim(string(id), unreserved) != "" || checkDevice(id, "") != nil {
		return "", &OAuthError{"invalid_scope", "A device's ID has only letters, digits and -._~, and does not look like a public key."}
	}
	return id, nil
}

// Authorization reads an authorization request (RFC 6749, section 4.1.1; client-server API, "Authorisation code flow").
// A request whose client or redirect URI is wrong is an *OAuthError alone; one with another fault has the visit too, with
// what is needed to tell the client.
func (a *Accounts) Authorization(ctx context.Context, q url.Values) (*Visit, error) {
	if len(q["client_id"]) != 1 || len(q["redirect_uri"]) != 1 {
		return nil, &OAuthError{"invalid_request", "One client_id and one redirect_uri are needed."}
	}
	client, err := a.OAuthClient(ctx, q.Get("client_id"))
	if err != nil {
		return nil, err
	}
	if client == nil {
		return nil, &OAuthError{"invalid_client", "This client is not registered here, or not any more."}
	}
	redirect := q.Get("redirect_uri")
	if !slices.ContainsFunc(client.Redirect, func(r string) bool { return sameRedirect(r, redirect) }) {
		return nil, &OAuthError{"invalid_request", "The redirect_uri is not one that the client has registered."}
	}
	v := &Visit{
		Purpose: ToAuthorize, Client: client, Redirect: redirect, Fragment: q.Get("response_mode") == "fragment",
		State: q.Get("state"), Challenge: q.Get("code_challenge"), Hint: strings.TrimPrefix(q.Get("login_hint"), "mxid:"),
	}
	if fault := checkAuthorization(q, client); fault != nil {
		return v, fault
	}
	device, fault := readScope(q.Get("scope"))
	if fault != nil {
		return v, fault
	}
	v.Device = device
	return v, nil
}

// maxState bounds what a client may have carried along, in bytes.
const maxState = 4096

// checkAuthorization checks all of a request but its client, redirect URI and scope.
func checkAuthorization(q url.Values, client *Client) *OAuthError {
	for _, name := range []string{
		"response_type", "response_mode", "scope", "state", "code_challenge", "code_challenge_method", "prompt", "login_hint", "request", "request_uri",
	} {
		if len(q[name]) > 1 || len(q.Get(name)) > maxState {
			return &OAuthError{"invalid_request", name + " is there twice, or too long."}
		}
	}
	challenge, err := base64.RawURLEncoding.DecodeString(q.Get("code_challenge"))
	switch mode := q.Get("response_mode"); {
	case !slices.Contains(client.Grants, GrantCode):
		return &OAuthError{"unauthorized_client", "The client is not registered for this grant."}
	case q.Get("response_type") != "code":
		return &OAuthError{"unsupported_response_type", "The only response_type is code."}
	case mode != "" && mode != "query" && mode != "fragment":
		return &OAuthError{"invalid_request", "The response_mode has to be query or fragment."}
	case q.Has("request") || q.Has("request_uri"):
		return &OAuthError{"request_not_supported", "A request has to be in its parameters."}
	case q.Get("code_challenge_method") != "S256" || err != nil || len(challenge) != sha256.Size:
		return &OAuthError{"invalid_request", "A code_challenge is needed (PKCE), with the code_challenge_method S256."}
	case slices.Contains(strings.Fields(q.Get("prompt")), "none"):
		return &OAuthError{"login_required", "Nobody stays signed in here: somebody has to be asked."}
	}
	return nil
}

// Return is where a visit's browser goes back to, with an answer for the client.
func (v *Visit) Return(answer url.Values) string {
	if v.State != "" {
		answer.Set("state", v.State)
	}
	if v.Fragment {
		return v.Redirect + "#" + answer.Encode()
	}
	if strings.Contains(v.Redirect, "?") {
		return v.Redirect + "&" + answer.Encode()
	}
	return v.Redirect + "?" + answer.Encode()
}
