package keys

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of key backups.
const (
	maxBackups       = 100       // versions of a user that are not deleted
	keepDeleted      = 100       // versions of a user whose deletion is remembered
	maxAuthData      = 64 << 10  // bytes
	maxSessionData   = 32 << 10  // bytes
	maxUploaded      = 10_000    // sessions of one request
	maxBackedUp      = 2_000_000 // sessions of one version
	backupPage       = 256       // sessions read at a time, and not more than backupPageBytes, or one
	backupPageBytes  = 256 << 10 // of session_data
	backupClearBatch = 2_000     // sessions removed in one transaction
)

// BackupInfo is a version of a key backup as its owner sees it.
type BackupInfo struct {
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
	Version   string          `json:"version"`
	BackupState
}

// BackupState says what a version holds: etag is another one whenever a session came, went or was replaced.
type BackupState struct {
	ETag  string `json:"etag"`
	Count int64  `json:"count"`
}

// BackupVersion is what a client says of a version (bodies of POST and PUT /room_keys/version).
type BackupVersion struct {
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
	Version   *string         `json:"version"`
}

func (v BackupVersion) check() error {
	switch {
	case v.Algorithm == "" || v.AuthData == nil:
		return matrix.MissingParam("A key backup has an algorithm and auth_data.")
	case len(v.Algorithm) > maxName || !storable(v.Algorithm):
		return matrix.InvalidParam("The name of an algorithm has at most %d bytes, and no control characters.", maxName)
	case v.AuthData[0] != '{':
		return matrix.BadJSON("auth_data is an object.")
	case len(v.AuthData) > maxAuthData:
		return matrix.TooLarge("auth_data has at most %d bytes.", maxAuthData)
	}
	return nil
}

// storable reports whether an identifier can be kept by every database: texts in PostgreSQL have no NUL.
func storable(text string) bool { return !strings.ContainsRune(text, 0) }

func noBackup() *matrix.Error { return matrix.NotFound("There is no such key backup.") }

// parseVersion reads the name of a version as the server gave it out; what it never gave out names none (M_NOT_FOUND).
func parseVersion(text string) (store.Pos, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != text {
		return 0, noBackup()
	}
	return store.Pos(n), nil
}

func versionText(v store.Pos) string { return strconv.FormatInt(int64(v), 10) }

// versions are the versions of a user's key backup, oldest first.
type versions []store.Backup

// read reads them, or locks them: see store.Tx.
func (v *versions) read(do func(store.UserNID, func(store.Backup)) error, user store.UserNID) error {
	*v = nil
	return do(user, func(b store.Backup) { *v = append(*v, b) })
}

// newest is the version that can be written to, nil if there is none.
func (v versions) newest() *store.Backup {
	for i := range slices.Backward(v) {
		if !v[i].Deleted {
			return &v[i]
		}
	}
	return nil
}

// find finds a version that is there (M_NOT_FOUND).
func (v versions) find(version store.Pos) (*store.Backup, error) {
	for i := range v {
		if v[i].Version == version && !v[i].Deleted {
			return &v[i], nil
		}
	}
	return nil, noBackup()
}

// CreateBackup makes a new version of a user's key backup, the newest, and returns its name.
func (k *Keys) CreateBackup(ctx context.Context, user User, in BackupVersion) (version string, err error) {
	if err := in.check(); err != nil {
		return "", err
	}
	err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user.NID)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			return matrix.UnknownToken(false)
		}
		var all versions
		if err := all.read(tx.LockBackups, user.NID); err != nil {
			return err
		}
		var gone []store.Pos
		for _, b := range all {
			if b.Deleted {
				gone = append(gone, b.Version)
			}
		}
		if len(all)-len(gone) >= maxBackups {
			return matrix.TooLarge("You have %d key backups. Delete one that you need no more.", maxBackups)
		}
		if len(gone) > keepDeleted {
			if err := tx.ForgetBackups(user.NID, gone[:len(gone)-keepDeleted]); err != nil {
				return err
			}
		}
		made, err := tx.AddBackup(user.NID, in.Algorithm, string(in.AuthData))
		version = versionText(made)
		return err
	})
	return version, err
}

// Backup reads a version of a user's key backup, the newest if it is not named (M_NOT_FOUND).
func (k *Keys) Backup(ctx context.Context, user User, version string) (info *BackupInfo, err error) {
	var wanted store.Pos
	if version != "" {
		if wanted, err = parseVersion(version); err != nil {
			return nil, err
		}
	}
	err = k.o.DB.Snapshot(ctx, func(tx *store.Tx) error {
		var all versions
		if err := all.read(tx.Backups, user.NID); err != nil {
			return err
		}
		b := all.newest()
		if version != "" {
			if b, err = all.find(wanted); err != nil {
				return err
			}
		}
		if b == nil {
			return matrix.NotFound("You have no key backup.")
		}
		auth, err := tx.BackupAuth(user.NID, b.Version)
		info = &BackupInfo{
			Algorithm: b.Algorithm, AuthData: json.RawMessage(auth), Version: versionText(b.Version),
			BackupState: BackupState{versionText(b.ETag), b.Count},
		}
		return err
	})
	return info, err
}

// UpdateBackup replaces the auth_data of a version; nothing else of it can change (M_INVALID_PARAM).
func (k *Keys) UpdateBackup(ctx context.Context, user User, version string, in BackupVersion) error {
	if err := in.check(); err != nil {
		return err
	}
	wanted, err := parseVersion(version)
	if err != nil {
		return err
	}
	if in.Version != nil && *in.Version != version {
		return matrix.InvalidParam("The version in the body is another one than in the path.")
	}
	return k.changeBackup(ctx, user, func(tx *store.Tx, all versions) error {
		b, err := all.find(wanted)
		if err != nil {
			return err
		}
		if b.Algorithm != in.Algorithm {
			return matrix.InvalidParam("The algorithm of a key backup cannot be changed.")
		}
		return tx.SetBackupAuth(user.NID, wanted, string(in.AuthData))
	})
}

// DeleteBackup deletes a version with its sessions. That it was deleted before is no error.
func (k *Keys) DeleteBackup(ctx context.Context, user User, version string) error {
	wanted, err := parseVersion(version)
	if err != nil {
		return err
	}
	return k.changeBackup(ctx, user, func(tx *store.Tx, all versions) error {
		at := slices.IndexFunc(all, func(b store.Backup) bool { return b.Version == wanted })
		switch {
		case at < 0:
			return noBackup()
		case all[at].Deleted:
			return nil
		}
		tx.AfterCommit(k.poke) // its sessions are cleared away by Run
		return tx.DeleteBackup(user.NID, wanted)
	})
}

// changeBackup changes versions of a user's key backup, alone.
func (k *Keys) changeBackup(ctx context.Context, user User, do func(*store.Tx, versions) error) error {
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		var all versions
		if err := all.read(tx.LockBackups, user.NID); err != nil {
			return err
		}
		return do(tx, all)
	})
}

// wrongVersion is M_WRONG_ROOM_KEYS_VERSION, with the version that can be written to.
func wrongVersion(current store.Pos) *matrix.Error {
	return matrix.Errorf(http.StatusForbidden, "M_WRONG_ROOM_KEYS_VERSION", "There is a newer key backup.").
		WithField("current_version", versionText(current))
}

// Closed tells that an account was closed: its key backups are to be cleared away.
func (k *Keys) Closed() { k.poke() }

// clearBackups removes the sessions of versions that were deleted, in short transactions. What is left undone is done
// the next time.
func (k *Keys) clearBackups(ctx context.Context) error {
	for {
		var doomed *store.Backup
		err := k.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			doomed, err = tx.DoomedBackup()
			return err
		})
		if err != nil || doomed == nil {
			return err
		}
		err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
			return tx.ClearBackup(doomed.User, doomed.Version, backupClearBatch)
		})
		if err != nil {
			return err
		}
	}
}
