package push

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
)

// KindWebPush is the kind of pushers of our own client in a browser: the pushkey is the subscription's public key (p256dh),
// data holds its endpoint as url and its secret as auth, both keys in base64url. What is sent is sealed for the subscription:
// the service in between learns no more than when somebody is notified.
const KindWebPush = "im.conclave.webpush"

// Sizes of Web Push (RFC 8188, RFC 8291).
const (
	webRecord   = 4096 // rs
	webPlain    = 1024 // of every message, with its padding: what is in it does not show in its size
	webTTL      = 24 * time.Hour
	webTokenFor = 12 * time.Hour // of a VAPID token, at most 24 h
	webSalt     = 16
	webAuth     = 16
)

// WebPush seals and sends messages of Web Push (RFC 8030), in the name of one key of the server (VAPID, RFC 8292).
type WebPush struct {
	key     *ecdsa.PrivateKey
	public  string // base64url of the uncompressed point
	subject string
	now     func() time.Time
}

// NewWebPush makes WebPush from a secret of the server. contact is an https or mailto URL at which push services may find
// who sends.
func NewWebPush(secret []byte, contact string) (*WebPush, error) {
	for i := range 16 { // nearly every 32 bytes are a key
		raw, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("im.conclave.webpush %d", i), 32)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			continue
		}
		public, err := key.PublicKey.Bytes()
		if err != nil {
			return nil, err
		}
		return &WebPush{key: key, public: encode64(public), subject: contact, now: time.Now}, nil
	}
	return nil, errors.New("no key for Web Push could be made")
}

// PublicKey is what a browser subscribes with (applicationServerKey), in base64url.
func (w *WebPush) PublicKey() string { return w.public }

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// subscription is what a pusher says of a browser's subscription.
type subscription struct {
	endpoint string
	public   *ecdh.PublicKey
	auth     []byte
}

func readSubscription(key string, data []byte) (s subscription, err error) {
	var in struct {
		URL  string `json:"url"`
		Auth string `json:"auth"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return s, errors.New("the data of a subscription cannot be read")
	}
	s.endpoint = in.URL
	point, err := base64.RawURLEncoding.DecodeString(key)
	if err == nil {
		s.public, err = ecdh.P256().NewPublicKey(point)
	}
	if err != nil {
		return s, errors.New("the pushkey of a subscription is its key p256dh in base64url")
	}
	if s.auth, err = base64.RawURLEncoding.DecodeString(in.Auth); err != nil || len(s.auth) != webAuth {
		return s, errors.New("the secret auth of a subscription has 16 bytes, in base64url")
	}
	return s, nil
}

// checkWebPush checks a pusher of this kind, whose endpoint has whatever path its service likes.
func (p *Pushers) checkWebPush(w Wanted) error {
	s, err := readSubscription(w.Key, w.Data)
	if err != nil {
		return matrix.InvalidParam("This is no subscription: %s.", err)
	}
	target, err := url.Parse(s.endpoint)
	if err != nil || len(s.endpoint) > maxURL || target.Hostname() == "" || target.User != nil || target.Fragment != "" {
		return matrix.InvalidParam("The url of the subscription is none.")
	}
	return p.checkHost(target)
}

// sealed is a message for a subscription (RFC 8291), with a key and salt of its own.
func sealed(s subscription, plain []byte) ([]byte, error) {
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, webSalt)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	padded := append(slices.Clone(plain), 2) // the last record's delimiter
	return sealWith(s, own, salt, append(padded, make([]byte, max(0, webPlain-len(padded)))...))
}

// sealWith is sealed with a given key and salt, of a message with its delimiter and padding.
func sealWith(s subscription, own *ecdh.PrivateKey, salt, padded []byte) ([]byte, error) {
	if len(padded) > webRecord-16 {
		return nil, errors.New("the message is too long for Web Push")
	}
	shared, err := own.ECDH(s.public)
	if err != nil {
		return nil, err
	}
	mine := own.PublicKey().Bytes()
	info := slices.Concat([]byte("WebPush: info\x00"), s.public.Bytes(), mine)
	secret, err := hkdf.Key(sha256.New, shared, s.auth, string(info), 32)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, secret, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(slices.Clone(salt), webRecord)
	out = append(append(out, byte(len(mine))), mine...)
	return gcm.Seal(out, nonce, padded, nil), nil
}

// authorization is the header that shows a push service who sends (RFC 8292).
func (w *WebPush) authorization(endpoint *url.URL) (string, error) {
	claims, err := json.Marshal(map[string]any{
		"aud": endpoint.Scheme + "://" + endpoint.Host, "exp": w.now().Add(webTokenFor).Unix(), "sub": w.subject,
	})
	if err != nil {
		return "", err
	}
	text := encode64([]byte(`{"typ":"JWT","alg":"ES256"}`)) + "." + encode64(claims)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, w.key, hash[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return "vapid t=" + text + "." + encode64(signature) + ", k=" + w.public, nil
}

// message is all that a browser is told; it asks the server for the rest.
type message struct {
	RoomID  matrix.RoomID  `json:"room_id,omitempty"`
	EventID matrix.EventID `json:"event_id,omitempty"`
	Unread  int64          `json:"unread"`
}

// call is the package's call for a subscription. gone says that the subscription is no more.
func (w *WebPush) call(ctx context.Context, client *http.Client, p *store.Pusher, n *Notice, unread int64) (gone bool, err error) {
	s, err := readSubscription(p.Key, []byte(p.Data))
	if err != nil {
		return false, err
	}
	m, urgency := message{Unread: unread}, "low"
	if n != nil {
		m.RoomID, m.EventID = n.Room, n.Event.ID()
		if urgency = "normal"; priority(n) == "high" {
			urgency = "high"
		}
	}
	plain, err := json.Marshal(m)
	if err != nil {
		return false, errors.New("the message does not encode")
	}
	body, err := sealed(s, plain)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the endpoint's address cannot be read")
	}
	authorization, err := w.authorization(req.URL)
	if err != nil {
		return false, errors.New("the message cannot be signed")
	}
	h := req.Header
	h.Set("Authorization", authorization)
	h.Set("Content-Encoding", "aes128gcm")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("TTL", strconv.Itoa(int(webTTL.Seconds())))
	h.Set("Urgency", urgency)
	if n == nil {
		h.Set("Topic", "unread") // the service keeps only the newest of these
	}
	res, err := client.Do(req)
	if errors.Is(err, netguard.ErrDenied) {
		return false, errors.New("the endpoint is at an address to which no connections are made")
	}
	if err != nil {
		return false, errors.New("the endpoint cannot be reached")
	}
	defer res.Body.Close() //nolint:errcheck // nothing in it is read
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusGone:
		return true, nil
	case res.StatusCode/100 != 2:
		return false, statusError(res.StatusCode)
	}
	return false, nil
}
