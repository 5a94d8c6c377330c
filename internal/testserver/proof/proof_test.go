package proof

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRecords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "record")
	t.Setenv("CONCLAVE_TEST_RECORD", file)
	t.Run("shows", func(t *testing.T) {
		Of(t, "ID-01", "ID-02", "ID-01")
		Served(t, "GET", "/a/b?c=d", 200)
		Served(t, "GET", "/refused", 403)
		Called(t, "PUT", "/send/1")
		Refused(t, "POST", "/sign")
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const by = "\tinternal/testserver/proof.TestRecords/shows\n"
	got := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		got[line] = true
	}
	for _, want := range []string{"row\tID-01", "row\tID-02", "served\tGET /a/b", "called\tPUT /send/1", "refused\tPOST /sign"} {
		if !got[want+by] {
			t.Errorf("no record of %q in\n%s", want, text)
		}
	}
	if len(got) != 5 || strings.Count(string(text), "\n") != 5 {
		t.Errorf("records are wrong or doubled:\n%s", text)
	}
}
