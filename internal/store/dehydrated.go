package store

import "conclave/internal/matrix"

// DehydratedDevice is the device that a user keeps here for a session to come (MSC3814).
type DehydratedDevice struct {
	NID  int64
	ID   matrix.DeviceID
	Data string // device_data, a JSON object
}

// Dehydrated finds a user's dehydrated device, nil if there is none.
func (tx *Tx) Dehydrated(user UserNID) (found *DehydratedDevice, err error) {
	err = tx.Query(`SELECT d.nid, d.device_id, h.data FROM dehydrated_devices h JOIN devices d ON d.nid = h.device WHERE h.member = $1`, func(r *Row) error {
		found = &DehydratedDevice{r.Int64(0), matrix.DeviceID(r.Text(1)), r.Text(2)}
		return nil
	}, user)
	return found, err
}

// PutDehydrated makes a device of a user its dehydrated one, or replaces its data. An older one is deleted before.
func (tx *Tx) PutDehydrated(user UserNID, device int64, data string) error {
	_, err := tx.Exec(`INSERT INTO dehydrated_devices (member, device, data) VALUES ($1, $2, $3)
		ON CONFLICT (member) DO UPDATE SET device = excluded.device, data = excluded.data`, user, device, data)
	return err
}
