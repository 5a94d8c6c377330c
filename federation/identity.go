package federation

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave/internal/matrix"
)

const signatureSize = ed25519.SignatureSize

// SigningKey is a key that this server signs with.
type SigningKey struct {
	ID      matrix.KeyID
	Private ed25519.PrivateKey
}

// Public is the half that others verify with.
func (k SigningKey) Public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

// RetiredKey is a key that this server signed with in the past; others verify old events with it.
type RetiredKey struct {
	ID      matrix.KeyID
	Public  ed25519.PublicKey
	Expired int64 // when it was last used, in ms
}

// Identity is who this server is to others: its names and its keys. The first key signs, all are published.
type Identity struct {
	names   []matrix.ServerName
	keys    []SigningKey
	retired []RetiredKey
}

// NewIdentity makes an identity of one name.
func NewIdentity(name matrix.ServerName, keys []SigningKey, retired []RetiredKey) (*Identity, error) {
	if _, err := matrix.ParseServerName(string(name)); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no signing key")
	}
	return &Identity{names: []matrix.ServerName{name}, keys: keys, retired: retired}, nil
}

// IsOurs reports whether a server name is one of ours.
func (i *Identity) IsOurs(name matrix.ServerName) bool { return slices.Contains(i.names, name) }

// Name is the name under which this server sends.
func (i *Identity) Name() matrix.ServerName { return i.names[0] }

// Key is the key that signs.
func (i *Identity) Key() SigningKey { return i.keys[0] }

// public finds one of our keys; expired is 0 for keys in use.
func (i *Identity) public(id matrix.KeyID) (key ed25519.PublicKey, expired int64, ok bool) {
	for _, k := range i.keys {
		if k.ID == id {
			return k.Public(), 0, true
		}
	}
	for _, k := range i.retired {
		if k.ID == id {
			return k.Public, k.Expired, true
		}
	}
	return nil, 0, false
}

// documentLife is how long others may use a copy of our key document.
const documentLife = 24 * time.Hour

// Document is the answer to GET /_matrix/key/v2/server (getServerKey), signed by every key in use.
func (i *Identity) Document(name matrix.ServerName, now time.Time) ([]byte, error) {
	type key struct {
		Key     string `json:"key"`
		Expired int64  `json:"expired_ts,omitempty"`
	}
	doc := struct {
		ServerName matrix.ServerName    `json:"server_name"`
		Verify     map[matrix.KeyID]key `json:"verify_keys"`
		Old        map[matrix.KeyID]key `json:"old_verify_keys"`
		ValidUntil int64                `json:"valid_until_ts"`
	}{name, map[matrix.KeyID]key{}, map[matrix.KeyID]key{}, now.Add(documentLife).UnixMilli()}
	for _, k := range i.keys {
		doc.Verify[k.ID] = key{Key: matrix.EncodeBase64(k.Public())}
	}
	for _, k := range i.retired {
		doc.Old[k.ID] = key{Key: matrix.EncodeBase64(k.Public), Expired: k.Expired}
	}
	out, err := json.Marshal(doc)
	for _, k := range i.keys {
		if err != nil {
			break
		}
		out, err = matrix.SignJSON(out, string(name), k.ID, k.Private)
	}
	if err != nil {
		return nil, fmt.Errorf("signing the key document: %w", err)
	}
	return out, nil
}

// LoadKeys reads a key file (data_dir/signing.key). A line is `ed25519 VERSION SEED` for a key in use, the first of
// which signs, `next VERSION SEED` for the one that will sign from the next start on (NextKey), or `retired VERSION
// PUBLIC EXPIRED` for one that is not used any more: seed and public key in unpadded base64, EXPIRED in milliseconds
// since 1970. Empty lines and lines that begin with # do not count.
func LoadKeys(path string) ([]SigningKey, []RetiredKey, error) {
	file, err := readKeyFile(path)
	if err != nil {
		return nil, nil, err
	}
	if file.next != nil {
		file.keys = append(file.keys, *file.next) // announced
	}
	return file.keys, file.retired, nil
}

// keyFile is what stands in a key file.
type keyFile struct {
	text    []byte
	keys    []SigningKey
	next    *SigningKey // nil if there is none
	retired []RetiredKey
	ids     map[matrix.KeyID]bool
}

func readKeyFile(path string) (*keyFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %#o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	file, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func parseKeys(data []byte) (*keyFile, error) {
	file := &keyFile{text: data, ids: map[matrix.KeyID]bool{}}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		id, err := file.add(f)
		if err == nil && file.ids[id] {
			err = fmt.Errorf("the key %s is there twice", id)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err) // without the line: it holds a secret
		}
		file.ids[id] = true
	}
	if len(file.keys) == 0 {
		return nil, errors.New("it holds no signing key")
	}
	return file, lines.Err()
}

// add takes one line.
func (file *keyFile) add(f []string) (matrix.KeyID, error) {
	switch {
	case f[0] == "ed25519" && len(f) == 3:
		k, err := signingKey(f[1], f[2])
		file.keys = append(file.keys, k)
		return k.ID, err
	case f[0] == "next" && len(f) == 3 && file.next == nil:
		k, err := signingKey(f[1], f[2])
		file.next = &k
		return k.ID, err
	case f[0] == "retired" && len(f) == 4:
		k, err := retiredKey(f[1], f[2], f[3])
		file.retired = append(file.retired, k)
		return k.ID, err
	}
	return "", errors.New("neither `ed25519 VERSION SEED`, one `next VERSION SEED`, nor `retired VERSION PUBLIC EXPIRED`")
}

func signingKey(version, seed string) (SigningKey, error) {
	id, err := parseKeyID("ed25519:" + version)
	if err != nil {
		return SigningKey{}, err
	}
	raw, err := base64.RawStdEncoding.DecodeString(seed) // not strict: the spec's own example has stray bits at its end
	if err != nil || len(raw) != ed25519.SeedSize {
		return SigningKey{}, errors.New("the seed is not 32 bytes in base64")
	}
	return SigningKey{id, ed25519.NewKeyFromSeed(raw)}, nil
}

func retiredKey(version, public, expired string) (RetiredKey, error) {
	id, err := parseKeyID("ed25519:" + version)
	if err != nil {
		return RetiredKey{}, err
	}
	raw, err := matrix.DecodeBase64(public)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return RetiredKey{}, errors.New("the public key is not 32 bytes in base64")
	}
	ts, err := strconv.ParseInt(expired, 10, 64)
	if err != nil || ts <= 0 {
		return RetiredKey{}, errors.New("the time of expiry is not a number of milliseconds")
	}
	return RetiredKey{id, raw, ts}, nil
}
