package store

import (
	"context"
	"io/fs"
)

// Schema are the migrations, for tests that stop half way.
var Schema fs.FS = schema

// OpenSchema is Open for a list of migrations of a test's own.
func OpenSchema(ctx context.Context, o Options, files fs.FS) (*DB, error) { return open(ctx, o, files) }

// Conns are the connections of a PostgreSQL's pool, one after the other.
func (db *DB) Conns() int32 { return db.engine.(*pgEngine).pool.Stat().TotalConns() }
