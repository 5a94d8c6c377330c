package store

// The kinds of changes in the stream beside events.
const (
	ChangeMembership  ChangeKind = iota + 1 // of a user in a room, whatever event caused it
	ChangeReceipt                           // by a user in a room
	ChangeAccountData                       // of a user, in a room or (room 0) global
	ChangeDeviceList                        // of a user: devices, their keys or names, cross-signing keys
	ChangeToDevice                          // a message waits for a device of the user
	ChangeKeys                              // a one-time or fallback key of a device of the user was used
	ChangeProfile                           // of a user
)
