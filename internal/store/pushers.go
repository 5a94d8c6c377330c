package store

import "conclave/internal/matrix"

// Pusher is where a user is told of notifications, and how far that has got (law 10).
type Pusher struct {
	NID        int64
	User       UserNID
	UserID     matrix.UserID // filled in when read
	Device     int64
	Kind       string
	AppID      string
	Key        string // pushkey
	AppName    string
	DeviceName string
	Profile    string // profile_tag
	Lang       string
	Data       string // a JSON object
	Created    int64  // ms: when it was last set

	Pos     Pos   // what is after it has not been delivered or passed over
	Badge   int64 // the count of unread messages that was delivered last, -1 if none was
	Fails   int   // attempts in a row that failed
	Failing int64 // ms: since when
	RetryAt int64 // ms; 0 if it does not fail; of kind email: when to look whether a mail is due, 0 if nothing waits
	Waiting int64 // of kind email, ms: since when something has waited, 0 if nothing does
	Mailed  int64 // of kind email, ms: when the last mail was written, 0 if none was
	Stage   int   // of kind email: how many mails since the user was seen
	fence   int64
}

const pusherColumns = `nid, member, device, kind, app_id, pushkey, app_name, device_name, profile, lang, data, created, pos, badge, fails, failing, retry_at, fence, waiting, mailed, stage,
	(SELECT u.user_id FROM users u WHERE u.nid = pushers.member)`

func pusherRow(r *Row) Pusher {
	return Pusher{
		NID: r.Int64(0), User: UserNID(r.Int64(1)), Device: r.Int64(2), Kind: r.Text(3), AppID: r.Text(4), Key: r.Text(5), AppName: r.Text(6),
		DeviceName: r.Text(7), Profile: r.Text(8), Lang: r.Text(9), Data: r.Text(10), Created: r.Int64(11), Pos: Pos(r.Int64(12)), Badge: r.Int64(13),
		Fails: r.Int(14), Failing: r.Int64(15), RetryAt: r.Int64(16), fence: r.Int64(17),
		Waiting: r.Int64(18), Mailed: r.Int64(19), Stage: r.Int(20), UserID: matrix.UserID(r.Text(21)),
	}
}

// Pushers reads a user's pushers, oldest first.
func (tx *Tx) Pushers(user UserNID, each func(Pusher)) error {
	return tx.Query(`SELECT `+pusherColumns+` FROM pushers WHERE member = $1 ORDER BY nid`, func(r *Row) error {
		each(pusherRow(r))
		return nil
	}, user)
}

// Pusher reads one pusher, nil if there is none such.
func (tx *Tx) Pusher(nid int64) (found *Pusher, err error) {
	err = tx.Query(`SELECT `+pusherColumns+` FROM pushers WHERE nid = $1`, func(r *Row) error {
		p := pusherRow(r)
		found = &p
		return nil
	}, nid)
	return found, err
}

// SetPusher makes a pusher, or changes the user's one of the same app ID and pushkey, which goes on from where it is.
// Whoever works for it as it was loses the lease: what a gateway says of the old one does not end the new one. Unless others may stay, pushers of other users with this app ID and pushkey end.
func (tx *Tx) SetPusher(p Pusher, others bool) error {
	if !others {
		if _, err := tx.Exec(`DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND member <> $3`, p.AppID, p.Key, p.User); err != nil {
			return err
		}
	}
	pos, err := tx.AddChange(ChangePushers, 0, p.User)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO pushers (nid, member, device, kind, app_id, pushkey, app_name, device_name, profile, lang, data, created, pos)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (member, app_id, pushkey) DO UPDATE SET device = excluded.device, kind = excluded.kind, app_name = excluded.app_name,
			device_name = excluded.device_name, profile = excluded.profile, lang = excluded.lang, data = excluded.data, created = excluded.created,
			fails = 0, failing = 0, retry_at = 0, fence = pushers.fence + 1, lease_until = 0`,
		p.NID, p.User, p.Device, p.Kind, p.AppID, p.Key, p.AppName, p.DeviceName, p.Profile, p.Lang, p.Data, p.Created, pos)
	return err
}

// DeletePusher ends a user's pusher, if there is such a one.
func (tx *Tx) DeletePusher(user UserNID, appID, key string) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE member = $1 AND app_id = $2 AND pushkey = $3`, user, appID, key)
	return err
}

// DeletePushersOf ends the pushers of a device.
func (tx *Tx) DeletePushersOf(device int64) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE device = $1`, device)
	return err
}

// DeletePushersTo ends the pushers of a user that send mail to an address; "" is all addresses.
func (tx *Tx) DeletePushersTo(user UserNID, address string) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE member = $1 AND kind = 'email' AND ($2 = '' OR pushkey = $2)`, user, address)
	return err
}

// userSeen notes that the user of a device was there: the pauses between mails begin anew, and whoever waits for the end of a
// long one looks again.
func (tx *Tx) userSeen(device int64) error {
	_, err := tx.Exec(`UPDATE pushers SET stage = 0, retry_at = CASE WHEN retry_at = 0 THEN 0 ELSE 1 END, fence = fence + 1, lease_until = 0
		WHERE stage > 0 AND member = (SELECT member FROM devices WHERE nid = $1)`, device)
	return err
}

// CountPushers counts a user's pushers.
func (tx *Tx) CountPushers(user UserNID) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM pushers WHERE member = $1`, user).Scan(&n)
	return n, err
}

// AllPushers names every pusher, after one and at most limit of them.
func (tx *Tx) AllPushers(after int64, limit int, each func(nid int64)) error {
	return tx.Query(`SELECT nid FROM pushers WHERE nid > $1 ORDER BY nid LIMIT $2`, func(r *Row) error {
		each(r.Int64(0))
		return nil
	}, after, limit)
}

// AnyPusher says whether there is a pusher at all.
func (tx *Tx) AnyPusher() (yes bool, err error) {
	_, err = tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM pushers)`).Scan(&yes)
	return yes, err
}

// ConcernedPushers names the pushers of users whose rooms something came into after one position and up to another, or who
// have read something, been invited or set a pusher.
func (tx *Tx) ConcernedPushers(after, upTo Pos, each func(nid int64)) error {
	return tx.Query(`SELECT p.nid FROM pushers p WHERE p.member IN (
			SELECT m.member FROM memberships m WHERE m.membership = 1
				AND m.room IN (SELECT e.room FROM events e WHERE e.sub = 0 AND e.pos > $1 AND e.pos <= $2)
			UNION SELECT c.member FROM changes c WHERE c.pos > $1 AND c.pos <= $2 AND c.kind IN ($3, $4, $5))`, func(r *Row) error {
		each(r.Int64(0))
		return nil
	}, after, upTo, ChangeMembership, ChangeReceipt, ChangePushers)
}

// DuePushers names the pushers whose time to try again has come at the time now (ms), and those whose lease ran out; those
// of kind email only if mails.
func (tx *Tx) DuePushers(now int64, mails bool, limit int, each func(nid int64)) error {
	return tx.Query(`SELECT nid FROM pushers WHERE (lease_until = 0 AND retry_at <> 0 AND retry_at <= $1 OR lease_until <> 0 AND lease_until < {now})
		AND ($2 OR kind <> 'email') LIMIT $3`, func(r *Row) error {
		each(r.Int64(0))
		return nil
	}, now, mails, limit)
}

// LeasePusher takes a pusher that is due at the time now (ms) for a while, after which the lease ends by itself; force
// takes one that has not ended, which only the single node of a database may do. It is nil if somebody else has it.
func (tx *Tx) LeasePusher(nid, now, leaseMS int64, force bool) (found *Pusher, err error) {
	err = tx.Query(`UPDATE pushers SET fence = fence + 1, lease_until = {now} + $2
		WHERE nid = $1 AND (lease_until < {now} OR $3) AND retry_at <= $4 RETURNING `+pusherColumns, func(r *Row) error {
		p := pusherRow(r)
		found = &p
		return nil
	}, nid, leaseMS, force, now)
	return found, err
}

// SavePusher stores how far a leased pusher has got and renews the lease, or gives it back if leaseMS is 0. ok is false if
// the lease was lost or the pusher is gone, and then nothing is stored.
func (tx *Tx) SavePusher(p Pusher, leaseMS int64) (ok bool, err error) {
	n, err := tx.Exec(`UPDATE pushers SET pos = $3, badge = $4, fails = $5, failing = $6, retry_at = $7,
		lease_until = CASE WHEN $8 = 0 THEN 0 ELSE {now} + $8 END, waiting = $9, mailed = $10, stage = $11 WHERE nid = $1 AND fence = $2`,
		p.NID, p.fence, p.Pos, p.Badge, p.Fails, p.Failing, p.RetryAt, leaseMS, p.Waiting, p.Mailed, p.Stage)
	return n > 0, err
}

// EndPusher ends a leased pusher whose key its gateway rejects.
func (tx *Tx) EndPusher(p Pusher) error {
	_, err := tx.Exec(`DELETE FROM pushers WHERE nid = $1 AND fence = $2`, p.NID, p.fence)
	return err
}
