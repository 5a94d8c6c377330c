package accounts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of single sign-on.
const (
	ssoTime   = 15 * time.Minute // somebody may have to find their phone at the provider
	ssoPrefix = "cco_"
	maxTarget = 2000 // bytes of the address that a client wants the login token at
	maxClaim  = 1000 // bytes of what the provider says of somebody

	// ssoTokenTime is how long a client has to log in with the token that its address gets. The specification says about five
	// seconds; a phone may have to open the app first.
	ssoTokenTime = 10 * time.Second
)

// SSOCallback is the path, below the server's public URL, at which the provider sends people back.
const SSOCallback = "/_matrix/client/unstable/im.conclave.sso/callback"

// provider is the organization's OpenID Connect provider. It is discovered when the first person needs it, so that this
// server starts without it.
type provider struct {
	conf     config.OIDC
	client   *http.Client
	callback string

	asking singleflight.Group // discovers it once for all who wait

	mu      sync.Mutex // held for no longer than it takes to look
	found   *oidc.Provider
	failure error
	retry   time.Time // until then failure is the answer
}

// newProvider is nil where single sign-on is not set up.
func newProvider(conf *config.Config, client *http.Client) *provider {
	if conf.OIDC.Issuer == "" {
		return nil
	}
	return &provider{conf: conf.OIDC, client: client, callback: conf.PublicURL + SSOCallback}
}

// HasSSO says whether people can sign in through their organization's provider.
func (a *Accounts) HasSSO() bool { return a.provider != nil }

// discoverRetry is how long the provider is left alone that could not be discovered: while it is away nobody waits for it
// whom somebody has waited for just now.
const discoverRetry = 5 * time.Second

// discover reads what the provider says of itself, once. All who need it at the same time wait for one request, each for no
// longer than ctx lasts; it ends by the client's own time, whoever has gone meanwhile.
func (p *provider) discover(ctx context.Context) (*oidc.Provider, error) {
	if found, err := p.discovered(); found != nil || err != nil {
		return found, err
	}
	answer := p.asking.DoChan("", func() (any, error) {
		if found, err := p.discovered(); found != nil || err != nil { // by the one before
			return found, err
		}
		// The library keeps the context to fetch keys with later on; each fetch ends by the client's own time.
		found, err := oidc.NewProvider(context.WithoutCancel(p.context(ctx)), p.conf.Issuer)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.failure, p.retry = err, time.Now().Add(discoverRetry)
			return nil, errProvider().With(err)
		}
		p.found = found
		return found, nil
	})
	select {
	case r := <-answer:
		found, _ := r.Val.(*oidc.Provider)
		return found, r.Err
	case <-ctx.Done():
		return nil, errProvider().With(ctx.Err())
	}
}

// discovered is what is known of the provider: nothing yet, what it says, or that it could not be reached just now.
func (p *provider) discovered() (*oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil && time.Now().Before(p.retry) {
		return nil, errProvider().With(p.failure)
	}
	return p.found, nil
}

func (p *provider) context(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.client)
}

func errProvider() *matrix.Error {
	return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "Your organization's sign-in cannot be reached, or its answer was not understood. Try again later.")
}

func (p *provider) oauth(found *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.conf.ClientID, ClientSecret: p.conf.ClientSecret.Reveal(), Endpoint: found.Endpoint(), RedirectURL: p.callback,
		Scopes: strings.Fields(p.conf.Scopes),
	}
}

// BeginSSO sends somebody to the provider. Target is where their client wants the login token. location is where to go,
// browser what the browser has to keep and show again at FinishSSO, so that nobody can be signed in as somebody else
// (threats A13): what proves to the provider that the same browser came back is derived from it and kept nowhere else.
func (a *Accounts) BeginSSO(ctx context.Context, target string) (location, browser string, err error) {
	if err := checkTarget(target); err != nil {
		return "", "", err
	}
	return a.leave(ctx, store.SSORequest{Target: target})
}

// BeginSSOHere is BeginSSO for somebody who visits one of our pages and goes on there. The provider is to ask them anew
// where that is wanted.
func (a *Accounts) BeginSSOHere(ctx context.Context, anew bool) (location, browser string, err error) {
	if anew {
		return a.leave(ctx, store.SSORequest{}, askAnew()...)
	}
	return a.leave(ctx, store.SSORequest{})
}

// leave sends a browser to the provider for a request (BeginSSO), with parameters of its own if need be.
func (a *Accounts) leave(ctx context.Context, row store.SSORequest, more ...oauth2.AuthCodeOption) (location, browser string, err error) {
	if a.provider == nil {
		return "", "", matrix.NotFound("This server has no single sign-on.")
	}
	found, err := a.provider.discover(ctx)
	if err != nil {
		return "", "", err
	}
	state, stateHash := newToken(ssoPrefix)
	browser, browserHash := newToken(ssoPrefix)
	now := a.now()
	row.State, row.Browser, row.Expires = stateHash[:], browserHash[:], now.Add(ssoTime).UnixMilli()
	if err := a.db.Write(ctx, func(tx *store.Tx) error { return tx.AddSSORequest(row, now.UnixMilli()) }); err != nil {
		return "", "", err
	}
	more = append(more, oidc.Nonce(derived(browser, "nonce")), oauth2.S256ChallengeOption(derived(browser, "pkce")))
	return a.provider.oauth(found).AuthCodeURL(state, more...), browser, nil
}

// derived is a secret that follows from another, for one use.
func derived(secret, use string) string {
	hash := sha256.Sum256([]byte(use + "\x00" + secret))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// oddInHost are characters that an address may have in its host and no host has. In the policy of a page they would begin another
// directive (clientapi.formTarget).
const oddInHost = "!$&'()*+,;=<>\""

// checkTarget refuses addresses that a browser must not be sent to with a login token: those that run as a script or are
// no address at all.
func checkTarget(target string) error {
	u, err := url.Parse(target)
	if err != nil || len(target) > maxTarget || u.Scheme == "" || u.User != nil || !plain(target) ||
		slices.Contains([]string{"javascript", "data", "vbscript", "blob", "file", "about", "filesystem", "view-source"}, strings.ToLower(u.Scheme)) ||
		(u.Scheme == "http" || u.Scheme == "https") && (u.Hostname() == "" || u.Opaque != "" || strings.ContainsAny(u.Host, oddInHost)) {
		return matrix.InvalidParam("redirectUrl must be the address of the client.")
	}
	return nil
}

// SSOReturn is why somebody was sent to the provider who is back: one of the two.
type SSOReturn struct {
	SignIn *SigningIn // they sign in, which may need a second factor
	Stage  *Fallback  // they have passed the stage of a confirmation

	NotAnew error // why a sign-in is none for looking after the account, nil if the provider has asked them just now
}

// FinishSSO takes back somebody whom the provider has sent with a code, or without one because of a failure there. What
// they were sent for (BeginSSO, BeginSSOStage) is what the server has noted under the state, not what comes back.
func (a *Accounts) FinishSSO(ctx context.Context, browser, state, code, failure string) (*SSOReturn, error) {
	if a.provider == nil {
		return nil, matrix.NotFound("This server has no single sign-on.")
	}
	stateHash, browserHash := sha256.Sum256([]byte(state)), sha256.Sum256([]byte(browser))
	var row *store.SSORequest
	err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.TakeSSORequest(stateHash[:])
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case row == nil || row.Expires < a.now().UnixMilli() || subtle.ConstantTimeCompare(row.Browser, browserHash[:]) != 1:
		return nil, errSignIn()
	case failure != "" || code == "":
		return nil, matrix.Forbidden("Your organization's sign-in has not let you through.").With(&Refusal{Why: "not_let_through"})
	}
	who, err := a.identified(ctx, browser, code)
	if err != nil {
		return nil, err
	}
	if row.Stage != "" {
		passed, err := a.finishSSOStage(ctx, row, who)
		return &SSOReturn{Stage: passed}, err
	}
	account, err := a.external(ctx, who, a.provider.conf.Register)
	if err != nil {
		return nil, err
	}
	purpose := forTarget
	if row.Target == "" {
		purpose = forSession
	}
	p, notAnew := Proof{Shown: []Evidence{BySSO}}, askedSince(row, who)
	if notAnew == nil {
		p.Shown = append(p.Shown, BySSOAnew)
	}
	s, err := a.signInFor(ctx, account, p, purpose, row.Target)
	return &SSOReturn{SignIn: s, NotAnew: notAnew}, err
}

// identity is whom the provider has let through.
type identity struct {
	issuer, subject string
	username, name  string
	mail            string    // an address that is known to be theirs, "" for none
	admin           bool      // they are to be an administrator
	shown           time.Time // when they last signed in there, zero if the provider does not say
}

// identified asks the provider who came back with a code.
func (a *Accounts) identified(ctx context.Context, browser, code string) (identity, error) {
	found, err := a.provider.discover(ctx)
	if err != nil {
		return identity{}, err
	}
	tokens, err := a.provider.oauth(found).Exchange(a.provider.context(ctx), code, oauth2.VerifierOption(derived(browser, "pkce")))
	if err != nil {
		return identity{}, errProvider().With(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	checked := found.VerifierContext(a.provider.context(ctx), &oidc.Config{ClientID: a.provider.conf.ClientID, Now: a.now})
	id, err := checked.Verify(ctx, raw)
	if err != nil {
		return identity{}, errProvider().With(err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(derived(browser, "nonce"))) != 1 {
		return identity{}, errProvider().With(errors.New("the nonce is another's"))
	}
	claims, err := a.claims(ctx, found, id, tokens)
	if err == nil {
		err = checkParty(id.Audience, claims.text("azp"), a.provider.conf.ClientID)
	}
	if err != nil {
		return identity{}, errProvider().With(err)
	}
	who := identity{
		issuer: id.Issuer, subject: id.Subject, username: claims.text(a.provider.conf.UsernameClaim), name: claims.text("name"), shown: shownAt(id),
	}
	if who.subject == "" || len(who.subject) > maxClaim || !plain(who.subject) {
		return identity{}, errProvider().With(errors.New("the ID token names nobody"))
	}
	return who, nil
}

// checkParty refuses an ID token that was issued to another client of the provider, though we may be among those whom it is
// for (OpenID Connect Core, section 3.1.3.7).
func checkParty(audience []string, azp, client string) error {
	if azp == "" && len(audience) > 1 || azp != "" && azp != client {
		return errors.New("the ID token was issued to another client")
	}
	return nil
}

// claims are what the provider says of somebody.
type claims map[string]any

func (c claims) text(name string) string {
	s, _ := c[name].(string)
	if len(s) > maxClaim {
		return ""
	}
	return s
}

// claims reads them from the ID token, or where that says little from the provider's userinfo.
func (a *Accounts) claims(ctx context.Context, found *oidc.Provider, id *oidc.IDToken, tokens *oauth2.Token) (c claims, err error) {
	if err := id.Claims(&c); err != nil || c.text(a.provider.conf.UsernameClaim) != "" {
		return c, err
	}
	info, err := found.UserInfo(a.provider.context(ctx), oauth2.StaticTokenSource(tokens))
	if err != nil {
		return nil, err
	}
	if info.Subject != id.Subject { // whoever could exchange answers must not exchange people
		return nil, errors.New("userinfo is of somebody else")
	}
	return c, info.Claims(&c)
}

// external finds the account of somebody whom the provider or directory has let through, or makes it where that is wanted.
// An account that was here before under the same name is not theirs for that: names are the provider's to give away, and
// the account somebody's already.
func (a *Accounts) external(ctx context.Context, who identity, create bool) (*store.Account, error) {
	for range 2 { // another request may make it at the same time
		var user store.UserNID
		err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
			user, err = tx.ExternalUser(who.issuer, who.subject)
			return err
		})
		if err != nil {
			return nil, err
		}
		if user != 0 {
			return a.accountOf(ctx, user)
		}
		if err := a.registerExternal(ctx, who, create); err != nil {
			return nil, err
		}
	}
	return nil, errSignIn()
}

func (a *Accounts) registerExternal(ctx context.Context, who identity, create bool) error {
	if !create {
		return matrix.Forbidden("You have no account here. Ask an administrator for one.").With(&Refusal{Why: "no_account"})
	}
	name := mappedLocalpart(who.username)
	if name == "" {
		return errProvider().With(errors.New("there is no user name in what your organization says of you"))
	}
	// Many providers let people choose their names: by theirs nobody is the server, or an application service's user.
	if name == a.config.ServerNotices.Localpart || a.exclusive(a.userID(name)) {
		return matrix.Forbidden("The name %s is reserved here. Ask an administrator for an account.", name)
	}
	_, err := a.Register(ctx, Registration{Username: name, DisplayName: who.name, NoLogin: true, Admin: who.admin, External: &who})
	var taken *matrix.Error
	if errors.As(err, &taken) && taken.Code == "M_USER_IN_USE" {
		var user store.UserNID
		err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
			user, err = tx.ExternalUser(who.issuer, who.subject)
			return err
		})
		if err == nil && user == 0 {
			err = matrix.Forbidden("The name %s is taken here by an account that was not made by your organization's sign-in. Ask an administrator.", name).With(&Refusal{Why: "name_taken", What: name})
		}
	}
	return err
}

// mappedLocalpart makes a localpart of somebody's name elsewhere (appendices, "Mapping from other character sets"). What
// comes after an @ is where the name is from, and says nothing here.
func mappedLocalpart(name string) string {
	name, _, _ = strings.Cut(name, "@")
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		case c == '=' || !matrix.ValidLocalpart(string(rune(c))) || c >= 0x80:
			const digits = "0123456789abcdef"
			b.Write([]byte{'=', digits[c>>4], digits[c&15]})
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TokenSignIn ends a sign-in that came from the provider, if nothing is missing (M_FORBIDDEN): a login token, and where the
// client wants it.
func (a *Accounts) TokenSignIn(ctx context.Context, secret string) (token, target string, err error) {
	row, account, err := a.continued(ctx, secret)
	if err != nil {
		return "", "", err
	}
	needs, err := a.needs(ctx, account, proofOf(row.Shown))
	if err == nil && (row.Purpose != forTarget || len(needs) > 0) {
		err = errSignIn()
	}
	if err != nil {
		return "", "", err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		taken, err := tx.TakeSignIn(row.Hash)
		if err == nil && taken == nil {
			err = errSignIn()
		}
		if err != nil {
			return err
		}
		token, err = a.addLoginToken(tx, taken)
		return err
	})
	if err != nil {
		return "", "", err
	}
	return token, row.Target, nil
}

// addLoginToken makes a token for one login of a client, of what somebody has shown who has signed in for it.
func (a *Accounts) addLoginToken(tx *store.Tx, by *store.SignIn) (string, error) {
	token, hash := newToken(loginPrefix)
	now := a.now()
	next := store.SignIn{Hash: hash[:], User: by.User, Purpose: forLoginToken, Shown: by.Shown, Expires: now.Add(ssoTokenTime).UnixMilli()}
	return token, tx.AddSignIn(next, now.UnixMilli())
}

// SSOVisit is a visit in which somebody signs in on our own page for a client at target, as the organization's provider
// would have them do on its own (client-server API, "OAuth 2.0 aware clients"). action is what they want to do, as the
// client believes.
func SSOVisit(target, action string) (*Visit, error) {
	if err := checkTarget(target); err != nil {
		return nil, err
	}
	if action != "" && action != "login" && action != "register" {
		return nil, matrix.InvalidParam("action is login or register.")
	}
	return &Visit{Purpose: ToSSO, Redirect: target, Action: action}, nil
}

// SignInTarget is where a sign-in that came from the provider goes to: the client's address.
func (a *Accounts) SignInTarget(ctx context.Context, secret string) (target string, user matrix.UserID, needs []Evidence, err error) {
	row, account, err := a.continued(ctx, secret)
	if err != nil {
		return "", "", nil, err
	}
	needs, err = a.needs(ctx, account, proofOf(row.Shown))
	return row.Target, account.ID, needs, err
}
