package accounts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"conclave/internal/config"
	"conclave/internal/store"
	"conclave/internal/testserver/passkey"
	"conclave/internal/testserver/proof"
)

const origin = "https://chat.us.test"

// addPasskey adds a passkey that an authenticator makes.
func (w *world) addPasskey(s *Session, a *passkey.Authenticator, name string) (id string, recovery []string) {
	w.t.Helper()
	options, challenge, err := w.BeginPasskeyRegistration(w.t.Context(), s)
	must(w.t, err)
	made, err := a.Create(options)
	must(w.t, err)
	id, recovery, err = w.FinishPasskeyRegistration(w.t.Context(), s, challenge, name, made)
	must(w.t, err)
	return id, recovery
}

// asked begins to ask a user for a passkey and lets an authenticator answer.
func (w *world) asked(s *Session, a *passkey.Authenticator) FactorAnswer {
	w.t.Helper()
	options, challenge, err := w.BeginPasskey(w.t.Context(), s.User)
	must(w.t, err)
	shown, err := a.Get(options)
	must(w.t, err)
	return FactorAnswer{Type: "passkey", Passkey: shown, Challenge: challenge}
}

func (w *world) showPasskey(s *Session, a *passkey.Authenticator) error {
	w.t.Helper()
	return w.CheckFactor(w.t.Context(), s.User, w.asked(s, a))
}

// signIn signs in by passkey alone.
func (w *world) signIn(a *passkey.Authenticator) (store.UserNID, error) {
	w.t.Helper()
	options, challenge, err := w.BeginPasskeySignIn(w.t.Context())
	must(w.t, err)
	shown, err := a.Get(options)
	must(w.t, err)
	return w.FinishPasskeySignIn(w.t.Context(), challenge, shown)
}

func TestPasskeys(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		phone, stick := &passkey.Authenticator{Origin: origin, Verifies: true}, &passkey.Authenticator{Origin: origin, Step: 1, Count: 7}
		since := w.clock.Load()
		first, recovery := w.addPasskey(alice, phone, "phone")
		if len(recovery) != recoveryCodes {
			t.Errorf("%d recovery codes came with the first passkey", len(recovery))
		}
		w.wantFactors(alice, Factors{Passkeys: 1, Recovery: 10, Since: since})
		w.pass(time.Second)
		second, recovery := w.addPasskey(alice, stick, "stick")
		if recovery != nil || first == second {
			t.Errorf("the second passkey is %q after %q, with %d recovery codes", second, first, len(recovery))
		}
		// An authenticator that has one makes no second.
		options, _, err := w.BeginPasskeyRegistration(t.Context(), alice)
		must(t, err)
		if _, err := phone.Create(options); err == nil {
			t.Error("the server does not say which authenticators have a passkey already")
		}
		must(t, w.showPasskey(alice, phone))
		must(t, w.showPasskey(alice, phone)) // it does not count, which is no reason to refuse it
		must(t, w.showPasskey(alice, stick))
		must(t, w.showPasskey(alice, stick))
		used := w.clock.Load()
		list, err := w.Passkeys(t.Context(), alice.User)
		must(t, err)
		if len(list) != 2 || list[0] != (Passkey{first, "phone", since, used}) || list[1] != (Passkey{second, "stick", since + 1000, used}) {
			t.Errorf("the passkeys are %+v", list)
		}
		bob := w.session(w.register("bob"))
		for _, err := range []error{w.RenamePasskey(t.Context(), bob, first, "mine"), w.RemovePasskey(t.Context(), bob, first), w.RemovePasskey(t.Context(), alice, "none")} {
			wantCode(t, err, 404, "M_NOT_FOUND")
		}
		for _, name := range []string{"", "a\nb", strings.Repeat("x", 101), "\xff"} {
			wantCode(t, w.RenamePasskey(t.Context(), alice, first, name), 400, "M_INVALID_PARAM")
		}
		must(t, w.RenamePasskey(t.Context(), alice, first, "my phone"))
		w.config.Auth.Require2FA = "all"
		must(t, w.RemovePasskey(t.Context(), alice, second))
		wantCode(t, w.RemovePasskey(t.Context(), alice, first), 403, "M_FORBIDDEN")
		w.wantFactors(alice, Factors{Passkeys: 1, Recovery: 10, Since: since})
		w.config.Auth.Require2FA = "none"
		must(t, w.RemovePasskey(t.Context(), alice, first))
		w.wantFactors(alice, Factors{})
		_, _, err = w.BeginPasskey(t.Context(), alice.User)
		wantCode(t, err, 404, "M_NOT_FOUND")
		_, err = w.signIn(phone)
		wantCode(t, err, 403, "M_FORBIDDEN")
		w.enrol(alice) // another kind takes its place
		w.addPasskey(alice, phone, "phone")
	})
}

// TestPasskeysOfOthers lets authenticators and browsers lie.
func TestPasskeysOfOthers(t *testing.T) {
	proof.Of(t, "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		other, err := w.login("alice", password)
		must(t, err)
		elsewhere := w.session(other)
		good := func() *passkey.Authenticator { return &passkey.Authenticator{Origin: origin, Verifies: true} }
		// Adding one.
		for name, a := range map[string]*passkey.Authenticator{
			"another site": {Origin: "https://evil.test"}, "another port": {Origin: origin + ":8443"}, "without TLS": {Origin: "http://chat.us.test"},
			"a page above": {Origin: "https://us.test"}, "another server's key": {Origin: origin, RPID: "evil.test"},
		} {
			options, challenge, err := w.BeginPasskeyRegistration(t.Context(), alice)
			must(t, err)
			made, err := a.Create(options)
			must(t, err)
			if _, _, err := w.FinishPasskeyRegistration(t.Context(), alice, challenge, "x", made); !isCode(err, "M_FORBIDDEN") {
				t.Errorf("%s adds a passkey: %v", name, err)
			}
			made, err = good().Create(options)
			must(t, err)
			if _, _, err := w.FinishPasskeyRegistration(t.Context(), alice, challenge, "x", made); !isCode(err, "M_FORBIDDEN") {
				t.Errorf("a challenge is answered twice: %v", err)
			}
		}
		for name, s := range map[string]*Session{"another user": bob, "another session": elsewhere} {
			options, challenge, err := w.BeginPasskeyRegistration(t.Context(), alice)
			must(t, err)
			made, err := good().Create(options)
			must(t, err)
			if _, _, err := w.FinishPasskeyRegistration(t.Context(), s, challenge, "x", made); !isCode(err, "M_FORBIDDEN") {
				t.Errorf("%s answers: %v", name, err)
			}
		}
		w.wantFactors(alice, Factors{})
		// Showing one.
		mine, hers := good(), good()
		w.addPasskey(alice, hers, "hers")
		w.addPasskey(bob, mine, "his")
		answer := w.asked(alice, hers)
		for name, wrong := range map[string]FactorAnswer{
			"an unknown challenge": {Type: "passkey", Passkey: answer.Passkey, Challenge: "AAAA"}, "no challenge": {Type: "passkey", Passkey: answer.Passkey},
			"a challenge that is none": {Type: "passkey", Passkey: answer.Passkey, Challenge: "\x00"},
			"another's challenge":      {Type: "passkey", Passkey: answer.Passkey, Challenge: w.asked(bob, mine).Challenge},
		} {
			if err := w.CheckFactor(t.Context(), alice.User, wrong); !isCode(err, "M_FORBIDDEN") {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantCode(t, w.CheckFactor(t.Context(), bob.User, answer), 403, "M_FORBIDDEN")
		must(t, w.CheckFactor(t.Context(), alice.User, answer))
		wantCode(t, w.CheckFactor(t.Context(), alice.User, answer), 403, "M_FORBIDDEN") // a replay
		late := w.asked(alice, hers)
		w.pass(ceremonyTime)
		wantCode(t, w.CheckFactor(t.Context(), alice.User, late), 403, "M_FORBIDDEN")
		swapped := w.asked(alice, hers)
		swapped.Passkey = w.asked(alice, hers).Passkey // an answer to another of one's own challenges
		wantCode(t, w.CheckFactor(t.Context(), alice.User, swapped), 403, "M_FORBIDDEN")
		must(t, w.showPasskey(alice, hers))
		for name, change := range map[string]func(*passkey.Authenticator){
			"another site": func(a *passkey.Authenticator) { a.Origin = "https://evil.test" }, "another server's key": func(a *passkey.Authenticator) { a.RPID = "evil.test" },
			"another's handle": func(a *passkey.Authenticator) { a.Handle = []byte("bob") },
		} {
			lying := *hers
			change(&lying)
			if err := w.showPasskey(alice, &lying); !isCode(err, "M_FORBIDDEN") {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Those were looked at, and count.
		wrong := *hers
		wrong.Origin = "https://evil.test"
		wantCode(t, w.showPasskey(alice, &wrong), 403, "M_FORBIDDEN")
		wantCode(t, w.showPasskey(alice, &wrong), 403, "M_FORBIDDEN")
		wantCode(t, w.showPasskey(alice, hers), 429, "M_LIMIT_EXCEEDED")
		w.pass(factorBlock)
		must(t, w.showPasskey(alice, hers))
	})
}

func TestPasskeyCounts(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		stick := &passkey.Authenticator{Origin: origin, Verifies: true, Step: 1}
		w.addPasskey(alice, stick, "stick")
		must(t, w.showPasskey(alice, stick))
		must(t, w.showPasskey(alice, stick))
		copied := *stick // as if somebody had got the key out of it
		must(t, w.showPasskey(alice, stick))
		wantCode(t, w.showPasskey(alice, &copied), 403, "M_FORBIDDEN")
		copied.Count = -1 // it says 0, as if it did not count
		wantCode(t, w.showPasskey(alice, &copied), 403, "M_FORBIDDEN")
		copied.Count = 1
		_, err := w.signIn(&copied)
		wantCode(t, err, 403, "M_FORBIDDEN")
		must(t, w.showPasskey(alice, stick))
		answers := make(chan FactorAnswer, 5)
		stick.Step = 0 // five answers with one count
		stick.Count++
		for range 5 {
			answers <- w.asked(alice, stick)
		}
		if n := atOnce(t, 5, func() error { return w.CheckFactor(t.Context(), alice.User, <-answers) }); n != 1 {
			t.Errorf("of five answers with one count %d had success", n)
		}
	})
}

func TestSignInByPasskey(t *testing.T) {
	proof.Of(t, "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		phone, his := &passkey.Authenticator{Origin: origin, Verifies: true}, &passkey.Authenticator{Origin: origin, Verifies: true}
		w.addPasskey(alice, phone, "phone")
		w.addPasskey(bob, his, "his")
		for a, want := range map[*passkey.Authenticator]store.UserNID{phone: alice.User, his: bob.User} {
			if user, err := w.signIn(a); user != want || err != nil {
				t.Errorf("signed in as %d, %v; want %d", user, err, want)
			}
		}
		for name, change := range map[string]func(*passkey.Authenticator){
			"another site": func(a *passkey.Authenticator) { a.Origin = "https://evil.test" }, "without a PIN": func(a *passkey.Authenticator) { a.Verifies = false },
			"another's handle": func(a *passkey.Authenticator) { a.Handle = []byte("bob") }, "no handle": func(a *passkey.Authenticator) { a.Handle = []byte{} },
		} {
			lying := *phone
			change(&lying)
			if user, err := w.signIn(&lying); user != 0 || !isCode(err, "M_FORBIDDEN") {
				t.Errorf("%s: signed in as %d, %v", name, user, err)
			}
		}
		options, challenge, err := w.BeginPasskeySignIn(t.Context())
		must(t, err)
		shown, err := phone.Get(options)
		must(t, err)
		if n := atOnce(t, 20, func() error { _, err := w.FinishPasskeySignIn(t.Context(), challenge, shown); return err }); n != 1 {
			t.Errorf("of 20 at once %d signed in by one challenge", n)
		}
		// Challenges are for one purpose.
		second := w.asked(alice, phone)
		_, err = w.FinishPasskeySignIn(t.Context(), second.Challenge, second.Passkey)
		wantCode(t, err, 403, "M_FORBIDDEN")
		options, challenge, err = w.BeginPasskeySignIn(t.Context())
		must(t, err)
		shown, err = phone.Get(options)
		must(t, err)
		wantCode(t, w.CheckFactor(t.Context(), alice.User, FactorAnswer{Type: "passkey", Passkey: shown, Challenge: challenge}), 403, "M_FORBIDDEN")
		// None of that was held against the owner, who is not the one that does it.
		must(t, w.showPasskey(alice, phone))
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetLocked(alice.User, true) }))
		_, err = w.signIn(phone)
		wantCode(t, err, 401, "M_USER_LOCKED")
		must(t, w.Deactivate(t.Context(), bob.User))
		_, err = w.signIn(his)
		wantCode(t, err, 403, "M_FORBIDDEN")
	})
}

func TestPasskeysNeedAHostName(t *testing.T) {
	for url, want := range map[string]bool{
		"https://chat.us.test": true, "http://localhost:8008": true, "https://CHAT.us.test": true, "http://127.0.0.1:8008": false, "https://[::1]": false, "": false,
	} {
		conf := config.Config{}
		conf.PublicURL = url
		if got := relyingParty(&conf) != nil; got != want {
			t.Errorf("passkeys at %q: %v", url, got)
		}
	}
}

// FuzzFactorAnswer gives what nobody should send to everything that reads it.
func FuzzFactorAnswer(f *testing.F) {
	a := &passkey.Authenticator{Origin: origin}
	made, err := a.Create([]byte(`{"publicKey":{"challenge":"AAAA","rp":{"id":"chat.us.test"},"user":{"id":"AAAA"}}}`))
	must(f, err)
	shown, err := a.Get([]byte(`{"publicKey":{"challenge":"AAAA","rpId":"chat.us.test"}}`))
	must(f, err)
	for _, seed := range []string{"123456", " 123 456 ", "１２３４５６", "ABCDE-FGHJK-LMNPQ-RSTUV", "abcde fghjk lmnpq rstuv", "{}", "null", string(made), string(shown)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if code := totpCode(text); code != "" && (len(code) != totpDigits || code != strings.ReplaceAll(text, " ", "")) {
			t.Errorf("%q reads as the code %q", text, code)
		}
		if letters := recoveryLettersOf(text); letters != "" && len(letters) != recoveryLetters {
			t.Errorf("%q reads as the recovery code %q", text, letters)
		}
		if _, err := parseMade(json.RawMessage(text)); err != nil && !isCode(err, "M_INVALID_PARAM") {
			t.Error(err)
		}
		if _, err := parseShown(json.RawMessage(text)); err != nil && !isCode(err, "M_INVALID_PARAM") {
			t.Error(err)
		}
	})
}
