package config

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// Names of the files of a data directory.
const (
	signingKeyFile = "signing.key"
	secretsFile    = "secrets.yaml"
)

// InitDir is `conclave init`: it writes config.yaml, data/signing.key and data/secrets.yaml below dir and returns the paths written.
// Nothing is ever overwritten: an existing configuration is an error, an existing key or secret stays in use.
func InitDir(dir, serverName string) (written []string, err error) {
	path := filepath.Join(dir, "config.yaml")
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s exists already; nothing was changed", path)
	}
	c := defaults()
	c.ServerName = serverName
	if serverName != "" {
		probe := *c
		probe.resolve(dir)
		if err := probe.validate(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory: %w", err)
	}
	written, err = EnsureDataDir(filepath.Join(dir, "data"))
	if err != nil {
		return written, err
	}
	var text bytes.Buffer
	if err := write(&text, c, false); err != nil {
		return written, err
	}
	if err := writeNew(path, text.Bytes()); err != nil {
		return written, err
	}
	return append([]string{path}, written...), nil
}

// EnsureDataDir makes the data directory (mode 0700) and whichever of signing key and secrets does not exist yet (mode 0600),
// and returns the paths written. A server calls it at every start.
func EnsureDataDir(dataDir string) (written []string, err error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data directory: %w", err)
	}
	if info, err := os.Stat(dataDir); err == nil && info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(dataDir, 0o700) // may belong to somebody else, as a container's volume does; the files have modes of their own
	}
	files := []struct {
		name string
		make func() []byte
	}{{signingKeyFile, newSigningKey}, {secretsFile, newSecrets}}
	for _, f := range files {
		path := filepath.Join(dataDir, f.name)
		switch err := writeNew(path, f.make()); {
		case err == nil:
			written = append(written, path)
		case !errors.Is(err, fs.ErrExist):
			return written, err
		}
	}
	return written, nil
}

// writeNew writes a file that must not exist, readable by its owner alone, durably.
func writeNew(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path) // half a key would be taken for a whole one at the next start
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// newSigningKey makes the line (federation.LoadKeys reads it) "ed25519 <key id> <seed>". The key ID is random, so that a key made anew after a loss never bears the name of the old one.
func newSigningKey() []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	random := make([]byte, 6+ed25519.SeedSize)
	_, _ = rand.Read(random) // never fails: the runtime ends the process instead
	id := []byte("a_")
	for _, b := range random[:6] {
		id = append(id, letters[int(b)%len(letters)])
	}
	return fmt.Appendf(nil, "ed25519 %s %s\n", id, base64.RawStdEncoding.EncodeToString(random[6:]))
}

func newSecrets() []byte {
	master := make([]byte, 32)
	_, _ = rand.Read(master)
	return fmt.Appendf(nil, "# Secrets of this server. Whoever has this file can read what the database keeps encrypted. Losing it disables authenticator apps as second factors.\nmaster: %s\n",
		base64.RawStdEncoding.EncodeToString(master))
}

// Secrets derives the keys a server needs from one random secret.
type Secrets struct{ master []byte }

// Secrets are those of auth.secret_key, or else of the data directory.
func (c *Config) Secrets() (*Secrets, error) {
	key := c.Auth.SecretKey.Reveal()
	if key == "" {
		return LoadSecrets(c.DataDir)
	}
	master, err := parseMaster(key)
	if err != nil {
		return nil, c.errorf("auth.secret_key", "%v", err)
	}
	return &Secrets{master}, nil
}

// parseMaster reads the random secret that all keys are derived from. Programs that make one pad it.
func parseMaster(text string) ([]byte, error) {
	master, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(master) != 32 {
		return nil, errors.New("it must be 32 bytes in base64") // the cause could quote the secret
	}
	return master, nil
}

// LoadSecrets reads secrets.yaml.
func LoadSecrets(dataDir string) (*Secrets, error) {
	path := filepath.Join(dataDir, secretsFile)
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	var content struct {
		Master string `yaml:"master"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&content); err != nil {
		return nil, fmt.Errorf("%s must hold one key, master", path) // the cause could quote the secret
	}
	master, err := parseMaster(content.Master)
	if err != nil {
		return nil, fmt.Errorf("%s: master: %w", path, err)
	}
	return &Secrets{master}, nil
}

// Derive returns the key for one purpose ("totp seeds"): HKDF-SHA-256 of the master secret, independent of every other purpose's.
func (s *Secrets) Derive(purpose string) [32]byte {
	key, err := hkdf.Key(sha256.New, s.master, nil, "conclave "+purpose, 32)
	if err != nil {
		panic("config: HKDF-SHA-256 of 32 bytes: " + err.Error()) // impossible for this length
	}
	return [32]byte(key)
}

// readPrivate reads a file that nobody but its owner may read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %#o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return readFile(path)
}
