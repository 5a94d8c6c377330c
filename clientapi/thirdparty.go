package clientapi

import (
	"conclave/internal/matrix"
	"conclave/rooms"
)

// maxAddressInvites bounds the invitations by address of one createRoom: each asks a stranger several times.
const maxAddressInvites = 10

// maxIdentityToken bounds what a client is let in by at an identity server.
const maxIdentityToken = 4096

// addressBody is how clients name somebody of whom they know only an address (client-server API, Invite3pid).
type addressBody struct {
	IDServer string `json:"id_server"`
	IDToken  string `json:"id_access_token"`
	Medium   string `json:"medium"`
	Address  string `json:"address"`
}

// invite checks the body.
func (b *addressBody) invite() (rooms.AddressInvite, error) {
	var q rooms.AddressInvite
	for _, m := range []struct{ name, value string }{
		{"id_server", b.IDServer}, {"id_access_token", b.IDToken}, {"medium", b.Medium}, {"address", b.Address},
	} {
		if m.value == "" {
			return q, matrix.MissingParam("To invite by address, %s is needed.", m.name)
		}
	}
	var err error
	if q.By.Server, err = matrix.ParseServerName(b.IDServer); err != nil {
		return q, matrix.InvalidParam("%.255q is not a server's name.", b.IDServer).With(err)
	}
	if q.By.Token = b.IDToken; !isHeaderToken(b.IDToken) {
		return q, matrix.InvalidParam("id_access_token is not a token of at most %d bytes.", maxIdentityToken)
	}
	q.Address, err = rooms.ParseAddress(b.Medium, b.Address)
	return q, err
}

// isHeaderToken says whether a text can follow Bearer in a header: visible ASCII.
func isHeaderToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= maxIdentityToken
}

// addressInvites checks the list of createRoom.
func addressInvites(list []addressBody) ([]rooms.AddressInvite, error) {
	if len(list) > maxAddressInvites {
		return nil, matrix.InvalidParam("At most %d addresses can be invited at once.", maxAddressInvites)
	}
	var out []rooms.AddressInvite
	for _, b := range list {
		q, err := b.invite()
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}

// inviteBy3PID invites whoever has an address: the user that it is bound to, as any other, or whoever binds it later.
func (s *Server) inviteBy3PID(r *Request, m memberBody, b addressBody) error {
	if m.UserID != "" {
		return matrix.InvalidParam("Invite a user or an address, not both.")
	}
	q, err := b.invite()
	if err != nil {
		return err
	}
	if q.Room, err = r.Room(); err != nil {
		return err
	}
	q.Sender = r.User()
	target, err := s.Rooms.InviteAddress(r.Ctx(), q)
	if err != nil || target == "" {
		return err
	}
	return s.invite(r, rooms.MemberRequest{Room: q.Room, Sender: q.Sender, Target: target, Reason: m.Reason})
}
