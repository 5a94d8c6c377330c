package store

// Mail is one on its way to an address.
type Mail struct {
	ID         string
	Address    string // in canonical form
	Kind       string
	Lang       string
	Facts      string // a JSON object
	Validation string // which it is a link for, "" if it has none
	Created    int64  // ms
	Fails      int
	fence      int64
}

// AddMail puts a mail into the queue; it is due at once.
func (tx *Tx) AddMail(m Mail) error {
	_, err := tx.Exec(`INSERT INTO mails (id, address, kind, lang, facts, validation, created, due) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
		m.ID, m.Address, m.Kind, m.Lang, m.Facts, m.Validation, m.Created)
	return err
}

// CountMails counts the mails in the queue, up to a number that is enough to know.
func (tx *Tx) CountMails(most int) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM mails LIMIT $1) AS found`, most).Scan(&n)
	return n, err
}

// MailDue says whether a mail is due at the time now (ms) and nobody works at it.
func (tx *Tx) MailDue(now int64) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM mails WHERE due <= $1 AND lease_until < {now})`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, now)
	return yes, err
}

// LeaseMail takes the mail that has been due longest at the time now (ms) for a while, after which the lease ends by
// itself; nil if there is none that nobody works at.
func (tx *Tx) LeaseMail(now, leaseMS int64) (m *Mail, err error) {
	err = tx.Query(`UPDATE mails SET fence = fence + 1, lease_until = {now} + $2 WHERE id = (
		SELECT id FROM mails WHERE due <= $1 AND lease_until < {now} ORDER BY due LIMIT 1 {skip locked})
		RETURNING id, address, kind, lang, facts, validation, created, fails, fence`, func(r *Row) error {
		m = &Mail{r.Text(0), r.Text(1), r.Text(2), r.Text(3), r.Text(4), r.Text(5), r.Int64(6), r.Int(7), r.Int64(8)}
		return nil
	}, now, leaseMS)
	return m, err
}

// RetryMail gives a leased mail back, which is due again at a time (ms). Of a lost lease nothing is stored.
func (tx *Tx) RetryMail(m Mail, due int64) error {
	_, err := tx.Exec(`UPDATE mails SET fails = fails + 1, due = $3, lease_until = 0 WHERE id = $1 AND fence = $2`, m.ID, m.fence, due)
	return err
}

// EndMail removes a leased mail that was sent, or never will be.
func (tx *Tx) EndMail(m Mail) error {
	_, err := tx.Exec(`DELETE FROM mails WHERE id = $1 AND fence = $2`, m.ID, m.fence)
	return err
}

// ReturnMail gives a leased mail back as it was: whoever had it ends.
func (tx *Tx) ReturnMail(m Mail) error {
	_, err := tx.Exec(`UPDATE mails SET lease_until = 0 WHERE id = $1 AND fence = $2`, m.ID, m.fence)
	return err
}

// Budget is how often something may be done: every so many ms, and at most this many times at once.
type Budget struct {
	Every int64
	Burst int64
}

// Spend takes one out of a budget at the time now (ms). If there is nothing left it takes nothing and says in how many ms
// there is. What several requests spend at the same time is counted one after the other.
func (tx *Tx) Spend(key []byte, b Budget, now int64) (wait int64, err error) {
	spent := false
	err = tx.Query(`INSERT INTO budgets (key, until) VALUES ($1, $2 + $3) ON CONFLICT (key) DO UPDATE
		SET until = {greatest}(budgets.until, $2) + $3 WHERE {greatest}(budgets.until, $2) - $2 <= $3 * ($4 - 1) RETURNING until`, func(*Row) error {
		spent = true
		return nil
	}, key, now, b.Every, b.Burst)
	if err != nil || spent {
		return 0, err
	}
	err = tx.Query(`SELECT until FROM budgets WHERE key = $1`, func(r *Row) error {
		wait = max(1, r.Int64(0)-now-b.Every*(b.Burst-1))
		return nil
	}, key)
	return wait, err
}

// ForgetBudgets drops some of those that nothing has been spent of at the time now (ms).
func (tx *Tx) ForgetBudgets(now int64) error {
	_, err := tx.Exec(`DELETE FROM budgets WHERE key IN (SELECT key FROM budgets WHERE until < $1 ORDER BY until LIMIT 100)`, now)
	return err
}
