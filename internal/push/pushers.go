package push

import (
	"context"
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"conclave/internal/mail/address"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
)

// Bounds of pushers (client-server API, POST /pushers/set).
const (
	maxAppID   = 64
	maxPushkey = 512
	maxName    = 256
	maxData    = 8 << 10
	maxURL     = 2048
	maxPushers = 50 // of one user
)

// gatewayPath is where every gateway listens.
const gatewayPath = "/_matrix/push/v1/notify"

// The kinds of pushers.
const (
	kindHTTP  = "http"
	kindEmail = "email"
)

// Pushers are where our users want to be told of notifications. Its methods are safe for concurrent use.
type Pushers struct {
	db    *store.DB
	allow []netip.Prefix
	guard *netguard.Dialer
	mail  *Digests
	wake  func()
	now   func() time.Time
}

// NewPushers makes Pushers. Gateways may be at private addresses only if these are among allowPrivate, and then without
// TLS too; mail is nil where no mail is sent; wake says that there is something new in the stream.
func NewPushers(db *store.DB, allowPrivate []netip.Prefix, mail *Digests, wake func()) *Pushers {
	return &Pushers{db: db, allow: allowPrivate, guard: netguard.NewDialer(allowPrivate, nil), mail: mail, wake: wake, now: time.Now}
}

// Wanted is a pusher as a client describes it. A nil Kind ends the pusher of this app ID and pushkey.
type Wanted struct {
	Kind       *string         `json:"kind"`
	AppID      string          `json:"app_id"`
	Key        string          `json:"pushkey"`
	AppName    *string         `json:"app_display_name"`
	DeviceName *string         `json:"device_display_name"`
	Profile    string          `json:"profile_tag"`
	Lang       *string         `json:"lang"`
	Data       json.RawMessage `json:"data"`
	Append     bool            `json:"append"`
}

// Of reads a user's pushers.
func (p *Pushers) Of(ctx context.Context, user store.UserNID) (list []store.Pusher, err error) {
	err = p.db.Read(ctx, func(tx *store.Tx) error {
		list = nil
		return tx.Pushers(user, func(one store.Pusher) { list = append(list, one) })
	})
	return list, err
}

// Set makes, changes or ends a pusher of a user. It ends with the device, unless it is of kind email: that one is the
// account's, and ends with the address.
func (p *Pushers) Set(ctx context.Context, user store.UserNID, device int64, w Wanted) error {
	if err := w.checkKey(); err != nil {
		return err
	}
	if w.AppID == emailApp {
		if to, ok := address.Mailbox(w.Key); ok { // as addresses of accounts are kept
			w.Key = to
		}
	}
	if w.Kind == nil {
		return p.db.Write(ctx, func(tx *store.Tx) error { return tx.DeletePusher(user, w.AppID, w.Key) })
	}
	if err := p.check(w); err != nil {
		return err
	}
	nid, err := p.db.NextNID(store.KindPusher)
	if err != nil {
		return err
	}
	row := store.Pusher{
		NID: nid, User: user, Device: device, Kind: *w.Kind, AppID: w.AppID, Key: w.Key, AppName: *w.AppName, DeviceName: *w.DeviceName,
		Profile: w.Profile, Lang: *w.Lang, Data: string(w.Data), Created: p.now().UnixMilli(),
	}
	if row.Kind == kindEmail {
		row.Device = 0
	}
	return p.db.Write(ctx, func(tx *store.Tx) error {
		if err := stillThere(tx, row); err != nil {
			return err
		}
		if row.Kind == kindEmail {
			if err := checkAddress(tx, user, row.Key); err != nil {
				return err
			}
		}
		n, err := tx.CountPushers(user)
		if err != nil {
			return err
		}
		if n >= maxPushers {
			return matrix.Errorf(400, "M_LIMIT_EXCEEDED", "You have %d pushers, as many as there can be. Remove one first.", maxPushers)
		}
		tx.AfterCommit(p.wake)
		return tx.SetPusher(row, w.Append)
	})
}

// stillThere refuses (M_UNKNOWN_TOKEN) a pusher whose account was closed, or whose device has logged out, since the request was let
// in: what ends with them has ended, and nobody would end this one. Application services act on no device (row.Device < 0).
func stillThere(tx *store.Tx, row store.Pusher) error {
	if err := tx.StillOpen(row.User); err != nil || row.Device <= 0 {
		return err
	}
	device, err := tx.DeviceByNID(row.Device)
	if err == nil && device == nil {
		err = matrix.UnknownToken(false)
	}
	return err
}

func (w *Wanted) checkKey() error {
	switch {
	case w.AppID == "" || w.Key == "":
		return matrix.MissingParam("A pusher needs an app_id and a pushkey.")
	case len(w.AppID) > maxAppID:
		return matrix.InvalidParam("app_id has at most %d bytes.", maxAppID)
	case len(w.Key) > maxPushkey:
		return matrix.InvalidParam("pushkey has at most %d bytes.", maxPushkey)
	case strings.ContainsRune(w.AppID+w.Key, 0):
		return matrix.InvalidParam("app_id and pushkey hold no NUL characters.")
	}
	return nil
}

// check checks what a pusher needs besides its key.
func (p *Pushers) check(w Wanted) error {
	switch *w.Kind {
	case kindHTTP, KindWebPush:
	case kindEmail:
		if p.mail == nil {
			return matrix.InvalidParam("This server sends no notifications by e-mail: it has no mail server configured.")
		}
	default:
		return matrix.InvalidParam("There are no pushers of kind %.64q.", *w.Kind)
	}
	// Unless others may stay, a pusher ends those of others with its app ID and key: that must not be done to an address,
	// which everybody can guess, by a pusher that needs none.
	if (*w.Kind == kindEmail) != (w.AppID == emailApp) {
		return matrix.InvalidParam("Pushers of kind email have the app_id %s, and no others have.", emailApp)
	}
	for name, value := range map[string]*string{"app_display_name": w.AppName, "device_display_name": w.DeviceName, "lang": w.Lang, "profile_tag": &w.Profile} {
		switch {
		case value == nil:
			return matrix.MissingParam("A pusher needs %s.", name)
		case len(*value) > maxName || strings.ContainsRune(*value, 0):
			return matrix.InvalidParam("%s has at most %d bytes, and no NUL among them.", name, maxName)
		}
	}
	if w.Data == nil {
		return matrix.MissingParam("A pusher needs data.")
	}
	if err := matrix.CheckObject(w.Data); err != nil {
		return matrix.InvalidParam("data is an object.").With(err)
	}
	if len(w.Data) > maxData {
		return matrix.InvalidParam("data has at most %d bytes.", maxData)
	}
	switch *w.Kind {
	case KindWebPush:
		return p.checkWebPush(w)
	case kindEmail: // what is in data is for others
		return nil
	}
	if raw, ok := matrix.Get(w.Data, "format"); ok && string(raw) != `"event_id_only"` {
		return matrix.InvalidParam("The only format of notifications with a name is event_id_only.")
	}
	target, ok := matrix.GetString(w.Data, "url")
	if !ok {
		return matrix.MissingParam("data needs the url of the push gateway.")
	}
	return p.checkURL(target)
}

// checkURL checks the address of a gateway (threats O08). Where its name leads to is looked at with every connection.
func (p *Pushers) checkURL(text string) error {
	target, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxURL || target.Host == "" || target.Hostname() == "" || target.Opaque != "":
		return matrix.InvalidParam("The url of the push gateway is none.")
	case target.EscapedPath() != gatewayPath || target.RawQuery != "" || target.ForceQuery || target.Fragment != "" || target.User != nil:
		return matrix.InvalidParam("The url of a push gateway has the path %s and nothing behind it.", gatewayPath)
	}
	return p.checkHost(target)
}

// checkHost checks the scheme and, where it is literal, the address of a URL.
func (p *Pushers) checkHost(target *url.URL) error {
	ip, err := netip.ParseAddr(target.Hostname())
	literal := err == nil
	if literal && p.guard.Check(ip) != nil {
		return matrix.InvalidParam("Notifications would go to an address to which this server makes no connections.")
	}
	private := false
	for _, prefix := range p.allow {
		private = private || literal && prefix.Contains(ip.Unmap())
	}
	if target.Scheme != "https" && (target.Scheme != "http" || !private) {
		return matrix.InvalidParam("The url that notifications go to begins with https://.")
	}
	return nil
}
