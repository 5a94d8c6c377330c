package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Stamped by the linker (internal/tools/build.sh); empty in a plain `go build`.
var (
	stampedVersion string // git describe
	stampedCommit  string
)

// build says which Conclave this is.
type build struct{ Version, Commit, Go string }

// thisBuild reads the stamp, or else what the Go toolchain recorded.
func thisBuild() build {
	b := build{Version: stampedVersion, Commit: stampedCommit, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	if b.Commit == "" {
		b.Commit = "unknown"
	}
	if b.Version == "" {
		b.Version = "unstamped"
	}
	return b
}

func versionCommand() command {
	return command{name: "version", does: "version, commit, Go version", run: runVersion}
}

func runVersion(_ context.Context, c console, args []string) error {
	if _, err := parse(c, flag.NewFlagSet("version", flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	b := thisBuild()
	fmt.Fprintf(c.out, "conclave %s (commit %s, %s, %s/%s)\n", b.Version, b.Commit, b.Go, runtime.GOOS, runtime.GOARCH)
	return nil
}
