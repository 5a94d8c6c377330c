#!/usr/bin/env bash
# Runs the Go benchmarks with a private PostgreSQL cluster beside them. BENCH narrows them by a pattern.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_go
find_postgres >/dev/null || die "PostgreSQL 15 or newer is missing (Debian: apt-get install postgresql)."
packages=$(git grep -lE '^func Benchmark' -- '*_test.go' | xargs -r -n1 dirname | sort -u | sed 's#^#./#')
[ -n "$packages" ] || die "There is no benchmark."
# shellcheck disable=SC2086
exec go run ./internal/testserver/dbtest/pgrun -- go test -run '^$' -bench "${BENCH:-.}" -benchmem -p 1 $packages
