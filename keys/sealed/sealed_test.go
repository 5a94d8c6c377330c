package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
)

func room(id int) matrix.RoomID { return matrix.RoomID(fmt.Sprintf("!%d:alice.example", id)) }

// encrypt makes an event of a session.
func encrypt(t *testing.T, o *Outbound, content string) []byte {
	t.Helper()
	event, err := o.Encrypt("m.room.message", []byte(content), recorded)
	if err != nil {
		t.Fatal(err)
	}
	return event
}

// TestFreshDevices goes the whole way with keys made now: publish, qualify, seal a session's key, send, read.
func TestFreshDevices(t *testing.T) {
	d, err := NewDevice("@carol:carol.example", "PHONE")
	if err != nil {
		t.Fatal(err)
	}
	identity, err := NewIdentity(d.User)
	if err != nil {
		t.Fatal(err)
	}
	carol := &person{Device: d, identity: identity}
	if carol.published, err = identity.Publish(d); err != nil {
		t.Fatal(err)
	}
	plain, err := d.PublicKeys()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Qualify(plain, d.User, d.ID, carol.verified(t)); !errors.Is(err, ErrUnsignedDevice) {
		t.Errorf("a device qualifies that its owner did not sign: %v", err)
	}
	if carol.keys, err = identity.SignDevice(plain); err != nil {
		t.Fatal(err)
	}
	o, err := NewOutbound(d, testRoom, "joined", sentAt)
	if err != nil {
		t.Fatal(err)
	}
	key, err := o.RoomKey()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := carol.sender().Seal(bob().qualified(t), bob().master(), TypeRoomKey, key, sentAt)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := bob().receiver(t, carol).Open(ToDevice{Sender: d.User, Type: TypeEncrypted, Content: envelope}, sentAt)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSessions(func(matrix.RoomID) bool { return true })
	held, err := s.Add(opened.Content, opened.Origin())
	if err != nil || held.HistoryVisibility() != "joined" || held.Origin().Device != "PHONE" || held.Index() != 0 {
		t.Fatalf("%+v, %v", held, err)
	}
	got, err := s.Decrypt(Event{ID: "$1", Room: testRoom, Sender: d.User, Type: TypeEncrypted, Content: encrypt(t, o, `{"body":"hello"}`)})
	if err != nil || string(got.Content) != `{"body":"hello"}` || got.Session != held {
		t.Fatalf("%+v, %v", got, err)
	}
	if o.Index() != 1 || !o.CreatedAt().Equal(sentAt) {
		t.Errorf("index %d", o.Index())
	}
}

// TestIndexIsRecordedFirst: an index that is not known to be stored as used encrypts nothing, and is used once.
func TestIndexIsRecordedFirst(t *testing.T) {
	o := outbound(alice(), 4)
	broken := errors.New("the disk is full")
	if event, err := o.Encrypt("m.room.message", []byte(`{}`), func(uint32) error { return broken }); !errors.Is(err, broken) || event != nil {
		t.Fatalf("%s, %v", event, err)
	}
	seen := map[uint32]bool{}
	before := o.ratchet
	for range 5 {
		if _, err := o.Encrypt("m.room.message", []byte(`{}`), func(i uint32) error {
			if seen[i] {
				t.Errorf("index %d a second time", i)
			}
			seen[i] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 5 || !seen[4] || !seen[8] || o.ratchet != before.at(5) {
		t.Errorf("indices %v", seen)
	}
	o = outbound(alice(), maxIndex)
	if _, err := o.Encrypt("m.room.message", []byte(`{}`), recorded); !errors.Is(err, ErrOversize) {
		t.Errorf("a session goes on for ever: %v", err)
	}
}

// TestSaltsDiffer: even an index used twice gives no key twice.
func TestSaltsDiffer(t *testing.T) {
	a, b := encrypt(t, outbound(alice(), 4), `{}`), encrypt(t, outbound(alice(), 4), `{}`)
	one, _ := matrix.GetString(a, "ciphertext")
	two, _ := matrix.GetString(b, "ciphertext")
	if one == two || one == "" {
		t.Error("the same index and text encrypt to the same bytes")
	}
}

// TestLengthsSayLittle: short messages cannot be told apart by their length.
func TestLengthsSayLittle(t *testing.T) {
	lengths := map[int]bool{}
	for n := range 150 {
		ciphertext, _ := matrix.GetString(encrypt(t, outbound(alice(), 4), `{"body":"`+strings.Repeat("x", n)+`"}`), "ciphertext")
		lengths[len(ciphertext)] = true
	}
	if len(lengths) != 1 {
		t.Errorf("the lengths %v", lengths)
	}
}

func TestRefusesToEncrypt(t *testing.T) {
	o := outbound(alice(), 0)
	for content, want := range map[string]Failure{
		`{"body":"` + strings.Repeat("x", 41_000) + `"}`: ErrOversize, `{"n":1.5}`: ErrMalformed, `{"a":1,"a":2}`: ErrDuplicateKey, `[]`: ErrMalformed, `{`: ErrMalformed,
		`{"m.relates_to":{"rel_type":"m.thread"}}`: ErrMalformed,
	} {
		used := false
		_, err := o.Encrypt("m.room.message", []byte(content), func(uint32) error { used = true; return nil })
		if ClassOf(err) != want || used {
			t.Errorf("%.30s: %v, used %v", content, err, used)
		}
	}
	if _, err := o.Encrypt("m.room.redaction", []byte(`{}`), recorded); !errors.Is(err, ErrUnknownType) {
		t.Errorf("a redaction is encrypted: %v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	joined := func(id matrix.RoomID) bool { return id == testRoom }
	s := NewSessions(joined)
	add := func(id matrix.RoomID) error {
		o, err := NewOutbound(alice().Device, id, "shared", sentAt)
		if err != nil {
			t.Fatal(err)
		}
		key, err := o.RoomKey()
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Add(key, alice().origin())
		return err
	}
	for i := range maxSessionsUnjoined {
		if err := add(room(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(room(maxSessionsUnjoined)); !errors.Is(err, ErrTooManySessions) {
		t.Errorf("one more for a room not joined: %v", err)
	}
	if err := add(testRoom); err != nil {
		t.Errorf("one for a joined room: %v", err)
	}
	s.counts[alice().User][testRoom] = maxSessions
	if err := add(testRoom); !errors.Is(err, ErrTooManySessions) {
		t.Errorf("one more for a joined room: %v", err)
	}
}

// TestLowerIndexKeepsWhatWasSeen: a key from earlier on opens more, but no index a second time.
func TestLowerIndexKeepsWhatWasSeen(t *testing.T) {
	o := outbound(alice(), 0)
	early, err := o.RoomKey()
	if err != nil {
		t.Fatal(err)
	}
	first := encrypt(t, o, `{"body":"first"}`)
	late, err := o.RoomKey()
	if err != nil {
		t.Fatal(err)
	}
	second := encrypt(t, o, `{"body":"second"}`)
	s := NewSessions(func(matrix.RoomID) bool { return true })
	read := func(id matrix.EventID, content []byte) error {
		_, err := s.Decrypt(Event{ID: id, Room: testRoom, Sender: alice().User, Type: TypeEncrypted, Content: content})
		return err
	}
	vouched := alice().origin()
	vouched.Vouched = true
	if _, err := s.Add(late, vouched); err != nil {
		t.Fatal(err)
	}
	if err := read("$2", second); err != nil {
		t.Fatal(err)
	}
	if err := read("$1", first); !errors.Is(err, ErrUnknownIndex) {
		t.Errorf("before the key: %v", err)
	}
	held, err := s.Add(early, alice().origin())
	if err != nil || held.Origin().Vouched {
		t.Fatalf("still vouched for: %v", err)
	}
	if err := read("$1", first); err != nil {
		t.Error(err)
	}
	if err := read("$3", second); !errors.Is(err, ErrReplayedIndex) {
		t.Errorf("an index a second time: %v", err)
	}
}

// TestStateIsNoMessage: an encrypted event with a state key would be state that the server cannot authorise.
func TestStateIsNoMessage(t *testing.T) {
	s := NewSessions(func(matrix.RoomID) bool { return true })
	if _, err := s.Decrypt(Event{ID: "$1", Room: testRoom, Sender: alice().User, Type: TypeEncrypted, State: true, Content: []byte(`{}`)}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// TestForgersCostNothing: the signature is looked at before the ratchet is stepped or anything decrypted.
func TestForgersCostNothing(t *testing.T) {
	o := outbound(alice(), 0)
	key, err := o.RoomKey()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSessions(func(matrix.RoomID) bool { return true })
	held, err := s.Add(key, alice().origin())
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{t: t}
	forged := m.with(string(encrypt(t, o, `{}`)), "index", 1000)
	if _, err := s.Decrypt(Event{ID: "$1", Room: testRoom, Sender: alice().User, Type: TypeEncrypted, Content: []byte(forged)}); !errors.Is(err, ErrForgedSignature) {
		t.Error(err)
	}
	if len(held.seen) != 0 {
		t.Error("a forged message used an index up")
	}
}

// TestMutatedEnvelopesLookAlike: whatever is done to the encrypted key, nonce, text or tag, the failure is one and the same.
func TestMutatedEnvelopesLookAlike(t *testing.T) {
	event, err := alice().sender().Seal(bob().qualified(t), bob().master(), TypeRoomKey, []byte(`{}`), sentAt)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{t: t}
	r := bob().receiver(t, alice())
	compact, _ := matrix.GetString(event, "ciphertext")
	parts := strings.Split(compact, ".")
	for i := 1; i < 5; i++ {
		for _, at := range []int{0, len(parts[i]) / 2} {
			changed := append([]string{}, parts...)
			changed[i] = flip(parts[i], at)
			content := m.with(string(event), "ciphertext", strings.Join(changed, "."))
			if _, err := r.Open(ToDevice{Sender: alice().User, Type: TypeEncrypted, Content: []byte(content)}, sentAt); err == nil || err.Error() != ErrUndecryptable.Error() {
				t.Errorf("part %d at %d: %v", i, at, err)
			}
		}
	}
}

func TestSealRefusesWhatIsTooLarge(t *testing.T) {
	content := []byte(`{"x":"` + strings.Repeat("x", 64<<10) + `"}`)
	if _, err := alice().sender().Seal(bob().qualified(t), bob().master(), TypeRoomKey, content, sentAt); !errors.Is(err, ErrOversize) {
		t.Error(err)
	}
}

// TestAttachmentIsHeldBack: nothing can be read before the hash holds, and no more is taken than may be.
func TestAttachmentIsHeldBack(t *testing.T) {
	var ciphertext bytes.Buffer
	f, err := EncryptAttachment(&ciphertext, strings.NewReader(strings.Repeat("x", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := DecryptAttachment(f, bytes.NewReader(ciphertext.Bytes()), &spool{}, 999); !errors.Is(err, ErrOversize) || r != nil {
		t.Errorf("one byte too many: %v", err)
	}
	if r, err := DecryptAttachment(f, bytes.NewReader(ciphertext.Bytes()[:999]), &spool{}, 1000); !errors.Is(err, ErrWrongHash) || r != nil {
		t.Errorf("one byte too few: %v", err)
	}
	broken := errors.New("the connection broke")
	if _, err := DecryptAttachment(f, io.MultiReader(bytes.NewReader(ciphertext.Bytes()), failing{broken}), &spool{}, 5000); !errors.Is(err, broken) {
		t.Errorf("the reader's error is lost: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestAttachmentsStream: the memory needed does not grow with the file.
func TestAttachmentsStream(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const size = 64 << 20
	if _, err := EncryptAttachment(io.Discard, io.LimitReader(zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/16 {
		t.Errorf("%d bytes were allocated for a file of %d", used, size)
	}
}

// TestClocksMayDiffer: a message about a call from a clock that is ahead is not an old one.
func TestClocksMayDiffer(t *testing.T) {
	event, err := alice().sender().Seal(bob().qualified(t), bob().master(), "m.call.invite", []byte(`{}`), sentAt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob().receiver(t, alice()).Open(ToDevice{Sender: alice().User, Type: TypeEncrypted, Content: event}, sentAt.Add(-time.Minute)); err != nil {
		t.Error(err)
	}
}

// TestEveryClassIsDescribed holds the table that both implementations follow to the classes here.
func TestEveryClassIsDescribed(t *testing.T) {
	readme, err := os.ReadFile("testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("failure.go")
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]bool{}
	for _, m := range regexp.MustCompile(`Failure = "([a-z_]+)"`).FindAllSubmatch(source, -1) {
		here[string(m[1])] = true
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(readme, -1) {
		there[string(m[1])] = true
		if !here[string(m[1])] {
			t.Errorf("%s is described, but nothing reports it", m[1])
		}
	}
	for class := range here {
		if !there[class] {
			t.Errorf("%s is not described", class)
		}
	}
	if len(here) < 20 {
		t.Errorf("only %d classes found", len(here))
	}
}
