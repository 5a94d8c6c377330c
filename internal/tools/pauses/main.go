// Command pauses runs a command and lets random processes below it stand still for a while, one after the other, as on a machine
// that has other things to do. What fails then and not without it either counts on the time that something takes, or has
// a fault that shows in one order of things only.
//
//	pauses [-most 700ms] [-only REGEXP] COMMAND [ARGUMENTS]
//
// Only processes whose command line matches are stopped: programs of Go tests and our server, if nothing else is said.
// It reads /proc, and so works on Linux.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// least is the shortest time that a process stands still, and the longest that passes between two of them.
const (
	least = 50 * time.Millisecond
	apart = 400 * time.Millisecond
)

func main() {
	most := flag.Duration("most", 700*time.Millisecond, "the longest time that a process stands still")
	only := flag.String("only", `\.test( |$)|/conclave[^/ ]* `, "which processes are stopped, by their command line")
	flag.Parse()
	code, err := run(flag.Args(), *most, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pauses:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the command to its end, and says how it ended.
func run(command []string, most time.Duration, only string) (code int, err error) {
	choice, err := regexp.Compile(only)
	if err != nil {
		return 0, err
	}
	if len(command) == 0 || most <= least {
		return 0, fmt.Errorf("usage: pauses [-most more than %s] [-only REGEXP] COMMAND [ARGUMENTS]", least)
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // it is what was asked for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return exit.ExitCode(), nil
			}
			return 0, err
		case <-time.After(rand.N(apart)):
			pause(cmd.Process.Pid, least+rand.N(most-least), choice)
		}
	}
}

// pause lets one process below root stand still.
func pause(root int, how time.Duration, choice *regexp.Regexp) {
	all := below(root, choice)
	if len(all) == 0 {
		return
	}
	pid := all[rand.IntN(len(all))]
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return // it has ended
	}
	time.Sleep(how)
	_ = syscall.Kill(pid, syscall.SIGCONT)
}

// below are the processes whose command lines match, among root and those that it and they have started.
func below(root int, choice *regexp.Regexp) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") //nolint:errcheck // the pattern is right
	children := map[int][]int{}
	for _, stat := range stats {
		text, err := os.ReadFile(filepath.Clean(stat))
		if err != nil {
			continue // it has ended
		}
		pid, _, _ := strings.Cut(string(text), " ")
		rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // the name may have any characters
		if len(rest) < 2 {
			continue
		}
		child, _ := strconv.Atoi(pid)
		parent, _ := strconv.Atoi(rest[1])
		children[parent] = append(children[parent], child)
	}
	for all := []int{root}; len(all) > 0; all = all[1:] {
		all = append(all, children[all[0]]...)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", all[0]))
		if err == nil && choice.MatchString(strings.ReplaceAll(string(line), "\x00", " ")) {
			found = append(found, all[0])
		}
	}
	return found
}
