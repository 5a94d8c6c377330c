package imports

// A rule says what the packages below one path may import. Paths are below the module; a trailing
// "/..." matches the path itself and everything under it. The first matching rule counts, so the
// narrower path stands first. The standard library is allowed except where `std` forbids parts of it.
type rule struct {
	path   string
	own    []string // our packages it may import; "*" = any but those of nobody
	third  []string // modules of others it may import; "*" = any but those kept by someone
	std    []string // packages of the standard library it may not import
	reason string   // why, shown with the failure
}

// plumbing is what has no Matrix in it: every package above it may use it.
var plumbing = []string{
	"internal/config", "internal/cluster", "internal/observe", "internal/work", "internal/netguard", "internal/mail", "internal/mail/address", "internal/limits",
}

// domains may use the spec, the store and the plumbing, but not one another: they meet in rows, or in
// the handler that leads a use case.
var domainBase = append([]string{"internal/matrix/...", "internal/store"}, plumbing...)

// api is what the two API packages stand on.
var apiBase = append([]string{
	"rooms", "keys", "keys/sealed", "media", "internal/accounts", "internal/presence", "internal/push", "internal/appservice", "internal/calls",
}, domainBase...)

// impure is what a pure function of the specification has no use for. net/http is not in the list for its
// names of status codes, which errors carry; TestOnlyStatusCodes sees to it that nothing else is used of it.
var impure = []string{"os", "os/exec", "net", "log", "log/slog", "database/sql", "context", "time"}

var rules = []rule{
	// The tree reads its nodes through a loader that does I/O, so it hands the caller's context on.
	{path: "internal/matrix/statetree", own: []string{"internal/matrix/..."}, third: []string{"golang.org/x/crypto"},
		std: without(impure, "context"), reason: "the specification is pure functions"},
	{path: "internal/matrix/...", own: []string{"internal/matrix/..."}, third: []string{"golang.org/x/crypto"},
		std: impure, reason: "the specification is pure functions"},
	{path: "internal/store", own: append([]string{"internal/matrix/..."}, plumbing...),
		third: []string{"github.com/jackc/pgx/v5", "zombiezen.com/go/sqlite", "modernc.org/sqlite"}, reason: "the only SQL, below all domains"},
	{path: "keys/sealed", own: []string{"internal/matrix/..."}, third: []string{"github.com/go-jose/go-jose/v4", "golang.org/x/crypto"},
		reason: "a library that others can use, without a store"},
	{path: "rooms/...", own: append([]string{"rooms/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "keys/...", own: append([]string{"keys/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "media/...", own: append([]string{"media/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "internal/accounts/...", own: append([]string{"internal/accounts/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "internal/presence/...", own: append([]string{"internal/presence/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "internal/push/...", own: append([]string{"internal/push/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "internal/appservice/...", own: append([]string{"internal/appservice/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "internal/calls/...", own: append([]string{"internal/calls/..."}, domainBase...), third: []string{"*"}, reason: "a domain"},
	{path: "federation/...", own: append([]string{"federation/..."}, apiBase...), third: []string{"*"}, reason: "the server-server API never knows the client API"},
	{path: "clientapi/...", own: append([]string{"clientapi/..."}, apiBase...), third: []string{"*"}, reason: "the client-server API never knows federation"},
	{path: "web/...", own: nil, third: nil, reason: "the embedded client, nothing else"},
	{path: "cmd/...", own: []string{"*"}, third: []string{"*"}, reason: "wires everything"},
	{path: "internal/testserver/...", own: []string{"*"}, third: []string{"*"}, reason: "whole servers in a test"},
	{path: "internal/tools/...", own: []string{"*"}, third: []string{"*"}, reason: "tools of the repository"},
	// Plumbing has no Matrix in it, hence none of our packages but plumbing.
	{path: "internal/config/...", own: append([]string{"internal/config/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/cluster/...", own: append([]string{"internal/cluster/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/observe/...", own: append([]string{"internal/observe/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/work/...", own: append([]string{"internal/work/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/netguard/...", own: append([]string{"internal/netguard/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/limits/...", own: append([]string{"internal/limits/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
	{path: "internal/mail/...", own: append([]string{"internal/mail/..."}, plumbing...), third: []string{"*"}, reason: "plumbing"},
}

// kept names modules that only some packages may import, whatever "*" says: SQL stays in the store, the
// router in the two API packages, the WebSocket in the client API.
var kept = map[string][]string{
	"github.com/jackc/pgx/v5":      {"internal/store", "internal/testserver/...", "cmd/...", "internal/tools/..."},
	"zombiezen.com/go/sqlite":      {"internal/store", "internal/testserver/...", "cmd/...", "internal/tools/..."},
	"modernc.org/sqlite":           {"internal/store"},
	"github.com/labstack/echo/v4":  {"federation/...", "clientapi/...", "internal/testserver/...", "cmd/..."},
	"github.com/gorilla/websocket": {"clientapi/...", "internal/testserver/...", "internal/tools/..."},

	"github.com/redis/go-redis/v9": {"internal/limits", "internal/testserver/..."},

	"github.com/santhosh-tekuri/jsonschema/v6": {"internal/testserver/..."}, // for tests alone
}

// private are packages that nothing outside their own kind may import in code that ships.
var private = map[string][]string{
	"cmd/...":                 {},
	"internal/testserver/...": {"internal/testserver/...", "internal/tools/..."},
	"internal/tools/...":      {"internal/tools/..."},
}

// without returns list without one entry.
func without(list []string, entry string) []string {
	var rest []string
	for _, e := range list {
		if e != entry {
			rest = append(rest, e)
		}
	}
	return rest
}
