package keys

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// DeviceListChanges names the users whose devices changed between two positions, of those a user shares a room with, and
// those it came to share or shares no longer a room with.
func (k *Keys) DeviceListChanges(ctx context.Context, user store.UserNID, after, upTo store.Pos) (changed, left []matrix.UserID, err error) {
	err = k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
		changed, left = nil, nil
		is, was := map[store.UserNID]bool{}, map[store.UserNID]bool{}
		note := func(nid store.UserNID) { is[nid] = true }
		if err := tx.ListsChanged(user, after, upTo, note); err != nil {
			return err
		}
		if err := tx.CameToShare(user, after, upTo, note); err != nil {
			return err
		}
		if err := tx.CeasedToShare(user, after, upTo, func(nid store.UserNID) { was[nid] = true }); err != nil {
			return err
		}
		for nid := range is {
			delete(was, nid)
		}
		if err := tx.UserIDs(slices.Collect(maps.Keys(is)), func(_ store.UserNID, id matrix.UserID) { changed = append(changed, id) }); err != nil {
			return err
		}
		return tx.UserIDs(slices.Collect(maps.Keys(was)), func(_ store.UserNID, id matrix.UserID) { left = append(left, id) })
	})
	slices.Sort(changed)
	slices.Sort(left)
	return changed, left, err
}

// Concerned names the servers that OutgoingDeviceLists or OutgoingToDevice have something for between two positions.
func (k *Keys) Concerned(ctx context.Context, after, upTo store.Pos) (servers []store.ServerNID, err error) {
	own, err := k.ours(ctx)
	if err != nil {
		return nil, err
	}
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		found := map[store.ServerNID]bool{}
		note := func(server store.ServerNID) { found[server] = true }
		if err := tx.ServersWithMessages(after, upTo, note); err != nil {
			return err
		}
		if err := tx.ServersWithListChanges(own, after, upTo, note); err != nil {
			return err
		}
		servers = slices.Sorted(maps.Keys(found))
		return nil
	})
	return servers, err
}

// OutgoingDeviceLists tells a server whose devices changed after one position and up to another, at most limit; last is
// how far that goes, upTo if there is no more. Each EDU says what holds now. They come in the order of the changes, each
// naming the one before it, so that the server notices a gap.
func (k *Keys) OutgoingDeviceLists(ctx context.Context, server store.ServerNID, after, upTo store.Pos, limit int) (edus []EDU, last store.Pos, err error) {
	own, err := k.ours(ctx)
	if err != nil {
		return nil, 0, err
	}
	err = k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
		var changes []store.DeviceListEntry
		if changes, last, err = listChanges(tx, server, own, after, upTo, limit); err != nil {
			return err
		}
		edus, err = listEDUs(tx, changes, after)
		return err
	})
	return edus, last, err
}

// listChanges reads what a server is to be told: changes, and lists of users who came to share a room with it.
func listChanges(tx *store.Tx, server store.ServerNID, own []store.ServerNID, after, upTo store.Pos, limit int) (list []store.DeviceListEntry, last store.Pos, err error) {
	if err := tx.ListChangesFor(server, after, upTo, limit+1, func(e store.DeviceListEntry) { list = append(list, e) }); err != nil {
		return nil, 0, err
	}
	arrived := map[store.UserNID]bool{}
	err = tx.ArrivalsFor(server, own, after, upTo, limit+1, func(pos store.Pos, user store.UserNID) {
		if !arrived[user] {
			arrived[user] = true
			list = append(list, store.DeviceListEntry{Pos: pos, User: user, What: store.ListOnlyHere}) // listEDUs finds what to say
		}
	})
	if err != nil {
		return nil, 0, err
	}
	list = slices.DeleteFunc(list, func(e store.DeviceListEntry) bool { return e.What != store.ListOnlyHere && arrived[e.User] })
	slices.SortFunc(list, func(a, b store.DeviceListEntry) int { return cmp.Compare(a.Pos, b.Pos) })
	if len(list) > limit {
		return list[:limit], list[limit-1].Pos, nil
	}
	return list, upTo, nil
}

// listEDUs builds the EDUs for changes.
func listEDUs(tx *store.Tx, changes []store.DeviceListEntry, after store.Pos) ([]EDU, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	users := map[store.UserNID]matrix.UserID{}
	for _, c := range changes {
		users[c.User] = ""
	}
	nids := slices.Sorted(maps.Keys(users))
	if err := tx.UserIDs(nids, func(nid store.UserNID, id matrix.UserID) { users[nid] = id }); err != nil {
		return nil, err
	}
	asked := Asked{}
	for _, id := range users {
		asked[id] = nil
	}
	l := newLooking(viewer{}, asked)
	if err := l.read(tx, nil); err != nil {
		return nil, err
	}
	if err := l.assemble(); err != nil {
		return nil, err
	}
	prev, newest := map[store.UserNID]store.Pos{}, map[store.UserNID]store.DeviceListEntry{}
	if err := tx.LastListChanges(nids, after, func(e store.DeviceListEntry) { prev[e.User] = e.Pos }); err != nil {
		return nil, err
	}
	if err := tx.LastListChanges(nids, changes[len(changes)-1].Pos, func(e store.DeviceListEntry) { newest[e.User] = e }); err != nil {
		return nil, err
	}
	var edus []EDU
	for _, c := range changes {
		id := users[c.User]
		if c.What == store.ListCrossKeys {
			edus = append(edus, signingKeyUpdate(id, l.found))
			continue
		}
		before := prev[c.User]
		if c.What == store.ListOnlyHere {
			// A user who came to share a room: the server cannot know what came before, and asks.
			known, any := newest[c.User]
			if !any {
				continue
			}
			c, before = known, 0
		}
		edu, err := deviceListUpdate(id, c, before, l.found.Devices[id][c.Device])
		if err != nil {
			return nil, err
		}
		edus, prev[c.User] = append(edus, edu), c.Pos
	}
	return edus, nil
}

// deviceUpdate is the content of m.device_list_update (server-server API, "Device Management").
type deviceUpdate struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id"`
	Name     string          `json:"device_display_name,omitempty"`
	StreamID int64           `json:"stream_id"`
	PrevID   []int64         `json:"prev_id"`
	Deleted  bool            `json:"deleted,omitempty"`
	Keys     json.RawMessage `json:"keys,omitempty"`
}

// deviceListUpdate says what a device is now. What it is called stays here.
func deviceListUpdate(user matrix.UserID, c store.DeviceListEntry, prev store.Pos, keys json.RawMessage) (EDU, error) {
	u := deviceUpdate{UserID: user, DeviceID: c.Device, StreamID: int64(c.Pos), PrevID: []int64{}, Keys: keys, Deleted: keys == nil}
	if prev != 0 {
		u.PrevID = append(u.PrevID, int64(prev))
	}
	content, err := json.Marshal(u)
	return EDU{"m.device_list_update", content}, err
}

// signingKeyUpdate says what a user's cross-signing keys are now, as far as others may see them.
func signingKeyUpdate(user matrix.UserID, found *Found) EDU {
	content := matrix.AppendString([]byte(`{"user_id":`), string(user))
	if key := found.Master[user]; key != nil {
		content = append(append(content, `,"master_key":`...), key...)
	}
	if key := found.SelfSigning[user]; key != nil {
		content = append(append(content, `,"self_signing_key":`...), key...)
	}
	return EDU{"m.signing_key_update", append(content, '}')}
}

// UserDevices is the answer of getUserDevices.
type UserDevices struct {
	UserID      matrix.UserID   `json:"user_id"`
	StreamID    int64           `json:"stream_id"`
	Devices     []UserDevice    `json:"devices"`
	Master      json.RawMessage `json:"master_key,omitempty"`
	SelfSigning json.RawMessage `json:"self_signing_key,omitempty"`
}

// UserDevice is a device of such an answer.
type UserDevice struct {
	ID   matrix.DeviceID `json:"device_id"`
	Keys json.RawMessage `json:"keys"`
	Name string          `json:"device_display_name,omitempty"`
}

// UserDevices is the device list of a user of ours as other servers see it, with the position of its last change.
func (k *Keys) UserDevices(ctx context.Context, user matrix.UserID) (answer *UserDevices, err error) {
	if !k.o.IsOurs(user.Server()) {
		return nil, matrix.NotFound("%.255q is not a user of this server.", user)
	}
	err = k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
		l := newLooking(viewer{}, Asked{user: nil})
		if err := l.read(tx, nil); err != nil {
			return err
		}
		if len(l.users) == 0 {
			return matrix.NotFound("%.255q is not a user of this server.", user)
		}
		if err := l.assemble(); err != nil {
			return err
		}
		answer = &UserDevices{UserID: user, Devices: []UserDevice{}, Master: l.found.Master[user], SelfSigning: l.found.SelfSigning[user]}
		for _, id := range slices.Sorted(maps.Keys(l.found.Devices[user])) {
			answer.Devices = append(answer.Devices, UserDevice{ID: id, Keys: l.found.Devices[user][id]})
		}
		return tx.LastListChanges(slices.Collect(maps.Values(l.users)), maxPos, func(e store.DeviceListEntry) { answer.StreamID = int64(e.Pos) })
	})
	return answer, err
}

// maxPos is after every position.
const maxPos = store.Pos(1<<63 - 1)
