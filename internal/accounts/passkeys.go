package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of passkeys.
const (
	maxPasskeys    = 20
	maxPasskeyName = 100      // bytes
	maxCredential  = 32 << 10 // bytes of what an authenticator answers
	ceremonyTime   = 5 * time.Minute
	passkeyID      = 16 // letters
)

// What a challenge is for. The answer to one is none to another.
const (
	forRegistration = "add"     // by a session, of its own device
	forFactor       = "factor"  // of one user
	forSignIn       = "sign-in" // of nobody yet
)

// Passkey is one of a user's passkeys, as its owner sees it.
type Passkey struct {
	ID      string
	Name    string
	Created int64 // ms
	Used    int64 // ms, 0: never
}

// relyingParty is this server as browsers and authenticators know it: the host of public_url, and its origin alone. It is
// nil where that is no host name, which passkeys need: there are none then.
func relyingParty(conf *config.Config) *webauthn.WebAuthn {
	u, err := url.Parse(conf.PublicURL)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	limit := webauthn.TimeoutConfig{Timeout: ceremonyTime, TimeoutUVD: ceremonyTime} // the rows of challenges enforce it
	w, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: conf.ServerName, RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: limit, Registration: limit},
		// Nothing here depends on what extensions put out, and some password managers answer what nobody asked.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil
	}
	return w
}

// HasPasskeys reports whether people can have passkeys here.
func (a *Accounts) HasPasskeys() bool { return a.relying != nil }

func errNoPasskeys() error {
	return matrix.Errorf(400, "M_UNRECOGNIZED", "This server has no passkeys: they need a host name in public_url, not an address.")
}

func errChallenge() error {
	return matrix.Forbidden("This took too long, or was answered already. Begin again.")
}

// keyOwner is a user as the library wants to see one.
type keyOwner struct {
	handle []byte
	id     matrix.UserID
	keys   []webauthn.Credential
}

// WebAuthnID is the user's handle: it tells nothing, as an authenticator may show it to whoever holds it.
func (o *keyOwner) WebAuthnID() []byte { return o.handle }

// WebAuthnName is what the authenticator calls the account.
func (o *keyOwner) WebAuthnName() string { return string(o.id) }

// WebAuthnDisplayName is the same for people.
func (o *keyOwner) WebAuthnDisplayName() string { return o.id.Localpart() }

// WebAuthnCredentials are the user's passkeys.
func (o *keyOwner) WebAuthnCredentials() []webauthn.Credential { return o.keys }

// handles makes the handle of a user. It must be called outside transactions.
func (a *Accounts) handles(ctx context.Context) (func(matrix.UserID) []byte, error) {
	secret, err := a.db.Secret(ctx, "passkey handles")
	if err != nil {
		return nil, err
	}
	return func(id matrix.UserID) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id))
		return mac.Sum(nil)
	}, nil
}

// credential is a stored passkey as the library wants to see it.
func credential(p store.Passkey) (c webauthn.Credential, err error) {
	if err := json.Unmarshal([]byte(p.Record), &c); err != nil {
		return c, fmt.Errorf("reading a passkey: %w", err)
	}
	c.ID, c.Authenticator.SignCount = p.Credential, uint32(p.SignCount)
	return c, nil
}

// owner reads a user with its passkeys.
func owner(tx *store.Tx, account *store.Account, handle []byte) (*keyOwner, error) {
	o := &keyOwner{handle: handle, id: account.ID}
	var failed error
	err := tx.Passkeys(account.User, func(p store.Passkey) {
		c, err := credential(p)
		if err != nil {
			failed = err
		}
		o.keys = append(o.keys, c)
	})
	if err == nil {
		err = failed
	}
	return o, err
}

// keepChallenge stores what the answer to a challenge is held against.
func (a *Accounts) keepChallenge(tx *store.Tx, c store.PasskeyChallenge, ceremony *webauthn.SessionData) error {
	raw, err := json.Marshal(ceremony)
	if err != nil {
		return err
	}
	now := a.now()
	c.Challenge, c.Ceremony, c.Expires = ceremony.Challenge, string(raw), now.Add(ceremonyTime).UnixMilli()
	return tx.AddPasskeyChallenge(c, now.UnixMilli())
}

// takeChallenge ends a challenge, whatever its answer is; nil if there is none such.
func (a *Accounts) takeChallenge(tx *store.Tx, c store.PasskeyChallenge) (*webauthn.SessionData, error) {
	if len(c.Challenge) > maxName || !plain(c.Challenge) {
		return nil, nil
	}
	raw, err := tx.TakePasskeyChallenge(c, a.now().UnixMilli())
	if err != nil || raw == "" {
		return nil, err
	}
	var ceremony webauthn.SessionData
	if err := json.Unmarshal([]byte(raw), &ceremony); err != nil {
		return nil, fmt.Errorf("reading a challenge: %w", err)
	}
	return &ceremony, nil
}

// BeginPasskeyRegistration begins to add a passkey for the user of a session. options is what the browser wants.
func (a *Accounts) BeginPasskeyRegistration(ctx context.Context, s *Session) (options any, challenge string, err error) {
	if a.relying == nil {
		return nil, "", errNoPasskeys()
	}
	handle, err := a.handles(ctx)
	if err != nil {
		return nil, "", err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		who, err := owner(tx, account, handle(account.ID))
		if err != nil {
			return err
		}
		if len(who.keys) >= maxPasskeys {
			return errManyPasskeys()
		}
		creation, ceremony, err := a.relying.BeginRegistration(who, webauthn.WithExclusions(webauthn.Credentials(who.keys).CredentialDescriptors()))
		if err != nil {
			return fmt.Errorf("beginning a passkey: %w", err)
		}
		options, challenge = creation, ceremony.Challenge
		return a.keepChallenge(tx, store.PasskeyChallenge{User: s.User, Device: s.Device, Purpose: forRegistration}, ceremony)
	})
	if err != nil {
		return nil, "", err
	}
	return options, challenge, nil
}

func errManyPasskeys() error {
	return matrix.Forbidden("You have %d passkeys already. Remove one first.", maxPasskeys)
}

// FinishPasskeyRegistration adds the passkey that the browser made on BeginPasskeyRegistration's options in the same
// session. With the first second factor come recovery codes.
func (a *Accounts) FinishPasskeyRegistration(ctx context.Context, s *Session, challenge, name string, made json.RawMessage) (id string, recovery []string, err error) {
	if a.relying == nil {
		return "", nil, errNoPasskeys()
	}
	if err := checkPasskeyName(name); err != nil {
		return "", nil, err
	}
	parsed, err := parseMade(made)
	if err != nil {
		return "", nil, err
	}
	fresh, err := a.verifyMade(ctx, s, challenge, parsed)
	if err != nil {
		return "", nil, err
	}
	count := int64(fresh.Authenticator.SignCount)
	fresh.Attestation = webauthn.CredentialAttestation{} // nobody asks for it, and it tells which device it is
	record, err := json.Marshal(fresh)
	if err != nil {
		return "", nil, err
	}
	id = newName(passkeyID)
	recovery, err = a.changeFactors(ctx, s, "factor.passkey.added", func(tx *store.Tx, _ *store.Account) error {
		had, err := tx.Factors(s.User)
		if err != nil {
			return err
		}
		if had.Passkeys >= maxPasskeys {
			return errManyPasskeys()
		}
		added, err := tx.AddPasskey(store.Passkey{
			ID: id, User: s.User, Credential: fresh.ID, Name: name, Record: string(record), SignCount: count, Created: a.now().UnixMilli(),
		})
		if err == nil && !added {
			err = matrix.InvalidParam("This passkey belongs to an account already.")
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return id, recovery, nil
}

// verifyMade ends a registration's challenge and holds the answer against it.
func (a *Accounts) verifyMade(ctx context.Context, s *Session, challenge string, made *protocol.ParsedCredentialCreationData) (*webauthn.Credential, error) {
	handle, err := a.handles(ctx)
	if err != nil {
		return nil, err
	}
	var ceremony *webauthn.SessionData
	var who *keyOwner
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		ceremony, err = a.takeChallenge(tx, store.PasskeyChallenge{Challenge: challenge, User: s.User, Device: s.Device, Purpose: forRegistration})
		who = &keyOwner{handle: handle(s.UserID), id: s.UserID}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case ceremony == nil:
		return nil, errChallenge()
	}
	fresh, err := a.relying.CreateCredential(who, *ceremony, made)
	if err != nil {
		return nil, matrix.Forbidden("The passkey is not made for this server, or not by what it asked for.").With(err)
	}
	return fresh, nil
}

func checkPasskeyName(name string) error {
	if name == "" || len(name) > maxPasskeyName || !plain(name) {
		return matrix.InvalidParam("A passkey's name has 1 to %d bytes, and no control characters.", maxPasskeyName)
	}
	return nil
}

// parseMade reads what the browser made.
func parseMade(raw json.RawMessage) (*protocol.ParsedCredentialCreationData, error) {
	if len(raw) == 0 || len(raw) > maxCredential {
		return nil, errCredential(nil)
	}
	made, err := protocol.ParseCredentialCreationResponseBytes(raw)
	if err != nil {
		return nil, errCredential(err)
	}
	return made, nil
}

// parseShown reads what the browser shows.
func parseShown(raw json.RawMessage) (*protocol.ParsedCredentialAssertionData, error) {
	if len(raw) == 0 || len(raw) > maxCredential {
		return nil, errCredential(nil)
	}
	shown, err := protocol.ParseCredentialRequestResponseBytes(raw)
	if err != nil {
		return nil, errCredential(err)
	}
	return shown, nil
}

func errCredential(cause error) error {
	return matrix.InvalidParam("That is not what a browser answers for a passkey.").With(cause)
}

// Passkeys lists the passkeys of a user.
func (a *Accounts) Passkeys(ctx context.Context, user store.UserNID) (list []Passkey, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		list = nil
		return tx.Passkeys(user, func(p store.Passkey) { list = append(list, Passkey{p.ID, p.Name, p.Created, p.Used}) })
	})
	return list, err
}

// RenamePasskey changes what a passkey of a session's user is called.
func (a *Accounts) RenamePasskey(ctx context.Context, s *Session, id, name string) error {
	if err := checkPasskeyName(name); err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		found, err := tx.RenamePasskey(s.User, id, name)
		if err == nil && !found {
			err = errNoSuchPasskey()
		}
		return err
	})
}

// RemovePasskey removes a passkey of a session's user.
func (a *Accounts) RemovePasskey(ctx context.Context, s *Session, id string) error {
	_, err := a.changeFactors(ctx, s, "factor.passkey.removed", func(tx *store.Tx, _ *store.Account) error {
		found, err := tx.DeletePasskey(s.User, id)
		if err == nil && !found {
			err = errNoSuchPasskey()
		}
		return err
	})
	return err
}

func errNoSuchPasskey() error { return matrix.NotFound("You have no such passkey.") }
