// Package store is the only place that speaks SQL: two engines, PostgreSQL (pgx) and an embedded SQLite, behind one body
// of statements.
//
// Start with Open, which migrates the database, and with the four ways in: DB.Read (single statements), DB.Snapshot (one
// consistent view), DB.Write (a transaction) and DB.Batch2 (a transaction in two round trips, for the hot path). Inside
// them a Tx runs statements; methods that belong to a domain stand on Tx in that domain's file (events.go, accounts.go).
//
// A statement is one text for both engines, with parameters $1…$n; what differs is written as a macro in braces, and
// dialect.go is the only file that knows both spellings. The engines are sqlite*.go and postgres*.go. Positions
// (architecture, law 4) are in positions.go, the numbers of users, rooms and events in nids.go, the schema in schema/.
package store
