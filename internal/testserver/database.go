package testserver

import (
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"conclave/internal/store"
)

// EventIDs are the events that the server's database holds of a room, sorted, whether clients see them or not: all but
// rejected ones and those that are only evidence. It reads beside the running server.
func (s *Server) EventIDs(room string) []string {
	s.t.Helper()
	const sql = `SELECT e.event_id FROM events e JOIN rooms r ON r.nid = e.room WHERE r.room_id = $1 AND e.flags & $2 = 0`
	without := int64(store.FlagRejected | store.FlagOutlier)
	var ids []string
	if s.database == "" {
		conn, err := sqlite.OpenConn(filepath.Join(s.DataDir(), "conclave.db"), sqlite.OpenReadOnly)
		if err != nil {
			s.t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it was only read
		err = sqlitex.Execute(conn, sql, &sqlitex.ExecOptions{Args: []any{room, without}, ResultFunc: func(row *sqlite.Stmt) error {
			ids = append(ids, row.ColumnText(0))
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
		rows, err := conn.Query(s.t.Context(), sql, room, without)
		if err == nil {
			ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	slices.Sort(ids)
	return ids
}
