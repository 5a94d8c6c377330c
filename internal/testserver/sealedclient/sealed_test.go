package sealedclient

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/keys/sealed"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// together brings Alice of one server and Bob of another into one sealed room.
func together(t *testing.T, a, b *testserver.Server) (alice, bob *Client, room matrix.RoomID) {
	t.Helper()
	alice, bob = New(t, a, "alice"), New(t, b, "bob")
	room = alice.CreateSealed(bob.ID)
	bob.Until("the invitation", func() bool {
		answer, err := bob.Do("POST", testserver.Path("join", string(room)), testserver.JSON{})
		return err == nil && answer.Status == 200
	})
	for _, c := range []*Client{alice, bob} {
		c.Until("both are in the room", func() bool { return c.rooms[room] != nil && len(c.rooms[room].members) == 2 })
	}
	return alice, bob, room
}

// TestTwoServersOneSealedRoom is the main job: two people on two servers talk, and neither server can read a word of it.
func TestTwoServersOneSealedRoom(t *testing.T) {
	a, b := testserver.Pair(t, testserver.Options{})
	alice, bob, room := together(t, a, b)
	var said []string
	for i := range 10 {
		for _, pair := range [][2]*Client{{alice, bob}, {bob, alice}} {
			text := fmt.Sprintf("sea-horse %d: %s crosses the strait at %s", i, pair[0].ID, strings.Repeat("low tide ", i+1))
			pair[0].SaySealed(room, text)
			said = append(said, text)
			pair[1].Until("the next message", func() bool { return pair[1].Heard(room, pair[0].ID, text) })
		}
	}
	for _, c := range []*Client{alice, bob} {
		if len(c.Refused) > 0 {
			t.Errorf("%s refused messages to the device: %v", c.ID, c.Refused)
		}
		c.Until("all twenty, its own too", func() bool { return len(c.Messages(room)) == 20 })
		for _, m := range c.Messages(room) {
			if m.Failure != "" {
				t.Errorf("%s cannot read %s of %s: %s", c.ID, m.ID, m.Sender, m.Failure)
			}
		}
	}
	said = append(said, exchangeFile(t, alice, bob, room))
	open := "this stands in the open: " + string(room)
	alice.Say(alice.CreateRoom(testserver.JSON{}), open)
	nothingReadable(t, a, b, said, open)
	a.Stop()
	b.Stop()
	nothingReadable(t, a, b, said, open)
}

// exchangeFile sends an encrypted file and returns a text that is in it.
func exchangeFile(t *testing.T, alice, bob *Client, room matrix.RoomID) string {
	t.Helper()
	const secret = "the chart of the harbour, with depths in fathoms"
	var ciphertext bytes.Buffer
	file, err := sealed.EncryptAttachment(&ciphertext, strings.NewReader(strings.Repeat(secret+"\n", 200)))
	if err != nil {
		t.Fatal(err)
	}
	file.URL, _ = alice.Must("POST", "/_matrix/media/v3/upload", ciphertext.Bytes()).Body["content_uri"].(string)
	alice.SendSealed(room, "m.room.message", testserver.JSON{"msgtype": "m.file", "body": "harbour-chart.txt", "file": file})
	bob.Until("the file", func() bool { return bob.Heard(room, alice.ID, "harbour-chart.txt") })
	messages := bob.Messages(room)
	text, _ := matrix.Get(messages[len(messages)-1].Content, "file")
	received, err := sealed.ParseEncryptedFile(text)
	if err != nil {
		t.Fatal(err)
	}
	answer := bob.Must("GET", "/_matrix/client/v1/media/download/"+strings.TrimPrefix(received.URL, "mxc://"), nil)
	private, err := os.Create(filepath.Join(t.TempDir(), "private"))
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close() //nolint:errcheck // the test is over
	plain, err := sealed.DecryptAttachment(received, bytes.NewReader(answer.Raw), private, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(plain); err != nil || !strings.HasPrefix(got.String(), secret) || got.Len() != 200*(len(secret)+1) {
		t.Fatalf("the file came out as %.60q, %v", got.String(), err)
	}
	return secret
}

// nothingReadable searches everything that two servers keep for what was said, in every way to write it. That the search
// finds anything at all is shown by a message that was not encrypted, and by the room's name.
func nothingReadable(t *testing.T, a, b *testserver.Server, said []string, open string) {
	t.Helper()
	kept := append(everything(t, a.Dir), everything(t, b.Dir)...)
	for _, text := range []string{open, string(a.Name), sealed.AlgorithmGroup} {
		if !found(kept, []byte(text)) {
			t.Errorf("the search does not find %q, so it proves nothing", text)
		}
	}
	for _, text := range append(said, "sea-horse", "low tide", "crosses the strait", "harbour-chart") {
		for _, form := range forms(text) {
			if found(kept, form) {
				t.Errorf("a server keeps %q, written as %.60q", text, form)
			}
		}
	}
}

// everything reads all files below a directory: database, write-ahead log, media, keys, logs.
func everything(t *testing.T, dir string) (files [][]byte) {
	t.Helper()
	database := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has removed it in this moment
		}
		files = append(files, data)
		database = database || strings.HasPrefix(d.Name(), "conclave.db")
		return err
	})
	if err != nil || !database {
		t.Fatalf("%d files below %s, a database among them: %v, %v", len(files), dir, database, err)
	}
	return files
}

func found(files [][]byte, text []byte) bool {
	for _, f := range files {
		if bytes.Contains(f, text) {
			return true
		}
	}
	return false
}

// forms are the ways in which a text may be written: as it is, as JSON, in hexadecimal, and in base64 wherever in a longer
// text it begins.
func forms(text string) [][]byte {
	quoted, _ := json.Marshal(text)
	all := [][]byte{
		[]byte(text), bytes.Trim(quoted, `"`), []byte(hex.EncodeToString([]byte(text))), []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))),
	}
	for shift := range 3 {
		// What stands before and behind shares letters with the ends: they are left out.
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			encoded := encoding.EncodeToString(append(make([]byte, shift), text...))
			first := (shift*8 + 5) / 6
			all = append(all, []byte(encoded[first:len(encoded)-1]))
		}
	}
	return all
}

// TestFormsAreFound holds that the search would see a text inside a longer one.
func TestFormsAreFound(t *testing.T) {
	const text = "low tide at noon"
	for before := range 3 {
		whole := strings.Repeat("x", before) + text + "and more"
		for name, encoded := range map[string]string{
			"plain": whole, "base64": base64.StdEncoding.EncodeToString([]byte(whole)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(whole)),
			"hex": hex.EncodeToString([]byte(whole)), "HEX": fmt.Sprintf("%X", whole),
		} {
			seen := false
			for _, form := range forms(text) {
				seen = seen || strings.Contains(encoded, string(form))
			}
			if !seen {
				t.Errorf("%s with %d before it is not found", name, before)
			}
		}
	}
}

// TestServersAddNoReader: a device that nobody's identity signed gets no key, and a member who left reads no more.
func TestServersAddNoReader(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice, bob, room := together(t, s, s)
		alice.SaySealed(room, "for both")
		bob.Until("the message", func() bool { return bob.Heard(room, alice.ID, "for both") })

		ghost := s.Login("bob") // whoever has Bob's password, or his server
		device, err := sealed.NewDevice(matrix.UserID(bob.ID), ghost.Device)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := device.PublicKeys()
		if err != nil {
			t.Fatal(err)
		}
		ghost.Must("POST", "/keys/upload", testserver.JSON{"device_keys": json.RawMessage(keys)})
		alice.Until("the new device", func() bool { return alice.seesDevice(matrix.UserID(bob.ID), ghost.Device) })
		before := alice.outbound[room].ID()
		alice.SaySealed(room, "not for the ghost")
		if n := alice.Given(room); n != 1 {
			t.Errorf("%d devices have the session, where one may", n)
		}
		if events := testserver.Events(testserver.At(ghost.Sync("", 0), "to_device", "events")); len(events) != 0 {
			t.Errorf("the ghost was sent %v", events)
		}
		bob.Must("POST", testserver.Path("rooms", string(room), "leave"), testserver.JSON{})
		alice.Until("Bob is gone", func() bool { return len(alice.rooms[room].members) == 1 })
		alice.SaySealed(room, "now alone")
		if alice.outbound[room].ID() == before || alice.Given(room) != 0 {
			t.Errorf("the session goes on after somebody left, given to %d", alice.Given(room))
		}
	})
}

// seesDevice asks anew and reports whether the server names a device; if it does, it must not have qualified.
func (c *Client) seesDevice(user matrix.UserID, device string) bool {
	c.know(user)
	p := c.peers[user]
	if p.devices[device] != nil {
		c.t.Fatalf("device %s qualifies", device)
	}
	return p.raw[device] != nil
}
