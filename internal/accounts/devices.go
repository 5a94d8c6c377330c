package accounts

import (
	"context"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Devices reads a user's devices.
func (a *Accounts) Devices(ctx context.Context, user store.UserNID) (devices []store.Device, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		devices = nil
		return tx.Devices(user, func(d store.Device) { devices = append(devices, d) })
	})
	return devices, err
}

// Device finds one of a user's devices (M_NOT_FOUND).
func (a *Accounts) Device(ctx context.Context, user store.UserNID, id matrix.DeviceID) (*store.Device, error) {
	var device *store.Device
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		device, err = tx.Device(user, id)
		return err
	})
	if err == nil && device == nil {
		err = matrix.NotFound("You have no such device.")
	}
	return device, err
}

// RenameDevice changes what a device is called. Others who see the device's keys learn it, hence the device-list change.
func (a *Accounts) RenameDevice(ctx context.Context, user store.UserNID, id matrix.DeviceID, name string) error {
	if err := checkDevice("", name); err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		found, err := tx.RenameDevice(user, id, name)
		if err != nil {
			return err
		}
		if !found {
			return matrix.NotFound("You have no such device.")
		}
		tx.AfterCommit(a.wake)
		return tx.DeviceListChanged(user)
	})
}

// DeleteDevices ends devices of a user, all of them if ids is nil: tokens, keys, waiting messages. Connections that
// they hold open are closed.
func (a *Accounts) DeleteDevices(ctx context.Context, user store.UserNID, ids []matrix.DeviceID) error {
	for _, id := range ids {
		if len(id) > maxName || !plain(string(id)) {
			return matrix.InvalidParam("%.64q is not the ID of a device.", id)
		}
	}
	return a.db.Write(ctx, func(tx *store.Tx) error { return a.deleteDevices(tx, user, ids) })
}

// wake tells readers of the stream that a user's devices changed.
func (a *Accounts) wake() { a.bus.Publish(cluster.Stream, 0) }

func (a *Accounts) deleteDevices(tx *store.Tx, user store.UserNID, ids []matrix.DeviceID) error {
	if err := tx.DeleteDevices(user, ids); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		a.ended(user)
		a.wake()
	})
	return nil
}
