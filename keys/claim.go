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

// Wanted says of which algorithm a one-time key of each device is wanted.
type Wanted map[matrix.UserID]map[matrix.DeviceID]string

// check bounds what is asked for, here or elsewhere: also users without devices can name servers that are to be asked. What
// can be no user's ID or no algorithm's name is passed over: no database can be asked for it.
func (w Wanted) check() error {
	n := 0
	for _, devices := range w {
		n += len(devices)
		maps.DeleteFunc(devices, func(_ matrix.DeviceID, algorithm string) bool { return !matrix.IsText(algorithm) })
	}
	maps.DeleteFunc(w, func(user matrix.UserID, _ map[matrix.DeviceID]string) bool { return !matrix.IsText(string(user)) })
	if max(n, len(w)) > maxRecipients {
		return matrix.TooLarge("A request claims keys of at most %d devices.", maxRecipients)
	}
	return nil
}

// OneTimeKeys are keys by user, device and <algorithm>:<key_id>.
type OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage

func (o OneTimeKeys) add(user matrix.UserID, device matrix.DeviceID, name string, key json.RawMessage) {
	if o[user] == nil {
		o[user] = map[matrix.DeviceID]map[string]json.RawMessage{}
	}
	o[user][device] = map[string]json.RawMessage{name: key}
}

// Claimed is the answer of POST /keys/claim.
type Claimed struct {
	Keys     OneTimeKeys                   `json:"one_time_keys"`
	Failures map[matrix.ServerName]Failure `json:"failures"`
}

// Failure says why a server's part of an answer is missing.
type Failure struct {
	Code string `json:"errcode"`
	Text string `json:"error"`
}

// Claim takes one-time keys of devices, here and elsewhere; where a device has none left, its fallback key.
func (k *Keys) Claim(ctx context.Context, wanted Wanted, timeout time.Duration) (*Claimed, error) {
	if err := wanted.check(); err != nil {
		return nil, err
	}
	local := Wanted{}
	remote := map[matrix.ServerName]Wanted{}
	for user, devices := range wanted {
		server := user.Server()
		if k.o.IsOurs(server) {
			local[user] = devices
			continue
		}
		if remote[server] == nil {
			remote[server] = Wanted{}
		}
		remote[server][user] = devices
	}
	// Ours first: keys that another server gave out while ours failed would be lost.
	keys, err := k.ClaimLocal(ctx, local)
	if err != nil {
		return nil, err
	}
	answers, failures := ask(ctx, k, remote, timeout, func(ctx context.Context, server matrix.ServerName, q Wanted) (OneTimeKeys, error) {
		return k.claimFrom(ctx, server, q)
	})
	for _, answer := range answers {
		maps.Copy(keys, answer)
	}
	return &Claimed{keys, failures}, nil
}

// claimFrom claims keys of another server's users and keeps what was asked for.
func (k *Keys) claimFrom(ctx context.Context, server matrix.ServerName, wanted Wanted) (OneTimeKeys, error) {
	body, err := json.Marshal(map[string]any{"one_time_keys": wanted})
	if err != nil {
		return nil, err
	}
	raw, err := k.o.Remote.ClaimUserEncryptionKeys(ctx, server, body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Keys OneTimeKeys `json:"one_time_keys"`
	}
	if err := matrix.Decode(raw, &answer); err != nil {
		return nil, err
	}
	keys := OneTimeKeys{}
	for user, devices := range wanted {
		for device, algorithm := range devices {
			named, err := parseNamedKeys(answer.Keys[user][device])
			if err != nil {
				continue
			}
			for _, key := range named {
				if key.Algorithm == algorithm {
					keys.add(user, device, key.Algorithm+":"+key.ID, key.JSON)
				}
			}
		}
	}
	return keys, nil
}

// claim is a device of ours whose key is wanted.
type claim struct {
	store.LocalDevice
	algorithm string
}

// ClaimLocal takes one-time keys of our own users' devices. Each is given out once.
func (k *Keys) ClaimLocal(ctx context.Context, wanted Wanted) (OneTimeKeys, error) {
	if err := wanted.check(); err != nil {
		return nil, err
	}
	maps.DeleteFunc(wanted, func(user matrix.UserID, _ map[matrix.DeviceID]string) bool { return !k.o.IsOurs(user.Server()) })
	if len(wanted) == 0 {
		return OneTimeKeys{}, nil
	}
	var keys OneTimeKeys
	err := k.o.DB.Write(ctx, func(tx *store.Tx) error {
		keys = OneTimeKeys{}
		var claims []claim
		err := tx.LocalDevices(slices.Collect(maps.Keys(wanted)), func(d store.LocalDevice) {
			if algorithm, ok := wanted[d.UserID][d.ID]; ok {
				claims = append(claims, claim{d, algorithm})
			}
		})
		if err != nil || len(claims) == 0 {
			return err
		}
		left, concerned, err := k.takeOneTime(tx, claims, keys)
		if err != nil {
			return err
		}
		if err := takeFallback(tx, left, keys, concerned); err != nil {
			return err
		}
		return k.tellOwners(tx, concerned)
	})
	return keys, err
}

// takeOneTime takes one-time keys and returns the claims that found none, and whose keys were taken.
func (k *Keys) takeOneTime(tx *store.Tx, claims []claim, keys OneTimeKeys) (left []claim, concerned map[store.UserNID]bool, err error) {
	type stock struct {
		device    int64
		algorithm string
	}
	have := map[stock]bool{}
	devices := make([]int64, len(claims))
	for i, c := range claims {
		devices[i] = c.NID
	}
	if err := tx.DevicesWithOneTimeKeys(devices, func(device int64, algorithm string) { have[stock{device, algorithm}] = true }); err != nil {
		return nil, nil, err
	}
	concerned = map[store.UserNID]bool{}
	var taken []store.ClaimedKey
	for _, c := range claims {
		var key *store.NamedKey
		if have[stock{c.NID, c.algorithm}] {
			if key, err = tx.ClaimOneTimeKey(c.NID, c.algorithm); err != nil {
				return nil, nil, err
			}
		}
		if key == nil {
			left = append(left, c)
			continue
		}
		keys.add(c.UserID, c.ID, key.Algorithm+":"+key.ID, key.JSON)
		taken = append(taken, store.ClaimedKey{Device: c.NID, NamedKey: *key})
		concerned[c.User] = true
	}
	return left, concerned, tx.RememberClaimed(taken, k.now())
}

// takeFallback gives out fallback keys, and marks those that were unused.
func takeFallback(tx *store.Tx, claims []claim, keys OneTimeKeys, concerned map[store.UserNID]bool) error {
	byAlgorithm := map[string]map[int64]claim{}
	for _, c := range claims {
		if byAlgorithm[c.algorithm] == nil {
			byAlgorithm[c.algorithm] = map[int64]claim{}
		}
		byAlgorithm[c.algorithm][c.NID] = c
	}
	for _, algorithm := range slices.Sorted(maps.Keys(byAlgorithm)) {
		part := byAlgorithm[algorithm]
		var fresh []int64
		err := tx.FallbackKeys(slices.Sorted(maps.Keys(part)), algorithm, func(key store.ClaimedKey, used bool) {
			c := part[key.Device]
			keys.add(c.UserID, c.ID, algorithm+":"+key.ID, key.JSON)
			if !used {
				fresh = append(fresh, key.Device)
				concerned[c.User] = true
			}
		})
		if err != nil {
			return err
		}
		if err := tx.UseFallbackKeys(fresh, algorithm); err != nil {
			return err
		}
	}
	return nil
}

// tellOwners lets the owners of keys learn that there are fewer.
func (k *Keys) tellOwners(tx *store.Tx, concerned map[store.UserNID]bool) error {
	if len(concerned) == 0 {
		return nil
	}
	pos, err := tx.NextPos(1)
	if err != nil {
		return err
	}
	tx.AfterCommit(k.wake)
	var changes []store.Change
	for user := range concerned {
		changes = append(changes, store.Change{Pos: pos, Kind: store.ChangeKeys, User: user})
	}
	return tx.AddChanges(changes)
}
