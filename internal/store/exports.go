package store

// Export is all that the server has of somebody, being put together or ready. Times are in ms.
type Export struct {
	User     UserNID
	Asked    int64
	Rooms    int64 // that there are to read
	Done     int64 // those that were read
	Failure  string
	File     string // "" until it is ready
	Hash     []byte // SHA-256
	Size     int64
	Finished int64
	Expires  int64
}

// Export finds a user's export, nil if there is none.
func (tx *Tx) Export(user UserNID) (found *Export, err error) {
	err = tx.Query(`SELECT asked, rooms, done, failure, file, hash, size, finished, expires FROM exports WHERE member = $1`, func(r *Row) error {
		found = &Export{
			User: user, Asked: r.Int64(0), Rooms: r.Int64(1), Done: r.Int64(2), Failure: r.Text(3), File: r.Text(4),
			Hash: append([]byte(nil), r.Bytes(5)...), Size: r.Int64(6), Finished: r.Int64(7), Expires: r.Int64(8),
		}
		return nil
	}, user)
	return found, err
}

// BeginExport notes that a user wants an export; it reports false if there is one.
func (tx *Tx) BeginExport(user UserNID, asked int64) (bool, error) {
	n, err := tx.Exec(`INSERT INTO exports (member, asked, rooms) VALUES ($1, $2,
		(SELECT count(*) FROM memberships m WHERE m.member = $1 AND m.joined <> 0 AND NOT m.forgotten)) ON CONFLICT DO NOTHING`, user, asked)
	return n == 1, err
}

// FailExport notes what went wrong last with an export, in words for people.
func (tx *Tx) FailExport(user UserNID, failure string) error {
	_, err := tx.Exec(`UPDATE exports SET failure = $2 WHERE member = $1`, user, failure)
	return err
}

// FinishExport names the file of an export.
func (tx *Tx) FinishExport(e Export) error {
	_, err := tx.Exec(`UPDATE exports SET file = $2, hash = $3, size = $4, finished = $5, expires = $6, failure = '' WHERE member = $1`,
		e.User, e.File, e.Hash, e.Size, e.Finished, e.Expires)
	return err
}

// DropExport removes a user's export and returns the files that it has, for the caller to remove.
func (tx *Tx) DropExport(user UserNID) (files []string, err error) {
	if files, err = tx.DropExportParts(user); err != nil {
		return nil, err
	}
	err = tx.Query(`DELETE FROM exports WHERE member = $1 RETURNING file`, func(r *Row) error {
		if file := r.Text(0); file != "" {
			files = append(files, file)
		}
		return nil
	}, user)
	return files, err
}

// ExportPart is an entry of an export that is ready to be put into it.
type ExportPart struct {
	Name   string
	File   string
	Hash   []byte // SHA-256 of the file
	Packed int64  // bytes of the file, which is compressed
	Size   int64  // bytes of the entry
	Sum    uint32 // CRC-32 of the entry
}

// AddExportPart stores an entry.
func (tx *Tx) AddExportPart(user UserNID, place int64, p ExportPart) error {
	_, err := tx.Exec(`INSERT INTO export_parts (member, place, name, file, hash, packed, size, sum) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		user, place, p.Name, p.File, p.Hash, p.Packed, p.Size, int64(p.Sum))
	return err
}

// ExportReached notes that one more room of an export was read.
func (tx *Tx) ExportReached(user UserNID) error {
	_, err := tx.Exec(`UPDATE exports SET done = done + 1, failure = '' WHERE member = $1`, user)
	return err
}

// ExportParts reads entries of an export in their order, after one and at most limit of them.
func (tx *Tx) ExportParts(user UserNID, after int64, limit int, each func(place int64, p ExportPart)) error {
	return tx.Query(`SELECT place, name, file, hash, packed, size, sum FROM export_parts WHERE member = $1 AND place > $2 ORDER BY place LIMIT $3`, func(r *Row) error {
		each(r.Int64(0), ExportPart{r.Text(1), r.Text(2), append([]byte(nil), r.Bytes(3)...), r.Int64(4), r.Int64(5), uint32(r.Int64(6))})
		return nil
	}, user, after, limit)
}

// DropExportParts removes the entries of an export and returns their files, for the caller to remove.
func (tx *Tx) DropExportParts(user UserNID) (files []string, err error) {
	err = tx.Query(`DELETE FROM export_parts WHERE member = $1 RETURNING file`, func(r *Row) error {
		files = append(files, r.Text(0))
		return nil
	}, user)
	return files, err
}

// NextExportRoom finds the first room behind another that a user is or was in and has not forgotten; 0 if there is none.
func (tx *Tx) NextExportRoom(user UserNID, after RoomNID) (room RoomNID, err error) {
	_, err = tx.QueryRow(`SELECT room FROM memberships WHERE member = $1 AND joined <> 0 AND NOT forgotten AND room > $2 ORDER BY room LIMIT 1`, user, after).Scan((*int64)(&room))
	return room, err
}

// AllAccountData reads account data of a user by room and type, after one entry and at most limit; room "" is global.
func (tx *Tx) AllAccountData(user UserNID, afterRoom RoomNID, afterType string, limit int, each func(nid RoomNID, room, typ, content string)) error {
	return tx.Query(`SELECT a.room, coalesce(r.room_id, ''), a.type, a.content FROM account_data a LEFT JOIN rooms r ON r.nid = a.room
		WHERE a.member = $1 AND (a.room, a.type) > ($2, $3) ORDER BY a.room, a.type LIMIT $4`, func(r *Row) error {
		each(RoomNID(r.Int64(0)), r.Text(1), r.Text(2), r.Text(3))
		return nil
	}, user, afterRoom, afterType, limit)
}

// HastenJob makes a job due at a time (ms) that would be later, or is not done.
func (tx *Tx) HastenJob(kind JobKind, key string, due int64) error {
	_, err := tx.Exec(`UPDATE jobs SET due = $3 WHERE kind = $1 AND key = $2 AND due > $3`, string(kind), key, due)
	return err
}

// CancelJob removes a job, whoever works at it.
func (tx *Tx) CancelJob(kind JobKind, key string) error {
	_, err := tx.Exec(`DELETE FROM jobs WHERE kind = $1 AND key = $2`, string(kind), key)
	return err
}
