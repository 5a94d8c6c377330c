// Command provide is an OpenID Connect provider for tests that are not written in Go, such as those in a browser:
//
//	provide CALLBACK NAME…
//
// It sends people back to CALLBACK, and prints one line of JSON, {"issuer", "client_id", "client_secret", "password"}, for a
// server's configuration and for whoever signs in. It ends when its input does, so that it outlives nobody.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"conclave/internal/testserver/idp"
)

func main() {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the provider tells of each request
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "provide:", err)
		os.Exit(1)
	}
}

// run provides until in ends.
func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("say where people are sent back to, and who they are")
	}
	p, err := idp.Listen(args[1:]...)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Serve(args[0])
	about := map[string]string{"issuer": p.Issuer, "client_id": idp.ClientID, "client_secret": idp.Secret, "password": idp.Password}
	if err := json.NewEncoder(out).Encode(about); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
