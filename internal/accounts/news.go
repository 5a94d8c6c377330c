package accounts

import (
	"crypto/sha256"
	"net/netip"
	"strconv"
	"time"

	"conclave/internal/mail"
	"conclave/internal/store"
)

// placeTime is for how long a place is known.
const placeTime = 90 * 24 * time.Hour

// noticeBudget bounds how many mails of new sign-ins an account gets.
var noticeBudget = store.Budget{Every: (4 * time.Hour).Milliseconds(), Burst: 5}

// place is the block of network addresses that somebody comes from, as far as one network goes; "" if that is not known.
func place(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	bits := 48
	if ip = ip.Unmap(); ip.Is4() {
		bits = 24
	}
	block, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return ""
	}
	return block.String()
}

// seePlace notes where a user was seen (store.SeePlace), where somebody is told about it.
func (a *Accounts) seePlace(tx *store.Tx, user store.UserNID, address string) (here, anywhere bool, err error) {
	at := place(address)
	if at == "" || !a.Mails() || !a.config.Email.SignInNotices {
		return true, true, nil
	}
	now := a.now()
	return tx.SeePlace(user, at, now.UnixMilli(), now.Add(-placeTime).UnixMilli())
}

// tellSignIn tells the owner of an account of a session that has just been opened on a new device, from where the account
// was not seen lately. The first place of an account is no news: whoever has made it is there. The mail is written with
// the session, so that there is one for each, and none for a session that failed.
func (a *Accounts) tellSignIn(tx *store.Tx, user store.UserNID, d NewDevice, p Proof, fresh bool) error {
	if p.has(ByService) {
		return nil
	}
	here, anywhere, err := a.seePlace(tx, user, d.Address)
	if err != nil || here || !anywhere || !fresh || p.has(ByRegistration) {
		return err
	}
	key := sha256.Sum256([]byte("sign-in notice " + strconv.FormatInt(int64(user), 10)))
	wait, err := tx.Spend(key[:], noticeBudget, a.now().UnixMilli())
	if err != nil || wait > 0 {
		return err
	}
	return a.tellOwner(tx, user, mail.SignIn, d.Name, d.Address)
}
