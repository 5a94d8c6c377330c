package netguard

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/testserver/proof"
)

// TestAddressesThatPeopleSupply is the part of threats O08 that there is: the HTTP client that push gateways, identity
// servers and application services have to be called by. No feature of this version takes such an address from a user;
// the refusal when one is registered comes with the feature. Whatever is spelled as the address, directly or as the
// target of a redirect, nothing inside is reached, by https or http.
func TestAddressesThatPeopleSupply(t *testing.T) {
	proof.Of(t, "O08")
	port, reached := canary(t)
	var redirect atomic.Value
	redirect.Store("")
	outside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, redirect.Load().(string), http.StatusTemporaryRedirect)
	}))
	defer outside.Close()
	outsidePort := outside.URL[strings.LastIndexByte(outside.URL, ':')+1:]
	client := NewDialer(nil, dnsServer(t, func(name string) string {
		if name == "push.example" {
			return "127.0.0.1"
		}
		return ""
	})).HTTPClient(HTTPOptions{Redirects: 3, Total: 5 * time.Second})
	defer client.CloseIdleConnections()
	forms := strings.Fields(`127.0.0.1 127.1 0177.0.0.1 0x7f000001 2130706433 0 localhost LOCALHOST localhost. push.example [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1]
		[::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] [2001:0:7f00:1::] [fe80::1] [fc00::1] 10.0.0.1 169.254.169.254 192.168.0.1 172.16.0.1 100.64.0.1`)
	for _, form := range forms {
		for _, scheme := range []string{"https", "http"} {
			address := fmt.Sprintf("%s://%s:%s/_matrix/push/v1/notify", scheme, form, port)
			if res, err := client.Post(address, "application/json", strings.NewReader(`{}`)); err == nil {
				_ = res.Body.Close()
				t.Errorf("%s answers %d", address, res.StatusCode)
			}
		}
	}
	// From outside a redirect leads inside: its server may be reached, what it points to may not. One port of loopback
	// stands for the outside.
	trusted := outside.Client().Transport.(*http.Transport).TLSClientConfig
	open := NewDialer(prefixes("127.0.0.1/32"), nil).HTTPClient(HTTPOptions{Redirects: 3, TLS: trusted, Total: 5 * time.Second})
	defer open.CloseIdleConnections()
	for _, form := range []string{"127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "10.0.0.1", "169.254.169.254", "127.0.0.1:" + outsidePort + "@127.0.0.2"} {
		redirect.Store("https://" + form + ":" + port + "/")
		res, err := open.Get(outside.URL)
		if err == nil {
			_ = res.Body.Close()
			t.Errorf("a redirect to %s ends with %d", form, res.StatusCode)
		}
		if err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("a redirect to %s: %v", form, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
}
