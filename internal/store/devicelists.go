package store

// DeviceListChanged tells the stream that a user's devices, their keys or names changed.
func (tx *Tx) DeviceListChanged(user UserNID) error {
	_, err := tx.AddChange(ChangeDeviceList, 0, user)
	return err
}
