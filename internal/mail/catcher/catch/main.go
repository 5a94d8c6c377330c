// Command catch is a mail server for tests that are not written in Go, such as those in a browser. It prints one JSON value a
// line: first {"url": "smtp://…"} for a server's configuration, then every mail as it comes. It ends when its input does, so
// that it outlives nobody.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"conclave/internal/mail/catcher"
)

// caught is a mail as it is printed.
type caught struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Link    string `json:"link"` // the first address in the text, "" if there is none
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "catch:", err)
		os.Exit(1)
	}
}

// run catches mails until in ends.
func run(in io.Reader, out io.Writer) error {
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	say := func(value any) error {
		mu.Lock()
		defer mu.Unlock()
		return lines.Encode(value)
	}
	s, err := catcher.Start(catcher.Options{UTF8: true, Arrived: func(m *catcher.Mail) {
		_ = say(caught{To: m.To, Subject: m.Subject, Text: m.Text, Link: m.Link()}) // nobody listens: in ends as well
	}})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the process ends
	if err := say(map[string]string{"url": s.URL()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
