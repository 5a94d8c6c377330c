package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/store"
)

func userCommand() command {
	return command{
		name: "user", args: "create NAME [-password-file F] [-admin] | list | reset-password NAME [-password-file F] | reset-2fa NAME | link NAME -subject SUB | unlink NAME | deactivate NAME [-erase], each with [-config FILE]",
		does: "makes, lists and closes accounts and says who of the organization's sign-in they belong to, whether the server runs or not; without a file it makes up a password and prints it",
		run:  runUser,
	}
}

// userFlags are what a command about users was given.
type userFlags struct {
	config, passwordFile string
	admin, erase         bool
	name, subject        string
}

// parseUser reads flags before and after the name, as people write them.
func parseUser(c console, action string, args []string) (f userFlags, err error) {
	named := action != "list"
	set := flag.NewFlagSet("user "+action, flag.ContinueOnError)
	set.StringVar(&f.config, "config", "config.yaml", "the configuration `file`")
	if action == "create" || action == "reset-password" {
		set.StringVar(&f.passwordFile, "password-file", "", "the `file` whose first line is the password; - is standard input")
	}
	if action == "create" {
		set.BoolVar(&f.admin, "admin", false, "make the account an administrator's")
	}
	if action == "deactivate" {
		set.BoolVar(&f.erase, "erase", false, "erase what the user has left: profile, files, settings, and for all who come later messages")
	}
	if action == "link" {
		set.StringVar(&f.subject, "subject", "", "what the provider calls the owner: the claim `sub`")
	}
	rest, err := parse(c, set, args, 0, len(args))
	if err != nil {
		return f, err
	}
	if named && len(rest) > 0 {
		f.name = rest[0]
		if rest, err = parse(c, set, rest[1:], 0, 0); err != nil {
			return f, err
		}
	}
	switch {
	case named && f.name == "":
		return f, usageError{"the name is missing"}
	case len(rest) > 0:
		return f, usageError{fmt.Sprintf("unexpected argument %q", rest[0])}
	}
	return f, nil
}

func runUser(ctx context.Context, c console, args []string) error {
	if len(args) == 0 {
		return usageError{"say create, list, reset-password, reset-2fa, link, unlink or deactivate"}
	}
	action := args[0]
	switch action {
	case "create", "list", "reset-password", "reset-2fa", "link", "unlink", "deactivate":
	default:
		return usageError{fmt.Sprintf("there is no user %s", action)}
	}
	f, err := parseUser(c, action, args[1:])
	if err != nil {
		return err
	}
	conf, err := config.Load(f.config, c.environ)
	if err != nil {
		return err
	}
	ask, done := asking(conf, c)
	if action == "list" {
		return errors.Join(listUsers(ctx, c, ask), done())
	}
	return errors.Join(changeUser(ctx, c, conf, action, f, ask), done())
}

// changeUser carries out a command about one account and says what came of it.
func changeUser(ctx context.Context, c console, conf *config.Config, action string, f userFlags, ask asker) error {
	q := userRequest{Action: action, Name: f.name, Admin: f.admin, Erase: f.erase, Subject: f.subject}
	if action == "create" {
		q.Name = strings.TrimSuffix(strings.TrimPrefix(f.name, "@"), ":"+conf.ServerName)
	} else if !strings.HasPrefix(f.name, "@") {
		q.Name = "@" + f.name + ":" + conf.ServerName
	}
	made := false
	if action == "create" || action == "reset-password" {
		var err error
		if q.Password, made, err = choosePassword(c, f.passwordFile); err != nil {
			return err
		}
	}
	a, err := ask(ctx, q)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s %s\n", a.UserID, map[string]string{
		"create": "is made", "reset-password": "has a new password and is logged out everywhere",
		"reset-2fa": "has no second factor any more; its password and sessions are as they were",
		"link":      "signs in by the organization's sign-in from now on", "unlink": "does not sign in by the organization's sign-in any more and is logged out everywhere; its second factors and addresses are as they were",
		"deactivate": "is deactivated",
	}[action])
	if made {
		fmt.Fprintf(c.out, "password: %s\n", q.Password)
	}
	return nil
}

func listUsers(ctx context.Context, c console, ask asker) error {
	after := ""
	for {
		a, err := ask(ctx, userRequest{Action: "list", After: after})
		if err != nil || len(a.Users) == 0 {
			return err
		}
		for _, u := range a.Users {
			line := u.UserID + "\t" + time.UnixMilli(u.Created).UTC().Format(time.DateOnly)
			if u.Admin {
				line += "\tadmin"
			}
			if u.Deactivated {
				line += "\tdeactivated"
			}
			fmt.Fprintln(c.out, line)
		}
		after = matrix.UserID(a.Users[len(a.Users)-1].UserID).Localpart()
	}
}

// choosePassword reads a password, or makes one up that nobody guesses.
func choosePassword(c console, file string) (password string, made bool, err error) {
	if file == "" {
		return strings.ToLower(rand.Text()), true, nil
	}
	in := c.in
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the operator names it
		if err != nil {
			return "", false, fmt.Errorf("reading the password: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false, fmt.Errorf("reading the password: %w", err)
	}
	password = strings.TrimRight(line, "\r\n")
	return password, false, accounts.CheckPassword(password)
}

// asker carries out one command.
type asker func(context.Context, userRequest) (userAnswer, error)

// asking makes an asker: the running server, or the database itself where no server runs. done ends it.
func asking(conf *config.Config, c console) (ask asker, done func() error) {
	var own *operator // once the database is open
	ask = func(ctx context.Context, q userRequest) (userAnswer, error) {
		if own == nil {
			a, err := askServer(ctx, conf.DataDir, q)
			if !errors.Is(err, errNotRunning) {
				return a, err
			}
			opened, err := openOperator(ctx, conf, c)
			if err != nil {
				// Perhaps a server holds the database that was only starting a moment ago.
				if a, again := askServer(ctx, conf.DataDir, q); !errors.Is(again, errNotRunning) {
					return a, again
				}
				return a, err
			}
			own = opened
		}
		a, err := own.do(ctx, q)
		var known *matrix.Error
		if errors.As(err, &known) && known.Cause == nil {
			err = errors.New(known.Text)
		}
		return a, err
	}
	return ask, func() error {
		if own == nil {
			return nil
		}
		return own.db.Close()
	}
}

// openOperator opens the database of a stopped server.
func openOperator(ctx context.Context, conf *config.Config, c console) (*operator, error) {
	if _, err := config.EnsureDataDir(conf.DataDir); err != nil {
		return nil, err
	}
	log, err := observe.NewLogger(c.err, "warn", conf.Log.Format)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Options{URL: conf.Database.URL.Reveal(), DataDir: conf.DataDir, Logger: log})
	if err != nil {
		return nil, err
	}
	return &operator{db, accounts.New(accounts.Options{
		DB: db, Server: matrix.ServerName(conf.ServerName), Config: conf, Bus: cluster.NewLocal(), Log: log,
	})}, nil
}
