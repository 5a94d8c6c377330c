package store

// Directory is the issuer of external IDs that the organization's directory (LDAP) gives.
const Directory = "ldap"

// DirectoryID is whom the organization's directory means by an ID of its own.
type DirectoryID struct {
	User    UserNID
	Subject string
	Gone    int64 // ms when the directory was found to have them no more, 0 if it has them
}

// DirectoryID finds what the directory calls a user by, nil if that is nothing.
func (tx *Tx) DirectoryID(user UserNID) (found *DirectoryID, err error) {
	err = tx.Query(`SELECT subject, gone FROM external_ids WHERE member = $1 AND issuer = $2`, func(r *Row) error {
		found = &DirectoryID{user, r.Text(0), r.Int64(1)}
		return nil
	}, user, Directory)
	return found, err
}

// DirectoryIDs reads whom the directory means by its IDs, in their order, after one and at most limit of them. Closed
// accounts are left out, those that were erased among them: nothing of them is open, and whoever has left an organization
// says nothing about it.
func (tx *Tx) DirectoryIDs(after string, limit int, each func(DirectoryID)) error {
	return tx.Query(`SELECT e.member, e.subject, e.gone FROM external_ids e JOIN accounts a ON a.member = e.member
		WHERE e.issuer = $1 AND e.subject > $2 AND NOT a.deactivated ORDER BY e.subject LIMIT $3`, func(r *Row) error {
		each(DirectoryID{UserNID(r.Int64(0)), r.Text(1), r.Int64(2)})
		return nil
	}, Directory, after, limit)
}

// SetDirectoryGone notes since when (ms) the directory has somebody no more, or with 0 that it has them; it reports false
// if that was noted already.
func (tx *Tx) SetDirectoryGone(user UserNID, gone int64) (bool, error) {
	n, err := tx.Exec(`UPDATE external_ids SET gone = $3 WHERE member = $1 AND issuer = $2 AND (gone = 0) <> ($3 = 0)`, user, Directory, gone)
	return n == 1, err
}
