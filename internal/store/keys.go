package store

import "conclave/internal/matrix"

// DeviceKeys are a device's public keys.
type DeviceKeys struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Name   string // what the device is called
	JSON   []byte
}

// DeviceKeys reads the keys of our users' devices.
func (tx *Tx) DeviceKeys(users []matrix.UserID, each func(DeviceKeys)) error {
	return chunks(users, func(part []matrix.UserID) error {
		return tx.Query(`SELECT u.user_id, d.device_id, d.name, k.json FROM users u JOIN device_keys k ON k.member = u.nid
			JOIN devices d ON d.nid = k.device WHERE u.user_id IN ({texts $1})`, func(r *Row) error {
			each(DeviceKeys{matrix.UserID(r.Text(0)), matrix.DeviceID(r.Text(1)), r.Text(2), []byte(r.Text(3))})
			return nil
		}, texts(part))
	})
}

// LockDevice makes changes of the keys of a user's devices wait for one another. It reports false if the device is gone.
func (tx *Tx) LockDevice(user UserNID, device int64) (found bool, err error) {
	if _, err := tx.LockAccount(user); err != nil {
		return false, err
	}
	err = tx.Query(`SELECT nid FROM devices WHERE nid = $1 AND member = $2`, func(*Row) error {
		found = true
		return nil
	}, device, user)
	return found, err
}

// KeysOfDevice reads the keys of one device of ours, nil if it has none.
func (tx *Tx) KeysOfDevice(device int64) (keys []byte, err error) {
	err = tx.Query(`SELECT json FROM device_keys WHERE device = $1`, func(r *Row) error {
		keys = []byte(r.Text(0))
		return nil
	}, device)
	return keys, err
}

// PutDeviceKeys stores a device's keys.
func (tx *Tx) PutDeviceKeys(device int64, user UserNID, keys []byte) error {
	_, err := tx.Exec(`INSERT INTO device_keys (device, member, json) VALUES ($1, $2, $3)
		ON CONFLICT (device) DO UPDATE SET json = excluded.json`, device, user, string(keys))
	return err
}

// NamedKey is a one-time or fallback key of a device.
type NamedKey struct {
	Algorithm string
	ID        string
	JSON      []byte
}

// OneTimeKeys reads those of some of a device's one-time keys that it has or had; JSON is nil for one that was claimed.
func (tx *Tx) OneTimeKeys(device int64, ids []string, each func(NamedKey)) error {
	return chunks(ids, func(part []string) error {
		err := tx.Query(`SELECT algorithm, key_id, json FROM one_time_keys WHERE device = $1 AND key_id IN ({texts $2})`, func(r *Row) error {
			each(NamedKey{r.Text(0), r.Text(1), []byte(r.Text(2))})
			return nil
		}, device, part)
		if err != nil {
			return err
		}
		return tx.Query(`SELECT algorithm, key_id FROM claimed_keys WHERE device = $1 AND key_id IN ({texts $2})`, func(r *Row) error {
			each(NamedKey{Algorithm: r.Text(0), ID: r.Text(1)})
			return nil
		}, device, part)
	})
}

// AddOneTimeKeys stores new one-time keys of a device, to be given out after those of lower positions.
func (tx *Tx) AddOneTimeKeys(device int64, pos Pos, keys []NamedKey) error {
	return tx.InsertRows(Insert{Table: "one_time_keys", Rows: len(keys), Cols: []Col{
		IntCol("device", func(int) int64 { return device }),
		TextCol("algorithm", func(i int) string { return keys[i].Algorithm }),
		TextCol("key_id", func(i int) string { return keys[i].ID }),
		IntCol("pos", func(int) Pos { return pos }),
		TextCol("json", func(i int) string { return string(keys[i].JSON) }),
	}})
}

// PutFallbackKey stores a device's fallback key of an algorithm in place of an older one. The same key again changes
// nothing, not even that it was used.
func (tx *Tx) PutFallbackKey(device int64, k NamedKey) error {
	_, err := tx.Exec(`INSERT INTO fallback_keys (device, algorithm, key_id, used, json) VALUES ($1, $2, $3, FALSE, $4)
		ON CONFLICT (device, algorithm) DO UPDATE SET key_id = excluded.key_id, used = FALSE, json = excluded.json
		WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.json <> excluded.json`,
		device, k.Algorithm, k.ID, string(k.JSON))
	return err
}

// OneTimeKeyCounts counts a device's unclaimed one-time keys by algorithm. Algorithms whose keys are all claimed count
// as 0 rather than not at all: there are clients that make new keys only when they are told a number.
func (tx *Tx) OneTimeKeyCounts(device int64) (counts map[string]int, err error) {
	counts = map[string]int{}
	err = tx.Query(`SELECT algorithm, count(*) FROM one_time_keys WHERE device = $1 GROUP BY algorithm
		UNION ALL SELECT DISTINCT algorithm, 0 FROM claimed_keys WHERE device = $1`, func(r *Row) error {
		counts[r.Text(0)] += r.Int(1)
		return nil
	}, device)
	return counts, err
}

// UnusedFallbackKeys names the algorithms of a device's fallback keys that nobody has claimed yet.
func (tx *Tx) UnusedFallbackKeys(device int64) (algorithms []string, err error) {
	algorithms = []string{}
	err = tx.Query(`SELECT algorithm FROM fallback_keys WHERE device = $1 AND NOT used ORDER BY algorithm`, func(r *Row) error {
		algorithms = append(algorithms, r.Text(0))
		return nil
	}, device)
	return algorithms, err
}

// FallbackAlgorithms names the algorithms that a device has fallback keys of.
func (tx *Tx) FallbackAlgorithms(device int64, each func(algorithm string)) error {
	return tx.Query(`SELECT algorithm FROM fallback_keys WHERE device = $1`, func(r *Row) error {
		each(r.Text(0))
		return nil
	}, device)
}

// ForgetClaimedKeys drops what is remembered of a device's keys that were claimed before a time (ms), or before the
// newest keep that were.
func (tx *Tx) ForgetClaimedKeys(device int64, before int64, keep int) error {
	_, err := tx.Exec(`DELETE FROM claimed_keys WHERE device = $1 AND (ts < $2
		OR ts < (SELECT ts FROM claimed_keys WHERE device = $1 ORDER BY ts DESC LIMIT 1 OFFSET $3))`, device, before, keep-1)
	return err
}

// LocalDevice is a device of an active account.
type LocalDevice struct {
	NID    int64
	User   UserNID
	UserID matrix.UserID
	ID     matrix.DeviceID
}

// LocalDevices reads the devices of those of some users that have an active account here.
func (tx *Tx) LocalDevices(users []matrix.UserID, each func(LocalDevice)) error {
	return chunks(users, func(part []matrix.UserID) error {
		return tx.Query(`SELECT d.nid, d.member, u.user_id, d.device_id FROM users u JOIN accounts a ON a.member = u.nid AND NOT a.deactivated
			JOIN devices d ON d.member = u.nid WHERE u.user_id IN ({texts $1}) ORDER BY d.nid`, func(r *Row) error {
			each(LocalDevice{r.Int64(0), UserNID(r.Int64(1)), matrix.UserID(r.Text(2)), matrix.DeviceID(r.Text(3))})
			return nil
		}, texts(part))
	})
}

// KnownUsers reads the numbers of those of some users that have one. local says whether it has an account here.
func (tx *Tx) KnownUsers(users []matrix.UserID, each func(nid UserNID, id matrix.UserID, local bool)) error {
	return chunks(users, func(part []matrix.UserID) error {
		return tx.Query(`SELECT u.nid, u.user_id, a.member IS NOT NULL FROM users u LEFT JOIN accounts a ON a.member = u.nid
			WHERE u.user_id IN ({texts $1})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)), r.Bool(2))
			return nil
		}, texts(part))
	})
}

// DevicesWithOneTimeKeys names which of some devices have one-time keys, by algorithm.
func (tx *Tx) DevicesWithOneTimeKeys(devices []int64, each func(device int64, algorithm string)) error {
	return chunks(devices, func(part []int64) error {
		return tx.Query(`SELECT DISTINCT device, algorithm FROM one_time_keys WHERE device IN ({ids $1})`, func(r *Row) error {
			each(r.Int64(0), r.Text(1))
			return nil
		}, part)
	})
}

// ClaimOneTimeKey takes a device's oldest one-time key of an algorithm, nil if none is left. No other transaction ever
// gets it, whatever runs at the same time.
func (tx *Tx) ClaimOneTimeKey(device int64, algorithm string) (key *NamedKey, err error) {
	err = tx.Query(`DELETE FROM one_time_keys WHERE device = $1 AND algorithm = $2 AND key_id = (SELECT key_id FROM one_time_keys
		WHERE device = $1 AND algorithm = $2 ORDER BY pos, key_id LIMIT 1 {skip locked}) RETURNING key_id, json`, func(r *Row) error {
		key = &NamedKey{algorithm, r.Text(0), []byte(r.Text(1))}
		return nil
	}, device, algorithm)
	return key, err
}

// ClaimedKey is a key that was given out.
type ClaimedKey struct {
	Device int64
	NamedKey
}

// RememberClaimed notes one-time keys that were given out.
func (tx *Tx) RememberClaimed(keys []ClaimedKey, ts int64) error {
	return tx.InsertRows(Insert{Table: "claimed_keys", Rows: len(keys), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("device", func(i int) int64 { return keys[i].Device }),
		TextCol("algorithm", func(i int) string { return keys[i].Algorithm }),
		TextCol("key_id", func(i int) string { return keys[i].ID }),
		IntCol("ts", func(int) int64 { return ts }),
	}})
}

// FallbackKeys reads devices' fallback keys of an algorithm.
func (tx *Tx) FallbackKeys(devices []int64, algorithm string, each func(key ClaimedKey, used bool)) error {
	return chunks(devices, func(part []int64) error {
		return tx.Query(`SELECT device, key_id, json, used FROM fallback_keys WHERE device IN ({ids $1}) AND algorithm = $2`, func(r *Row) error {
			each(ClaimedKey{r.Int64(0), NamedKey{algorithm, r.Text(1), []byte(r.Text(2))}}, r.Bool(3))
			return nil
		}, part, algorithm)
	})
}

// UseFallbackKeys notes that devices' fallback keys of an algorithm were given out.
func (tx *Tx) UseFallbackKeys(devices []int64, algorithm string) error {
	return chunks(devices, func(part []int64) error {
		_, err := tx.Exec(`UPDATE fallback_keys SET used = TRUE WHERE device IN ({ids $1}) AND algorithm = $2`, part, algorithm)
		return err
	})
}
