package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, events, want string // want: part of the error, "" for none
		printed            string
		exit               error
	}{
		{name: "passed", events: `{"Action":"pass","Package":"p","Test":"A"}` + "\n" + `{"Action":"pass","Package":"p"}`, printed: "ok   p"},
		{name: "failed test shows its output", events: `{"Action":"output","Package":"p","Test":"A","Output":"a_test.go:1: wrong\n"}` + "\n" +
			`{"Action":"fail","Package":"p","Test":"A"}` + "\n" + `{"Action":"fail","Package":"p"}`, want: "1 tests failed", printed: "wrong", exit: errors.New("exit 1")},
		{name: "skipped", events: `{"Action":"pass","Package":"p","Test":"A"}` + "\n" + `{"Action":"skip","Package":"p","Test":"B"}`, want: "skipped"},
		{name: "a package without tests is no skipped test", events: `{"Action":"skip","Package":"q"}` + "\n" + `{"Action":"pass","Package":"p","Test":"A"}`},
		{name: "nothing ran", events: `{"Action":"skip","Package":"p"}`, want: "no test ran"},
		{name: "panic", events: `{"Action":"output","Package":"p","Test":"A","Output":"panic: boom\n"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			want: "no result from p", printed: "panic: boom"},
		{name: "does not compile", events: `{"Action":"build-output","ImportPath":"p","Output":"x.go:1: undefined\n"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			want: "no result from p", printed: "undefined"},
		{name: "go test itself", events: `{"Action":"pass","Package":"p","Test":"A"}`, want: "go test: exit 1", exit: errors.New("exit 1")},
		{name: "other lines pass through", events: "warning\n" + `{"Action":"pass","Package":"p","Test":"A"}`, printed: "warning"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			r := newReport(&out)
			err := r.verdict(r.read(strings.NewReader(c.events)), c.exit)
			if got := errText(err); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("verdict %q, want %q", got, c.want)
			}
			if !strings.Contains(out.String(), c.printed) {
				t.Errorf("printed %q, want it to contain %q", out.String(), c.printed)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
