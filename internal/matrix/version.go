package matrix

import "strconv"

// RoomVersion is one of the stable room versions, 1 to 12. Each predicate names one rule that some version changed.
type RoomVersion uint8

// The range of supported versions, and what new rooms are made in (spec: "Room versions").
const (
	FirstRoomVersion   RoomVersion = 1
	LastRoomVersion    RoomVersion = 12
	DefaultRoomVersion RoomVersion = 12
)

// ParseRoomVersion reads a version's name; false for those that this server does not have.
func ParseRoomVersion(s string) (RoomVersion, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	v := RoomVersion(n)
	if err != nil || v < FirstRoomVersion || v > LastRoomVersion || strconv.FormatUint(n, 10) != s {
		return 0, false
	}
	return v, true
}

// String is the version's name.
func (v RoomVersion) String() string { return strconv.Itoa(int(v)) }

// RoomVersions are all supported versions, oldest first.
func RoomVersions() []RoomVersion {
	all := make([]RoomVersion, 0, LastRoomVersion)
	for v := FirstRoomVersion; v <= LastRoomVersion; v++ {
		all = append(all, v)
	}
	return all
}

// StateRes names the state resolution algorithm: 1, 2 (version 2, MSC1442) or 21 (version 12, MSC4297).
func (v RoomVersion) StateRes() int {
	switch {
	case v >= 12:
		return 21
	case v >= 2:
		return 2
	}
	return 1
}

// EventIDsInEvent: event IDs stand in the event and are chosen by its server (1, 2); later they are its hash (MSC1659).
func (v RoomVersion) EventIDsInEvent() bool { return v <= 2 }

// URLSafeEventIDs: the hash is written in the URL-safe alphabet (4, MSC2002).
func (v RoomVersion) URLSafeEventIDs() bool { return v >= 4 }

// EnforceKeyValidity: signing keys count only while they are valid (5, MSC2077).
func (v RoomVersion) EnforceKeyValidity() bool { return v >= 5 }

// StrictCanonicalJSON: events are strict canonical JSON; floats and large integers are refused (6, MSC2540).
func (v RoomVersion) StrictCanonicalJSON() bool { return v >= 6 }

// MaxDepth is the greatest depth that an event can have: what the JSON of the version can hold.
func (v RoomVersion) MaxDepth() int64 {
	if v.StrictCanonicalJSON() {
		return 1<<53 - 1
	}
	return 1<<63 - 1
}

// AliasesAuthRule: m.room.aliases has an auth rule and is protected from redaction (until 6, MSC2432).
func (v RoomVersion) AliasesAuthRule() bool { return v < 6 }

// NotificationLevelsChecked: changes of notification levels need the power (6, MSC2209).
func (v RoomVersion) NotificationLevelsChecked() bool { return v >= 6 }

// RedactionAuthRule: redactions are authorised by rule rather than when they take effect (1, 2).
func (v RoomVersion) RedactionAuthRule() bool { return v <= 2 }

// Knocking: people may knock (7, MSC2403).
func (v RoomVersion) Knocking() bool { return v >= 7 }

// RestrictedJoins: the join rule "restricted" (8, MSC3083).
func (v RoomVersion) RestrictedJoins() bool { return v >= 8 }

// KeepsAuthorisedVia: join_authorised_via_users_server survives redaction (9, MSC3375).
func (v RoomVersion) KeepsAuthorisedVia() bool { return v >= 9 }

// KnockRestricted: the join rule "knock_restricted" (10, MSC3787).
func (v RoomVersion) KnockRestricted() bool { return v >= 10 }

// IntegerPowerLevels: power levels are integers, never strings (10, MSC3667).
func (v RoomVersion) IntegerPowerLevels() bool { return v >= 10 }

// UpdatedRedaction: the redaction algorithm keeps all of m.room.create, and more (11, MSC2176, MSC3821).
func (v RoomVersion) UpdatedRedaction() bool { return v >= 11 }

// RedactsInContent: a redaction names its target in its content (11, MSC2174).
func (v RoomVersion) RedactsInContent() bool { return v >= 11 }

// CreatorInSender: the creator is the sender of m.room.create; content.creator is gone (11, MSC2175).
func (v RoomVersion) CreatorInSender() bool { return v >= 11 }

// RoomIDIsCreateHash: a room's ID is the hash of its create event, which auth_events do not name (12, MSC4291).
func (v RoomVersion) RoomIDIsCreateHash() bool { return v >= 12 }

// CreatorsPrivileged: creators have infinite power, and may be several (12, MSC4289).
func (v RoomVersion) CreatorsPrivileged() bool { return v >= 12 }
