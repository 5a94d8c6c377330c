package clientapi

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// Notices are what administrators have the server tell a user (client-server API, "Server Notices"), by the calls of
// Synapse's administration API.
var noticeRoutes = []Route{
	{Method: post, Path: "/_synapse/admin/v1/send_server_notice", OperationID: "im.conclave.sendServerNotice", Auth: Admin, Limit: LimitSend, Handler: (*Server).sendServerNotice},
	{Method: put, Path: "/_synapse/admin/v1/send_server_notice/:txnId", OperationID: "im.conclave.sendServerNoticeOnce", Auth: Admin, Limit: LimitSend, Handler: (*Server).sendServerNotice},
}

// noticeTag marks the room for clients. It is the user's own data like any tag.
const noticeTag = "m.server_notice"

// sendServerNotice is POST /_synapse/admin/v1/send_server_notice, and PUT with a transaction ID.
func (s *Server) sendServerNotice(r *Request) (any, error) {
	var body struct {
		User     matrix.UserID   `json:"user_id"`
		Type     string          `json:"type"`
		StateKey *string         `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	content, err := noticeContent(body.Content)
	if err != nil {
		return nil, err
	}
	q := rooms.SendRequest{Type: "m.room.message", StateKey: body.StateKey, Content: content}
	if body.Type != "" {
		q.Type = body.Type
	}
	if err := checkName(q.Type, "event type"); err != nil {
		return nil, err
	}
	if !s.Rooms.Identity().IsOurs(body.User.Server()) {
		return nil, matrix.InvalidParam("user_id is a user of this server.")
	}
	user, err := s.Accounts.Find(r.Ctx(), body.User)
	if err != nil {
		return nil, err
	}
	if txn := r.Param("txnId"); txn != "" {
		if err := checkName(txn, "transaction ID"); err != nil {
			return nil, err
		}
		q.Txn, q.TxnID = rooms.TxnKey(r.Session.Device, "notice", matrix.RoomID(user.ID), q.Type, txn), txn
	}
	if q.Room, q.Sender, err = s.noticeRoom(r.Ctx(), user); err != nil {
		return nil, err
	}
	id, err := s.Rooms.Send(r.Ctx(), q)
	return eventAnswer(id), err
}

// noticeContent checks the content of a notice and gives it the type of one, if it says none.
func noticeContent(raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 {
		return nil, matrix.MissingParam("content is needed.")
	}
	if err := matrix.CheckObject(raw); err != nil {
		return nil, err
	}
	var content map[string]json.RawMessage
	if err := matrix.Decode(raw, &content); err != nil {
		return nil, err
	}
	if _, given := content["msgtype"]; !given && content["body"] != nil {
		content["msgtype"] = json.RawMessage(`"m.server_notice"`)
	}
	return matrix.Encode(content)
}

// noticeRoom finds the one room of a user's notices, or makes it, and sees to it that the user is in it or invited. The
// server speaks there as somebody whom nobody can log in as.
func (s *Server) noticeRoom(ctx context.Context, user *store.Account) (rooms.Ref, rooms.Sender, error) {
	s.noticing.Lock()
	defer s.noticing.Unlock()
	conf := s.Config.ServerNotices
	account, err := s.Accounts.System(ctx, conf.Localpart)
	if err != nil {
		return rooms.Ref{}, rooms.Sender{}, err
	}
	by := rooms.Sender{NID: account.User, ID: account.ID}
	var nid store.RoomNID
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		nid, err = tx.NoticeRoom(user.User)
		return err
	})
	if err == nil && nid == 0 {
		nid, err = s.newNoticeRoom(ctx, by, user)
	}
	if err != nil {
		return rooms.Ref{}, by, err
	}
	ref, err := s.Rooms.LookupNID(ctx, nid)
	if err != nil {
		return ref, by, err
	}
	member, err := s.Rooms.Membership(ctx, nid, user.User)
	if err == nil && (member == nil || member.Membership != store.Join && member.Membership != store.Invite) {
		_, err = s.Rooms.Invite(ctx, rooms.MemberRequest{Room: ref, Sender: by, Target: user.ID})
	}
	return ref, by, err
}

// newNoticeRoom makes the room and tags it for its user. The invitation comes after: a crash between leaves an empty room
// that nobody hears of.
func (s *Server) newNoticeRoom(ctx context.Context, by rooms.Sender, user *store.Account) (store.RoomNID, error) {
	name := s.Config.ServerNotices.Name
	id, err := s.Rooms.Create(ctx, rooms.CreateRequest{
		Creator: by, Profile: rooms.Profile{DisplayName: name}, Name: name, Preset: "private_chat",
		CreationContent: map[string]json.RawMessage{"m.federate": json.RawMessage(`false`)},
		PowerOverride:   map[string]json.RawMessage{"events_default": json.RawMessage(`50`), "invite": json.RawMessage(`50`)},
	})
	if err != nil {
		return 0, err
	}
	ref, err := s.Rooms.Lookup(ctx, id)
	if err != nil {
		return 0, err
	}
	nid := ref.NID
	err = s.DB.Write(ctx, func(tx *store.Tx) (err error) {
		if nid, err = tx.KeepNoticeRoom(user.User, ref.NID); err != nil {
			return err
		}
		tx.AfterCommit(s.wake)
		return tx.PutAccountData(user.User, nid, tagData, `{"tags":{"`+noticeTag+`":{}}}`)
	})
	return nid, err
}

// mayReject refuses to reject the invitation to one's server notices; whoever has joined may leave.
func (s *Server) mayReject(r *Request, ref rooms.Ref) error {
	var nid store.RoomNID
	err := s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		nid, err = tx.NoticeRoom(r.Session.User)
		return err
	})
	if err != nil || nid != ref.NID {
		return err
	}
	member, err := s.Rooms.Membership(r.Ctx(), ref.NID, r.Session.User)
	if err == nil && member != nil && member.Membership == store.Invite {
		err = matrix.Errorf(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "The invitation to the notices of the server cannot be rejected.")
	}
	return err
}
