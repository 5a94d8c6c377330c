// Package appservice is what the server knows of application services (bridges, bots) and tells them: their
// registrations, the transactions that carry events to them, and what it asks them.
//
// A registration is the operator's: an application service acts as any user in its namespaces with one token, so
// the token is kept as its hash and found by it. Delivery is a cursor in the stream, one row for each service
// (architecture, law 10).
package appservice

import (
	"crypto/sha256"
	"fmt"

	"conclave/internal/matrix"
	"conclave/internal/observe"
)

// Service is a registered application service. It does not change while the process lives.
type Service struct {
	ID          string
	Sender      matrix.UserID // the user of sender_localpart
	Protocols   []string      // third-party networks that it knows
	RateLimited bool          // the users that it acts as are, the sender never is
	Ephemeral   bool          // it wants typing, receipts and presence
	Encryption  bool          // it wants device lists, to-device messages and key counts (MSC3202, MSC4203)

	path                  string
	url                   string // "": it wants no traffic
	asToken               [sha256.Size]byte
	hsToken               observe.Secret
	users, aliases, rooms namespaces
}

// Reachable says whether there is an address to send to.
func (s *Service) Reachable() bool { return s.url != "" }

// Services are all that are registered.
type Services struct {
	server  matrix.ServerName
	list    []*Service
	byToken map[[sha256.Size]byte]*Service
}

// Load reads registration files. The error, if there is one, is a line that says where and what to do.
func Load(paths []string, server matrix.ServerName) (*Services, error) {
	all := &Services{server: server, byToken: map[[sha256.Size]byte]*Service{}}
	ids := map[string]*Service{}
	for _, path := range paths {
		s, err := load(path, server)
		if err != nil {
			return nil, err
		}
		if other := ids[s.ID]; other != nil {
			return nil, fmt.Errorf("%s: the id %q is that of %s too; each application service needs its own", path, s.ID, other.path)
		}
		if other := all.byToken[s.asToken]; other != nil {
			return nil, fmt.Errorf("%s: the as_token is that of %s too; each application service needs its own", path, other.path)
		}
		ids[s.ID], all.byToken[s.asToken] = s, s
		all.list = append(all.list, s)
	}
	return all, nil
}

func hash(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// All lists the services in the order of the configuration.
func (a *Services) All() []*Service { return a.list }

// ByToken finds the service of an as_token, nil if it is none. The token is looked up by its hash, so that the time it
// takes tells nothing of it.
func (a *Services) ByToken(token string) *Service {
	if len(a.list) == 0 {
		return nil
	}
	return a.byToken[hash(token)]
}

// ByID finds a service, nil if there is none of that ID.
func (a *Services) ByID(id string) *Service {
	for _, s := range a.list {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// MayBe says whether a service may act as a user: its sender, or a user of ours in its namespace.
func (a *Services) MayBe(s *Service, user matrix.UserID) bool {
	return user == s.Sender || user.Server() == a.server && s.users.match(string(user), false)
}

// MayHave says whether an alias is in a service's namespace.
func (s *Service) MayHave(alias matrix.RoomAlias) bool { return s.aliases.match(string(alias), false) }

// UserOwner finds the service that has a user's name for itself alone, other than one (nil: any).
func (a *Services) UserOwner(user matrix.UserID, except *Service) *Service {
	for _, s := range a.list {
		if s != except && (user == s.Sender || s.users.match(string(user), true)) {
			return s
		}
	}
	return nil
}

// AliasOwner finds the service that has an alias for itself alone, other than one (nil: any).
func (a *Services) AliasOwner(alias matrix.RoomAlias, except *Service) *Service {
	for _, s := range a.list {
		if s != except && s.aliases.match(string(alias), true) {
			return s
		}
	}
	return nil
}
