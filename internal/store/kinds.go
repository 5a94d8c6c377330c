package store

// The kinds of changes in the stream beside events.
const (
	ChangeMembership  ChangeKind = iota + 1 // of a user in a room, whatever event caused it
	ChangeReceipt                           // by a user in a room
	ChangeAccountData                       // of a user, in a room or (room 0) global
	ChangeDeviceList                        // of a user: devices, their keys or names, cross-signing keys
	ChangeToDevice                          // a message waits for a device of the user
	ChangeKeys                              // of a user, for itself alone: one-time keys came or went, or it signed somebody's keys
	ChangeProfile                           // of a user
)

// Kinds of push, with numbers of their own.
const (
	ChangePushRules ChangeKind = 32 // of a user: events count otherwise from here on
	ChangePushers   ChangeKind = 33 // of a user
)
