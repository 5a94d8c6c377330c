package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/media"
	"conclave/rooms"
)

func verifyCommand() command {
	return command{
		name: "verify", args: "-config FILE [-full | -partners [-room ID] [-repair]]",
		does: "checks the database of a stopped server; one line when it is sound, else what is wrong with it. -partners has the running server compare its rooms with other servers, -repair ask for what is missing",
		run:  runVerify,
	}
}

// openAsIs opens the database of a server that is stopped, without changing it.
func openAsIs(ctx context.Context, c console, file string) (*config.Config, *slog.Logger, *store.DB, error) {
	conf, log, err := loadConfig(c, file)
	if err != nil {
		return nil, nil, nil, err
	}
	db, err := store.Open(ctx, store.Options{URL: conf.Database.URL.Reveal(), DataDir: conf.DataDir, Logger: log, AsIs: true})
	return conf, log, db, err
}

// How much verify prints: a broken disk can break everything.
const (
	maxPerRule  = 20
	maxFindings = 200
)

// runVerify checks the invariants of a database, without changing it. -full also reads every event and every state.
func runVerify(ctx context.Context, c console, args []string) (err error) {
	set := flag.NewFlagSet("verify", flag.ContinueOnError)
	file := set.String("config", "", "the configuration `file`")
	full := set.Bool("full", false, "also check the text of every event and every state")
	partners := set.Bool("partners", false, "compare the ends and the state of rooms with the other servers in them; the server has to run")
	room := set.String("room", "", "with -partners: the `ID` of the one room to compare, with all its servers")
	repair := set.Bool("repair", false, "with -partners: ask for events that others have and we lack")
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	if *partners {
		if *full {
			return usageError{"-full needs a stopped server and -partners one that runs: say one after the other"}
		}
		conf, _, err := loadConfig(c, *file)
		if err != nil {
			return err
		}
		return comparePartners(ctx, c, conf.DataDir, compareRequest{Room: matrix.RoomID(*room), Repair: *repair})
	}
	if *room != "" || *repair {
		return usageError{"-room and -repair go with -partners"}
	}
	conf, log, db, err := openAsIs(ctx, c, *file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	list := &findings{perRule: map[string]int{}, print: func(f store.Finding) { fmt.Fprintf(c.out, "%s: %s\n", f.Rule, f.Text) }}
	// The domain over the database alone: it has no key and nobody to talk to, and sends nothing.
	domain, err := rooms.New(ctx, rooms.Options{DB: db, Identity: rooms.Identity{Name: matrix.ServerName(conf.ServerName)}, Bus: cluster.NewLocal(), Log: log})
	if err != nil {
		return err
	}
	seen, err := domain.Verify(ctx, *full, list.add)
	if err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	files, err := media.Verify(ctx, db, conf, log, *full, list.add)
	if err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	if list.total > 0 {
		return fmt.Errorf("the database contradicts itself: %d findings, %d of them printed", list.total, list.printed)
	}
	looked := fmt.Sprintf("%d rooms, %d media files", seen.Rooms, files)
	if *full {
		looked += fmt.Sprintf(", %d events, %d nodes of states", seen.Events, seen.Nodes)
	}
	fmt.Fprintf(c.out, "The database is sound: %s checked.\n", looked)
	return nil
}

// findings counts what is reported and prints a bounded part of it.
type findings struct {
	perRule        map[string]int
	total, printed int
	print          func(store.Finding)
}

func (l *findings) add(f store.Finding) {
	l.total++
	l.perRule[f.Rule]++
	if l.perRule[f.Rule] <= maxPerRule && l.printed < maxFindings {
		l.printed++
		l.print(f)
	}
}
