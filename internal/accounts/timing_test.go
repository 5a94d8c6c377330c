package accounts

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// told says how well the time tells two kinds of tries apart, made in random order: 1/2 is not at all, and 1, or 0, is
// always. Whatever disturbs the machine disturbs both alike.
func told(n int, try func(kind, i int)) float64 {
	var took [2][]time.Duration
	for _, i := range rand.Perm(2 * n) {
		began := time.Now()
		try(i%2, i)
		took[i%2] = append(took[i%2], time.Since(began))
	}
	longer := 0.0
	for _, p := range took[0] {
		for _, q := range took[1] {
			switch {
			case p > q:
				longer++
			case p == q:
				longer += 0.5
			}
		}
	}
	return longer / float64(n*n)
}

// tellsNothing measures up to three times: by chance alone a measurement lies beyond 0.55 or 0.45 once in seventy times,
// and all three once in hundreds of thousands, while a name that costs no hash brings each to 1.
func tellsNothing(t *testing.T, what string, try func(kind, i int)) {
	t.Helper()
	const tries, n, most = 3, 400, 0.55
	var all []float64
	for range tries {
		now := told(n, try)
		if now <= most && now >= 1-most {
			return
		}
		all = append(all, now)
	}
	t.Errorf("the time tells %s with %.2f", what, all)
}

// TestTimeDoesNotTellNames logs in with wrong passwords under names that exist and names that do not, within the limits and,
// where all guesses are used up, beyond them.
func TestTimeDoesNotTellNames(t *testing.T) {
	proof.Of(t, "A08")
	dbtest.EachInTurn(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.config.Auth.Argon2.MemoryKiB = 1024
		s := &siege{mailWorld: &mailWorld{w, &box{}}}
		_, err := s.Register(t.Context(), Registration{Username: "alice", Password: password, Device: &NewDevice{Address: home}})
		must(t, err)
		try := func(kind, i int) {
			name := fmt.Sprintf("nobody%d", i) // for both, whose times differ by less than it takes
			if kind == 0 {
				name = "alice"
			}
			_, err := w.LoginPasswordBy(s.from(i, 2), Identifier{User: name}, "WRONG-WRONG-WRONG-WRONG-WRONG", NewDevice{}) // as long as an app password
			wantCode(t, err, 403, "M_FORBIDDEN")
			w.pass(time.Hour)
		}
		tellsNothing(t, "names that exist", try)
		w.guesses.on = false
		tellsNothing(t, "names that exist, without limits,", try)
	})
}
