package clientapi

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// plainly makes a request with exactly the given headers, to any URL.
func plainly(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // what the port serves, not whose it is
	}}
	res, err := shapes.Do(t, &client, req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// formOf is a body as the forms of other sites can send it, with everything that a victim's browser could add.
var formOf = map[string]string{
	"application/x-www-form-urlencoded": "user_id=x&username=eve&password=12345678&auth=dummy&access_token=",
	"multipart/form-data; boundary=x":   "--x\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\n",
	"text/plain":                        "access_token=",
}

// TestOtherSitesChangeNothing sends to every route what a page of another site can make a browser send: no header but the
// simple ones, cookies, the token in the body. Nothing is done, no cookie is ever set, and no answer lets credentials in.
func TestOtherSitesChangeNothing(t *testing.T) {
	proof.Of(t, "A12")
	s := testserver.Start(t, testserver.Options{})
	alice := s.Register("alice")
	p := newTarget(t, s, alice)
	check := func(what string, res *http.Response) {
		t.Helper()
		if got := res.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
			t.Errorf("%s: Access-Control-Allow-Origin %q", what, got)
		}
		if res.Header.Get("Access-Control-Allow-Credentials") != "" || res.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", what, res.Header)
		}
	}
	for _, r := range Routes() {
		where := s.URL + p.path(t, r, r.Path)
		res, _ := plainly(t, "OPTIONS", where, "", "Origin", "https://evil.test", "Access-Control-Request-Method", r.Method, "Access-Control-Request-Headers", "authorization")
		check("preflight of "+r.OperationID, res)
		if r.OperationID != "im.conclave.ws.sync" && !strings.HasPrefix(r.OperationID, "logout") {
			res, _ = plainly(t, r.Method, where, "", "Origin", "https://evil.test", "Authorization", "Bearer "+alice.Token)
			check(r.OperationID, res)
		}
		for kind, form := range formOf {
			res, text := plainly(t, r.Method, where, form+alice.Token, "Origin", "https://evil.test", "Content-Type", kind, "Cookie", "access_token="+alice.Token+"; Authorization=Bearer "+alice.Token)
			check(r.OperationID+" by form", res)
			refused := res.StatusCode == http.StatusUnauthorized
			if r.Auth == NoAuth || r.Auth == OptionalToken {
				refused = res.StatusCode >= 400 && res.StatusCode < 500 || r.Method == get || r.Method == http.MethodHead
			}
			if !refused {
				t.Errorf("%s by a form of the type %s: %d %s", r.OperationID, kind, res.StatusCode, text)
			}
		}
	}
	if res, _ := plainly(t, "GET", s.URL+"/", ""); res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("the client's page: %v", res.Header)
	}
	alice.Must("GET", "/account/whoami", nil)
}

// TestNoAnswerBecomesAPage puts markup wherever a request has room for it: an answer that is a page repeats none of it, and
// every other one is no page. The headers of pages are as they stand here.
func TestNoAnswerBecomesAPage(t *testing.T) {
	proof.Of(t, "A14")
	s := testserver.Start(t, testserver.Options{})
	alice := s.Register("alice")
	const evil = `<script>alert(1)</script>`
	check := func(what string, res *http.Response, text string) {
		t.Helper()
		csp := res.Header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, directive) && !strings.HasPrefix(csp, "sandbox;") {
				t.Errorf("%s: the policy %q lacks %q", what, csp, directive)
			}
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(text, evil) ||
			strings.Contains(res.Header.Get("Content-Type"), "html") && !strings.HasPrefix(what, "page") {
			t.Errorf("%s: %d %v %s", what, res.StatusCode, res.Header, text)
		}
	}
	auth := []string{"Authorization", "Bearer " + alice.Token, "X-Forwarded-Host", evil, "User-Agent", evil, "Referer", "https://x.test/" + evil}
	for _, r := range Routes() {
		if strings.HasPrefix(r.OperationID, "logout") {
			continue
		}
		path := r.Path
		for _, name := range r.pathParams() {
			path = strings.Replace(path, ":"+name, url.PathEscape(evil), 1)
		}
		q := "?" + url.Values{"since": {evil}, "filter": {evil}, "dir": {evil}, "from": {evil}, "username": {evil}, "ticket": {evil}, "limit": {evil}, "token": {evil}, "url": {evil}, "server": {evil}}.Encode()
		for _, query := range []string{"", q} {
			what := r.OperationID
			if what == "im.conclave.email.page" {
				what = "page of a link"
			}
			res, text := plainly(t, r.Method, s.URL+path+query, `{"type":"`+evil+`","user_id":"`+evil+`","`+evil+`":1}`, auth...)
			check(what+query, res, text)
		}
	}
	for _, path := range []string{"/_matrix/" + evil, "/_matrix/client/v3/" + evil, "/_matrix/static/", "/_matrix/client/v3/auth/" + evil + "/fallback/web",
		"/_synapse/" + evil, "/.well-known/" + evil, "/.well-known/matrix/client", "/_matrix/client/v3/login/sso/redirect?redirectUrl=javascript:alert(1)"} {
		for _, method := range []string{"GET", "POST", "PATCH"} {
			res, text := plainly(t, method, s.URL+strings.ReplaceAll(path, evil, url.PathEscape(evil)), "", auth...)
			check(method+" "+path, res, text)
		}
	}
	for _, path := range []string{"/", "/index.html", "/room/" + evil, "/" + evil, "/x.html?" + evil, "/assets/" + evil, "//evil.test/", "/none.txt"} {
		res, text := plainly(t, "GET", s.URL+strings.ReplaceAll(path, evil, url.PathEscape(evil)), "", auth...)
		check("page "+path, res, text)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; font-src 'self'; connect-src 'self'; " +
				"worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types conclave",
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "", "Set-Cookie": "",
			"Location": "",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("page %s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

// adminDoors are the operations below an administrator's path that others may call, because something else protects them:
// an HMAC with the shared secret, and that everybody may ask about themselves.
var adminDoors = map[string]bool{"im.conclave.sharedSecretNonce": true, "im.conclave.sharedSecretRegister": true, "getWhoIs": true}

// TestAdministrationIsForAdministrators calls what is for operators and administrators as everybody else, on both public
// ports. The first account of a server is nobody special.
func TestAdministrationIsForAdministrators(t *testing.T) {
	proof.Of(t, "A19")
	s := testserver.Start(t, testserver.Options{})
	first := s.Register("first")
	p := newTarget(t, s, first)
	other := s.Register("other")
	admins := 0
	for _, r := range Routes() {
		if r.Auth != Admin && !strings.Contains(r.Path, "/admin/") {
			continue
		}
		admins++
		if _, limited := budgets[r.Limit]; !limited || r.Auth != Admin && !adminDoors[r.OperationID] {
			t.Errorf("%s has the authentication %d and the limit %d", r.OperationID, r.Auth, r.Limit)
		}
		if r.OperationID == "im.conclave.sharedSecretNonce" {
			continue
		}
		for who, want := range map[string]int{"": 401, first.Token: 403, other.Token: 403} {
			headers := []string{"Authorization", "Bearer " + who}
			if who == "" {
				headers = nil
			}
			if who == first.Token && r.OperationID == "getWhoIs" {
				want = http.StatusOK // of oneself
			}
			res, text := plainly(t, r.Method, s.URL+p.path(t, r, r.Path), `{"locked":true,"suspended":true,"nonce":"x","username":"eve","password":"12345678","admin":true,"mac":"00"}`, headers...)
			if r.OperationID == "im.conclave.sharedSecretRegister" {
				want = http.StatusForbidden
			}
			if res.StatusCode != want {
				t.Errorf("%s: %d %s, want %d", r.OperationID, res.StatusCode, text, want)
			}
		}
		res, text := plainly(t, r.Method, "https://"+string(s.Name)+p.path(t, r, r.Path), `{}`, "Authorization", "Bearer "+first.Token)
		if res.StatusCode < 400 {
			t.Errorf("%s on the port of other servers: %d %s", r.OperationID, res.StatusCode, text)
		}
	}
	if admins < 6 {
		t.Errorf("only %d routes are an administrator's: the test has gone blind", admins)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/vars", "/_synapse/metrics", "/_matrix/../metrics"} {
		for _, port := range []string{s.URL, "https://" + string(s.Name)} {
			_, text := plainly(t, "GET", port+path, "")
			for _, secret := range []string{"conclave_", "goroutine", "profile", "go_", "memstats", "-config"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s%s tells %s", port, path, text)
				}
			}
		}
	}
	if res, text := plainly(t, "GET", s.Admin+"/metrics", ""); res.StatusCode != 200 || !strings.Contains(text, "conclave_") {
		t.Errorf("the test has gone blind: the operator's port answers %d", res.StatusCode)
	}
}

// TestWhatStrangersSee asks for profiles and directories without a session, and as somebody who shares nothing with the
// user asked about.
func TestWhatStrangersSee(t *testing.T) {
	proof.Of(t, "A20")
	s := testserver.Start(t, testserver.Options{})
	alice, stranger := s.Register("alice"), s.Register("stranger")
	p := newTarget(t, s, alice)
	alice.Must("POST", "/createRoom", testserver.JSON{"preset": "public_chat", "visibility": "public", "name": "published", "room_alias_name": "open"})
	for _, r := range [][2]string{{"GET", "/publicRooms"}, {"POST", "/publicRooms"}, {"GET", "/profile/" + alice.ID}, {"GET", "/profile/" + alice.ID + "/displayname"},
		{"GET", "/profile/@nobody:" + string(s.Name)}, {"POST", "/keys/query"}, {"GET", "/presence/" + alice.ID + "/status"}} {
		s.Nobody().Refused(401, "M_MISSING_TOKEN", r[0], r[1], testserver.JSON{"search_term": "a"})
	}
	// An alias that one knows can be resolved, as the specification asks, but no other server is asked for strangers.
	s.Nobody().Must("GET", testserver.Path("directory", "room", "#open:"+string(s.Name)), nil)
	s.Nobody().Refused(404, "M_NOT_FOUND", "GET", testserver.Path("directory", "room", "#open:elsewhere.test"), nil)
	alice.Must("PUT", testserver.Path("profile", alice.ID, "avatar_url"), testserver.JSON{"avatar_url": "mxc://x.test/y"})
	profile := stranger.Must("GET", "/profile/"+alice.ID, nil).Body
	for field := range profile {
		if field != "displayname" && field != "avatar_url" {
			t.Errorf("a stranger sees %q of a profile: %v", field, profile)
		}
	}
	found := stranger.Must("GET", "/publicRooms", nil)
	if strings.Contains(string(found.Raw), p.params["roomId"]) || !strings.Contains(string(found.Raw), "published") {
		t.Errorf("the directory: %s", found.Raw)
	}
	for _, path := range []string{"/presence/" + alice.ID + "/status", testserver.Path("rooms", p.params["roomId"], "joined_members"), "/admin/whois/" + alice.ID} {
		stranger.Refused(403, "M_FORBIDDEN", "GET", path, nil)
	}
	devices, _ := stranger.Must("POST", "/keys/query", testserver.JSON{"device_keys": testserver.JSON{alice.ID: []string{}}}).Body["device_keys"].(testserver.JSON)
	if len(devices) > 1 || strings.Contains(string(stranger.Must("GET", "/sync", nil).Raw), alice.ID) {
		t.Errorf("a stranger learns of %v", devices)
	}
}
