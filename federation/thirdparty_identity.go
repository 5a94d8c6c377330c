package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/rooms"
)

// Bounds of what is asked of identity services, which are strangers: any user of ours can name one.
const (
	identityTime  = 15 * time.Second
	identityBytes = 64 << 10
	identityText  = 255 // of names and peppers
	identityURL   = 2048
	identityKeys  = 10
)

// IdentityServicesOptions are what IdentityServices need from the process that they live in.
type IdentityServicesOptions struct {
	Identity  *Identity // whose key signs what is asked in the server's own name
	Dialer    *netguard.Dialer
	Roots     *x509.CertPool // the system's if nil
	Policy    *Policy        // which services may be asked; everybody if nil
	UserAgent string
}

// IdentityServices asks identity services (Identity Service API, v2) in the name of our users, with the tokens that these
// got there. It is safe for concurrent use.
type IdentityServices struct {
	own    *Identity
	http   *http.Client
	policy *Policy
	agent  string
}

var _ rooms.IdentityServices = (*IdentityServices)(nil)

// NewIdentityServices makes IdentityServices. Redirects are not followed: they would take a user's token elsewhere.
func NewIdentityServices(o IdentityServicesOptions) *IdentityServices {
	client := o.Dialer.HTTPClient(netguard.HTTPOptions{
		TLS: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}, Total: identityTime, PerHost: 8,
	})
	return &IdentityServices{own: o.Identity, http: client, policy: o.Policy, agent: o.UserAgent}
}

// identityError is a refusal by an identity service.
type identityError struct {
	status int
	code   string
}

func (e *identityError) Error() string {
	return fmt.Sprintf("the identity server answered with status %d %s", e.status, safeCode(e.code))
}

// errStrange is the cause when an identity service answers what makes no sense.
var errStrange = errors.New("the identity server's answer makes no sense")

// Lookup implements rooms.IdentityServices. The address goes there hashed if the service understands that; a service
// that says it does not gains little by a lie: it is told the address if it answers that it is bound to nobody.
func (s *IdentityServices) Lookup(ctx context.Context, by rooms.IdentityService, a rooms.Address) (matrix.UserID, error) {
	user, err := s.lookup(ctx, by, a)
	var refused *identityError
	if errors.As(err, &refused) && refused.code == "M_INVALID_PEPPER" { // changed between the two questions
		user, err = s.lookup(ctx, by, a)
	}
	return user, identityForClient(by.Server, err)
}

func (s *IdentityServices) lookup(ctx context.Context, by rooms.IdentityService, a rooms.Address) (matrix.UserID, error) {
	var details struct {
		Pepper     string   `json:"lookup_pepper"`
		Algorithms []string `json:"algorithms"`
	}
	if err := s.ask(ctx, by, http.MethodGet, "/hash_details", nil, &details); err != nil {
		return "", err
	}
	if len(details.Pepper) > identityText {
		return "", fmt.Errorf("%w: its pepper has %d bytes", errStrange, len(details.Pepper))
	}
	text := a.Text + " " + a.Medium
	algorithm := "none"
	switch {
	case slices.Contains(details.Algorithms, "sha256"):
		algorithm = "sha256"
		sum := sha256.Sum256([]byte(text + " " + details.Pepper))
		text = matrix.EncodeURLBase64(sum[:])
	case !slices.Contains(details.Algorithms, algorithm):
		return "", fmt.Errorf("%w: no algorithm that is known here", errStrange)
	}
	var found struct {
		Mappings map[string]string `json:"mappings"`
	}
	question := map[string]any{"algorithm": algorithm, "pepper": details.Pepper, "addresses": []string{text}}
	if err := s.ask(ctx, by, http.MethodPost, "/lookup", question, &found); err != nil {
		return "", err
	}
	user, bound := found.Mappings[text] // of what was asked, whatever else it tells
	if !bound {
		return "", nil
	}
	id, err := matrix.ParseUserID(user)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errStrange, err)
	}
	return id, nil
}

// StoreInvite implements rooms.IdentityServices.
func (s *IdentityServices) StoreInvite(ctx context.Context, by rooms.IdentityService, q rooms.StoredInvite) (*rooms.Offer, error) {
	body := map[string]any{"medium": q.Address.Medium, "address": q.Address.Text, "room_id": q.Room, "sender": q.Sender}
	for name, value := range map[string]string{
		"sender_display_name": q.SenderName, "sender_avatar_url": q.SenderAvatar, "room_name": q.RoomName, "room_alias": q.RoomAlias,
		"room_avatar_url": q.RoomAvatar, "room_join_rules": q.RoomJoinRule, "room_type": q.RoomType,
	} {
		if value != "" {
			body[name] = value
		}
	}
	var answer struct {
		Token       string             `json:"token"`
		DisplayName string             `json:"display_name"`
		Keys        []rooms.OfferedKey `json:"public_keys"`
	}
	err := s.ask(ctx, by, http.MethodPost, "/store-invite", body, &answer)
	offer := &rooms.Offer{Token: answer.Token, DisplayName: answer.DisplayName, Keys: answer.Keys}
	if err == nil {
		err = s.checkOffer(offer, q.Address)
	}
	if err != nil {
		return nil, identityForClient(by.Server, err)
	}
	return offer, nil
}

// checkOffer refuses what must not get into a room.
func (s *IdentityServices) checkOffer(o *rooms.Offer, a rooms.Address) error {
	folded, err := rooms.ParseAddress(a.Medium, o.DisplayName)
	switch {
	case !rooms.ValidToken(o.Token):
		return fmt.Errorf("%w: its token is malformed", errStrange)
	case len(o.DisplayName) > identityText:
		return fmt.Errorf("%w: its name for the address has %d bytes", errStrange, len(o.DisplayName))
	case strings.Contains(strings.ToLower(o.DisplayName), strings.ToLower(a.Text)), err == nil && folded == a:
		return fmt.Errorf("%w: its name for the address is the address", errStrange)
	case len(o.Keys) == 0 || len(o.Keys) > identityKeys:
		return fmt.Errorf("%w: %d keys", errStrange, len(o.Keys))
	}
	for _, k := range o.Keys {
		if err := checkOfferedKey(k.Key); err != nil {
			return fmt.Errorf("%w: a key: %w", errStrange, err)
		}
		if _, err := s.validityURL(k.ValidityURL); err != nil {
			return fmt.Errorf("%w: where its key is looked up: %w", errStrange, err)
		}
	}
	return nil
}

func checkOfferedKey(text string) error {
	decode := matrix.DecodeBase64
	if strings.ContainsAny(text, "-_") {
		decode = matrix.DecodeURLBase64
	}
	key, err := decode(text)
	if err != nil {
		return err
	}
	return matrix.CheckPublicKey(ed25519.PublicKey(key))
}

// validityURL reads where a key's validity is asked for.
func (s *IdentityServices) validityURL(text string) (*url.URL, error) {
	if len(text) > identityURL {
		return nil, errors.New("the address is too long")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("it is not an https address")
	}
	name, err := matrix.ParseServerName(u.Host)
	if err != nil {
		return nil, err
	}
	if !s.policy.Allowed(name) {
		return nil, ErrNotAllowed
	}
	return u, nil
}

// KeyValid implements rooms.IdentityServices. Where nobody may be asked, the key counts as bad.
func (s *IdentityServices) KeyValid(ctx context.Context, at, key string) (bool, error) {
	u, err := s.validityURL(at)
	if err != nil {
		return false, nil
	}
	query := u.Query()
	query.Set("public_key", key) // as it is written, for it may be in either alphabet of base64
	u.RawQuery = query.Encode()
	var answer struct {
		Valid bool `json:"valid"`
	}
	err = s.do(ctx, http.MethodGet, u.String(), "", nil, &answer)
	var refused *identityError
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusNotFound, errors.Is(err, netguard.ErrDenied):
		return false, nil
	case err != nil:
		return false, err
	}
	return answer.Valid, nil
}

// ask makes a request of version 2 of the API with a user's token.
func (s *IdentityServices) ask(ctx context.Context, by rooms.IdentityService, method, path string, body, answer any) error {
	if !s.policy.Allowed(by.Server) {
		return ErrNotAllowed
	}
	return s.do(ctx, method, "https://"+string(by.Server)+identityV2+path, "Bearer "+by.Token, body, answer)
}

// identityV2 is where version 2 of the API begins.
const identityV2 = "/_matrix/identity/v2"

func (s *IdentityServices) do(ctx context.Context, method, at, authorization string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", s.agent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := netguard.ReadAll(res, identityBytes)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		code := ""
		if matrix.CheckObject(data) == nil {
			code, _ = matrix.GetString(data, "errcode")
		}
		return &identityError{res.StatusCode, code}
	}
	if err := matrix.CheckObject(data); err != nil {
		return fmt.Errorf("%w: %w", errStrange, err)
	}
	if err := matrix.Decode(data, answer); err != nil {
		return fmt.Errorf("%w: %w", errStrange, err)
	}
	return nil
}

// withoutURL is what went wrong with a request, without its address: a user of ours wrote that.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// identityForClient turns what went wrong into what a client is told. A token that the service does not take is not one
// of ours: the client must not think that it is logged out here.
func identityForClient(server matrix.ServerName, err error) error {
	var refused *identityError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, ErrNotAllowed):
		return matrix.Errorf(http.StatusForbidden, "M_SERVER_NOT_TRUSTED", "This server does not ask the identity server %s.", server).With(err)
	case errors.As(err, &refused):
		switch {
		case refused.code == "M_TERMS_NOT_SIGNED":
			return matrix.Errorf(http.StatusForbidden, refused.code, "The identity server %s wants its terms agreed to first.", server).With(err)
		case refused.code == "M_THREEPID_IN_USE":
			return matrix.Errorf(http.StatusBadRequest, refused.code, "The address has been bound meanwhile; invite again.").With(err)
		case refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden:
			return matrix.Forbidden("The identity server %s does not take the token.", server).With(err)
		case refused.status == http.StatusBadRequest:
			return matrix.InvalidParam("The identity server %s does not take the address.", server).With(err)
		case refused.status == http.StatusTooManyRequests:
			return matrix.LimitExceeded(time.Minute.Milliseconds()).With(err)
		}
	}
	return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The identity server %s cannot be reached or does not answer as it should.", server).With(err)
}
