package testserver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// tokens have the form of a token of ours, which no log of a server may hold, whatever a test does, nor the password of the
// tests' users. One begins where a word does, and not behind the sigil of a room or an event: their IDs are random letters
// too, of which one in 36,000 has somewhere what looks like a token.
var (
	tokens  = regexp.MustCompile(`cc[a-z]_[A-Za-z0-9_-]{22,}`)
	within  = regexp.MustCompile(`[A-Za-z0-9_$!-]$`)
	escaped = regexp.MustCompile(`(%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})$`)
)

// leaks are the places of secrets in a log.
func leaks(text []byte) (found [][]int) {
	for _, at := range tokens.FindAllIndex(text, -1) {
		if before := text[max(0, at[0]-6):at[0]]; !within.Match(before) || escaped.Match(before) {
			found = append(found, at)
		}
	}
	for _, secret := range []string{Password, url.QueryEscape(Password)} {
		if at := bytes.Index(text, []byte(secret)); at >= 0 {
			found = append(found, []int{at, at + len(secret)})
		}
	}
	return found
}

// faults are what a server writes of a fault of its own, whatever its answers were: the race detector's report (the server
// of a test is killed, so that nobody sees the exit code which tells it), and panics, caught or not.
var faults = regexp.MustCompile(`(?m)WARNING: DATA RACE|^fatal error: |^panic: |[^\n]*runtime/debug\.Stack\(|panic serving `)

// checkLog fails the test if the server's log holds a secret, of which it shows none, or tells of a fault of its own.
func (s *Server) checkLog() {
	s.t.Helper()
	text, err := os.ReadFile(s.LogFile())
	if err != nil {
		return // it was never started
	}
	found := leaks(text)
	for _, at := range found[:min(len(found), 5)] {
		begin := strings.LastIndexByte(string(text[:at[0]]), '\n') + 1
		s.t.Errorf("the log of %s holds a secret of %d bytes after: %s", s.Name, at[1]-at[0], text[begin:at[0]])
	}
	if at := faults.FindIndex(text); at != nil {
		s.t.Errorf("%s has a fault:\n%s", s.Name, text[at[0]:min(at[0]+8<<10, len(text))])
	}
}

// Forms are the ways in which a secret may stand somewhere: as it is, as hexadecimal digits, in base64 wherever it begins
// there, as a part of a URL, and in JSON.
func Forms(secret string) []string {
	forms := []string{secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret)))}
	for shift := range 3 { // the first and last letters hang on what stands beside it
		raw := append(make([]byte, shift), secret...)
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(raw[:len(raw)-len(raw)%3])
			if skip := []int{0, 2, 3}[shift]; len(text) > skip+12 {
				forms = append(forms, text[skip:])
			}
		}
	}
	if quoted, err := json.Marshal(secret); err == nil {
		forms = append(forms, strings.Trim(string(quoted), `"`))
	}
	return append(forms, url.QueryEscape(secret), url.PathEscape(secret))
}

// Holds says whether a text holds a secret in any of its forms.
func Holds(text, secret string) bool {
	for _, form := range Forms(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// Columns is everything that the server's database holds, as bytes by "table.column". It reads beside the running server.
func (s *Server) Columns() map[string]string {
	s.t.Helper()
	columns := map[string]string{}
	if s.database == "" {
		conn, err := sqlite.OpenConn(filepath.Join(s.DataDir(), "conclave.db"), sqlite.OpenReadOnly)
		if err != nil {
			s.t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it was only read
		for _, table := range s.read(`SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'`) {
			err := sqlitex.Execute(conn, `SELECT * FROM "`+table+`"`, &sqlitex.ExecOptions{ResultFunc: func(row *sqlite.Stmt) error {
				for i := range row.ColumnCount() {
					columns[table+"."+row.ColumnName(i)] += row.ColumnText(i) + "\n"
				}
				return nil
			}})
			if err != nil {
				s.t.Fatal(err)
			}
		}
		return columns
	}
	conn, err := pgx.Connect(s.t.Context(), s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context()) //nolint:errcheck // it was only read
	for _, table := range s.read(`SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'`) {
		rows, err := conn.Query(s.t.Context(), `SELECT * FROM "`+table+`"`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			s.t.Fatal(err)
		}
		for rows.Next() {
			for i, value := range rows.RawValues() { // text; of bytes the hexadecimal digits
				text := string(value)
				if raw, err := hex.DecodeString(strings.TrimPrefix(text, `\x`)); err == nil && strings.HasPrefix(text, `\x`) {
					text = string(raw)
				}
				columns[table+"."+rows.FieldDescriptions()[i].Name] += text + "\n"
			}
		}
		if err := rows.Err(); err != nil {
			s.t.Fatal(err)
		}
	}
	return columns
}
