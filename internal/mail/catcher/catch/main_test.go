package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/smtp"
	"strings"
	"testing"
)

// TestRun sends a mail and reads it from the output; the program ends with its input.
func TestRun(t *testing.T) {
	in, end := io.Pipe()
	read, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(in, out) }()
	lines := bufio.NewScanner(read)
	next := func(into any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	var where struct{ URL string }
	next(&where)
	go func() {
		text := "From: conclave@example.org\r\nTo: ann@example.org\r\nSubject: =?utf-8?q?Best=C3=A4tigen?=\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOpen https://example.org/x?y=1 now.\r\n"
		if err := smtp.SendMail(strings.TrimPrefix(where.URL, "smtp://"), nil, "conclave@example.org", []string{"ann@example.org"}, []byte(text)); err != nil {
			_ = out.CloseWithError(err) // next says so
		}
	}()
	var got caught
	next(&got)
	if got.To != "ann@example.org" || got.Subject != "Bestätigen" || got.Link != "https://example.org/x?y=1" || !strings.Contains(got.Text, "Open") {
		t.Errorf("printed %+v", got)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
