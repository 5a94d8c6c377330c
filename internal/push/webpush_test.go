package push

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

func decode64(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestSealing is the example of RFC 8291, section 5 and appendix A.
func TestSealing(t *testing.T) {
	own, err := ecdh.P256().NewPrivateKey(decode64(t, "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSubscription("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", []byte(`{"url":"https://x","auth":"BTBZMqHH6r4Tts7J_aSIgg"}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := sealWith(s, own, decode64(t, "DGv6ra1nlYgDCS1FRnbzlw"), []byte("When I grow up, I want to be a watermelon\x02"))
	const want = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_" +
		"yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
	if err != nil || encode64(got) != want {
		t.Errorf("sealed: %s, %v, want %s", encode64(got), err, want)
	}
}

// browser is the other end of Web Push: a subscription, and the service that it is with.
type browser struct {
	t       *testing.T
	key     *ecdh.PrivateKey
	auth    []byte
	service *httptest.Server
	status  atomic.Int64
	told    chan map[string]any
	web     *WebPush
}

func newBrowser(t *testing.T) *browser {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, key: key, auth: []byte("0123456789abcdef"), told: make(chan map[string]any, 100)}
	b.status.Store(http.StatusCreated)
	b.service = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.service.Close)
	if b.web, err = NewWebPush([]byte("a secret of the database of a test"), "https://one.example"); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) data() string {
	return fmt.Sprintf(`{"url":%q,"auth":%q}`, b.service.URL+"/some/path?with=query", encode64(b.auth))
}

func (b *browser) pushkey() string { return encode64(b.key.PublicKey().Bytes()) }

func (b *browser) serve(rw http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/some/path" || r.Header.Get("Content-Encoding") != "aes128gcm" || r.Header.Get("TTL") != "86400" || len(raw) != 86+webPlain+16 {
		b.t.Errorf("the service is sent %d bytes to %s with %v, %v", len(raw), r.URL, r.Header, err)
		return
	}
	b.checkSender(r.Header.Get("Authorization"))
	m := b.open(raw)
	m["urgency"] = r.Header.Get("Urgency")
	status := b.status.Load() // before the test hears of the message: it may set another one for the next
	b.told <- m
	rw.WriteHeader(int(status))
}

// checkSender checks the VAPID token against the server's key.
func (b *browser) checkSender(header string) {
	token, key, _ := strings.Cut(strings.TrimPrefix(header, "vapid t="), ", k=")
	parts := strings.Split(token, ".")
	if len(parts) != 3 || key != b.web.PublicKey() {
		b.t.Errorf("the authorization is %s", header)
		return
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), decode64(b.t, key))
	if err != nil {
		b.t.Error(err)
		return
	}
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature := decode64(b.t, parts[2])
	if !ecdsa.Verify(public, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		b.t.Error("the token is not signed by the server's key")
	}
	var claims struct {
		Aud, Sub string
		Exp      int64
	}
	if err := json.Unmarshal(decode64(b.t, parts[1]), &claims); err != nil || claims.Aud != b.service.URL || claims.Sub != "https://one.example" ||
		time.Until(time.Unix(claims.Exp, 0)) > 24*time.Hour {
		b.t.Errorf("the token claims %+v, %v", claims, err)
	}
}

// open opens a message as a browser does.
func (b *browser) open(raw []byte) (m map[string]any) {
	salt, sender, text := raw[:16], raw[21:86], raw[86:]
	from, err := ecdh.P256().NewPublicKey(sender)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	shared, err := b.key.ECDH(from)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	derive := func(secret, salt []byte, info string, n int) []byte {
		key, err := hkdf.Key(sha256.New, secret, salt, info, n)
		if err != nil {
			b.t.Error(err)
		}
		return key
	}
	secret := derive(shared, b.auth, "WebPush: info\x00"+string(b.key.PublicKey().Bytes())+string(sender), 32)
	block, err := aes.NewCipher(derive(secret, salt, "Content-Encoding: aes128gcm\x00", 16))
	if err != nil {
		b.t.Error(err)
		return nil
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	plain, err := gcm.Open(nil, derive(secret, salt, "Content-Encoding: nonce\x00", 12), text, nil)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	text, _, _ = bytes.Cut(plain, []byte{2})
	if err := json.Unmarshal(text, &m); err != nil {
		b.t.Error(err)
	}
	return m
}

func (b *browser) next() map[string]any {
	b.t.Helper()
	select {
	case m := <-b.told:
		return m
	case <-time.After(time.Minute):
		b.t.Fatal("waited in vain for a message of Web Push")
		return nil
	}
}

func TestWebPush(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		b := newBrowser(t)
		w := newWorld(t, db)
		kind, name := KindWebPush, "Browser"
		pushers := NewPushers(db, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil, func() {})
		wanted := func(key, data string) Wanted {
			return Wanted{Kind: &kind, AppID: "im.conclave", Key: key, AppName: &name, DeviceName: &name, Lang: &name, Data: json.RawMessage(data)}
		}
		for what, bad := range map[string]Wanted{
			"a short key":       wanted("BCVxsr7N", b.data()),
			"no point":          wanted(encode64(slices.Repeat([]byte{4}, 65)), b.data()),
			"no secret":         wanted(b.pushkey(), `{"url":"https://push.example/x"}`),
			"a short secret":    wanted(b.pushkey(), `{"url":"https://push.example/x","auth":"BTBZ"}`),
			"a private address": wanted(b.pushkey(), fmt.Sprintf(`{"url":"https://10.0.0.1/x","auth":%q}`, encode64(b.auth))),
			"no TLS":            wanted(b.pushkey(), fmt.Sprintf(`{"url":"http://push.example/x","auth":%q}`, encode64(b.auth))),
			"no address":        wanted(b.pushkey(), fmt.Sprintf(`{"url":"https:///x","auth":%q}`, encode64(b.auth))),
		} {
			if err := pushers.Set(t.Context(), w.user.NID, 1, bad); err == nil {
				t.Errorf("%s is taken", what)
			} else if _, ok := err.(*matrix.Error); !ok { //nolint:errorlint // it is to be one, not to wrap one
				t.Errorf("%s: %v", what, err)
			}
		}
		w.write(func(tx *store.Tx) error {
			_, err := tx.PutDevice(store.Device{NID: 1, User: w.user.NID, ID: "BROWSER"})
			return err
		})
		w.write(func(tx *store.Tx) error { return tx.DeletePusher(w.user.NID, "app", testKey) })
		if err := pushers.Set(t.Context(), w.user.NID, 1, wanted(b.pushkey(), b.data())); err != nil {
			t.Fatal(err)
		}
		w.run(func(o *DelivererOptions) { o.Web = b.web })
		w.happen("$1")
		if got, want := fmt.Sprint(b.next()), "map[event_id:$1 room_id:!r unread:1 urgency:normal]"; got != want {
			t.Errorf("the browser is told %s, want %s", got, want)
		}
		w.move(func(store.Pos) { w.unread = 0 })
		if got, want := fmt.Sprint(b.next()), "map[unread:0 urgency:low]"; got != want {
			t.Errorf("the browser is told %s, want %s", got, want)
		}
		b.status.Store(http.StatusGone)
		w.happen("$2")
		b.next()
		wait.Until(t, "the pusher of a subscription that is no more to be removed", func() bool {
			list, err := pushers.Of(t.Context(), w.user.NID)
			return err == nil && len(list) == 0
		})
		if strings.Contains(w.log.String(), b.pushkey()) {
			t.Error("the log shows a pushkey")
		}
	})
}
