//go:build unix

package dbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a PostgreSQL cluster in a temporary folder, reached by a socket in it.
type Cluster struct {
	URL string

	dir    string
	server *exec.Cmd
	ended  chan struct{} // closed when the server has ended
}

// superuser is the name of the cluster's user; whoever may reach the socket is let in.
const superuser = "conclave"

// StartCluster makes a cluster and starts it. PostgreSQL refuses to run as root; it then runs as its own user, or as
// nobody.
func StartCluster(ctx context.Context, fsync bool) (*Cluster, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	parent := ""
	if !fsync {
		parent = memoryDir()
	}
	dir, err := os.MkdirTemp(parent, "conclave-pg-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, ended: make(chan struct{})}
	if err := c.start(ctx, bin, fsync); err != nil {
		_ = c.Stop()
		return nil, fmt.Errorf("starting PostgreSQL for the tests: %w", err)
	}
	return c, nil
}

// findPostgres is the folder of the newest PostgreSQL, 15 or newer.
func findPostgres() (string, error) {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	best, newest := "", 14
	for _, dir := range dirs {
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		digits := bytes.FieldsFunc(out, func(r rune) bool { return r < '0' || r > '9' })
		if len(digits) == 0 {
			continue
		}
		if version, _ := strconv.Atoi(string(digits[0])); version > newest {
			best, newest = dir, version
		}
	}
	if best == "" {
		return "", errors.New("the tests need PostgreSQL 15 or newer (initdb and postgres), in PATH or where Debian puts it")
	}
	return best, nil
}

// credential is whom the server runs as, nil for ourselves.
func credential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func (c *Cluster) start(ctx context.Context, bin string, fsync bool) error {
	as, err := credential()
	if err != nil {
		return err
	}
	if as != nil {
		if err := os.Chown(c.dir, int(as.Uid), int(as.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(c.dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = c.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setsid: true} // a Ctrl-C is for those who use it
		return cmd
	}
	initdb := command("initdb", "-D", data, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	on := "off"
	if fsync {
		on = "on"
	}
	args := []string{"-D", data, "-k", c.dir, "-h", "", "-p", "5432", "-F"}
	if fsync {
		args = args[:len(args)-1]
	}
	for _, setting := range []string{
		"full_page_writes=" + on, "max_connections=300", "shared_buffers=128MB", "max_wal_size=1GB", "checkpoint_timeout=30min",
		"logging_collector=off", "autovacuum_naptime=10min",
	} {
		args = append(args, "-c", setting)
	}
	c.server = command("postgres", args...)
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	c.server.Stdout, c.server.Stderr = log, log
	if err := c.server.Start(); err != nil {
		return err
	}
	go func() {
		_ = c.server.Wait()
		close(c.ended)
	}()
	c.URL = (&url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/postgres", RawQuery: url.Values{"host": {c.dir}, "port": {"5432"}}.Encode()}).String()
	return c.wait(ctx)
}

// wait returns when the server answers.
func (c *Cluster) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, c.URL)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.ended:
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("it ended at once:\n%s", log)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server and removes the cluster.
func (c *Cluster) Stop() error {
	if c.server != nil && c.server.Process != nil {
		if err := c.server.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) { // "fast"
			return err
		}
		select {
		case <-c.ended:
		case <-time.After(15 * time.Second):
			_ = c.server.Process.Signal(syscall.SIGQUIT)
			<-c.ended
		}
	}
	return os.RemoveAll(c.dir)
}

// RunWith runs a command with a cluster in its environment, passes signals on to it, and returns its exit code.
func RunWith(ctx context.Context, args []string) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	c, err := StartCluster(ctx, os.Getenv("CONCLAVE_TEST_FSYNC") != "")
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), Env+"="+c.URL)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, errors.Join(err, c.Stop())
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
		if code < 0 { // ended by a signal
			code = 1
		}
	}
	return code, errors.Join(err, c.Stop())
}
