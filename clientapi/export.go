package clientapi

import (
	"errors"
	"io/fs"
	"net/http"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/media"
)

// Everybody can have all that the server has of them, as one archive. It is asked for with the password (or what else shows
// that it is the owner who asks), put together by a job (exportjob.go), and kept for some days for its owner alone.
const exportPath = "/_matrix/client/unstable/im.conclave.account/export"

var exportRoutes = []Route{
	{Method: post, Path: exportPath, OperationID: "im.conclave.account.export.begin", Auth: Token, Limit: LimitLogin, Handler: (*Server).beginExport},
	{Method: get, Path: exportPath, OperationID: "im.conclave.account.export", Auth: Token, Limit: LimitRead, Handler: (*Server).getExport},
	{Method: del, Path: exportPath, OperationID: "im.conclave.account.export.drop", Auth: Token, Limit: LimitChange, Handler: (*Server).dropExport},
	{Method: get, Path: exportPath + "/download", OperationID: "im.conclave.account.export.download", Auth: Token, Limit: LimitMedia, Handler: (*Server).downloadExport},
	{Method: http.MethodHead, Path: exportPath + "/download", OperationID: "im.conclave.account.export.download", Auth: Token, Limit: LimitMedia, Handler: (*Server).downloadExport},
}

// exportAnswer tells how far an export has come.
type exportAnswer struct {
	State    string `json:"state"` // none, working, ready
	Asked    int64  `json:"requested_ts,omitempty"`
	Rooms    int64  `json:"rooms_total"`
	Done     int64  `json:"rooms_done"`
	Size     int64  `json:"size,omitempty"` // bytes, once it is ready
	Finished int64  `json:"ready_ts,omitempty"`
	Expires  int64  `json:"expires_ts,omitempty"` // when it is deleted
	Failure  string `json:"error,omitempty"`      // what went wrong last; it is tried again
}

func exportState(e *store.Export) exportAnswer {
	if e == nil {
		return exportAnswer{State: "none"}
	}
	a := exportAnswer{"working", e.Asked, e.Rooms, min(e.Done, e.Rooms), e.Size, e.Finished, e.Expires, e.Failure}
	if e.File != "" {
		a.State = "ready"
	}
	return a
}

// beginExport is POST …/export. While one is being made or is ready, that one is the answer: whoever wants a new one drops it
// first.
func (s *Server) beginExport(r *Request) (any, error) {
	var body struct {
		Auth *accounts.AuthData `json:"auth"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	if err := s.newExport(r); err != nil {
		return nil, err
	}
	return s.getExport(r)
}

// newExport has an export made, unless there is one. One whose time is over makes room for it, if nobody has removed it yet.
func (s *Server) newExport(r *Request) error {
	e, err := s.anyExport(r)
	if err == nil && e != nil && s.over(e) {
		err = s.Media.DropOldExport(r.Ctx(), r.Session.User, r.Session.UserID, e)
	}
	if err == nil {
		err = s.Accounts.BeginExport(r.Ctx(), r.Session)
	}
	if err == nil {
		s.exporting.hint()
	}
	return err
}

// export reads the caller's export, nil if there is none that is still to be had.
func (s *Server) export(r *Request) (*store.Export, error) {
	e, err := s.anyExport(r)
	if err == nil && e != nil && s.over(e) {
		e = nil
	}
	return e, err
}

// anyExport reads it, also if its time is over.
func (s *Server) anyExport(r *Request) (e *store.Export, err error) {
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		e, err = tx.Export(r.Session.User)
		return err
	})
	return e, err
}

// over says whether an export's time is over.
func (s *Server) over(e *store.Export) bool {
	return e.Expires != 0 && e.Expires <= s.exporting.now().UnixMilli()
}

// getExport is GET …/export.
func (s *Server) getExport(r *Request) (any, error) {
	e, err := s.export(r)
	return exportState(e), err
}

// dropExport is DELETE …/export: the archive is removed, or no more made.
func (s *Server) dropExport(r *Request) (any, error) {
	return nil, s.Media.DropExport(r.Ctx(), r.Session.User, r.Session.UserID)
}

// downloadExport is GET and HEAD …/export/download: the archive, or the part of it that is asked for.
func (s *Server) downloadExport(r *Request) (any, error) {
	e, err := s.export(r)
	if err != nil {
		return nil, err
	}
	if e == nil || e.File == "" {
		return nil, matrix.NotFound("There is nothing to download. Ask for it first, and wait until it is ready.")
	}
	file, err := s.Media.OpenFile(r.Ctx(), media.File{Name: e.File, Size: e.Size})
	if errors.Is(err, fs.ErrNotExist) { // the database was put back from a copy, or the archive is being removed
		return nil, matrix.NotFound("The archive is gone. Remove it, and ask for a new one.")
	}
	if err != nil {
		return nil, err
	}
	content := &media.Content{File: file, Type: "application/zip", Name: "conclave-" + r.Session.UserID.Localpart() + ".zip", Hash: e.Hash, Size: e.Size}
	return s.serveKept(r, content, "no-store"), nil
}
