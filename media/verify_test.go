package media

import (
	"bytes"
	"slices"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// damages are what could be wrong with the rows of media.
var damages = []string{
	`UPDATE media SET hash = NULL WHERE file <> ''`,
	`UPDATE media SET hash = {bytes:0102} WHERE file <> ''`,
	`UPDATE media SET file = '', hash = NULL WHERE expires = 0`,
	`UPDATE media SET expires = 0 WHERE file = ''`,
	`UPDATE media SET size = -1 WHERE file <> ''`,
	`DELETE FROM media WHERE file <> ''`,
	`UPDATE thumbnails SET media_id = 'nowhere'`,
	`UPDATE thumbnails SET hash = {bytes:0102}`,
	`UPDATE thumbnails SET size = -1`,
	`UPDATE thumbnails SET file = (SELECT max(file) FROM media)`,
	`UPDATE media_use SET bytes = bytes + 1`,
	`UPDATE media_use SET files = files - 1`,
	`DELETE FROM media_use`,
	`UPDATE media_uploads SET received = length + 1`,
	`UPDATE media_uploads SET file = ''`,
	`UPDATE media_uploads SET file = (SELECT max(file) FROM media)`,
	`UPDATE media_uploads SET media_id = (SELECT max(media_id) FROM media WHERE file <> '')`,
	`INSERT INTO media_pieces (media_id, number, etag) VALUES ('nowhere', 1, 'x')`,
}

func TestVerifyFindsDamagedRows(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.upload([]byte("text"))
		_, _, err := w.Reserve(t.Context(), 1)
		must(t, err)
		id, err := w.Upload(t.Context(), 1, Upload{Type: "image/png", Length: -1, Body: bytes.NewReader(asPNG(t, quarters(400, 300)))})
		must(t, err)
		c, err := w.Thumbnail(t.Context(), Query{Server: us, ID: id}, box(90, 90, true))
		must(t, err)
		must(t, c.File.Close())
		_, err = w.Begin(t.Context(), 1, Resumable{Length: 10})
		must(t, err)
		if list := dbtest.Findings(t, w.db); len(list) > 0 {
			t.Errorf("sound rows have %v", list)
		}
		for _, sql := range damages {
			repair := dbtest.Damage(t, w.db, sql)
			if list := dbtest.Findings(t, w.db); !slices.ContainsFunc(list, func(f store.Finding) bool { return f.Rule == "media" }) {
				t.Errorf("not reported: %s (%v)", sql, list)
			}
			repair()
		}
		if list := dbtest.Findings(t, w.db); len(list) > 0 {
			t.Errorf("the repaired rows have %v", list)
		}
	})
}
