#!/usr/bin/env bash
# What must hold before any test is worth running: formatting, static checks of Go and TypeScript, the
# direction of imports.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

failed=0
check() {
	local name=$1
	shift
	if "$@"; then say "ok   $name"; else say "FAIL $name"; failed=1; fi
}

formatted() {
	local files
	files=$(git ls-files -z --cached --others --exclude-standard -- '*.go' | xargs -0 -r sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | xargs -0 -r gofmt -l)
	[ -z "$files" ] || { say "not formatted (make fmt): $files"; return 1; }
}

# short_files: a file is one room; over 600 lines it is several.
short_files() {
	local long
	long=$(git ls-files -- '*.go' '*.ts' '*.tsx' | grep -vE '_test\.go$|\.test\.tsx?$|/testdata/|/gen/' | xargs -r wc -l | awk '$2 != "total" && $1 > 600')
	[ -z "$long" ] || { say "over 600 lines:"; say "$long"; return 1; }
}

# tagged are the packages that the tag failpoints changes something in.
tagged() { git grep -lE '^//go:build .*failpoints' -- '*.go' | xargs -n1 dirname | sort -u | sed 's#^#./#'; }

need_go
need_node
internal/tools/build.sh client || die "The client does not build."
check gofmt formatted
check "files of at most 600 lines" short_files
check "go vet" go vet ./...
check "go vet -tags failpoints" go vet -tags failpoints $(tagged)
check staticcheck go tool staticcheck ./...
check "shape of the code" go test -count=1 ./internal/tools/imports ./internal/tools/shape
check tsc npm --prefix web run --silent typecheck
check eslint npm --prefix web run --silent lint
exit "$failed"
