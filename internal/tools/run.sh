#!/usr/bin/env bash
# Builds Conclave and starts it for this machine: embedded database in ./data, open registration, loopback
# only. The configuration is written once and is yours to change afterwards.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${CONCLAVE_RUN_DIR:-data}
config=$dir/config.yaml

# replace changes one line of the new configuration and makes sure that it was there.
replace() {
	grep -qE "$1" "$config" || die "the configuration that conclave init wrote has no line like $1"
	sed -i.before -E "s#$1#$2#" "$config"
	rm -f "$config.before"
}

# prepare writes a configuration with free ports. It is written under another name until it is whole.
prepare() {
	local client federation admin made=$dir.new
	rm -rf "$made"
	config=$made/config.yaml
	bin/conclave init -dir "$made" -server-name localhost >/dev/null
	client=$(free_port 8008)
	admin=$(free_port $((client + 1)))
	federation=$(free_port 8448)
	replace '^public_url: .*' "public_url: http://localhost:$client"
	replace '^  client: "127\.0\.0\.1:8008"' "  client: \"127.0.0.1:$client\""
	replace '^  admin: "127\.0\.0\.1:8009"' "  admin: \"127.0.0.1:$admin\""
	replace '^  federation: "127\.0\.0\.1:8448"' "  federation: \"127.0.0.1:$federation\""
	replace '^  mode: closed' '  mode: open'
	mv "$made" "$dir"
	config=$dir/config.yaml
}

# answers tells whether the client API on a port of loopback answers 200.
answers() {
	local status
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /_matrix/client/versions HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
	read -r -t 5 status <&3 || return 1
	[[ $status == *" 200 "* ]]
}

need_go
need_node
internal/tools/build.sh
if [ ! -e "$config" ]; then
	[ ! -e "$dir" ] || die "$dir exists without a config.yaml: move it away, or set CONCLAVE_RUN_DIR to another folder."
	prepare
fi
bin/conclave config check -config "$config" >/dev/null
port=$(sed -nE '/^listen:/,/^[a-z]/s/^  client: "?[^"]*:([0-9]+)"?.*/\1/p' "$config")

bin/conclave serve -config "$config" &
server=$!
# Ctrl-C reaches the server too, from the terminal; a second signal would stop it without a drain.
trap : INT
trap 'kill -TERM "$server" 2>/dev/null || true' TERM
while ! (answers "$port") 2>/dev/null; do
	kill -0 "$server" 2>/dev/null || { wait "$server" || exit $?; exit 1; }
	sleep 0.1
done
say "http://localhost:$port"
# An interrupted wait returns before the server has drained: wait until it is gone.
code=0
while kill -0 "$server" 2>/dev/null; do wait "$server" && code=0 || code=$?; done
exit "$code"
