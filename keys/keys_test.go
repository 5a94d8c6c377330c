package keys_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/keys"
)

const here, there = matrix.ServerName("here.test"), matrix.ServerName("there.test")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an error is a refusal with a code.
func refused(t testing.TB, err error, code string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// world is a domain over a database, with accounts and a clock.
type world struct {
	*keys.Keys
	t      testing.TB
	db     *store.DB
	remote *fakeRemote
	mu     sync.Mutex
	at     time.Time
}

func newWorld(t testing.TB, db *store.DB) *world {
	w := &world{t: t, db: db, remote: &fakeRemote{}, at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.Keys = keys.New(keys.Options{
		DB: db, IsOurs: func(s matrix.ServerName) bool { return s == here }, Remote: w.remote, Bus: cluster.NewLocal(),
		Clock: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.at },
	})
	return w
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func (w *world) pos() store.Pos {
	w.t.Helper()
	pos, err := w.db.StreamBound(w.t.Context())
	must(w.t, err)
	return pos
}

// person is a user with a device, and the secrets of both.
type person struct {
	keys.Device
	secret                   ed25519.PrivateKey
	master, self, userSigner ed25519.PrivateKey
}

func secretKey(seed string) ed25519.PrivateKey {
	var b [32]byte
	copy(b[:], seed)
	return ed25519.NewKeyFromSeed(b[:])
}

func public(k ed25519.PrivateKey) string { return matrix.EncodeBase64(k.Public().(ed25519.PublicKey)) }

// user makes an account with a device.
func (w *world) user(name string) *person { return w.device(name, "DEV"+name) }

func (w *world) device(name, device string) *person {
	w.t.Helper()
	id := matrix.UserID("@" + name + ":" + string(here))
	u, err := w.db.User(w.t.Context(), id)
	must(w.t, err)
	nid, err := w.db.NextNID(store.KindDevice)
	must(w.t, err)
	must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		if _, err := tx.CreateAccount(store.Account{User: u.NID, ID: id}); err != nil {
			return err
		}
		_, err := tx.PutDevice(store.Device{NID: nid, User: u.NID, ID: matrix.DeviceID(device), Name: "phone of " + name})
		return err
	}))
	return &person{
		Device: keys.Device{User: keys.User{NID: u.NID, ID: id}, NID: nid, DeviceID: matrix.DeviceID(device)},
		secret: secretKey(name + device), master: secretKey("m" + name), self: secretKey("s" + name), userSigner: secretKey("u" + name),
	}
}

// join puts users into a new room, or those given into room.
func (w *world) join(room store.RoomNID, users ...matrix.UserID) {
	w.member(room, store.Join, users...)
}
func (w *world) leave(room store.RoomNID, users ...matrix.UserID) {
	w.member(room, store.Leave, users...)
}

func (w *world) member(room store.RoomNID, m store.Membership, users ...matrix.UserID) {
	w.t.Helper()
	for _, id := range users {
		u, err := w.db.User(w.t.Context(), id)
		must(w.t, err)
		must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error {
			pos, err := tx.AddChange(store.ChangeMembership, room, u.NID)
			if err != nil {
				return err
			}
			// As the door to a room does it (store/appendrows.go).
			_, err = tx.Exec(`INSERT INTO memberships (room, member, server, membership, event, pos, joined, departed) VALUES ($1, $2, $3, $4, 1, $5, $5, 0)
				ON CONFLICT (room, member) DO UPDATE SET membership = excluded.membership, pos = excluded.pos,
				joined = CASE WHEN excluded.membership = 1 AND memberships.membership <> 1 THEN excluded.pos ELSE memberships.joined END,
				departed = CASE WHEN excluded.membership <> 1 AND memberships.membership = 1 THEN excluded.pos ELSE memberships.departed END`,
				room, u.NID, u.Server, m, pos)
			return err
		}))
	}
}

func sign(t testing.TB, object any, user matrix.UserID, keyID string, secret ed25519.PrivateKey) json.RawMessage {
	t.Helper()
	raw, ok := object.(json.RawMessage)
	if !ok {
		var err error
		raw, err = json.Marshal(object)
		must(t, err)
	}
	signed, err := matrix.SignJSON(raw, string(user), matrix.KeyID("ed25519:"+keyID), secret)
	must(t, err)
	return signed
}

func deviceKeys(t testing.TB, user matrix.UserID, device matrix.DeviceID, secret ed25519.PrivateKey) json.RawMessage {
	return sign(t, map[string]any{
		"user_id": user, "device_id": device, "algorithms": []string{"im.conclave.sealed.v1"},
		"keys": map[string]string{"ed25519:" + string(device): public(secret), "rsa-oaep-256:" + string(device): "MII"},
	}, user, string(device), secret)
}

func (p *person) deviceKeys(t testing.TB) json.RawMessage {
	return deviceKeys(t, p.ID, p.DeviceID, p.secret)
}

func crossKey(t testing.TB, user matrix.UserID, usage string, key ed25519.PrivateKey, master ed25519.PrivateKey) json.RawMessage {
	object := map[string]any{"user_id": user, "usage": []string{usage}, "keys": map[string]string{"ed25519:" + public(key): public(key)}}
	if master == nil {
		raw, err := json.Marshal(object)
		must(t, err)
		return raw
	}
	return sign(t, object, user, public(master), master)
}

func (p *person) crossSigning(t testing.TB) keys.CrossSigning {
	return keys.CrossSigning{
		Master:      crossKey(t, p.ID, "master", p.master, nil),
		SelfSigning: crossKey(t, p.ID, "self_signing", p.self, p.master),
		UserSigning: crossKey(t, p.ID, "user_signing", p.userSigner, p.master),
	}
}

func (p *person) signedKey(t testing.TB, key string) json.RawMessage {
	return sign(t, map[string]any{"key": key}, p.ID, string(p.DeviceID), p.secret)
}

// publish uploads a device's keys and n one-time keys.
func (w *world) publish(p *person, n int) {
	w.t.Helper()
	up := keys.Upload{DeviceKeys: p.deviceKeys(w.t), OneTimeKeys: map[string]json.RawMessage{}}
	for i := range n {
		up.OneTimeKeys[fmt.Sprintf("signed_curve25519:%04d", i)] = p.signedKey(w.t, fmt.Sprint(i))
	}
	counts, err := w.UploadKeys(w.t.Context(), p.Device, up)
	must(w.t, err)
	if counts["signed_curve25519"] != n {
		w.t.Errorf("%d keys are counted as %v", n, counts)
	}
}

// changes are the user's device list changes since a position.
func (w *world) changes(p *person, since store.Pos) (changed, left []matrix.UserID) {
	w.t.Helper()
	changed, left, err := w.DeviceListChanges(w.t.Context(), p.User.NID, since, w.pos())
	must(w.t, err)
	return changed, left
}

func (w *world) wantChanges(p *person, since store.Pos, changed, left []matrix.UserID) {
	w.t.Helper()
	gotChanged, gotLeft := w.changes(p, since)
	if !slices.Equal(gotChanged, changed) || !slices.Equal(gotLeft, left) {
		w.t.Errorf("%s is told of %v and %v, want %v and %v", p.ID, gotChanged, gotLeft, changed, left)
	}
}

func (w *world) query(p *person, users ...matrix.UserID) *keys.Found {
	w.t.Helper()
	asked := keys.Asked{}
	for _, u := range users {
		asked[u] = nil
	}
	found, err := w.Query(w.t.Context(), p.User, asked, time.Second)
	must(w.t, err)
	return found
}

// fakeRemote is the other servers.
type fakeRemote struct {
	mu      sync.Mutex
	query   func(body []byte) (json.RawMessage, error)
	claim   func(body []byte) (json.RawMessage, error)
	devices func(user matrix.UserID) (json.RawMessage, error)
	calls   map[string]int
	patient time.Duration // how long the last question was given
}

var errDown = errors.New("the server is down")

func (f *fakeRemote) count(name string) {
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[name]++
}

func (f *fakeRemote) called(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[name]
}

func (f *fakeRemote) QueryUserEncryptionKeys(ctx context.Context, _ matrix.ServerName, body []byte) (json.RawMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	deadline, _ := ctx.Deadline()
	f.patient = time.Until(deadline)
	f.count("query")
	if f.query == nil {
		return nil, errDown
	}
	return f.query(body)
}

func (f *fakeRemote) ClaimUserEncryptionKeys(_ context.Context, _ matrix.ServerName, body []byte) (json.RawMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count("claim")
	if f.claim == nil {
		return nil, errDown
	}
	return f.claim(body)
}

func (f *fakeRemote) GetUserDevices(_ context.Context, user matrix.UserID) (json.RawMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count("devices")
	if f.devices == nil {
		return nil, errDown
	}
	return f.devices(user)
}

func each(t *testing.T, test func(t *testing.T, w *world)) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) { test(t, newWorld(t, db)) })
}

func TestClaimsRace(t *testing.T) {
	proof.Of(t, "E2-02")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.publish(alice, 30)
		var mu sync.Mutex
		var group sync.WaitGroup
		got := map[string]int{}
		empty := 0
		for range 50 {
			group.Go(func() {
				claimed, err := w.ClaimLocal(t.Context(), keys.Wanted{alice.ID: {alice.DeviceID: "signed_curve25519"}})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if len(claimed) == 0 {
					empty++
				}
				for name := range claimed[alice.ID][alice.DeviceID] {
					got[name]++
				}
			})
		}
		group.Wait()
		if len(got) != 30 || empty != 20 {
			t.Errorf("30 keys were given out as %d different ones, and %d claims got none", len(got), empty)
		}
		for name, n := range got {
			if n != 1 {
				t.Errorf("%s was given out %d times", name, n)
			}
		}
		// What a client uploads again because it missed the answer must not come back.
		counts, err := w.UploadKeys(t.Context(), alice.Device, keys.Upload{OneTimeKeys: map[string]json.RawMessage{"signed_curve25519:0000": alice.signedKey(t, "0")}})
		must(t, err)
		if n, told := counts["signed_curve25519"]; n != 0 || !told {
			t.Errorf("a claimed key came back: %v", counts)
		}
	})
}
