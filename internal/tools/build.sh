#!/usr/bin/env bash
# Builds bin/conclave: one static executable with the browser client inside. `build.sh client` builds only
# the client. Both are built only when their sources are newer; Go's own cache decides for Go.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# packages installs what the client is built from, when the lock file changed since the last time.
packages() {
	if [ ! -e web/node_modules/.package-lock.json ] || [ web/package-lock.json -nt web/node_modules/.package-lock.json ]; then
		say "installing the client's packages"
		(cd web && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries 5 </dev/null)
		touch web/node_modules/.package-lock.json
	fi
}

# client builds web/dist when a source is newer than the page in it.
client() {
	need_node
	packages
	if [ ! -e web/dist/index.html ] || [ -n "$(find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -newer web/dist/index.html -print -quit)" ]; then
		say "building the client"
		(cd web && npm run build </dev/null)
		touch web/dist/index.html
	fi
}

server() {
	need_go
	local version commit
	version=$(git describe --tags --always --dirty 2>/dev/null || true)
	commit=$(git rev-parse HEAD 2>/dev/null || true)
	say "building the server"
	go build -ldflags "-s -w -X main.stampedVersion=$version -X main.stampedCommit=$commit" -o bin/conclave ./cmd/conclave
}

client
if [ "${1:-}" != client ]; then server; fi
