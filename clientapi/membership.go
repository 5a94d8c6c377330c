package clientapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var membershipRoutes = []Route{
	op(post, "/createRoom", "createRoom", Token, LimitChange, (*Server).createRoom),
	op(post, "/rooms/:roomId/upgrade", "upgradeRoom", Token, LimitChange, (*Server).upgradeRoom),
	op(post, "/join/:roomIdOrAlias", "joinRoom", Token, LimitChange, (*Server).joinRoom),
	op(post, "/rooms/:roomId/join", "joinRoomById", Token, LimitChange, (*Server).joinRoomByID),
	op(post, "/knock/:roomIdOrAlias", "knockRoom", Token, LimitChange, (*Server).knockRoom),
	op(post, "/rooms/:roomId/leave", "leaveRoom", Token, LimitChange, (*Server).leaveRoom),
	op(post, "/rooms/:roomId/forget", "forgetRoom", Token, LimitChange, (*Server).forgetRoom),
	op(post, "/rooms/:roomId/invite", "inviteUser", Token, LimitChange, (*Server).inviteUser),
	op(post, "/rooms/:roomId/kick", "kick", Token, LimitChange, (*Server).kick),
	op(post, "/rooms/:roomId/ban", "ban", Token, LimitChange, (*Server).ban),
	op(post, "/rooms/:roomId/unban", "unban", Token, LimitChange, (*Server).unban),
	op(get, "/joined_rooms", "getJoinedRooms", Token, LimitRead, (*Server).getJoinedRooms),
}

// maxInvites bounds the invitations of one createRoom.
const maxInvites = 100

// createRoom is POST /createRoom.
func (s *Server) createRoom(r *Request) (any, error) {
	var body struct {
		Visibility      string                     `json:"visibility"`
		AliasName       string                     `json:"room_alias_name"`
		Name            string                     `json:"name"`
		Topic           string                     `json:"topic"`
		Invite          []string                   `json:"invite"`
		Invite3PID      []addressBody              `json:"invite_3pid"`
		Version         string                     `json:"room_version"`
		CreationContent map[string]json.RawMessage `json:"creation_content"`
		InitialState    []rooms.StateEvent         `json:"initial_state"`
		Preset          string                     `json:"preset"`
		Direct          bool                       `json:"is_direct"`
		Power           map[string]json.RawMessage `json:"power_level_content_override"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	q := rooms.CreateRequest{
		Creator: r.User(), Visibility: body.Visibility, Name: body.Name, Topic: body.Topic,
		CreationContent: body.CreationContent, InitialState: body.InitialState, Preset: body.Preset,
		Direct: body.Direct, PowerOverride: body.Power,
	}
	if body.Version != "" {
		version, ok := matrix.ParseRoomVersion(body.Version)
		if !ok {
			return nil, matrix.Errorf(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "This server has no room version %q.", body.Version)
		}
		q.Version = version
	}
	if body.AliasName != "" {
		alias, err := matrix.ParseAlias("#" + body.AliasName + ":" + s.Config.ServerName)
		if err != nil {
			return nil, matrix.InvalidParam("%q cannot be the name of an alias.", body.AliasName).With(err)
		}
		if err := s.reservedAlias(r, alias); err != nil {
			return nil, err
		}
		q.Alias = alias
	}
	if len(body.Invite) > maxInvites {
		return nil, matrix.InvalidParam("At most %d people can be invited at once.", maxInvites)
	}
	for _, name := range body.Invite {
		id, err := matrix.ParseUserID(name)
		if err != nil {
			return nil, matrix.InvalidParam("%q is not a user ID.", name).With(err)
		}
		q.Invite = append(q.Invite, id)
	}
	var err error
	if q.InviteAddresses, err = addressInvites(body.Invite3PID); err != nil {
		return nil, err
	}
	if q.Profile, err = s.profileOf(r); err != nil {
		return nil, err
	}
	id, err := s.Rooms.Create(r.Ctx(), q)
	return map[string]any{"room_id": id}, err
}

// profileOf is what member events say of the caller.
func (s *Server) profileOf(r *Request) (rooms.Profile, error) {
	return s.profileFor(r, r.Session.User)
}

func (s *Server) profileFor(r *Request, user store.UserNID) (rooms.Profile, error) {
	p, err := s.Accounts.Profile(r.Ctx(), user)
	if err != nil {
		return rooms.Profile{}, err
	}
	return rooms.Profile{DisplayName: p.Text(accounts.DisplayName), AvatarURL: p.Text(accounts.AvatarURL)}, nil
}

// joinRoom is POST /join/{roomIdOrAlias}.
func (s *Server) joinRoom(r *Request) (any, error) {
	id, servers, err := s.roomOrAlias(r)
	if err != nil {
		return nil, err
	}
	return s.join(r, id, servers)
}

// knockRoom is POST /knock/{roomIdOrAlias}.
func (s *Server) knockRoom(r *Request) (any, error) {
	id, servers, err := s.roomOrAlias(r)
	if err != nil {
		return nil, err
	}
	return s.enter(r, id, servers, s.Rooms.Knock)
}

// joinRoomByID is POST /rooms/{roomId}/join.
func (s *Server) joinRoomByID(r *Request) (any, error) {
	return s.join(r, r.Param("roomId"), nil)
}

// roomOrAlias is the room ID that the path names, itself or by an alias, and servers that the alias's server named.
func (s *Server) roomOrAlias(r *Request) (string, []matrix.ServerName, error) {
	name := r.Param("roomIdOrAlias")
	if !strings.HasPrefix(name, "#") {
		return name, nil, nil
	}
	alias, err := matrix.ParseAlias(name)
	if err != nil {
		return "", nil, matrix.InvalidParam("%q is not an alias.", name).With(err)
	}
	id, servers, err := s.resolveAlias(r.Ctx(), alias)
	return string(id), servers, err
}

// enter reads what joining and knocking share, and does it.
func (s *Server) enter(r *Request, name string, servers []matrix.ServerName, do func(context.Context, rooms.JoinRequest) error) (any, error) {
	var body struct {
		Reason string          `json:"reason"`
		Signed json.RawMessage `json:"third_party_signed"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	id, err := matrix.ParseRoomID(name)
	if err != nil {
		return nil, matrix.InvalidParam("%q is not a room ID.", name).With(err)
	}
	query := r.QueryParams()
	via, err := serverNames(append(query["via"], query["server_name"]...))
	if err != nil {
		return nil, err
	}
	servers = append(servers, via...)
	profile, err := s.profileOf(r)
	if err != nil {
		return nil, err
	}
	err = do(r.Ctx(), rooms.JoinRequest{
		Room: id, User: r.User(), Profile: profile, Reason: body.Reason, Via: servers, Signed: body.Signed,
	})
	return map[string]any{"room_id": id}, err
}

// serverNames reads the servers that a client names.
func serverNames(via []string) (names []matrix.ServerName, err error) {
	for _, text := range via {
		name, err := matrix.ParseServerName(text)
		if err != nil {
			return nil, matrix.InvalidParam("%.255q is not a server's name.", text).With(err)
		}
		names = append(names, name)
	}
	return names, nil
}

// memberBody is the body that invite, kick, ban and unban share.
type memberBody struct {
	UserID string `json:"user_id"`
	Reason string `json:"reason"`
}

// memberRequest reads the body of kick, ban and unban.
func (s *Server) memberRequest(r *Request) (rooms.MemberRequest, error) {
	var body memberBody
	if err := r.Decode(&body); err != nil {
		return rooms.MemberRequest{}, err
	}
	return body.request(r)
}

func (body *memberBody) request(r *Request) (rooms.MemberRequest, error) {
	q := rooms.MemberRequest{Sender: r.User()}
	if body.UserID == "" {
		return q, matrix.MissingParam("A user_id is needed.")
	}
	target, err := matrix.ParseUserID(body.UserID)
	if err != nil {
		return q, matrix.InvalidParam("%q is not a user ID.", body.UserID).With(err)
	}
	q.Target, q.Reason = target, body.Reason
	q.Room, err = r.Room()
	return q, err
}

// inviteUser is POST /rooms/{roomId}/invite, of a user or of an address (inviteBy3PID).
func (s *Server) inviteUser(r *Request) (any, error) {
	var member memberBody
	var address addressBody
	if err := r.Decode(&member); err != nil {
		return nil, err
	}
	if err := r.Decode(&address); err != nil {
		return nil, err
	}
	if address != (addressBody{}) {
		return nil, s.inviteBy3PID(r, member, address)
	}
	q, err := member.request(r)
	if err != nil {
		return nil, err
	}
	return nil, s.invite(r, q)
}

// invite invites a user, saying how a user of ours calls itself.
func (s *Server) invite(r *Request, q rooms.MemberRequest) error {
	if s.Rooms.Identity().IsOurs(q.Target.Server()) {
		account, err := s.Accounts.Find(r.Ctx(), q.Target)
		if err != nil {
			return err
		}
		if q.Profile, err = s.profileFor(r, account.User); err != nil {
			return err
		}
	}
	_, err := s.Rooms.Invite(r.Ctx(), q)
	return err
}

// kick is POST /rooms/{roomId}/kick.
func (s *Server) kick(r *Request) (any, error) {
	q, err := s.memberRequest(r)
	if err == nil {
		_, err = s.Rooms.Kick(r.Ctx(), q)
	}
	return nil, err
}

// ban is POST /rooms/{roomId}/ban.
func (s *Server) ban(r *Request) (any, error) {
	q, err := s.memberRequest(r)
	if err == nil {
		_, err = s.Rooms.Ban(r.Ctx(), q)
	}
	return nil, err
}

// unban is POST /rooms/{roomId}/unban.
func (s *Server) unban(r *Request) (any, error) {
	q, err := s.memberRequest(r)
	if err == nil {
		_, err = s.Rooms.Unban(r.Ctx(), q)
	}
	return nil, err
}

// leaveRoom is POST /rooms/{roomId}/leave.
func (s *Server) leaveRoom(r *Request) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	if err := s.mayReject(r, ref); err != nil {
		return nil, err
	}
	return nil, s.Rooms.Leave(r.Ctx(), rooms.MemberRequest{Room: ref, Sender: r.User(), Reason: body.Reason})
}

// forgetRoom is POST /rooms/{roomId}/forget.
func (s *Server) forgetRoom(r *Request) (any, error) {
	ref, err := r.Room()
	if err != nil {
		return nil, err
	}
	return nil, s.Rooms.Forget(r.Ctx(), ref.NID, r.Session.User)
}

// getJoinedRooms is GET /joined_rooms.
func (s *Server) getJoinedRooms(r *Request) (any, error) {
	ids, err := s.Rooms.JoinedRooms(r.Ctx(), r.Session.User)
	return map[string]any{"joined_rooms": ids}, err
}
