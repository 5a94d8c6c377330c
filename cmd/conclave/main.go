// Command conclave is the whole server in one executable: a Matrix homeserver with its browser client.
//
// main.go holds the table of commands and what they share; each command stands in a file of its own.
// Everything else of Conclave is constructed and wired here, so this package may know every other one and
// none knows it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// console is what a command has of the process: tests hand in their own.
type console struct {
	in      io.Reader
	out     io.Writer // results
	err     io.Writer // errors, warnings, usage
	environ []string  // as os.Environ gives it
}

// command is one entry of the table.
type command struct {
	name string // "serve"
	args string // its arguments, for the usage
	does string // one line
	// run gets the arguments after the name. Its error is printed as one line and ends the process with
	// code 1, or 2 where it is a usageError. ctx ends at the first SIGINT or SIGTERM.
	run func(ctx context.Context, c console, args []string) error
}

// commands is the table, in the order in which a newcomer needs them.
func commands() []command {
	return []command{
		serveCommand(),
		initCommand(),
		devCommand(),
		configCommand(),
		userCommand(),
		auditCommand(),
		keysCommand(),
		verifyCommand(),
		federationCommand(),
		restoredCommand(),
		versionCommand(),
	}
}

// usageError is a wrong call, as opposed to a right one that failed.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back: the second one stops the process at once.
	context.AfterFunc(ctx, stop)
	code := dispatch(ctx, console{os.Stdin, os.Stdout, os.Stderr, os.Environ()}, os.Args[1:])
	stop()
	os.Exit(code)
}

// dispatch runs the command that the arguments name and returns the exit code.
func dispatch(ctx context.Context, c console, args []string) int {
	if len(args) == 0 {
		usage(c.err)
		return 2
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(c.out)
		return 0
	}
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			return exitCode(c, cmd, cmd.run(ctx, c, args[1:]))
		}
	}
	fmt.Fprintf(c.err, "conclave: there is no command %q; conclave help lists them\n", args[0])
	return 2
}

// exitCode prints an error as one line.
func exitCode(c console, cmd command, err error) int {
	var wrong usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(c.err, "conclave: %s\nusage: conclave %s\n", oneLine(err), strings.TrimSpace(cmd.name+" "+cmd.args))
		return 2
	default:
		fmt.Fprintf(c.err, "conclave: %s\n", oneLine(err))
		return 1
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func usage(w io.Writer) {
	fmt.Fprintln(w, "Conclave is a Matrix homeserver with its browser client.")
	fmt.Fprintln(w)
	for _, cmd := range commands() {
		fmt.Fprintf(w, "  conclave %s\n        %s\n", strings.TrimSpace(cmd.name+" "+cmd.args), cmd.does)
	}
}

// parse reads a command's flags. It returns the remaining arguments, which must be between least and most;
// a wrong call comes back as a usageError, a call for help as flag.ErrHelp after the flags were printed.
func parse(c console, set *flag.FlagSet, args []string, least, most int) ([]string, error) {
	set.SetOutput(io.Discard)
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		set.SetOutput(c.out)
		set.PrintDefaults()
		return nil, err
	} else if err != nil {
		return nil, usageError{err.Error()}
	}
	switch rest := set.Args(); {
	case len(rest) < least:
		return nil, usageError{"an argument is missing"}
	case len(rest) > most:
		return nil, usageError{fmt.Sprintf("unexpected argument %q", rest[most])}
	default:
		return rest, nil
	}
}
