# Shared by the scripts beside it; sourced, never run. It leaves the shell in the root of the repository.
# Nothing is installed outside the repository but Debian packages, and those only as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Whatever is compiled is compiled as the executable that ships: checks, tests and other clones then find it in Go's cache.
export CGO_ENABLED=0 GOFLAGS="-trimpath${GOFLAGS:+ $GOFLAGS}"

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# need_go and need_node: the two things besides git and make that a machine must bring.
need_go() {
	command -v go >/dev/null || die "Go is missing: install the version that go.mod names ($(sed -n 's/^go //p' go.mod)) or newer, and put it in PATH."
	local error
	error=$(go list -m 2>&1) || die "This Go cannot build the module: $error"
}

need_node() {
	command -v node >/dev/null && command -v npm >/dev/null || die "Node.js is missing: install Node.js 20 or newer with npm, and put it in PATH."
	[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || die "Node.js $(node -v) is too old: 20 or newer is needed."
}

# find_postgres prints the folder of a PostgreSQL server, 15 or newer; the newest there is.
find_postgres() {
	local dir version best="" best_version=14
	for dir in $(dirname "$(command -v postgres || echo /nowhere/postgres)") /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin; do
		[ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] || continue
		version=$("$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
		if [ "$version" -gt "$best_version" ]; then best=$dir best_version=$version; fi
	done
	[ -n "$best" ] && say "$best"
}

# find_chromium prints the browser that the tests drive; CHROMIUM names another one.
find_chromium() {
	local name
	for name in ${CHROMIUM:-} chromium chromium-browser google-chrome; do
		if command -v "$name"; then return; fi
	done
	return 1
}

# find_slapd prints where OpenLDAP's server is, which systems keep out of PATH.
find_slapd() {
	local path
	for path in "$(command -v slapd || true)" /usr/sbin/slapd /usr/libexec/slapd /usr/local/libexec/slapd /opt/homebrew/opt/openldap/libexec/slapd; do
		if [ -n "$path" ] && [ -x "$path" ]; then say "$path"; return; fi
	done
	return 1
}

# need_test_tools installs what the tests use beyond Go and Node: PostgreSQL, a directory server, a C compiler for the race
# detector, a browser, Redis. Where it cannot, it says what is missing and ends the run: no test is left out.
need_test_tools() {
	local packages=() words=()
	find_postgres >/dev/null || { packages+=(postgresql); words+=("PostgreSQL 15 or newer (Debian: postgresql)"); }
	find_slapd >/dev/null || { packages+=(slapd); words+=("OpenLDAP's server, slapd (Debian: slapd)"); }
	command -v "$(go env CC)" >/dev/null || { packages+=(gcc libc6-dev); words+=("a C compiler for the race detector (Debian: gcc libc6-dev)"); }
	find_chromium >/dev/null || { packages+=(chromium fonts-liberation fonts-noto-color-emoji); words+=("Chromium (Debian: chromium)"); }
	command -v redis-server >/dev/null || { packages+=(redis-server); words+=("Redis (Debian: redis-server)"); }
	if [ ${#packages[@]} -gt 0 ]; then
		apt_install "${packages[@]}" || die "The tests need what is missing here: $(printf '%s; ' "${words[@]}")install it, or run this as root on Debian or Ubuntu."
	fi
	find_postgres >/dev/null || die "The PostgreSQL of this system is older than 15: install 15 or newer."
	find_slapd >/dev/null || die "OpenLDAP's server was installed but slapd is not where it is looked for: put it in PATH."
	find_chromium >/dev/null || die "Chromium was installed but is not in PATH: set CHROMIUM to it."
	CHROMIUM=$(find_chromium)
	export CHROMIUM
}

# need_space warns of a disk that the run may fill: what fails then says anything but that. With an empty cache of Go a run
# was seen to take 4.6 GiB, most of it for that cache.
need_space() {
	local dir free
	for dir in "${TMPDIR:-/tmp}" "$(go env GOCACHE)"; do
		free=$({ df -Pm "$dir" 2>/dev/null || true; } | awk 'NR == 2 { print $4 }')
		if [ "${free:-9999}" -lt 5120 ]; then
			say "Only $free MiB are free in $dir; the tests need up to 5 GiB. Make room (go clean -cache empties Go's cache) if something fails for want of it."
		fi
	done
}

apt_install() {
	[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
	say "installing $*"
	# Only the programs are wanted, not a database or directory server of the system beside them.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	fi
	if [[ " $* " == *" slapd "* ]]; then
		# Its installer would make a directory and start it; both are left out.
		echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections 2>/dev/null || true
	fi
	local log code=0 policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; fi
	log=$(mktemp)
	# A source of packages that is out of reach is no reason to give up: the others may do.
	apt-get update -qq -o Acquire::Retries=3 </dev/null >"$log" 2>&1 || true
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 \
		-o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@" </dev/null >>"$log" 2>&1 || code=1
	if [ -n "$policy" ]; then rm -f "$policy"; fi
	[ "$code" -eq 0 ] || tail -n 20 "$log" >&2
	rm -f "$log"
	return "$code"
}

# port_free tells whether nothing listens on a port of loopback.
port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port prints the first free port from the one given upwards.
free_port() {
	local port=$1
	until port_free "$port"; do port=$((port + 1)); done
	say "$port"
}
