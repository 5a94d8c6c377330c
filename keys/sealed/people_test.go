package sealed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"conclave/internal/matrix"
)

// person is a user with an identity and one device, made the same way every time.
type person struct {
	*Device
	identity  *Identity
	published Published
	keys      []byte // of the device, signed by it and by the identity
}

func (p *person) master() string { return p.identity.Master() }

func (p *person) sender() *Sender { return &Sender{p.Device, p.keys, p.master()} }

func (p *person) origin() Origin {
	return Origin{User: p.User, Device: p.ID, SigningKey: p.SigningKey()}
}

// verified is the person's identity as others know it.
func (p *person) verified(t *testing.T) *CrossSigning {
	t.Helper()
	c, err := ParseCrossSigning(p.published, p.User, p.master())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// qualified are the keys of the person's device as others know them.
func (p *person) qualified(t *testing.T) *DeviceKeys {
	t.Helper()
	k, err := Qualify(p.keys, p.User, p.ID, p.verified(t))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// receiver is the person's device as it receives, when it knows some people.
func (p *person) receiver(t *testing.T, known ...*person) *Receiver {
	return &Receiver{Device: p.Device, Master: p.master(), Lookup: func(user matrix.UserID, device string) (*CrossSigning, []byte) {
		for _, k := range known {
			if k.User == user && k.ID == device {
				return k.verified(t), k.keys
			}
		}
		return nil, nil
	}}
}

// The people of the tests. Mallory is as good a user as the others, and means harm.
var alice, bob, mallory = sync.OnceValue(makePerson("alice")), sync.OnceValue(makePerson("bob")), sync.OnceValue(makePerson("mallory"))

func makePerson(name string) func() *person {
	return func() *person {
		p, err := newPerson(name)
		if err != nil {
			panic(err)
		}
		return p
	}
}

func newPerson(name string) (*person, error) {
	user := matrix.UserID("@" + name + ":" + name + ".example")
	exchange, err := rsaKey(name)
	if err != nil {
		return nil, err
	}
	p := &person{identity: &Identity{user, seeded(name, "master"), seeded(name, "self-signing"), seeded(name, "user-signing")}}
	if p.Device, err = DeviceFrom(user, "DEVICE"+name, seeded(name, "device"), exchange); err != nil {
		return nil, err
	}
	if p.published, err = p.identity.Publish(p.Device); err != nil {
		return nil, err
	}
	if p.keys, err = p.PublicKeys(); err != nil {
		return nil, err
	}
	p.keys, err = p.identity.SignDevice(p.keys)
	return p, err
}

// seeded makes an Ed25519 key of words, so that every run has the same.
func seeded(words ...string) ed25519.PrivateKey {
	sum := sha256.New()
	for _, w := range words {
		io.WriteString(sum, w+"\x00")
	}
	return ed25519.NewKeyFromSeed(sum.Sum(nil))
}

// rsaKey reads a key of testdata/rsa.json, or makes it where there is none yet: making one takes a second.
func rsaKey(name string) (*rsa.PrivateKey, error) {
	rsaFile.Lock()
	defer rsaFile.Unlock()
	path := filepath.Join("testdata", "rsa.json")
	all := map[string][]byte{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &all)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if der, ok := all[name]; ok {
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, err
		}
		return key.(*rsa.PrivateKey), nil
	}
	key, err := rsa.GenerateKey(rand.Reader, defaultModulus)
	if err != nil {
		return nil, err
	}
	if all[name], err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	if text, err = json.MarshalIndent(all, "", " "); err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, append(text, '\n'), 0o644)
}

var rsaFile sync.Mutex

// decryptBytes decrypts an attachment that is in memory.
func decryptBytes(t *testing.T, f *EncryptedFile, ciphertext []byte) ([]byte, error) {
	t.Helper()
	private, err := os.CreateTemp(t.TempDir(), "attachment")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	r, err := DecryptAttachment(f, bytes.NewReader(ciphertext), private, 1<<20)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
