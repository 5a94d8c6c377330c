package store

import "conclave/internal/matrix"

// Redacted finds for which of some events redactions are known, in force or waiting for them.
func (tx *Tx) Redacted(room RoomNID, ids []matrix.EventID, each func(matrix.EventID)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT DISTINCT target FROM redactions WHERE room = $1 AND target IN ({texts $2})`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)))
			return nil
		}, room, texts(part))
	})
}

// Unmet finds which of some events are held and have redactions that did not take effect.
func (tx *Tx) Unmet(room RoomNID, ids []matrix.EventID, each func(matrix.EventID)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT DISTINCT d.target FROM redactions d JOIN events t ON t.event_id = d.target AND t.room = d.room
			JOIN events e ON e.nid = d.redaction
			WHERE d.room = $1 AND d.target IN ({texts $2}) AND ((t.flags & $3) = 0 OR (e.flags & $4) <> 0)`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)))
			return nil
		}, room, texts(part), int64(FlagRedacted), int64(FlagHeld))
	})
}

// RedactionOf is the redaction in force on an event, nil if there is none.
func (tx *Tx) RedactionOf(room RoomNID, target matrix.EventID) (*EventRow, error) {
	return tx.event(selectEvents+`WHERE e.nid = (SELECT min(d.redaction) FROM redactions d JOIN events x ON x.nid = d.redaction
		WHERE d.room = $1 AND d.target = $2 AND (x.flags & $3) = 0)`, room, string(target), int64(FlagHeld))
}

// Redactor is a redaction of an event by what decides whether it takes effect, and about its place.
type Redactor struct {
	NID    EventNID
	Sender matrix.UserID
	Power  RedactPower
	Held   bool // back from clients
	Fixed  bool // it cannot move: it is history, or history is missing before it
}

// Redactors reads all redactions of an event, oldest first.
func (tx *Tx) Redactors(room RoomNID, target matrix.EventID, each func(Redactor)) error {
	return tx.Query(`SELECT d.redaction, u.user_id, d.power, e.flags, e.pos IS NULL OR e.sub <> 0
		OR EXISTS (SELECT 1 FROM gaps g WHERE g.room = d.room AND g.event = d.redaction)
		FROM redactions d JOIN events e ON e.nid = d.redaction JOIN users u ON u.nid = e.sender
		WHERE d.room = $1 AND d.target = $2 ORDER BY d.redaction`, func(r *Row) error {
		each(Redactor{EventNID(r.Int64(0)), matrix.UserID(r.Text(1)), RedactPower(r.Int64(2)), EventFlags(r.Int64(3)).Has(FlagHeld), r.Bool(4)})
		return nil
	}, room, string(target))
}

const insertRedaction = `INSERT INTO redactions (room, target, redaction, power) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`

// Redact notes redactions and puts the redacted text in the place of their targets' own, for good. No position of the stream
// tells of it.
func (tx *Tx) Redact(room RoomNID, redactions []Redaction) error {
	var gone []EventNID
	for _, r := range redactions {
		if _, err := tx.Exec(insertRedaction, room, string(r.Target), r.By, int64(r.Power)); err != nil {
			return err
		}
		if r.TargetNID == 0 {
			continue
		}
		if _, err := tx.Exec(`UPDATE events SET json = $3, flags = flags | $4 WHERE nid = $1 AND room = $2`,
			r.TargetNID, room, string(r.JSON), int64(FlagRedacted)); err != nil {
			return err
		}
		gone = append(gone, r.TargetNID)
	}
	return tx.QueueForSearch(gone)
}

// HoldBack keeps redactions from clients.
func (tx *Tx) HoldBack(room RoomNID, redactions []EventNID) error {
	return tx.flag(room, redactions, `UPDATE events SET flags = flags | $2 WHERE room = $1 AND nid IN ({ids $3})`, FlagHeld)
}

// Release lets clients see redactions that were held back.
func (tx *Tx) Release(room RoomNID, redactions []EventNID) error {
	return tx.flag(room, redactions, `UPDATE events SET flags = flags & $2 WHERE room = $1 AND nid IN ({ids $3})`, ^FlagHeld)
}

func (tx *Tx) flag(room RoomNID, nids []EventNID, sql string, bits EventFlags) error {
	return chunks(nids, func(part []EventNID) error {
		_, err := tx.Exec(sql, room, int64(bits), int64s(part))
		return err
	})
}
