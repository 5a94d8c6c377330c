package testserver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Kept is everything that the server has written so far, as bytes by where they are: the files below its directory, its
// log and an embedded database among them, and each table of a PostgreSQL database as text.
func (s *Server) Kept() map[string]string {
	s.t.Helper()
	kept := map[string]string{}
	err := filepath.WalkDir(s.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path) //nolint:gosec // below the test's own directory
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has removed it in this moment
		}
		kept[strings.TrimPrefix(path, s.Dir)] = string(text)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.database == "" {
		return kept
	}
	for _, table := range s.read(`SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'`) {
		kept[table] = strings.Join(s.read(`SELECT t::text FROM "`+table+`" t`), "\n")
	}
	return kept
}
