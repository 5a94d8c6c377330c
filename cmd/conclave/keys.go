package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"conclave/federation"
	"conclave/internal/config"
)

func keysCommand() command {
	return command{
		name: "keys", args: "list | rotate, each with [-config FILE]",
		does: "shows the keys that sign for this server, or makes a new one that signs from the next start on",
		run:  runKeys,
	}
}

// signingKeyFile is where a server's keys are.
func signingKeyFile(conf *config.Config) string { return filepath.Join(conf.DataDir, "signing.key") }

// runKeys needs the key file alone, so it works whether the server runs or not.
func runKeys(_ context.Context, c console, args []string) error {
	if len(args) == 0 || args[0] != "list" && args[0] != "rotate" {
		return usageError{"say list or rotate"}
	}
	set := flag.NewFlagSet("keys "+args[0], flag.ContinueOnError)
	file := set.String("config", "config.yaml", "the configuration `file`")
	if _, err := parse(c, set, args[1:], 0, 0); err != nil {
		return err
	}
	conf, _, err := loadConfig(c, *file)
	if err != nil {
		return err
	}
	path := signingKeyFile(conf)
	if args[0] == "list" {
		return listKeys(c, path)
	}
	id, err := federation.NextKey(path)
	if errors.Is(err, federation.ErrNextKey) {
		return fmt.Errorf("%s waits for the next start of the server already", id)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is made. It signs from the next start of the server on; the key before it stays published for what it has signed.\n", id)
	return nil
}

func listKeys(c console, path string) error {
	current, retired, err := federation.LoadKeys(path)
	if err != nil {
		return err
	}
	for i, k := range current {
		state := "published"
		if i == 0 {
			state = "signs"
		}
		fmt.Fprintf(c.out, "%s\t%s\n", k.ID, state)
	}
	for _, k := range retired {
		fmt.Fprintf(c.out, "%s\texpired %s\n", k.ID, time.UnixMilli(k.Expired).UTC().Format(time.RFC3339))
	}
	return nil
}
