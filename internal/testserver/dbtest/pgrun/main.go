// Command pgrun runs a command with a private PostgreSQL cluster, whose URL is in CONCLAVE_TEST_POSTGRES, and removes the
// cluster afterwards:
//
//	go run ./internal/testserver/dbtest/pgrun -- go test ./...
//
// Its exit code is that of the command.
package main

import (
	"context"
	"fmt"
	"os"

	"conclave/internal/testserver/dbtest"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: pgrun -- command [arguments]")
		os.Exit(2)
	}
	code, err := dbtest.RunWith(context.Background(), args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgrun:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}
