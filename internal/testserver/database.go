package testserver

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"conclave/internal/store"
)

// EventIDs are the events that the server's database holds of a room, sorted, whether clients see them or not: all but
// rejected ones, those that are only evidence, and those of the server itself that its room did not take, which nobody
// else hears of. It reads beside the running server.
func (s *Server) EventIDs(room string) []string {
	s.t.Helper()
	return s.read(`SELECT e.event_id FROM events e JOIN rooms r ON r.nid = e.room WHERE r.room_id = $1 AND e.flags & $2 = 0 AND e.flags & $3 <> $3`,
		room, int64(store.FlagRejected|store.FlagOutlier), int64(store.FlagSoftFailed|store.FlagSend))
}

// Waiting are the events of a room that came and have found no place yet.
func (s *Server) Waiting(room string) []string {
	s.t.Helper()
	return s.read(`SELECT w.event_id FROM staged w JOIN rooms r ON r.nid = w.room WHERE r.room_id = $1`, room)
}

// SoftFailed are the events of a room that the server does not build on.
func (s *Server) SoftFailed(room string) []string {
	s.t.Helper()
	return s.read(`SELECT e.event_id FROM events e JOIN rooms r ON r.nid = e.room WHERE r.room_id = $1 AND e.flags & $2 <> 0`, room, int64(store.FlagSoftFailed))
}

// EventJSON is the text of an event, or of one that waits; "" if it is not held.
func (s *Server) EventJSON(id string) string {
	s.t.Helper()
	return strings.Join(s.read(`SELECT json FROM events WHERE event_id = $1 UNION SELECT json FROM staged WHERE event_id = $1`, id), "")
}

// StatusMessages are the users' status messages that the server's database holds.
func (s *Server) StatusMessages() []string {
	s.t.Helper()
	return s.read(`SELECT message FROM presence WHERE message <> ''`)
}

// Rows are what a statement finds in the server's database, its first column as text, sorted.
func (s *Server) Rows(sql string) []string {
	s.t.Helper()
	return s.read(sql)
}

// read reads a column of text, sorted.
func (s *Server) read(sql string, args ...any) (out []string) {
	s.t.Helper()
	if s.database == "" {
		conn, err := sqlite.OpenConn(filepath.Join(s.DataDir(), "conclave.db"), sqlite.OpenReadOnly)
		if err != nil {
			s.t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it was only read
		err = sqlitex.Execute(conn, sql, &sqlitex.ExecOptions{Args: args, ResultFunc: func(row *sqlite.Stmt) error {
			out = append(out, row.ColumnText(0))
			return nil
		}})
		if err != nil {
			s.t.Fatal(err)
		}
	} else {
		conn, err := pgx.Connect(s.t.Context(), s.database)
		if err != nil {
			s.t.Fatal(err)
		}
		defer conn.Close(s.t.Context()) //nolint:errcheck // it was only read
		rows, err := conn.Query(s.t.Context(), sql, args...)
		if err == nil {
			out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	slices.Sort(out)
	return out
}

// Rewrite changes what the database of a server that is stopped holds, as time would or somebody who must not.
func (s *Server) Rewrite(sql string) {
	s.t.Helper()
	var err error
	if s.database == "" {
		var conn *sqlite.Conn
		if conn, err = sqlite.OpenConn(filepath.Join(s.DataDir(), "conclave.db"), sqlite.OpenReadWrite); err == nil {
			defer conn.Close() //nolint:errcheck // an error of what was done is looked at
			err = sqlitex.Execute(conn, sql, nil)
		}
	} else {
		var conn *pgx.Conn
		if conn, err = pgx.Connect(s.t.Context(), s.database); err == nil {
			defer conn.Close(s.t.Context()) //nolint:errcheck // an error of what was done is looked at
			_, err = conn.Exec(s.t.Context(), sql)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
