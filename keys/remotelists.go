package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How other servers' lists are fetched again after a gap, and how long messages from them are remembered.
const (
	refetchEvery    = time.Minute // of one user, at most
	refetchSlowest  = time.Hour   // after failures
	refetchTimeout  = 30 * time.Second
	refetchServers  = 16 // at a time
	refetchBatch    = 200
	lookEvery       = 30 * time.Second
	rememberMessage = 30 * 24 * time.Hour
	forgetBatch     = 1000
)

// Run fetches again what was missed of other servers' lists, forgets what is old, clears away what was deleted, and drops
// what nobody fetches. It ends with ctx.
func (k *Keys) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var tidied int64 // when, in ms
	for {
		if k.o.Remote != nil {
			if err := k.refetchDue(ctx); err != nil && ctx.Err() == nil {
				k.o.Log.Error("fetching device lists failed", "err", err)
			}
		}
		if err := k.forget(ctx); err != nil && ctx.Err() == nil {
			k.o.Log.Error("forgetting old messages to devices failed", "err", err)
		}
		if err := k.clearBackups(ctx); err != nil && ctx.Err() == nil {
			k.o.Log.Error("clearing deleted key backups away failed", "err", err)
		}
		if now := k.now(); now-tidied >= tidyEvery.Milliseconds() {
			tidied = now
			if err := k.tidy(ctx); err != nil && ctx.Err() == nil {
				k.o.Log.Error("dropping messages that nobody fetches failed", "err", err)
			}
		}
		select {
		case <-k.stale:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poke tells Run that a list is stale, or a backup deleted.
func (k *Keys) poke() {
	select {
	case k.stale <- struct{}{}:
	default:
	}
}

// forget drops what is remembered of old messages, in short transactions, where there is something to drop.
func (k *Keys) forget(ctx context.Context) error {
	before := k.now() - rememberMessage.Milliseconds()
	for {
		var some bool
		err := k.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			some, err = tx.RemembersMessages(before)
			return err
		})
		if err != nil || !some {
			return err
		}
		err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.ForgetMessages(before, forgetBatch)
			return err
		})
		if err != nil {
			return err
		}
	}
}

// ReceiveDeviceList takes an m.device_list_update of another server: of its own user, who shares a room with one of
// ours. What follows on the last update is applied; after a gap the whole list is fetched again.
func (k *Keys) ReceiveDeviceList(ctx context.Context, origin matrix.ServerName, content []byte) error {
	var u deviceUpdate
	if err := matrix.Decode(content, &u); err != nil {
		return err
	}
	switch {
	case u.UserID.Server() != origin:
		return matrix.Forbidden("%.255q is not a user of %s.", u.UserID, origin)
	case u.DeviceID == "" || len(u.DeviceID) > maxName || !matrix.IsText(string(u.DeviceID)) || u.StreamID <= 0 || len(u.PrevID) > maxPrevIDs:
		return matrix.InvalidParam("The update names no device or no place in its sequence.")
	}
	return k.receive(ctx, u.UserID, func(tx *store.Tx, list *store.RemoteList) error {
		if list.Stale || list.StreamID == 0 || list.StreamID < u.StreamID && !slices.Contains(u.PrevID, list.StreamID) {
			return k.missed(tx, list, u.StreamID)
		}
		if u.StreamID <= list.StreamID {
			return nil
		}
		list.StreamID = u.StreamID
		if err := tx.PutRemoteList(*list); err != nil {
			return err
		}
		if err := applyUpdate(tx, list.User, u); err != nil {
			return err
		}
		tx.AfterCommit(k.wake)
		return tx.DeviceListChanged(list.User)
	})
}

// applyUpdate stores what an update says. A device without keys, or whose keys are no good, is none to encrypt for.
func applyUpdate(tx *store.Tx, user store.UserNID, u deviceUpdate) error {
	if !u.Deleted && u.Keys != nil {
		if keys, err := parseDeviceKeys(u.Keys, u.UserID, u.DeviceID); err == nil {
			return tx.PutRemoteDevices(user, []store.DeviceKeys{{Device: u.DeviceID, Name: shorten(u.Name), JSON: keys.json}})
		}
	}
	return tx.DeleteRemoteDevices(user, u.DeviceID)
}

// ReceiveSigningKeys takes an m.signing_key_update of another server.
func (k *Keys) ReceiveSigningKeys(ctx context.Context, origin matrix.ServerName, content []byte) error {
	var u struct {
		UserID      matrix.UserID   `json:"user_id"`
		Master      json.RawMessage `json:"master_key"`
		SelfSigning json.RawMessage `json:"self_signing_key"`
	}
	if err := matrix.Decode(content, &u); err != nil {
		return err
	}
	if u.UserID.Server() != origin {
		return matrix.Forbidden("%.255q is not a user of %s.", u.UserID, origin)
	}
	return k.receive(ctx, u.UserID, func(tx *store.Tx, list *store.RemoteList) error {
		if list.Stale || list.Since == 0 {
			return k.missed(tx, list, 0)
		}
		had, err := readList(tx, list.User, u.UserID)
		if err != nil {
			return err
		}
		if u.Master == nil {
			for _, c := range had.cross {
				if c.usage == store.MasterKey {
					u.Master = c.json
				}
			}
		}
		now := &remoteUser{devices: had.devices}
		if now.addCross(u.UserID, u.Master, u.SelfSigning); len(now.cross) == 0 {
			return matrix.InvalidParam("There is no usable master key of %.255q.", u.UserID)
		}
		if now.same(had) {
			return nil
		}
		if err := putCross(tx, list.User, now.cross); err != nil {
			return err
		}
		tx.AfterCommit(k.wake)
		return tx.DeviceListChanged(list.User)
	})
}

// receive runs do for a user of another server who shares a room with one of ours; others' lists are not followed.
func (k *Keys) receive(ctx context.Context, id matrix.UserID, do func(*store.Tx, *store.RemoteList) error) error {
	if _, err := matrix.ParseUserID(string(id)); err != nil || !id.Compliant() || k.o.IsOurs(id.Server()) {
		return matrix.InvalidParam("%.255q is not a user of another server.", id).With(err)
	}
	own, err := k.ours(ctx)
	if err != nil {
		return err
	}
	var user store.UserNID
	follows := false
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		if err := tx.KnownUsers([]matrix.UserID{id}, func(nid store.UserNID, _ matrix.UserID, _ bool) { user = nid }); err != nil || user == 0 {
			return err
		}
		follows, err = tx.SharesWithUs(user, own)
		return err
	})
	if err != nil || !follows {
		return err
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		list, err := tx.RemoteList(user)
		if err != nil {
			return err
		}
		if list == nil {
			list = &store.RemoteList{User: user}
		}
		return do(tx, list)
	})
}

// missed notes that something about a list is not known. However often that happens, it is fetched at most once a
// minute (threats F19).
func (k *Keys) missed(tx *store.Tx, list *store.RemoteList, streamID int64) error {
	if list.Stale && list.Wanted >= streamID {
		return nil
	}
	list.Stale, list.Wanted = true, max(list.Wanted, streamID)
	tx.AfterCommit(k.poke)
	return tx.PutRemoteList(*list)
}

// keepLists stores what was asked about users who share a room with one of ours, from when on their servers tell us of
// changes. A list that changed while the question was under way is left alone.
func (k *Keys) keepLists(ctx context.Context, users map[matrix.UserID]*remoteUser, since store.Pos) error {
	own, err := k.ours(ctx)
	if err != nil {
		return err
	}
	var known []store.UserNID
	names := map[store.UserNID]matrix.UserID{}
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		known = nil
		err := tx.KnownUsers(slices.Collect(maps.Keys(users)), func(nid store.UserNID, id matrix.UserID, _ bool) { names[nid] = id })
		if err != nil {
			return err
		}
		for nid := range names {
			shares, err := tx.SharesWithUs(nid, own)
			if err != nil {
				return err
			}
			if shares {
				known = append(known, nid)
			}
		}
		return nil
	})
	if err != nil || len(known) == 0 {
		return err
	}
	slices.Sort(known) // rows are locked in one order
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		for _, nid := range known {
			list, err := tx.RemoteList(nid)
			if err != nil {
				return err
			}
			changed, err := tx.ListChangedAfter(nid, since)
			if err != nil {
				return err
			}
			if changed || list != nil && list.Stale {
				continue
			}
			if err := putList(tx, nid, users[names[nid]]); err != nil {
				return err
			}
			if err := tx.PutRemoteList(store.RemoteList{User: nid, Since: since}); err != nil {
				return err
			}
		}
		return nil
	})
}

// putList replaces what is known of a user's keys.
func putList(tx *store.Tx, nid store.UserNID, user *remoteUser) error {
	if err := tx.DeleteRemoteDevices(nid, ""); err != nil {
		return err
	}
	if err := tx.PutRemoteDevices(nid, user.devices); err != nil {
		return err
	}
	return putCross(tx, nid, user.cross)
}

// putCross replaces a user's master and self-signing keys.
func putCross(tx *store.Tx, nid store.UserNID, keys []crossKey) error {
	for _, usage := range []store.KeyUsage{store.MasterKey, store.SelfSigningKey} {
		i := slices.IndexFunc(keys, func(c crossKey) bool { return c.usage == usage })
		var err error
		if i < 0 {
			err = tx.DeleteCrossSigningKey(nid, usage)
		} else {
			err = tx.PutCrossSigningKey(store.CrossSigningKey{User: nid, Usage: usage, Public: keys[i].public, JSON: keys[i].json})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readList reads what is known of a user's keys.
func readList(tx *store.Tx, nid store.UserNID, id matrix.UserID) (*remoteUser, error) {
	u := &remoteUser{}
	if err := tx.RemoteDevices([]store.UserNID{nid}, func(d store.DeviceKeys) { u.devices = append(u.devices, d) }); err != nil {
		return nil, err
	}
	return u, tx.CrossSigningKeys([]store.UserNID{nid}, func(c store.CrossSigningKey) {
		u.cross = append(u.cross, crossKey{id, c.Usage, c.Public, c.JSON})
	})
}

// same says whether two lists agree.
func (u *remoteUser) same(other *remoteUser) bool {
	type place struct {
		usage  store.KeyUsage
		device matrix.DeviceID
	}
	index := func(u *remoteUser) map[place][]byte {
		all := map[place][]byte{}
		for _, d := range u.devices {
			all[place{device: d.Device}] = append(append([]byte(d.Name), 0), d.JSON...)
		}
		for _, c := range u.cross {
			all[place{usage: c.usage}] = c.json
		}
		return all
	}
	return maps.EqualFunc(index(u), index(other), bytes.Equal)
}

// refetchDue fetches the stale lists that may be fetched now: the users of one server one after the other, servers at
// the same time.
func (k *Keys) refetchDue(ctx context.Context) error {
	type due struct {
		nid store.UserNID
		id  matrix.UserID
	}
	for ctx.Err() == nil {
		servers := map[matrix.ServerName][]due{}
		err := k.o.DB.Read(ctx, func(tx *store.Tx) error {
			clear(servers)
			return tx.DueRemoteLists(k.now(), refetchBatch, func(nid store.UserNID, id matrix.UserID) {
				servers[id.Server()] = append(servers[id.Server()], due{nid, id})
			})
		})
		if err != nil || len(servers) == 0 {
			return err
		}
		places := make(chan struct{}, refetchServers)
		var group sync.WaitGroup
		for _, users := range servers {
			group.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				answers := true // a server that did not answer is not asked about its other users now
				for _, u := range users {
					var err error
					if answers, err = k.refetch(ctx, u.nid, u.id, answers); err != nil && ctx.Err() == nil {
						k.o.Log.Warn("storing a device list failed", "server", u.id.Server(), "err", err)
						return
					}
				}
			})
		}
		group.Wait()
	}
	return ctx.Err()
}

// refetch fetches a user's list, if nobody else does and it is due, and says whether the server answers. With ask false
// it only counts a failure.
func (k *Keys) refetch(ctx context.Context, nid store.UserNID, id matrix.UserID, ask bool) (answers bool, err error) {
	now := k.now()
	next := now + refetchEvery.Milliseconds()
	mine := false
	err = k.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.LeaseRemoteList(nid, now, next)
		return err
	})
	if err != nil || !mine {
		return ask, err
	}
	since, err := k.o.DB.StreamBound(ctx)
	if err != nil {
		return ask, err
	}
	var user *remoteUser
	if ask {
		asking, cancel := context.WithTimeout(ctx, refetchTimeout)
		raw, err := k.o.Remote.GetUserDevices(asking, id)
		cancel()
		if err == nil {
			user, err = parseUserDevices(raw, id)
		}
		if err != nil {
			k.o.Log.Debug("fetching a device list failed", "server", id.Server(), "err", err)
		}
	}
	return user != nil, k.o.DB.Write(ctx, func(tx *store.Tx) error {
		list, err := tx.RemoteList(nid)
		if err != nil || list == nil {
			return err
		}
		return k.refetched(tx, list, id, user, since, now)
	})
}

// refetched stores a list that was fetched, or that it was not to be had. An answer older than what was heard of is
// kept, but asked for again; both become rarer the longer they last.
func (k *Keys) refetched(tx *store.Tx, list *store.RemoteList, id matrix.UserID, user *remoteUser, since store.Pos, now int64) error {
	changed := false
	if user != nil {
		had, err := readList(tx, list.User, id)
		if err != nil {
			return err
		}
		if changed = !user.same(had); changed {
			if err := putList(tx, list.User, user); err != nil {
				return err
			}
		}
		list.StreamID, list.Since = user.streamID, since
		list.Stale = user.streamID < list.Wanted
	}
	if list.Stale {
		list.Fails++
	} else {
		list.Fails, list.Wanted = 0, 0
	}
	pause := refetchEvery << min(max(list.Fails-1, 0), 10)
	list.RetryAt = now + min(pause, refetchSlowest).Milliseconds()
	if err := tx.PutRemoteList(*list); err != nil || !changed {
		return err
	}
	tx.AfterCommit(k.wake)
	return tx.DeviceListChanged(list.User)
}
