package clientapi_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"conclave/internal/testserver"
)

var unsubscribeLink = regexp.MustCompile(`https?://\S+/email/unsubscribe\?\S+`)

// TestDigestByMail lets something wait unread in two rooms while the server is away, and follows the mail to its end: the
// page that asks, and the button.
func TestDigestByMail(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		m := startMailed(t, testserver.Options{Engine: engine})
		alice, bob := m.Register("alice"), m.Register("bob")
		const to = "bob@b.example"
		m.addressOf(bob, to)
		set := func(address string) object {
			return object{"kind": "email", "app_id": "m.email", "pushkey": address, "app_display_name": "Mail", "device_display_name": address, "lang": "de-AT",
				"data": object{"brand": "x"}}
		}
		bob.Refused(400, "M_THREEPID_NOT_FOUND", "POST", "/pushers/set", set("carol@b.example"))
		alice.Refused(400, "M_THREEPID_NOT_FOUND", "POST", "/pushers/set", set(to))
		bob.Must("POST", "/pushers/set", set("Bob@B.example"))
		pushers := func() int {
			list, _ := bob.Must("GET", "/pushers", nil).Body["pushers"].([]any)
			return len(list)
		}
		for _, name := range []string{"Plan", "Safe"} {
			room := alice.CreateRoom(object{"preset": "private_chat", "name": name, "invite": []string{bob.ID}})
			bob.Join(room)
			if name == "Plan" {
				alice.Must("PUT", testserver.Path("rooms", room, "send", "m.room.message", "1"), object{
					"msgtype": "m.text", "body": "the secret text", "m.mentions": object{"user_ids": []string{bob.ID}},
				})
				continue
			}
			alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.encryption")+"/", object{"algorithm": "m.megolm.v1.aes-sha2"})
			for _, txn := range []string{"1", "2"} {
				alice.Must("PUT", testserver.Path("rooms", room, "send", "m.room.encrypted", txn), object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "c1phertext"})
			}
		}
		m.Stop()
		m.Rewrite(`UPDATE pushers SET waiting = 1, retry_at = 1`) // it has waited since 1970
		m.Start()
		mail := m.next(to)
		for _, want := range []string{"„Plan“: 1 ungelesene Nachricht, 1 davon erwähnt dich, von alice", "„Safe“: 2 ungelesene Nachrichten, von alice", m.URL + "/", bob.ID} {
			if !strings.Contains(strings.ReplaceAll(mail.Text, "\u2060", ""), want) {
				t.Errorf("the mail does not tell %q:\n%s", want, mail.Text)
			}
		}
		if raw := mail.Text + mail.HTML + mail.Subject; strings.Contains(raw, "secret text") || strings.Contains(raw, "c1pher") || strings.Contains(mail.Subject, "Plan") {
			t.Errorf("the mail tells what messages say:\n%s", raw)
		}
		link := unsubscribeLink.FindString(mail.Text)
		if !strings.HasPrefix(link, m.URL+"/") || mail.Header.Get("List-Unsubscribe") != "<"+link+">" {
			t.Fatalf("the link is %q, the header %q", link, mail.Header.Get("List-Unsubscribe"))
		}
		for _, step := range []struct {
			method string
			status int
			text   string
			left   int
		}{
			{"GET", http.StatusOK, to, 1}, {"GET", http.StatusOK, `<button type="submit">`, 1}, {"POST", http.StatusOK, "There will be no more", 0},
			{"POST", http.StatusBadRequest, "of no use", 0}, {"GET", http.StatusBadRequest, "of no use", 0},
		} {
			res, page := browse(t, step.method, link, "List-Unsubscribe=One-Click", "Content-Type", "application/x-www-form-urlencoded")
			if res.StatusCode != step.status || !strings.Contains(page, step.text) || pushers() != step.left {
				t.Errorf("%s: %d, %d pushers left\n%s", step.method, res.StatusCode, pushers(), page)
			}
		}
		// What the account has no more, it gets no mail at.
		bob.Must("POST", "/pushers/set", set(to))
		bob.Must("POST", "/account/3pid/delete", object{"medium": "email", "address": to})
		if n := pushers(); n != 0 {
			t.Errorf("%d pushers to an address that was removed", n)
		}
	})
}
