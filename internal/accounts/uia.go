package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// uiaTime is how long somebody may take to confirm who they are.
const uiaTime = 10 * time.Minute

// Challenge is what a request is answered that still has to be confirmed (401, client-server API "User-interactive
// authentication"). It is an error, so that handlers pass it on like any other.
type Challenge struct {
	Session   string              `json:"session"`
	Flows     []Flow              `json:"flows"`
	Completed []string            `json:"completed,omitempty"`
	Params    map[string]struct{} `json:"params"`
	Code      string              `json:"errcode,omitempty"`
	Text      string              `json:"error,omitempty"`
}

// Flow is a sequence of stages that confirms a request.
type Flow struct {
	Stages []string `json:"stages"`
}

// Error implements error.
func (c *Challenge) Error() string { return "user-interactive authentication is not complete" }

// AuthData is the "auth" member of a request.
type AuthData struct {
	Type       string `json:"type"`
	Session    string `json:"session"`
	Password   string `json:"password"`
	User       string `json:"user"` // the older form of identifier
	Identifier struct {
		Type string `json:"type"`
		User string `json:"user"`
	} `json:"identifier"`
}

// Confirm is a request that has to be confirmed: by whom, for which operation, with which body.
type Confirm struct {
	Session   *Session // nil where nobody is logged in, as for registration
	Operation string
	Body      []byte // without "auth"; its hash binds the confirmation to it
	Stages    []string
	Auth      *AuthData // nil where the client sent none
}

// Confirm returns nil once every stage is passed, and a *Challenge until then. A session serves one operation, one
// user and one body, and ends with its success (threats A03).
func (a *Accounts) Confirm(ctx context.Context, q Confirm) error {
	var user store.UserNID
	if q.Session != nil {
		user = q.Session.User
	}
	body := sha256.Sum256(q.Body)
	if q.Auth == nil || q.Auth.Session == "" && q.Auth.Type == "" {
		return a.challenge(ctx, q, user, body[:])
	}
	s := &store.UIASession{User: user, Operation: q.Operation, Body: body[:]}
	if q.Auth.Session != "" {
		found, err := a.uiaSession(ctx, q.Auth.Session)
		if err != nil {
			return err
		}
		if found == nil || found.User != user || found.Operation != q.Operation ||
			subtle.ConstantTimeCompare(found.Body, body[:]) != 1 {
			return a.challenge(ctx, q, user, body[:])
		}
		s = found
	}
	if q.Auth.Type != "" {
		if err := a.stage(ctx, q); err != nil {
			return a.refused(ctx, q, s, err)
		}
		if !slices.Contains(s.Completed, q.Auth.Type) {
			s.Completed = append(s.Completed, q.Auth.Type)
		}
	}
	if !complete(q.Stages, s.Completed) {
		return a.keep(ctx, q, s, nil)
	}
	if s.ID == "" {
		return nil
	}
	return a.take(ctx, q, s)
}

func complete(stages, done []string) bool {
	for _, stage := range stages {
		if !slices.Contains(done, stage) {
			return false
		}
	}
	return true
}

// stage checks one stage.
func (a *Accounts) stage(ctx context.Context, q Confirm) error {
	if !slices.Contains(q.Stages, q.Auth.Type) {
		return matrix.InvalidParam("This request cannot be confirmed by %q.", q.Auth.Type)
	}
	switch q.Auth.Type {
	case "m.login.dummy":
		return nil
	case "m.login.password":
		return a.stagePassword(ctx, q)
	}
	return matrix.InvalidParam("This server does not know %q.", q.Auth.Type)
}

// stagePassword checks the password of the session's own user; the name in the request may only agree.
func (a *Accounts) stagePassword(ctx context.Context, q Confirm) error {
	if q.Session == nil {
		return matrix.Forbidden("Nobody is logged in.")
	}
	name := q.Auth.Identifier.User
	if name == "" {
		name = q.Auth.User
	}
	if name == "" {
		name = string(q.Session.UserID)
	}
	account, err := a.checkPasswordOf(ctx, name, q.Auth.Password)
	if err != nil {
		return err
	}
	if account.User != q.Session.User {
		return matrix.Forbidden("That is another user.")
	}
	return nil
}

func (a *Accounts) uiaSession(ctx context.Context, id string) (found *store.UIASession, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.UIASession(id)
		return err
	})
	if found != nil && found.Expires < a.now().UnixMilli() {
		found = nil
	}
	return found, err
}

// challenge begins a session.
func (a *Accounts) challenge(ctx context.Context, q Confirm, user store.UserNID, body []byte) error {
	return a.keep(ctx, q, &store.UIASession{User: user, Operation: q.Operation, Body: body}, nil)
}

// keep stores a session with what it has reached and answers what is left.
func (a *Accounts) keep(ctx context.Context, q Confirm, s *store.UIASession, refusal *matrix.Error) error {
	now := a.now()
	if s.ID == "" {
		var random [24]byte
		rand.Read(random[:])
		s.ID = base64.RawURLEncoding.EncodeToString(random[:])
		s.Expires = now.Add(uiaTime).UnixMilli()
	}
	err := a.db.Write(ctx, func(tx *store.Tx) error { return tx.PutUIASession(*s, now.UnixMilli()) })
	if err != nil {
		return err
	}
	c := &Challenge{Session: s.ID, Flows: []Flow{{q.Stages}}, Completed: s.Completed, Params: map[string]struct{}{}}
	if refusal != nil {
		c.Code, c.Text = refusal.Code, refusal.Text
	}
	return c
}

// refused answers a stage that was not passed: the session goes on with what it has, and says why.
func (a *Accounts) refused(ctx context.Context, q Confirm, s *store.UIASession, err error) error {
	var no *matrix.Error
	if !errors.As(err, &no) || no.Code == "M_LIMIT_EXCEEDED" {
		return err
	}
	return a.keep(ctx, q, s, no)
}

// take ends a session with its success; of several requests with the same session one wins.
func (a *Accounts) take(ctx context.Context, q Confirm, s *store.UIASession) error {
	var mine bool
	err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.TakeUIASession(s.ID)
		return err
	})
	if err == nil && !mine {
		err = a.challenge(ctx, q, s.User, s.Body)
	}
	return err
}
