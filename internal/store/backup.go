package store

import (
	"errors"
	"fmt"
)

// Backup is a version of a user's key backup.
type Backup struct {
	User      UserNID
	Version   Pos // higher than that of every older one
	Algorithm string
	ETag      Pos   // of the sessions: another one whenever they change
	Count     int64 // of the sessions
	Deleted   bool  // then Count is what is left to clear away
}

const selectBackups = `SELECT b.member, b.version, b.algorithm, b.etag, b.count, b.deleted FROM key_backups b `

func (tx *Tx) backups(sql string, each func(Backup), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Backup{UserNID(r.Int64(0)), Pos(r.Int64(1)), r.Text(2), Pos(r.Int64(3)), r.Int64(4), r.Bool(5)})
		return nil
	}, args...)
}

// Backups reads the versions of a user's key backup, oldest first, deleted ones too.
func (tx *Tx) Backups(user UserNID, each func(Backup)) error {
	return tx.backups(selectBackups+`WHERE b.member = $1 ORDER BY b.version`, each, user)
}

// LockBackups is Backups, with the versions as they stay until the end of the transaction. Whoever changes one of them,
// or its sessions, holds this lock.
func (tx *Tx) LockBackups(user UserNID, each func(Backup)) error {
	return tx.backups(selectBackups+`WHERE b.member = $1 ORDER BY b.version {lock}`, each, user)
}

// AddBackup makes an empty version of a user's key backup. The caller holds LockAccount and LockBackups, in this order.
func (tx *Tx) AddBackup(user UserNID, algorithm, authData string) (version Pos, err error) {
	if version, err = tx.NextPos(1); err != nil {
		return 0, err
	}
	_, err = tx.Exec(`INSERT INTO key_backups (member, version, algorithm, auth_data, etag) VALUES ($1, $2, $3, $4, $2)`, user, version, algorithm, authData)
	return version, err
}

// BackupAuth reads the auth_data of a version, a JSON object; "" of one that is not there or was deleted.
func (tx *Tx) BackupAuth(user UserNID, version Pos) (authData string, err error) {
	_, err = tx.QueryRow(`SELECT auth_data FROM key_backups WHERE member = $1 AND version = $2`, user, version).Scan(&authData)
	return authData, err
}

// SetBackupAuth replaces the auth_data of a version.
func (tx *Tx) SetBackupAuth(user UserNID, version Pos, authData string) error {
	_, err := tx.Exec(`UPDATE key_backups SET auth_data = $3 WHERE member = $1 AND version = $2`, user, version, authData)
	return err
}

// DeleteBackup marks a version as deleted. Its sessions are to be cleared away afterwards (DoomedBackup).
func (tx *Tx) DeleteBackup(user UserNID, version Pos) error {
	_, err := tx.Exec(`UPDATE key_backups SET deleted = TRUE, auth_data = '' WHERE member = $1 AND version = $2`, user, version)
	return err
}

// DeleteBackups marks all versions of a user's key backup as deleted.
func (tx *Tx) DeleteBackups(user UserNID) error {
	_, err := tx.Exec(`UPDATE key_backups SET deleted = TRUE, auth_data = '' WHERE member = $1 AND NOT deleted`, user)
	return err
}

// ForgetBackups drops even the signs of versions that were deleted and cleared away.
func (tx *Tx) ForgetBackups(user UserNID, versions []Pos) error {
	_, err := tx.Exec(`DELETE FROM key_backups WHERE member = $1 AND version IN ({ids $2}) AND deleted AND count = 0`, user, int64s(versions))
	return err
}

// BackupSession is a session in a backup. Room and ID are as the client gave them.
type BackupSession struct {
	Room       string
	ID         string
	FirstIndex int64 // first_message_index
	Forwarded  int64 // forwarded_count
	Verified   bool  // is_verified
	Data       string
}

// PutBackupSessions stores sessions, each once in the list, in place of worse ones only (client-server API, "Server-side
// key backups"): verified is better than not; then the lower first index; then fewer forwards. It returns how many are
// new and how many replaced another. The caller holds LockBackups. However many there are, it is two statements.
func (tx *Tx) PutBackupSessions(user UserNID, version Pos, sessions []BackupSession) (added, replaced int64, err error) {
	in := Insert{Table: "backup_sessions", Rows: len(sessions), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("member", func(int) UserNID { return user }),
		IntCol("version", func(int) Pos { return version }),
		TextCol("room_id", func(i int) string { return sessions[i].Room }),
		TextCol("session_id", func(i int) string { return sessions[i].ID }),
		IntCol("first_index", func(i int) int64 { return sessions[i].FirstIndex }),
		IntCol("forwarded", func(i int) int64 { return sessions[i].Forwarded }),
		BoolCol("verified", func(i int) bool { return sessions[i].Verified }),
		TextCol("data", func(i int) string { return sessions[i].Data }),
	}}
	if added, err = tx.InsertReturning(in, nil); err != nil || added == int64(len(sessions)) {
		return added, 0, err
	}
	in.Suffix = `ON CONFLICT (member, version, room_id, session_id) DO UPDATE SET
		first_index = excluded.first_index, forwarded = excluded.forwarded, verified = excluded.verified, data = excluded.data
		WHERE excluded.verified AND NOT backup_sessions.verified
		OR excluded.verified = backup_sessions.verified AND (excluded.first_index < backup_sessions.first_index
			OR excluded.first_index = backup_sessions.first_index AND excluded.forwarded < backup_sessions.forwarded)`
	replaced, err = tx.InsertReturning(in, nil)
	return added, replaced, err
}

// BackupChanged notes that sessions of a version changed, and by how many there are more or fewer, and returns the new
// etag. It takes a position: the transaction should end soon afterwards.
func (tx *Tx) BackupChanged(user UserNID, version Pos, more int64) (etag Pos, err error) {
	if etag, err = tx.NextPos(1); err != nil {
		return 0, err
	}
	_, err = tx.Exec(`UPDATE key_backups SET etag = $3, count = count + $4 WHERE member = $1 AND version = $2`, user, version, etag, more)
	return etag, err
}

// BackupScope says which sessions of a version are meant: of a room, or one of them; empty names mean all.
type BackupScope struct {
	User    UserNID
	Version Pos
	Room    string
	Session string
}

// where is the scope as SQL, and its arguments.
func (s BackupScope) where() (string, []any) {
	sql, args := `member = $1 AND version = $2`, []any{s.User, s.Version}
	if s.Room == "" {
		return sql, args
	}
	sql, args = sql+` AND room_id = $3`, append(args, s.Room)
	if s.Session == "" {
		return sql, args
	}
	return sql + ` AND session_id = $4`, append(args, s.Session)
}

const selectBackupSessions = `SELECT room_id, session_id, first_index, forwarded, verified, data FROM backup_sessions WHERE `

// errEnough ends a reading whose reader wants no more.
var errEnough = errors.New("store: enough rows")

// BackupSessions reads sessions by room and ID, after one and at most limit, until each returns false.
func (tx *Tx) BackupSessions(s BackupScope, afterRoom, afterID string, limit int, each func(BackupSession) bool) error {
	where, args := s.where()
	switch {
	case s.Session != "":
		where, args = where+` AND session_id > $5 LIMIT $6`, append(args, afterID, limit)
	case s.Room != "":
		where, args = where+` AND session_id > $4 ORDER BY session_id LIMIT $5`, append(args, afterID, limit)
	default:
		where, args = where+` AND (room_id, session_id) > ($3, $4) ORDER BY room_id, session_id LIMIT $5`, append(args, afterRoom, afterID, limit)
	}
	err := tx.Query(selectBackupSessions+where, func(r *Row) error {
		if !each(BackupSession{r.Text(0), r.Text(1), r.Int64(2), r.Int64(3), r.Bool(4), r.Text(5)}) {
			return errEnough
		}
		return nil
	}, args...)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// DeleteBackupSessions removes sessions, about limit at most, and returns how many; more says that some may be left. The
// caller holds LockBackups, or the version is deleted.
func (tx *Tx) DeleteBackupSessions(s BackupScope, limit int) (n int64, more bool, err error) {
	where, args := s.where()
	if s.Session == "" {
		// Up to a row, rather than those rows of a list: that is one walk over the index.
		var room, session string
		param := len(args) + 1
		more, err = tx.QueryRow(fmt.Sprintf(`SELECT room_id, session_id FROM backup_sessions WHERE %s
			ORDER BY room_id, session_id LIMIT 1 OFFSET $%d`, where, param), append(args, limit)...).Scan(&room, &session)
		if err != nil {
			return 0, false, err
		}
		if more {
			where += fmt.Sprintf(` AND (room_id, session_id) <= ($%d, $%d)`, param, param+1)
			args = append(args, room, session)
		}
	}
	n, err = tx.Exec(`DELETE FROM backup_sessions WHERE `+where, args...)
	return n, more, err
}

// DoomedBackup finds a version that was deleted and has sessions left; nil if there is none.
func (tx *Tx) DoomedBackup() (found *Backup, err error) {
	err = tx.backups(selectBackups+`WHERE b.deleted AND b.count > 0 LIMIT 1`, func(b Backup) { found = &b })
	return found, err
}

// ClearBackup removes sessions of a deleted version, about limit at most, and notes when there are none left.
func (tx *Tx) ClearBackup(user UserNID, version Pos, limit int) error {
	_, more, err := tx.DeleteBackupSessions(BackupScope{User: user, Version: version}, limit)
	if err != nil || more {
		return err
	}
	_, err = tx.Exec(`UPDATE key_backups SET count = 0 WHERE member = $1 AND version = $2 AND deleted`, user, version)
	return err
}
