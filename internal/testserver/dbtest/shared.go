//go:build unix

package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The shared cluster of a machine: a folder with three files. "users" is locked by every process that uses the cluster,
// shared; its keeper waits for the day when nobody does. "start" is locked by whoever starts one. "url" is there while
// the cluster is.
const (
	usersFile = "users"
	startFile = "start"
	urlFile   = "url"
)

// keeperEnv tells a test's program that it is to keep a cluster, in the folder named, instead of testing.
const keeperEnv = "CONCLAVE_DBTEST_KEEPER"

// idle is how long a shared cluster outlives its last user.
const idle = 20 * time.Second

// A test's program is run again as the keeper: it is the only program that is certainly there.
func init() {
	dir := os.Getenv(keeperEnv)
	if dir == "" {
		return
	}
	if err := keep(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// membership is this process's part in the shared cluster.
type membership struct {
	url   string
	users *os.File // whoever has it locked is a user; it stays open until the process ends
}

var shared = sync.OnceValues(joinShared)

// clusterURL is that of the cluster for this run.
func clusterURL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv(Env); url != "" {
		return url
	}
	m, err := shared()
	if err != nil {
		t.Fatalf("no PostgreSQL for the tests: %v", err)
	}
	return m.url
}

// joinShared becomes a user of the machine's cluster for as long as this process lives, and starts one if need be.
func joinShared() (m membership, err error) {
	dir, err := sharedDir()
	if err != nil {
		return m, err
	}
	start, err := lockFile(filepath.Join(dir, startFile), syscall.LOCK_EX)
	if err != nil {
		return m, err
	}
	defer func() { _ = start.Close() }()
	if m.users, err = lockFile(filepath.Join(dir, usersFile), syscall.LOCK_SH); err != nil {
		return m, err
	}
	if url, err := os.ReadFile(filepath.Join(dir, urlFile)); err == nil && alive(string(url)) {
		m.url = string(url)
		return m, nil
	}
	m.url, err = startKeeper(dir)
	return m, err
}

// sharedDir is the folder, which nobody else may have put there.
func sharedDir() (string, error) {
	suffix := ""
	if os.Getenv("CONCLAVE_TEST_FSYNC") != "" {
		suffix = "-fsync"
	}
	dir := filepath.Join(os.TempDir(), "conclave-dbtest-"+strconv.Itoa(os.Getuid())+suffix)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s is not a folder of our own", dir)
	}
	return dir, nil
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

func alive(url string) bool {
	c := Cluster{URL: url, ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second) // a busy one is not to be taken for dead
	defer cancel()
	return c.wait(ctx) == nil
}

// startKeeper starts this program again, away from the terminal and the pipes of "go test", and waits for its cluster.
func startKeeper(dir string) (string, error) {
	path := filepath.Join(dir, urlFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), keeperEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if url, err := os.ReadFile(path); err == nil {
			return string(url), nil
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			return "", fmt.Errorf("%w\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return "", errors.New("a PostgreSQL cluster did not start within a minute")
}

// keep runs a cluster until nobody has used it for a while.
func keep(dir string) error {
	c, err := StartCluster(context.Background(), os.Getenv("CONCLAVE_TEST_FSYNC") != "")
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }()
	path := filepath.Join(dir, urlFile)
	if err := os.WriteFile(path+".new", []byte(c.URL), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	for {
		// Granted when the last user has ended. Who comes next waits for it, so it is held only to look.
		users, err := lockFile(filepath.Join(dir, usersFile), syscall.LOCK_EX)
		if err != nil {
			return err
		}
		if err := users.Close(); err != nil {
			return err
		}
		time.Sleep(idle)
		users, err = lockFile(filepath.Join(dir, usersFile), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return err
		}
		err = errors.Join(os.Remove(path), c.Stop())
		return errors.Join(err, users.Close())
	}
}
