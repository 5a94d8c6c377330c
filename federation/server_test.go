package federation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// echoRoutes are the server's routes and a few that answer with what they got.
func echoRoutes() []Route {
	tell := func(_ *Server, r *Request) (any, error) {
		return map[string]any{"origin": r.Origin, "x": r.Param("x"), "body": json.RawMessage(append([]byte(nil), r.Body...))}, nil
	}
	return append(Routes(),
		Route{Method: "PUT", Path: "/_matrix/test/{x}/put", OperationID: "testPut", Auth: AuthServer, MaxBody: 1000, Handler: tell},
		Route{Method: "GET", Path: "/_matrix/test/{x}/get", OperationID: "testGet", Auth: AuthServer, Handler: func(_ *Server, r *Request) (any, error) {
			return map[string]any{"origin": r.Origin, "x": r.Param("x")}, nil
		}},
		Route{Method: "GET", Path: "/_matrix/test/fail", OperationID: "testFail", Auth: AuthNone, Handler: func(*Server, *Request) (any, error) {
			return nil, fmt.Errorf("secret detail")
		}},
		Route{Method: "GET", Path: "/_matrix/test/panic", OperationID: "testPanic", Auth: AuthNone, Handler: func(*Server, *Request) (any, error) {
			panic("secret detail")
		}},
	)
}

// startServer serves on loopback with a certificate of the world's authority.
func (w *keyWorld) startServer(change func(*ServerOptions)) (*Server, peer.Target) {
	w.t.Helper()
	o := ServerOptions{Identity: w.c.own, Keyring: w.ring, Clock: w.clk.now, Software: "Conclave", Version: "1", WellKnown: "us.test:443"}
	if change != nil {
		change(&o)
	}
	s, err := newServer(o, echoRoutes())
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	srv := s.HTTP()
	srv.TLSConfig = tlsFor(w.ca, w.t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			w.t.Errorf("serving: %v", err)
		}
	}()
	w.t.Cleanup(func() { _ = srv.Close(); <-done })
	return s, peer.Target{Server: w.c.own.Name(), URL: "https://" + ln.Addr().String()}
}

func TestServerKnowsWhoAsks(t *testing.T) {
	proof.Of(t, "F25", "FD-07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		var mu sync.Mutex
		alive := map[matrix.ServerName]int{}
		_, us := w.startServer(func(o *ServerOptions) {
			o.Policy = NewPolicy(nil, []string{"denied.test"})
			o.Alive = func(name matrix.ServerName) { mu.Lock(); alive[name]++; mu.Unlock() }
		})
		p, q := peer.New(t, w.ca, peer.Options{}), peer.New(t, w.ca, peer.Options{})
		stranger := peer.New(t, w.ca, peer.Options{Name: "denied.test"})
		body := []byte(`{"a": 1, "float": 1.5}`)
		const uri = "/_matrix/test/a%2Fb/put?q=1"
		good := p.Authorization(us.Server, "PUT", uri, body)
		self := &peer.Peer{Name: us.Server, KeyID: p.KeyID, Key: p.Key}
		for name, c := range map[string]struct {
			headers []string
			status  int
		}{
			"as it should be":        {[]string{good}, 200},
			"another scheme besides": {[]string{"Bearer x", good}, 200},
			"nothing":                {nil, 401},
			"another scheme":         {[]string{"Bearer x"}, 401},
			"garbage":                {[]string{"X-Matrix garbage"}, 401},
			"for another server":     {[]string{p.Authorization("other.test", "PUT", uri, body)}, 401},
			"for nobody":             {[]string{strings.Replace(good, `destination="`+string(us.Server)+`",`, "", 1)}, 401},
			"another method":         {[]string{p.Authorization(us.Server, "POST", uri, body)}, 401},
			"another query":          {[]string{p.Authorization(us.Server, "PUT", "/_matrix/test/a%2Fb/put?q=2", body)}, 401},
			"another spelling":       {[]string{p.Authorization(us.Server, "PUT", "/_matrix/test/a/b/put?q=1", body)}, 401},
			"another body":           {[]string{p.Authorization(us.Server, "PUT", uri, []byte(`{"a":2}`))}, 401},
			"no body":                {[]string{p.Authorization(us.Server, "PUT", uri, nil)}, 401},
			"in another's name":      {[]string{strings.Replace(good, string(p.Name), string(q.Name), 1)}, 401},
			"in our name":            {[]string{self.Authorization(us.Server, "PUT", uri, body)}, 401},
			"an unknown key":         {[]string{strings.Replace(good, string(p.KeyID), "ed25519:none", 1)}, 401},
			"two, one unknown":       {[]string{good, strings.Replace(good, string(p.KeyID), "ed25519:none", 1)}, 200},
			"two, one wrong":         {[]string{good, p.Authorization(us.Server, "POST", uri, body)}, 401},
			"two servers":            {[]string{good, q.Authorization(us.Server, "PUT", uri, body)}, 401},
			"too many":               {[]string{good, good, good, good, good}, 401},
			"not wanted here":        {[]string{stranger.Authorization(us.Server, "PUT", uri, body)}, 403},
		} {
			got := p.DoWith(t, us, "PUT", uri, body, http.Header{"Authorization": c.headers})
			if got.Status != c.status {
				t.Errorf("%s: status %d %s, want %d", name, got.Status, got.Body, c.status)
			}
			if c.status == 200 && string(got.Body) != fmt.Sprintf(`{"body":{"a":1,"float":1.5},"origin":%q,"x":"a/b"}`, p.Name) {
				t.Errorf("%s: the handler got %s", name, got.Body)
			}
			if c.status == 401 && got.Code() != "M_UNAUTHORIZED" {
				t.Errorf("%s: errcode %s", name, got.Code())
			}
		}
		t.Run("relaxed", func(t *testing.T) {
			proof.Of(t, "FD-08")
			_, lax := w.startServer(func(o *ServerOptions) { o.AnyDestination = true })
			for header, status := range map[string]int{
				strings.Replace(good, `destination="`+string(us.Server)+`",`, "", 1):                                 200,
				p.Authorization("other.test", "PUT", uri, body):                                                      401,
				strings.Replace(p.Authorization("other.test", "PUT", uri, body), `destination="other.test",`, "", 1): 401,
			} {
				if got := p.DoWith(t, lax, "PUT", uri, body, http.Header{"Authorization": {header}}); got.Status != status {
					t.Errorf("%s: status %d %s, want %d", header, got.Status, got.Body, status)
				}
			}
		})
		mu.Lock()
		defer mu.Unlock()
		if alive[p.Name] != 3 || len(alive) != 1 {
			t.Errorf("alive are %v", alive)
		}
		if len(stranger.Calls("/")) != 0 {
			t.Error("a server that we do not federate with was asked for keys")
		}
	})
}

func TestServerBounds(t *testing.T) {
	proof.Of(t, "FD-02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p := peer.New(t, w.ca, peer.Options{})
		for name, c := range map[string]struct {
			method, uri string
			body        []byte
			status      int
			code        string
		}{
			"fits":               {"PUT", "/_matrix/test/x/put", []byte(`{"a":"` + strings.Repeat("x", 990) + `"}`), 200, ""},
			"too large":          {"PUT", "/_matrix/test/x/put", []byte(`{"a":"` + strings.Repeat("x", 1000) + `"}`), 413, "M_TOO_LARGE"},
			"a get":              {"GET", "/_matrix/test/x/get", nil, 200, ""},
			"unknown path":       {"GET", "/_matrix/federation/v1/none", nil, 404, "M_UNRECOGNIZED"},
			"unknown root":       {"GET", "/", nil, 404, "M_UNRECOGNIZED"},
			"wrong method":       {"POST", "/_matrix/test/x/put", []byte(`{}`), 405, "M_UNRECOGNIZED"},
			"an error in us":     {"GET", "/_matrix/test/fail", nil, 500, "M_UNKNOWN"},
			"a fault in us":      {"GET", "/_matrix/test/panic", nil, 500, "M_UNKNOWN"},
			"an endless address": {"GET", "/_matrix/test/x/get?" + strings.Repeat("x", maxURIBytes), nil, 400, "M_INVALID_PARAM"},
		} {
			got := p.Do(t, us, c.method, c.uri, c.body)
			if got.Status != c.status || got.Code() != c.code {
				t.Errorf("%s: %d %s, want %d %s", name, got.Status, got.Body, c.status, c.code)
			}
			if strings.Contains(string(got.Body), "secret") || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: answered %s as %s", name, got.Body, got.Header.Get("Content-Type"))
			}
		}
		bad := []byte("{")
		if got := p.DoWith(t, us, "PUT", "/_matrix/test/x/put", bad, http.Header{"Authorization": {p.Authorization(us.Server, "PUT", "/_matrix/test/x/put", nil)}}); got.Status != 400 || got.Code() != "M_NOT_JSON" {
			t.Errorf("a body that is not JSON: %d %s", got.Status, got.Body)
		}
	})
}

func TestRoutesMustDeclareThemselves(t *testing.T) {
	own := testIdentity(t)
	whole := Route{Method: "PUT", Path: "/x", OperationID: "x", Auth: AuthServer, MaxBody: 1, Handler: func(*Server, *Request) (any, error) { return nil, nil }}
	for name, change := range map[string]func(*Route){
		"path":           func(r *Route) { r.Path = "" },
		"method":         func(r *Route) { r.Method, r.MaxBody = "PATCH", 0 },
		"operationId":    func(r *Route) { r.OperationID = "" },
		"authentication": func(r *Route) { r.Auth = 0 },
		"limit":          func(r *Route) { r.MaxBody = 0 },
		"needless limit": func(r *Route) { r.Method = "GET" },
		"handler":        func(r *Route) { r.Handler = nil },
	} {
		r := whole
		change(&r)
		if _, err := newServer(ServerOptions{Identity: own}, []Route{r}); err == nil {
			t.Errorf("a route without %s is served", name)
		}
	}
	if _, err := newServer(ServerOptions{Identity: own}, []Route{whole, whole}); err == nil {
		t.Error("the same route twice is served")
	}
	if _, err := newServer(ServerOptions{Identity: own}, []Route{whole}); err != nil {
		t.Error(err)
	}
	if _, err := NewServer(ServerOptions{Identity: own}); err != nil {
		t.Errorf("the table of routes: %v", err)
	}
}

func TestServerAnswersForItself(t *testing.T) {
	proof.Of(t, "FD-11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p := peer.New(t, w.ca, peer.Options{})
		none := http.Header{}
		if got := p.DoWith(t, us, "GET", "/_matrix/federation/v1/version", nil, none); string(got.Body) != `{"server":{"name":"Conclave","version":"1"}}` {
			t.Errorf("version: %s", got.Body)
		}
		if got := p.DoWith(t, us, "GET", "/.well-known/matrix/server", nil, none); string(got.Body) != `{"m.server":"us.test:443"}` {
			t.Errorf("well-known: %s", got.Body)
		}
		got := p.DoWith(t, us, "GET", "/_matrix/key/v2/server", nil, none)
		if doc, err := parseKeyDocument(got.Body, us.Server); err != nil || !doc.keys["ed25519:ours"].Public.Equal(w.c.own.Key().Public()) {
			t.Errorf("keys: %s, %v", got.Body, err)
		}
	})
}

func TestServerIsANotary(t *testing.T) {
	proof.Of(t, "FD-12", "FD-13", "F03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p, dead := peer.New(t, w.ca, peer.Options{}), peer.New(t, w.ca, peer.Options{})
		if err := w.verify(dead, dead.KeyID, dead.Key, w.clk.now(), true); err != nil {
			t.Fatal(err)
		}
		dead.Stop()
		w.clk.add(13 * time.Hour) // past half of the document's life
		query := func(method, uri, body string) map[matrix.ServerName]json.RawMessage {
			t.Helper()
			var data []byte
			if body != "" {
				data = []byte(body)
			}
			got := p.DoWith(t, us, method, uri, data, http.Header{})
			var answer struct {
				Keys []json.RawMessage `json:"server_keys"`
			}
			if err := json.Unmarshal(got.Body, &answer); err != nil || got.Status != 200 || answer.Keys == nil {
				t.Fatalf("%s %s: %d %s", method, uri, got.Status, got.Body)
			}
			found := map[matrix.ServerName]json.RawMessage{}
			for _, raw := range answer.Keys {
				name, _ := matrix.GetString(raw, "server_name")
				found[matrix.ServerName(name)] = raw
			}
			return found
		}
		body := fmt.Sprintf(`{"server_keys":{%q:{},%q:{"%s":{"minimum_valid_until_ts":1}},%q:{},"gone.test":{},"no name!":{}}}`, p.Name, dead.Name, dead.KeyID, us.Server)
		found := query("POST", "/_matrix/key/v2/query", body)
		if len(found) != 3 || found[p.Name] == nil || found[dead.Name] == nil || found[us.Server] == nil {
			t.Fatalf("found %d documents", len(found))
		}
		for _, from := range []*peer.Peer{p, dead} {
			raw := found[from.Name]
			if _, err := parseKeyDocument(raw, from.Name); err != nil {
				t.Errorf("%s's own signature: %v", from.Name, err)
			}
			if err := matrix.VerifyJSON(raw, ourName, "ed25519:ours", w.c.own.Key().Public()); err != nil {
				t.Errorf("our signature of %s's document: %v", from.Name, err)
			}
		}
		if one := query("GET", "/_matrix/key/v2/query/"+string(p.Name)+"?minimum_valid_until_ts=5", ""); len(one) != 1 {
			t.Errorf("a single query found %d", len(one))
		}
		if none := query("GET", "/_matrix/key/v2/query/gone.test", ""); len(none) != 0 {
			t.Errorf("a server that is not there has %d documents", len(none))
		}
		for range 50 {
			query("POST", "/_matrix/key/v2/query", body)
		}
		if keyList(p) != 1 {
			t.Errorf("50 queries made %d requests to the server that was asked about", keyList(p))
		}
		many := map[string]any{}
		for i := range maxNotaryServers + 1 {
			many[fmt.Sprintf("s%d.test", i)] = map[string]any{}
		}
		big, _ := json.Marshal(map[string]any{"server_keys": many})
		for uri, body := range map[string][]byte{"/_matrix/key/v2/query": big, "/_matrix/key/v2/query?": []byte(`{}`)} {
			if got := p.DoWith(t, us, "POST", uri, body, http.Header{}); got.Status != 400 {
				t.Errorf("%s: %d %s", uri, got.Status, got.Body)
			}
		}
		if got := p.DoWith(t, us, "GET", "/_matrix/key/v2/query/no%20name", nil, http.Header{}); got.Status != 400 {
			t.Errorf("not a name: %d %s", got.Status, got.Body)
		}
	})
}

func TestOriginLimits(t *testing.T) {
	var l originLimits
	ctx := t.Context()
	var releases []func()
	for range 2 {
		release, ok := l.take(ctx, "a.test", "op", 2)
		if !ok {
			t.Fatal("no place although none was taken")
		}
		releases = append(releases, release)
	}
	if release, ok := l.take(ctx, "b.test", "op", 2); !ok {
		t.Error("another server is held up")
	} else {
		release()
	}
	got := make(chan bool, 100)
	var waiting sync.WaitGroup
	for range 2 * waitersPerSlot {
		waiting.Go(func() {
			release, ok := l.take(ctx, "a.test", "op", 2)
			if ok {
				release()
			}
			got <- ok
		})
	}
	key := originKey{"a.test", "op"}
	for users := 0; users < 2+2*waitersPerSlot; {
		l.mu.Lock()
		users = l.m[key].users
		l.mu.Unlock()
	}
	if _, ok := l.take(ctx, "a.test", "op", 2); ok {
		t.Error("more wait than may")
	}
	for _, release := range releases {
		release()
	}
	waiting.Wait()
	for range 2 * waitersPerSlot {
		if !<-got {
			t.Error("one that waited got no place")
		}
	}
	if len(l.m) != 0 {
		t.Errorf("%d queues are left", len(l.m))
	}
}

func TestSelfSignedCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	cert, key, err := SelfSigned(dir, "us.test:8448")
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadCertificates(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := Roots(cert)
	if err != nil {
		t.Fatal(err)
	}
	first := c.get(time.Now())
	if err := verifyLeaf(first, roots, "us.test"); err != nil {
		t.Error(err)
	}
	if _, again, err := SelfSigned(dir, "us.test:8448"); err != nil || again != key {
		t.Errorf("a second time: %v", err)
	}
	if err := verifyLeaf(c.get(time.Now().Add(time.Hour)), roots, "us.test"); err != nil {
		t.Error(err)
	}
	for _, name := range []matrix.ServerName{"127.0.0.1:1", "[::1]"} {
		cert, _, err := SelfSigned(t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Roots(cert); err != nil {
			t.Error(err)
		}
	}
	if _, err := Roots(key); err == nil {
		t.Error("a file without certificates passed for authorities")
	}
}
