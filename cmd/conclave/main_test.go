package main

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// call runs a command line as the process would and returns its exit code and outputs.
func call(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = dispatch(context.Background(), console{strings.NewReader(""), &out, &err, nil}, args)
	return code, out.String(), err.String()
}

func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", 2, "", "conclave config"},
		{"help", 0, "conclave init", ""},
		{"dance", 2, "", `no command "dance"`},
		{"version", 0, "conclave ", ""},
		{"version now", 2, "", `unexpected argument "now"`},
		{"version -h", 0, "", ""},
		{"init -h", 0, "-server-name", ""},
		{"init -colour red", 2, "", "usage: conclave init"},
		{"config", 2, "", "say print or check"},
		{"config burn", 2, "", "no config burn"},
		{"config print", 0, "server_name:", ""},
		{"config check -config /nowhere/at/all.yaml", 1, "", "/nowhere/at/all.yaml"},
	} {
		code, stdout, stderr := call(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("conclave %s: code %d, out %q, err %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
		if code == 1 && strings.Count(stderr, "\n") != 1 {
			t.Errorf("conclave %s: an error must be one line, got %q", c.args, stderr)
		}
	}
}

func TestInitThenCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	code, stdout, stderr := call("init", "-dir", dir, "-server-name", "example.org")
	if code != 0 || !strings.Contains(stdout, "conclave serve -config "+filepath.Join(dir, "config.yaml")) {
		t.Fatalf("init: code %d, out %q, err %q", code, stdout, stderr)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %#o, want nothing for others", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr = call("config", "check", "-config", filepath.Join(dir, "config.yaml")); code != 0 || !strings.Contains(stdout, "valid for example.org") {
		t.Errorf("config check: code %d, out %q, err %q", code, stdout, stderr)
	}
	if code, _, stderr = call("init", "-dir", dir, "-server-name", "example.org"); code != 1 || !strings.Contains(stderr, "exists") {
		t.Errorf("second init: code %d, err %q; want a refusal to overwrite", code, stderr)
	}
}

func TestListen(t *testing.T) {
	first, err := listen("listen.client", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for _, c := range []struct{ address, want string }{
		{first.Addr().String(), "another program uses this port"},
		{net.JoinHostPort("192.0.2.1", "0"), "this machine does not have the address"},
		{"127.0.0.1:http-ish", "check listen.client"},
	} {
		l, err := listen("listen.client", c.address)
		if err == nil {
			l.Close()
			t.Errorf("listening on %s succeeded", c.address)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("listening on %s: %v, want %q", c.address, err, c.want)
		}
	}
}
