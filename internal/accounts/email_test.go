package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// box takes mails in the place of a mail server, or fails.
type box struct {
	mu    sync.Mutex
	mails []mail.Message
	fail  error
	tried int
}

// Send implements Mailer.
func (b *box) Send(_ context.Context, m mail.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tried++
	if b.fail != nil {
		return b.fail
	}
	b.mails = append(b.mails, m)
	return nil
}

// mailWorld is a world with mail.
type mailWorld struct {
	*world
	box *box
}

func eachMail(t *testing.T, test func(t *testing.T, w *mailWorld)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.config.Email.SMTPURL = "smtp://localhost"
		w.config.PublicURL = "https://chat.us.test"
		m := &mailWorld{w, &box{}}
		w.mail = m.box
		test(t, m)
	})
}

// deliver sends all mails that are due, as RunMails does, and returns what arrived.
func (w *mailWorld) deliver() []mail.Message {
	w.t.Helper()
	for {
		m, err := w.leaseMail(w.t.Context())
		must(w.t, err)
		if m == nil {
			break
		}
		w.deliverMail(w.t.Context(), *m)
	}
	w.box.mu.Lock()
	defer w.box.mu.Unlock()
	got := w.box.mails
	w.box.mails = nil
	return got
}

func (w *mailWorld) one() mail.Message {
	w.t.Helper()
	mails := w.deliver()
	if len(mails) != 1 {
		w.t.Fatalf("%d mails", len(mails))
	}
	return mails[0]
}

// token is that of the link in a mail, "" if there is none.
func token(t *testing.T, m mail.Message) string {
	t.Helper()
	for line := range strings.Lines(m.Text) {
		u, err := url.Parse(strings.TrimSpace(line))
		if err == nil && u.Path == ConfirmPath {
			if u.Host != "chat.us.test" || u.Scheme != "https" {
				t.Errorf("the link leads to %s", u)
			}
			return u.Query().Get("token")
		}
	}
	return ""
}

func (w *mailWorld) ask(purpose Purpose, s *Session, address, secret string, attempt int64) string {
	w.t.Helper()
	sid, err := w.RequestAddress(w.t.Context(), AddressRequest{Purpose: purpose, Session: s, Address: address, Secret: secret, Attempt: attempt, Block: "192.0.2.1"})
	must(w.t, err)
	return sid
}

// prove takes an address the whole way until it is confirmed.
func (w *mailWorld) prove(purpose Purpose, s *Session, address string) AddressProof {
	w.t.Helper()
	sid := w.ask(purpose, s, address, "secret", 1)
	link := token(w.t, w.one())
	c, err := w.ConfirmAddress(w.t.Context(), link)
	must(w.t, err)
	if c == nil {
		w.t.Fatal("the link is of no use")
	}
	return NewAddressProof(sid, "secret")
}

// owner makes an account with an address.
func (w *mailWorld) owner(name, address string) *Session {
	w.t.Helper()
	s := w.session(w.register(name))
	must(w.t, w.AddThreepid(w.t.Context(), s, w.prove(ForAdding, s, address), "en", ""))
	w.deliver()
	return s
}

// TestAConfirmedAddressIsGoodForOneThing tries to use confirmed addresses for anything but what they were confirmed for.
func TestAConfirmedAddressIsGoodForOneThing(t *testing.T) {
	proof.Of(t, "A07", "A11", "AN-17")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		ctx := t.Context()
		alice, eve := w.owner("alice", "alice@a.test"), w.session(w.register("eve"))
		denied := func(what string, err error) {
			t.Helper()
			wantCode(t, err, 400, "M_THREEPID_AUTH_FAILED")
			if err == nil {
				t.Errorf("%s succeeded", what)
			}
		}
		// Eve has an address of her own confirmed, and cannot do anything to alice's with it.
		mine := w.prove(ForAdding, eve, "eve@e.test")
		denied("a reset by an address that is to be added", w.ResetByEmail(ctx, mine, "another password", "", true))
		denied("adding it to another account", w.AddThreepid(ctx, alice, mine, "en", ""))
		denied("another secret", w.AddThreepid(ctx, eve, NewAddressProof(mine.SID, "secret2"), "en", ""))
		denied("another session", w.AddThreepid(ctx, eve, NewAddressProof("x", "secret"), "en", ""))
		_, err := w.Register(ctx, Registration{Username: "third", Password: password, Email: &mine})
		denied("an account", err)
		account, err := w.find(ctx, "third")
		if err != nil || account != nil {
			t.Errorf("an account without its address was made: %v %v", account, err)
		}
		for _, other := range []Purpose{ForRegistration, ForAdding} { // by nobody, so that their purpose alone tells them apart
			p := w.prove(other, nil, "new@e.test")
			denied("a reset", w.ResetByEmail(ctx, p, "another password", "", true))
			if other == ForRegistration {
				denied("adding an address that was to be registered", w.AddThreepid(ctx, eve, p, "en", ""))
				continue
			}
			_, err := w.Register(ctx, Registration{Username: "third", Password: password, Email: &p})
			denied("an account by an address that was to be added", err)
		}
		denied("adding an address for which a password was to be reset", w.AddThreepid(ctx, eve, w.prove(ForReset, nil, "alice@a.test"), "en", ""))
		must(t, w.AddThreepid(ctx, eve, mine, "en", ""))
		denied("a second time", w.AddThreepid(ctx, eve, mine, "en", ""))

		// One that is not confirmed is good for nothing, and a look at the link confirms nothing.
		sid := w.ask(ForAdding, eve, "eve2@e.test", "secret", 1)
		link := token(t, w.one())
		denied("one that is not confirmed", w.AddThreepid(ctx, eve, NewAddressProof(sid, "secret"), "en", ""))
		if c, err := w.Confirmable(ctx, link); err != nil || c == nil || c.Address != "eve2@e.test" || c.UserID != eve.UserID {
			t.Errorf("%+v %v", c, err)
		}
		denied("one that was looked at", w.AddThreepid(ctx, eve, NewAddressProof(sid, "secret"), "en", ""))
		w.pass(linkTime + time.Second)
		if c, err := w.ConfirmAddress(ctx, link); err != nil || c != nil {
			t.Errorf("a link works after its time: %+v %v", c, err)
		}
		late := w.prove(ForAdding, eve, "eve3@e.test")
		w.pass(linkTime + time.Second)
		denied("one that is too late", w.AddThreepid(ctx, eve, late, "en", ""))

		// A password is reset for the account whose address it was when the mail was written, and only while it is.
		moved := w.prove(ForReset, nil, "ALICE@a.test")
		_, err = w.DeleteThreepid(ctx, alice, "email", "Alice@A.test", "", "")
		must(t, err)
		w.deliver()
		must(t, w.AddThreepid(ctx, eve, w.prove(ForAdding, eve, "alice@a.test"), "en", ""))
		denied("a reset of an address that has moved on", w.ResetByEmail(ctx, moved, "another password", "", true))
		_, err = w.login("alice", password)
		must(t, err)
	})
}

// TestOneOfManyUsesALink uses one link, and then what it has confirmed, fifty times at once.
func TestOneOfManyUsesALink(t *testing.T) {
	proof.Of(t, "A07", "A11")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		s := w.session(w.register("alice"))
		sid := w.ask(ForAdding, s, "alice@a.test", "secret", 1)
		link := token(t, w.one())
		race := func(what string, use func() (bool, error)) {
			t.Helper()
			var group sync.WaitGroup
			var good atomic.Int64
			for range 50 {
				group.Go(func() {
					ok, err := use()
					var known *matrix.Error
					if err != nil && !errors.As(err, &known) {
						t.Errorf("%s: %v", what, err)
					}
					if ok && err == nil {
						good.Add(1)
					}
				})
			}
			group.Wait()
			if good.Load() != 1 {
				t.Errorf("%s succeeded %d times", what, good.Load())
			}
		}
		race("a link", func() (bool, error) {
			c, err := w.ConfirmAddress(t.Context(), link)
			return c != nil, err
		})
		p := NewAddressProof(sid, "secret")
		race("a confirmed address", func() (bool, error) { return true, w.AddThreepid(t.Context(), s, p, "en", "") })
	})
}

// TestWhatMailsSay asks with addresses that are somebody's and that are nobody's: the answer is the same, and the mail tells
// whoever has the address.
func TestWhatMailsSay(t *testing.T) {
	proof.Of(t, "A08", "AN-17")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		alice := w.owner("alice", "alice@a.test")
		bob := w.session(w.register("bob"))
		for _, c := range []struct {
			purpose Purpose
			by      *Session
			address string
			says    string
			links   bool
		}{
			{ForRegistration, nil, "new@a.test", "wants to make an account", true},
			{ForRegistration, nil, "alice@a.test", "belongs to the account @alice:us.test", false},
			{ForReset, nil, "alice@a.test", "your account @alice:us.test", true},
			{ForReset, nil, "new@a.test", "No account there has this address", false},
			{ForAdding, bob, "new@a.test", "added to the account @bob:us.test", true},
			{ForAdding, nil, "new@a.test", "to an account on us.test", true},
			{ForAdding, bob, "alice@a.test", "belongs to the account @alice:us.test already", false},
			{ForAdding, alice, "alice@a.test", "belongs to the account @alice:us.test already", false},
		} {
			w.ask(c.purpose, c.by, strings.ToUpper(c.address), "secret", 1)
			m := w.one()
			if m.To != c.address || !strings.Contains(m.Text, c.says) || (token(t, m) != "") != c.links {
				t.Errorf("%s of %s: to %s, %s", c.purpose, c.address, m.To, m.Text)
			}
			w.pass(time.Hour)
		}
	})
}

// TestSendAttempts repeats requests: mail goes out for a higher send_attempt alone, and every link works that was sent.
func TestSendAttempts(t *testing.T) {
	proof.Of(t, "AN-17")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		first := w.ask(ForReset, nil, "new@a.test", "one", 1)
		w.one()
		if again := w.ask(ForReset, nil, "New@A.test", "one", 1); again != first || len(w.deliver()) != 0 {
			t.Errorf("a retry got %s and not %s, or a mail", again, first)
		}
		if again := w.ask(ForReset, nil, "new@a.test", "one", 2); again != first || len(w.deliver()) != 1 {
			t.Errorf("another attempt got %s and not %s, or no mail", again, first)
		}
		if again := w.ask(ForReset, nil, "new@a.test", "one", 1); again != first || len(w.deliver()) != 0 {
			t.Error("an earlier attempt got a mail")
		}
		if other := w.ask(ForReset, nil, "new@a.test", "two", 1); other == first || len(w.deliver()) != 1 {
			t.Error("another secret goes on with somebody else's session")
		}
		s := w.session(w.register("alice"))
		sid := w.ask(ForAdding, s, "alice@a.test", "one", 1)
		early := token(t, w.one())
		w.ask(ForAdding, s, "alice@a.test", "one", 2)
		late := token(t, w.one())
		c, err := w.ConfirmAddress(t.Context(), early)
		must(t, err)
		if c == nil {
			t.Fatal("the first link is of no use after a second was sent")
		}
		if c, err := w.ConfirmAddress(t.Context(), late); c != nil || err != nil {
			t.Errorf("the second link works too: %v %v", c, err)
		}
		if again := w.ask(ForAdding, s, "alice@a.test", "one", 3); again != sid || len(w.deliver()) != 0 {
			t.Error("what is confirmed is asked again")
		}
		sid = w.ask(ForAdding, s, "c@a.test", "one", 1)
		link := token(t, w.one())
		for _, c := range []struct{ sid, secret, token, code string }{
			{sid, "two", link, "M_SESSION_EXPIRED"}, {"other", "one", link, "M_SESSION_EXPIRED"}, {sid, "one", "guess", "M_TOKEN_INCORRECT"}, {sid, "one", early, "M_TOKEN_INCORRECT"},
		} {
			wantCode(t, w.SubmitToken(t.Context(), c.sid, c.secret, c.token), 400, c.code)
		}
		must(t, w.SubmitToken(t.Context(), sid, "one", link))
		wantCode(t, w.SubmitToken(t.Context(), sid, "one", link), 400, "M_TOKEN_INCORRECT")
	})
}

// TestHowManyMailsStrangersCause asks for mails to one address, from one place and for one account.
func TestHowManyMailsStrangersCause(t *testing.T) {
	proof.Of(t, "A09")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		s := w.session(w.register("alice"))
		n := 0
		ask := func(s *Session, address, block string) error {
			n++
			_, err := w.RequestAddress(t.Context(), AddressRequest{Purpose: ForAdding, Session: s, Address: address, Secret: fmt.Sprint(n), Attempt: 1, Block: block})
			return err
		}
		for _, one := range []struct {
			budget store.Budget
			ask    func() error
		}{
			{mailsTo, func() error { return ask(nil, "one@a.test", fmt.Sprint("block", n)) }},
			{mailsFrom, func() error { return ask(nil, fmt.Sprintf("a%d@a.test", n), "block") }},
			{mailsBy, func() error { return ask(s, fmt.Sprintf("b%d@a.test", n), fmt.Sprint("block", n)) }},
		} {
			for range one.budget.Burst {
				must(t, one.ask())
			}
			wantCode(t, one.ask(), 429, "M_LIMIT_EXCEEDED")
			w.pass(time.Duration(one.budget.Every) * time.Millisecond)
			must(t, one.ask())
			wantCode(t, one.ask(), 429, "M_LIMIT_EXCEEDED")
			w.pass(24 * time.Hour)
		}

		// Where the owner of an address has logged in strangers do not keep them from their mail.
		owner, mark := w.owner("olga", "olga@a.test"), NewMark()
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			return w.notePlaces(tx, owner.User, NewDevice{Mark: mark}, Proof{Shown: []Evidence{ByPassword}})
		}))
		reset := func(mark string) error {
			n++
			ctx := WithCaller(t.Context(), Caller{Block: fmt.Sprint("block", n), Mark: mark})
			_, err := w.RequestAddress(ctx, AddressRequest{Purpose: ForReset, Address: "olga@a.test", Secret: fmt.Sprint(n), Attempt: 1, Block: fmt.Sprint("block", n)})
			return err
		}
		w.pass(24 * time.Hour)
		for _, mark := range []string{NewMark(), mark} { // a browser that is nobody's, and hers
			for range mailsTo.Burst {
				must(t, reset(mark))
			}
			wantCode(t, reset(mark), 429, "M_LIMIT_EXCEEDED")
		}
	})
}

// TestTheMailServerFails delivers to a mail server that is down, and to one that does not know the address.
func TestTheMailServerFails(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		s := w.owner("alice", "alice@a.test")
		queued := func() (n int) {
			t.Helper()
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) (err error) {
				n, err = tx.CountMails(100)
				return err
			}))
			return n
		}
		w.box.fail = &mail.Failure{}
		must(t, w.ChangePassword(t.Context(), s, password+"2", "192.0.2.9", true))
		w.deliver()
		if tried := w.box.tried; queued() != 1 || len(w.deliver()) != 0 || w.box.tried != tried {
			t.Errorf("a mail that was not taken: %d in the queue, tried %d times and then %d", queued(), tried, w.box.tried)
		}
		w.pass(minMailWait)
		w.box.fail = nil
		if m := w.one(); m.To != "alice@a.test" || !strings.Contains(m.Text, "was changed") || !strings.Contains(m.Text, "192.0.2.9") || queued() != 0 {
			t.Errorf("%+v, %d in the queue", m, queued())
		}
		// One that never gets through is given up after a day.
		w.box.fail = errors.New("down")
		must(t, w.ChangePassword(t.Context(), s, password+"3", "", true))
		before := w.box.tried
		for began := w.clock.Load(); queued() > 0; w.pass(5 * time.Minute) {
			w.deliver()
			if w.clock.Load()-began > (mailGiveUp + 2*maxMailWait).Milliseconds() {
				t.Fatal("it is tried for ever")
			}
		}
		if n := w.box.tried - before; n < 20 || n > 50 {
			t.Errorf("it was tried %d times", n)
		}
		// One that will never be taken is given up at once.
		w.box.fail = &mail.Failure{Code: 550, Permanent: true}
		must(t, w.ChangePassword(t.Context(), s, password+"4", "", true))
		if w.deliver(); queued() != 0 {
			t.Error("a refused mail stays in the queue")
		}
		// A link that has ended is not sent.
		w.box.fail = errors.New("down")
		w.ask(ForReset, nil, "alice@a.test", "secret", 1)
		w.deliver()
		w.pass(linkTime + time.Second)
		w.box.fail = nil
		if mails := w.deliver(); len(mails) != 0 || queued() != 0 {
			t.Errorf("%d mails, %d in the queue", len(mails), queued())
		}
	})
}

// TestDigestsThatNobodyWants writes a mail of what waits unread only while there is the pusher that it is of.
func TestDigestsThatNobodyWants(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		const to = "bob@b.example"
		for i, c := range []struct {
			key   string // of the pusher, "" for none
			facts string
			mails int
		}{
			{"", `{"user":"@bob:us.test","at":1,"waiting":{"pusher":1,"token":"T0KEN","rooms":[]}}`, 0},
			{"other@b.example", `{"user":"@bob:us.test","at":1,"waiting":{"pusher":1,"token":"T0KEN","rooms":[]}}`, 0},
			{to, `{"user":"@bob:us.test","at":1}`, 0},
			{to, `{"user":"@bob:us.test","at":1,"waiting":{"pusher":1,"token":"T0KEN","rooms":[{"name":"Plan","unread":2,"from":["Alice"]}]}}`, 1},
		} {
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
				if err := tx.DeletePushersTo(1, ""); err != nil {
					return err
				}
				if c.key != "" {
					if err := tx.SetPusher(store.Pusher{NID: 1, User: 1, Kind: "email", AppID: "m.email", Key: c.key, Data: "{}"}, true); err != nil {
						return err
					}
				}
				return tx.AddMail(store.Mail{ID: fmt.Sprint("digest", i), Address: to, Kind: string(mail.Digest), Lang: "en", Facts: c.facts, Created: 1})
			}))
			mails := w.deliver()
			if len(mails) != c.mails {
				t.Errorf("%+v: %d mails", c, len(mails))
			}
			for _, m := range mails {
				if m.Stop != "https://chat.us.test"+UnsubscribePath+"?token=T0KEN" || !strings.Contains(m.Text, m.Stop) || !strings.Contains(m.Text, `"Plan": 2 unread`) {
					t.Errorf("%+v", m)
				}
			}
		}
	})
}
