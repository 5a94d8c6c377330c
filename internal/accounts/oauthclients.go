package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// OAuthError is what an OAuth client is told (RFC 6749, section 5.2, and the documents that follow it).
type OAuthError struct {
	Code string
	Text string // safe to show
}

// Error implements error.
func (e *OAuthError) Error() string { return e.Code + ": " + e.Text }

// The grants that clients may use here.
const (
	GrantCode    = "authorization_code"
	GrantRefresh = "refresh_token"
	GrantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
)

// Client is an OAuth client as it describes itself (client-server API, OAuthClientMetadata), as far as that was accepted.
type Client struct {
	ID       string
	URI      string
	Name     string // "" if it has none
	Logo     string
	Terms    string
	Policy   string
	Redirect []string
	Grants   []string
	Native   bool
	Words    map[string]string // names and addresses for people of some languages, such as "client_name#de"
}

// Host is what a client is known by: the host of its pages, on which all its addresses are.
func (c *Client) Host() string {
	u, err := url.Parse(c.URI)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// In is one of a client's names and addresses for people, in a language if there is one for it.
func (c *Client) In(language, field, plain string) string {
	if word, ok := c.Words[field+"#"+language]; ok {
		return word
	}
	for key, word := range c.Words {
		if strings.HasPrefix(key, field+"#"+language+"-") {
			return word
		}
	}
	return plain
}

// Metadata is what a client is answered that registers.
func (c *Client) Metadata() map[string]any {
	m := map[string]any{
		"client_uri": c.URI, "grant_types": c.Grants, "token_endpoint_auth_method": "none", "application_type": "web",
	}
	if c.Native {
		m["application_type"] = "native"
	}
	if slices.Contains(c.Grants, GrantCode) {
		m["response_types"] = []string{"code"}
	}
	if len(c.Redirect) > 0 {
		m["redirect_uris"] = c.Redirect
	}
	for key, value := range map[string]string{"client_name": c.Name, "logo_uri": c.Logo, "tos_uri": c.Terms, "policy_uri": c.Policy} {
		if value != "" {
			m[key] = value
		}
	}
	for key, value := range c.Words {
		m[key] = value
	}
	return m
}

// Bounds of what clients register, and of how long that is kept without a session (RFC 7591 leaves it to the server).
const (
	maxRedirects  = 16
	maxWords      = 64
	maxClientName = 128            // bytes
	maxIdle       = 10_000         // clients that never had a session
	clientUnused  = 24 * time.Hour // one that never had a session
	clientIdle    = 30 * 24 * time.Hour
)

// OAuthClient finds a client by its ID, nil if there is none.
func (a *Accounts) OAuthClient(ctx context.Context, id string) (client *Client, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		client, err = oauthClient(tx, id)
		return err
	})
	return client, err
}

func oauthClient(tx *store.Tx, id string) (*Client, error) {
	if id == "" || len(id) > maxName || !plain(id) {
		return nil, nil
	}
	row, err := tx.OAuthClient(id)
	if err != nil || row == nil {
		return nil, err
	}
	c := &Client{}
	if err := json.Unmarshal([]byte(row.Metadata), c); err != nil {
		return nil, err
	}
	c.ID = row.ID
	return c, nil
}

// RegisterClient registers a client that describes itself (*OAuthError if it may not be one). The same words are the same
// client; fields that this server does not know are left out, as RFC 7591 has it.
func (a *Accounts) RegisterClient(ctx context.Context, raw []byte) (*Client, error) {
	c, err := readClient(raw)
	if err != nil {
		return nil, err
	}
	kept, err := json.Marshal(c) // its maps are sorted: the same client has the same words
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(append([]byte("oauth client\x00"), kept...))
	c.ID = base64.RawURLEncoding.EncodeToString(hash[:16])
	now := a.now()
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.PruneOAuthClients(now.Add(-clientUnused).UnixMilli(), now.Add(-clientIdle).UnixMilli(), maxIdle); err != nil {
			return err
		}
		return tx.PutOAuthClient(store.OAuthClient{ID: c.ID, Metadata: string(kept), Created: now.UnixMilli()})
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func errMetadata(text string) *OAuthError { return &OAuthError{"invalid_client_metadata", text} }

// readClient checks what a client says of itself.
func readClient(raw []byte) (*Client, error) {
	var m struct {
		URI        string   `json:"client_uri"`
		Name       string   `json:"client_name"`
		Logo       string   `json:"logo_uri"`
		Terms      string   `json:"tos_uri"`
		Policy     string   `json:"policy_uri"`
		Redirect   []string `json:"redirect_uris"`
		Grants     []string `json:"grant_types"`
		Responses  []string `json:"response_types"`
		AuthMethod string   `json:"token_endpoint_auth_method"`
		Type       string   `json:"application_type"`
	}
	var all map[string]any
	if matrix.Decode(raw, &m) != nil || json.Unmarshal(raw, &all) != nil {
		return nil, errMetadata("The metadata has to be a JSON object, with fields of the types that RFC 7591 says.")
	}
	host, ok := clientHost(m.URI)
	if !ok {
		return nil, errMetadata("client_uri has to be the https address of a page about the client, without name and password, on a host of its own.")
	}
	if m.AuthMethod != "" && m.AuthMethod != "none" {
		return nil, errMetadata("Only public clients are known here: token_endpoint_auth_method has to be none.")
	}
	if m.Type != "" && m.Type != "web" && m.Type != "native" {
		return nil, errMetadata("application_type has to be web or native.")
	}
	c := &Client{
		URI: m.URI, Name: m.Name, Logo: m.Logo, Terms: m.Terms, Policy: m.Policy, Redirect: m.Redirect,
		Native: m.Type == "native", Grants: knownGrants(m.Grants), Words: localized(all),
	}
	if err := c.checkWords(host); err != nil {
		return nil, err
	}
	return c, c.checkUse(host, m.Responses)
}

// knownGrants are those of a client's grants that this server knows. Renewing is part of them all.
func knownGrants(asked []string) []string {
	if asked == nil {
		asked = []string{GrantCode}
	}
	var known []string
	for _, g := range []string{GrantCode, GrantDevice} {
		if slices.Contains(asked, g) {
			known = append(known, g)
		}
	}
	return append(known, GrantRefresh)
}

// localized are the fields for people of some languages.
func localized(all map[string]any) map[string]string {
	words := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		field, language, _ := strings.Cut(key, "#")
		text, isText := all[key].(string)
		known := slices.Contains([]string{"client_name", "tos_uri", "policy_uri", "logo_uri"}, field)
		if isText && known && language != "" && len(language) <= 35 && len(words) < maxWords {
			words[key] = text
		}
	}
	return words
}

// checkWords checks what people are shown of a client.
func (c *Client) checkWords(host string) error {
	check := func(field, text string) error {
		if strings.HasPrefix(field, "client_name") {
			if len(text) > maxClientName || !plain(text) || invisible(text) {
				return errMetadata("A client's name has at most 128 bytes, and no control characters.")
			}
			return nil
		}
		if text != "" && !below(text, host) {
			return errMetadata(field + " has to be an https address on the host of client_uri, or below it.")
		}
		return nil
	}
	for field, text := range map[string]string{"client_name": c.Name, "logo_uri": c.Logo, "tos_uri": c.Terms, "policy_uri": c.Policy} {
		if err := check(field, text); err != nil {
			return err
		}
	}
	for key, text := range c.Words {
		if !plain(key) {
			return errMetadata("A field's language is not one.")
		}
		if err := check(key, text); err != nil {
			return err
		}
	}
	return nil
}

// invisible reports whether a text has characters that change how the text around them reads.
func invisible(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return r >= 0x200B && r <= 0x200F || r >= 0x2028 && r <= 0x202E || r >= 0x2060 && r <= 0x206F || r == 0xFEFF || r == 0x061C
	})
}

// checkUse checks how a client wants to get its sessions.
func (c *Client) checkUse(host string, responses []string) error {
	if len(c.Redirect) > maxRedirects {
		return &OAuthError{"invalid_redirect_uri", "A client has at most 16 redirect URIs."}
	}
	for _, uri := range c.Redirect {
		if !validRedirect(uri, host, c.Native) {
			return &OAuthError{"invalid_redirect_uri", "A redirect URI is not one that a client of this client_uri and application_type may have."}
		}
	}
	if !slices.Contains(c.Grants, GrantCode) {
		if !slices.Contains(c.Grants, GrantDevice) {
			return errMetadata("None of the grant_types opens a session here.")
		}
		return nil
	}
	if len(c.Redirect) == 0 {
		return &OAuthError{"invalid_redirect_uri", "A redirect URI is needed for the authorization_code grant."}
	}
	if responses != nil && !slices.Contains(responses, "code") {
		return errMetadata("response_types has to have code for the authorization_code grant.")
	}
	return nil
}
