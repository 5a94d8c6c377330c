package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"conclave/internal/config"
)

func initCommand() command {
	return command{
		name: "init", args: "[-dir D] [-server-name N]",
		does: "writes a commented configuration, the signing key and secrets; never overwrites",
		run:  runInit,
	}
}

// runInit prepares a directory for a new server and says what to do next.
func runInit(_ context.Context, c console, args []string) error {
	set := flag.NewFlagSet("init", flag.ContinueOnError)
	dir := set.String("dir", ".", "the `directory` to prepare")
	name := set.String("server-name", "", "the `name` after the colon in user IDs; permanent")
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	written, err := config.InitDir(*dir, *name)
	if err != nil {
		return err
	}
	for _, path := range written {
		fmt.Fprintln(c.out, "wrote", path)
	}
	file := filepath.Join(*dir, "config.yaml")
	if *name == "" {
		fmt.Fprintf(c.out, "Set server_name in %s, then start the server:\n", file)
	} else {
		fmt.Fprintln(c.out, "Start the server:")
	}
	fmt.Fprintf(c.out, "  conclave serve -config %s\n", file)
	return nil
}
