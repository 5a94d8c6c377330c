package store

// Heard reads what others sent, after one position and up to another, into rooms that a user has been in since: oldest
// first, or newest first. What clients are not shown is not among it.
func (tx *Tx) Heard(user UserNID, after, upTo Pos, backward bool, limit int, each func(*EventRow)) error {
	order := `ORDER BY e.pos LIMIT $5`
	if backward {
		order = `ORDER BY e.pos DESC LIMIT $5`
	}
	return tx.events(selectEvents+`JOIN memberships m ON m.room = e.room AND m.member = $1 AND m.membership = 1 AND e.pos > m.joined
		WHERE e.pos > $2 AND e.pos <= $3 AND e.sub = 0 AND e.sender <> $1 AND (e.flags & $4) = 0 `+order, each,
		user, after, upTo, int64(FlagRejected|FlagSoftFailed|FlagOutlier|FlagHeld|FlagRedacted), limit)
}

// InvitedBetween reads a user's pending invitations that came after one position and up to another.
func (tx *Tx) InvitedBetween(user UserNID, after, upTo Pos, each func(MemberRow)) error {
	return tx.members(selectMembers+`WHERE m.member = $1 AND m.membership = 2 AND m.pos > $2 AND m.pos <= $3 AND NOT m.forgotten ORDER BY m.pos`, each, user, after, upTo)
}

// JoinedWithNews reads where a user is joined and something has come from others since its last receipt for a whole room.
func (tx *Tx) JoinedWithNews(user UserNID, each func(MemberRow)) error {
	return tx.members(selectMembers+`WHERE m.member = $1 AND m.membership = 1 AND EXISTS (SELECT 1 FROM events e
		WHERE e.room = m.room AND e.sub = 0 AND e.sender <> $1 AND e.pos > {greatest}(m.joined, coalesce((SELECT max(c.place) FROM receipts c
			WHERE c.room = m.room AND c.member = $1 AND c.kind IN (1, 2) AND c.thread = ''), 0)))`, each, user)
}
