package store

import (
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"zombiezen.com/go/sqlite"
)

// Row is the row that a Query stands at. Columns count from 0. A NULL reads as zero. A column that is not of the type
// asked for makes the Query fail.
type Row struct {
	lite *sqlite.Stmt

	values [][]byte
	fields []pgconn.FieldDescription

	err error
}

func (r *Row) fail(i int, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("column %d is not a %s", i+1, want)
	}
}

// value is a column as PostgreSQL sent it, in its binary form; nil for NULL.
func (r *Row) value(i int) []byte {
	if i < len(r.values) {
		return r.values[i]
	}
	r.fail(i, "column of this row")
	return nil
}

// IsNull reports whether a column is NULL.
func (r *Row) IsNull(i int) bool {
	if r.lite != nil {
		return r.lite.ColumnType(i) == sqlite.TypeNull
	}
	return r.value(i) == nil
}

// Int64 reads a whole number. The sum of a column of numbers must be cast to BIGINT to be one.
func (r *Row) Int64(i int) int64 {
	if r.lite != nil {
		if t := r.lite.ColumnType(i); t != sqlite.TypeInteger && t != sqlite.TypeNull {
			r.fail(i, "whole number")
		}
		return r.lite.ColumnInt64(i)
	}
	b := r.value(i)
	if b == nil {
		return 0
	}
	switch oid := r.fields[i].DataTypeOID; {
	case oid == pgtype.Int8OID && len(b) == 8:
		return int64(binary.BigEndian.Uint64(b))
	case oid == pgtype.Int4OID && len(b) == 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	case oid == pgtype.Int2OID && len(b) == 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	}
	r.fail(i, "whole number")
	return 0
}

// Int reads a whole number as an int.
func (r *Row) Int(i int) int { return int(r.Int64(i)) }

// Bool reads a truth value.
func (r *Row) Bool(i int) bool {
	if r.lite != nil {
		return r.lite.ColumnInt64(i) != 0
	}
	b := r.value(i)
	if b == nil {
		return false
	}
	if r.fields[i].DataTypeOID != pgtype.BoolOID || len(b) != 1 {
		r.fail(i, "truth value")
		return false
	}
	return b[0] != 0
}

// Text reads a text.
func (r *Row) Text(i int) string {
	if r.lite != nil {
		if t := r.lite.ColumnType(i); t != sqlite.TypeText && t != sqlite.TypeNull {
			r.fail(i, "text")
		}
		return r.lite.ColumnText(i)
	}
	b := r.value(i)
	if b == nil {
		return ""
	}
	if oid := r.fields[i].DataTypeOID; oid != pgtype.TextOID && oid != pgtype.VarcharOID && oid != pgtype.NameOID {
		r.fail(i, "text")
	}
	return string(b)
}

// Bytes reads bytes, nil for NULL. They are the caller's only until it returns: copy what is to be kept. A text can be
// read as bytes too.
func (r *Row) Bytes(i int) []byte {
	if r.lite != nil {
		switch r.lite.ColumnType(i) {
		case sqlite.TypeNull:
			return nil
		case sqlite.TypeBlob, sqlite.TypeText:
		default:
			r.fail(i, "row of bytes")
		}
		b := make([]byte, r.lite.ColumnLen(i))
		r.lite.ColumnBytes(i, b)
		return b
	}
	b := r.value(i)
	if b == nil {
		return nil
	}
	switch r.fields[i].DataTypeOID {
	case pgtype.ByteaOID, pgtype.TextOID, pgtype.VarcharOID:
	default:
		r.fail(i, "row of bytes")
	}
	return b
}

// Scan reads the first columns into *int64, *int, *string, *[]byte (a copy), *bool and the store's numbered types, and
// into pointers to pointers of *int64 and *string where NULL matters.
func (r *Row) Scan(dest ...any) error {
	for i, d := range dest {
		switch d := d.(type) {
		case *int64:
			*d = r.Int64(i)
		case *int:
			*d = r.Int(i)
		case *string:
			*d = r.Text(i)
		case *[]byte:
			*d = append([]byte(nil), r.Bytes(i)...)
		case *bool:
			*d = r.Bool(i)
		case *Pos:
			*d = Pos(r.Int64(i))
		case *RoomNID:
			*d = RoomNID(r.Int64(i))
		case *UserNID:
			*d = UserNID(r.Int64(i))
		case *EventNID:
			*d = EventNID(r.Int64(i))
		case *ServerNID:
			*d = ServerNID(r.Int64(i))
		case **int64:
			*d = nil
			if !r.IsNull(i) {
				v := r.Int64(i)
				*d = &v
			}
		case **string:
			*d = nil
			if !r.IsNull(i) {
				v := r.Text(i)
				*d = &v
			}
		default:
			return fmt.Errorf("column %d cannot be read into a %T", i+1, d)
		}
	}
	return r.err
}
