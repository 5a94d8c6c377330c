#!/usr/bin/env bash
# Runs every test. `test.sh` is the short form (make test), `test.sh long` the long one (make test-long):
# all seeds, random graphs and kills, each fuzz target for a minute, and a new machine in a chroot.
#
# What the machine lacks is installed, or named where this user may not install it; nothing is skipped.
# The tests that need PostgreSQL find a private cluster in CONCLAVE_TEST_POSTGRES, which pgrun starts and
# removes. Each step runs whatever became of the one before it; the last line sums up.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

form=${1:-short}
work=${CONCLAVE_TEST_WORK:-}

# Packages without goroutines of their own: the race detector would find nothing in them and make the
# random graphs and fuzz corpora ten times slower.
pure='^conclave/(internal/matrix(/.*)?|keys/sealed|internal/tools/.*)$'

# step runs a command, prints how long it took and keeps its result for the summary.
step() {
	local name=$1 started=$SECONDS result=ok
	shift
	printf "\n== %s\n" "$name"
	"$@" || result=FAILED
	printf '%-8s %5d s  %s\n' "$result" $((SECONDS - started)) "$name" | tee -a "$work/summary"
}


# Three packages at once on two processors: the tests of whole servers mostly wait for each other's clocks.
gotest() { "$work/gotest" -counts "$work/counts" -count 1 -p 3 -timeout "$limit" "$@"; }

plain_tests() { gotest $(go list ./... | grep -E "$pure"); }

# race_tests build the executable that whole servers are run from once, instead of in each package. Servers on PostgreSQL
# are run from the one that is shipped: to watch both for races would cost minutes and show the same code twice.
#
# SQLite, translated from C, is not watched: ten times slower it took most of the run, and what it does between its locks is
# nobody's code here. What goes in and comes out is. The detector's wait of a second at each end finds nothing either.
race_tests() {
	export CGO_ENABLED=1 GORACE=atexit_sleep_ms=50
	export GOFLAGS="${GOFLAGS:-} -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false"
	go build -race -o "$work/conclave-race" ./cmd/conclave || return 1
	# The longest first, so that none of them is left to run alone at the end.
	local longest="conclave/rooms conclave/federation conclave/clientapi conclave/internal/accounts conclave/cmd/conclave conclave/internal/store"
	CONCLAVE_TEST_BINARY=$work/conclave-race CONCLAVE_TEST_PLAIN_BINARY=$PWD/bin/conclave gotest -race -parallel 4 $longest $(go list ./... | grep -vE "$pure" | grep -vxF "${longest// /$'\n'}")
}

# failpoint_tests are those that only exist with the build tag: kills at named points around a commit.
failpoint_tests() {
	local files tests
	files=$(git grep -lE '^//go:build .*failpoints' -- '*_test.go')
	tests=$(grep -hoE '^func Test[A-Za-z0-9_]+' $files | sed 's/^func //' | paste -sd '|')
	gotest -tags failpoints -run "^($tests)\$" $(printf '%s\n' $files | xargs -n1 dirname | sort -u | sed 's#^#./#')
}

# web_tests runs a script of the client's package and counts what its reporter wrote.
web_tests() {
	local report=$work/$1.json code=0
	TEST_REPORT=$report npm --prefix web run --silent "$1" || code=$?
	node -e 'const r = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8")); console.log(r.numPassedTests, r.numFailedTests)' "$report" >>"$work/counts" || code=1
	return "$code"
}

# coverage compares what the tests just exercised with what docs/spec/coverage.md says of them, and leaves the record for
# make coverage.
coverage() {
	mkdir -p bin && cp "$CONCLAVE_TEST_RECORD" bin/test-record
	go run ./internal/tools/coverage -record "$CONCLAVE_TEST_RECORD" -check
}

# fuzz runs every fuzz target of the module for a minute each.
fuzz() {
	local package target targets code=0
	for package in $(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -r -n1 dirname | sort -u); do
		targets=$(go test -list '^Fuzz' "./$package" | grep '^Fuzz') || code=1
		for target in $targets; do
			say "fuzzing $package $target"
			go test -run '^$' -fuzz "^$target\$" -fuzztime "${CONCLAVE_FUZZ_TIME:-60s}" -parallel 2 "./$package" || code=1
		done
	done
	return "$code"
}

# inside is what needs the cluster.
inside() {
	step "Go tests, pure packages" plain_tests
	step "Go tests with the race detector" race_tests
	step "Go tests with failpoints" failpoint_tests
	step "tests in two browsers" web_tests e2e
}

case $form in
short) limit=30m ;; # of a package, of which the longest takes six minutes on two processors
long) limit=6h; export CONCLAVE_LONG=1 ;;
inside) limit=$CONCLAVE_TEST_LIMIT; inside; exit ;;
*) die "usage: test.sh [short|long]" ;;
esac

need_go
need_node
need_test_tools
need_space
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CONCLAVE_TEST_WORK=$work CONCLAVE_TEST_LIMIT=$limit CONCLAVE_TEST_RECORD=$work/record
started=$SECONDS
internal/tools/build.sh
go build -o "$work/gotest" ./internal/tools/gotest

step "make check" internal/tools/check.sh
go run ./internal/testserver/dbtest/pgrun -- internal/tools/test.sh inside || printf 'FAILED            PostgreSQL cluster for the tests\n' >>"$work/summary"
step "coverage of the specification" coverage
step "tests of the client" web_tests test
if [ "$form" = long ]; then
	step "fuzzing" fuzz
	step "the steps of the Dockerfile" internal/tools/dockersteps.sh
	step "a new machine" internal/tools/chroot.sh
fi

printf "\n== summary after %d s\n" $((SECONDS - started))
cat "$work/summary"
# A step that failed without a failed test of its own (a check, a build) counts as one.
awk -v steps="$(grep -c '^FAILED' "$work/summary")" '{ passed += $1; failed += $2 } END {
	if (steps > 0 && failed == 0) failed = steps
	printf "%d passed, %d failed\n", passed, failed
	exit failed > 0 || passed == 0
}' "$work/counts"
