package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func devCommand() command {
	return command{
		name: "dev", args: "[-dir D]",
		does: "runs two federating servers on this machine, with people to sign in as; for trying out and developing",
		run:  runDev,
	}
}

// runDev runs both servers until ctx ends. Without a directory everything is gone afterwards.
func runDev(ctx context.Context, c console, args []string) (err error) {
	set := flag.NewFlagSet("dev", flag.ContinueOnError)
	dir := set.String("dir", "", "the `directory` that keeps both servers; a temporary one if empty")
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "conclave-dev-"); err != nil {
			return fmt.Errorf("making a temporary directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	}
	pair, err := openPair(*dir)
	if err != nil {
		return err
	}
	return pair.run(ctx, c)
}

// run starts the servers, makes their users, says what to open, and ends the servers when ctx ends or one of them does.
func (p *pair) run(ctx context.Context, c console) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	if err := p.catch(ctx); err != nil {
		return err
	}
	var children []*child
	defer func() {
		cancel(nil)
		for _, started := range children {
			err = errors.Join(err, started.wait())
		}
	}()
	for _, s := range p.Servers {
		started, err := startChild(ctx, cancel, executable, filepath.Join(p.dir, s.User), append(withoutSettings(c.environ), p.mail.environ()...))
		if err != nil {
			return err
		}
		children = append(children, started)
	}
	for _, s := range p.Servers {
		if err := s.prepare(ctx); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return ended(cause)
			}
			return err
		}
	}
	p.show(c.out)
	<-ctx.Done()
	return ended(context.Cause(ctx))
}

// ended is the error of a cause to end; being told to is none.
func ended(cause error) error {
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// show says what to open.
func (p *pair) show(out io.Writer) {
	for _, s := range p.Servers {
		fmt.Fprintf(out, "%s  user %s  password %s  (%s)\n", s.url(), s.User, s.Password, s.userID())
	}
	fmt.Fprintf(out, "Mail that they send goes nowhere and is shown at %s\n", p.mail.url)
	fmt.Fprintf(out, "The two servers federate: let @%s invite %s. Logs and data are in %s; Ctrl-C ends both.\n", p.Servers[0].User, p.Servers[1].userID(), p.dir)
}

// child is a server that runs as a process of its own.
type child struct {
	cmd  *exec.Cmd
	dir  string
	done chan struct{}
	err  error // how it ended; read after done
}

// startChild starts `serve`. When ctx ends it is told to drain; when it ends by itself, failed is called.
func startChild(ctx context.Context, failed context.CancelCauseFunc, executable, dir string, environ []string) (*child, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a server's log: %w", err)
	}
	defer log.Close()                                                                                  //nolint:errcheck // the process has a handle of its own
	cmd := exec.CommandContext(ctx, executable, "serve", "-config", filepath.Join(dir, "config.yaml")) //nolint:gosec // this very executable
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, log, log
	// In a group of its own: Ctrl-C in a terminal reaches a whole group, and a server's second signal stops it at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = drainTime + 5*time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a server: %w", err)
	}
	c := &child{cmd: cmd, dir: dir, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		err := cmd.Wait()
		if ctx.Err() == nil {
			failed(fmt.Errorf("the server in %s ended: %s", dir, c.lastLine()))
		} else if code := cmd.ProcessState.ExitCode(); code != 0 {
			c.err = fmt.Errorf("the server in %s did not end well: %w", dir, err)
		}
	}()
	return c, nil
}

// withoutSettings drops the variables that would override the configurations of both servers alike.
func withoutSettings(environ []string) []string {
	var rest []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "CONCLAVE_") {
			rest = append(rest, variable)
		}
	}
	return rest
}

// wait waits until the process has ended.
func (c *child) wait() error {
	<-c.done
	return c.err
}

// lastLine is the last that a server logged, which says why it ended.
func (c *child) lastLine() string {
	text, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// startTime is how long a server may take until it answers.
const startTime = time.Minute

// prepare waits until the server answers and makes its user, if there is none yet.
func (s *devServer) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		status, _, err := s.request(ctx, http.MethodGet, "/_matrix/client/versions", nil)
		if err == nil && status == http.StatusOK {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer", s.url())
		case <-time.After(20 * time.Millisecond):
		}
	}
	status, answer, err := s.request(ctx, http.MethodPost, "/_matrix/client/v3/register", map[string]any{
		"username": s.User, "password": s.Password, "inhibit_login": true, "auth": map[string]string{"type": "m.login.dummy"},
	})
	var refusal struct {
		Code string `json:"errcode"`
	}
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return nil
	case json.Unmarshal(answer, &refusal) == nil && refusal.Code == "M_USER_IN_USE": // by an earlier start
		return nil
	}
	return fmt.Errorf("%s refuses to make %s: %d %s", s.url(), s.User, status, refusal.Code)
}

// request asks the server's client API.
func (s *devServer) request(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url()+path, reader)
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	answer, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, answer, err
}
