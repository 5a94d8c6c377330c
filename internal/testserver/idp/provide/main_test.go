package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

// TestRun asks the provider what it is; the program ends with its input.
func TestRun(t *testing.T) {
	in, end := io.Pipe()
	read, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run([]string{"http://127.0.0.1:1/callback", "ann"}, in, out) }()
	line, err := bufio.NewReader(read).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var about struct{ Issuer, Password string }
	if err := json.Unmarshal(line, &about); err != nil || about.Password == "" {
		t.Fatalf("%s: %v", line, err)
	}
	res, err := http.Get(about.Issuer + "/.well-known/openid-configuration")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", res, err)
	}
	_ = res.Body.Close()
	_ = end.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := run(nil, in, out); err == nil {
		t.Error("without anybody it provides")
	}
}
