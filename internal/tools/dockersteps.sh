#!/usr/bin/env bash
# Runs what the Dockerfile's RUN steps run, in a folder of its own and without a container engine, and looks
# at what they made: the steps cannot rot unnoticed on machines that have no engine. It follows COPY only as
# far as the steps need: the committed files less .dockerignore.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_go
need_node

image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
mkdir "$image/src"
git ls-files -z | tar --anchored --exclude-from=<(grep -vE '^#|^\*\*/' .dockerignore) --no-anchored --exclude-from=<(sed -n 's#^\*\*/##p' .dockerignore) \
	--null -T - -cf - | tar -xf - -C "$image/src"

# steps prints the RUN commands of one stage, with the image's folders moved to ours.
steps() {
	awk -v stage="$1" '/^FROM/ { inside = $NF == stage } inside && /^RUN/ { sub(/^RUN /, ""); print }' Dockerfile | sed "s#/out#$image/out#g"
}

# all runs the steps of one stage in a folder.
all() {
	local commands commit
	commit=$(git rev-parse HEAD)
	commands=$(steps "$1")
	[ -n "$commands" ] || die "The Dockerfile has no stage $1 with steps."
	say "stage $1:" "$commands"
	(cd "$2" && VERSION=container-test COMMIT=$commit sh -euc "$commands" </dev/null)
}

all client "$image/src/web"
rm -rf "$image/src/web/node_modules" # the second stage does not have them
all server "$image/src"
"$image/out/conclave" version | grep -q 'conclave container-test' || die "the executable is not stamped"
! ldd "$image/out/conclave" >/dev/null 2>&1 || die "the executable is not static"
[ "$(stat -c %a "$image/out/root/var/lib/conclave")" = 700 ] || die "the data folder is open to others"
"$image/out/conclave" init -dir "$image/data" -server-name example.org >/dev/null
"$image/out/conclave" config check -config "$image/data/config.yaml"
