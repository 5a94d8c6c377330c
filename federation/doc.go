// Package federation is the server-server API, in and out.
//
// Out: a Client makes typed requests to other homeservers. It finds them with Discovery (server name → addresses,
// Host header and certificate name), connects through a guarded dialler, signs what it asks (xmatrix.go) and bounds
// what it reads (transport.go). The Sender delivers transactions: one cursor per destination, one in flight.
//
// In: a Server is a table of routes; each declares how it is authenticated and how much it reads. The Authenticator
// checks X-Matrix signatures with keys of the Keyring, which fetches, keeps and hands out servers' signing keys.
//
// The package holds no rules about rooms: it verifies who speaks, decodes strictly and calls the domains.
package federation
