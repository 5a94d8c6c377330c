package keys

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// maxQueried is how many users one request asks about.
const maxQueried = 2000

// Asked says whose devices are asked about: some, or all of a user where there are none.
type Asked map[matrix.UserID][]matrix.DeviceID

// check bounds what is asked, and passes over what can be nobody's ID: no database can be asked for it.
func (a Asked) check() error {
	if len(a) > maxQueried {
		return matrix.TooLarge("A request asks about at most %d users.", maxQueried)
	}
	maps.DeleteFunc(a, func(user matrix.UserID, _ []matrix.DeviceID) bool { return !matrix.IsText(string(user)) })
	return nil
}

// Found is the answer of POST /keys/query.
type Found struct {
	Devices     map[matrix.UserID]map[matrix.DeviceID]json.RawMessage `json:"device_keys"`
	Master      map[matrix.UserID]json.RawMessage                     `json:"master_keys"`
	SelfSigning map[matrix.UserID]json.RawMessage                     `json:"self_signing_keys"`
	UserSigning map[matrix.UserID]json.RawMessage                     `json:"user_signing_keys,omitempty"`
	Failures    map[matrix.ServerName]Failure                         `json:"failures,omitempty"`
}

func newFound() *Found {
	return &Found{
		Devices: map[matrix.UserID]map[matrix.DeviceID]json.RawMessage{}, Master: map[matrix.UserID]json.RawMessage{},
		SelfSigning: map[matrix.UserID]json.RawMessage{}, UserSigning: map[matrix.UserID]json.RawMessage{},
	}
}

// viewer is who looks at keys: a user of ours, who may also see what devices are called, or another server (zero).
type viewer = User

// Query finds the keys of users' devices, here and elsewhere, as one of our users may see them.
func (k *Keys) Query(ctx context.Context, by User, asked Asked, timeout time.Duration) (*Found, error) {
	if err := asked.check(); err != nil {
		return nil, err
	}
	local, remote := Asked{}, Asked{}
	for user, devices := range asked {
		if k.o.IsOurs(user.Server()) {
			local[user] = devices
		} else {
			remote[user] = devices
		}
	}
	found, err := k.look(ctx, by, local, nil)
	if err != nil || len(remote) == 0 {
		return found, err
	}
	return found, k.queryOthers(ctx, by, remote, timeout, found)
}

// QueryLocal finds the keys of our own users' devices, as another server may see them.
func (k *Keys) QueryLocal(ctx context.Context, asked Asked) (*Found, error) {
	if err := asked.check(); err != nil {
		return nil, err
	}
	maps.DeleteFunc(asked, func(user matrix.UserID, _ []matrix.DeviceID) bool { return !k.o.IsOurs(user.Server()) })
	return k.look(ctx, viewer{}, asked, nil)
}

// look reads keys that this server holds: of our own users, or (of those numbers) of others whose lists are known.
func (k *Keys) look(ctx context.Context, view viewer, asked Asked, others map[matrix.UserID]store.UserNID) (found *Found, err error) {
	if len(asked) == 0 {
		return newFound(), nil
	}
	var l *looking
	err = k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
		l = newLooking(view, asked)
		return l.read(tx, others)
	})
	if err != nil {
		return nil, err
	}
	return l.found, l.assemble()
}

// looking is one look at keys.
type looking struct {
	view       viewer
	asked      Asked
	users      map[matrix.UserID]store.UserNID // those that are known, to whoever is asked
	devices    []store.DeviceKeys
	crossKeys  []crossKey
	signatures map[signed][]store.KeySignature
	found      *Found
}

// crossKey is a cross-signing key with its owner.
type crossKey struct {
	user   matrix.UserID
	usage  store.KeyUsage
	public string
	json   []byte
}

// signed is what a signature is on.
type signed struct {
	user   matrix.UserID
	target string
}

func newLooking(view viewer, asked Asked) *looking {
	return &looking{view: view, asked: asked, users: map[matrix.UserID]store.UserNID{}, found: newFound()}
}

// read reads what the database has: of our own users, or of others.
func (l *looking) read(tx *store.Tx, others map[matrix.UserID]store.UserNID) error {
	users := slices.Collect(maps.Keys(l.asked))
	if others == nil {
		err := tx.KnownUsers(users, func(nid store.UserNID, id matrix.UserID, local bool) {
			if local {
				l.users[id] = nid
			}
		})
		if err != nil {
			return err
		}
		if err := tx.DeviceKeys(users, l.keep); err != nil {
			return err
		}
	} else {
		l.users = others
		if err := tx.RemoteDevices(slices.Collect(maps.Values(others)), l.keep); err != nil {
			return err
		}
	}
	names := l.names()
	err := tx.CrossSigningKeys(slices.Collect(maps.Keys(names)), func(c store.CrossSigningKey) {
		l.crossKeys = append(l.crossKeys, crossKey{names[c.User], c.Usage, c.Public, c.JSON})
	})
	if err != nil {
		return err
	}
	return l.readSignatures(tx)
}

func (l *looking) names() map[store.UserNID]matrix.UserID {
	names := map[store.UserNID]matrix.UserID{}
	for id, nid := range l.users {
		names[nid] = id
	}
	return names
}

// keep adds a device, if it is asked about.
func (l *looking) keep(d store.DeviceKeys) {
	if ids := l.asked[d.User]; len(ids) == 0 || slices.Contains(ids, d.Device) {
		l.devices = append(l.devices, d)
	}
}

// readSignatures reads the signatures that were uploaded by themselves, as far as the viewer may see them.
func (l *looking) readSignatures(tx *store.Tx) error {
	l.signatures = map[signed][]store.KeySignature{}
	names := l.names()
	return tx.KeySignatures(slices.Collect(maps.Keys(names)), l.view.NID, func(s store.KeySignature) {
		on := signed{names[s.User], s.Target}
		l.signatures[on] = append(l.signatures[on], s)
	})
}

// assemble puts what was read into the answer.
func (l *looking) assemble() error {
	for id := range l.users {
		l.found.Devices[id] = map[matrix.DeviceID]json.RawMessage{}
	}
	crossKeys := map[signed]bool{}
	for _, c := range l.crossKeys {
		crossKeys[signed{c.user, c.public}] = true
	}
	for _, d := range l.devices {
		if crossKeys[signed{d.User, string(d.Device)}] {
			continue // another server's lie: a signature by the one could be taken for one by the other (threats E08)
		}
		var name *string
		if l.view.NID != 0 && d.Name != "" {
			name = &d.Name
		}
		object, err := l.withSignatures(d.User, string(d.Device), d.JSON, name)
		if err != nil {
			return err
		}
		l.found.Devices[d.User][d.Device] = object
	}
	for _, c := range l.crossKeys {
		object, err := l.withSignatures(c.user, c.public, c.json, nil)
		if err != nil {
			return err
		}
		switch {
		case c.usage == store.MasterKey:
			l.found.Master[c.user] = object
		case c.usage == store.SelfSigningKey:
			l.found.SelfSigning[c.user] = object
		case c.usage == store.UserSigningKey && c.user == l.view.ID:
			l.found.UserSigning[c.user] = object
		}
	}
	return nil
}

// withSignatures adds to an object the signatures that were uploaded later.
func (l *looking) withSignatures(user matrix.UserID, target string, object []byte, name *string) (json.RawMessage, error) {
	added := l.signatures[signed{user, target}]
	if len(added) == 0 && name == nil {
		return object, nil
	}
	all := map[matrix.UserID]map[string]string{}
	if raw, ok := matrix.Get(object, "signatures"); ok {
		if err := matrix.Decode(raw, &all); err != nil {
			return nil, err
		}
	}
	for _, s := range added {
		if all[s.SignerID] == nil {
			all[s.SignerID] = map[string]string{}
		}
		all[s.SignerID][s.KeyID] = s.Value
	}
	return withSignatures(object, all, name)
}

// queryOthers adds the keys of other servers' users: from the lists that are followed, else from their servers. Where a
// server does not answer, what was last known of its users is better than nothing, and the failure is told too.
func (k *Keys) queryOthers(ctx context.Context, view viewer, asked Asked, timeout time.Duration, into *Found) error {
	lists, held, err := k.heldLists(ctx, asked)
	if err != nil {
		return err
	}
	questions := map[matrix.ServerName]Asked{}
	for user, devices := range asked {
		if held[user] {
			continue
		}
		server := user.Server()
		if questions[server] == nil {
			questions[server] = Asked{}
		}
		questions[server][user] = devices
	}
	answers, failures := ask(ctx, k, questions, timeout, k.queryFrom)
	into.Failures = failures
	wanted := Asked{}
	for user := range lists {
		if _, failed := failures[user.Server()]; held[user] || failed {
			wanted[user] = asked[user]
		} else {
			delete(lists, user)
		}
	}
	if len(lists) > 0 {
		cached, err := k.look(ctx, view, wanted, lists)
		if err != nil {
			return err
		}
		into.merge(cached)
	}
	for _, answer := range answers {
		shown, err := k.show(ctx, view, answer, asked)
		if err != nil {
			return err
		}
		into.merge(shown)
	}
	return nil
}

func (f *Found) merge(other *Found) {
	maps.Copy(f.Devices, other.Devices)
	maps.Copy(f.Master, other.Master)
	maps.Copy(f.SelfSigning, other.SelfSigning)
	maps.Copy(f.UserSigning, other.UserSigning)
}

// heldLists are the users among those asked about whose lists were ever fetched, and which of them hold.
func (k *Keys) heldLists(ctx context.Context, asked Asked) (lists map[matrix.UserID]store.UserNID, held map[matrix.UserID]bool, err error) {
	own, err := k.ours(ctx)
	if err != nil {
		return nil, nil, err
	}
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		lists, held = map[matrix.UserID]store.UserNID{}, map[matrix.UserID]bool{}
		names := map[store.UserNID]matrix.UserID{}
		err := tx.KnownUsers(slices.Collect(maps.Keys(asked)), func(nid store.UserNID, id matrix.UserID, _ bool) { names[nid] = id })
		if err != nil {
			return err
		}
		return tx.HeldLists(slices.Collect(maps.Keys(names)), own, func(nid store.UserNID, holds bool) {
			lists[names[nid]], held[names[nid]] = nid, holds
		})
	})
	return lists, held, err
}
