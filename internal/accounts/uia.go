package accounts

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// uiaTime is how long somebody may take to confirm who they are.
const uiaTime = 10 * time.Minute

// The stages of user-interactive authentication that this server knows.
const (
	StageDummy    = "m.login.dummy"
	StagePassword = "m.login.password"
	StageEmail    = "m.login.email.identity"
)

// stages are the checks of the stages' answers. What a check finds out it leaves with the session (confirmation.set).
var stages = map[string]func(context.Context, *Accounts, *confirmation) error{
	StageDummy:    func(context.Context, *Accounts, *confirmation) error { return nil },
	StagePassword: stagePassword,
	StageEmail:    stageEmail,
	StageFactor:   stageFactor,
	StageOAuth:    stageOAuth,
	StageToken:    stageToken,
	StageTerms:    stageTerms,
	StageWork:     stageWork,
	StageSSO:      stageSSO,
}

// Challenge is what a request is answered that still has to be confirmed (401, client-server API "User-interactive
// authentication"). It is an error, so that handlers pass it on like any other.
type Challenge struct {
	Session   string         `json:"session"`
	Flows     []Flow         `json:"flows"`
	Completed []string       `json:"completed,omitempty"`
	Params    map[string]any `json:"params"`
	Code      string         `json:"errcode,omitempty"`
	Text      string         `json:"error,omitempty"`
}

// Flow is a sequence of stages that confirms a request.
type Flow struct {
	Stages []string `json:"stages"`
}

// Flows makes flows of their stages.
func Flows(flows ...[]string) []Flow {
	list := make([]Flow, len(flows))
	for i, stages := range flows {
		list[i] = Flow{stages}
	}
	return list
}

// Error implements error.
func (c *Challenge) Error() string { return "user-interactive authentication is not complete" }

// AuthData is the "auth" member of a request: which stage of which session it answers, and the answer.
type AuthData struct {
	Type    string
	Session string
	Answer  json.RawMessage // the whole member, for the stage to read
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *AuthData) UnmarshalJSON(raw []byte) error {
	var head struct {
		Type    string `json:"type"`
		Session string `json:"session"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return err
	}
	*d = AuthData{head.Type, head.Session, slices.Clone(raw)}
	return nil
}

// Confirm is a request that has to be confirmed: by whom, for which operation, with which body, and how.
type Confirm struct {
	Session   *Session // nil where nobody is logged in, as for registration
	Operation string
	Body      []byte // without "auth"; the confirmation is bound to it
	Flows     []Flow // any of them will do
	Params    map[string]any
	Auth      *AuthData // nil where the client sent none
	Address   string    // the part of the client's network address that one caller controls, for counting guesses
}

// Confirmed is how a request was confirmed.
type Confirmed struct {
	Stages []string          // in the order in which they were passed
	Found  map[string]string // what they have found out, by names of their own
}

// confirmation is a request together with the session that it continues.
type confirmation struct {
	Confirm
	user store.UserNID
	row  *store.UIASession
	was  store.UIASession // as it was read
}

// set leaves something with the session that a stage has found out.
func (c *confirmation) set(name, value string) error {
	found, err := c.found()
	if err != nil {
		return err
	}
	found[name] = value
	raw, err := matrix.Encode(found)
	c.row.Data = string(raw)
	return err
}

func (c *confirmation) found() (map[string]string, error) { return foundIn(c.row.Data) }

func foundIn(data string) (map[string]string, error) {
	found := map[string]string{}
	if data == "" {
		return found, nil
	}
	return found, json.Unmarshal([]byte(data), &found)
}

// answer reads the answer to a stage.
func (c *confirmation) answer(into any) error {
	if json.Unmarshal(c.Auth.Answer, into) != nil {
		return matrix.BadJSON("auth is not what %s asks for.", c.Auth.Type)
	}
	return nil
}

// Confirm returns how a request was confirmed once every stage of a flow is passed, and a *Challenge until then. A session
// serves one operation, one device of one user and one body, and ends with its success (threats A03).
func (a *Accounts) Confirm(ctx context.Context, q Confirm) (*Confirmed, error) {
	c := &confirmation{Confirm: q}
	if q.Session != nil {
		c.user = q.Session.User
	}
	body := a.binding(q)
	c.row = &store.UIASession{User: c.user, Operation: q.Operation, Body: body}
	if q.Auth == nil || q.Auth.Session == "" && q.Auth.Type == "" {
		return nil, a.keep(ctx, c, nil)
	}
	if q.Auth.Session != "" {
		found, err := a.uiaSession(ctx, q.Auth.Session)
		if err != nil {
			return nil, err
		}
		if found == nil || found.User != c.user || found.Operation != q.Operation ||
			subtle.ConstantTimeCompare(found.Body, body) != 1 {
			return nil, a.keep(ctx, c, nil)
		}
		c.row, c.was = found, *found
	}
	check := a.stage
	if q.Auth.Type == "" {
		check = a.elsewhere
	}
	if err := check(ctx, c); err != nil {
		return nil, a.refused(ctx, c, err)
	}
	if err := a.approvedElsewhere(ctx, c); err != nil {
		return nil, err
	}
	if !c.complete() {
		err := a.keep(ctx, c, nil)
		var waits *Challenge
		if !errors.As(err, &waits) || !c.complete() { // what was missing another request may have passed meanwhile
			return nil, err
		}
	}
	return a.take(ctx, c)
}

// binding is what binds a session to the device and body of a request. Some bodies hold a new password: with a key that is
// not in the database nobody can try guesses on what stands there (threats A18).
func (a *Accounts) binding(q Confirm) []byte {
	var key [32]byte
	if a.secrets != nil {
		key = a.secrets.Derive("confirmed bodies")
	}
	var device int64
	if q.Session != nil {
		device = q.Session.Device
	}
	mac := hmac.New(sha256.New, key[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(device))) //nolint:gosec // its bits are what counts
	mac.Write(q.Body)
	return mac.Sum(nil)
}

// complete says whether all stages of a flow are passed.
func (c *confirmation) complete() bool {
	return slices.ContainsFunc(c.Flows, func(f Flow) bool { return c.next(f) == "" })
}

// next is the first stage of a flow that is not passed, "" if all are.
func (c *confirmation) next(f Flow) string {
	for _, stage := range f.Stages {
		if !slices.Contains(c.row.Completed, stage) {
			return stage
		}
	}
	return ""
}

// stage checks the answer to a stage, whose turn it has to be. A stage that is passed is not checked again.
func (a *Accounts) stage(ctx context.Context, c *confirmation) error {
	name := c.Auth.Type
	if slices.Contains(c.row.Completed, name) {
		return nil
	}
	if !slices.ContainsFunc(c.Flows, func(f Flow) bool { return slices.Contains(f.Stages, name) }) {
		return matrix.InvalidParam("This request cannot be confirmed by %q.", name)
	}
	if !slices.ContainsFunc(c.Flows, func(f Flow) bool { return c.next(f) == name }) {
		return matrix.InvalidParam("Another stage comes before %q.", name)
	}
	check, known := stages[name]
	if !known {
		return matrix.InvalidParam("This server does not know %q.", name)
	}
	if err := check(ctx, a, c); err != nil {
		return err
	}
	c.row.Completed = append(c.row.Completed, name)
	return nil
}

// stagePassword checks the password of the session's own user; the name in the request may only agree.
func stagePassword(ctx context.Context, a *Accounts, c *confirmation) error {
	if c.Session == nil {
		return matrix.Forbidden("Nobody is logged in.")
	}
	var answer struct {
		Password   string     `json:"password"`
		User       string     `json:"user"` // the older form of identifier
		Identifier Identifier `json:"identifier"`
	}
	if err := c.answer(&answer); err != nil {
		return err
	}
	by := answer.Identifier
	if by.Type != identifierThreepid {
		by = Identifier{User: cmp.Or(by.User, answer.User, string(c.Session.UserID))}
	}
	in, err := a.checkPasswordBy(withOwner(ctx, c.Session), by, answer.Password)
	if err != nil {
		return err
	}
	if in.account == nil || in.account.User != c.user {
		return matrix.Forbidden("That is another user.")
	}
	return nil
}

// uiaSession finds a session by the ID that a client says, nil if there is none, or not any more.
func (a *Accounts) uiaSession(ctx context.Context, id string) (found *store.UIASession, err error) {
	if len(id) > maxName || !plain(id) {
		return nil, nil
	}
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.UIASession(id)
		return err
	})
	if found != nil && found.Expires < a.now().UnixMilli() {
		found = nil
	}
	return found, err
}

// keep stores a session with what it has reached, which begins it if it is new, and answers what is left.
func (a *Accounts) keep(ctx context.Context, c *confirmation, refusal *matrix.Error) error {
	if err := a.prepare(ctx, c); err != nil {
		return err
	}
	if err := a.save(ctx, c); err != nil {
		return err
	}
	params, err := a.params(c)
	if err != nil {
		return err
	}
	answer := &Challenge{Session: c.row.ID, Flows: c.Flows, Completed: c.row.Completed, Params: params}
	if refusal != nil {
		answer.Code, answer.Text = refusal.Code, refusal.Text
	}
	return answer
}

// save stores what a session has reached. One that has ended in the meantime is not brought back to life, with which a
// confirmation could be used twice: nothing is left of it, and another begins.
func (a *Accounts) save(ctx context.Context, c *confirmation) error {
	flows, err := matrix.Encode(c.Flows)
	if err != nil {
		return err
	}
	c.row.Flows = string(flows)
	if c.row.ID != "" {
		still, err := a.bringForward(ctx, c)
		if err != nil || still {
			return err
		}
		c.row = &store.UIASession{User: c.user, Operation: c.row.Operation, Body: c.row.Body, Flows: c.row.Flows}
		if err := a.prepare(ctx, c); err != nil {
			return err
		}
	}
	now := a.now()
	c.row.ID, c.row.Expires = newSessionID(), now.Add(uiaTime).UnixMilli()
	return a.db.Write(ctx, func(tx *store.Tx) error { return tx.AddUIASession(*c.row, now.UnixMilli()) })
}

// bringForward stores what a session has reached; it reports false if it has ended in the meantime. What others have brought it
// forward by since it was read stays: clients ask how far it has come while somebody passes a stage on a page, and a code or
// a mail may be used up by that.
func (a *Accounts) bringForward(ctx context.Context, c *confirmation) (still bool, err error) {
	var row *store.UIASession
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		now, err := tx.LockUIASession(c.row.ID)
		if still = now != nil; err != nil || !still {
			return err
		}
		if row, err = c.onto(now); err != nil {
			return err
		}
		_, err = tx.AdvanceUIASession(*row)
		return err
	})
	if err == nil && still {
		c.row, c.was = row, *row
	}
	return still, err
}

// onto is the session as others may have left it since it was read, with the stages that were passed here and what they have
// found out. What was found out without passing any gives way to what others have.
func (c *confirmation) onto(now *store.UIASession) (*store.UIASession, error) {
	row := *c.row
	if now.Data == c.was.Data && slices.Equal(now.Completed, c.was.Completed) {
		return &row, nil
	}
	passed := slices.DeleteFunc(slices.Clone(row.Completed), func(stage string) bool {
		return slices.Contains(c.was.Completed, stage) || slices.Contains(now.Completed, stage)
	})
	row.Completed, row.Data = slices.Concat(now.Completed, passed), now.Data
	if len(passed) == 0 {
		return &row, nil
	}
	before, err := foundIn(c.was.Data)
	if err != nil {
		return nil, err
	}
	here, err := c.found()
	if err != nil {
		return nil, err
	}
	all, err := foundIn(now.Data)
	if err != nil {
		return nil, err
	}
	for name, value := range here {
		if before[name] != value {
			all[name] = value
		}
	}
	raw, err := matrix.Encode(all)
	row.Data = string(raw)
	return &row, err
}

// newSessionID makes the ID of a session, which nobody guesses.
func newSessionID() string {
	var random [24]byte
	rand.Read(random[:])
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// refused answers a stage that was not passed: the session goes on with what it has, and says why.
func (a *Accounts) refused(ctx context.Context, c *confirmation, err error) error {
	var no *matrix.Error
	if !errors.As(err, &no) || no.Code == "M_LIMIT_EXCEEDED" {
		return err
	}
	return a.keep(ctx, c, no)
}

// take ends a session with its success; of several requests with the same session one wins.
func (a *Accounts) take(ctx context.Context, c *confirmation) (*Confirmed, error) {
	found, err := c.found()
	if err != nil {
		return nil, err
	}
	if c.row.ID == "" {
		return &Confirmed{c.row.Completed, found}, nil
	}
	var mine bool
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		if mine, err = tx.TakeUIASession(c.row.ID); err != nil || !mine || !slices.Contains(c.row.Completed, StageOAuth) {
			return err
		}
		mine, err = tx.DropApprovals(c.user) // what was approved is done once, also when several sessions ask at the same time
		return err
	})
	if err == nil && !mine {
		c.row = &store.UIASession{User: c.user, Operation: c.row.Operation, Body: c.row.Body}
		err = a.keep(ctx, c, nil)
	}
	if err != nil {
		return nil, err
	}
	return &Confirmed{c.row.Completed, found}, nil
}
