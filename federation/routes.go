package federation

import "slices"

// Routes is the table of all operations that a Server answers, by module of the specification. Nothing is served that
// is not here, and each row says how it is authenticated and how much of it is read.
func Routes() []Route {
	return slices.Concat(serverRoutes, roomRoutes, queryRoutes, directoryRoutes, spaceRoutes, keyRoutes, mediaRoutes, thirdPartyRoutes)
}

var serverRoutes = []Route{
	// Discovery
	{Method: "GET", Path: wellKnownPath, OperationID: "getWellKnown", Auth: AuthNone, Handler: (*Server).getWellKnown},
	{Method: "GET", Path: v1 + "/version", OperationID: "getVersion", Auth: AuthNone, Handler: (*Server).getVersion},
	// Server keys
	{Method: "GET", Path: "/_matrix/key/v2/server", OperationID: "getServerKey", Auth: AuthNone, Handler: (*Server).getServerKey},
	{Method: "GET", Path: "/_matrix/key/v2/query/{serverName}", OperationID: "perspectivesKeyQuery", Auth: AuthNone, Handler: (*Server).perspectivesKeyQuery},
	{Method: "POST", Path: "/_matrix/key/v2/query", OperationID: "bulkPerspectivesKeyQuery", Auth: AuthNone, MaxBody: 64 << 10, Handler: (*Server).bulkPerspectivesKeyQuery},
}
