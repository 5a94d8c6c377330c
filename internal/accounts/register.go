package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the shared-secret registration of Synapse is defined with it, as an HMAC
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Registration is an account to be made.
type Registration struct {
	Username string // "" for a random one
	Password string
	NoLogin  bool // there is no password: an application service acts as the user, or the organization's provider lets them in
	Admin    bool
	Device   *NewDevice // nil: no session yet (inhibit_login)

	DisplayName string            // "" for the name
	External    *identity         // whom the organization's provider or directory means, nil for nobody
	Email       *AddressProof     // of the account's first address; nil for none
	Approved    *store.Validation // that address, where it was taken with the request that an administrator approves of
	Lang        string            // of mails to it
	Address     string            // the network address that it comes from, "" if nobody knows
	By          string            // the administrator who makes the account for somebody else, "" for its owner

	Token  string                // of an invitation, whose use it is; "" for none
	Terms  []store.AcceptedTerms // what was agreed to
	Asks   bool                  // there is to be an account only once an administrator approves
	Reason string                // what is told to the administrator, with Asks
}

// proof is what whoever makes an account has shown: it is theirs from the beginning.
func (q Registration) proof() Proof {
	if q.NoLogin {
		return Proof{Shown: []Evidence{ByService}}
	}
	return Proof{Shown: []Evidence{ByRegistration}}
}

// CheckLocalpart refuses (M_INVALID_USERNAME) what cannot be the localpart of a user.
func CheckLocalpart(name string, server matrix.ServerName) error {
	if !matrix.ValidLocalpart(name) || len("@"+name+":"+string(server)) > 255 {
		return matrix.Errorf(400, "M_INVALID_USERNAME", "A name has small letters, digits and any of . _ = - / + only.")
	}
	return nil
}

// CheckUsername refuses (M_INVALID_USERNAME, M_USER_IN_USE) names that cannot be registered.
func (a *Accounts) CheckUsername(ctx context.Context, name string) error {
	if err := CheckLocalpart(name, a.server); err != nil {
		return err
	}
	taken, localpart := false, strings.ToLower(name)
	err := a.db.Read(ctx, func(tx *store.Tx) error {
		account, err := tx.Account(localpart)
		if err != nil {
			return err
		}
		asked, err := tx.RegistrationRequest(localpart)
		taken = account != nil || asked != nil
		return err
	})
	if err == nil && taken {
		err = errTaken()
	}
	return err
}

func errTaken() error {
	return matrix.Errorf(400, "M_USER_IN_USE", "That name is taken. Choose another one.")
}

// Register makes an account and, if asked, its first session, in one transaction.
func (a *Accounts) Register(ctx context.Context, q Registration) (*Login, error) {
	name := strings.ToLower(q.Username)
	if name == "" {
		name = strings.ToLower(newName(12))
	}
	if err := a.CheckUsername(ctx, name); err != nil {
		return nil, err
	}
	phc, err := a.firstHash(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.Asks {
		return nil, a.ask(ctx, name, phc, q)
	}
	id := matrix.UserID("@" + name + ":" + string(a.server))
	user, err := a.db.User(ctx, id)
	if err != nil {
		return nil, err
	}
	login, open := &Login{UserID: id}, func(*store.Tx) error { return nil }
	if q.Device != nil {
		if login, open, err = a.open(user.NID, id, *q.Device, q.proof()); err != nil {
			return nil, err
		}
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account := store.Account{User: user.NID, ID: id, Password: phc, Admin: q.Admin, Created: a.now().UnixMilli()}
		if err := a.create(tx, account, q); err != nil {
			return err
		}
		return open(tx)
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

// displayName is what a new account is called at first.
func (q Registration) displayName(name string) string {
	if q.DisplayName != "" && len(q.DisplayName) <= maxName && plain(q.DisplayName) {
		return q.DisplayName
	}
	return name
}

// create makes an account in a transaction (M_USER_IN_USE), with all that belongs to it from the beginning.
func (a *Accounts) create(tx *store.Tx, account store.Account, q Registration) error {
	made, err := tx.CreateAccount(account)
	if err == nil && !made {
		err = errTaken()
	}
	if err == nil {
		err = a.firstAddress(tx, account.User, q)
	}
	if err == nil {
		err = firstProfile(tx, account.User, q.displayName(account.ID.Localpart()))
	}
	if err == nil && q.External != nil {
		made, err = tx.AddExternalID(q.External.issuer, q.External.subject, account.User)
		if err == nil && !made {
			err = errTaken()
		}
	}
	if err == nil && q.External != nil {
		err = a.vouchedAddress(tx, account.User, q.External.mail)
	}
	if err == nil {
		err = tx.AcceptTerms(account.User, q.Terms, account.Created)
	}
	if err != nil {
		return err
	}
	if !q.NoLogin || q.External != nil { // application services make users by the thousand
		a.note(tx, Event{Name: EventRegistered, User: account.ID, By: q.By, Address: q.Address, Details: map[string]any{"admin": q.Admin}})
	}
	return nil
}

// firstAddress gives a new account the address that whoever makes it has confirmed, and uses up the token that it is made
// with, which may be for some addresses only.
func (a *Accounts) firstAddress(tx *store.Tx, user store.UserNID, q Registration) error {
	v, err := a.provenAddress(tx, q)
	if err != nil {
		return err
	}
	if v == nil {
		return a.useToken(tx, q.Token, "")
	}
	if err := a.useToken(tx, q.Token, v.Address); err != nil {
		return err
	}
	return a.addAddress(tx, v, user, q.Lang)
}

// provenAddress is the address that whoever makes an account has confirmed, which is used up by it; nil if there is none.
func (a *Accounts) provenAddress(tx *store.Tx, q Registration) (*store.Validation, error) {
	switch {
	case q.Approved != nil:
		return q.Approved, nil
	case q.Email != nil:
		return a.takeAddress(tx, *q.Email, ForRegistration, 0)
	}
	return nil, nil
}

// firstHash is the hash of a new account's password, "" if it has none.
func (a *Accounts) firstHash(ctx context.Context, q Registration) (string, error) {
	if q.NoLogin {
		return "", nil
	}
	return a.newHash(ctx, q.Password)
}

// firstProfile gives a new user its name as display name: clients would show the whole user ID otherwise.
func firstProfile(tx *store.Tx, user store.UserNID, name string) error {
	fields, err := matrix.Encode(map[string]string{DisplayName: name})
	if err != nil {
		return err
	}
	if err := tx.SetProfile(user, string(fields)); err != nil {
		return err
	}
	_, err = tx.AddChange(store.ChangeProfile, 0, user)
	return err
}

// A challenge of shared-secret registration is good for a minute and one use. Its first eight bytes are when that is over.
const (
	nonceTime = time.Minute
	nonceSize = 32
)

// Nonce makes a challenge for RegisterShared. Without a shared secret in the config there is none (M_NOT_FOUND). It says itself
// until when it is good, under a secret of the database: whichever node is asked next knows it.
func (a *Accounts) Nonce(ctx context.Context) (string, error) {
	if a.config.Registration.SharedSecret == "" {
		return "", matrix.Unrecognized("Registration with a shared secret is not set up on this server.")
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	binary.BigEndian.PutUint64(nonce, uint64(a.now().Add(nonceTime).UnixMilli())) //nolint:gosec // later than 1970
	mac, err := a.nonceMAC(ctx, nonce)
	return hex.EncodeToString(append(nonce, mac...)), err
}

// nonceMAC is what shows that a challenge is ours. Its key is not the shared secret, which anybody could try guesses at then.
func (a *Accounts) nonceMAC(ctx context.Context, nonce []byte) ([]byte, error) {
	secret, err := a.db.Secret(ctx, "registration nonces")
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(nonce)
	return mac.Sum(nil), nil
}

// takeNonce uses a challenge up; it reports false if it is not ours, too old, or was used.
func (a *Accounts) takeNonce(ctx context.Context, text string) (good bool, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != nonceSize+sha256.Size {
		return false, nil
	}
	mac, err := a.nonceMAC(ctx, raw[:nonceSize])
	if err != nil || !hmac.Equal(raw[nonceSize:], mac) {
		return false, err
	}
	left := int64(binary.BigEndian.Uint64(raw)) - a.now().UnixMilli() //nolint:gosec // it was made here
	if left <= 0 {
		return false, nil
	}
	key := sha256.Sum256(append([]byte("nonce "), raw...))
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		now := a.now().UnixMilli()
		if err := tx.ForgetBudgets(now); err != nil {
			return err
		}
		wait, err := tx.Spend(key[:], store.Budget{Every: left, Burst: 1}, now) // until it is too old, by the clock of whoever made it
		good = wait == 0
		return err
	})
	return good && err == nil, err
}

// RegisterShared makes an account for whoever holds the shared secret: mac is the hex HMAC-SHA1 over nonce, name,
// password and "admin" or "notadmin", separated by NUL (POST /_synapse/admin/v1/register).
func (a *Accounts) RegisterShared(ctx context.Context, nonce, mac string, q Registration) (*Login, error) {
	secret := a.config.Registration.SharedSecret
	if secret == "" {
		return nil, matrix.Unrecognized("Registration with a shared secret is not set up on this server.")
	}
	good, err := a.takeNonce(ctx, nonce)
	if err != nil {
		return nil, err
	}
	if !good {
		return nil, matrix.Forbidden("The nonce is not known, or is used or too old. Ask for a new one.")
	}
	if strings.Contains(q.Username+q.Password, "\x00") { // it separates what the HMAC is over
		return nil, matrix.InvalidParam("Names and passwords must not hold NUL.")
	}
	role := "notadmin"
	if q.Admin {
		role = "admin"
	}
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(strings.Join([]string{nonce, q.Username, q.Password, role}, "\x00")))
	want := hex.EncodeToString(h.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(mac))) != 1 {
		return nil, matrix.Forbidden("The HMAC is not right.")
	}
	return a.Register(ctx, q)
}
