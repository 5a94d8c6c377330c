package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Network is a third-party network whose rooms an application service lists.
type Network struct {
	Service string // the application service's ID
	ID      string // as the service calls the network
}

// instance is what clients call the network by, as third_party_instance_id.
func (n Network) instance() string { return n.Service + "|" + n.ID }

// maxListings bounds how many rooms application services list.
const maxListings = 100_000

// SetListed lists a room in the directory of a network, or takes it out. That the caller is the network's application
// service is for the caller to know.
func (r *Rooms) SetListed(ctx context.Context, ref Ref, n Network, listed bool) error {
	if len(n.ID) > 255 {
		return matrix.InvalidParam("The ID of a network has at most 255 bytes.")
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		tx.AfterCommit(r.directory.forget)
		return tx.SetAppDirectory(ref.NID, n.Service, n.ID, listed)
	})
}

// listings are the rooms that application services list, with the networks.
func (r *Rooms) listings(ctx context.Context) (map[store.RoomNID][]Network, error) {
	var out map[store.RoomNID][]Network
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		out = map[store.RoomNID][]Network{}
		return tx.AppDirectory(maxListings, func(room store.RoomNID, service, network string) {
			out[room] = append(out[room], Network{service, network})
		})
	})
	return out, err
}

// inNetwork says whether a room is in the directories that a query is about: the server's own, that of one network, or
// all.
func (q DirectoryQuery) inNetwork(s *Summary) bool {
	switch {
	case q.AllNetworks:
		return true
	case q.Network == "":
		return s.public
	}
	for _, n := range s.networks {
		if q.Network == n.instance() || q.Network == n.ID {
			return true
		}
	}
	return false
}
