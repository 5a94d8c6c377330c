package clientapi_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
)

// signedOn is a client's session of somebody who came by the provider.
func signedOn(t *testing.T, s *testserver.Server, issuer, name string) *testserver.User {
	t.Helper()
	b := newBrowser(t)
	page := b.signOn(s, issuer, name, ssoTarget)
	done := b.send(s.URL+"/_matrix/client/unstable/im.conclave.sso/continue", url.Values{"sign_in": {b.field(page, "sign_in")}})
	u := s.Nobody()
	body := u.Must("POST", "/login", object{"type": "m.login.token", "token": tokenOf(t, done)}).Body
	u.ID, _ = body["user_id"].(string)
	u.Token, _ = body["access_token"].(string)
	u.Device, _ = body["device_id"].(string)
	return u
}

// confirmAt leads a browser over the page of a stage to the provider, lets somebody sign in there, and comes back.
func (b *browser) confirmAt(s *testserver.Server, issuer, page, name string) string {
	b.t.Helper()
	leaving := b.send(s.URL+page, url.Values{})
	away := regexp.MustCompile(`<a class="button" href="([^"]*)"`).FindStringSubmatch(leaving)
	if away == nil || !strings.HasPrefix(away[1], issuer) || !strings.Contains(away[1], "prompt=login") {
		b.t.Fatalf("the page leads nowhere: %d %s", b.last.StatusCode, leaving)
	}
	login := b.open(html.UnescapeString(away[1]))
	return b.send(issuer+"/login/username", url.Values{"id": {b.field(login, "id")}, "username": {name}, "password": {idp.Password}})
}

// asked makes a request that may want to be confirmed.
func asked(t *testing.T, u *testserver.User, path string, body object) *testserver.Answer {
	t.Helper()
	answer, err := u.Do("DELETE", path, body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestConfirmingByTheProvider(t *testing.T) {
	proof.Of(t, "AN-05", "AN-07", "A03", "A12", "A14")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s, issuer := ssoServer(t, engine, "ann", "eve")
		ann, other := signedOn(t, s, issuer, "ann"), signedOn(t, s, issuer, "ann")
		signedOn(t, s, issuer, "eve")
		path := "/devices/" + other.Device
		challenge := asked(t, ann, path, object{})
		session, _ := challenge.Body["session"].(string)
		flows, _ := challenge.Body["flows"].([]any)
		if challenge.Status != http.StatusUnauthorized || len(flows) != 1 || session == "" {
			t.Fatalf("%d %v", challenge.Status, challenge.Body)
		}
		page := "/_matrix/client/v3/auth/m.login.sso/fallback/web?session=" + session
		shown := visit(t, s, page, nil).check(t, http.StatusOK, "en")
		if !strings.Contains(shown.text, "end a session of the account: "+ann.ID) {
			t.Errorf("the page does not say what it is about:\n%s", shown.text)
		}
		if german := visit(t, s, page, nil, "Accept-Language", "de").check(t, http.StatusOK, "de"); !strings.Contains(german.text, "eine Sitzung des Kontos beenden: "+ann.ID) {
			t.Errorf("the German page says:\n%s", german.text)
		}
		again := object{"auth": object{"session": session}}

		// A form of another site; and somebody else at the provider, which is told.
		if no := visit(t, s, page, url.Values{}, "Sec-Fetch-Site", "cross-site"); no.status != http.StatusForbidden || strings.Contains(no.header.Get("Set-Cookie"), "conclave_sso") {
			t.Errorf("a form of another site got %d %v", no.status, no.header)
		}
		b := newBrowser(t)
		if text := b.confirmAt(s, issuer, page, "eve"); b.last.StatusCode != http.StatusForbidden || !strings.Contains(text, "somebody else") || strings.Contains(text, "/done.") {
			t.Errorf("eve got %d %s", b.last.StatusCode, text)
		}
		if no := asked(t, ann, path, again); no.Status != http.StatusUnauthorized || no.Body["completed"] != nil {
			t.Errorf("eve has confirmed: %v", no.Body)
		}

		// Ann herself: the page of the end tells the client's window.
		text := b.confirmAt(s, issuer, page, "ann")
		if b.last.StatusCode != http.StatusOK || !strings.Contains(text, "/oauth2/page/done.") || !strings.Contains(b.last.Header.Get("Content-Security-Policy"), "script-src 'nonce-") {
			t.Errorf("ann got %d %s", b.last.StatusCode, text)
		}
		if done := visit(t, s, page, nil).check(t, http.StatusOK, "en"); !strings.Contains(done.text, "window.onAuthDone") {
			t.Errorf("the page of a stage that is passed says %s", done.text)
		}
		if no := asked(t, ann, "/devices/"+ann.Device, again); no.Status != http.StatusUnauthorized || no.Body["completed"] != nil {
			t.Errorf("it confirms the end of another session: %v", no.Body)
		}
		ann.Must("DELETE", path, again)
		other.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		if gone := visit(t, s, page, nil); gone.status != http.StatusNotFound {
			t.Errorf("the page outlives its session: %d", gone.status)
		}
	})
}
