package federation

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/testserver/peer"
)

// TestCheck: a partner with whom all is well, and one for each way in which something can be wrong.
func TestCheck(t *testing.T) {
	type partner struct {
		ca, other *peer.CA
		options   ClientOptions
		peer      peer.Options
		server    matrix.ServerName // "" is the peer's name
		stopped   bool              // our own server
		script    func(p *peer.Peer, c *Client)
	}
	answer := func(method, path string, reply peer.Reply) func(*peer.Peer, *Client) {
		return func(p *peer.Peer, _ *Client) { p.Handle(method, path, func(*peer.Call) peer.Reply { return reply }) }
	}
	const version, keys, alias, notary = v1 + "/version", "/_matrix/key/v2/server", v1 + "/query/directory", "/_matrix/key/v2/query"
	for name, test := range map[string]struct {
		change func(*partner)
		topics string // of what is found wrong; "" if all is well
		says   string // some of what is said of it, or its fix
	}{
		"all is well":               {func(*partner) {}, "", ""},
		"no server name":            {func(w *partner) { w.server = "not a name" }, "name", "not a server name"},
		"our own name":              {func(w *partner) { w.server = ourName }, "name", "our own"},
		"a forbidden name":          {func(w *partner) { w.options.Policy = NewPolicy(nil, []string{"localhost"}) }, "name", "federation.deny"},
		"a name without an address": {func(w *partner) { w.server = "nowhere.invalid:1" }, "connection", "A or AAAA record"},
		"nothing listens":           {func(w *partner) { w.script = func(p *peer.Peer, _ *Client) { p.Stop() } }, "connection", "nothing listens"},
		"an address that is not to be reached": {func(w *partner) {
			w.options.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, netguard.ErrDenied }
		}, "connection", "network.allow_private"},
		"a certificate for another name": {func(w *partner) { w.peer.CertNames = []string{"other.test"} }, "certificate", "a certificate for localhost"},
		"an unknown authority":           {func(w *partner) { w.ca = w.other }, "certificate", "federation.ca_file"},
		"a certificate that has run out": {func(w *partner) {
			w.options.Clock = func() time.Time { return time.Now().Add(100 * 365 * 24 * time.Hour) }
		}, "certificate", "renew"},
		"no homeserver": {func(w *partner) {
			w.script = answer("GET", version, peer.Reply{Body: []byte("<html>\x1b[2J")})
		}, "version", "not a homeserver"},
		"another clock": {func(w *partner) {
			w.script = answer("GET", version, peer.Reply{
				Header: map[string]string{"Date": time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}, Body: map[string]any{"server": map[string]string{}},
			})
		}, "clock ourselves", "differ by"},
		"keys of another name": {func(w *partner) {
			w.script = func(p *peer.Peer, _ *Client) {
				p.Handle("GET", keys, func(*peer.Call) peer.Reply {
					return peer.Reply{Body: p.KeyDocument(func(doc map[string]any) { doc["server_name"] = "other.test" })}
				})
			}
		}, "keys ourselves", "server_name may be set wrongly"},
		"keys that have run out": {func(w *partner) {
			w.script = func(p *peer.Peer, _ *Client) {
				p.Handle("GET", keys, func(*peer.Call) peer.Reply {
					return peer.Reply{Body: p.KeyDocument(func(doc map[string]any) { doc["valid_until_ts"] = 1000 })}
				})
			}
		}, "keys ourselves", "has run out"},
		"our server is stopped": {func(w *partner) { w.stopped = true }, "reach", "conclave serve"},
		"our signature is refused": {func(w *partner) {
			w.script = answer("GET", alias, peer.Reply{Status: 401, Body: map[string]string{"errcode": "M_UNAUTHORIZED", "error": "no\x1b[2J\nkey"}})
		}, "requests ourselves", "fetch our keys first"},
		"we are refused": {func(w *partner) { w.script = answer("GET", alias, peer.Refuse(403, "M_FORBIDDEN")) }, "requests ourselves", "federates with our server name"},
		"we cannot be reached": {func(w *partner) {
			w.script = answer("POST", notary, peer.Reply{Body: map[string]any{"server_keys": []any{}}})
		}, "reach ourselves", "could not fetch"},
		"another answers under our name": {func(w *partner) {
			w.script = func(p *peer.Peer, _ *Client) {
				p.Handle("POST", notary, func(*peer.Call) peer.Reply {
					doc, err := testIdentity(t).Document(ourName, time.Now())
					if err != nil {
						t.Error(err)
					}
					return peer.Reply{Body: []byte(`{"server_keys":[` + string(doc) + `]}`)}
				})
			}
		}, "reach ourselves", "an old server"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &partner{ca: peer.NewCA(t), other: peer.NewCA(t), options: ClientOptions{Dial: loopback}}
			roots := w.ca.Pool()
			test.change(w)
			c := testClient(t, w.ca, func(o *ClientOptions) {
				o.Roots, o.Dial, o.Policy, o.Clock = roots, w.options.Dial, w.options.Policy, w.options.Clock
			})
			p := trusting(t, w.ca, c, w.peer)
			p.Handle("GET", alias, func(call *peer.Call) peer.Reply {
				if call.Origin != ourName {
					t.Errorf("the request for an alias is signed by %q", call.Origin)
				}
				return peer.Refuse(404, "M_NOT_FOUND")
			})
			p.Handle("POST", notary, func(*peer.Call) peer.Reply {
				doc, err := c.own.Document(ourName, time.Now())
				if err != nil {
					t.Error(err)
				}
				return peer.Reply{Body: []byte(`{"server_keys":[` + string(doc) + `]}`)}
			})
			if w.script != nil {
				w.script(p, c)
			}
			if w.server == "" {
				w.server = p.Name
			}
			var wrong []string
			ours := false
			var text strings.Builder
			well := c.Check(t.Context(), w.server, !w.stopped, func(s CheckStep) {
				fmt.Fprintln(&text, s.Topic, s.Did, s.Found, s.Fix)
				if s.OK == (s.Fix != "") {
					t.Errorf("a step that is OK: %v, with the fix %q", s.OK, s.Fix)
				}
				// Our own name leads nowhere here: what is found wrong on the way there is not the partner's.
				ours = ours || s.Topic == "ourselves"
				if !s.OK && (!ours || s.Topic == "ourselves") && !slices.Contains(wrong, s.Topic) {
					wrong = append(wrong, s.Topic)
				}
			})
			if got := strings.Join(wrong, " "); got != test.topics || well != (test.topics == "") || !strings.Contains(text.String(), test.says) {
				t.Errorf("found wrong: %q (well: %v), want %q and %q in\n%s", got, well, test.topics, test.says, &text)
			}
			if strings.ContainsFunc(text.String(), func(r rune) bool { return r < 0x20 && r != '\n' }) {
				t.Errorf("a stranger writes to the terminal:\n%q", &text)
			}
		})
	}
}
