// Package idp starts an OpenID Connect provider for tests: the one that the library zitadel/oidc, which is certified for
// it, has as its example. Nothing of it is ours but the people.
package idp

import (
	"net"
	"net/http"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"golang.org/x/text/language"
)

// What the server under test is called at the provider, and the password of everybody there.
const (
	ClientID = "conclave"
	Secret   = "a secret of the client"
	Password = "a password of the provider"
)

// Provider is a provider that runs until its test ends, or Close.
type Provider struct {
	Issuer   string
	people   people
	listener net.Listener
	server   *http.Server
}

// New makes a provider that knows people by their names. It answers from Serve on.
func New(t testing.TB, names ...string) *Provider {
	t.Helper()
	p, err := Listen(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Listen is New for a program that is no test: it calls Close itself.
func Listen(names ...string) (*Provider, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Provider{Issuer: "http://" + listener.Addr().String(), people: people{}, listener: listener}
	for _, name := range names {
		p.people[name] = &storage.User{
			ID: "id-of-" + name, Username: name, Password: Password, FirstName: "First", LastName: name, PreferredLanguage: language.English,
		}
	}
	return p, nil
}

// Serve starts the provider for a server that it sends people back to at one address.
func (p *Provider) Serve(callback string) {
	clients := map[string]*storage.Client{ClientID: storage.WebClient(ClientID, Secret, callback)}
	handler := exampleop.SetupServer(p.Issuer, storage.NewStorageWithClients(p.people, clients), nil, false)
	p.server = &http.Server{Handler: handler} //nolint:gosec // on loopback, for a test
	go p.server.Serve(p.listener)             //nolint:errcheck // ends by Close
}

// Close ends it.
func (p *Provider) Close() {
	if p.server != nil {
		_ = p.server.Close() // which closes the listener
		return
	}
	_ = p.listener.Close()
}

// people are those whom the provider knows, by their names.
type people map[string]*storage.User

// GetUserByID implements storage.UserStore.
func (p people) GetUserByID(id string) *storage.User {
	for _, u := range p {
		if u.ID == id {
			return u
		}
	}
	return nil
}

// GetUserByUsername implements storage.UserStore.
func (p people) GetUserByUsername(name string) *storage.User { return p[name] }

// ExampleClientID implements storage.UserStore.
func (p people) ExampleClientID() string { return "service" }
