package clientapi

import (
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// What administrators can do with accounts (client-server API, "Server administration"). That the caller is one is checked
// before a handler looks anything up, so nobody else learns here who has an account.
var moderationRoutes = []Route{
	{Method: get, Path: "/_matrix/client/v1/admin/lock/:userId", OperationID: "getAdminLockUser", Auth: Admin, Limit: LimitRead, Handler: (*Server).getAdminLockUser},
	{Method: put, Path: "/_matrix/client/v1/admin/lock/:userId", OperationID: "setAdminLockUser", Auth: Admin, Limit: LimitChange, Handler: (*Server).setAdminLockUser},
	{Method: get, Path: "/_matrix/client/v1/admin/suspend/:userId", OperationID: "getAdminSuspendUser", Auth: Admin, Limit: LimitRead, Handler: (*Server).getAdminSuspendUser},
	{Method: put, Path: "/_matrix/client/v1/admin/suspend/:userId", OperationID: "setAdminSuspendUser", Auth: Admin, Limit: LimitChange, Handler: (*Server).setAdminSuspendUser},
	op(get, "/admin/whois/:userId", "getWhoIs", Token, LimitRead, (*Server).getWhoIs),
	{Method: get, Path: "/_synapse/admin/v2/users", OperationID: "im.conclave.adminUsers", Auth: Admin, Limit: LimitRead, Handler: (*Server).adminUsers},
}

// getAdminLockUser is GET /admin/lock/{userId}.
func (s *Server) getAdminLockUser(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	locked, err := s.Accounts.Locked(r.Ctx(), id)
	return map[string]bool{"locked": locked}, err
}

// setAdminLockUser is PUT /admin/lock/{userId}.
func (s *Server) setAdminLockUser(r *Request) (any, error) {
	id, locked, err := r.moderation("locked")
	if err != nil {
		return nil, err
	}
	return map[string]bool{"locked": locked}, s.Accounts.SetLocked(r.Ctx(), r.Session, id, locked)
}

// getAdminSuspendUser is GET /admin/suspend/{userId}.
func (s *Server) getAdminSuspendUser(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	suspended, err := s.Accounts.Suspended(r.Ctx(), id)
	return map[string]bool{"suspended": suspended}, err
}

// setAdminSuspendUser is PUT /admin/suspend/{userId}.
func (s *Server) setAdminSuspendUser(r *Request) (any, error) {
	id, suspended, err := r.moderation("suspended")
	if err != nil {
		return nil, err
	}
	return map[string]bool{"suspended": suspended}, s.Accounts.SetSuspended(r.Ctx(), r.Session, id, suspended)
}

// moderation reads the user of the path and the flag of the body.
func (r *Request) moderation(flag string) (id matrix.UserID, set bool, err error) {
	if id, err = r.userOf(); err != nil {
		return id, false, err
	}
	body, err := r.Object()
	if err != nil {
		return id, false, err
	}
	value, there := matrix.Get(body, flag)
	if !there {
		return id, false, matrix.MissingParam("%s is needed.", flag)
	}
	if string(value) != "true" && string(value) != "false" {
		return id, false, matrix.InvalidParam("%s is true or false.", flag)
	}
	return id, string(value) == "true", nil
}

// whoisConnection is a place that a session was used from.
type whoisConnection struct {
	Address string `json:"ip,omitempty"`
	Seen    int64  `json:"last_seen,omitempty"` // ms
}

// getWhoIs is GET /admin/whois/{userId}: of oneself, or of any user of this server for administrators. Of each device it
// tells from where it was heard of last.
func (s *Server) getWhoIs(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	user := r.Session.User
	if id != r.Session.UserID {
		if !r.Session.Admin {
			return nil, matrix.Forbidden("Only administrators of the server may ask about others.")
		}
		account, err := s.Accounts.Find(r.Ctx(), id)
		if err != nil {
			return nil, err
		}
		user = account.User
	}
	devices, err := s.Accounts.Devices(r.Ctx(), user)
	if err != nil {
		return nil, err
	}
	answer := make(map[matrix.DeviceID]any, len(devices))
	for _, d := range devices {
		answer[d.ID] = map[string]any{"sessions": []any{map[string]any{"connections": []whoisConnection{{d.Address, d.Seen}}}}}
	}
	return map[string]any{"user_id": id, "devices": answer}, nil
}

// adminUser is an account in a list, with the names that Synapse's administration API gives.
type adminUser struct {
	ID          matrix.UserID `json:"name"`
	Name        string        `json:"displayname"`
	Avatar      string        `json:"avatar_url"`
	Admin       bool          `json:"admin"`
	Deactivated bool          `json:"deactivated"`
	Locked      bool          `json:"locked"`
	Suspended   bool          `json:"suspended"`
	Created     int64         `json:"creation_ts"` // ms
	Guest       bool          `json:"is_guest"`

	Threepids []threepidAnswer `json:"threepids"`
}

// Accounts on a page of adminUsers: as many if the caller does not say, and at most.
const (
	adminPage    = 100
	maxAdminPage = 1000
)

// adminUsers is GET /_synapse/admin/v2/users: a page of the accounts in the order of their names. from is the next_token
// of the page before; deactivated=true shows closed accounts too. name looks for a part of the user ID.
func (s *Server) adminUsers(r *Request) (any, error) {
	limit := adminPage
	if text := r.QueryParam("limit"); text != "" {
		n, err := pageSize(text)
		if err != nil {
			return nil, err
		}
		limit = min(max(n, 1), maxAdminPage)
	}
	closed, err := flag(r.QueryParam("deactivated"))
	if err != nil {
		return nil, err
	}
	q := store.AccountQuery{After: r.QueryParam("from"), Name: r.QueryParam("name"), Closed: closed, Limit: limit + 1}
	users, total := []adminUser{}, 0
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		users = users[:0]
		if total, err = tx.CountAccounts(q); err != nil {
			return err
		}
		at := map[store.UserNID]int{} // where in users
		err = tx.FindAccounts(q, func(a store.Account, profile string) {
			at[a.User] = len(users)
			u := adminUser{Threepids: []threepidAnswer{}, ID: a.ID, Admin: a.Admin, Deactivated: a.Deactivated, Locked: a.Locked, Suspended: a.Suspended, Created: a.Created, Guest: a.Guest}
			u.Name, _ = matrix.GetString(json.RawMessage(profile), "displayname")
			u.Avatar, _ = matrix.GetString(json.RawMessage(profile), "avatar_url")
			users = append(users, u)
		})
		if err != nil {
			return err
		}
		return tx.ThreepidsOf(slices.Collect(maps.Keys(at)), func(t store.Threepid) {
			u := &users[at[t.User]]
			u.Threepids = append(u.Threepids, threepidAnswer{t.Medium, t.Address, t.Validated, t.Added})
		})
	})
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"total": total}
	if len(users) > limit {
		users = users[:limit]
		answer["next_token"] = users[limit-1].ID.Localpart()
	}
	answer["users"] = users
	return answer, nil
}
