package store

// MediaUpload is an upload that comes in pieces. Times are in ms.
type MediaUpload struct {
	ID       string // of the content that it will be
	User     UserNID
	File     string // the name that the file will have
	Length   int64  // bytes of the whole
	Received int64  // bytes that are durable
	Sum      []byte // state of the SHA-256 over these
	Wanted   []byte // SHA-256 of the whole as announced, nil if it was not
	Type     string
	Name     string
	Place    string // where the file store gathers the pieces, as it understands it
	Tail     string // likewise, the bytes behind the last whole piece
	Fence    int64  // of the request that may write
	Created  int64
	Expires  int64
}

const uploadColumns = `media_id, member, file, length, received, sum, wanted, type, name, place, tail, fence, created, expires`

func uploadOf(r *Row) *MediaUpload {
	u := &MediaUpload{
		ID: r.Text(0), User: UserNID(r.Int64(1)), File: r.Text(2), Length: r.Int64(3), Received: r.Int64(4), Sum: append([]byte(nil), r.Bytes(5)...),
		Type: r.Text(7), Name: r.Text(8), Place: r.Text(9), Tail: r.Text(10), Fence: r.Int64(11), Created: r.Int64(12), Expires: r.Int64(13),
	}
	if !r.IsNull(6) {
		u.Wanted = append([]byte(nil), r.Bytes(6)...)
	}
	return u
}

// AddMediaUpload begins an upload.
func (tx *Tx) AddMediaUpload(u MediaUpload) error {
	_, err := tx.Exec(`INSERT INTO media_uploads (`+uploadColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		u.ID, u.User, u.File, u.Length, u.Received, u.Sum, u.Wanted, u.Type, u.Name, u.Place, u.Tail, u.Fence, u.Created, u.Expires)
	return err
}

// MediaUpload finds an upload, nil if there is none.
func (tx *Tx) MediaUpload(id string) (found *MediaUpload, err error) {
	err = tx.Query(`SELECT `+uploadColumns+` FROM media_uploads WHERE media_id = $1`, func(r *Row) error {
		found = uploadOf(r)
		return nil
	}, id)
	return found, err
}

// MediaUploadsOf reads some of the unfinished uploads of a user.
func (tx *Tx) MediaUploadsOf(user UserNID, limit int, each func(MediaUpload)) error {
	return tx.Query(`SELECT `+uploadColumns+` FROM media_uploads WHERE member = $1 ORDER BY media_id LIMIT $2`, func(r *Row) error {
		each(*uploadOf(r))
		return nil
	}, user, limit)
}

// CountMediaUploads counts the unfinished uploads of a user.
func (tx *Tx) CountMediaUploads(user UserNID) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM media_uploads WHERE member = $1`, user).Scan(&n)
	return n, err
}

// TakeMediaUpload finds an upload for a request that is going to write to it: whoever had it before can no longer save
// what it does. nil if there is none.
func (tx *Tx) TakeMediaUpload(id string) (found *MediaUpload, err error) {
	err = tx.Query(`UPDATE media_uploads SET fence = fence + 1 WHERE media_id = $1 RETURNING `+uploadColumns, func(r *Row) error {
		found = uploadOf(r)
		return nil
	}, id)
	return found, err
}

// SaveMediaUpload stores how far an upload has come; it reports false if another request has taken it, or it is gone.
func (tx *Tx) SaveMediaUpload(u MediaUpload) (bool, error) {
	n, err := tx.Exec(`UPDATE media_uploads SET received = $3, sum = $4, place = $5, tail = $6, expires = $7 WHERE media_id = $1 AND fence = $2`,
		u.ID, u.Fence, u.Received, u.Sum, u.Place, u.Tail, u.Expires)
	return n == 1, err
}

// AddMediaPiece notes a piece of an upload, in the place of one with the same number.
func (tx *Tx) AddMediaPiece(id string, number int, etag string) error {
	_, err := tx.Exec(`INSERT INTO media_pieces (media_id, number, etag) VALUES ($1, $2, $3)
		ON CONFLICT (media_id, number) DO UPDATE SET etag = excluded.etag`, id, number, etag)
	return err
}

// MediaPieces reads the pieces of an upload in their order.
func (tx *Tx) MediaPieces(id string, each func(number int, etag string)) error {
	return tx.Query(`SELECT number, etag FROM media_pieces WHERE media_id = $1 ORDER BY number`, func(r *Row) error {
		each(int(r.Int64(0)), r.Text(1))
		return nil
	}, id)
}

// EndMediaUpload removes the rows of an upload that is complete or given up; it reports false if another request has
// taken it, or it is gone.
func (tx *Tx) EndMediaUpload(id string, fence int64) (bool, error) {
	n, err := tx.Exec(`DELETE FROM media_uploads WHERE media_id = $1 AND fence = $2`, id, fence)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = tx.Exec(`DELETE FROM media_pieces WHERE media_id = $1`, id)
	return true, err
}
