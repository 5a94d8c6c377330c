package store

// StartTxn stores a transaction that makes no event. It reports false if it is known: then it was answered before, or
// together with this attempt.
func (tx *Tx) StartTxn(t Txn, ts int64) (bool, error) {
	in := txnInsert([]Txn{t}, ts)
	in.Suffix = "ON CONFLICT (txn) DO NOTHING"
	n, err := tx.InsertReturning(in, nil)
	return n == 1, err
}

// DeviceMessage is a message for a device of ours: an event as /sync shows it.
type DeviceMessage struct {
	Device int64
	Event  string
}

// AddDeviceMessages queues messages at a position, one per device.
func (tx *Tx) AddDeviceMessages(pos Pos, messages []DeviceMessage) error {
	return tx.InsertRows(Insert{Table: "to_device", Rows: len(messages), Cols: []Col{
		IntCol("device", func(i int) int64 { return messages[i].Device }),
		IntCol("pos", func(int) Pos { return pos }),
		TextCol("event", func(i int) string { return messages[i].Event }),
	}})
}

// DeviceMessages reads a device's messages after one position and up to another, in order, at most limit.
func (tx *Tx) DeviceMessages(device int64, after, upTo Pos, limit int, each func(pos Pos, event []byte)) error {
	return tx.Query(`SELECT pos, event FROM to_device WHERE device = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4`, func(r *Row) error {
		each(Pos(r.Int64(0)), []byte(r.Text(1)))
		return nil
	}, device, after, upTo, limit)
}

// HasDeviceMessages says whether messages wait for a device up to a position.
func (tx *Tx) HasDeviceMessages(device int64, upTo Pos) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM to_device WHERE device = $1 AND pos <= $2)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, device, upTo)
	return yes, err
}

// DeleteDeviceMessages removes a device's messages up to a position.
func (tx *Tx) DeleteDeviceMessages(device int64, upTo Pos) error {
	_, err := tx.Exec(`DELETE FROM to_device WHERE device = $1 AND pos <= $2`, device, upTo)
	return err
}

// OutgoingMessage is the content of an m.direct_to_device EDU for another server.
type OutgoingMessage struct {
	Pos     Pos
	Server  ServerNID
	Content string
}

// AddOutgoingMessages queues messages for other servers, each at a position of its own.
func (tx *Tx) AddOutgoingMessages(messages []OutgoingMessage) error {
	return tx.InsertRows(Insert{Table: "to_device_out", Rows: len(messages), Cols: []Col{
		IntCol("pos", func(i int) Pos { return messages[i].Pos }),
		IntCol("server", func(i int) ServerNID { return messages[i].Server }),
		TextCol("content", func(i int) string { return messages[i].Content }),
	}})
}

// OutgoingMessages reads what is queued for a server after one position and up to another, in order, at most limit.
func (tx *Tx) OutgoingMessages(server ServerNID, after, upTo Pos, limit int, each func(pos Pos, content []byte)) error {
	return tx.Query(`SELECT pos, content FROM to_device_out WHERE server = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4`, func(r *Row) error {
		each(Pos(r.Int64(0)), []byte(r.Text(1)))
		return nil
	}, server, after, upTo, limit)
}

// DeleteOutgoingMessages removes what a server has got.
func (tx *Tx) DeleteOutgoingMessages(server ServerNID, upTo Pos) error {
	_, err := tx.Exec(`DELETE FROM to_device_out WHERE server = $1 AND pos <= $2`, server, upTo)
	return err
}

// ServersWithMessages names the servers for which messages were queued after one position and up to another.
func (tx *Tx) ServersWithMessages(after, upTo Pos, each func(ServerNID)) error {
	return tx.Query(`SELECT DISTINCT server FROM to_device_out WHERE pos > $1 AND pos <= $2`, func(r *Row) error {
		each(ServerNID(r.Int64(0)))
		return nil
	}, after, upTo)
}

// SeeMessage notes a message of another server; it reports false if it came before.
func (tx *Tx) SeeMessage(origin ServerNID, id string, ts int64) (bool, error) {
	n, err := tx.Exec(`INSERT INTO to_device_seen (origin, message_id, ts) VALUES ($1, $2, $3) ON CONFLICT (origin, message_id) DO NOTHING`, origin, id, ts)
	return n == 1, err
}

// ForgetMessages drops what is remembered of messages from before a time (ms), limit at most, and returns how many.
func (tx *Tx) ForgetMessages(before int64, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM to_device_seen WHERE (origin, message_id) IN
		(SELECT origin, message_id FROM to_device_seen WHERE ts < $1 ORDER BY ts LIMIT $2)`, before, limit)
}

// RemembersMessages says whether messages from before a time (ms) are remembered.
func (tx *Tx) RemembersMessages(before int64) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM to_device_seen WHERE ts < $1)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, before)
	return yes, err
}

// DropOrphanMessages removes messages and claimed keys of devices that are gone, limit of each at most: they came while
// the device went. It returns how many messages.
func (tx *Tx) DropOrphanMessages(limit int) (int64, error) {
	_, err := tx.Exec(`DELETE FROM claimed_keys WHERE device IN (SELECT c.device FROM claimed_keys c
		WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.nid = c.device) LIMIT $1)`, limit)
	if err != nil {
		return 0, err
	}
	return tx.Exec(`DELETE FROM to_device WHERE (device, pos) IN (SELECT t.device, t.pos FROM to_device t
		WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.nid = t.device) LIMIT $1)`, limit)
}

// SilentDevices names devices for which messages wait and that were last heard of before a time (ms), after one and at
// most limit.
func (tx *Tx) SilentDevices(after, before int64, limit int, each func(device int64)) error {
	return tx.Query(`SELECT d.nid FROM devices d WHERE d.nid > $1 AND d.seen < $2
		AND EXISTS (SELECT 1 FROM to_device t WHERE t.device = d.nid) ORDER BY d.nid LIMIT $3`, func(r *Row) error {
		each(r.Int64(0))
		return nil
	}, after, before, limit)
}

// TrimDeviceMessages removes the oldest of a device's messages, limit at most, but leaves the newest keep.
func (tx *Tx) TrimDeviceMessages(device int64, keep, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM to_device WHERE device = $1 AND pos IN (SELECT pos FROM to_device WHERE device = $1
		AND pos <= (SELECT pos FROM to_device WHERE device = $1 ORDER BY pos DESC LIMIT 1 OFFSET $2) ORDER BY pos LIMIT $3)`, device, keep, limit)
}

// SilentServers names servers for which messages wait and that have been failing since before a time (ms), or were never
// sent anything, after one and at most limit.
func (tx *Tx) SilentServers(after ServerNID, before int64, limit int, each func(ServerNID)) error {
	return tx.Query(`SELECT s.nid FROM servers s LEFT JOIN destinations d ON d.server = s.nid
		WHERE s.nid > $1 AND (d.server IS NULL OR d.failing_since <> 0 AND d.failing_since < $2)
		AND EXISTS (SELECT 1 FROM to_device_out o WHERE o.server = s.nid) ORDER BY s.nid LIMIT $3`, func(r *Row) error {
		each(ServerNID(r.Int64(0)))
		return nil
	}, after, before, limit)
}

// TrimOutgoingMessages removes the oldest of the messages for a server, limit at most, but leaves the newest keep.
func (tx *Tx) TrimOutgoingMessages(server ServerNID, keep, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM to_device_out WHERE pos IN (SELECT pos FROM to_device_out WHERE server = $1
		AND pos <= (SELECT pos FROM to_device_out WHERE server = $1 ORDER BY pos DESC LIMIT 1 OFFSET $2) ORDER BY pos LIMIT $3)`, server, keep, limit)
}
