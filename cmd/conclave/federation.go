package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"conclave/federation"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
)

func federationCommand() command {
	return command{
		name: "federation", args: "check [-config FILE] NAME",
		does: "tells step by step how another server resolves, its certificate and keys, whether it takes what we sign and can reach us, and what mends what fails",
		run:  runFederation,
	}
}

// checkTime bounds a whole check: its slowest steps are other servers' time-outs.
const checkTime = 3 * time.Minute

// runFederation checks a partner. It needs the configuration and the signing key, not the database.
func runFederation(ctx context.Context, c console, args []string) error {
	if len(args) == 0 || args[0] != "check" {
		return usageError{"the one thing that can be done is check"}
	}
	set := flag.NewFlagSet("federation check", flag.ContinueOnError)
	file := set.String("config", "config.yaml", "the configuration `file`")
	rest, err := parse(c, set, args[1:], 1, 1)
	if err != nil {
		return err
	}
	conf, log, err := loadConfig(c, *file)
	if err != nil {
		return err
	}
	if !conf.Federation.Enabled {
		return errors.New("federation.enabled is false: this server talks with no other")
	}
	current, retired, err := federation.LoadKeys(signingKeyFile(conf))
	if err != nil {
		return err
	}
	identity, err := federation.NewIdentity(matrix.ServerName(conf.ServerName), current, retired)
	if err != nil {
		return err
	}
	roots, err := trusted("federation.ca_file", conf.Federation.CAFile)
	if err != nil {
		return err
	}
	client := federation.NewClient(federation.ClientOptions{
		Identity: identity, Dial: netguard.NewDialer(conf.Network.AllowPrivate, nil).DialContext, Roots: roots,
		Policy: federation.NewPolicy(conf.Federation.Allow, conf.Federation.Deny), UserAgent: "Conclave/" + thisBuild().Version, Log: log,
	})
	defer client.CloseIdle()
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	well := client.Check(ctx, matrix.ServerName(rest[0]), runs(ctx, conf.DataDir), func(s federation.CheckStep) {
		mark := "ok  "
		if !s.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(c.out, "%s  %-11s  %s: %s\n", mark, s.Topic, s.Did, s.Found)
		if s.Fix != "" {
			fmt.Fprintf(c.out, "%19sfix: %s\n", "", s.Fix)
		}
	})
	if !well {
		return fmt.Errorf("something is wrong between us and %.255q; the lines marked FAIL say what", rest[0])
	}
	fmt.Fprintf(c.out, "All is well between %s and %s, in both directions.\n", conf.ServerName, rest[0])
	return nil
}

// runs reports whether our own server runs on this machine.
func runs(ctx context.Context, dataDir string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", operatorSocket(dataDir))
	if err != nil {
		return false
	}
	_ = conn.Close() // it has shown what was asked
	return true
}
