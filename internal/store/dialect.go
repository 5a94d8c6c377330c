package store

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
)

// dialect turns the SQL of this package into that of one engine. Statements are expanded once per text and types of
// arguments.
//
// Macros in statements: {ids $n}, {texts $n} and {blobs $n} are a sub-select over a list parameter ([]int64, []string,
// [][]byte) with one column, "value", to be used as IN ({ids $1}) or FROM ({blobs $1}) v, and {rows $n} is {ids $n} by another name; {now} is the database's clock in ms; {least} and {greatest} are the functions;
// {lock} and {skip locked} end a SELECT whose rows are about to be changed; {ilike} compares without regard to the case
// of ASCII letters; {search}, {match}$n{in rooms}$m{matched} belong to Tx.Search. In the schema: {text}, {bytes}, {bigid} (a number that is a primary key), {norowid} (a table that is
// looked up by its whole key), {postgres: …} and {sqlite: …} (only there).
type dialect struct {
	postgres bool
	known    atomic.Pointer[map[statement]string]
}

// statement is a text together with the types of its arguments.
type statement struct {
	sql   string
	types signature
}

// signature holds four bits per argument: what it is.
type signature [2]uint64

// maxArgs is how many arguments a statement can have.
const maxArgs = 32

func (s *signature) set(i int, k argKind) { s[i/16] |= uint64(k) << (i % 16 * 4) }
func (s signature) at(i int) argKind      { return argKind(s[i/16] >> (i % 16 * 4) & 15) }

// argKind is the type of an argument, zero for a bare NULL.
type argKind uint8

const (
	argNull argKind = iota
	argInt
	argText
	argBytes
	argBool
	argInts
	argTexts
	argBlobs
)

// pgTypes are PostgreSQL's names of the kinds. Every parameter is cast to one: PostgreSQL would otherwise guess from the
// first place where it stands ("$1 = 0" is a 32-bit number there and 64 bits in SQLite).
var pgTypes = [...]string{"", "bigint", "text", "bytea", "boolean", "bigint[]", "text[]", "bytea[]"}

// maxStatements bounds the memory of expanded statements. Texts come from this package, never from outside, so that it
// is not reached.
const maxStatements = 10_000

// text expands sql, once.
func (d *dialect) text(sql string, types signature) (string, error) {
	key := statement{sql, types}
	known := d.known.Load()
	if known != nil {
		if text, ok := (*known)[key]; ok {
			return text, nil
		}
	}
	text, err := d.expand(sql, types, true)
	if err != nil {
		return "", err
	}
	for {
		next := map[statement]string{}
		if known != nil && len(*known) < maxStatements {
			maps.Copy(next, *known)
		}
		next[key] = text
		if d.known.CompareAndSwap(known, &next) {
			return text, nil
		}
		known = d.known.Load()
	}
}

// expand replaces macros and, if params is set, parameters. Quoted text stays as it is; comments go.
func (d *dialect) expand(sql string, types signature, params bool) (string, error) {
	var out strings.Builder
	out.Grow(len(sql) + 64)
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == '\'' || c == '"':
			width := strings.IndexByte(sql[i+1:], c)
			if width < 0 {
				return "", fmt.Errorf("unclosed %c in %q", c, sql)
			}
			out.WriteString(sql[i : i+width+2])
			i += width + 2
		case strings.HasPrefix(sql[i:], "--"):
			width := strings.IndexByte(sql[i:], '\n')
			if width < 0 {
				width = len(sql) - i
			}
			i += width
		case c == '$' && params:
			n, width := number(sql[i+1:])
			if n == 0 || n > maxArgs {
				return "", fmt.Errorf("bad parameter in %q", sql)
			}
			param := d.param(n, types.at(n-1))
			if !d.postgres && limits(sql[:i]) {
				param = "(" + param + " + 0)"
			}
			out.WriteString(param)
			i += 1 + width
		case c == '{', d.postgres && (strings.HasPrefix(sql[i:], inList) || strings.HasPrefix(sql[i:], notInList)):
			width, err := d.macro(&out, sql[i:], types)
			if err != nil {
				return "", fmt.Errorf("%w in %q", err, sql)
			}
			i += width
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String(), nil
}

// limits says whether what follows is how many rows are wanted. Where that is a bare parameter, SQLite plans by its value
// and prepares the statement anew each time it is bound, which costs more than most of these statements; of a sum it
// takes no notice.
func limits(before string) bool {
	return strings.HasSuffix(before, "LIMIT ") || strings.HasSuffix(before, "OFFSET ")
}

// closing is the length of a macro, which begins with a brace. Braces may be nested.
func closing(sql string) (int, error) {
	depth := 0
	for i := range len(sql) {
		switch sql[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, fmt.Errorf("unclosed brace")
}

// number reads a parameter's number, 0 if there is none.
func number(s string) (n, width int) {
	for width < len(s) && width < 3 && s[width] >= '0' && s[width] <= '9' {
		n = 10*n + int(s[width]-'0')
		width++
	}
	return n, width
}

// param spells a parameter. In SQLite "$1" would be a name, numbered by where it first appears; "?1" is a number.
func (d *dialect) param(n int, kind argKind) string {
	if !d.postgres {
		return "?" + strconv.Itoa(n)
	}
	if kind == argNull {
		return "$" + strconv.Itoa(n)
	}
	return "$" + strconv.Itoa(n) + "::" + pgTypes[kind]
}

// macros are those without a parameter: PostgreSQL's spelling, then SQLite's.
var macros = map[string][2]string{
	"text":        {`TEXT COLLATE "C"`, `TEXT`},
	"bytes":       {`BYTEA`, `BLOB`},
	"bigid":       {`BIGINT`, `INTEGER`},
	"norowid":     {``, ` WITHOUT ROWID`},
	"now":         {`(extract(epoch FROM clock_timestamp()) * 1000)::bigint`, `CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER)`},
	"least":       {`least`, `min`},
	"greatest":    {`greatest`, `max`},
	"lock":        {`FOR UPDATE`, ``},
	"skip locked": {`FOR UPDATE SKIP LOCKED`, ``},
	"ilike":       {`ILIKE`, `LIKE`},

	"search":   {`search s`, `search_words JOIN search s ON s.event = search_words.rowid`},
	"match":    {`s.words @@ (plainto_tsquery('simple', `, `search_words MATCH (`},
	"in rooms": {`) && CAST(`, ` || `},
	"matched":  {` AS tsquery))`, `)`},
}

// lists are the macros over a list parameter.
var lists = map[string]argKind{"ids": argInts, "rows": argInts, "texts": argTexts, "blobs": argBlobs}

// How a list is asked for a value. PostgreSQL gets "= ANY" of an array instead: it knows how to look each of its values up
// in an index, where of a sub-select it may think that reading the whole table is cheaper.
const (
	inList    = "IN ({"
	notInList = "NOT IN ({"
)

// macro expands the macro at the beginning of sql and returns its length.
func (d *dialect) macro(out *strings.Builder, sql string, types signature) (int, error) {
	for start, spelling := range map[string]string{inList: "= ANY(", notInList: "<> ALL("} {
		if list, ok := strings.CutPrefix(sql, start); ok {
			body, _, closed := strings.Cut(list, "})")
			name, param, err := d.listParam(body, types)
			if err != nil || !closed {
				return 0, errors.Join(err, fmt.Errorf("unknown list {%s", name))
			}
			out.WriteString(spelling + param + ")")
			return len(start) + len(body) + len("})"), nil
		}
	}
	width, err := closing(sql)
	if err != nil {
		return 0, err
	}
	body := sql[1 : width-1]
	if spellings, ok := macros[body]; ok {
		if d.postgres {
			out.WriteString(spellings[0])
		} else {
			out.WriteString(spellings[1])
		}
		return width, nil
	}
	if engine, text, ok := strings.Cut(body, ":"); ok && (engine == "postgres" || engine == "sqlite") {
		if d.postgres == (engine == "postgres") {
			out.WriteString(text)
		}
		return width, nil
	}
	return width, d.list(out, body, types)
}

// listParam reads the body of a macro over a list parameter.
func (d *dialect) listParam(body string, types signature) (name, param string, err error) {
	name, param, _ = strings.Cut(body, " $")
	kind, ok := lists[name]
	n, width := number(param)
	if !ok || n == 0 || n > maxArgs || width != len(param) {
		return name, "", fmt.Errorf("unknown macro {%s}", body)
	}
	if types.at(n-1) != kind {
		return name, "", fmt.Errorf("{%s} wants a %s", body, pgTypes[kind])
	}
	return name, d.param(n, kind), nil
}

// list expands a list to a sub-select.
func (d *dialect) list(out *strings.Builder, body string, types signature) error {
	name, param, err := d.listParam(body, types)
	switch {
	case err != nil:
		return err
	case d.postgres:
		out.WriteString("SELECT unnest(" + param + ") AS value")
	case lists[name] == argBlobs:
		out.WriteString("SELECT unhex(value) AS value FROM json_each(" + param + ")")
	default:
		out.WriteString("SELECT value FROM json_each(" + param + ")")
	}
	return nil
}

// lockRooms takes the locks of rooms, on PostgreSQL and on SQLite.
var lockRooms = map[bool]string{
	true:  `SELECT r.value, pg_try_advisory_xact_lock(r.value) FROM ({rows $1}) r ORDER BY r.value`,
	false: `SELECT r.value, TRUE FROM ({rows $1}) r`,
}

// leapStream makes PostgreSQL's sequence leave out positions, and answers with the first of them.
const leapStream = `SELECT setval('stream', last_value + $1) - $1 + 1 FROM stream`
