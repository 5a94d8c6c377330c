package clientapi_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
)

// browser is what a person signs in with: it keeps cookies and follows redirects.
type browser struct {
	*http.Client
	t    *testing.T
	last *http.Response
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{Client: &http.Client{Jar: jar, Timeout: time.Minute}, t: t}
}

func (b *browser) read(res *http.Response, err error) string {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	b.last = res
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(body)
}

func (b *browser) open(address string) string { b.t.Helper(); return b.read(b.Get(address)) }

func (b *browser) send(address string, form url.Values) string {
	b.t.Helper()
	return b.read(b.PostForm(address, form))
}

// field is the value of a hidden field of a page.
func (b *browser) field(page, name string) string {
	b.t.Helper()
	found := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
	if found == nil {
		b.t.Fatalf("no field %s in %d %s", name, b.last.StatusCode, page)
	}
	return html.UnescapeString(found[1])
}

// signOn goes to the provider, lets a person sign in there, and comes back to the page that asks whether they mean it.
func (b *browser) signOn(s *testserver.Server, issuer, name, target string) string {
	b.t.Helper()
	page := b.open(s.URL + "/_matrix/client/v3/login/sso/redirect/oidc?redirectUrl=" + url.QueryEscape(target))
	return b.send(issuer+"/login/username", url.Values{"id": {b.field(page, "id")}, "username": {name}, "password": {idp.Password}})
}

const ssoTarget = "https://client.example/app?x=1#y"

// ssoServer starts a server with a provider that knows people by these names.
func ssoServer(t *testing.T, engine string, names ...string) (*testserver.Server, string) {
	t.Helper()
	provider := idp.New(t, names...)
	s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{
		"CONCLAVE_OIDC_ISSUER=" + provider.Issuer, "CONCLAVE_OIDC_CLIENT_ID=" + idp.ClientID, "CONCLAVE_OIDC_CLIENT_SECRET=" + idp.Secret,
	}})
	provider.Serve(s.URL + "/_matrix/client/unstable/im.conclave.sso/callback")
	return s, provider.Issuer
}

var tokenIn = regexp.MustCompile(`href="(https://client\.example/app\?[^"]*)"`)

// tokenOf takes the login token out of the last page.
func tokenOf(t *testing.T, page string) string {
	t.Helper()
	found := tokenIn.FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("no way back to the client in %s", page)
	}
	u, err := url.Parse(html.UnescapeString(found[1]))
	if err != nil || u.Query().Get("x") != "1" || u.Fragment != "y" || u.Query().Get("loginToken") == "" {
		t.Fatalf("the way back is %v, %v", u, err)
	}
	return u.Query().Get("loginToken")
}

func TestSingleSignOn(t *testing.T) {
	proof.Of(t, "AN-18", "AN-09", "ID-04", "A10", "A12")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s, issuer := ssoServer(t, engine, "Ann.Bee@staff.example", "bob")
		anybody := s.Nobody()
		if flows := fmt.Sprint(anybody.Must("GET", "/login", nil).Body); !strings.Contains(flows, "m.login.sso") {
			t.Errorf("the flows are %s", flows)
		}
		b := newBrowser(t)
		page := b.signOn(s, issuer, "Ann.Bee@staff.example", ssoTarget)
		if !strings.Contains(page, "@ann.bee:") || !strings.Contains(page, "https://client.example") || b.last.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("the page asks: %s", page)
		}
		const path = "/_matrix/client/unstable/im.conclave.sso/continue"
		secret := b.field(page, "sign_in")
		done := b.send(s.URL+path, url.Values{"sign_in": {secret}})
		login := object{"type": "m.login.token", "token": tokenOf(t, done)}
		first := anybody.Must("POST", "/login", login).Body
		anybody.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", login)
		b.send(s.URL+path, url.Values{"sign_in": {secret}})
		if b.last.StatusCode != http.StatusForbidden {
			t.Errorf("a page that was used was answered %d", b.last.StatusCode)
		}
		if first["user_id"] != "@ann.bee:"+string(s.Name) {
			t.Errorf("%v signed on", first["user_id"])
		}

		// The provider by its name.
		named := newBrowser(t)
		named.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		named.open(s.URL + "/_matrix/client/v3/login/sso/redirect/oidc?redirectUrl=" + url.QueryEscape(ssoTarget))
		if to := named.last.Header.Get("Location"); named.last.StatusCode != http.StatusFound || !strings.HasPrefix(to, issuer) {
			t.Errorf("the provider's own address leads to %d %q", named.last.StatusCode, to)
		}

		// The same person once more, in another browser.
		page = newBrowser(t).signOn(s, issuer, "Ann.Bee@staff.example", ssoTarget)
		if !strings.Contains(page, "@ann.bee:") {
			t.Errorf("the second time the page asks: %s", page)
		}

		// The name is somebody's whom the provider does not mean.
		s.Register("bob")
		page = newBrowser(t).signOn(s, issuer, "bob", ssoTarget)
		if strings.Contains(page, "sign_in") || !strings.Contains(page, "bob") {
			t.Errorf("a name that is taken was given away: %s", page)
		}
	})
}

// TestSingleSignOnIsNotAbused plays those who would sign others in, or send them elsewhere.
func TestSingleSignOnIsNotAbused(t *testing.T) {
	proof.Of(t, "A13", "A12")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s, issuer := ssoServer(t, engine, "ann", "eve")
		for _, target := range []string{
			"/app", "client.example", "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://x",
			"about:blank", "https://", "https:client.example", "http:///x", "https://user:secret@client.example/", "https://client.example/\n", "https://client.example/%zz",
			" https://client.example", "//client.example", "filesystem:https://x", "view-source:https://x", "https://client.example/" + strings.Repeat("x", 2000),
		} {
			s.Nobody().Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/login/sso/redirect?redirectUrl="+url.QueryEscape(target), nil)
		}
		s.Nobody().Refused(http.StatusBadRequest, "M_MISSING_PARAM", "GET", "/login/sso/redirect", nil)
		s.Nobody().Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/login/sso/redirect/other?redirectUrl="+url.QueryEscape(ssoTarget), nil)

		// Eve comes back from the provider, but lets Ann's browser follow the last link: Ann would be signed in as Eve.
		eve := newBrowser(t)
		var back string
		eve.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
			if strings.Contains(next.URL.Path, "im.conclave.sso/callback") {
				back = next.URL.String()
				return http.ErrUseLastResponse
			}
			return nil
		}
		eve.signOn(s, issuer, "eve", ssoTarget)
		ann := newBrowser(t)
		if page := ann.open(back); ann.last.StatusCode != http.StatusForbidden || strings.Contains(page, "sign_in") {
			t.Errorf("another's way back was answered %d %s", ann.last.StatusCode, page)
		}
		eve.CheckRedirect = nil
		if page := eve.open(back); eve.last.StatusCode != http.StatusForbidden || strings.Contains(page, "sign_in") {
			t.Errorf("a way back that was tried already was answered %d %s", eve.last.StatusCode, page)
		}

		// What the provider says in place of a code, and codes that it has not given.
		const callback = "/_matrix/client/unstable/im.conclave.sso/callback"
		for _, query := range []string{"", "?state=x&code=y", "?error=access_denied"} {
			if page := ann.open(s.URL + callback + query); ann.last.StatusCode != http.StatusForbidden || strings.Contains(page, "sign_in") {
				t.Errorf("%q was answered %d", query, ann.last.StatusCode)
			}
		}

		// The page's form, without the page.
		page := ann.signOn(s, issuer, "ann", ssoTarget)
		const path = "/_matrix/client/unstable/im.conclave.sso/continue"
		ann.send(s.URL+path, url.Values{"sign_in": {"ccs_x"}})
		if ann.last.StatusCode != http.StatusForbidden {
			t.Errorf("a made-up sign-in was answered %d", ann.last.StatusCode)
		}
		secret := ann.field(page, "sign_in")
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", object{"type": "im.conclave.login.sign_in", "sign_in": secret})
		s.Nobody().Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", object{"type": "m.login.token", "token": secret})
	})
}
