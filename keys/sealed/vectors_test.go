package sealed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"conclave/internal/matrix"
)

var update = flag.Bool("update", false, "write testdata/go.json anew")

// vector is a case of testdata/README.md.
type vector struct {
	Name    string          `json:"name"`
	Kind    string          `json:"kind"`
	Comment string          `json:"comment,omitempty"`
	Input   json.RawMessage `json:"input"`
	Expect  map[string]any  `json:"expect,omitempty"`
	Failure Failure         `json:"failure,omitempty"`
}

const ourVectors = "testdata/go.json"

// TestVectors opens the cases that this package wrote; with -update it writes them first.
func TestVectors(t *testing.T) {
	if *update {
		text, err := json.MarshalIndent(makeVectors(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ourVectors, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	openVectors(t, ourVectors)
}

// TestVectorsOfTheClient opens the cases that the client's TypeScript wrote.
func TestVectorsOfTheClient(t *testing.T) { openVectors(t, "../../web/src/crypto/testdata/ts.json") }

// openVectors runs every case of a file.
func openVectors(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []vector
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	names, failures := map[string]bool{}, 0
	for _, c := range cases {
		if names[c.Name] || (c.Expect == nil) == (c.Failure == "") {
			t.Errorf("%s: stands twice, or has not one of expect and failure", c.Name)
		}
		names[c.Name] = true
		if c.Failure != "" {
			failures++
		}
		t.Run(c.Name, func(t *testing.T) { c.check(t) })
	}
	if failures < 25 || len(names) != len(cases) || len(cases) < failures+15 {
		t.Errorf("only %d cases, %d of them failures", len(cases), failures)
	}
}

func (c *vector) check(t *testing.T) {
	open, ok := kinds[c.Kind]
	if !ok {
		t.Fatalf("no such kind: %q", c.Kind)
	}
	got, err := open(t, c.Input)
	if c.Failure != "" {
		if ClassOf(err) != c.Failure {
			t.Fatalf("got %v, %v, want %s", got, err, c.Failure)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var seen map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&seen); err != nil {
		t.Fatal(err)
	}
	for name, want := range c.Expect {
		if !reflect.DeepEqual(seen[name], want) {
			t.Errorf("%s: got %v, want %v", name, seen[name], want)
		}
	}
}

// kinds open the input of a case.
var kinds = map[string]func(*testing.T, []byte) (map[string]any, error){
	"canonical": openCanonical, "padding": openPadding, "ratchet": openRatchet, "device_keys": openDeviceKeys,
	"cross_signing": openCrossSigning, "sealed": openSealed, "room_key": openRoomKey, "group": openGroup,
	"attachment": openAttachment, "rotation": openRotation,
}

// input reads what a case gives.
func input[T any](t *testing.T, raw []byte) T {
	t.Helper()
	var in T
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		t.Fatalf("the case itself is malformed: %v", err)
	}
	return in
}

func mustDecode(t *testing.T, text string) []byte {
	t.Helper()
	b, err := decode64(text)
	if err != nil {
		t.Fatalf("the case itself is malformed: %v", err)
	}
	return b
}

func openCanonical(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[struct {
		Text string `json:"text_json"`
	}](t, raw)
	out, err := Canonical([]byte(in.Text))
	return map[string]any{"canonical": string(out)}, err
}

func openPadding(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[struct {
		Length int `json:"length"`
	}](t, raw)
	padded, err := paddedLength(in.Length)
	return map[string]any{"padded": padded}, err
}

func openRatchet(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[struct {
		Ratchet string `json:"ratchet"`
		Steps   uint32 `json:"steps"`
		Salt    string `json:"salt"`
	}](t, raw)
	r := ratchet(mustDecode(t, in.Ratchet)).at(in.Steps)
	key, nonce, err := r.messageKey(mustDecode(t, in.Salt))
	return map[string]any{
		"ratchet": matrix.EncodeBase64(r[:]), "key": matrix.EncodeBase64(key), "nonce": matrix.EncodeBase64(nonce),
	}, err
}

type crossSigningInput struct {
	Master      string `json:"master_key_json"`
	SelfSigning string `json:"self_signing_key_json"`
	UserSigning string `json:"user_signing_key_json,omitempty"`
}

// verified checks an identity as a receiver does; no identity is no error yet.
func (in *crossSigningInput) verified(user matrix.UserID, pin string) (*CrossSigning, error) {
	if in == nil {
		return nil, nil
	}
	return ParseCrossSigning(Published{[]byte(in.Master), []byte(in.SelfSigning), []byte(in.UserSigning)}, user, pin)
}

type deviceKeysInput struct {
	User         matrix.UserID      `json:"user_id"`
	Device       string             `json:"device_id"`
	DeviceKeys   string             `json:"device_keys_json"`
	CrossSigning *crossSigningInput `json:"cross_signing"`
	Pin          string             `json:"pinned_master"`
}

func openDeviceKeys(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[deviceKeysInput](t, raw)
	identity, err := in.CrossSigning.verified(in.User, in.Pin)
	if err != nil {
		return nil, err
	}
	k, err := Qualify([]byte(in.DeviceKeys), in.User, in.Device, identity)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"ed25519": k.SigningKey(), "rsa_oaep_256": matrix.EncodeBase64(k.spki), "kid": k.Kid, "dehydrated": k.Dehydrated,
	}, nil
}

type crossSigningCase struct {
	User matrix.UserID `json:"user_id"`
	crossSigningInput
	Pin string `json:"pinned_master"`
}

func openCrossSigning(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[crossSigningCase](t, raw)
	c, err := in.verified(in.User, in.Pin)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"master": c.MasterKey(), "self_signing": matrix.EncodeBase64(c.SelfSigning), "user_signing": matrix.EncodeBase64(c.UserSigning),
	}, nil
}

type sealedInput struct {
	Event     string `json:"event_json"`
	Recipient struct {
		User     matrix.UserID `json:"user_id"`
		Device   string        `json:"device_id"`
		Seed     string        `json:"signing_seed"`
		Exchange string        `json:"exchange_pkcs8"`
		Master   string        `json:"master_key"`
		Former   []string      `json:"former_master_keys"`
	} `json:"recipient"`
	Sender struct {
		CrossSigning *crossSigningInput `json:"cross_signing"`
		Pin          string             `json:"pinned_master"`
		Known        *string            `json:"known_device_keys_json"`
	} `json:"sender"`
	Seen []string `json:"seen_msg_ids"`
	Now  int64    `json:"now"`
}

func openSealed(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[sealedInput](t, raw)
	r := &Receiver{Master: in.Recipient.Master, Former: in.Recipient.Former, Device: testDevice(t, in.Recipient.User, in.Recipient.Device,
		mustDecode(t, in.Recipient.Seed), mustDecode(t, in.Recipient.Exchange))}
	for _, id := range in.Seen {
		r.Seen(id)
	}
	var identityErr error
	r.Lookup = func(user matrix.UserID, _ string) (identity *CrossSigning, known []byte) {
		if identity, identityErr = in.Sender.CrossSigning.verified(user, in.Sender.Pin); in.Sender.Known != nil {
			known = []byte(*in.Sender.Known)
		}
		return identity, known
	}
	event := input[struct {
		Type    string          `json:"type"`
		Sender  matrix.UserID   `json:"sender"`
		Content json.RawMessage `json:"content"`
	}](t, []byte(in.Event))
	opened, err := r.Open(ToDevice{Sender: event.Sender, Type: event.Type, Content: event.Content}, time.Unix(in.Now, 0))
	if identityErr != nil {
		return nil, identityErr
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.Open(ToDevice{Sender: event.Sender, Type: event.Type, Content: event.Content}, time.Unix(in.Now, 0)); ClassOf(err) != ErrReplayedMessage {
		t.Errorf("a second time: %v", err)
	}
	return map[string]any{
		"type": opened.Type, "content_json": string(opened.Content), "msg_id": opened.MsgID, "sender": opened.From.User,
		"sender_device": opened.From.Device, "sender_key": opened.From.SigningKey(),
	}, nil
}

// sessionInput is a session as it is held.
type sessionInput struct {
	Room       matrix.RoomID `json:"room_id"`
	Session    string        `json:"session_id"`
	Sender     matrix.UserID `json:"sender"`
	Device     string        `json:"sender_device"`
	Key        string        `json:"sender_key"`
	Ratchet    string        `json:"ratchet"`
	Index      uint32        `json:"index"`
	Visibility string        `json:"history_visibility"`
	Source     string        `json:"source"`
}

// held puts a session where sessions are held, as if its key had come before.
func (in *sessionInput) held(t *testing.T) *Sessions {
	t.Helper()
	s := NewSessions(func(matrix.RoomID) bool { return true })
	if in == nil {
		return s
	}
	if in.Source != "direct" && in.Source != "vouched" {
		t.Fatalf("the case itself is malformed: source %q", in.Source)
	}
	s.byID[in.Session] = &Inbound{
		roomKey: roomKey{room: in.Room, session: in.Session, public: mustDecode(t, in.Session), ratchet: ratchet(mustDecode(t, in.Ratchet)),
			index: in.Index, visibility: in.Visibility},
		from: Origin{in.Sender, in.Device, in.Key, in.Source == "vouched"}, seen: map[uint32]matrix.EventID{},
	}
	return s
}

type roomKeyInput struct {
	Content string        `json:"content_json"`
	Sender  matrix.UserID `json:"sender"`
	Device  string        `json:"sender_device"`
	Key     string        `json:"sender_key"`
	Known   *sessionInput `json:"known"`
}

func openRoomKey(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[roomKeyInput](t, raw)
	s, err := in.Known.held(t).Add([]byte(in.Content), Origin{User: in.Sender, Device: in.Device, SigningKey: in.Key})
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"room_id": s.room, "session_id": s.session, "ratchet": matrix.EncodeBase64(s.ratchet[:]), "index": s.index,
		"history_visibility": s.visibility,
	}, nil
}

type seenInput struct {
	Index uint32         `json:"index"`
	Event matrix.EventID `json:"event_id"`
}

type groupInput struct {
	Session *sessionInput `json:"session"`
	Room    matrix.RoomID `json:"room_id"`
	Event   string        `json:"event_json"`
	Seen    []seenInput   `json:"seen"`
}

func openGroup(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[groupInput](t, raw)
	s := in.Session.held(t)
	for _, seen := range in.Seen {
		s.byID[in.Session.Session].seen[seen.Index] = seen.Event
	}
	event := input[struct {
		ID      matrix.EventID  `json:"event_id"`
		Sender  matrix.UserID   `json:"sender"`
		Type    string          `json:"type"`
		Content json.RawMessage `json:"content"`
	}](t, []byte(in.Event))
	e := Event{ID: event.ID, Room: in.Room, Sender: event.Sender, Type: event.Type, Content: event.Content}
	d, err := s.Decrypt(e)
	if err != nil {
		return nil, err
	}
	if _, err := s.Decrypt(e); err != nil {
		t.Errorf("the same event again: %v", err)
	}
	e.ID = "$another"
	if _, err := s.Decrypt(e); ClassOf(err) != ErrReplayedIndex {
		t.Errorf("on another event: %v", err)
	}
	return map[string]any{"type": d.Type, "content_json": string(d.Content), "index": d.Index}, nil
}

func openAttachment(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[struct {
		File       string `json:"file_json"`
		Ciphertext string `json:"ciphertext"`
	}](t, raw)
	f, err := ParseEncryptedFile([]byte(in.File))
	if err != nil {
		return nil, err
	}
	plaintext, err := decryptBytes(t, f, mustDecode(t, in.Ciphertext))
	return map[string]any{"plaintext": matrix.EncodeBase64(plaintext)}, err
}

func openRotation(t *testing.T, raw []byte) (map[string]any, error) {
	in := input[struct {
		Messages       int64  `json:"messages"`
		AgeMS          int64  `json:"age_ms"`
		PeriodMessages *int64 `json:"rotation_period_msgs"`
		PeriodMS       *int64 `json:"rotation_period_ms"`
		Left           bool   `json:"left"`
		Limited        bool   `json:"limited"`
		LostHolder     bool   `json:"lost_holder"`
		RulesChanged   bool   `json:"rules_changed"`
	}](t, raw)
	reason := Usage{
		Messages: in.Messages, Age: time.Duration(in.AgeMS) * time.Millisecond, PeriodMessages: in.PeriodMessages, PeriodMS: in.PeriodMS,
		Left: in.Left, Limited: in.Limited, LostHolder: in.LostHolder, RulesChanged: in.RulesChanged,
	}.Rotate()
	return map[string]any{"rotate": reason != "", "reason": reason}, nil
}

// testDevice makes a device of keys that a case gives.
func testDevice(t *testing.T, user matrix.UserID, id string, seed, pkcs8 []byte) *Device {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		t.Fatal(err)
	}
	d, err := DeviceFrom(user, id, ed25519.NewKeyFromSeed(seed), key.(*rsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
