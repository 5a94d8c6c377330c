package keys

import (
	"context"
	"encoding/json"
	"strings"
	"unicode"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Dehydration is the body of PUT /dehydrated_device (MSC3814): a device that nobody is logged in on, whose secrets are in
// Data, sealed by the client. It takes part in everything by its keys, so that a session to come can read what was sent
// while the user had no other.
type Dehydration struct {
	DeviceID matrix.DeviceID `json:"device_id"`
	Data     json.RawMessage `json:"device_data"`
	Name     string          `json:"initial_device_display_name"`
	Upload
}

const (
	maxDeviceData    = 64 << 10 // bytes of device_data
	dehydratedEvents = 100      // messages of one answer
)

func (d Dehydration) check() error {
	plain := func(text string) bool { return len(text) <= maxName && !strings.ContainsFunc(text, unicode.IsControl) }
	switch {
	case d.DeviceID == "" || d.Data == nil || d.DeviceKeys == nil:
		return matrix.MissingParam("A dehydrated device has device_id, device_data and device_keys.")
	case !plain(string(d.DeviceID)) || !plain(d.Name):
		return matrix.InvalidParam("A device's ID and name have at most %d bytes, and no control characters.", maxName)
	case len(d.Data) > maxDeviceData:
		return matrix.TooLarge("device_data has at most %d bytes.", maxDeviceData)
	}
	if algorithm, ok := matrix.GetString(d.Data, "algorithm"); !ok || algorithm == "" {
		return matrix.BadJSON("device_data is an object that names its algorithm.")
	}
	return nil
}

// Dehydrate makes a device the user's dehydrated one. The one before is deleted with its keys and messages; the same
// device again, because the answer was lost, keeps them.
func (k *Keys) Dehydrate(ctx context.Context, user User, in Dehydration) error {
	if err := in.check(); err != nil {
		return err
	}
	d := Device{User: user, DeviceID: in.DeviceID}
	up, err := k.checkUpload(d, in.Upload)
	if err != nil {
		return err
	}
	if d.NID, err = k.o.DB.NextNID(store.KindDevice); err != nil {
		return err
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user.NID)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			return matrix.UnknownToken(false)
		}
		device := d
		if device.NID, err = k.dehydratedDevice(tx, d, in.Name); err != nil {
			return err
		}
		tx.AfterCommit(k.wake)
		if err := k.store(tx, device, up); err != nil {
			return err
		}
		return tx.PutDehydrated(user.NID, device.NID, string(in.Data))
	})
}

// dehydratedDevice makes the row of a device in the place of the last dehydrated one, or finds that it is the same.
func (k *Keys) dehydratedDevice(tx *store.Tx, d Device, name string) (nid int64, err error) {
	old, err := tx.Dehydrated(d.User.NID)
	if err != nil {
		return 0, err
	}
	if old != nil && old.ID == d.DeviceID {
		return old.NID, nil
	}
	other, err := tx.Device(d.User.NID, d.DeviceID)
	if err != nil {
		return 0, err
	}
	if other != nil {
		return 0, matrix.InvalidParam("You have a device of this ID that is not dehydrated.")
	}
	if old != nil {
		if err := tx.DeleteDevices(d.User.NID, []matrix.DeviceID{old.ID}); err != nil {
			return 0, err
		}
	}
	return tx.PutDevice(store.Device{NID: d.NID, User: d.User.NID, ID: d.DeviceID, Name: name, Seen: k.now()})
}

// DehydratedInfo is the answer of GET /dehydrated_device.
type DehydratedInfo struct {
	DeviceID matrix.DeviceID `json:"device_id"`
	Data     json.RawMessage `json:"device_data"`
}

func noDehydrated() *matrix.Error { return matrix.NotFound("You have no dehydrated device.") }

// Dehydrated finds the user's dehydrated device (M_NOT_FOUND).
func (k *Keys) Dehydrated(ctx context.Context, user User) (*DehydratedInfo, error) {
	var found *store.DehydratedDevice
	err := k.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.Dehydrated(user.NID)
		return err
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, noDehydrated()
	}
	return &DehydratedInfo{found.ID, json.RawMessage(found.Data)}, nil
}

// DeleteDehydrated deletes the user's dehydrated device and returns its ID (M_NOT_FOUND).
func (k *Keys) DeleteDehydrated(ctx context.Context, user User) (id matrix.DeviceID, err error) {
	err = k.o.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockAccount(user.NID); err != nil {
			return err
		}
		found, err := tx.Dehydrated(user.NID)
		if err != nil {
			return err
		}
		if found == nil {
			return noDehydrated()
		}
		id = found.ID
		tx.AfterCommit(k.wake)
		return tx.DeleteDevices(user.NID, []matrix.DeviceID{found.ID})
	})
	return id, err
}

// DehydratedEvents are messages that wait for a dehydrated device.
type DehydratedEvents struct {
	Events []json.RawMessage `json:"events"`
	Next   string            `json:"next_batch,omitempty"`
}

// DehydratedEvents reads messages for the user's dehydrated device (M_FORBIDDEN for any other), oldest first, from a
// Next on. They stay until the device is deleted: whoever reads them may not come to the end. more says whether there
// are further ones.
func (k *Keys) DehydratedEvents(ctx context.Context, user User, device matrix.DeviceID, from string) (answer *DehydratedEvents, more bool, err error) {
	after := store.Pos(0)
	if from != "" {
		if after, err = parseVersion(from); err != nil {
			return nil, false, matrix.InvalidParam("%.64q is no token of an earlier answer.", from)
		}
	}
	var found *store.DehydratedDevice
	err = k.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.Dehydrated(user.NID)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if found == nil || found.ID != device {
		return nil, false, matrix.Forbidden("This is not your dehydrated device.")
	}
	bound, err := k.o.DB.StreamBound(ctx)
	if err != nil {
		return nil, false, err
	}
	answer = &DehydratedEvents{Events: []json.RawMessage{}}
	events, last, err := k.ToDevice(ctx, found.NID, after, max(bound, after), dehydratedEvents)
	if err != nil {
		return nil, false, err
	}
	answer.Events = append(answer.Events, events...)
	answer.Next = versionText(max(last, 1))
	return answer, last < bound, nil
}
