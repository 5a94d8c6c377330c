package federation

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

const seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1" // of the appendices

func TestLoadKeys(t *testing.T) {
	proof.Of(t, "SG-01")
	file := filepath.Join(t.TempDir(), "signing.key")
	public := "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
	text := "# keys\n\ned25519 1 " + seed + "\ned25519 a_b " + strings.Repeat("A", 43) + "\nretired old " + public + " 1234\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, retired, err := LoadKeys(file)
	if err != nil || len(keys) != 2 || len(retired) != 1 {
		t.Fatalf("%d keys, %d retired, %v", len(keys), len(retired), err)
	}
	if keys[0].ID != "ed25519:1" || keys[1].ID != "ed25519:a_b" || retired[0].ID != "ed25519:old" || retired[0].Expired != 1234 {
		t.Errorf("%v %v", keys, retired)
	}
	if !keys[0].Public().Equal(ed25519.PublicKey(retired[0].Public)) {
		t.Error("the seed of the specification gives another key than the specification's")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadKeys(file); err == nil {
		t.Error("a key file that others can read was used")
	}
}

// TestLoadKeysOfANewServer reads what config makes.
func TestLoadKeysOfANewServer(t *testing.T) {
	dir := t.TempDir()
	if _, err := config.EnsureDataDir(dir); err != nil {
		t.Fatal(err)
	}
	keys, retired, err := LoadKeys(filepath.Join(dir, "signing.key"))
	if err != nil || len(keys) != 1 || len(retired) != 0 || !strings.HasPrefix(string(keys[0].ID), "ed25519:a_") {
		t.Errorf("%v, %v, %v", keys, retired, err)
	}
}

func TestLoadKeysRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"comments only":    "# nothing\n",
		"retired only":     "retired a " + seed + " 5\n",
		"another kind":     "rsa a " + seed + "\n",
		"short seed":       "ed25519 a AAAA\n",
		"not base64":       "ed25519 a !!!\n",
		"odd version":      "ed25519 a:b " + seed + "\n",
		"the same twice":   "ed25519 a " + seed + "\ned25519 a " + seed + "\n",
		"next alone":       "next a " + seed + "\n",
		"two of next":      "ed25519 a " + seed + "\nnext b " + seed + "\nnext c " + seed + "\n",
		"no time":          "ed25519 a " + seed + "\nretired b " + seed + "\n",
		"time is no time":  "ed25519 a " + seed + "\nretired b " + seed + " x\n",
		"more than a key":  "ed25519 a " + seed + " extra\n",
		"short public key": "ed25519 a " + seed + "\nretired b AAAA 5\n",
	} {
		_, err := parseKeys([]byte(text))
		if err == nil {
			t.Errorf("%s: read", name)
		} else if strings.Contains(err.Error(), seed) {
			t.Errorf("%s: the error tells the seed", name)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		allow, deny []string
		server      string
		want        bool
	}{
		{nil, nil, "a.test", true},
		{nil, []string{"a.test"}, "a.test", false},
		{nil, []string{"a.test"}, "a.test:8448", false},
		{nil, []string{"a.test"}, "A.TEST", false},
		{nil, []string{"*.test"}, "x.a.test", false},
		{nil, []string{"*.test"}, "test", true},
		{nil, []string{"?.test"}, "ab.test", true},
		{nil, []string{"a.test:1"}, "a.test:1", false},
		{nil, []string{"a.test:1"}, "a.test:2", true},
		{[]string{"a.test"}, nil, "a.test", true},
		{[]string{"a.test"}, nil, "b.test", false},
		{[]string{"*"}, []string{"b.test"}, "b.test", false},
		{nil, []string{"[::1]"}, "[::1]:1", false},
		{nil, []string{"127.*"}, "127.0.0.1:5", false},
	} {
		if got := NewPolicy(c.allow, c.deny).Allowed(matrix.ServerName(c.server)); got != c.want {
			t.Errorf("allow %v deny %v: %s is %v", c.allow, c.deny, c.server, got)
		}
	}
	var none *Policy
	if !none.Allowed("a.test") {
		t.Error("no policy must allow all")
	}
}

func TestGlobMatchIsLinear(t *testing.T) {
	glob, text := strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 2000)
	for range 100 {
		if globMatch(glob, text) {
			t.Fatal("matches")
		}
	}
}
