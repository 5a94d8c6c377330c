#!/usr/bin/env bash
# Says how much of the specification the tests exercise (make coverage), and writes docs/spec/coverage.md. It uses the
# record of the last test run of this tree; where there is none, or sources are newer, the Go tests run first.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

record=$PWD/bin/test-record
need_go
if [ ! -s "$record" ] || [ -n "$(git ls-files -- '*.go' '*.sql' go.mod | xargs -r -d '\n' ls -1dt "$record" 2>/dev/null | head -n 1 | grep -vxF "$record")" ]; then
	need_test_tools
	mkdir -p bin
	fresh=$(mktemp)
	trap 'rm -f "$fresh"' EXIT
	say "no record of a test run of these sources: running the Go tests"
	CONCLAVE_TEST_RECORD=$fresh go run ./internal/testserver/dbtest/pgrun -- go test -count 1 -p 2 -timeout 30m ./... | grep -vE '^ok|no test files' || true
	mv "$fresh" "$record"
fi
exec go run ./internal/tools/coverage -record "$record" "$@"
