package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/testserver/shapes"
)

const (
	servedHeader = "api\tmethod\tpath\tsummary\tauth\n"
	calledHeader = "api\tmethod\tpath\tsummary\tneed\n"
)

// folder writes lists and a record of a test run.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var sample = map[string]string{
	"endpoints.tsv": servedHeader +
		"cs\tGET\t/rooms/{roomId}/state/{type}\tstate\tt\n" +
		"cs\tGET\t/rooms/{roomId}/state/special\tspecial\tt\n" +
		"cs\tPOST\t/rooms/{roomId}/invite\tinvite\tt\n" +
		"cs\tPOST\t/rooms/{roomId}/invite\tinvite by 3PID\tt\n" +
		"cs\tPOST\t{token_endpoint}\ttoken\tt\n" +
		"ss\tGET\t/version\tversion\tt\n" +
		"ss\tPOST\t/sign\tsign\tt\n",
	"outbound.tsv":  calledHeader + "ss\tPUT\t/send/{txnId}\tsend\tmust\nss\tGET\t/version\tversion\toptional\nis\tGET\t/lookup\tlookup\tmust\n",
	"behaviours.md": "# Rules\n\n## 1. Names\n\n- [ ] ID-01 M a rule — AP\n- [ ] ID-02 M another | rule — AP\n- [ ] ID-03 S advice — AP\n",
	"threats.md":    "## Inbound\n\n- [ ] F01 M lies: checked\n",
	"record": "row\tID-01\tinternal/matrix.TestID\n" +
		"row\tF01\trooms.TestLies/sqlite/signature\nrow\tF01\trooms.TestLies/postgres/signature\n" +
		"served\tGET /rooms/!a:b/state/m.room.name\tclientapi.TestState\n" +
		"refused\tPOST /sign\tfederation.TestRefusals\n" +
		"shaped\tGET /version\tfederation.TestVersion\n" + // and it is served too, by the same test
		"served\tGET /version\tfederation.TestVersion\n" +
		"called\tPUT /send/1\tfederation.TestSend\n" +
		"op\tclient inviteUser\tclientapi.TestInvite\n" +
		"op\tclient nothing\tclientapi.TestInvite\n" +
		"shaped\tGET /rooms/{roomId}/state/{type}\tclientapi.TestState\n" +
		"deviant\tgetState /name\tclientapi.TestState\n",
}

func measured(t *testing.T) coverage {
	t.Helper()
	dir := folder(t, sample)
	l, err := readLists(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readFile(filepath.Join(dir, "record"), readRecord)
	if err != nil {
		t.Fatal(err)
	}
	r.addOperations(map[string]map[string][]operation{"client": {"inviteUser": {newOperation("POST", "/rooms/:roomId/invite")}}})
	return measure(l, r)
}

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	measured(t).summary(&out)
	want := `server-server: 2 of 2
  answers compared with the OpenAPI documents: 1
client-server: 2 of 3
  answers compared with the OpenAPI documents: 1
  missing  GET /rooms/{roomId}/state/special (special)
calls to other homeservers: 1 of 2
  not counted, its path is the server's choice: POST {token_endpoint} (token)
rules ID: 1. Names: 1 of 3; mandatory and without a test: ID-02
rules F: Inbound: 1 of 1
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestDocument(t *testing.T) {
	var out bytes.Buffer
	measured(t).document(&out)
	for _, want := range []string{
		"| server-server | 2 | 2 | 1 |\n",
		"| client-server | 2 | 3 | 1 |\n",
		"| POST /sign | sign | - | refused on purpose: federation.TestRefusals |\n",
		"| GET /rooms/{roomId}/state/{type} | state | checked | clientapi.TestState |\n",
		"| F01 | M lies: checked | rooms.TestLies/signature |\n", // once, whatever the engine
		`| ID-02 | M another \| rule — AP | - |` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the document has no %q:\n%s", want, out.String())
		}
	}
}

// TestCheck: a document may be too modest, but not name what did not run.
func TestCheck(t *testing.T) {
	dir := folder(t, sample)
	record := filepath.Join(dir, "record")
	deviations := []shapes.Deviation{{Operation: "getState", Status: 200, At: "/name"}}
	if err := run(dir, record, false, deviations); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, record, true, deviations); err != nil {
		t.Errorf("the document does not agree with its own record: %v", err)
	}
	more := sample["record"] + "row\tID-02\trooms.TestNew\n"
	if err := os.WriteFile(record, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, record, true, deviations); err != nil {
		t.Errorf("a new test makes the check fail: %v", err)
	}
	for gone, want := range map[string]string{
		"row\tID-01\tinternal/matrix.TestID\n":                            "ID-01",
		"shaped\tGET /rooms/{roomId}/state/{type}\tclientapi.TestState\n": "the shape of GET /rooms/{roomId}/state/{type}",
		"deviant\tgetState /name\tclientapi.TestState\n":                  "deviations that no test of this run needed: getState /name",
	} {
		less := strings.ReplaceAll(sample["record"], gone, "")
		if err := os.WriteFile(record, []byte(less), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(dir, record, true, deviations); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %q the check says %v", gone, err)
		}
	}
	if err := os.WriteFile(record, []byte("row\tZZ-01\trooms.TestNew\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, record, true, deviations); err == nil || !strings.Contains(err.Error(), "ZZ-01") {
		t.Errorf("a rule that no list has: %v", err)
	}
}

func TestReadersRefuse(t *testing.T) {
	for _, bad := range []string{"", "method\tapi\n", servedHeader + "cs\tGET\n", servedHeader + "cs\tGET\tnowhere\ts\tt\n"} {
		if _, err := readRoutes(strings.NewReader(bad)); err == nil {
			t.Errorf("read the routes %q without an error", bad)
		}
	}
	for _, bad := range []string{"- [ ] ID-1 M text\n", "- [ ] ID-01 X text\n", "- [x] ID-01 M text\n", "- [ ] ID-01 M a\n- [ ] ID-01 M a\n"} {
		if _, err := readRules(strings.NewReader(bad)); err == nil {
			t.Errorf("read the rules %q without an error", bad)
		}
	}
	for _, bad := range []string{"row\tID-01\n", "served\tGET\tt\n"} {
		if _, err := readRecord(strings.NewReader(bad)); err == nil {
			t.Errorf("read the record %q without an error", bad)
		}
	}
}

// TestKeptLists reads the lists of the repository whole.
func TestKeptLists(t *testing.T) {
	l, err := readLists("../../../" + listsDir)
	if err != nil {
		t.Fatal(err)
	}
	c := measure(l, &record{})
	_, ss := c.server.covered()
	_, cs := c.client.covered()
	_, called := c.called.covered()
	if ss != 36 || cs < 160 || called < 30 || len(l.rules) < 280 || len(c.areas) < 20 {
		t.Errorf("the lists have %d and %d operations to serve, %d to call, %d rules in %d areas: not all of them", ss, cs, called, len(l.rules), len(c.areas))
	}
}
