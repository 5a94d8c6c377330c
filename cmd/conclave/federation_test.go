package main

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
)

// TestFederationCheck: a real pair, whole and with the other side down; and a name that nobody answers to.
func TestFederationCheck(t *testing.T) {
	a, b := testserver.Pair(t, testserver.Options{})
	check := func(name string) (string, bool) { return a.Command("federation", "check", "-config", a.Conf, name) }
	out, ok := check(string(b.Name))
	if !ok || !strings.Contains(out, "All is well between "+string(a.Name)+" and "+string(b.Name)) || strings.Contains(out, "FAIL") {
		t.Errorf("two servers that reach one another: %v\n%s", ok, out)
	}
	for _, topic := range []string{"name", "discovery", "connection", "certificate", "version", "clock", "keys", "requests", "reach"} {
		if !strings.Contains(out, "\nok    "+topic+" ") && !strings.HasPrefix(out, "ok    "+topic+" ") {
			t.Errorf("nothing is said of %s:\n%s", topic, out)
		}
	}
	a.Stop()
	if out, ok := check(string(b.Name)); ok || !strings.Contains(out, "FAIL  reach") || !strings.Contains(out, "start the server") {
		t.Errorf("our own server is stopped: %v\n%s", ok, out)
	}
	a.Start()
	b.Stop()
	if out, ok := check(string(b.Name)); ok || !strings.Contains(out, "FAIL  connection") || !strings.Contains(out, "fix: ") {
		t.Errorf("the other server is stopped: %v\n%s", ok, out)
	}
	if out, ok := check("localhost"); ok || !strings.Contains(out, "step 3: fetched https://localhost/.well-known/matrix/server") {
		t.Errorf("a name without a port is looked for by its document: %v\n%s", ok, out)
	}
	if out, ok := a.Command("federation", "mend"); ok || !strings.Contains(out, "usage: conclave federation check") {
		t.Errorf("an unknown word: %v\n%s", ok, out)
	}
}
