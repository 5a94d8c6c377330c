#!/usr/bin/env bash
# Proves the install branch on a new machine: a fresh Debian made by debootstrap, with nothing but Go, Node,
# git and make, clones the committed tree, starts it by `make run` and runs `.ci/run`. Needs root.
#
#   chroot.sh [COMMAND]     COMMAND runs in the clone instead of those two
#
# What comes over the network: Debian's packages. Go modules come from this machine's module cache, and the
# client's packages from its npm cache as far as they are there. CONCLAVE_CHROOT_KEEP=DIR keeps the machine
# (and uses it again); the mounts and processes in it always end with this script.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" -eq 0 ] || die "A chroot needs root: run this as root."
need_go
need_node
command -v debootstrap >/dev/null || apt_install debootstrap || die "debootstrap is missing."

machine=${CONCLAVE_CHROOT_KEEP:-$(mktemp -d)}
[ -n "${CONCLAVE_CHROOT_KEEP:-}" ] || trap 'rm -rf --one-file-system "$machine"' EXIT
# The archive's signatures are checked with the host's keyring.
[ -e "$machine/etc/debian_version" ] ||
	debootstrap --variant=minbase --include=git,make,ca-certificates,libstdc++6 bookworm "$machine" >"$machine.log" 2>&1 ||
	{ tail -n 5 "$machine.log" >&2; die "debootstrap failed."; }
rm -f "$machine.log"

# The host's way to the network: its resolver, its certificates, its settings of npm.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt "$HOME/.npmrc"; do
	[ ! -e "$file" ] || install -D -m 0644 "$file" "$machine/${file#/}"
done
if [ -e "$(npm prefix -g 2>/dev/null)/etc/npmrc" ]; then install -D -m 0644 "$(npm prefix -g)/etc/npmrc" "$machine/usr/etc/npmrc"; fi
install -D -m 0755 "$(readlink -f "$(command -v node)")" "$machine/usr/bin/node"
npm_package=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
mkdir -p "$machine/usr/lib/node_modules"
cp -a "$npm_package" "$machine/usr/lib/node_modules/"
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$machine/usr/bin/npm"
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$machine/usr/bin/npx"
mkdir -p "$machine"/{origin,go-modules,npm-cache,usr/local/go} "$machine$HOME"

cat >"$machine/prove" <<'PROVE'
#!/bin/bash
# Runs inside the new machine.
set -euo pipefail
rm -rf ~/conclave
git clone -q /origin ~/conclave
cd ~/conclave
if [ $# -gt 0 ]; then exec bash -c "$*"; fi
make run >~/run.log 2>&1 </dev/null &
run=$!
until grep -q '^http://localhost:' ~/run.log; do
	kill -0 "$run" || { cat ~/run.log; exit 1; }
	sleep 1
done
tail -n 1 ~/run.log
url=$(grep -m1 '^http://localhost:' ~/run.log)
node -e 'fetch(process.argv[1]).then(async r => { const t = await r.text(); if (r.status !== 200 || !t.includes("<script")) { console.error(r.status, t); process.exit(1) } })' "$url"
kill -TERM "$(cat /proc/"$run"/task/"$run"/children | tr -d " ")"
wait "$run" || true
exec bash .ci/run </dev/null
PROVE
chmod 0755 "$machine/prove"

export machine modules npm_cache goroot
modules=$(go env GOMODCACHE)/cache/download
npm_cache=$(npm config get cache 2>/dev/null)
goroot=$(go env GOROOT)
mkdir -p "$npm_cache"
# A mount and process namespace of its own: whatever happens, nothing is left mounted or running.
unshare --mount --pid --fork --kill-child bash -s "$@" <<'INSIDE'
set -euo pipefail
mount --make-rprivate /
mount -t proc proc "$machine/proc"
mount --rbind /dev "$machine/dev"
mount -t tmpfs tmpfs "$machine/dev/shm"
mount -t tmpfs tmpfs "$machine/tmp"
chmod 1777 "$machine/tmp"
mount --bind -o ro . "$machine/origin"
mount --bind -o ro "$modules" "$machine/go-modules"
mount --bind -o ro "$goroot" "$machine/usr/local/go"
mount --bind "$npm_cache" "$machine/npm-cache"
keep=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY NODE_EXTRA_CA_CERTS CONCLAVE_LONG; do
	if [ -n "${!name:-}" ]; then keep+=("$name=${!name}"); fi
done
exec chroot "$machine" env -i "${keep[@]}" HOME="$HOME" TERM=dumb LANG=C.UTF-8 CI=true \
	PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	GOPROXY=file:///go-modules GOSUMDB=off GOTOOLCHAIN=local GOFLAGS=-buildvcs=false npm_config_cache=/npm-cache npm_config_prefer_offline=true \
	/prove "$@" </dev/null
INSIDE
