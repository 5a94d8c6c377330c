package accounts

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/testserver/proof"
)

// TestLinks signs in to new devices by one that is signed in.
func TestLinks(t *testing.T) {
	proof.Of(t, "OA-07", "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, mallory := w.session(w.register("alice")), w.session(w.register("mallory"))
		app, _ := w.enrol(alice)
		begin := func() *DeviceGrant {
			g, err := w.BeginLink(t.Context(), "Phone", "192.0.2.1")
			must(t, err)
			return g
		}
		confirm := func() *Confirmed {
			w.pass(time.Minute) // for the next code of the app
			c, err := w.confirmedBy(alice, map[string]any{"type": StagePassword, "password": password, "user": "alice"},
				map[string]any{"type": StageFactor, "factor": string(ByTOTP), "code": app.code(0)})
			must(t, err)
			return c
		}
		poll := func(g *DeviceGrant) (*SigningIn, time.Duration, error) { return w.PollLink(t.Context(), g.DeviceCode) }

		g := begin()
		if url := w.LinkURL(g.UserCode); !strings.HasSuffix(url, "/#/link?code="+g.UserCode) {
			t.Errorf("the QR code leads to %s", url)
		}
		signIn, pause, err := poll(g)
		must(t, err)
		if signIn != nil || pause != g.Pause {
			t.Errorf("before anybody has decided: %+v, %s", signIn, pause)
		}
		if _, pause, err = poll(g); err != nil || pause <= g.Pause {
			t.Errorf("a hasty device is told %s, %v", pause, err)
		}
		l, err := w.LookAtLink(t.Context(), " "+strings.ToLower(g.UserCode))
		must(t, err)
		if l.Name != "Phone" || l.Address != "192.0.2.1" || l.Client != "" || !l.Since.Equal(time.UnixMilli(w.now().UnixMilli())) {
			t.Errorf("waits: %+v", l)
		}
		must(t, w.AllowLink(t.Context(), alice, confirm(), g.UserCode))
		wantCode(t, w.AllowLink(t.Context(), mallory, confirm(), g.UserCode), 404, "M_NOT_FOUND")
		wantCode(t, w.RefuseLink(t.Context(), mallory, g.UserCode), 404, "M_NOT_FOUND")
		var group sync.WaitGroup
		var opened atomic.Int64
		for range 10 {
			group.Go(func() {
				s, _, err := poll(g)
				if err != nil {
					wantCode(t, err, 404, "M_NOT_FOUND")
					return
				}
				login, err := w.loginSignIn(s.Secret) // with what Alice has shown: nothing more is wanted
				if err == nil && login.UserID == alice.UserID {
					opened.Add(1)
				} else {
					t.Errorf("the session: %v", err)
				}
			})
		}
		group.Wait()
		if opened.Load() != 1 {
			t.Errorf("one yes opened %d sessions", opened.Load())
		}

		g = begin()
		must(t, w.RefuseLink(t.Context(), mallory, g.UserCode))
		_, _, err = poll(g)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, _, err = poll(g)
		wantCode(t, err, 404, "M_NOT_FOUND")

		// Whoever confirms without a second factor opens nothing with a device either.
		g = begin()
		must(t, w.AllowLink(t.Context(), alice, &Confirmed{}, g.UserCode))
		signIn, _, err = poll(g)
		must(t, err)
		_, err = w.loginSignIn(signIn.Secret)
		wantCode(t, err, 403, "M_FORBIDDEN")

		g = begin()
		c := confirm()
		w.pass(grantTime + time.Second)
		wantCode(t, w.AllowLink(t.Context(), alice, c, g.UserCode), 404, "M_NOT_FOUND")
		_, err = w.LookAtLink(t.Context(), g.UserCode)
		wantCode(t, err, 404, "M_NOT_FOUND")
		_, _, err = poll(g)
		wantCode(t, err, 404, "M_NOT_FOUND")
		_, err = w.BeginLink(t.Context(), "a\nb", "")
		wantCode(t, err, 400, "M_INVALID_PARAM")
	})
}

// TestLinksAndGrants keeps the devices of OAuth clients and those of our own client apart, but for whoever lets them in.
func TestLinksAndGrants(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		c := w.oauthClient("app")
		link, err := w.BeginLink(t.Context(), "", "")
		must(t, err)
		if _, err := w.PollDeviceGrant(t.Context(), "", link.DeviceCode, ""); !isOAuth(err, "invalid_grant") {
			t.Errorf("a device of ours polls as an OAuth client: %v", err)
		}
		visit, err := w.BeginVisit(t.Context(), &Visit{Purpose: ToLink})
		must(t, err)
		wantCode(t, w.EnterUserCode(t.Context(), visit, link.UserCode), 403, "M_FORBIDDEN")

		g, err := w.BeginDeviceGrant(t.Context(), c.ID, Scope("TV"))
		must(t, err)
		_, _, err = w.PollLink(t.Context(), g.DeviceCode)
		wantCode(t, err, 404, "M_NOT_FOUND")
		l, err := w.LookAtLink(t.Context(), g.UserCode)
		must(t, err)
		if l.Client != c.Host() {
			t.Errorf("waits: %+v", l)
		}
		must(t, w.AllowLink(t.Context(), alice, &Confirmed{}, g.UserCode))
		login, err := w.PollDeviceGrant(t.Context(), c.ID, g.DeviceCode, "")
		must(t, err)
		if login.UserID != alice.UserID || login.DeviceID != "TV" {
			t.Errorf("opened %+v", login)
		}
	})
}
