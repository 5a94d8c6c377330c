package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"conclave/internal/matrix"
)

// Bounds of passwords in bytes, and of how many are hashed at a time: each costs the configured memory
// (threats, section 12).
const (
	minPassword = 8
	maxPassword = 512
	hashPlaces  = 4 // or as many as there are processors, if they are fewer
	hashQueue   = 100
)

// CheckPassword refuses passwords that are too short (M_WEAK_PASSWORD) or absurdly long.
func CheckPassword(password string) error {
	switch {
	case len(password) < minPassword:
		return matrix.Errorf(400, "M_WEAK_PASSWORD", "A password has at least %d characters.", minPassword)
	case len(password) > maxPassword:
		return matrix.InvalidParam("A password has at most %d bytes.", maxPassword)
	}
	return nil
}

// newHash makes the hash of a password that somebody is to have from now on.
func (a *Accounts) newHash(ctx context.Context, password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	return a.hash(ctx, password)
}

// hash makes the PHC form of a password's argon2id hash, waiting for a free place.
func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	var salt [16]byte
	rand.Read(salt[:])
	p := a.config.Auth.Argon2
	var key []byte
	err := a.hashing(ctx, func() {
		key = argon2.IDKey([]byte(password), salt[:], uint32(p.Time), uint32(p.MemoryKiB), uint8(p.Threads), 32)
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.MemoryKiB, p.Time, p.Threads,
		base64.RawStdEncoding.EncodeToString(salt[:]), base64.RawStdEncoding.EncodeToString(key)), nil
}

// tidyAfter is how long after the last hash its memory goes back to the system: the collector alone would keep the
// memory of several hashes for minutes.
const tidyAfter = 5 * time.Second

// hashing runs do with at most hashPlaces at a time, and refuses when too many wait already.
func (a *Accounts) hashing(ctx context.Context, do func()) error {
	if a.waiting.Add(1) > hashQueue {
		a.waiting.Add(-1)
		return matrix.LimitExceeded(2000)
	}
	defer a.waiting.Add(-1)
	select {
	case a.hashes <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.hashes }()
	do()
	a.tidy.Reset(tidyAfter)
	return nil
}

// verify compares a password with a hash. An empty hash, or one that cannot be read, matches nothing but costs as
// much, so that time does not tell whether an account exists.
func (a *Accounts) verify(ctx context.Context, password, phc string) (bool, error) {
	p := a.config.Auth.Argon2
	memory, passes, threads := uint32(p.MemoryKiB), uint32(p.Time), uint8(p.Threads)
	salt, want := make([]byte, 16), make([]byte, 32)
	known := parsePHC(phc, &memory, &passes, &threads, &salt, &want)
	var got []byte
	err := a.hashing(ctx, func() { got = argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(want))) })
	return err == nil && known && subtle.ConstantTimeCompare(got, want) == 1, err
}

// What the time of a refusal is a multiple of, and how much of it is waited for without sleeping: sleeps end up to a
// millisecond late.
const (
	refusalStep  = 5 * time.Millisecond
	refusalAwake = 1200 * time.Microsecond
)

// evenOut waits until a whole number of steps has passed since a guess began. To note that it was at an account takes some ten
// microseconds longer than that it was at none, and the time of an answer must tell nobody who has one (threats A08).
func evenOut(ctx context.Context, began time.Time) {
	left := refusalStep - time.Since(began)%refusalStep
	until := time.Now().Add(left)
	if left > refusalAwake {
		select {
		case <-time.After(left - refusalAwake):
		case <-ctx.Done():
			return
		}
	}
	for time.Now().Before(until) {
		runtime.Gosched()
	}
}

// parsePHC reads "$argon2id$v=19$m=…,t=…,p=…$salt$hash". It leaves its results alone if it cannot.
func parsePHC(phc string, memory, time *uint32, threads *uint8, salt, hash *[]byte) bool {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	var version int
	var m, t uint32
	var p uint8
	if n, err := fmt.Sscanf(parts[2], "v=%d", &version); n != 1 || err != nil || version != argon2.Version {
		return false
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p); n != 3 || err != nil || t == 0 || p == 0 {
		return false
	}
	s, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	h, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h) < 16 {
		return false
	}
	*memory, *time, *threads, *salt, *hash = m, t, p, s, h
	return true
}
