package push

import (
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestNothingIsSetForWhoIsGone sets pushers and rules for a device that has logged out, and for an account that was closed, since
// the request was let in.
func TestNothingIsSetForWhoIsGone(t *testing.T) {
	proof.Of(t, "A06")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		const id = matrix.UserID("@alice:one.example")
		user, err := db.User(ctx, id)
		must(err)
		device := func(nid int64, name matrix.DeviceID) {
			must(db.Write(ctx, func(tx *store.Tx) error {
				_, err := tx.PutDevice(store.Device{NID: nid, User: user.NID, ID: name})
				return err
			}))
		}
		must(db.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.CreateAccount(store.Account{User: user.NID, ID: id})
			return err
		}))
		device(1, "PHONE")
		device(2, "LAPTOP")
		pushers := NewPushers(db, nil, nil, func() {})
		rules := NewRules(db, slog.New(slog.DiscardHandler), nil, func() {})
		set := func(device int64) error {
			text := "x"
			kind := kindHTTP
			return pushers.Set(ctx, user.NID, device, Wanted{
				Kind: &kind, AppID: "app", Key: "key", AppName: &text, DeviceName: &text, Lang: &text, Data: json.RawMessage(`{"url":"https://push.example/_matrix/push/v1/notify"}`),
			})
		}
		refused := func(what string, err error) {
			t.Helper()
			var no *matrix.Error
			if !errors.As(err, &no) || no.Code != "M_UNKNOWN_TOKEN" {
				t.Errorf("%s: %v", what, err)
			}
		}
		must(set(1))
		must(db.Write(ctx, func(tx *store.Tx) error { return tx.DeleteDevices(user.NID, []matrix.DeviceID{"PHONE"}) }))
		refused("a pusher of a device that is gone", set(1))
		must(set(-int64(user.NID))) // of an application service
		must(set(2))
		must(db.Write(ctx, func(tx *store.Tx) error {
			if err := tx.Deactivate(user.NID); err != nil {
				return err
			}
			if err := tx.DeleteDevices(user.NID, nil); err != nil {
				return err
			}
			return tx.EraseOwn(user.NID, id)
		}))
		refused("a pusher of a closed account", set(2))
		refused("a pusher of its application service", set(-int64(user.NID)))
		refused("a rule of a closed account", rules.Change(ctx, user.NID, id, func(*pushrules.Ruleset) error { return nil }))
		must(db.Read(ctx, func(tx *store.Tx) error {
			left := 0
			if _, err := tx.QueryRow(`SELECT (SELECT count(*) FROM pushers) + (SELECT count(*) FROM account_data)`).Scan(&left); err != nil {
				return err
			}
			if left != 0 {
				t.Errorf("%d rows of it are left", left)
			}
			return nil
		}))
	})
}
