package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

func (w *world) ExchangeThirdPartyInvite(_ context.Context, server matrix.ServerName, _ matrix.RoomID, _ []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.enter("exchange_third_party_invite", server)
}

func TestAddresses(t *testing.T) {
	proof.Of(t, "ID-12")
	for _, c := range []struct{ medium, text, want string }{
		{"email", "Strauß@Example.com", "strauss@example.com"}, {"email", "bob@example.com", "bob@example.com"}, {"email", "ΣΊΣΥΦΟΣ@ΔΟΚΙΜΉ.example", "σίσυφοσ@δοκιμή.example"},
		{"email", "a+b@x", "a+b@x"}, {"msisdn", "447700900750", "447700900750"}, {"msisdn", "+447700900750", "447700900750"},
	} {
		if a, err := ParseAddress(c.medium, c.text); err != nil || a.Text != c.want || a.Medium != c.medium {
			t.Errorf("%s %q is %+v, %v; want %q", c.medium, c.text, a, err, c.want)
		}
	}
	for _, c := range [][2]string{
		{"email", ""}, {"email", "bob"}, {"email", "@example.com"}, {"email", "bob@"}, {"email", "Bob <bob@example.com>"}, {"email", "bob @example.com"}, {"email", "bob@example.com email pepper"},
		{"email", "bob@example.com\n"}, {"email", "b\x00b@example.com"}, {"email", "b\xffb@example.com"}, {"email", strings.Repeat("b", 251) + "@x.y"}, {"email", "a,b@x.test"},
		{"msisdn", ""}, {"msisdn", "+"}, {"msisdn", "++44"}, {"msisdn", "0044"}, {"msisdn", "44 7700"}, {"msisdn", "1234567890123456"}, {"msisdn", "٤٤٧٧"},
		{"", "bob@example.com"}, {"carrier pigeon", "bob"},
	} {
		if a, err := ParseAddress(c[0], c[1]); err == nil {
			t.Errorf("%s %q is taken for %+v", c[0], c[1], a)
		}
	}
}

// claimOf is a claim of a user of ours to an invitation in a room that we are not in.
func claimOf(t *testing.T, user matrix.UserID, token string) Claim {
	t.Helper()
	signed := fmt.Sprintf(`{"mxid":%q,"token":%q,"signatures":{"id.test":{"ed25519:0":"AAAA"}}}`, user, token)
	c, err := NewClaim("!elsewhere:near.test", string(alice), string(user), json.RawMessage(signed))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClaimsOutliveWhatFails keeps invitations by address whose server cannot be reached, with growing pauses, until it can
// or too much time has passed.
func TestClaimsOutliveWhatFails(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RM-10")
		w := newWorld(t, 11)
		at := time.UnixMilli(1_800_000_000_000)
		w.now = func() time.Time { return at }
		n := newNode(t, db, w)
		user := n.sender(me)
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.CreateAccount(store.Account{User: user.NID, ID: me})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		waiting := func() (count int) {
			t.Helper()
			if err := db.Read(t.Context(), func(tx *store.Tx) (err error) {
				count, err = tx.CountJobs(store.JobClaim, maxClaims)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return count
		}
		places := make(chan struct{}, claimsAtime)
		round := func(asked, left int) {
			t.Helper()
			if err := n.claimsDue(t.Context(), places); err != nil {
				t.Fatal(err)
			}
			n.settled()
			if got := w.count("exchange_third_party_invite"); got != asked || waiting() != left {
				t.Errorf("asked %d times, %d claims wait; want %d, %d", got, waiting(), asked, left)
			}
		}
		bound := func(claims ...Claim) error { return n.Bound(t.Context(), me, claims) }
		w.down[near] = true
		if err := bound(claimOf(t, me, "a"), claimOf(t, me, "b")); err != nil {
			t.Fatal(err)
		}
		round(2, 2)
		if err := bound(claimOf(t, me, "a")); err != nil { // told again
			t.Fatal(err)
		}
		round(2, 2) // not before its time
		at = at.Add(claimAgain)
		round(4, 2)
		w.mu.Lock()
		w.down[near] = false
		w.mu.Unlock()
		at = at.Add(claimAgain)
		round(4, 2) // the pause has doubled
		at = at.Add(claimAgain)
		round(6, 0)

		w.mu.Lock()
		w.down[near] = true
		w.mu.Unlock()
		if err := bound(claimOf(t, me, "c")); err != nil {
			t.Fatal(err)
		}
		for i := range claimTries {
			round(7+i, min(1, claimTries-1-i))
			at = at.Add(claimAgain << i)
		}
		at = at.Add(24 * time.Hour)
		round(6+claimTries, 0)

		many := make([]Claim, 0, maxClaims)
		for i := range maxClaims {
			many = append(many, claimOf(t, me, fmt.Sprint("t", i)))
		}
		var full *matrix.Error
		if err := bound(append(many, claimOf(t, me, "more"))...); !errors.As(err, &full) || full.Code != "M_LIMIT_EXCEEDED" || waiting() != 0 {
			t.Errorf("more claims than may wait: %v, %d wait", err, waiting())
		}
		if err := n.Bound(t.Context(), eve, nil); err == nil {
			t.Error("a binding of another server's user was taken in")
		}
	})
}
