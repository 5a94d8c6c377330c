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

// TestTimeDoesNotTellNames logs in with wrong passwords under names that exist and names that do not, in random order, and
// asks how well the time tells them apart: 1/2 is not at all, and 1, or 0, is always. Whatever disturbs the machine
// disturbs both alike and can only hide a difference; by chance alone the result lies beyond the bounds here once in
// millions of runs, while a name that costs no hash brings it to 1.
func TestTimeDoesNotTellNames(t *testing.T) {
	proof.Of(t, "A08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.config.Auth.Argon2.MemoryKiB = 1024
		w.guesses.on = false
		w.register("alice")
		const n = 200
		kinds := make([]bool, 2*n)
		for i := range kinds {
			kinds[i] = i%2 == 0
		}
		rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		var present, absent []time.Duration
		for i, exists := range kinds {
			name := "alice"
			if !exists {
				name = fmt.Sprintf("nobody%d", i)
			}
			began := time.Now()
			_, err := w.login(name, "WRONG-WRONG-WRONG-WRONG-WRONG") // as long as an app password
			took := time.Since(began)
			wantCode(t, err, 403, "M_FORBIDDEN")
			if exists {
				present = append(present, took)
			} else {
				absent = append(absent, took)
			}
		}
		longer := 0.0
		for _, p := range present {
			for _, a := range absent {
				switch {
				case p > a:
					longer++
				case p == a:
					longer += 0.5
				}
			}
		}
		if told := longer / (n * n); told < 0.35 || told > 0.65 {
			t.Errorf("the time tells existing names from others with %.2f", told)
		}
	})
}
