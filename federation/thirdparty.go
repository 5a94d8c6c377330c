package federation

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// Bounds of what an identity service, or whoever says that it is one, tells of a binding.
const (
	maxBindBody = 256 << 10
	maxBound    = 50 // invitations
	bindsAtOnce = 4
)

var thirdPartyRoutes = []Route{
	{Method: "PUT", Path: v1 + "/3pid/onbind", OperationID: "onBindThirdPartyIdentifier", Auth: AuthNone, MaxBody: maxBindBody, Handler: (*Server).onBindThirdPartyIdentifier},
	{Method: "PUT", Path: v1 + "/exchange_third_party_invite/{roomId}", OperationID: "exchangeThirdPartyInvite", Auth: AuthServer, MaxBody: maxEventBody, PerOrigin: 4, Handler: (*Server).exchangeThirdPartyInvite},
}

// onBindThirdPartyIdentifier takes in that an address was bound to a user of ours, and the invitations that wait for it.
// The specification has identity services sign this request and does not say how, so that nothing is believed of it:
// each invitation carries a signature that is checked where its key is known.
func (s *Server) onBindThirdPartyIdentifier(r *Request) (any, error) {
	release, ok := s.busy.take(r.Context(), "", "onBindThirdPartyIdentifier", bindsAtOnce)
	if !ok {
		return nil, matrix.LimitExceeded(1000)
	}
	defer release()
	var body struct {
		User    string            `json:"mxid"`
		Invites []json.RawMessage `json:"invites"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	user, err := matrix.ParseUserID(body.User)
	if err != nil {
		return nil, matrix.InvalidParam("mxid is missing or not a user ID.").With(err)
	}
	if len(body.Invites) > maxBound {
		return nil, matrix.TooLarge("At most %d invitations are taken at once.", maxBound)
	}
	var claims []rooms.Claim
	for _, raw := range body.Invites {
		claim, err := readInvite(user, raw)
		if err != nil { // one that is no good does not take the others with it
			s.log.Debug("an invitation to an address is not usable", "err", err)
			continue
		}
		claims = append(claims, claim)
	}
	return struct{}{}, s.options.Rooms.Bound(r.Context(), user, claims)
}

// readInvite reads one invitation of onBindThirdPartyIdentifier.
func readInvite(user matrix.UserID, raw json.RawMessage) (rooms.Claim, error) {
	var invite struct {
		User   string          `json:"mxid"`
		Room   string          `json:"room_id"`
		Sender string          `json:"sender"`
		Signed json.RawMessage `json:"signed"`
	}
	if err := matrix.Decode(raw, &invite); err != nil {
		return rooms.Claim{}, err
	}
	if invite.User != string(user) {
		return rooms.Claim{}, matrix.Forbidden("The invitation is somebody else's.")
	}
	return rooms.NewClaim(invite.Room, invite.Sender, invite.User, invite.Signed)
}

// exchangeThirdPartyInvite turns an invitation that a user of ours made to an address into one of the asking server's
// user, who has proved to have it.
func (s *Server) exchangeThirdPartyInvite(r *Request) (any, error) {
	room, err := r.room()
	if err != nil {
		return nil, err
	}
	var body struct {
		Type     string `json:"type"`
		Room     string `json:"room_id"`
		Sender   string `json:"sender"`
		StateKey string `json:"state_key"`
		Content  struct {
			Membership string `json:"membership"`
			ThirdParty struct {
				Signed json.RawMessage `json:"signed"`
			} `json:"third_party_invite"`
		} `json:"content"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	switch {
	case body.Room != string(room):
		return nil, matrix.InvalidParam("The event is of another room.")
	case body.Type != "m.room.member" || body.Content.Membership != "invite":
		return nil, matrix.InvalidParam("The event is not an invitation.")
	}
	claim, err := rooms.NewClaim(body.Room, body.Sender, body.StateKey, body.Content.ThirdParty.Signed)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.options.Rooms.Exchange(r.Context(), r.Origin, claim)
}
