package config

import (
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
	id, key, err := LoadSigningKey(c.DataDir)
	if err != nil || !strings.HasPrefix(id, "ed25519:a_") || len(key) != 64 {
		t.Errorf("%q, %v", id, err)
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
	if _, same, err := LoadSigningKey(c.DataDir); err != nil || !same.Equal(key) {
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

func TestPrivateFilesAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{signingKeyFile, "ed25519 a_1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n", 0o644, "chmod 600"},
		{signingKeyFile, "ed25519 a-1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n", 0o600, "must be one line"},
		{signingKeyFile, "ed25519 a_1 canary\n", 0o600, "32 bytes"},
		{signingKeyFile, "", 0o600, "must be one line"},
		{secretsFile, "master: canary\n", 0o600, "32 bytes"},
		{secretsFile, "mister: canary\n", 0o600, "one key"},
		{secretsFile, "master: [canary]\n", 0o600, "one key"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, test.name)
		if err := os.WriteFile(path, []byte(test.text), test.mode); err != nil {
			t.Fatal(err)
		}
		var err error
		if test.name == signingKeyFile {
			_, _, err = LoadSigningKey(dir)
		} else {
			_, err = LoadSecrets(dir)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s %q: %v", test.name, test.text, err)
		}
	}
}

func TestSigningKeyFileOfThePublishedSeed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, signingKeyFile), []byte("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, _, err := LoadSigningKey(dir); err != nil || id != "ed25519:1" {
		t.Errorf("%q, %v", id, err)
	}
}
