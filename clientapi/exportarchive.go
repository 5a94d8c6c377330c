package clientapi

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/media"
)

// archiving is the putting together of an archive.
type archiving struct {
	*export
	zip *zip.Writer
	now time.Time
}

// archive writes the whole: what is about the account, the rooms that were read before, the files.
func (m *export) archive(ctx context.Context, w io.Writer, now time.Time) error {
	a := &archiving{m, zip.NewWriter(w), now}
	steps := []func(context.Context) error{
		a.readme, a.accountFile, a.accountData, a.backup, a.audit, a.rooms, a.files,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return a.zip.Close()
}

// entry writes a compressed entry.
func (a *archiving) entry(name string, write func(*bufio.Writer) error) error {
	w, err := a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: a.now})
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := write(out); err != nil {
		return err
	}
	return out.Flush()
}

// object writes an entry that is one JSON object.
func (a *archiving) object(name string, v any) error {
	return a.entry(name, func(out *bufio.Writer) error {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// The texts that explain an archive.
const (
	readmeEN = `This archive holds what %s has of the account %s, as of %s.

account.json        the account, its profile, addresses, sessions, keys, push rules, pushers, app passwords, accepted terms; what your
                    organization's sign-in calls you, the networks that you were seen in, what you have reported
account_data.jsonl  settings of your programs: one line for each, of a room if it says so
key_backup.jsonl    the key backup, as your programs have encrypted it
audit.jsonl         what was noted of the safety of the account: sign-ins, changes, acts of administrators
rooms/*.jsonl       a file for each room that you are or were in: a line about the room and how far you have read it, then
                    every event that you may see, oldest first, whoever has sent it ("sender")
media.jsonl         the files that you have uploaded, and under what name they are in the folder media

Messages of encrypted rooms are in this archive as the server has them: encrypted (m.room.encrypted). The server cannot read
them. Only your programs can, with the keys that they hold.
Lines of .jsonl files are objects in JSON, as the Matrix specification describes them.
`
	readmeDE = `Dieses Archiv enthält, was %s vom Konto %s hat, Stand %s.

account.json        das Konto, sein Profil, Adressen, Sitzungen, Schlüssel, Benachrichtigungsregeln, App-Passwörter, angenommene
                    Bedingungen; wie die Anmeldung deiner Organisation dich nennt, die Netze, in denen du gesehen wurdest, was du
                    gemeldet hast
account_data.jsonl  Einstellungen deiner Programme: je eine Zeile, zu einem Raum, wenn es dabeisteht
key_backup.jsonl    die Sicherung der Schlüssel, so wie deine Programme sie verschlüsselt haben
audit.jsonl         was zur Sicherheit des Kontos festgehalten wurde: Anmeldungen, Änderungen, Handlungen von Administratoren
rooms/*.jsonl       je eine Datei für jeden Raum, in dem du bist oder warst: eine Zeile über den Raum und wie weit du ihn gelesen
                    hast, dann jedes Ereignis, das du sehen darfst, das älteste zuerst, von wem auch immer („sender“)
media.jsonl         die Dateien, die du hochgeladen hast, und unter welchem Namen sie im Ordner media liegen

Nachrichten verschlüsselter Räume liegen in diesem Archiv so, wie der Server sie hat: verschlüsselt (m.room.encrypted). Der Server
kann sie nicht lesen. Das können nur deine Programme, mit den Schlüsseln, die sie haben.
Die Zeilen der .jsonl-Dateien sind Objekte in JSON, so wie die Matrix-Spezifikation sie beschreibt.
`
)

func (a *archiving) readme(context.Context) error {
	for name, text := range map[string]string{"README.txt": readmeEN, "LIESMICH.txt": readmeDE} {
		err := a.entry(name, func(out *bufio.Writer) error {
			_, err := fmt.Fprintf(out, text, a.x.s.Config.ServerName, a.account.ID, a.now.UTC().Format("2006-01-02 15:04 UTC"))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// accountFile writes what is about the account itself. None of it lets anybody in.
func (a *archiving) accountFile(ctx context.Context) error {
	s, user := a.x.s, a.account.User
	profile, err := s.Accounts.Profile(ctx, user)
	if err != nil {
		return err
	}
	devices, err := s.Accounts.Devices(ctx, user)
	if err != nil {
		return err
	}
	sessions := make([]deviceAnswer, len(devices))
	for i, d := range devices {
		sessions[i] = deviceAnswer{d.ID, d.Name, d.Seen, d.Address}
	}
	threepids, err := s.Accounts.Threepids(ctx, user)
	if err != nil {
		return err
	}
	addresses := make([]threepidAnswer, len(threepids))
	for i, t := range threepids {
		addresses[i] = threepidAnswer{t.Medium, t.Address, t.Validated, t.Added}
	}
	rules, err := s.PushRules.Of(ctx, user, a.account.ID)
	if err != nil {
		return err
	}
	passkeys, err := s.Accounts.Passkeys(ctx, user)
	if err != nil {
		return err
	}
	out := map[string]any{
		"user_id": a.account.ID, "created_ts": a.account.Created, "admin": a.account.Admin, "locked": a.account.Locked, "suspended": a.account.Suspended,
		"profile": profile, "devices": sessions, "threepids": addresses, "push_rules": rules, "passkeys": passkeys,
		"second_factor_since_ts": a.account.SecondFactor,
	}
	if err := a.rest(ctx, out); err != nil {
		return err
	}
	return a.object("account.json", out)
}

// rest adds what no domain lists for its owner.
func (a *archiving) rest(ctx context.Context, out map[string]any) error {
	return a.x.s.DB.Read(ctx, func(tx *store.Tx) error {
		apps, pushers, terms := []any{}, []any{}, []any{}
		keys, deviceKeys := []json.RawMessage{}, []json.RawMessage{}
		user := a.account.User
		err := tx.AppPasswords(user, func(p store.AppPassword) {
			apps = append(apps, map[string]any{"name": p.Name, "created_ts": p.Created, "used_ts": p.Used})
		})
		if err == nil {
			err = tx.Pushers(user, func(p store.Pusher) {
				pushers = append(pushers, map[string]any{
					"kind": p.Kind, "app_id": p.AppID, "app_display_name": p.AppName, "device_display_name": p.DeviceName, "pushkey": p.Key,
					"lang": p.Lang, "data": json.RawMessage(p.Data),
				})
			})
		}
		if err == nil {
			err = tx.TermsOf(user, func(t store.AcceptedTerms, accepted int64) {
				terms = append(terms, map[string]any{"policy": t.Policy, "version": t.Version, "accepted_ts": accepted})
			})
		}
		if err == nil {
			err = tx.CrossSigningKeys([]store.UserNID{user}, func(k store.CrossSigningKey) { keys = append(keys, k.JSON) })
		}
		if err == nil {
			err = tx.DeviceKeys([]matrix.UserID{a.account.ID}, func(k store.DeviceKeys) { deviceKeys = append(deviceKeys, k.JSON) })
		}
		if err == nil {
			err = a.traces(tx, out)
		}
		out["app_passwords"], out["pushers"], out["terms"], out["cross_signing_keys"], out["device_keys"] = apps, pushers, terms, keys, deviceKeys
		return err
	})
}

// traces adds what the account's use has left beside settings.
func (a *archiving) traces(tx *store.Tx, out map[string]any) error {
	user, ids, places, reports := a.account.User, []any{}, []any{}, []any{}
	err := tx.ExternalIDs(user, func(issuer, subject string) { ids = append(ids, map[string]any{"issuer": issuer, "subject": subject}) })
	if err == nil {
		err = tx.SeenPlaces(user, func(place string, seen int64) {
			places = append(places, map[string]any{"network": place, "seen_ts": seen})
		})
	}
	if err == nil {
		err = tx.ReportsBy(user, func(r store.Report) {
			reports = append(reports, map[string]any{"room_id": r.Room, "event_id": r.Event, "user_id": r.User, "reason": r.Reason, "created_ts": r.TS})
		})
	}
	if err == nil {
		err = tx.PresenceOf([]store.UserNID{user}, func(p store.PresenceRow) {
			out["presence"] = map[string]any{"status_msg": p.Message, "last_active_ts": p.Active}
		})
	}
	out["sign_in_ids"], out["networks"], out["reports"] = ids, places, reports
	return err
}

// accountData writes settings and drafts.
func (a *archiving) accountData(ctx context.Context) error {
	type setting struct {
		Room    string          `json:"room_id,omitempty"`
		Type    string          `json:"type"`
		Content json.RawMessage `json:"content"`
	}
	return a.entry("account_data.jsonl", func(out *bufio.Writer) error {
		nid, typ := store.RoomNID(-1), ""
		for {
			var page []setting
			err := a.x.s.DB.Read(ctx, func(tx *store.Tx) error {
				page = nil
				return tx.AllAccountData(a.account.User, nid, typ, exportRows, func(n store.RoomNID, room, t, content string) {
					page = append(page, setting{room, t, json.RawMessage(content)})
					nid, typ = n, t
				})
			})
			if err != nil || len(page) == 0 {
				return err
			}
			for _, s := range page {
				if err := line(out, s); err != nil {
					return err
				}
			}
		}
	})
}

// backup writes the key backup.
func (a *archiving) backup(ctx context.Context) error {
	var versions []store.Backup
	err := a.x.s.DB.Read(ctx, func(tx *store.Tx) error {
		versions = nil
		return tx.Backups(a.account.User, func(b store.Backup) {
			if !b.Deleted {
				versions = append(versions, b)
			}
		})
	})
	if err != nil {
		return err
	}
	return a.entry("key_backup.jsonl", func(out *bufio.Writer) error {
		for _, b := range versions {
			if err := a.backupVersion(ctx, out, b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *archiving) backupVersion(ctx context.Context, out *bufio.Writer, b store.Backup) error {
	room, id := "", ""
	for {
		var page []store.BackupSession
		err := a.x.s.DB.Read(ctx, func(tx *store.Tx) error {
			page = nil
			return tx.BackupSessions(store.BackupScope{User: a.account.User, Version: b.Version}, room, id, exportRows, func(s store.BackupSession) bool {
				page = append(page, s)
				return true
			})
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, s := range page {
			room, id = s.Room, s.ID
			err := line(out, map[string]any{
				"version": fmt.Sprint(b.Version), "algorithm": b.Algorithm, "room_id": s.Room, "session_id": s.ID, "first_message_index": s.FirstIndex,
				"forwarded_count": s.Forwarded, "is_verified": s.Verified, "session_data": json.RawMessage(s.Data),
			})
			if err != nil {
				return err
			}
		}
	}
}

// audit writes what was noted of the account's safety.
func (a *archiving) audit(ctx context.Context) error {
	return a.entry("audit.jsonl", func(out *bufio.Writer) error {
		q := store.AuditQuery{User: string(a.account.ID), Oldest: true, Limit: exportRows}
		for {
			page, err := a.x.s.Accounts.Audit(ctx, q)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, e := range page {
				q.After = e.NID
				if err := line(out, accounts.LineOf(e)); err != nil {
					return err
				}
			}
		}
	})
}

// rooms puts in the rooms, which are compressed already.
func (a *archiving) rooms(ctx context.Context) error {
	after := int64(0)
	for {
		var page []store.ExportPart
		err := a.x.s.DB.Read(ctx, func(tx *store.Tx) error {
			page = nil
			return tx.ExportParts(a.account.User, after, exportRows, func(place int64, p store.ExportPart) {
				after = place
				page = append(page, p)
			})
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, p := range page {
			if err := a.part(ctx, p); err != nil {
				return err
			}
		}
	}
}

func (a *archiving) part(ctx context.Context, p store.ExportPart) error {
	file, err := a.x.s.Media.OpenFile(ctx, media.File{Name: p.File, Size: p.Packed})
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	w, err := a.zip.CreateRaw(&zip.FileHeader{
		Name: p.Name, Method: zip.Deflate, Modified: a.now, CRC32: p.Sum, CompressedSize64: uint64(p.Packed), UncompressedSize64: uint64(p.Size), //nolint:gosec // sizes of files
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return err
}

// exportedFile is a line about an uploaded file.
type exportedFile struct {
	URI     string `json:"url"`
	Name    string `json:"filename,omitempty"`
	Type    string `json:"mimetype"`
	Size    int64  `json:"size"`
	Created int64  `json:"created_ts"`
	Entry   string `json:"entry,omitempty"` // in the archive; none if the file could not be read, or an administrator has withdrawn it
}

// files puts in what the account has uploaded, and a list of it.
func (a *archiving) files(ctx context.Context) error {
	missing := map[string]bool{} // few, if any
	err := a.eachFile(ctx, func(c store.MediaOfUser) error {
		if c.Withdrawn {
			return nil
		}
		there, err := a.file(ctx, c.Media)
		if err == nil && !there {
			missing[c.ID] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	return a.entry("media.jsonl", func(out *bufio.Writer) error {
		return a.eachFile(ctx, func(c store.MediaOfUser) error {
			f := exportedFile{URI: a.x.s.Media.URI(c.ID), Name: c.Name, Type: c.Type, Size: c.Size, Created: c.Created}
			if !c.Withdrawn && !missing[c.ID] {
				f.Entry = entryOf(c.Media)
			}
			return line(out, f)
		})
	})
}

// eachFile goes through what the account has uploaded before the archive was begun.
func (a *archiving) eachFile(ctx context.Context, do func(store.MediaOfUser) error) error {
	for from := 0; ; from += exportRows {
		page, _, err := a.x.s.Media.OfUser(ctx, a.account.User, false, from, exportRows)
		if err != nil {
			return err
		}
		for _, c := range page {
			if c.Created > a.now.UnixMilli() {
				return nil
			}
			if err := do(c); err != nil {
				return err
			}
		}
		if len(page) < exportRows {
			return nil
		}
	}
}

// entryOf is the name that a file has in the archive: one that every system can have.
func entryOf(c store.Media) string { return "media/" + c.ID + extension(c.Name) }

// file puts in one file; it reports false if the file is gone.
func (a *archiving) file(ctx context.Context, c store.Media) (bool, error) {
	content, err := a.x.s.Media.Open(ctx, media.Query{Server: matrix.ServerName(a.x.s.Config.ServerName), ID: c.ID, User: a.account.User})
	var known *matrix.Error
	if errors.As(err, &known) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = content.File.Close() }()
	w, err := a.zip.CreateHeader(&zip.FileHeader{Name: entryOf(c), Method: zip.Store, Modified: time.UnixMilli(c.Created).UTC()})
	if err != nil {
		return false, err
	}
	_, err = io.Copy(w, content.File)
	return err == nil, err
}

// extension is the end of a file's name, if it is an ordinary one.
func extension(name string) string {
	ext := strings.ToLower(path.Ext(name))
	for i, c := range ext {
		if (i > 0 || c != '.') && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return ""
		}
	}
	if len(ext) > 10 {
		return ""
	}
	return ext
}
