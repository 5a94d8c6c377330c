package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// keyWorld is a keyring over a real client, with peers.
type keyWorld struct {
	t    *testing.T
	db   *store.DB
	ca   *peer.CA
	clk  *clock
	c    *Client
	ring *Keyring
}

func newKeyWorld(t *testing.T, db *store.DB, notaries ...*peer.Peer) *keyWorld {
	ca := peer.NewCA(t)
	if len(notaries) > 0 {
		ca = notaries[0].CA
	}
	w := &keyWorld{t: t, db: db, ca: ca, clk: newClock()}
	w.c = testClient(t, ca, nil)
	var names []matrix.ServerName
	for _, n := range notaries {
		names = append(names, n.Name)
	}
	w.ring = NewKeyring(KeyringOptions{Identity: w.c.own, DB: db, Source: w.c, Notaries: names, Clock: w.clk.now})
	return w
}

// verify checks a signature by key that peer p made of a message.
func (w *keyWorld) verify(p *peer.Peer, id matrix.KeyID, key ed25519.PrivateKey, at time.Time, strict bool) error {
	message := []byte("message")
	return w.ring.Verify(w.t.Context(), p.Name, id, at.UnixMilli(), strict, message, ed25519.Sign(key, message))
}

func keyList(p *peer.Peer) int { return len(p.Calls("/_matrix/key/v2/server")) }

func TestKeysAreFetchedOnceAndKept(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		p := peer.New(t, w.ca, peer.Options{})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if keyList(p) != 1 {
			t.Errorf("asked %d times, want once", keyList(p))
		}
		w.ring = NewKeyring(KeyringOptions{Identity: w.c.own, DB: db, Source: w.c, Clock: w.clk.now})
		if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); err != nil || keyList(p) != 1 {
			t.Errorf("after a restart: %v, asked %d times", err, keyList(p))
		}
		if err := w.ring.Verify(t.Context(), p.Name, p.KeyID, w.clk.now().UnixMilli(), true, []byte("x"), make([]byte, 64)); !errors.Is(err, ErrBadSignature) {
			t.Errorf("a wrong signature: %v", err)
		}
	})
}

func TestKeyValidity(t *testing.T) {
	proof.Of(t, "F02", "FD-14")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, old, _ := ed25519.GenerateKey(nil)
		p := peer.New(t, w.ca, peer.Options{})
		now := w.clk.now()
		retired := now.Add(-48 * time.Hour)
		p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: p.KeyDocument(func(doc map[string]any) {
				doc["valid_until_ts"] = now.Add(365 * 24 * time.Hour).UnixMilli()
				doc["old_verify_keys"] = map[string]any{"ed25519:old": map[string]any{
					"key": matrix.EncodeBase64(old.Public().(ed25519.PublicKey)), "expired_ts": retired.UnixMilli(),
				}}
			})}
		})
		for name, c := range map[string]struct {
			id     matrix.KeyID
			key    ed25519.PrivateKey
			at     time.Time
			strict bool
			want   error
		}{
			"now":                         {p.KeyID, p.Key, now, true, nil},
			"long ago":                    {p.KeyID, p.Key, now.Add(-1000 * time.Hour), true, nil},
			"within a week":               {p.KeyID, p.Key, now.Add(6 * 24 * time.Hour), true, nil},
			"beyond a week":               {p.KeyID, p.Key, now.Add(8 * 24 * time.Hour), true, ErrExpiredKey},
			"beyond a week, not strict":   {p.KeyID, p.Key, now.Add(8 * 24 * time.Hour), false, nil},
			"before it was retired":       {"ed25519:old", old, retired.Add(-time.Hour), true, nil},
			"after it was retired":        {"ed25519:old", old, retired.Add(time.Hour), true, ErrExpiredKey},
			"after, but not strict":       {"ed25519:old", old, retired.Add(time.Hour), false, nil},
			"a retired key for a request": {"ed25519:old", old, now, true, ErrExpiredKey},
			"an unknown key":              {"ed25519:none", p.Key, now, true, ErrUnknownKey},
			"another key's ID":            {p.KeyID, old, now, true, ErrBadSignature},
		} {
			if err := w.verify(p, c.id, c.key, c.at, c.strict); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	})
}

func TestKeysAreRenewedWhenTheirLifeEnds(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		p := peer.New(t, w.ca, peer.Options{})
		p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: p.KeyDocument(func(doc map[string]any) {
				doc["valid_until_ts"] = w.clk.now().Add(time.Hour).UnixMilli()
			})}
		})
		for i, want := range []int{1, 1, 2} {
			if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); err != nil || keyList(p) != want {
				t.Errorf("step %d: %v after asking %d times, want %d", i, err, keyList(p), want)
			}
			w.clk.add(40 * time.Minute)
		}
		p.Stop()
		w.clk.add(2 * time.Hour)
		if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); !errors.Is(err, ErrExpiredKey) {
			t.Errorf("its server is gone and its life over: %v", err)
		}
		if err := w.verify(p, p.KeyID, p.Key, w.clk.now().Add(-3*time.Hour), true); err != nil {
			t.Errorf("an event from when it was valid: %v", err)
		}
	})
}

func TestKeyDocumentsThatAreNotBelieved(t *testing.T) {
	ca := peer.NewCA(t)
	p := peer.New(t, ca, peer.Options{Name: "p.test"})
	_, other, _ := ed25519.GenerateKey(nil)
	public := func(k ed25519.PrivateKey) string { return matrix.EncodeBase64(k.Public().(ed25519.PublicKey)) }
	unsigned := func(change func(map[string]any)) map[string]any {
		var doc map[string]any
		_ = json.Unmarshal(p.KeyDocument(change), &doc)
		delete(doc, "signatures")
		return doc
	}
	encode := func(doc map[string]any) []byte { raw, _ := json.Marshal(doc); return raw }
	signedBy := func(name matrix.ServerName, id matrix.KeyID, key ed25519.PrivateKey) []byte {
		doc := unsigned(nil)
		doc["valid_until_ts"] = 5
		peer.Sign(doc, name, id, key)
		return encode(doc)
	}
	for name, raw := range map[string][]byte{
		"not JSON":                          []byte("x"),
		"another server's":                  p.KeyDocument(func(d map[string]any) { d["server_name"] = "q.test" }),
		"unsigned":                          encode(unsigned(nil)),
		"signed by another name":            signedBy("q.test", p.KeyID, p.Key),
		"signed by another key":             signedBy(p.Name, p.KeyID, other),
		"signed by a key that is not in it": signedBy(p.Name, "ed25519:x", p.Key),
		"changed after signing":             append(p.KeyDocument(nil)[:1], append([]byte(`"x":1,`), p.KeyDocument(nil)[1:]...)...),
		"signed by a retired key": p.KeyDocument(func(d map[string]any) {
			d["old_verify_keys"] = map[string]any{string(p.KeyID): map[string]any{"key": public(p.Key), "expired_ts": 5}}
			d["verify_keys"] = map[string]any{}
		}),
		"too many keys": p.KeyDocument(func(d map[string]any) {
			many := map[string]any{}
			for i := range 100 {
				many["ed25519:k"+string(rune('a'+i%26))+string(rune('a'+i/26))] = map[string]any{"key": public(p.Key), "expired_ts": 5}
			}
			d["old_verify_keys"] = many
		}),
		"too large": p.KeyDocument(func(d map[string]any) { d["x"] = make([]int, maxDocBytes) }),
	} {
		if doc, err := parseKeyDocument(raw, p.Name); err == nil {
			t.Errorf("%s: believed, with keys %v", name, doc.keys)
		}
	}
	doc, err := parseKeyDocument(p.KeyDocument(func(d map[string]any) {
		d["verify_keys"].(map[string]any)["rsa:1"] = map[string]any{"key": "AAAA"}
		d["verify_keys"].(map[string]any)["ed25519:short"] = map[string]any{"key": "AAAA"}
	}), p.Name)
	if err != nil || len(doc.keys) != 1 {
		t.Errorf("odd keys among good ones: %v, %v", doc, err)
	}
}

func TestAKeyIDMeansOneKey(t *testing.T) {
	proof.Of(t, "F02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		p := peer.New(t, w.ca, peer.Options{})
		first := p.Key
		if err := w.verify(p, p.KeyID, first, w.clk.now(), true); err != nil {
			t.Fatal(err)
		}
		_, second, _ := ed25519.GenerateKey(nil)
		p.Key = second // under the same ID
		w.clk.add(25 * time.Hour)
		if err := w.verify(p, p.KeyID, second, w.clk.now(), true); err == nil {
			t.Error("other bytes under a known key ID were accepted")
		}
		if err := w.verify(p, p.KeyID, first, w.clk.now().Add(-24*time.Hour), true); err != nil {
			t.Errorf("the first key is lost: %v", err)
		}
		if keyList(p) != 2 {
			t.Errorf("asked %d times, want 2", keyList(p))
		}
	})
}

func TestDeadServersAreNotAskedAgainAndAgain(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		p := peer.New(t, w.ca, peer.Options{})
		p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply { return peer.Refuse(500, "M_UNKNOWN") })
		for range 100 {
			if err := w.verify(p, p.KeyID, p.Key, w.clk.now(), true); !errors.Is(err, ErrUnknownKey) {
				t.Fatalf("error %v", err)
			}
		}
		if keyList(p) != 1 {
			t.Errorf("asked %d times, want once", keyList(p))
		}
		for range 120 {
			w.clk.add(time.Minute)
			_ = w.verify(p, p.KeyID, p.Key, w.clk.now(), true)
		}
		if n := keyList(p); n < 10 || n > 18 {
			t.Errorf("asked %d times in two hours", n)
		}
		alive := peer.New(t, w.ca, peer.Options{})
		for i := range 50 {
			id := matrix.KeyID("ed25519:made_up_" + string(rune('a'+i%26)))
			if err := w.verify(alive, id, p.Key, w.clk.now(), true); !errors.Is(err, ErrUnknownKey) {
				t.Fatalf("error %v", err)
			}
		}
		if keyList(alive) != 1 {
			t.Errorf("made-up key IDs caused %d requests", keyList(alive))
		}
	})
}

func TestNotaryAnswersForDeadServers(t *testing.T) {
	proof.Of(t, "F03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		ca := peer.NewCA(t)
		notary, dead := peer.New(t, ca, peer.Options{}), peer.New(t, ca, peer.Options{})
		w := newKeyWorld(t, db, notary)
		dead.Stop()
		notarized := func(signer *peer.Peer) peer.Reply {
			var doc map[string]any
			_ = json.Unmarshal(dead.KeyDocument(nil), &doc)
			if signer != nil {
				peer.Sign(doc, notary.Name, notary.KeyID, signer.Key)
			}
			return peer.Reply{Body: map[string]any{"server_keys": []any{doc}}}
		}
		forged := notarized(notary)
		lie := forged.Body.(map[string]any)["server_keys"].([]any)[0].(map[string]any)
		lie["verify_keys"] = map[string]any{"ed25519:evil": map[string]any{"key": matrix.EncodeBase64(notary.Key.Public().(ed25519.PublicKey))}}
		delete(lie, "signatures")
		peer.Sign(lie, notary.Name, notary.KeyID, notary.Key)
		for _, c := range []struct {
			name  string
			reply peer.Reply
			ok    bool
		}{
			{"without the notary's signature", notarized(nil), false},
			{"with a wrong signature of the notary", notarized(dead), false},
			{"not signed by the server itself", forged, false},
			{"nothing", peer.Reply{Body: map[string]any{"server_keys": []any{}}}, false},
			{"as it should be", notarized(notary), true},
		} {
			notary.Handle("POST", "/_matrix/key/v2/query", func(*peer.Call) peer.Reply { return c.reply })
			w.clk.add(maxKeyRetry)
			if err := w.verify(dead, dead.KeyID, dead.Key, w.clk.now(), true); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	})
}

func TestVerifyEvents(t *testing.T) {
	proof.Of(t, "RV-09", "SG-02", "SG-07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for v := matrix.RoomVersion(1); v <= 12; v++ {
			w := newKeyWorld(t, db)
			p := peer.New(t, w.ca, peer.Options{})
			_, foreign, _ := ed25519.GenerateKey(nil)
			room := p.NewRoom(v, "alice")
			message := peer.Spec{Type: "m.room.message", Content: map[string]any{"body": "<é & \u2028>"}, Apart: true}
			future := time.Now().Add(30 * 24 * time.Hour).UnixMilli()
			signatures := func(m map[string]any) map[string]any {
				return m["signatures"].(map[string]any)[string(p.Name)].(map[string]any)
			}
			alongside := func(id, sig string) peer.Knob {
				return peer.Knob{Stage: peer.AfterSign, Change: func(m map[string]any) { signatures(m)[id] = sig }}
			}
			drop := peer.Knob{Stage: peer.AfterSign, Change: func(m map[string]any) { delete(signatures(m), string(p.KeyID)) }}
			cases := []struct {
				name  string
				knobs []peer.Knob
				ok    bool
			}{
				{"whole", nil, true},
				{"bad signature", []peer.Knob{p.BadSignature()}, false},
				{"no signature", []peer.Knob{peer.NoSignature()}, false},
				{"another server's signature", []peer.Knob{peer.SignedWith("other.test", "ed25519:x", foreign)}, false},
				{"an unknown key", []peer.Knob{peer.SignedWith(p.Name, "ed25519:x", p.Key)}, false},
				{"the policy server's key", []peer.Knob{peer.SignedWith(p.Name, policyServerKey, p.Key)}, false},
				{"another key under the ID", []peer.Knob{peer.SignedWith(p.Name, p.KeyID, foreign)}, false},
				{"changed sender's time", []peer.Knob{peer.SetLate("origin_server_ts", 5)}, false},
				{"a bad content hash", []peer.Knob{peer.BadHash()}, true},
				{"changed content", []peer.Knob{peer.SetLate("content", map[string]any{"body": "else"})}, true},
				{"an unknown key besides", []peer.Knob{alongside("ed25519:unknown", matrix.EncodeBase64(make([]byte, 64)))}, true},
				{"the policy server's key besides", []peer.Knob{alongside(string(policyServerKey), matrix.EncodeBase64(make([]byte, 64)))}, true},
				{"another algorithm besides", []peer.Knob{alongside("rsa:1", "AAAA")}, true},
				{"another algorithm alone", []peer.Knob{alongside("rsa:1", "AAAA"), drop}, false},
				{"a key ID without a version besides", []peer.Knob{alongside("ed25519:", "AAAA")}, true},
				{"signed in no base64", []peer.Knob{alongside(string(p.KeyID), "!!")}, false},
				{"signed too short", []peer.Knob{alongside(string(p.KeyID), "AAAA")}, false},
				{"from the future", []peer.Knob{peer.Set("origin_server_ts", future)}, v < 5},
			}
			var events []*matrix.Event
			for _, c := range cases {
				made := room.Make(message, c.knobs...)
				e, err := matrix.ParseEvent(made.JSON, v)
				if err != nil {
					t.Fatalf("version %s, %s: %v", v, c.name, err)
				}
				events = append(events, e)
			}
			for _, made := range room.Events() {
				e, err := matrix.ParseEvent(made.JSON, v)
				if err != nil {
					t.Fatalf("version %s: %v", v, err)
				}
				if e.ID() != made.ID {
					t.Errorf("version %s: %s is called %s by the peer", v, e.ID(), made.ID)
				}
				if !e.CheckContentHash() {
					t.Errorf("version %s: the content hash of %s does not hold", v, e.Type())
				}
				events = append(events, e)
			}
			for i, err := range w.ring.VerifyEvents(t.Context(), events) {
				switch {
				case i >= len(cases) && err != nil:
					t.Errorf("version %s, %s: %v", v, events[i].Type(), err)
				case i < len(cases) && (err == nil) != cases[i].ok:
					t.Errorf("version %s, %s: %v", v, cases[i].name, err)
				}
			}
			if keyList(p) > 2 {
				t.Errorf("version %s: %d events caused %d requests for keys", v, len(events), keyList(p))
			}
		}
	})
}

func TestVerifyEventsFetchesFromManyServersAtOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		var events []*matrix.Event
		var peers []*peer.Peer
		gate := make(chan struct{})
		var arrived sync.WaitGroup
		for range 4 {
			p := peer.New(t, w.ca, peer.Options{})
			arrived.Add(1)
			var once sync.Once
			p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
				once.Do(arrived.Done)
				<-gate
				return peer.Reply{Body: p.KeyDocument(nil)}
			})
			peers = append(peers, p)
			for _, made := range p.NewRoom(12, "alice").Events() {
				e, err := matrix.ParseEvent(made.JSON, 12)
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, e)
			}
		}
		go func() { arrived.Wait(); close(gate) }() // opens only once all four are asked
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for i, err := range w.ring.VerifyEvents(ctx, events) {
			if err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		}
		for _, p := range peers {
			if keyList(p) != 1 {
				t.Errorf("%s was asked %d times", p.Name, keyList(p))
			}
		}
	})
}

func TestOwnKeys(t *testing.T) {
	proof.Of(t, "FD-12", "FD-14")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		_, key, _ := ed25519.GenerateKey(nil)
		_, old, _ := ed25519.GenerateKey(nil)
		now := time.Now()
		own, err := NewIdentity(ourName, []SigningKey{{"ed25519:a", key}}, []RetiredKey{{"ed25519:b", old.Public().(ed25519.PublicKey), now.Add(-time.Hour).UnixMilli()}})
		if err != nil {
			t.Fatal(err)
		}
		ring := NewKeyring(KeyringOptions{Identity: own, DB: db})
		message := []byte("m")
		for _, c := range []struct {
			id   matrix.KeyID
			key  ed25519.PrivateKey
			at   time.Time
			want error
		}{
			{"ed25519:a", key, now, nil},
			{"ed25519:b", old, now.Add(-2 * time.Hour), nil},
			{"ed25519:b", old, now, ErrExpiredKey},
			{"ed25519:c", key, now, ErrUnknownKey},
		} {
			if err := ring.Verify(t.Context(), ourName, c.id, c.at.UnixMilli(), true, message, ed25519.Sign(c.key, message)); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.id, err, c.want)
			}
		}
		raw, err := own.Document(ourName, now)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := parseKeyDocument(raw, ourName)
		if err != nil || len(doc.keys) != 2 || doc.keys["ed25519:b"].Expired == 0 || doc.validUntil < now.Add(time.Hour).UnixMilli() {
			t.Errorf("our own document: %+v, %v", doc, err)
		}
	})
}
