package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"
)

func restoredCommand() command {
	return command{
		name: "restored", args: "-config FILE",
		does: "tells a stopped server's database that it was put back from a backup, before the server starts again",
		run:  runRestored,
	}
}

// runRestored begins a new generation of a database.
func runRestored(ctx context.Context, c console, args []string) (err error) {
	set := flag.NewFlagSet("restored", flag.ContinueOnError)
	file := set.String("config", "", "the configuration `file`")
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	_, _, db, err := openAsIs(ctx, c, *file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	done, err := db.Restored(ctx, time.Now().UnixMilli())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "The database begins anew where its backup ends: every client starts afresh, %d one-time keys are dropped, %d device lists are to be fetched again.\n",
		done.OneTimeKeys, done.Lists)
	return nil
}
