package main

import (
	"context"
	"flag"
	"fmt"

	"conclave/internal/appservice"
	"conclave/internal/config"
	"conclave/internal/matrix"
)

func configCommand() command {
	return command{
		name: "config", args: "print | check [-config FILE]",
		does: "print: every key with its default and meaning. check: whether a file and the environment are valid",
		run:  runConfig,
	}
}

func runConfig(_ context.Context, c console, args []string) error {
	if len(args) == 0 {
		return usageError{"say print or check"}
	}
	switch args[0] {
	case "print":
		if _, err := parse(c, flag.NewFlagSet("config print", flag.ContinueOnError), args[1:], 0, 0); err != nil {
			return err
		}
		return config.Print(c.out)
	case "check":
		return checkConfig(c, args[1:])
	default:
		return usageError{fmt.Sprintf("there is no config %s", args[0])}
	}
}

func checkConfig(c console, args []string) error {
	set := flag.NewFlagSet("config check", flag.ContinueOnError)
	path := configFlag(set)
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	cfg, err := config.Load(*path, c.environ)
	if err != nil {
		return err
	}
	if _, err := appservice.Load(cfg.AppServices, matrix.ServerName(cfg.ServerName)); err != nil {
		return err
	}
	for _, warning := range cfg.Warnings() {
		fmt.Fprintln(c.err, "warning:", warning)
	}
	fmt.Fprintf(c.out, "%s is valid for %s\n", *path, cfg.ServerName)
	return nil
}

// configFlag adds -config, which every command that needs the configuration understands.
func configFlag(set *flag.FlagSet) *string {
	return set.String("config", "config.yaml", "the configuration `file`")
}
