package keys

import (
	"context"
	"encoding/json"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// BackedUp is a session as a client uploads it to a key backup (KeyBackupData). Each member is required.
type BackedUp struct {
	FirstIndex *int64          `json:"first_message_index"`
	Forwarded  *int64          `json:"forwarded_count"`
	Verified   *bool           `json:"is_verified"`
	Data       json.RawMessage `json:"session_data"`
}

// RoomSessions are the sessions of a room by their IDs (RoomKeyBackup); nil are none at all.
type RoomSessions struct {
	Sessions map[string]BackedUp `json:"sessions"`
}

// maxSafe is the largest integer that every reader of JSON understands.
const maxSafe = 1<<53 - 1

// session checks a session and makes a row of it.
func (b BackedUp) session(room, id string) (store.BackupSession, error) {
	var none store.BackupSession
	switch {
	case id == "" || len(id) > maxName || !storable(id):
		return none, matrix.InvalidParam("%.64q is not a session ID.", id)
	case b.FirstIndex == nil || b.Forwarded == nil || b.Verified == nil || b.Data == nil:
		return none, matrix.BadJSON("A session has first_message_index, forwarded_count, is_verified and session_data; one misses some.")
	case *b.FirstIndex < 0 || *b.FirstIndex > maxSafe || *b.Forwarded < 0 || *b.Forwarded > maxSafe:
		return none, matrix.InvalidParam("first_message_index and forwarded_count are whole numbers from 0 on.")
	case b.Data[0] != '{':
		return none, matrix.BadJSON("session_data is an object.")
	case len(b.Data) > maxSessionData:
		return none, matrix.TooLarge("session_data has at most %d bytes.", maxSessionData)
	}
	return store.BackupSession{Room: room, ID: id, FirstIndex: *b.FirstIndex, Forwarded: *b.Forwarded, Verified: *b.Verified, Data: string(b.Data)}, nil
}

// checkRoom refuses what cannot be the ID of a room. More is not asked for: the key of a session is worth keeping
// whatever this server thinks of its room.
func checkRoom(room string) error {
	if !strings.HasPrefix(room, "!") || len(room) > maxName || !storable(room) {
		return matrix.InvalidParam("%.64q is not a room ID.", room)
	}
	return nil
}

// rows checks an upload and makes rows of it.
func rows(rooms map[string]RoomSessions) ([]store.BackupSession, error) {
	var list []store.BackupSession
	for room, in := range rooms {
		if err := checkRoom(room); err != nil {
			return nil, err
		}
		if in.Sessions == nil {
			return nil, matrix.BadJSON("The member sessions is missing.")
		}
		if len(list)+len(in.Sessions) > maxUploaded {
			return nil, matrix.TooLarge("A request brings at most %d sessions.", maxUploaded)
		}
		for id, session := range in.Sessions {
			row, err := session.session(room, id)
			if err != nil {
				return nil, err
			}
			list = append(list, row)
		}
	}
	return list, nil
}

// BackUp stores sessions in a version of a user's key backup, which must be the newest (M_WRONG_ROOM_KEYS_VERSION). Of
// two keys for a session the better one stays, whichever came first. All are stored, or none.
func (k *Keys) BackUp(ctx context.Context, user User, version string, rooms map[string]RoomSessions) (state *BackupState, err error) {
	list, err := rows(rooms)
	if err != nil {
		return nil, err
	}
	wanted, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	err = k.changeBackup(ctx, user, func(tx *store.Tx, all versions) error {
		b, err := all.find(wanted)
		if err != nil {
			return err
		}
		if newest := all.newest(); newest.Version != wanted {
			return wrongVersion(newest.Version)
		}
		if b.Count+int64(len(list)) > maxBackedUp {
			return matrix.TooLarge("A key backup has at most %d sessions.", maxBackedUp)
		}
		added, replaced, err := tx.PutBackupSessions(user.NID, wanted, list)
		if err != nil {
			return err
		}
		state, err = changed(tx, b, added, added+replaced > 0)
		return err
	})
	return state, err
}

// changed notes a change of a version's sessions, if there was one, and says what it holds now.
func changed(tx *store.Tx, b *store.Backup, more int64, any bool) (*BackupState, error) {
	if !any {
		return &BackupState{versionText(b.ETag), b.Count}, nil
	}
	etag, err := tx.BackupChanged(b.User, b.Version, more)
	return &BackupState{versionText(etag), b.Count + more}, err
}

// scope names sessions of a version: of a room, or one of them; "" stands for all.
func scope(user User, version, room, session string) (s store.BackupScope, err error) {
	s = store.BackupScope{User: user.NID, Room: room, Session: session}
	if s.Version, err = parseVersion(version); err != nil {
		return s, err
	}
	if room != "" {
		if err := checkRoom(room); err != nil {
			return s, err
		}
	}
	if len(session) > maxName || !storable(session) {
		return s, matrix.InvalidParam("%.64q is not a session ID.", session)
	}
	return s, nil
}

// DropBackedUp removes sessions from a version of a user's key backup: all, those of a room, or one. Many go in several
// transactions; a repeated request removes the rest of one that was interrupted.
func (k *Keys) DropBackedUp(ctx context.Context, user User, version, room, session string) (state *BackupState, err error) {
	which, err := scope(user, version, room, session)
	if err != nil {
		return nil, err
	}
	for {
		more := false
		err := k.changeBackup(ctx, user, func(tx *store.Tx, all versions) error {
			b, err := all.find(which.Version)
			if err != nil {
				return err
			}
			var n int64
			if n, more, err = tx.DeleteBackupSessions(which, backupClearBatch); err != nil {
				return err
			}
			state, err = changed(tx, b, -n, n > 0)
			return err
		})
		if err != nil || !more {
			return state, err
		}
	}
}

// Session is a session in a key backup as it is given out.
type Session = store.BackupSession

// BackedUpSessions hands out sessions of a version page by page, in the order of rooms and IDs: all, those of a room, or
// one. The pages are bounded, and nothing is held between them; no page is empty. What another device uploads
// meanwhile may be among them or not, but none that was there is left out: if the version is deleted on the way, that is
// an error (M_NOT_FOUND).
func (k *Keys) BackedUpSessions(ctx context.Context, user User, version, room, session string, page func([]Session) error) error {
	which, err := scope(user, version, room, session)
	if err != nil {
		return err
	}
	var last Session
	for {
		var list []Session
		err := k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
			list = list[:0]
			var all versions
			if err := all.read(tx.Backups, user.NID); err != nil {
				return err
			}
			if _, err := all.find(which.Version); err != nil {
				return err
			}
			size := 0
			return tx.BackupSessions(which, last.Room, last.ID, backupPage, func(s Session) bool {
				list, size = append(list, s), size+len(s.Data)
				return size < backupPageBytes
			})
		})
		if err != nil || len(list) == 0 {
			return err
		}
		if err := page(list); err != nil {
			return err
		}
		last = list[len(list)-1]
	}
}
