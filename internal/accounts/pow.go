package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How much work somebody does who makes an account: the first bits of SHA-256(seed, nonce) that have to be zero. At first
// it is a second or two of a telephone; it doubles with the accounts that were made lately.
const (
	leastWork  = 17
	mostWork   = 24
	freely     = 8 // accounts within workWindow that cost no more
	workWindow = time.Hour
	maxNonce   = 64 // bytes
)

// work is the puzzle of a session, as clients get it. The seed is of this session alone and ends with it: no work can be
// done beforehand, sold on, or used twice.
type work struct {
	Algorithm  string `json:"algorithm"`
	Seed       string `json:"seed"`
	Difficulty int    `json:"difficulty"` // zero bits
	Expires    int64  `json:"expires_ts"` // ms
}

func newSeed() string {
	var random [16]byte
	rand.Read(random[:])
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// difficulty is what a new session has to do.
func (a *Accounts) difficulty(ctx context.Context) (int, error) {
	lately := 0
	since := a.now().Add(-workWindow).UnixMilli()
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		lately, err = tx.CountAudit(EventRegistered, since, freely<<(mostWork-leastWork))
		return err
	})
	return min(mostWork, leastWork+bits.Len(uint(lately/freely))), err
}

// work reads the puzzle of the session; nil if it has none yet.
func (c *confirmation) work() (*work, error) {
	found, err := c.found()
	if err != nil {
		return nil, err
	}
	number, seed, ok := strings.Cut(found[foundWork], " ")
	if !ok {
		return nil, nil
	}
	difficulty, err := strconv.Atoi(number)
	return &work{"sha256", seed, difficulty, c.row.Expires}, err
}

// stageWork checks a proof of work.
func stageWork(_ context.Context, _ *Accounts, c *confirmation) error {
	var answer struct {
		Nonce string `json:"nonce"`
	}
	if err := c.answer(&answer); err != nil {
		return err
	}
	w, err := c.work()
	if err != nil {
		return err
	}
	if w == nil || answer.Nonce == "" || len(answer.Nonce) > maxNonce || zeroBits(sha256.Sum256([]byte(w.Seed+answer.Nonce))) < w.Difficulty {
		return matrix.Forbidden("This is not the work that was asked for.")
	}
	return nil
}

// zeroBits counts the bits before the first that is set.
func zeroBits(hash [32]byte) int {
	n := 0
	for _, b := range hash {
		n += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	return n
}
