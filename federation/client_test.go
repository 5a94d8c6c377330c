package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

const ourName = "us.test"

func testIdentity(t testing.TB) *Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := NewIdentity(ourName, []SigningKey{{ID: "ed25519:ours", Private: key}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func testClient(t testing.TB, ca *peer.CA, change func(*ClientOptions)) *Client {
	t.Helper()
	o := ClientOptions{Identity: testIdentity(t), Dial: loopback, Resolver: &dns{}, Roots: ca.Pool(), UserAgent: "test"}
	if change != nil {
		change(&o)
	}
	c := NewClient(o)
	t.Cleanup(c.CloseIdle)
	return c
}

// trusting makes a peer that knows the client's key.
func trusting(t testing.TB, ca *peer.CA, c *Client, o peer.Options) *peer.Peer {
	t.Helper()
	p := peer.New(t, ca, o)
	p.Trust(c.own.Name(), c.own.Key().ID, c.own.Key().Public())
	return p
}

func TestClientMakesEveryCallAsTheSpecHasIt(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	ctx := t.Context()
	const room, event = "!r/o:x.test", "$e/v+e:x.test"
	user := p.User("u")
	none := func(StatePart, json.RawMessage) error { return nil }
	template := map[string]any{"room_version": "10", "event": map[string]any{
		"type": "m.room.member", "room_id": room, "sender": string(user), "state_key": string(user), "prev_events": []string{"$p"},
		"auth_events": []string{"$a"}, "depth": 7, "content": map[string]any{"membership": "join"},
	}}
	for _, call := range []struct {
		operation string
		answer    any
		do        func() error
		want      string // method and request target
		body      string
		unsigned  bool
	}{
		{"getVersion", map[string]any{"server": map[string]any{"name": "x", "version": "1"}}, func() error {
			_, _, err := c.GetVersion(ctx, p.Name)
			return err
		}, "GET /_matrix/federation/v1/version", "", true},
		{"getServerKey", map[string]any{}, func() error { _, err := c.GetServerKey(ctx, p.Name); return err },
			"GET /_matrix/key/v2/server", "", true},
		{"bulkPerspectivesKeyQuery", map[string]any{"server_keys": []any{}}, func() error {
			_, err := c.QueryNotary(ctx, p.Name, KeyCriteria{"z.test": {"ed25519:k": 5}})
			return err
		}, "POST /_matrix/key/v2/query", `{"server_keys":{"z.test":{"ed25519:k":{"minimum_valid_until_ts":5}}}}`, true},
		{"makeJoin", template, func() error {
			d, err := c.MakeJoin(ctx, p.Name, room, user, []matrix.RoomVersion{1, 12})
			if err == nil && (d.Depth != 7 || d.Version.String() != "10" || d.PrevEvents[0] != "$p" || d.AuthEvents[0] != "$a") {
				err = fmt.Errorf("draft %+v", d)
			}
			return err
		}, "GET /_matrix/federation/v1/make_join/%21r%2Fo:x.test/" + strings.ReplaceAll(string(user), "!", "%21") + "?ver=1&ver=12", "", false},
		{"sendJoinV2", map[string]any{"state": []any{}, "auth_chain": []any{}}, func() error {
			_, err := c.SendJoin(ctx, p.Name, room, event, []byte(`{"a":1}`), none)
			return err
		}, "PUT /_matrix/federation/v2/send_join/%21r%2Fo:x.test/$e%2Fv+e:x.test", `{"a":1}`, false},
		{"sendLeaveV2", map[string]any{}, func() error { return c.SendLeave(ctx, p.Name, room, event, []byte(`{"a":1}`)) },
			"PUT /_matrix/federation/v2/send_leave/%21r%2Fo:x.test/$e%2Fv+e:x.test", `{"a":1}`, false},
		{"sendKnock", map[string]any{"knock_room_state": []any{}}, func() error {
			_, err := c.SendKnock(ctx, p.Name, room, event, []byte(`{"a":1}`))
			return err
		}, "PUT /_matrix/federation/v1/send_knock/%21r%2Fo:x.test/$e%2Fv+e:x.test", `{"a":1}`, false},
		{"sendInviteV2", map[string]any{"event": map[string]any{"x": 1}}, func() error {
			_, err := c.SendInvite(ctx, p.Name, 10, room, event, []byte(`{"a":1}`), nil)
			return err
		}, "PUT /_matrix/federation/v2/invite/%21r%2Fo:x.test/$e%2Fv+e:x.test", `{"event":{"a":1},"invite_room_state":[],"room_version":"10"}`, false},
		{"exchangeThirdPartyInvite", map[string]any{}, func() error { return c.ExchangeThirdPartyInvite(ctx, p.Name, room, []byte(`{}`)) },
			"PUT /_matrix/federation/v1/exchange_third_party_invite/%21r%2Fo:x.test", `{}`, false},
		{"sendTransaction", map[string]any{"pdus": map[string]any{"$x": map[string]any{"error": "no"}, "$y": map[string]any{}}}, func() error {
			refused, err := c.SendTransaction(ctx, p.Name, "t/1", []byte(`{"pdus":[]}`))
			if err == nil && (len(refused) != 1 || refused["$x"] != "no") {
				err = fmt.Errorf("refused %v", refused)
			}
			return err
		}, "PUT /_matrix/federation/v1/send/t%2F1", `{"pdus":[]}`, false},
		{"getEvent", map[string]any{"pdus": []any{map[string]any{}}}, func() error { _, err := c.GetEvent(ctx, p.Name, event); return err },
			"GET /_matrix/federation/v1/event/$e%2Fv+e:x.test", "", false},
		{"getRoomState", map[string]any{"pdus": []any{}, "auth_chain": []any{}}, func() error { return c.GetRoomState(ctx, p.Name, room, "$e", none) },
			"GET /_matrix/federation/v1/state/%21r%2Fo:x.test?event_id=%24e", "", false},
		{"getRoomStateIds", map[string]any{"pdu_ids": []string{"$a"}, "auth_chain_ids": []string{"$b", "$c"}}, func() error {
			state, chain, err := c.GetRoomStateIDs(ctx, p.Name, room, "$e")
			if err == nil && (len(state) != 1 || len(chain) != 2) {
				err = fmt.Errorf("%v %v", state, chain)
			}
			return err
		}, "GET /_matrix/federation/v1/state_ids/%21r%2Fo:x.test?event_id=%24e", "", false},
		{"getEventAuth", map[string]any{"auth_chain": []any{}}, func() error { _, err := c.GetEventAuth(ctx, p.Name, room, event); return err },
			"GET /_matrix/federation/v1/event_auth/%21r%2Fo:x.test/$e%2Fv+e:x.test", "", false},
		{"backfillRoom", map[string]any{"pdus": []any{}}, func() error {
			_, err := c.BackfillRoom(ctx, p.Name, room, []matrix.EventID{"$a", "$b"}, 9)
			return err
		}, "GET /_matrix/federation/v1/backfill/%21r%2Fo:x.test?limit=9&v=%24a&v=%24b", "", false},
		{"getMissingPreviousEvents", map[string]any{"events": []any{}}, func() error {
			_, err := c.GetMissingEvents(ctx, p.Name, room, nil, []matrix.EventID{"$l"}, 20, 3)
			return err
		}, "POST /_matrix/federation/v1/get_missing_events/%21r%2Fo:x.test", `{"earliest_events":[],"latest_events":["$l"],"limit":20,"min_depth":3}`, false},
		{"getEventByTimestamp", map[string]any{"event_id": "$e", "origin_server_ts": 5}, func() error {
			id, ts, err := c.GetEventByTimestamp(ctx, p.Name, room, 77, true)
			if err == nil && (id != "$e" || ts != 5) {
				err = fmt.Errorf("%s %d", id, ts)
			}
			return err
		}, "GET /_matrix/federation/v1/timestamp_to_event/%21r%2Fo:x.test?dir=f&ts=77", "", false},
		{"getSpaceHierarchy", map[string]any{"room": map[string]any{}, "children": []any{}}, func() error {
			_, err := c.GetSpaceHierarchy(ctx, p.Name, room, true)
			return err
		}, "GET /_matrix/federation/v1/hierarchy/%21r%2Fo:x.test?suggested_only=true", "", false},
		{"getPublicRooms", map[string]any{"chunk": []any{}}, func() error {
			_, err := c.PublicRooms(ctx, p.Name, PublicRoomsQuery{Limit: 3, Since: "s"})
			return err
		}, "GET /_matrix/federation/v1/publicRooms?limit=3&since=s", "", false},
		{"queryPublicRooms", map[string]any{"chunk": []any{}}, func() error {
			_, err := c.PublicRooms(ctx, p.Name, PublicRoomsQuery{Limit: 3, Filter: json.RawMessage(`{}`)})
			return err
		}, "POST /_matrix/federation/v1/publicRooms", `{"filter":{},"limit":3}`, false},
		{"queryProfile", map[string]any{"displayname": "x"}, func() error { _, err := c.QueryProfile(ctx, "@u:"+matrix.UserID(p.Name), "displayname"); return err },
			"GET /_matrix/federation/v1/query/profile?field=displayname&user_id=%40u%3Alocalhost%3A" + port(p), "", false},
		{"queryRoomDirectory", map[string]any{"room_id": room, "servers": []string{"a.test", "no name"}}, func() error {
			id, servers, err := c.QueryRoomDirectory(ctx, "#a:"+matrix.RoomAlias(p.Name))
			if err == nil && (id != room || len(servers) != 1) {
				err = fmt.Errorf("%s %v", id, servers)
			}
			return err
		}, "GET /_matrix/federation/v1/query/directory?room_alias=%23a%3Alocalhost%3A" + port(p), "", false},
		{"getUserDevices", map[string]any{}, func() error { _, err := c.GetUserDevices(ctx, user); return err },
			"GET /_matrix/federation/v1/user/devices/@u:localhost:" + port(p), "", false},
		{"queryUserEncryptionKeys", map[string]any{}, func() error { _, err := c.QueryUserEncryptionKeys(ctx, p.Name, []byte(`{}`)); return err },
			"POST /_matrix/federation/v1/user/keys/query", `{}`, false},
		{"claimUserEncryptionKeys", map[string]any{}, func() error { _, err := c.ClaimUserEncryptionKeys(ctx, p.Name, []byte(`{}`)); return err },
			"POST /_matrix/federation/v1/user/keys/claim", `{}`, false},
		{"exchangeOpenIdToken", map[string]any{"sub": user}, func() error { _, err := c.ExchangeOpenIDToken(ctx, p.Name, "tok en"); return err },
			"GET /_matrix/federation/v1/openid/userinfo?access_token=tok+en", "", true},
		{"askPolicyServerToSign", map[string]any{string(p.Name): map[string]any{"ed25519:policy_server": "AAAA"}}, func() error {
			_, err := c.AskPolicyServerToSign(ctx, p.Name, []byte(`{"a":1}`))
			return err
		}, "POST /_matrix/policy/v1/sign", `{"a":1}`, false},
	} {
		t.Run(call.operation, func(t *testing.T) {
			for _, method := range []string{"GET", "PUT", "POST"} {
				p.Handle(method, "/_matrix/{any}", func(*peer.Call) peer.Reply { return peer.Reply{Body: call.answer} })
			}
			if err := call.do(); err != nil {
				t.Fatal(err)
			}
			calls := p.Calls("/")
			got := calls[len(calls)-1]
			if target := got.Method + " " + got.URI; target != call.want {
				t.Errorf("asked   %s\nwanted  %s", target, call.want)
			}
			if string(got.Body) != call.body {
				t.Errorf("sent %s, want %s", got.Body, call.body)
			}
			if signed := got.Origin == c.own.Name(); signed == call.unsigned {
				t.Errorf("signature holds: %v, want %v; header %q", signed, !call.unsigned, got.Header.Get("Authorization"))
			}
			if call.unsigned && got.Header.Get("Authorization") != "" {
				t.Error("credentials went out without need")
			}
			if got.Header.Get("User-Agent") != "test" || got.Header.Get("Accept-Encoding") != "" {
				t.Errorf("headers %v", got.Header)
			}
		})
	}
}

func port(p *peer.Peer) string {
	_, port, _ := net.SplitHostPort(p.Addr)
	return port
}

func TestClientReachesServersByTheirDelegation(t *testing.T) {
	ca := peer.NewCA(t)
	docs := serveDocuments(t, ca, "name.test", "srv.test")
	d := &dns{srv: map[string][]*net.SRV{}}
	c := testClient(t, ca, func(o *ClientOptions) { o.Resolver, o.WellKnownPort = d, docs.port })
	delegated := trusting(t, ca, c, peer.Options{Name: "name.test", CertNames: []string{"real.test"}})
	docs.set("name.test", delegate("real.test:"+port(delegated)))
	srv := trusting(t, ca, c, peer.Options{Name: "srv.test", CertNames: []string{"srv.test"}})
	d.srv["matrix-fed srv.test"] = []*net.SRV{{Target: "dead.test.", Port: 1}, {Target: "host.test.", Port: portOf(srv)}}
	for p, host := range map[*peer.Peer]string{delegated: "real.test:" + port(delegated), srv: "srv.test"} {
		if _, err := c.QueryProfile(t.Context(), p.User("u"), ""); !isStatus(err, http.StatusNotFound) {
			t.Fatalf("%s: %v", p.Name, err)
		}
		got := p.Calls("/")[0]
		if got.Host != host || got.Origin != ourName {
			t.Errorf("%s was asked with Host %s, signed by %q; want Host %s", p.Name, got.Host, got.Origin, host)
		}
	}
	wrong := trusting(t, ca, c, peer.Options{Name: "wrong.test", CertNames: []string{"host.test"}})
	d.srv["matrix-fed wrong.test"] = []*net.SRV{{Target: "host.test.", Port: portOf(wrong)}}
	if _, err := c.QueryProfile(t.Context(), wrong.User("u"), ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate for the SRV target was accepted: %v", err)
	}
	if n := len(wrong.Calls("/")); n != 0 {
		t.Error("a request was sent to a server that did not prove its name")
	}
}

func portOf(p *peer.Peer) uint16 { return portNumber(port(p)) }

func isStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

func TestClientTrustsOnlyItsRoots(t *testing.T) {
	proof.Of(t, "FD-01")
	ca, foreign := peer.NewCA(t), peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := peer.New(t, foreign, peer.Options{})
	_, _, err := c.GetVersion(t.Context(), p.Name)
	var e *Error
	if !errors.As(err, &e) || e.Status != 0 || !e.Retryable() || len(p.Calls("/")) != 0 {
		t.Errorf("error %v after %d calls", err, len(p.Calls("/")))
	}
}

func TestClientKeepsConnections(t *testing.T) {
	for _, c := range []struct {
		proto string
		http1 bool
	}{{"HTTP/2.0", false}, {"HTTP/1.1", true}} {
		t.Run(c.proto, func(t *testing.T) {
			ca := peer.NewCA(t)
			var mu sync.Mutex
			dials := 0
			cl := testClient(t, ca, func(o *ClientOptions) {
				o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					mu.Lock()
					dials++
					mu.Unlock()
					return loopback(ctx, network, addr)
				}
			})
			p := trusting(t, ca, cl, peer.Options{HTTP1: c.http1})
			for range 10 {
				if _, _, err := cl.GetVersion(t.Context(), p.Name); err != nil {
					t.Fatal(err)
				}
			}
			if got := p.Calls("/")[0].Proto; got != c.proto {
				t.Errorf("spoke %s", got)
			}
			if dials != 1 {
				t.Errorf("dialled %d times for 10 requests", dials)
			}
		})
	}
}

func TestNamesThatDifferOnlyByPortDoNotShareConnections(t *testing.T) {
	plain, explicit := &Location{Server: "a.test", Host: "a.test", TLSName: "a.test"}, &Location{Server: "a.test:443", Host: "a.test:443", TLSName: "a.test"}
	if poolName(plain) == poolName(explicit) {
		t.Error("two routes share a pool")
	}
}

// TestNotariesOfTheOldKind: a notary that knows no questions about many servers is asked about the one that is wanted.
func TestNotariesOfTheOldKind(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	const one = "/_matrix/key/v2/query/z.test:8448"
	p.Handle("GET", "/_matrix/key/v2/query/{server}", func(*peer.Call) peer.Reply {
		return peer.Reply{Body: map[string]any{"server_keys": []any{map[string]any{"server_name": "z.test:8448"}}}}
	})
	for _, status := range []int{404, 405} {
		p.Handle("POST", "/_matrix/key/v2/query", func(*peer.Call) peer.Reply { return peer.Refuse(status, "M_UNRECOGNIZED") })
		found, err := c.QueryNotary(t.Context(), p.Name, KeyCriteria{"z.test:8448": {"ed25519:a": 5, "ed25519:b": 7}})
		calls := p.Calls(one)
		if err != nil || len(found) != 1 || len(calls) == 0 || calls[len(calls)-1].URI != one+"?minimum_valid_until_ts=7" {
			t.Errorf("status %d: %s, %v, %d calls", status, found, err, len(calls))
		}
	}
	asked := len(p.Calls(one))
	if _, err := c.QueryNotary(t.Context(), p.Name, KeyCriteria{"z.test:8448": nil, "y.test": nil}); err == nil {
		t.Error("two servers were answered for")
	}
	p.Handle("POST", "/_matrix/key/v2/query", func(*peer.Call) peer.Reply { return peer.Refuse(500, "M_UNKNOWN") })
	if _, err := c.QueryNotary(t.Context(), p.Name, KeyCriteria{"z.test:8448": nil}); err == nil || len(p.Calls(one)) != asked {
		t.Errorf("after other errors: %v, %d calls", err, len(p.Calls(one))-asked)
	}
}

func TestClientErrors(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, func(o *ClientOptions) { o.Policy = NewPolicy(nil, []string{"denied.test"}) })
	p := trusting(t, ca, c, peer.Options{})
	for name, want := range map[string]struct {
		reply               peer.Reply
		status              int
		code                string
		retryable, answered bool
		after               time.Duration
	}{
		"forbidden":      {peer.Refuse(403, "M_FORBIDDEN"), 403, "M_FORBIDDEN", false, true, 0},
		"own trouble":    {peer.Refuse(500, "M_UNKNOWN"), 500, "M_UNKNOWN", true, true, 0},
		"gateway":        {peer.Reply{Status: 502, Body: []byte("<html>")}, 502, "", true, false, 0},
		"rate limit":     {peer.Reply{Status: 429, Body: map[string]any{"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 1500}}, 429, "M_LIMIT_EXCEEDED", true, false, 1500 * time.Millisecond},
		"retry header":   {peer.Reply{Status: 503, Header: map[string]string{"Retry-After": "7"}, Body: []byte("{}")}, 503, "", true, false, 7 * time.Second},
		"endless wait":   {peer.Reply{Status: 429, Body: map[string]any{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": int64(1) << 52}}, 429, "M_LIMIT_EXCEEDED", true, false, time.Hour},
		"redirect":       {peer.Reply{Status: 302, Header: map[string]string{"Location": "https://127.0.0.1/"}, Body: []byte("{}")}, 302, "", false, true, 0},
		"not JSON":       {peer.Reply{Body: []byte("nonsense")}, 200, "", false, true, 0},
		"not an object":  {peer.Reply{Body: []byte("[]")}, 200, "", false, true, 0},
		"duplicate keys": {peer.Reply{Body: []byte(`{"a":1,"a":2}`)}, 200, "", false, true, 0},
		"too large":      {peer.Reply{Body: []byte(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`)}, 200, "", false, true, 0},
		"cut off": {peer.Reply{Write: func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"a":`))
		}}, 0, "", true, false, 0},
		"odd code": {peer.Reply{Status: 400, Body: map[string]any{"errcode": 5}}, 400, "", false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.Alive(p.Name) // it may have asked to be left alone
			p.Handle("GET", "/_matrix/federation/v1/query/profile", func(*peer.Call) peer.Reply { return want.reply })
			_, err := c.QueryProfile(t.Context(), p.User("u"), "")
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if e.Status != want.status || e.Code != want.code || e.Retryable() != want.retryable || e.Answered() != want.answered || e.RetryAfter != want.after {
				t.Errorf("got %+v retryable %v answered %v", e, e.Retryable(), e.Answered())
			}
			if e.ForClient().Status < 400 || e.Error() == "" {
				t.Errorf("for clients: %+v", e.ForClient())
			}
		})
	}
	_, err := c.QueryProfile(t.Context(), "@u:denied.test", "")
	if !errors.Is(err, ErrNotAllowed) || err.(*Error).Retryable() {
		t.Errorf("a denied server: %v", err)
	}
	if _, err = c.QueryProfile(t.Context(), "@u:"+ourName, ""); err == nil {
		t.Error("a request to ourselves went out")
	}
	c.Alive(p.Name)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.QueryProfile(ctx, p.User("u"), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("after its caller gave up: %v", err)
	}
}

func TestErrorsPassToClientsOnlyWhatIsAboutTheirRequest(t *testing.T) {
	for _, c := range []struct {
		e    Error
		want int
		code string
	}{
		{Error{Status: 403, Code: "M_FORBIDDEN", Text: "no"}, 403, "M_FORBIDDEN"},
		{Error{Status: 400, Code: "M_INCOMPATIBLE_ROOM_VERSION", Text: "x", Body: []byte(`{"room_version":"99"}`)}, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{Error{Status: 400, Code: "M_INVALID_PARAM"}, 502, "M_UNKNOWN"},
		{Error{Status: 400, Code: "M_MISSING_PARAM"}, 502, "M_UNKNOWN"},
		{Error{Status: 401, Code: "M_UNAUTHORIZED"}, 502, "M_UNKNOWN"},
		{Error{Status: 404, Code: "M_UNRECOGNIZED"}, 502, "M_UNKNOWN"},
		{Error{Status: 500, Code: "M_UNKNOWN"}, 502, "M_UNKNOWN"},
		{Error{Status: 403}, 502, "M_UNKNOWN"},
		{Error{Cause: errors.New("x")}, 502, "M_UNKNOWN"},
	} {
		got := c.e.ForClient()
		if got.Status != c.want || got.Code != c.code {
			t.Errorf("%+v became %d %s", c.e, got.Status, got.Code)
		}
		if c.e.Body != nil && got.Fields["room_version"] != "99" {
			t.Errorf("the room version got lost: %v", got.Fields)
		}
	}
}

func TestTemplatesAreReadForTheirPlaceOnly(t *testing.T) {
	event := func(change func(m, content map[string]any)) []byte {
		content := map[string]any{"membership": "join", "displayname": "evil", "m.relates_to": 5}
		m := map[string]any{
			"type": "m.room.member", "room_id": "!r:x", "sender": "@u:us.test", "state_key": "@u:us.test", "content": content,
			"prev_events": []any{"$p"}, "auth_events": []any{"$a"}, "depth": 3, "origin": "x", "extra": true,
		}
		if change != nil {
			change(m, content)
		}
		raw, _ := json.Marshal(map[string]any{"room_version": "12", "event": m})
		return raw
	}
	d, err := readDraft(event(func(_, c map[string]any) { c["join_authorised_via_users_server"] = "@a:x" }), "!r:x", "@u:us.test", "join")
	if err != nil || d.AuthorisedVia != "@a:x" || d.Depth != 3 || d.Version.String() != "12" {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, change := range map[string]func(m, content map[string]any){
		"another type":       func(m, _ map[string]any) { m["type"] = "m.room.power_levels" },
		"another room":       func(m, _ map[string]any) { m["room_id"] = "!other:x" },
		"another sender":     func(m, _ map[string]any) { m["sender"] = "@admin:us.test" },
		"another state key":  func(m, _ map[string]any) { m["state_key"] = "@admin:us.test" },
		"no state key":       func(m, _ map[string]any) { delete(m, "state_key") },
		"another membership": func(_, c map[string]any) { c["membership"] = "ban" },
		"no content":         func(m, _ map[string]any) { delete(m, "content") },
		"many parents":       func(m, _ map[string]any) { m["prev_events"] = make([]string, 21) },
		"no IDs":             func(m, _ map[string]any) { m["auth_events"] = []any{5} },
		"bad pair":           func(m, _ map[string]any) { m["auth_events"] = []any{[]any{"$a"}} },
		"negative depth":     func(m, _ map[string]any) { m["depth"] = -1 },
		"bad authoriser":     func(_, c map[string]any) { c["join_authorised_via_users_server"] = "nobody" },
	} {
		if d, err := readDraft(event(change), "!r:x", "@u:us.test", "join"); err == nil {
			t.Errorf("%s: read as %+v", name, d)
		}
	}
	old := []byte(`{"event":{"type":"m.room.member","room_id":"!r:x","sender":"@u:us.test","state_key":"@u:us.test","content":{"membership":"leave"},
		"prev_events":[["$p:x",{"sha256":"abc"}]],"auth_events":[]}}`)
	if d, err = readDraft(old, "!r:x", "@u:us.test", "leave"); err != nil || d.Version.String() != "1" || d.PrevEvents[0] != "$p:x" {
		t.Errorf("an old room: %+v, %v", d, err)
	}
	if _, err = readDraft([]byte(`{"room_version":"99","event":{"type":"m.room.member","room_id":"!r:x","sender":"@u:us.test","state_key":"@u:us.test","content":{"membership":"join"}}}`), "!r:x", "@u:us.test", "join"); err == nil {
		t.Error("an unknown room version was accepted")
	}
}

func TestSendJoinStreams(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	const n = 20_000
	item := `{"type":"m.room.member","content":{"x":"` + strings.Repeat("y", 500) + `"}}`
	p.Handle("PUT", "/_matrix/federation/v2/send_join/{room}/{event}", func(*peer.Call) peer.Reply {
		return peer.Reply{Write: func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"event":{"e":1},"members_omitted":true,"servers_in_room":["a.test"],"state":[`+item)
			for range n - 1 {
				_, _ = io.WriteString(w, ","+item)
			}
			_, _ = io.WriteString(w, `],"auth_chain":[`+item+`]}`)
		}}
	})
	counts := map[StatePart]int{}
	answer, err := c.SendJoin(t.Context(), p.Name, "!r:x", "$e", []byte(`{}`), func(part StatePart, raw json.RawMessage) error {
		counts[part]++
		if len(raw) != len(item) {
			return fmt.Errorf("an item of %d bytes", len(raw))
		}
		return nil
	})
	if err != nil || counts[StateEvents] != n || counts[AuthChain] != 1 {
		t.Fatalf("%v, %v", counts, err)
	}
	if !bytes.Equal(answer.Event, []byte(`{"e":1}`)) || !answer.MembersOmitted || len(answer.ServersInRoom) != 1 {
		t.Errorf("answer %+v", answer)
	}
	own := errors.New("enough")
	_, err = c.SendJoin(t.Context(), p.Name, "!r:x", "$e", []byte(`{}`), func(StatePart, json.RawMessage) error { return own })
	if !errors.Is(err, own) {
		t.Errorf("the caller's error became %v", err)
	}
}

func TestInviteFallsBackToTheFirstVersionInOldRoomsOnly(t *testing.T) {
	proof.Of(t, "MB-05")
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	p.Handle("PUT", "/_matrix/federation/v1/invite/{room}/{event}", func(call *peer.Call) peer.Reply {
		return peer.Reply{Body: []any{200, map[string]any{"event": json.RawMessage(call.Body)}}}
	})
	got, err := c.SendInvite(t.Context(), p.Name, 1, "!r:x", "$e:x", []byte(`{"a":1}`), []json.RawMessage{[]byte(`{"s":1}`)})
	if err != nil || string(got) != `{"a":1,"unsigned":{"invite_room_state":[{"s":1}]}}` {
		t.Errorf("room version 1: %s, %v", got, err)
	}
	if _, err = c.SendInvite(t.Context(), p.Name, 10, "!r:x", "$e", []byte(`{"a":1}`), nil); !isStatus(err, 404) {
		t.Errorf("room version 10: %v", err)
	}
}

func TestOpenIDUsersOfOtherServersDoNotCount(t *testing.T) {
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	p.Handle("GET", "/_matrix/federation/v1/openid/userinfo", func(*peer.Call) peer.Reply {
		return peer.Reply{Body: map[string]string{"sub": "@admin:elsewhere.test"}}
	})
	if user, err := c.ExchangeOpenIDToken(t.Context(), p.Name, "t"); err == nil {
		t.Errorf("accepted %s", user)
	}
}
