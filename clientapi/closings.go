package clientapi

import (
	"conclave/internal/matrix"
)

// What administrators can do to close accounts, under the path that Synapse's administration API has for it, and how they
// follow what becomes of it.
var closingRoutes = []Route{
	{Method: post, Path: "/_synapse/admin/v1/deactivate/:userId", OperationID: "im.conclave.admin.deactivate", Auth: Admin, Limit: LimitChange, Handler: (*Server).adminDeactivate},
	{Method: get, Path: "/_synapse/admin/v1/deactivate/:userId", OperationID: "im.conclave.admin.deactivated", Auth: Admin, Limit: LimitRead, Handler: (*Server).adminDeactivated},
}

// adminDeactivate is POST /_synapse/admin/v1/deactivate/{user_id}. With erase it also erases what the user has left, of an
// account that is closed already too. Identity servers are asked by a job.
func (s *Server) adminDeactivate(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	var body struct {
		Erase bool `json:"erase"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return unbindResult(true), s.Accounts.CloseFor(r.Ctx(), r.Session, id, body.Erase)
}

// closingAnswer tells what became of a closed account.
type closingAnswer struct {
	User    matrix.UserID `json:"user_id"`
	Asked   int64         `json:"requested_ts"` // ms
	Erase   bool          `json:"erase"`
	State   string        `json:"state"` // working, done
	Rooms   int64         `json:"rooms_to_leave"`
	Gone    int64         `json:"rooms_left"`
	Places  int64         `json:"rooms_to_erase"`
	Cleared int64         `json:"rooms_erased"`
	Files   int64         `json:"media_deleted"`
	Failure string        `json:"error,omitempty"` // the last one, in words
}

// adminDeactivated is GET /_synapse/admin/v1/deactivate/{user_id}: how far the closing of an account has come.
func (s *Server) adminDeactivated(r *Request) (any, error) {
	id, err := r.userOf()
	if err != nil {
		return nil, err
	}
	c, err := s.Accounts.Closed(r.Ctx(), id)
	if err != nil {
		return nil, err
	}
	state := "done"
	if c.Working {
		state = "working"
	}
	return closingAnswer{id, c.Asked, c.Erased != 0, state, c.Rooms, c.Gone, c.Places, c.Clear, c.Files, c.Failure}, nil
}
