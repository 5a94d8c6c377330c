package clientapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Auth is the authentication that a route asks for.
type Auth int

// The kinds of authentication. Undeclared is not one: a route must say.
const (
	Undeclared Auth = iota
	NoAuth
	OptionalToken
	Token
	Admin  // the token of an administrator
	Ticket // a single-use ticket or a token (the WebSocket)
)

// Limit is the class of rate limit that a route falls under.
type Limit int

// The classes of rate limits (limits.go says how many requests each allows).
const (
	Unlimited Limit = iota
	LimitRead
	LimitSend
	LimitChange
	LimitLogin
	LimitRefresh
	LimitRegister
	LimitMedia
	LimitPreview
	LimitSearch
	LimitReport
)

// Route is one operation of the API.
type Route struct {
	Method      string
	Path        string // with echo's :parameters
	OperationID string // of the spec's OpenAPI description, or im.conclave.… for our own
	Auth        Auth
	Limit       Limit
	Body        int64 // highest body size in bytes; 0 = maxClientJSON
	Handler     func(*Server, *Request) (any, error)
	Aliases     []string // the same operation under other versions of its path

	Page bool                           // it answers with a page of ours, for people, and nothing that other sites may read
	Fail func(*Server, *Request, error) // writes its errors; nil: as the specification has them
}

func (r Route) paths() []string { return append([]string{r.Path}, r.Aliases...) }

// check refuses routes that do not say what they need.
func (r Route) check(seen map[string]bool) error {
	if r.Auth == Undeclared || r.Handler == nil || r.OperationID == "" {
		return fmt.Errorf("route %s %s does not declare its operation, handler and authentication", r.Method, r.Path)
	}
	for _, path := range r.paths() {
		key := r.Method + " " + path
		if seen[key] {
			return fmt.Errorf("route %s is declared twice", key)
		}
		seen[key] = true
	}
	return nil
}

// Routes is the whole API as data: each module's table, one after the other.
func Routes() []Route {
	return slices.Concat(
		serverRoutes, loginRoutes, signInRoutes, linkRoutes, ssoRoutes, accountRoutes, sendRoutes, membershipRoutes, roomRoutes, directoryRoutes, publicRoomRoutes, spaceRoutes, mutualRoutes,
		signalRoutes, presenceRoutes, accountDataRoutes, syncRoutes, keyRoutes, backupRoutes, dehydratedRoutes,
		mediaRoutes, resumableRoutes, adminMediaRoutes, adminRoomMediaRoutes, adminRoutes, moderationRoutes, tagRoutes,
		outsideRoutes, userDirectoryRoutes, noticeRoutes, destinationRoutes, pushRuleRoutes, notificationRoutes,
		relationRoutes, searchRoutes, reportRoutes, legacyRoutes, serviceRoutes, factorRoutes, passkeyRoutes, emailRoutes, threepidRoutes, oauthRoutes, pageRoutes, pageAssetRoutes,
		registrationRoutes, fallbackRoutes, adminRegistrationRoutes, auditRoutes,
	)
}

// v3 is the path of an operation that clients still call under r0 too.
func v3(path string) (string, []string) {
	return "/_matrix/client/v3" + path, []string{"/_matrix/client/r0" + path}
}

// op declares a client operation under /_matrix/client/v3.
func op(method, path, id string, auth Auth, limit Limit, handler func(*Server, *Request) (any, error)) Route {
	p, aliases := v3(path)
	return Route{Method: method, Path: p, OperationID: id, Auth: auth, Limit: limit, Handler: handler, Aliases: aliases}
}

// pathParams are the names of a route's parameters, for the tests that fill them in.
func (r Route) pathParams() []string {
	var names []string
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			names = append(names, name)
		}
	}
	return names
}

const (
	get  = http.MethodGet
	post = http.MethodPost
	put  = http.MethodPut
	del  = http.MethodDelete
)
