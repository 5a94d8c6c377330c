package store

import (
	"crypto/sha256"
	"encoding/base64"

	"conclave/internal/matrix"
)

// Closing is what became of an account that was closed.
type Closing struct {
	User   UserNID
	Asked  int64 // ms
	Erased Pos   // since which what the user has said is erased, 0 if it is not
	Rooms  int64 // that were to be left
	Gone   int64 // that were left
	Places int64 // rooms in which there is something to erase
	Clear  int64 // those where it is done
	Files  int64 // that were deleted

	Failure string // the last one, for people
	Working bool   // some of it is still to be done
}

// closingJobs are what closing an account sets going. The key of each is the user's ID.
var closingJobs = []string{string(JobDepart), string(JobUnbind), string(JobErase), string(JobShred)}

// BeginClosing notes that an account is closed, and how many rooms there are to leave.
func (tx *Tx) BeginClosing(user UserNID, asked int64) error {
	_, err := tx.Exec(`INSERT INTO closings (member, asked, rooms) VALUES ($1, $2,
		(SELECT count(*) FROM memberships m WHERE m.member = $1 AND m.membership IN (1, 2, 5))) ON CONFLICT (member) DO NOTHING`, user, asked)
	return err
}

// BeginErasure notes that what the user of a closed account has said is erased from a position on; it reports false if it is
// already.
func (tx *Tx) BeginErasure(user UserNID, from Pos) (bool, error) {
	n, err := tx.Exec(`UPDATE closings SET erased = $2, places = (SELECT count(*) FROM memberships m WHERE m.member = $1) WHERE member = $1 AND erased = 0`, user, from)
	if n == 1 {
		tx.AfterCommit(func() { tx.db.erasures.Add(1) })
	}
	return n == 1, err
}

// Erasures counts what this process has erased: whoever remembers whose content is erased looks again when it has grown.
func (db *DB) Erasures() uint64 { return db.erasures.Load() }

// CountErased counts the users whose content is erased.
func (tx *Tx) CountErased() (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM closings WHERE erased <> 0`).Scan(&n)
	return n, err
}

// Erased reads whose content is erased, and since which position.
func (tx *Tx) Erased(each func(UserNID, Pos)) error {
	return tx.Query(`SELECT member, erased FROM closings WHERE erased <> 0`, func(r *Row) error {
		each(UserNID(r.Int64(0)), Pos(r.Int64(1)))
		return nil
	})
}

// Closing finds what became of a closed account, nil if it is open, or was closed before this was noted.
func (tx *Tx) Closing(id matrix.UserID, user UserNID) (found *Closing, err error) {
	err = tx.Query(`SELECT asked, erased, rooms, rooms - (SELECT count(*) FROM memberships m WHERE m.member = $1 AND m.membership IN (1, 2, 5)), places, cleared, files, failure,
		EXISTS (SELECT 1 FROM jobs j WHERE j.key = $2 AND j.kind IN ({texts $3})) FROM closings WHERE member = $1`, func(r *Row) error {
		found = &Closing{
			User: user, Asked: r.Int64(0), Erased: Pos(r.Int64(1)), Rooms: r.Int64(2), Gone: r.Int64(3), Places: r.Int64(4), Clear: r.Int64(5),
			Files: r.Int64(6), Failure: r.Text(7), Working: r.Bool(8),
		}
		return nil
	}, user, string(id), closingJobs)
	return found, err
}

// ClosingCleared notes that a user's content is erased in a room.
func (tx *Tx) ClosingCleared(user UserNID) error {
	_, err := tx.Exec(`UPDATE closings SET cleared = cleared + 1 WHERE member = $1`, user)
	return err
}

// ClosingShredded notes that a file of a user was deleted.
func (tx *Tx) ClosingShredded(user UserNID) error {
	_, err := tx.Exec(`UPDATE closings SET files = files + 1 WHERE member = $1`, user)
	return err
}

// ClosingFailed notes what went wrong last, in words for people; "" that nothing is wrong any more.
func (tx *Tx) ClosingFailed(user UserNID, failure string) error {
	_, err := tx.Exec(`UPDATE closings SET failure = $2 WHERE member = $1`, user, failure)
	return err
}

// ClosingRecovered notes that what had failed is done, unless something else has failed since.
func (tx *Tx) ClosingRecovered(user UserNID, failure string) error {
	_, err := tx.Exec(`UPDATE closings SET failure = '' WHERE member = $1 AND failure = $2`, user, failure)
	return err
}

// closedTables hold what somebody may still be about to do whose account is closed, each by its member.
var closedTables = []string{"uia_sessions", "openid_tokens", "passkey_challenges", "validations"}

// EndBeginnings drops what somebody was about to do whose account is closed, also without having signed in: an address that a new
// password was asked for by is the account's.
func (tx *Tx) EndBeginnings(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM validation_tokens WHERE validation IN (SELECT id FROM validations WHERE member = $1 OR owner = $1)`, user)
	if err == nil {
		_, err = tx.Exec(`DELETE FROM validations WHERE owner = $1`, user)
	}
	for _, table := range closedTables {
		if err == nil {
			_, err = tx.Exec(`DELETE FROM `+table+` WHERE member = $1`, user)
		}
	}
	return err
}

// NextPlace finds the first room behind another that a user ever had to do with; 0 if there is none. It tells whether anybody
// else was ever in it.
func (tx *Tx) NextPlace(user UserNID, after RoomNID) (room RoomNID, shared bool, err error) {
	err = tx.Query(`SELECT m.room, EXISTS (SELECT 1 FROM memberships o WHERE o.room = m.room AND o.member <> $1 AND o.joined <> 0)
		FROM memberships m WHERE m.member = $1 AND m.room > $2 ORDER BY m.room LIMIT 1`, func(r *Row) error {
		room, shared = RoomNID(r.Int64(0)), r.Bool(1)
		return nil
	}, user, after)
	return room, shared, err
}

// EraseTexts puts the redacted form in the place of events' text, for good.
func (tx *Tx) EraseTexts(room RoomNID, events []Redaction) error {
	nids := make([]EventNID, 0, len(events))
	for _, e := range events {
		if _, err := tx.Exec(`UPDATE events SET json = $3, flags = flags | $4 WHERE nid = $1 AND room = $2`,
			e.TargetNID, room, string(e.JSON), int64(FlagRedacted)); err != nil {
			return err
		}
		nids = append(nids, e.TargetNID)
	}
	return tx.QueueForSearch(nids)
}

// placeTables hold what a user leaves in each room beside events, by room and member.
var placeTables = []string{"receipts", "early_receipts", "push_counts", "stripped_states"}

// EraseTraces drops what a user has left in a room beside events.
func (tx *Tx) EraseTraces(room RoomNID, user UserNID) error {
	for _, table := range placeTables {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE room = $1 AND member = $2`, room, user); err != nil {
			return err
		}
	}
	return nil
}

// EraseDocuments takes some of the messages of a user out of the index for search, and returns how many.
func (tx *Tx) EraseDocuments(user UserNID, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM search WHERE event IN (SELECT event FROM search WHERE sender = $1 AND kind = 1 LIMIT $2)`, user, limit)
}

// ownTables hold what is a user's own and nobody else's, each by its member.
var ownTables = []string{
	"account_data", "filters", "profiles", "presence", "people", "people_words", "push_modes", "push_people", "notice_rooms", "accepted_terms", "pushers",
}

// EraseOwn drops everything that is a user's own: settings, profile, drafts, keys. What the user is called by the
// organization's provider stays as a hash, by which a new account is refused as it was.
func (tx *Tx) EraseOwn(user UserNID, id matrix.UserID) error {
	for _, table := range ownTables {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE member = $1`, user); err != nil {
			return err
		}
	}
	for _, usage := range []KeyUsage{UserSigningKey, SelfSigningKey, MasterKey} {
		if err := tx.DeleteCrossSigningKey(user, usage); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(`DELETE FROM key_signatures WHERE member = $1 OR signer = $1`, user); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM registration_requests WHERE localpart = $1`, id.Localpart()); err != nil {
		return err
	}
	return tx.blindExternalIDs(user)
}

// blind is what is kept of a subject once its user is erased.
func blind(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return "erased:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func (tx *Tx) blindExternalIDs(user UserNID) error {
	type external struct{ issuer, subject string }
	var list []external
	err := tx.Query(`SELECT issuer, subject FROM external_ids WHERE member = $1 AND subject NOT LIKE 'erased:%'`, func(r *Row) error {
		list = append(list, external{r.Text(0), r.Text(1)})
		return nil
	}, user)
	for _, e := range list {
		if err == nil {
			_, err = tx.Exec(`UPDATE external_ids SET subject = $3 WHERE issuer = $1 AND subject = $2`, e.issuer, e.subject, blind(e.issuer, e.subject))
		}
	}
	return err
}
