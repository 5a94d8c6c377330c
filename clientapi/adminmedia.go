package clientapi

import (
	"strconv"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// What administrators may do with contents: the part of Synapse's administration API about media, as its documentation
// describes it. A content in quarantine is answered as if there were none, to users and other servers alike, and a copy
// of another server's is not fetched again.
var adminMediaRoutes = []Route{
	{Method: post, Path: "/_synapse/admin/v1/media/quarantine/:serverName/:mediaId", OperationID: "im.conclave.admin.quarantineMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).quarantineMedia},
	{Method: post, Path: "/_synapse/admin/v1/media/unquarantine/:serverName/:mediaId", OperationID: "im.conclave.admin.unquarantineMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).unquarantineMedia},
	{Method: post, Path: "/_synapse/admin/v1/user/:userId/media/quarantine", OperationID: "im.conclave.admin.quarantineUserMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).quarantineUserMedia},
	{Method: get, Path: "/_synapse/admin/v1/users/:userId/media", OperationID: "im.conclave.admin.userMedia",
		Auth: Admin, Limit: LimitRead, Handler: (*Server).userMedia},
	{Method: del, Path: "/_synapse/admin/v1/media/:serverName/:mediaId", OperationID: "im.conclave.admin.deleteMedia",
		Auth: Admin, Limit: LimitChange, Handler: (*Server).deleteMedia},
}

// quarantineMedia is POST /_synapse/admin/v1/media/quarantine/{server_name}/{media_id}.
func (s *Server) quarantineMedia(r *Request) (any, error) {
	return nil, s.Media.Withdraw(r.Ctx(), r.Session.User, matrix.ServerName(r.Param("serverName")), r.Param("mediaId"))
}

// unquarantineMedia is POST /_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}.
func (s *Server) unquarantineMedia(r *Request) (any, error) {
	return nil, s.Media.GiveBack(r.Ctx(), r.Session.User, matrix.ServerName(r.Param("serverName")), r.Param("mediaId"))
}

// ownUser is the user of ours that the path names.
func (s *Server) ownUser(r *Request) (store.UserNID, error) {
	id, err := matrix.ParseUserID(r.Param("userId"))
	if err != nil {
		return 0, matrix.InvalidParam("%q is not a user ID.", r.Param("userId")).With(err)
	}
	var account *store.Account
	if string(id.Server()) == s.Config.ServerName {
		err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
			account, err = tx.Account(id.Localpart())
			return err
		})
	}
	switch {
	case err != nil:
		return 0, err
	case account == nil:
		return 0, matrix.NotFound("There is no such user on this server.")
	}
	return account.User, nil
}

// quarantineUserMedia is POST /_synapse/admin/v1/user/{user_id}/media/quarantine.
func (s *Server) quarantineUserMedia(r *Request) (any, error) {
	user, err := s.ownUser(r)
	if err != nil {
		return nil, err
	}
	n, err := s.Media.WithdrawAllOf(r.Ctx(), r.Session.User, user)
	return map[string]int64{"num_quarantined": n}, err
}

// maxMediaPage is how many contents administrators read at a time, and mediaPage how many without a word.
const (
	maxMediaPage = 1000
	mediaPage    = 100
)

// mediaPageOf reads which part of a list of contents is wanted.
func mediaPageOf(r *Request) (from, limit int, err error) {
	if from, err = smallNumber(r.QueryParam("from"), 0, 1<<31-1); err != nil {
		return 0, 0, matrix.InvalidParam("from is not a place in the list.")
	}
	if limit, err = smallNumber(r.QueryParam("limit"), mediaPage, 1<<31-1); err != nil || limit == 0 {
		return 0, 0, matrix.InvalidParam("limit is not a number of contents.")
	}
	return from, min(limit, maxMediaPage), nil
}

// userMedia is GET /_synapse/admin/v1/users/{user_id}/media. Contents come newest first, or with dir=f oldest first.
func (s *Server) userMedia(r *Request) (any, error) {
	user, err := s.ownUser(r)
	if err != nil {
		return nil, err
	}
	from, limit, err := mediaPageOf(r)
	if err != nil {
		return nil, err
	}
	dir := r.QueryParam("dir")
	if order := r.QueryParam("order_by"); order != "" && order != "created_ts" || dir != "" && dir != "b" && dir != "f" {
		return nil, matrix.InvalidParam("The list is in the order of created_ts, dir is b or f.")
	}
	page, total, err := s.Media.OfUser(r.Ctx(), user, dir != "f", from, limit)
	if err != nil {
		return nil, err
	}
	list := make([]map[string]any, len(page))
	for i, c := range page {
		list[i] = adminMedia(c)
	}
	answer := map[string]any{"media": list, "total": total}
	if next := from + len(page); int64(next) < total && len(page) > 0 {
		answer["next_token"] = next
	}
	return answer, nil
}

// smallNumber reads a parameter that is a number from 0 to most.
func smallNumber(text string, without, most int) (int, error) {
	if text == "" {
		return without, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n > uint64(most) {
		return 0, strconv.ErrRange
	}
	return int(n), nil
}

// adminMedia is a content in the words of Synapse. What is not known is null.
func adminMedia(c store.MediaOfUser) map[string]any {
	orNull := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	return map[string]any{
		"media_id": c.ID, "media_length": c.Size, "media_type": c.Type, "upload_name": orNull(c.Name), "created_ts": c.Created,
		"last_access_ts": nil, "quarantined_by": orNull(string(c.By)), "safe_from_quarantine": false,
	}
}

// deleteMedia is DELETE /_synapse/admin/v1/media/{server_name}/{media_id}: a content of ours for good, or the copy of another
// server's, which is fetched again when it is wanted, unless it is in quarantine.
func (s *Server) deleteMedia(r *Request) (any, error) {
	id := r.Param("mediaId")
	if err := s.Media.Delete(r.Ctx(), r.Session.User, matrix.ServerName(r.Param("serverName")), id); err != nil {
		return nil, err
	}
	return map[string]any{"deleted_media": []string{id}, "total": 1}, nil
}
