package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sprint(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// allFields returns every section and key.
func allFields(t *testing.T) []field {
	t.Helper()
	var out []field
	var walk func(section reflect.Value, path string)
	walk = func(section reflect.Value, path string) {
		for _, f := range children(section, path) {
			out = append(out, f)
			if f.isSection() {
				walk(f.value, f.path)
			}
		}
	}
	walk(reflect.ValueOf(defaults()).Elem(), "")
	if len(out) < 50 {
		t.Fatalf("only %d keys", len(out))
	}
	return out
}

func TestInitDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	written, err := InitDir(dir, "example.org")
	if err != nil || len(written) != 3 {
		t.Fatalf("%v, %v", written, err)
	}
	for _, path := range written {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "data")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	c, err := Load(filepath.Join(dir, "config.yaml"), nil)
	if err != nil || c.ServerName != "example.org" || c.DataDir != filepath.Join(dir, "data") {
		t.Fatalf("%+v, %v", c, err)
	}
	key, err := os.ReadFile(filepath.Join(c.DataDir, signingKeyFile))
	if err != nil || !strings.HasPrefix(string(key), "ed25519 a_") {
		t.Errorf("the signing key: %v", err)
	}
	if _, err := InitDir(dir, "other.example"); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a second init: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	if again, err := InitDir(dir, "example.org"); err != nil || len(again) != 1 {
		t.Errorf("init beside keys wrote %v, %v", again, err)
	}
	if same, err := os.ReadFile(filepath.Join(c.DataDir, signingKeyFile)); err != nil || !bytes.Equal(same, key) {
		t.Error("the signing key was overwritten")
	}
	if _, err := InitDir(t.TempDir(), "not a name"); err == nil {
		t.Error("a wrong server name was accepted")
	}
}

func TestSecretsDerive(t *testing.T) {
	dir := t.TempDir()
	if _, err := EnsureDataDir(dir); err != nil {
		t.Fatal(err)
	}
	one, err := LoadSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := LoadSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	if one.Derive("a") != two.Derive("a") || one.Derive("a") == one.Derive("b") || one.Derive("a") == [32]byte{} {
		t.Error("keys must depend on the purpose, and on nothing else")
	}
}

func TestSecretKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := EnsureDataDir(dir); err != nil {
		t.Fatal(err)
	}
	own, err := LoadSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	load := func(key string) (*Config, error) {
		return Load("", []string{"CONCLAVE_SERVER_NAME=example.org", "CONCLAVE_DATA_DIR=" + dir, "CONCLAVE_AUTH_SECRET_KEY=" + key})
	}
	derived := map[string][32]byte{}
	for _, key := range []string{"", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAA", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAA="} {
		c, err := load(key)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Secrets()
		if err != nil {
			t.Fatal(err)
		}
		derived[key] = s.Derive("a")
	}
	if derived[""] != own.Derive("a") || derived["YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAA"] == derived[""] ||
		derived["YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAA"] != derived["YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAA="] {
		t.Error("auth.secret_key has to take the place of the key in the data directory, padded or not")
	}
	for _, key := range []string{"canary", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XAB"} {
		if _, err := load(key); err == nil || !strings.Contains(err.Error(), "auth.secret_key") || strings.Contains(err.Error(), key) {
			t.Errorf("the key %q: %v", key, err)
		}
	}
}

func TestPrivateFilesAreRefused(t *testing.T) {
	for _, test := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"master: YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n", 0o644, "chmod 600"},
		{"master: canary\n", 0o600, "32 bytes"},
		{"mister: canary\n", 0o600, "one key"},
		{"master: [canary]\n", 0o600, "one key"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, secretsFile), []byte(test.text), test.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSecrets(dir)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", test.text, err)
		}
	}
}
