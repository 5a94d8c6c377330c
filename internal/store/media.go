package store

import "conclave/internal/matrix"

// Media is a content of the media repository. Times are in ms.
type Media struct {
	Origin  matrix.ServerName
	ID      string
	User    UserNID // who uploaded it; 0 for a copy: of another server's content, or of a picture in the web (Origin is ours)
	File    string  // "" while only the ID is reserved
	Hash    []byte  // SHA-256
	Size    int64
	Type    string
	Name    string
	Created int64
	Used    int64
	Expires int64 // of a reserved ID

	// Withdrawn says that an administrator has put the content into quarantine: nobody is given it. Only Media fills it in.
	Withdrawn bool
}

// Media finds a content, nil if there is none.
func (tx *Tx) Media(origin matrix.ServerName, id string) (found *Media, err error) {
	err = tx.Query(`SELECT member, file, hash, size, type, name, created, used, expires,
		EXISTS (SELECT 1 FROM quarantined_media q WHERE q.origin = $1 AND q.media_id = $2) FROM media WHERE origin = $1 AND media_id = $2`, func(r *Row) error {
		found = &Media{
			Origin: origin, ID: id, User: UserNID(r.Int64(0)), File: r.Text(1), Hash: append([]byte(nil), r.Bytes(2)...), Size: r.Int64(3),
			Type: r.Text(4), Name: r.Text(5), Created: r.Int64(6), Used: r.Int64(7), Expires: r.Int64(8), Withdrawn: r.Bool(9),
		}
		return nil
	}, string(origin), id)
	return found, err
}

// AddMedia stores a new content, or reserves its ID; it reports false if the ID is taken.
func (tx *Tx) AddMedia(m Media) (bool, error) {
	n, err := tx.Exec(`INSERT INTO media (origin, media_id, member, file, hash, size, type, name, created, used, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
		string(m.Origin), m.ID, m.User, m.File, m.Hash, m.Size, m.Type, m.Name, m.Created, m.Used, m.Expires)
	if err == nil && n == 1 && m.File != "" {
		err = tx.countMedia(m.User, 1, m.Size)
	}
	return n == 1, err
}

// FillMedia gives a reserved ID of a user its content; it reports false if it has one already, has ended before now, or
// is not that user's.
func (tx *Tx) FillMedia(m Media, now int64) (bool, error) {
	n, err := tx.Exec(`UPDATE media SET file = $4, hash = $5, size = $6, type = $7, name = $8, expires = 0
		WHERE origin = $1 AND media_id = $2 AND member = $3 AND file = '' AND expires > $9`,
		string(m.Origin), m.ID, m.User, m.File, m.Hash, m.Size, m.Type, m.Name, now)
	if err == nil && n == 1 {
		err = tx.countMedia(m.User, 1, m.Size)
	}
	return n == 1, err
}

// ReservedMedia drops all reserved IDs that have ended before now, and counts those that a user still has.
func (tx *Tx) ReservedMedia(user UserNID, now int64) (n int, err error) {
	if _, err := tx.Exec(`DELETE FROM media WHERE expires > 0 AND expires <= $1`, now); err != nil {
		return 0, err
	}
	_, err = tx.QueryRow(`SELECT count(*) FROM media WHERE expires > 0 AND member = $1`, user).Scan(&n)
	return n, err
}

// TouchMedia notes when a copy was last used.
func (tx *Tx) TouchMedia(origin matrix.ServerName, id string, used int64) error {
	_, err := tx.Exec(`UPDATE media SET used = $3 WHERE origin = $1 AND media_id = $2`, string(origin), id, used)
	return err
}

// CopiedMedia is how many bytes the copies of what is elsewhere have, with the thumbnails of these.
func (tx *Tx) CopiedMedia() (bytes int64, err error) {
	_, err = tx.QueryRow(`SELECT CAST(COALESCE((SELECT sum(size) FROM media WHERE member = 0), 0)
		+ COALESCE((SELECT sum(t.size) FROM thumbnails t JOIN media m ON m.origin = t.origin AND m.media_id = t.media_id
			WHERE m.member = 0 AND t.file <> ''), 0) AS BIGINT)`).Scan(&bytes)
	return bytes, err
}

// StaleMedia reads the copies that were not used for longest.
func (tx *Tx) StaleMedia(limit int, each func(Media)) error {
	return tx.Query(`SELECT origin, media_id, file, size FROM media WHERE member = 0 ORDER BY used LIMIT $1`, func(r *Row) error {
		each(Media{Origin: matrix.ServerName(r.Text(0)), ID: r.Text(1), File: r.Text(2), Size: r.Int64(3)})
		return nil
	}, limit)
}

// DeleteMedia removes the rows of a content and returns the files that they name, for the caller to remove. found is
// false if there is none.
func (tx *Tx) DeleteMedia(origin matrix.ServerName, id string) (files []string, found bool, err error) {
	var user UserNID
	var had, bytes int64
	err = tx.Query(`DELETE FROM media WHERE origin = $1 AND media_id = $2 RETURNING file, member, size`, func(r *Row) error {
		found, user, bytes = true, UserNID(r.Int64(1)), r.Int64(2)
		if file := r.Text(0); file != "" {
			files, had = append(files, file), 1
		}
		return nil
	}, string(origin), id)
	if err != nil || !found {
		return nil, false, err
	}
	// In this order: AddThumbnail locks the content's row.
	err = tx.Query(`DELETE FROM thumbnails WHERE origin = $1 AND media_id = $2 RETURNING file`, func(r *Row) error {
		if file := r.Text(0); file != "" {
			files = append(files, file)
		}
		return nil
	}, string(origin), id)
	if err != nil || had == 0 {
		return files, true, err
	}
	return files, true, tx.countMedia(user, -1, -bytes)
}

// KnownFiles calls each for those of some files that a row names. It reads whole tables (schema 050).
func (tx *Tx) KnownFiles(files []string, each func(string)) error {
	return tx.Query(`SELECT file FROM media WHERE file IN ({texts $1}) UNION ALL SELECT file FROM thumbnails WHERE file IN ({texts $1})
		UNION ALL SELECT file FROM media_uploads WHERE file IN ({texts $1}) UNION ALL SELECT tail FROM media_uploads WHERE tail IN ({texts $1})
		UNION ALL SELECT file FROM exports WHERE file IN ({texts $1}) UNION ALL SELECT file FROM export_parts WHERE file IN ({texts $1})`, func(r *Row) error {
		each(r.Text(0))
		return nil
	}, files)
}

// ThumbnailSize is what a thumbnail was asked to be.
type ThumbnailSize struct {
	Width, Height int
	Crop          bool // fill the box, rather than fit into it
	Moving        bool // move, if the content does
}

// Thumbnail is a small image of a content.
type Thumbnail struct {
	ThumbnailSize
	File string // "" if the content itself serves
	Hash []byte
	Size int64
	Type string
}

// Thumbnail finds a thumbnail, nil if it is not made yet.
func (tx *Tx) Thumbnail(origin matrix.ServerName, id string, size ThumbnailSize) (found *Thumbnail, err error) {
	err = tx.Query(`SELECT file, hash, size, type FROM thumbnails WHERE origin = $1 AND media_id = $2 AND width = $3 AND height = $4 AND crop = $5 AND moving = $6`, func(r *Row) error {
		found = &Thumbnail{size, r.Text(0), append([]byte(nil), r.Bytes(1)...), r.Int64(2), r.Text(3)}
		return nil
	}, string(origin), id, size.Width, size.Height, size.Crop, size.Moving)
	return found, err
}

// AddThumbnail stores a thumbnail of a content; it reports false if there is one, or the content is gone.
func (tx *Tx) AddThumbnail(origin matrix.ServerName, id string, t Thumbnail) (bool, error) {
	n, err := tx.Exec(`INSERT INTO thumbnails (origin, media_id, width, height, crop, moving, file, hash, size, type)
		SELECT m.origin, m.media_id, $3, $4, $5, $6, $7, $8, $9, $10 FROM media m WHERE m.origin = $1 AND m.media_id = $2 {lock} ON CONFLICT DO NOTHING`,
		string(origin), id, t.Width, t.Height, t.Crop, t.Moving, t.File, t.Hash, t.Size, t.Type)
	return n == 1, err
}
