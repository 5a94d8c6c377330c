package federation

import (
	"bytes"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"conclave/internal/matrix"
)

func TestSplitList(t *testing.T) {
	for list, want := range map[string]string{
		`[]`: "", ` [ ] `: "", `null`: "", `[1]`: "1", `[1,{"a":[2,3]}, "x"]`: `1|{"a":[2,3]}|"x"`, `[1,2,3,4]`: "1|2|3 and more", `[1,2,3,`: "no",
		`[1,2,3 4]`: "1|2|3 and more", `[1 2]`: "no", `[1,]`: "no", `{}`: "no", `1`: "no", `"[1]"`: "no", ``: "no", `[`: "no", `[1`: "no", `[1}`: "no",
	} {
		items, more, err := splitList([]byte(list), 3)
		got := string(bytes.Join(raws(items), []byte("|")))
		if more {
			got += " and more"
		}
		if err != nil {
			got = "no"
		}
		if got != want && !(want == "no" && more) { // what is behind the bound is not looked at
			t.Errorf("%s: %s, want %s (%v)", list, got, want, err)
		}
	}
}

func raws[T ~[]byte](items []T) (out [][]byte) {
	for _, item := range items {
		out = append(out, item)
	}
	return out
}

// TestListsOfMillionsCostTheirLength: bodies as long as may be, of as many values as fit, are refused without taking much
// more memory than they are long.
func TestListsOfMillionsCostTheirLength(t *testing.T) {
	many := `[` + strings.Repeat("1,", maxTransaction/2-100) + `1]`
	spent := func(do func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, list := range []string{"pdus", "edus"} {
		body := []byte(`{"` + list + `":` + many + `}`)
		var err error
		got := spent(func() { _, err = readTransaction(body) })
		var refused *matrix.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || got > 4*maxTransaction {
			t.Errorf("%s: %v, %d bytes", list, err, got)
		}
	}
	body := []byte(many)
	got := spent(func() {
		if _, err := loosely(body); err == nil {
			t.Error("millions of values of nobody were taken apart")
		}
	})
	if got > maxTransaction {
		t.Errorf("a signature took %d bytes", got)
	}
}
