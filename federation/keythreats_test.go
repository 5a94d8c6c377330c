package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

func publicOf(key ed25519.PrivateKey) string {
	return matrix.EncodeBase64(key.Public().(ed25519.PublicKey))
}

// TestEventsByWrongKeys is threats F02: a member's server signs events with every key but the right one, and the right
// one at the wrong time.
func TestEventsByWrongKeys(t *testing.T) {
	proof.Of(t, "F02", "FD-14", "RV-09")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		notary := peer.New(t, peer.NewCA(t), peer.Options{})
		w := newHouse(t, db, notary)
		q := peer.New(t, w.ca, peer.Options{})
		now := w.clk.now()
		validUntil, expired := now.Add(2*time.Hour), now.Add(-time.Hour)
		_, old, _ := ed25519.GenerateKey(nil)
		_, hidden, _ := ed25519.GenerateKey(nil)
		_, weak, _ := ed25519.GenerateKey(nil)
		document := func(more string, key ed25519.PrivateKey) []byte {
			return w.p.KeyDocument(func(doc map[string]any) {
				doc["valid_until_ts"] = validUntil.UnixMilli()
				doc["old_verify_keys"] = map[string]any{"ed25519:old": map[string]any{"key": publicOf(old), "expired_ts": expired.UnixMilli()}}
				if more != "" {
					doc["verify_keys"].(map[string]any)[more] = map[string]any{"key": publicOf(key)}
				}
			})
		}
		w.p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply { return peer.Reply{Body: document("", nil)} })
		// The notary vouches for a key that the server itself does not publish, in a document that it did sign.
		notary.Handle("POST", "/_matrix/key/v2/query", func(*peer.Call) peer.Reply {
			var doc map[string]any
			_ = json.Unmarshal(document("ed25519:hidden", hidden), &doc)
			peer.Sign(doc, notary.Name, notary.KeyID, notary.Key)
			return peer.Reply{Body: map[string]any{"server_keys": []any{doc}}}
		})
		ref := w.room(12, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		h := w.guestIn(q, ref, q.User("carol"))
		at := func(ts time.Time) peer.Knob { return peer.Set("origin_server_ts", ts.UnixMilli()) }
		by := func(id matrix.KeyID, key ed25519.PrivateKey) peer.Knob { return peer.SignedWith(w.p.Name, id, key) }
		cases := map[string]struct {
			from  *guest
			knobs []peer.Knob
			ok    bool
		}{
			"its own key":                             {g, nil, true},
			"its own key, long ago":                   {g, []peer.Knob{at(now.Add(-100 * 24 * time.Hour))}, true},
			"its own key, at the end of its life":     {g, []peer.Knob{at(validUntil)}, true},
			"its own key, beyond its life":            {g, []peer.Knob{at(validUntil.Add(time.Minute))}, false},
			"the old key, before it expired":          {g, []peer.Knob{by("ed25519:old", old), at(expired.Add(-time.Minute))}, true},
			"the old key, after it expired":           {g, []peer.Knob{by("ed25519:old", old), at(expired.Add(time.Minute))}, false},
			"another server's key in its name":        {g, []peer.Knob{by(q.KeyID, q.Key)}, false},
			"another server's key under its own ID":   {g, []peer.Knob{by("ed25519:q", q.Key)}, false},
			"the server that sends, not the sender's": {h, []peer.Knob{by(w.p.KeyID, w.p.Key)}, false},
			"a key that only the notary has":          {g, []peer.Knob{by("ed25519:hidden", hidden)}, false},
			"a key that nobody has":                   {g, []peer.Knob{by("ed25519:weak", weak)}, false},
		}
		n := 0
		for name, c := range cases {
			n++
			e := c.from.message(name, c.knobs...)
			v, known := accepted(t, w.send(w.p, fmt.Sprint("key", n), []string{string(e.JSON)}, nil))[e.ID]
			if !known || (len(v) == 0) != c.ok {
				t.Errorf("%s: judged %v", name, v)
			}
			if c.ok {
				w.arrives(ref, e.ID)
			} else if _, err := w.rooms.EventInRoom(t.Context(), ref.NID, e.ID); err == nil {
				t.Errorf("%s: the event is held", name)
			}
		}
		if len(notary.Calls("/_matrix/key/v2/query")) != 0 {
			t.Error("a notary was asked about a server that answers")
		}
	})
}

// TestOldDocumentsTakeNothingBack replays a server's older document by way of a notary.
func TestOldDocumentsTakeNothingBack(t *testing.T) {
	proof.Of(t, "F03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		notary := peer.New(t, peer.NewCA(t), peer.Options{})
		w := newKeyWorld(t, db, notary)
		p := peer.New(t, w.ca, peer.Options{})
		now := w.clk.now()
		if err := w.verify(p, p.KeyID, p.Key, now, true); err != nil {
			t.Fatal(err)
		}
		p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply { return peer.Refuse(500, "M_UNKNOWN") })
		notary.Handle("POST", "/_matrix/key/v2/query", func(*peer.Call) peer.Reply {
			var doc map[string]any
			_ = json.Unmarshal(p.KeyDocument(func(d map[string]any) { d["valid_until_ts"] = now.Add(-time.Hour).UnixMilli() }), &doc)
			peer.Sign(doc, notary.Name, notary.KeyID, notary.Key)
			return peer.Reply{Body: map[string]any{"server_keys": []any{doc}}}
		})
		w.clk.add(2 * time.Minute)
		if err := w.verify(p, "ed25519:unknown", p.Key, now, true); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("an unknown key: %v", err)
		}
		if len(notary.Calls("/_matrix/key/v2/query")) != 1 {
			t.Fatal("the notary was not asked")
		}
		if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); err != nil {
			t.Errorf("after an old document: %v", err)
		}
	})
}

// TestNotariesAreAskedForManyAtOnce has a room's worth of dead servers, all known to a notary, one of them with a
// document that spoils every answer that it is in.
func TestNotariesAreAskedForManyAtOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		ca := peer.NewCA(t)
		notary := peer.New(t, ca, peer.Options{})
		w := newKeyWorld(t, db, notary)
		signer := peer.New(t, ca, peer.Options{})
		signer.Stop()
		const many = 120
		name := func(i int) matrix.ServerName { return matrix.ServerName(fmt.Sprintf("dead%d.test:1", i)) }
		poison := name(7)
		var first sync.Once
		waiting := func() int {
			w.ring.notaryQueues.mu.Lock()
			defer w.ring.notaryQueues.mu.Unlock()
			return len(w.ring.notaryQueues.queues[notary.Name].waiting)
		}
		notary.Handle("POST", "/_matrix/key/v2/query", func(c *peer.Call) peer.Reply {
			var asked struct {
				Servers map[matrix.ServerName]any `json:"server_keys"`
			}
			c.JSON(t, &asked)
			first.Do(func() { // one server, or the few that came before it was sent
				wait.Until(t, "all others to wait", func() bool { return waiting() == many-len(asked.Servers) })
			})
			if len(asked.Servers) > maxNotaryServers {
				t.Errorf("%d servers in one question", len(asked.Servers))
			}
			var docs []any
			for server := range asked.Servers {
				if server == poison {
					docs = append(docs, map[string]any{"server_name": server, "x": make([]int, 1<<20)})
					continue
				}
				var doc map[string]any
				_ = json.Unmarshal(signer.KeyDocument(nil), &doc)
				doc["server_name"] = string(server)
				delete(doc, "signatures")
				peer.Sign(doc, server, signer.KeyID, signer.Key)
				peer.Sign(doc, notary.Name, notary.KeyID, notary.Key)
				docs = append(docs, doc)
			}
			return peer.Reply{Body: map[string]any{"server_keys": docs}}
		})
		message := []byte("m")
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				err := w.ring.Verify(t.Context(), name(i), signer.KeyID, w.clk.now().UnixMilli(), true, message, ed25519.Sign(signer.Key, message))
				if (err == nil) != (name(i) != poison) {
					t.Errorf("%s: %v", name(i), err)
				}
			})
		}
		wg.Wait()
		// One alone, three together, and those of the spoilt answer once more alone.
		if n := len(notary.Calls("/_matrix/key/v2/query")); n > 1+3+maxNotaryServers {
			t.Errorf("%d servers cost %d questions", many, n)
		}
	})
}

// TestNotaryIsNoAmplifier is threats F03: whoever asks us for the keys of a thousand dead servers, again and again, makes
// us knock at each of them once.
func TestNotaryIsNoAmplifier(t *testing.T) {
	proof.Of(t, "F03", "FD-13")
	dbtest.EachInTurn(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p := peer.New(t, w.ca, peer.Options{})
		door, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var knocks atomic.Int64
		go func() {
			for {
				conn, err := door.Accept()
				if err != nil {
					return
				}
				knocks.Add(1)
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() { _ = door.Close() })
		_, port, _ := net.SplitHostPort(door.Addr().String())
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 3 {
			for part := range 20 {
				servers := map[string]any{}
				for i := range maxNotaryServers {
					servers[fmt.Sprintf("dead%d.test:%s", part*maxNotaryServers+i, port)] = map[string]any{}
				}
				body, _ := json.Marshal(map[string]any{"server_keys": servers})
				if a := p.DoWith(t, us, "POST", "/_matrix/key/v2/query", body, http.Header{}); string(a.Body) != `{"server_keys":[]}` {
					t.Fatalf("answered %d %s", a.Status, a.Body)
				}
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := knocks.Load(); n > 1000 || n < 900 {
			t.Errorf("3,000 questions about 1,000 servers made %d connections", n)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 50<<20 {
			t.Errorf("%d MiB are held", grown>>20)
		}
		// In flight for one server: one.
		gate, asked := make(chan struct{}), make(chan struct{}, 100)
		slow := peer.New(t, w.ca, peer.Options{})
		slow.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
			asked <- struct{}{}
			<-gate
			return peer.Reply{Body: slow.KeyDocument(nil)}
		})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				a := p.DoWith(t, us, "GET", "/_matrix/key/v2/query/"+string(slow.Name), nil, http.Header{})
				if a.Status != 200 {
					t.Errorf("answered %d %s", a.Status, a.Body)
				}
			})
		}
		<-asked
		close(gate)
		wg.Wait()
		if keyList(slow) != 1 {
			t.Errorf("20 questions at a time made %d requests", keyList(slow))
		}
	})
}

// failing is a source of keys that has none.
type failing struct{}

func (failing) GetServerKey(context.Context, matrix.ServerName) ([]byte, error) { return nil, io.EOF }

func (failing) QueryNotary(context.Context, matrix.ServerName, KeyCriteria) ([]json.RawMessage, error) {
	panic("a notary's answer that nobody foresaw")
}

// TestPanicOverANotary must not end the process.
func TestPanicOverANotary(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		ring := NewKeyring(KeyringOptions{Identity: testIdentity(t), DB: db, Source: failing{}, Notaries: []matrix.ServerName{"n.test"}})
		if err := ring.Verify(t.Context(), "a.test", "ed25519:a", 1, true, []byte("m"), make([]byte, 64)); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("verified: %v", err)
		}
	})
}

// tarpit is a source of keys where strangers hold whoever asks them.
type tarpit struct{ asked chan matrix.ServerName }

func (s tarpit) GetServerKey(ctx context.Context, server matrix.ServerName) ([]byte, error) {
	if server == "friend.test" {
		return nil, io.EOF
	}
	s.asked <- server
	<-ctx.Done()
	return nil, ctx.Err()
}

func (tarpit) QueryNotary(context.Context, matrix.ServerName, KeyCriteria) ([]json.RawMessage, error) {
	return nil, io.EOF
}

// TestStrangersHoldNoFriendsUp has very many servers that nobody knows asked for their keys, who never answer: those that share a
// room with us are asked all the same.
func TestStrangersHoldNoFriendsUp(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		version, _ := matrix.ParseRoomVersion("10")
		room, err := db.AddRoom(t.Context(), "!room:friend.test", version)
		if err != nil {
			t.Fatal(err)
		}
		friend, err := db.User(t.Context(), "@f:friend.test")
		if err != nil {
			t.Fatal(err)
		}
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.PutMember(room, friend, store.Join, 1, "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		source := tarpit{make(chan matrix.ServerName, 2*maxFetches)}
		ring := NewKeyring(KeyringOptions{Identity: testIdentity(t), DB: db, Source: source})
		ctx, cancel := context.WithCancel(t.Context())
		var strangers sync.WaitGroup
		for i := range 2 * maxFetches {
			strangers.Go(func() {
				_ = ring.Verify(ctx, matrix.ServerName(fmt.Sprintf("s%d.test", i)), "ed25519:a", 1, true, []byte("m"), make([]byte, 64))
			})
		}
		for range maxFetches {
			<-source.asked
		}
		began := time.Now()
		if err := ring.Verify(t.Context(), "friend.test", "ed25519:a", 1, true, []byte("m"), make([]byte, 64)); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("verified: %v", err)
		}
		if took := time.Since(began); took > fetchTimeout/2 {
			t.Errorf("a server that shares a room with us waited for %v", took)
		}
		if len(source.asked) != 0 {
			t.Error("more strangers were asked at a time than there are places")
		}
		cancel()
		strangers.Wait()
	})
}
