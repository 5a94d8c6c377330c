package clientapi

import (
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/limits"
	"conclave/internal/matrix"
)

// guestsMay are the operations that guests may use (client-server API, "Guest access"). Whatever is not named is closed to
// them, so that a new operation is until somebody has judged it.
var guestsMay = map[string]bool{
	// Reading.
	"getRoomState": true, "getEventContext": true, "getOneRoomEvent": true, "getRoomStateWithKey": true, "getRoomEvents": true, "getMembersByRoom": true,
	"roomInitialSync": true, "sync": true, "getEvents": true, "getContentAuthed": true, "getContentOverrideNameAuthed": true, "getContentThumbnailAuthed": true,
	// Sending.
	"joinRoomById": true, "leaveRoom": true, "sendMessage": true, "setRoomStateWithKey": true, "sendToDevice": true,
	// The account.
	"setProfileField": true, "deleteProfileField": true, "getDevices": true, "getDevice": true, "updateDevice": true, "getTokenOwner": true,
	// Encryption.
	"uploadKeys": true, "queryKeys": true, "claimKeys": true,
	// What needs no account at all.
	"getVersions": true,
}

func errGuest() error {
	return matrix.Errorf(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "Guests may not do this. Make an account of this one first.")
}

// guestMay refuses what guests may not do of what they may at all: of their profile they have the display name, and into and out of
// rooms they come by the operations that are for it, which look at what the room says of guests.
func (r *Request) guestMay() error {
	switch {
	case !guestsMay[r.route.OperationID],
		(r.route.OperationID == "setProfileField" || r.route.OperationID == "deleteProfileField") && r.Param("keyName") != accounts.DisplayName,
		r.route.OperationID == "setRoomStateWithKey" && r.Param("eventType") == "m.room.member":
		return errGuest()
	}
	return nil
}

// registerGuest is POST /register?kind=guest. Of the body only the name of the device counts.
func (s *Server) registerGuest(r *Request) (any, error) {
	var body struct {
		DeviceName string `json:"initial_device_display_name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	address := s.address(r.Request())
	return s.loggedIn(s.Accounts.RegisterGuest(r.Ctx(), body.DeviceName, address, limits.Block(address)))
}
