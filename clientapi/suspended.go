package clientapi

import (
	"net/http"
	"slices"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// lockedMay are the operations that a locked account may still use (client-server API, "Account locking").
var lockedMay = []string{"logout", "logout_all"}

// suspension says whether somebody whose account is suspended may use an operation.
type suspension int

const (
	forbidden suspension = iota // what is not judged is forbidden
	allowed
	partly // the handler refuses the rest
)

// suspendedRules judge the operations that change something, or could, as the specification recommends ("Account
// suspension"): reading, leaving, redacting one's own events, one's own devices and keys. Reading by GET is allowed to
// everybody. An operation that is not named here is forbidden, so that a new one is so until somebody has judged it.
var suspendedRules = map[string]suspension{
	// Reading, and noting what was read.
	"sync": allowed, "im.conclave.ws.ticket": allowed, "im.conclave.ws.sync": allowed,
	"org.matrix.simplified_msc3575.sync": allowed,
	"queryPublicRooms":                   allowed, "search": allowed, "searchUserDirectory": allowed, "defineFilter": allowed,
	"postReceipt": allowed, "setReadMarker": allowed,

	// Leaving, and taking back what one has said.
	"leaveRoom": allowed, "forgetRoom": allowed, "redactEvent": partly, "sendMessage": partly,

	// Sessions, devices and the account itself.
	"logout": allowed, "logout_all": allowed, "deleteDevice": allowed, "deleteDevices": allowed, "deactivateAccount": allowed,
	"changePassword": allowed, "generateLoginToken": allowed,
	"im.conclave.account.export.begin": allowed, "im.conclave.account.export.drop": allowed,
	"im.conclave.account.totp.begin": allowed, "im.conclave.account.totp.confirm": allowed, "im.conclave.account.totp.remove": allowed,
	"im.conclave.account.recoveryCodes": allowed, "im.conclave.account.passkeys.begin": allowed, "im.conclave.account.passkeys.finish": allowed,
	"im.conclave.account.passkeys.challenge": allowed, "im.conclave.account.passkeys.rename": allowed, "im.conclave.account.passkeys.remove": allowed,

	// Adding addresses, each of which says when it came, but not taking any away.
	"requestTokenTo3PIDEmail": allowed, "requestTokenTo3PIDMSISDN": allowed, "add3PID": allowed,

	// Keys: verifying one's own devices, cross-signing, backup. Messages to devices go to one's own only.
	"uploadKeys": allowed, "queryKeys": allowed, "claimKeys": allowed, "uploadCrossSigningKeys": allowed,
	"uploadCrossSigningSignatures": allowed, "sendToDevice": partly,
	"postRoomKeysVersion": allowed, "putRoomKeysVersion": allowed, "deleteRoomKeysVersion": allowed, "putRoomKeys": allowed,
	"deleteRoomKeys": allowed, "putRoomKeysByRoomId": allowed, "deleteRoomKeysByRoomId": allowed,
	"putRoomKeyBySessionId": allowed, "deleteRoomKeyBySessionId": allowed,

	// What nobody else sees. Secrets for cross-signing and backup are account data.
	"setAccountData": allowed, "setAccountDataPerRoom": allowed, "setRoomTag": allowed, "deleteRoomTag": allowed,
	"setPushRule": allowed, "deletePushRule": allowed, "setPushRuleActions": allowed, "setPushRuleEnabled": allowed,
	"postPusher": allowed,
}

// suspendedMay says whether somebody whose account is suspended may call an operation at all.
func suspendedMay(operation, method string) bool {
	if rule, judged := suspendedRules[operation]; judged {
		return rule != forbidden
	}
	return method == http.MethodGet || method == http.MethodHead
}

// mayRedact refuses to somebody whose account is suspended the redaction of what others have sent.
func (s *Server) mayRedact(r *Request, ref rooms.Ref, target matrix.EventID) error {
	if !r.Session.Suspended {
		return nil
	}
	viewer, err := s.Rooms.Viewer(r.Ctx(), ref.NID, r.User())
	if err != nil {
		return err
	}
	row, err := s.Rooms.Visible(r.Ctx(), ref, viewer, target)
	if err != nil {
		return err
	}
	if row.Event.Sender() != r.Session.UserID {
		return matrix.UserSuspended()
	}
	return nil
}

// maySendToDevices refuses to somebody whose account is suspended messages to the devices of others.
func (r *Request) maySendToDevices(users []matrix.UserID) error {
	others := func(user matrix.UserID) bool { return user != r.Session.UserID }
	if r.Session.Suspended && slices.ContainsFunc(users, others) {
		return matrix.UserSuspended()
	}
	return nil
}
