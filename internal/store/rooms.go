package store

import (
	"context"
	"fmt"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
)

// User is the number of a user and of its server.
type User struct {
	NID    UserNID
	Server ServerNID
}

// User finds the numbers of a user and its server and gives them out at first sight. Numbers never change.
func (db *DB) User(ctx context.Context, id matrix.UserID) (User, error) {
	var u User
	find := func(tx *Tx) error {
		return tx.Query(`SELECT nid, server FROM users WHERE user_id = $1`, func(r *Row) error {
			u = User{UserNID(r.Int64(0)), ServerNID(r.Int64(1))}
			return nil
		}, string(id))
	}
	if err := db.Read(ctx, find); err != nil || u.NID != 0 {
		return u, err
	}
	server, err := db.Server(ctx, id.Server())
	if err != nil {
		return u, err
	}
	nid, err := db.NextNID(KindUser)
	if err != nil {
		return u, err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO users (nid, user_id, server) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO NOTHING`,
			nid, string(id), server); err != nil {
			return err
		}
		return find(tx)
	})
	return u, err
}

// Server finds the number of a server and gives it out at first sight.
func (db *DB) Server(ctx context.Context, name matrix.ServerName) (ServerNID, error) {
	var found ServerNID
	find := func(tx *Tx) error {
		return tx.Query(`SELECT nid FROM servers WHERE name = $1`, func(r *Row) error {
			found = ServerNID(r.Int64(0))
			return nil
		}, string(name))
	}
	if err := db.Read(ctx, find); err != nil || found != 0 {
		return found, err
	}
	nid, err := db.NextNID(KindServer)
	if err != nil {
		return 0, err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO servers (nid, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, nid, string(name)); err != nil {
			return err
		}
		return find(tx)
	})
	return found, err
}

// UserIDs finds the IDs of users by number.
func (tx *Tx) UserIDs(nids []UserNID, each func(UserNID, matrix.UserID)) error {
	return chunks(nids, func(part []UserNID) error {
		return tx.Query(`SELECT nid, user_id FROM users WHERE nid IN ({ids $1})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)))
			return nil
		}, int64s(part))
	})
}

// Room finds a room that has events or invitations by its ID.
func (tx *Tx) Room(id matrix.RoomID) (nid RoomNID, version matrix.RoomVersion, found bool, err error) {
	err = tx.Query(`SELECT nid, version FROM rooms WHERE room_id = $1`, func(r *Row) error {
		nid, version, found = RoomNID(r.Int64(0)), matrix.RoomVersion(r.Int64(1)), true
		return nil
	}, string(id))
	return nid, version, found, err
}

// RoomInfo is what stands in a room's own row.
type RoomInfo struct {
	NID     RoomNID
	ID      matrix.RoomID
	Version matrix.RoomVersion
	Public  bool
}

// RoomsByNID reads the rows of rooms by number.
func (tx *Tx) RoomsByNID(nids []RoomNID, each func(RoomInfo)) error {
	return chunks(nids, func(part []RoomNID) error {
		return tx.Query(`SELECT nid, room_id, version, public FROM rooms WHERE nid IN ({ids $1})`, func(r *Row) error {
			each(RoomInfo{RoomNID(r.Int64(0)), matrix.RoomID(r.Text(1)), matrix.RoomVersion(r.Int64(2)), r.Bool(3)})
			return nil
		}, int64s(part))
	})
}

// AddRoom notes a room before there is an event in it: for an invitation from another server. A room that is known keeps
// its number; its version has to be the one that is known, unless that too is only what an invitation said: anybody can say
// so of any room, and must not keep it from being spoken of by others.
func (db *DB) AddRoom(ctx context.Context, id matrix.RoomID, version matrix.RoomVersion) (RoomNID, error) {
	return db.addRoom(ctx, id, version, false)
}

// AddVerifiedRoom is AddRoom by whoever has seen the room's creation: what was only said of the version of a room in
// which nothing has a place yet is put right.
func (db *DB) AddVerifiedRoom(ctx context.Context, id matrix.RoomID, version matrix.RoomVersion) (RoomNID, error) {
	return db.addRoom(ctx, id, version, true)
}

func (db *DB) addRoom(ctx context.Context, id matrix.RoomID, version matrix.RoomVersion, verified bool) (RoomNID, error) {
	nid, err := db.NextNID(KindRoom)
	if err != nil {
		return 0, err
	}
	var found RoomNID
	err = db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO rooms (nid, room_id, version) VALUES ($1, $2, $3) ON CONFLICT (room_id) DO NOTHING`,
			nid, string(id), int64(version)); err != nil {
			return err
		}
		if verified {
			if _, err := tx.Exec(`UPDATE rooms SET version = $2 WHERE room_id = $1 AND version <> $2
				AND NOT EXISTS (SELECT 1 FROM events e WHERE e.room = rooms.nid AND e.pos IS NOT NULL)`, string(id), int64(version)); err != nil {
				return err
			}
		}
		var had matrix.RoomVersion
		var err error
		if found, had, _, err = tx.Room(id); err != nil || had == version {
			return err
		}
		certain, err := tx.HasPresent(found)
		if err == nil && (certain || verified) {
			err = fmt.Errorf("room %s is known in version %s, not %s", id, had, version)
		}
		return err
	})
	return found, err
}

// HasPresent says whether anything has come into a room's present: only then is its version certain.
func (tx *Tx) HasPresent(room RoomNID) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM events WHERE room = $1 AND sub = 0 AND pos IS NOT NULL)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, room)
	return yes, err
}

// WithPresent is HasPresent for several rooms: it names those in whose present something has come.
func (tx *Tx) WithPresent(rooms []RoomNID, each func(RoomNID)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT x.value FROM ({ids $1}) x WHERE EXISTS (SELECT 1 FROM events e WHERE e.room = x.value AND e.sub = 0 AND e.pos IS NOT NULL)`, func(r *Row) error {
			each(RoomNID(r.Int64(0)))
			return nil
		}, int64s(part))
	})
}

// SetPublic lists a room in the room directory or takes it out.
func (tx *Tx) SetPublic(room RoomNID, public bool) error {
	_, err := tx.Exec(`UPDATE rooms SET public = $2 WHERE nid = $1`, room, public)
	return err
}

// PublicRooms reads the rooms of the directory by number, after one and at most limit of them.
func (tx *Tx) PublicRooms(after RoomNID, limit int, each func(RoomInfo)) error {
	return tx.Query(`SELECT nid, room_id, version, public FROM rooms WHERE public AND nid > $1 ORDER BY nid LIMIT $2`, func(r *Row) error {
		each(RoomInfo{RoomNID(r.Int64(0)), matrix.RoomID(r.Text(1)), matrix.RoomVersion(r.Int64(2)), r.Bool(3)})
		return nil
	}, after, limit)
}

// Node is a node of a state tree.
type Node struct {
	Name statetree.Name
	Data []byte
}

// StateNodes reads tree nodes of a room. Absent ones are left out.
func (tx *Tx) StateNodes(room RoomNID, names []statetree.Name, each func(statetree.Name, []byte)) error {
	return chunks(names, func(part []statetree.Name) error {
		keys := make([][]byte, len(part))
		for i := range part {
			keys[i] = part[i][:]
		}
		return tx.Query(`SELECT name, data FROM state_nodes WHERE room = $1 AND name IN ({blobs $2})`, func(r *Row) error {
			var name statetree.Name
			copy(name[:], r.Bytes(0))
			each(name, append([]byte(nil), r.Bytes(1)...))
			return nil
		}, room, keys)
	})
}

// InsertNodes stores tree nodes. Those that are there already are the same, being named by their content.
func (tx *Tx) InsertNodes(room RoomNID, nodes []Node) error {
	return chunks(nodes, func(part []Node) error {
		return tx.InsertRows(nodeInsert(part, func(int) RoomNID { return room }))
	})
}

// Alias finds the room of an alias of ours and who made it; 0 if there is none.
func (tx *Tx) Alias(alias matrix.RoomAlias) (room RoomNID, creator UserNID, err error) {
	err = tx.Query(`SELECT room, creator FROM aliases WHERE alias = $1`, func(r *Row) error {
		room, creator = RoomNID(r.Int64(0)), UserNID(r.Int64(1))
		return nil
	}, string(alias))
	return room, creator, err
}

// AddAlias stores an alias; it reports false if it is taken.
func (tx *Tx) AddAlias(alias matrix.RoomAlias, room RoomNID, creator UserNID) (bool, error) {
	n, err := tx.Exec(`INSERT INTO aliases (alias, room, creator) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, string(alias), room, creator)
	return n == 1, err
}

// RemoveAlias removes an alias.
func (tx *Tx) RemoveAlias(alias matrix.RoomAlias) error {
	_, err := tx.Exec(`DELETE FROM aliases WHERE alias = $1`, string(alias))
	return err
}

// Replace lets the aliases of a room lead to another one, which takes its place in the directory.
func (tx *Tx) Replace(old, by RoomNID) error {
	if _, err := tx.Exec(`UPDATE aliases SET room = $2 WHERE room = $1`, old, by); err != nil {
		return err
	}
	n, err := tx.Exec(`UPDATE rooms SET public = FALSE WHERE nid = $1 AND public`, old)
	if err != nil || n == 0 {
		return err
	}
	return tx.SetPublic(by, true)
}

// AliasesOf reads the aliases of ours of a room.
func (tx *Tx) AliasesOf(room RoomNID) (aliases []matrix.RoomAlias, err error) {
	err = tx.Query(`SELECT alias FROM aliases WHERE room = $1 ORDER BY alias`, func(r *Row) error {
		aliases = append(aliases, matrix.RoomAlias(r.Text(0)))
		return nil
	}, room)
	return aliases, err
}
