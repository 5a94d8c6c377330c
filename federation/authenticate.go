package federation

import (
	"context"
	"errors"
	"net/http"
	"time"

	"conclave/internal/matrix"
)

// maxAuthorizations is how many X-Matrix headers one request may bear, one per key of its origin.
const maxAuthorizations = 4

// Authenticator says which server a request comes from.
type Authenticator struct {
	own     *Identity
	keyring *Keyring
	policy  *Policy
	now     func() time.Time

	anyDestination bool // a request need not say whom it is for
}

// NewAuthenticator makes the Authenticator of a server.
func NewAuthenticator(o ServerOptions) *Authenticator {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Authenticator{o.Identity, o.Keyring, o.Policy, o.Clock, o.AnyDestination}
}

// Authenticate checks a request's X-Matrix signatures and returns the server that made it. body is what was sent, nil
// if nothing was. A request with a destination that is not our name is refused, and so is one without, unless the
// configuration lets it in: it may have been made for somebody else (threats F25). Signatures by unknown or expired keys are passed over, one must hold, and one
// that is wrong spoils all. Errors are for the client.
func (a *Authenticator) Authenticate(ctx context.Context, r *http.Request, body []byte) (matrix.ServerName, error) {
	credentials, err := a.credentials(r)
	if err != nil {
		return "", err
	}
	first := credentials[0]
	if !a.policy.Allowed(first.Origin) {
		return "", matrix.Forbidden("This server does not federate with %s.", first.Origin)
	}
	destination := first.Destination
	if destination == "" {
		destination = a.own.Name() // it is signed all the same, the header alone came later
	}
	message, err := signedRequest(r.Method, r.RequestURI, first.Origin, destination, body)
	if err != nil {
		return "", matrix.NotJSON("The body is not JSON.").With(err)
	}
	ok := false
	var skipped error
	now := a.now().UnixMilli()
	for _, c := range credentials {
		err := a.keyring.Verify(ctx, c.Origin, c.Key, now, true, message, c.Signature)
		switch {
		case err == nil:
			ok = true
		case errors.Is(err, ErrUnknownKey), errors.Is(err, ErrExpiredKey):
			skipped = err
		case errors.Is(err, ErrBadSignature):
			return "", matrix.Unauthorized("The signature of the request is wrong.").With(err)
		default:
			return "", err
		}
	}
	if !ok {
		return "", matrix.Unauthorized("None of the keys that signed the request is known to be valid now.").With(skipped)
	}
	return first.Origin, nil
}

// credentials are those of all X-Matrix headers, which must agree about who speaks to whom.
func (a *Authenticator) credentials(r *http.Request) ([]Credentials, error) {
	var all []Credentials
	for _, header := range r.Header.Values("Authorization") {
		if !IsXMatrix(header) {
			continue
		}
		if len(all) == maxAuthorizations {
			return nil, matrix.Unauthorized("The request has too many Authorization headers.")
		}
		c, err := ParseXMatrix(header)
		if err != nil {
			return nil, matrix.Unauthorized("The Authorization header cannot be read: %v.", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, matrix.Unauthorized("The request is not signed with X-Matrix.")
	}
	first := all[0]
	for _, c := range all {
		if c.Origin != first.Origin || c.Destination != first.Destination {
			return nil, matrix.Unauthorized("The Authorization headers contradict each other.")
		}
	}
	if first.Destination == "" && !a.anyDestination {
		return nil, matrix.Unauthorized("The Authorization header names no destination.")
	}
	if first.Destination != "" && !a.own.IsOurs(first.Destination) {
		return nil, matrix.Unauthorized("The request is for another server.")
	}
	if a.own.IsOurs(first.Origin) {
		return nil, matrix.Unauthorized("The request claims to come from this server itself.")
	}
	return all, nil
}
