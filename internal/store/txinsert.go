package store

import (
	"strconv"
	"strings"
)

// Insert describes rows to be inserted: one statement over arrays on PostgreSQL, a prepared one in a loop on SQLite.
type Insert struct {
	Table string
	Cols  []Col
	Rows  int

	// Suffix follows the rows, in the SQL of both engines: ON CONFLICT …, RETURNING …
	Suffix string
}

// Col is a column of an Insert: its name and a function for the values of its rows. Make one by IntCol and its like.
type Col struct {
	name  string
	kind  argKind
	ints  func(row int) (v int64, valid bool)
	texts func(row int) (v string, valid bool)
	blobs func(row int) []byte
	bools func(row int) bool
}

// integer is any whole number that fits a BIGINT.
type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32
}

// IntCol is a column of whole numbers.
func IntCol[T integer](name string, at func(row int) T) Col {
	return Col{name: name, kind: argInt, ints: func(row int) (int64, bool) { return int64(at(row)), true }}
}

// NullIntCol is a column of whole numbers, NULL where at reports false.
func NullIntCol[T integer](name string, at func(row int) (T, bool)) Col {
	return Col{name: name, kind: argInt, ints: func(row int) (int64, bool) {
		v, valid := at(row)
		return int64(v), valid
	}}
}

// TextCol is a column of texts.
func TextCol[T ~string](name string, at func(row int) T) Col {
	return Col{name: name, kind: argText, texts: func(row int) (string, bool) { return string(at(row)), true }}
}

// NullTextCol is a column of texts, NULL where at reports false.
func NullTextCol[T ~string](name string, at func(row int) (T, bool)) Col {
	return Col{name: name, kind: argText, texts: func(row int) (string, bool) {
		v, valid := at(row)
		return string(v), valid
	}}
}

// BytesCol is a column of bytes; nil is NULL.
func BytesCol(name string, at func(row int) []byte) Col {
	return Col{name: name, kind: argBytes, blobs: at}
}

// BoolCol is a column of truth values.
func BoolCol(name string, at func(row int) bool) Col {
	return Col{name: name, kind: argBool, bools: at}
}

// InsertRows inserts rows; none is no statement.
func (tx *Tx) InsertRows(in Insert) error {
	_, err := tx.InsertReturning(in, nil)
	return err
}

// InsertReturning inserts rows, calls each for the rows that a RETURNING in the suffix gives, in no particular order, and
// returns how many were inserted or changed.
func (tx *Tx) InsertReturning(in Insert, each func(*Row) error) (int64, error) {
	if in.Rows == 0 {
		return 0, nil
	}
	return tx.guard(each, func(each func(*Row) error) (int64, error) { return tx.conn.insert(tx.ctx, &in, each) })
}

// head is the statement up to its values.
func (in *Insert) head(b *strings.Builder) {
	b.WriteString("INSERT INTO ")
	b.WriteString(in.Table)
	for i, c := range in.Cols {
		if i == 0 {
			b.WriteString(" (")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(c.name)
	}
	b.WriteString(") ")
}

// sqliteText is the statement for one row.
func (in *Insert) sqliteText() string {
	var b strings.Builder
	in.head(&b)
	for i := range in.Cols {
		if i == 0 {
			b.WriteString("VALUES (?")
		} else {
			b.WriteString(", ?")
		}
		b.WriteString(strconv.Itoa(i + 1))
	}
	b.WriteString(") ")
	b.WriteString(in.Suffix)
	return b.String()
}

// arrayTypes are the types of a column's values on PostgreSQL.
var arrayTypes = map[argKind]string{argInt: "bigint[]", argText: "text[]", argBytes: "bytea[]", argBool: "boolean[]"}

// postgresText is the statement for all rows.
func (in *Insert) postgresText() string {
	var b strings.Builder
	in.head(&b)
	for i, c := range in.Cols {
		if i == 0 {
			b.WriteString("SELECT * FROM unnest($")
		} else {
			b.WriteString(", $")
		}
		b.WriteString(strconv.Itoa(i + 1))
		b.WriteString("::")
		b.WriteString(arrayTypes[c.kind])
	}
	b.WriteString(") ")
	b.WriteString(in.Suffix)
	return b.String()
}

// arrays are the parameters of postgresText.
func (in *Insert) arrays() []any {
	args := make([]any, len(in.Cols))
	for i, c := range in.Cols {
		switch c.kind {
		case argInt:
			args[i] = collect(in.Rows, c.ints)
		case argText:
			args[i] = collect(in.Rows, c.texts)
		case argBytes:
			list := make([][]byte, in.Rows)
			for row := range list {
				list[row] = c.blobs(row)
			}
			args[i] = list
		case argBool:
			list := make([]bool, in.Rows)
			for row := range list {
				list[row] = c.bools(row)
			}
			args[i] = list
		}
	}
	return args
}

// collect gathers a column: plain values, or pointers if some are NULL.
func collect[T any](rows int, at func(row int) (T, bool)) any {
	list := make([]T, rows)
	for row := range list {
		v, valid := at(row)
		if !valid {
			return collectNulls(rows, at)
		}
		list[row] = v
	}
	return list
}

func collectNulls[T any](rows int, at func(row int) (T, bool)) []*T {
	list := make([]*T, rows)
	for row := range list {
		if v, valid := at(row); valid {
			list[row] = &v
		}
	}
	return list
}
