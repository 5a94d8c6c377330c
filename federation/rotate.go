package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"conclave/internal/matrix"
)

// Own keys are rotated in two steps, so that no event is ever signed by a key after the time at which it is said to have
// expired: NextKey writes a key down that the server will sign with, and AdoptKey makes it the one that signs when a
// server starts, at a moment when nothing is being signed. Until then others see it announced, after that they find the
// old one among those that expired, for ever (server-server API, "Publishing keys").

// ErrNextKey is the error of a rotation while another one waits for the server's start.
var ErrNextKey = errors.New("a new key is there already; it signs from the next start of the server on")

// NextKey makes the key with which the server will sign from its next start on, writes it to the key file and returns
// its ID.
func NextKey(path string) (matrix.KeyID, error) {
	file, err := readKeyFile(path)
	if err != nil {
		return "", err
	}
	if file.next != nil {
		return file.next.ID, ErrNextKey
	}
	public, private, err := ed25519.GenerateKey(nil) // of crypto/rand
	if err != nil {
		return "", err
	}
	version := "a_" + keyVersion()
	id := matrix.KeyID("ed25519:" + version)
	message := []byte("a key that does not verify its own signature must not become the server's")
	if file.ids[id] || !ed25519.Verify(public, message, ed25519.Sign(private, message)) {
		return "", errors.New("the new key is not usable; try again")
	}
	line := fmt.Sprintf("next %s %s\n", version, base64.RawStdEncoding.EncodeToString(private.Seed()))
	text := file.text
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return id, replacePrivate(path, append(text, line...))
}

// keyVersion is a random version, so that a key made anew never bears the name of one that was lost.
func keyVersion() string {
	text := strings.ToLower(rand.Text()) // letters and digits of base32
	return text[:8]
}

// AdoptKey makes the key of NextKey, if there is one, the key that signs, and the ones before it expired ones whose
// private halves are gone. It is for the start of a server; it returns the ID of the new key, "" if there is none.
func AdoptKey(path string, now time.Time) (matrix.KeyID, error) {
	file, err := readKeyFile(path)
	if err != nil || file.next == nil {
		return "", err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "ed25519 %s %s\n", version(file.next.ID), base64.RawStdEncoding.EncodeToString(file.next.Private.Seed()))
	for _, line := range strings.SplitAfter(string(file.text), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "next":
		case len(f) == 3 && f[0] == "ed25519":
			key, err := signingKey(f[1], f[2])
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&text, "retired %s %s %d\n", f[1], matrix.EncodeBase64(key.Public()), now.UnixMilli())
		default:
			text.WriteString(line)
		}
	}
	return file.next.ID, replacePrivate(path, text.Bytes())
}

func version(id matrix.KeyID) string { return strings.TrimPrefix(string(id), "ed25519:") }

// replacePrivate writes a file that only its owner can read, all of it or nothing, durably.
func replacePrivate(path string, text []byte) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it holds a secret
		return fmt.Errorf("writing %s: %w", path, err)
	}
	d, err := os.Open(filepath.Clean(folder))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() { _ = d.Close() }()
	return d.Sync() // the new name is as durable as the text
}
