package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

const testAddress = "bob@bücher.example"

// readers are a world with mail, whose user has an address and a pusher to it, and two nodes that deliver.
type readers struct {
	*world
	pushers *Pushers
	digests *Digests
	waits   []waits
	stop    func()
}

// waits is an event that was to be told of.
type waits struct {
	pos  store.Pos
	room string
	at   time.Time
}

func newReaders(t *testing.T, db *store.DB) *readers {
	r := &readers{world: newWorld(t, db)}
	r.digests = &Digests{Source: r, Key: []byte(strings.Repeat("k", 32))}
	r.pushers = NewPushers(db, nil, r.digests, func() {})
	r.write(func(tx *store.Tx) error {
		if err := tx.DeletePusher(r.user.NID, "app", testKey); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO devices (nid, member, device_id, name, seen, address) VALUES (1, $1, 'PHONE', '', 0, '')`, r.user.NID); err != nil {
			return err
		}
		_, err := tx.AddThreepid(store.Threepid{Medium: "email", Address: testAddress, User: r.user.NID, Lang: "en", Validated: 1, Added: 1})
		return err
	})
	if err := r.set("Bob@Bücher.example", emailApp, kindEmail); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

func (r *readers) set(key, app, kind string) error {
	name := "x"
	return r.pushers.Set(r.t.Context(), r.user.NID, 1, Wanted{
		Kind: &kind, AppID: app, Key: key, AppName: &name, DeviceName: &name, Lang: &name, Data: json.RawMessage(`{"brand":"x"}`),
	})
}

// start lets two nodes work until stop is called.
func (r *readers) start() {
	with := func(o *DelivererOptions) { o.Mail = r.digests }
	_, a := r.run(with)
	_, b := r.run(with)
	r.stop = func() { a(); b() }
}

// Waiting implements DigestSource.
func (r *readers) Waiting(_ context.Context, _ store.UserNID, _ matrix.UserID, after, upTo store.Pos) (list []Waiting, reached store.Pos, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range slices.Backward(r.waits) {
		same := func(w Waiting) bool { return w.Room.Name == one.room }
		if one.pos <= after || one.pos > upTo {
			continue
		}
		if i := slices.IndexFunc(list, same); i >= 0 {
			list[i].Room.Unread++
			continue
		}
		list = append(list, Waiting{Newest: one.at, Room: mail.WaitingRoom{Name: one.room, Unread: 1, From: []string{"Alice"}}})
	}
	return list, upTo, nil
}

// say lets something come into a room, sent at a time that its sender names.
func (r *readers) say(room string, at time.Time) {
	r.move(func(pos store.Pos) {
		r.waits = append(r.waits, waits{pos, room, at})
		r.notices = append(r.notices, Notice{Pos: pos})
	})
}

// read lets the user have read all.
func (r *readers) read() {
	r.move(func(store.Pos) { r.waits, r.notices = nil, nil })
}

// pusher is the user's one, nil if there is none.
func (r *readers) pusher() *store.Pusher {
	list, err := r.pushers.Of(r.t.Context(), r.user.NID)
	if err != nil || len(list) == 0 {
		return nil
	}
	return &list[0]
}

// untilDue waits until the pusher is to be looked at in a while from now, 0 for never.
func (r *readers) untilDue(in time.Duration) {
	r.t.Helper()
	want := int64(0)
	if in != 0 {
		want = r.clock().Add(in).UnixMilli()
	}
	got := int64(-1)
	defer func() {
		if r.t.Failed() {
			r.t.Logf("it is due in %v, want %v", time.UnixMilli(got).Sub(r.clock()), in)
		}
	}()
	wait.Until(r.t, fmt.Sprintf("a mail to be due in %v", in), func() bool {
		p := r.pusher()
		if p == nil {
			return false
		}
		got = p.RetryAt
		return got == want && (p.Waiting == 0) == (in == 0)
	})
}

// mailed takes the mails that were written and says what rooms they are about, and how many things in each.
func (r *readers) mailed() (list []string) {
	r.t.Helper()
	r.write(func(tx *store.Tx) error {
		list = nil
		for {
			m, err := tx.LeaseMail(r.clock().UnixMilli(), 1000)
			if err != nil || m == nil {
				return err
			}
			var facts struct{ Waiting mail.Waiting }
			if err := json.Unmarshal([]byte(m.Facts), &facts); err != nil {
				return err
			}
			text := m.Address + ":"
			for _, room := range facts.Waiting.Rooms {
				text += fmt.Sprint(" ", room.Name, " ", room.Unread)
			}
			list = append(list, text)
			if err := tx.EndMail(*m); err != nil {
				return err
			}
		}
	})
	return list
}

// untilMailed lets time pass and waits for the one mail that is due.
func (r *readers) untilMailed(after time.Duration, rooms string) {
	r.t.Helper()
	r.advance(after)
	r.untilDue(0)
	if got := r.mailed(); len(got) != 1 || got[0] != testAddress+": "+rooms {
		r.t.Errorf("mailed %q, want one about %q", got, rooms)
	}
}

func TestDigests(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		r := newReaders(t, db)
		now := r.clock
		// What is read in time is not told of.
		r.say("one", now())
		r.untilDue(10 * time.Minute)
		r.read()
		r.advance(10 * time.Minute)
		r.untilDue(0)
		if got := r.mailed(); len(got) != 0 {
			t.Errorf("mailed of what was read: %q", got)
		}
		// Two rooms make one mail, ten minutes after the newest of a room; what senders say of the time counts within bounds.
		r.say("one", now().Add(-time.Hour))
		r.untilDue(10 * time.Minute)
		r.advance(5 * time.Minute)
		r.say("one", now())
		r.say("two", now().Add(24*time.Hour))
		r.stop() // and all that is known stands in rows
		r.start()
		r.advance(5 * time.Minute)
		r.untilDue(5 * time.Minute)
		r.untilMailed(5*time.Minute, "two 1 one 2")
		// The pauses get longer, until the user is seen.
		for i, pause := range []time.Duration{time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour, 24 * time.Hour} {
			r.say("one", now())
			r.untilDue(pause)
			r.untilMailed(pause, "one 1")
			if i == 3 {
				r.stop()
				r.start()
			}
		}
		r.say("one", now())
		r.untilDue(24 * time.Hour)
		r.advance(30 * time.Minute)
		r.write(func(tx *store.Tx) error { return tx.TouchDevice(1, now().UnixMilli(), "") })
		r.untilDue(30 * time.Minute)
		r.untilMailed(30*time.Minute, "one 1")
		// A room that never gets quiet does not put it off for ever.
		r.advance(time.Hour)
		r.say("one", now())
		r.untilDue(10 * time.Minute)
		for i, next := range []time.Duration{9, 9, 9, 9, 9, 5} {
			r.advance(8 * time.Minute)
			if i == 0 {
				r.advance(time.Minute)
			}
			r.say("one", now())
			r.advance(time.Minute)
			r.untilDue(next * time.Minute)
		}
		r.untilMailed(5*time.Minute, "one 7")
		// Whoever slept through the end of its lease sends nothing.
		r.stop()
		r.say("one", now())
		var asleep *store.Pusher
		nid := r.pusher().NID
		r.write(func(tx *store.Tx) (err error) {
			if asleep, err = tx.LeasePusher(nid, now().UnixMilli(), 60_000, false); err == nil {
				_, err = tx.LeasePusher(asleep.NID, now().UnixMilli(), 60_000, true)
			}
			return err
		})
		list, _, err := r.Waiting(t.Context(), 0, "", asleep.Pos, 1<<60)
		sleeper := &worker{d: NewDeliverer(DelivererOptions{DB: db, Mail: r.digests, Clock: now}), p: *asleep}
		if failed := sleeper.mail(t.Context(), list, now()); err != nil || failed != nil || len(list) != 1 || len(r.mailed()) != 0 || r.pusher().Mailed != asleep.Mailed {
			t.Errorf("%v %v: a lost lease still mails, of %v", err, failed, list)
		}
	})
}

// TestWhoGetsDigests asks for mail to addresses of the account and to others, and ends it.
func TestWhoGetsDigests(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		r := newReaders(t, db)
		for _, c := range []struct{ key, app, kind, code string }{
			{"eve@e.example", emailApp, kindEmail, "M_THREEPID_NOT_FOUND"},
			{"bob", emailApp, kindEmail, "M_THREEPID_NOT_FOUND"},
			{testAddress, "org.example", kindEmail, "M_INVALID_PARAM"},
			{testAddress, emailApp, kindHTTP, "M_INVALID_PARAM"},
			{testAddress, emailApp, KindWebPush, "M_INVALID_PARAM"},
		} {
			var refused *matrix.Error
			if err := r.set(c.key, c.app, c.kind); !errors.As(err, &refused) || refused.Code != c.code {
				t.Errorf("%+v: %v", c, err)
			}
		}
		p := r.pusher()
		if p == nil || p.Key != testAddress || p.Device != 0 {
			t.Fatalf("%+v", p)
		}
		token := r.digests.token(p)
		stranger := *p
		stranger.User++
		for _, wrong := range []string{"", "x", token[:len(token)-4], token + "AAAA", r.digests.token(&stranger), (&Digests{Key: []byte("other")}).token(p)} {
			for _, use := range []func(context.Context, string) (string, error){r.pushers.Unsubscribable, r.pushers.Unsubscribe} {
				if to, err := use(t.Context(), wrong); to != "" || err != nil {
					t.Errorf("with %q: %q %v", wrong, to, err)
				}
			}
		}
		if to, err := r.pushers.Unsubscribable(t.Context(), token); to != testAddress || err != nil || r.pusher() == nil {
			t.Errorf("looking at the link: %q %v", to, err)
		}
		for _, want := range []string{testAddress, ""} {
			if to, err := r.pushers.Unsubscribe(t.Context(), token); to != want || err != nil || r.pusher() != nil {
				t.Errorf("using the link: %q %v, want %q", to, err, want)
			}
		}
		// It ends with the address, also where a mail is due at that moment.
		for _, end := range []func(tx *store.Tx) error{
			func(tx *store.Tx) error { _, err := tx.DeleteThreepid(r.user.NID, "email", testAddress); return err },
			func(tx *store.Tx) error { return tx.DeleteThreepids(r.user.NID) },
			func(tx *store.Tx) error { _, err := tx.Exec(`DELETE FROM threepids`); return err },
		} {
			r.write(func(tx *store.Tx) error {
				_, err := tx.AddThreepid(store.Threepid{Medium: "email", Address: testAddress, User: r.user.NID, Lang: "en", Validated: 1, Added: 1})
				return err
			})
			if err := r.set(testAddress, emailApp, kindEmail); err != nil {
				t.Fatal(err)
			}
			r.say("one", r.clock())
			r.untilDue(10 * time.Minute)
			r.write(end)
			r.advance(10 * time.Minute)
			wait.Until(t, "the pusher to end with the address", func() bool { return r.pusher() == nil })
			if got := r.mailed(); len(got) != 0 {
				t.Errorf("mailed %q", got)
			}
		}
	})
}
