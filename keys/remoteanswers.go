package keys

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// remoteUser is what another server says about the keys of one of its users, as far as it holds: each object is
// well-formed and properly signed, others are left out.
type remoteUser struct {
	devices  []store.DeviceKeys
	cross    []crossKey
	streamID int64
}

// maxRemoteDevices is how many devices of a user of another server are taken note of.
const maxRemoteDevices = 1000

// addDevice adds a device whose keys are good.
func (u *remoteUser) addDevice(user matrix.UserID, device matrix.DeviceID, raw []byte, name string) {
	keys, err := parseDeviceKeys(raw, user, device)
	if err != nil || len(u.devices) >= maxRemoteDevices {
		return
	}
	u.devices = append(u.devices, store.DeviceKeys{User: user, Device: device, Name: shorten(name), JSON: keys.json})
}

// shorten bounds a name that people may see, and leaves out one that no database can keep.
func shorten(name string) string {
	if len(name) > maxName || !matrix.IsText(name) {
		return ""
	}
	return name
}

// addCross adds the master key, and the self-signing key if it is signed by it.
func (u *remoteUser) addCross(user matrix.UserID, master, self []byte) {
	if master == nil {
		return
	}
	m, err := parseCrossKey(master, user, store.MasterKey)
	if err != nil {
		return
	}
	u.cross = append(u.cross, crossKey{user, store.MasterKey, m.public, m.json})
	if self == nil {
		return
	}
	if s, err := parseCrossKey(self, user, store.SelfSigningKey); err == nil && s.signedBy(m.public) == nil {
		u.cross = append(u.cross, crossKey{user, store.SelfSigningKey, s.public, s.json})
	}
}

// queryFrom asks a server about its users, about all of their devices: what is asked once is kept.
func (k *Keys) queryFrom(ctx context.Context, server matrix.ServerName, asked Asked) (map[matrix.UserID]*remoteUser, error) {
	since, err := k.o.DB.StreamBound(ctx)
	if err != nil {
		return nil, err
	}
	all := map[matrix.UserID][]string{}
	for user := range asked {
		all[user] = []string{}
	}
	body, err := json.Marshal(map[string]any{"device_keys": all})
	if err != nil {
		return nil, err
	}
	raw, err := k.o.Remote.QueryUserEncryptionKeys(ctx, server, body)
	if err != nil {
		return nil, err
	}
	users, err := parseQueryAnswer(raw, asked)
	if err != nil {
		return nil, err
	}
	return users, k.keepLists(ctx, users, since)
}

// parseQueryAnswer reads a server's answer about those users that it was asked about.
func parseQueryAnswer(raw []byte, asked Asked) (map[matrix.UserID]*remoteUser, error) {
	var answer struct {
		Devices     map[matrix.UserID]map[matrix.DeviceID]json.RawMessage `json:"device_keys"`
		Master      map[matrix.UserID]json.RawMessage                     `json:"master_keys"`
		SelfSigning map[matrix.UserID]json.RawMessage                     `json:"self_signing_keys"`
	}
	if err := matrix.Decode(raw, &answer); err != nil {
		return nil, err
	}
	users := map[matrix.UserID]*remoteUser{}
	for user := range asked {
		devices, known := answer.Devices[user]
		if !known {
			continue
		}
		u := &remoteUser{}
		for id, object := range devices {
			name, _ := matrix.GetString(object, "unsigned", "device_display_name")
			u.addDevice(user, id, object, name)
		}
		u.addCross(user, answer.Master[user], answer.SelfSigning[user])
		users[user] = u
	}
	return users, nil
}

// parseUserDevices reads an answer of getUserDevices.
func parseUserDevices(raw []byte, user matrix.UserID) (*remoteUser, error) {
	var answer UserDevices
	if err := matrix.Decode(raw, &answer); err != nil {
		return nil, err
	}
	if answer.UserID != user {
		return nil, matrix.InvalidParam("The answer is about another user.")
	}
	u := &remoteUser{streamID: max(answer.StreamID, 0)}
	for _, d := range answer.Devices {
		u.addDevice(user, d.ID, d.Keys, d.Name)
	}
	u.addCross(user, answer.Master, answer.SelfSigning)
	return u, nil
}

// show is a server's answer as a viewer may see it, with the signatures that the viewer itself has made.
func (k *Keys) show(ctx context.Context, view viewer, answer map[matrix.UserID]*remoteUser, asked Asked) (*Found, error) {
	l := newLooking(view, asked)
	ids := make([]matrix.UserID, 0, len(answer))
	for id, user := range answer {
		ids = append(ids, id)
		for _, d := range user.devices {
			l.keep(d)
		}
		l.crossKeys = append(l.crossKeys, user.cross...)
	}
	err := k.o.DB.Read(ctx, func(tx *store.Tx) error {
		clear(l.users)
		if err := tx.KnownUsers(ids, func(nid store.UserNID, id matrix.UserID, _ bool) { l.users[id] = nid }); err != nil {
			return err
		}
		return l.readSignatures(tx)
	})
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, numbered := l.users[id]; !numbered {
			l.users[id] = 0
		}
	}
	return l.found, l.assemble()
}
