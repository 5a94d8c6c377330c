// Package clientapi is the Client-Server API: HTTP in, domain calls, JSON out.
//
// Every route stands in a table (routes.go) with its operationId, the authentication that it asks for and the limits
// that it is under; the server does not start with a handler that is not in the table. A handler decodes, calls the
// domain, and returns a value or an error; writing either to HTTP happens in one place (respond.go).
package clientapi

import (
	"context"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	gosync "sync"
	"time"

	"github.com/labstack/echo/v4"

	"conclave/clientapi/sync"
	"conclave/internal/accounts"
	"conclave/internal/appservice"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/presence"
	"conclave/internal/push"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/keys"
	"conclave/media"
	"conclave/rooms"
)

// Deps are what the API stands on. Federation is nil where it is switched off.
type Deps struct {
	Config     *config.Config
	DB         *store.DB
	Rooms      *rooms.Rooms
	Accounts   *accounts.Accounts
	Keys       *keys.Keys
	Media      *media.Media
	Sync       *sync.Engine
	Presence   *presence.Presence // nil: switched off
	PushRules  *push.Rules
	Pushers    *push.Pushers
	WebPush    *push.WebPush
	Services   *appservice.Services
	Bridges    *appservice.Client
	Federation Remote
	Signals    Signals // nil without federation
	// Reconnect tries a server again at once that counts as failing; nil without federation.
	Reconnect func(matrix.ServerName)
	Bus       cluster.Bus
	Limits    *limits.Counter
	Web       http.Handler // the browser client, at /
	Metrics   *observe.Metrics
	Log       *slog.Logger
}

// Signals takes what is worth something only now to other servers.
type Signals interface {
	// Typing tells the servers of a room that a user of ours types or has stopped.
	Typing(room rooms.Ref, user matrix.UserID, typing bool)
}

// Remote is what the client API asks of other servers; federation.Client satisfies it.
type Remote interface {
	// QueryProfile asks a user's server for its profile.
	QueryProfile(ctx context.Context, user matrix.UserID, field string) (map[string]any, error)
	// QueryDirectory asks an alias's server for its room and the servers to join through.
	QueryDirectory(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	// PublicRooms asks a server for a page of its room directory.
	PublicRooms(ctx context.Context, server matrix.ServerName, q rooms.DirectoryQuery) (*rooms.DirectoryPage, error)
	// SpaceView asks a server for its view of a room and its children.
	SpaceView(ctx context.Context, server matrix.ServerName, room matrix.RoomID) (*rooms.SpaceView, error)
	// EventNear asks a server for the event nearest to a time (ms).
	EventNear(ctx context.Context, server matrix.ServerName, room matrix.RoomID, ts int64, forward bool) (rooms.Moment, error)
}

// Server answers the Client-Server API.
type Server struct {
	Deps
	echo    *echo.Echo
	turns   turns
	hub     *hub
	tickets *tickets
	uploads uploads

	exporting *exporter
	pages     []string // the paths of routes that answer with pages, as path.Match reads them

	noticing gosync.Mutex // keeps two notices from making a room each for the same user
}

// New builds the API. An undeclared or doubly declared route is an error. What it starts ends with ctx.
func New(ctx context.Context, d Deps) (*Server, error) {
	s := &Server{
		Deps: d, echo: echo.New(),
		hub: newHub(d.Accounts.Again, d.Accounts.Heard), tickets: newTickets(),
	}
	work.NewGroup(ctx, d.Log).Go("ended sessions", func(ctx context.Context) error { return s.hub.watch(ctx, d.Bus) })
	s.exporting = newExporter(s)
	work.NewGroup(ctx, d.Log).Go("exports", s.exporting.run)
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.HTTPErrorHandler = s.unrouted
	seen := map[string]bool{}
	for _, route := range Routes() {
		if err := route.check(seen); err != nil {
			return nil, err
		}
		for _, at := range route.paths() {
			s.echo.Add(route.Method, at, s.handle(route))
			if route.Page {
				s.pages = append(s.pages, parameters.ReplaceAllString(at, "*"))
			}
		}
	}
	return s, nil
}

// parameters are those of a route's path.
var parameters = regexp.MustCompile(`:[^/]+`)

// isPage says whether a path is that of a page of ours.
func (s *Server) isPage(at string) bool {
	return slices.ContainsFunc(s.pages, func(pattern string) bool {
		yes, err := path.Match(pattern, at)
		return err == nil && yes
	})
}

// ServeHTTP answers preflights, API requests, and everything else with the browser client.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !isAPI(req.URL.Path) {
		s.Web.ServeHTTP(w, req)
		return
	}
	h := w.Header()
	if s.isPage(req.URL.EscapedPath()) { // as routes are found: a parameter may hold a slash
		pageHeaders(h)
		s.echo.ServeHTTP(w, req)
		return
	}
	h.Set("Access-Control-Allow-Origin", "*")
	// No answer of the API is a page: what an error repeats of a request must not become one (threats A14).
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", apiPolicy)
	if req.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS, PATCH, HEAD")
		h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date, If-None-Match, Range")
		h.Set("Access-Control-Max-Age", "86400")
	}
	s.tusHead(w, req)
	if req.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.echo.ServeHTTP(w, req)
}

// apiPolicy is the Content-Security-Policy of answers that are no pages. Media has one of its own.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

func isAPI(path string) bool {
	return strings.HasPrefix(path, "/_matrix/") || strings.HasPrefix(path, "/.well-known/") || strings.HasPrefix(path, "/_synapse/") ||
		strings.HasPrefix(path, "/oauth2/")
}

// The bounds of threats.md section 1 for inbound requests. Handlers that wait (sync) or carry media lift the time
// limit of their own answer.
const (
	headerBytes   = 32 << 10
	headerTime    = 10 * time.Second
	idleTime      = 2 * time.Minute
	maxClientJSON = 1 << 20
)

// HTTPServer wraps the API with the limits of a server on the open network.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// Drain ends the connections that wait: long polls with an empty answer, sockets with code 1012. Those that come later
// end at once.
func (s *Server) Drain() { s.hub.drain() }
