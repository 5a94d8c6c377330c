package clientapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The audit log, for administrators: what happened to accounts, and what administrators have done. Nobody can change it.
var auditRoutes = []Route{
	{Method: get, Path: "/_synapse/admin/v1/audit_log", OperationID: "im.conclave.auditLog", Auth: Admin, Limit: LimitRead, Handler: (*Server).auditLog},
	{Method: get, Path: "/_synapse/admin/v1/audit_log/export", OperationID: "im.conclave.exportAuditLog", Auth: Admin, Limit: LimitChange, Handler: (*Server).exportAuditLog},
}

// auditQuery reads what entries are asked for: those of a user (user_id), of an event, and of a time (since, until; ms).
func auditQuery(r *Request) (q store.AuditQuery, err error) {
	q = store.AuditQuery{User: r.QueryParam("user_id"), Event: r.QueryParam("event")}
	if max(len(q.User), len(q.Event)) > 255 {
		return q, matrix.InvalidParam("user_id and event have at most 255 bytes.")
	}
	for name, into := range map[string]*int64{"since": &q.Since, "until": &q.Until, "from": &q.After} {
		text := r.QueryParam(name)
		if text == "" {
			continue
		}
		if *into, err = strconv.ParseInt(text, 10, 64); err != nil || *into < 0 {
			return q, matrix.InvalidParam("%s is a number that is not negative.", name)
		}
	}
	return q, nil
}

// auditLog is GET /_synapse/admin/v1/audit_log: a page of entries, the newest first. from is the next_token of the page
// before, limit at most 500.
func (s *Server) auditLog(r *Request) (any, error) {
	q, err := auditQuery(r)
	if err != nil {
		return nil, err
	}
	if q.Limit, err = number(r.QueryParam("limit"), 100, 500); err != nil || q.Limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 500.")
	}
	entries, err := s.Accounts.Audit(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	list := make([]accounts.AuditLine, len(entries))
	for i, e := range entries {
		list[i] = accounts.LineOf(e)
	}
	answer := map[string]any{"entries": list}
	if len(list) == q.Limit {
		answer["next_token"] = list[len(list)-1].ID
	}
	return answer, nil
}

// auditPage is how many entries are read at a time while they are exported.
const auditPage = 500

// exportAuditLog is GET /_synapse/admin/v1/audit_log/export: all entries that are asked for, the oldest first, each a line
// of JSON. An answer that ends early is cut: whoever reads goes on from the last id (from).
func (s *Server) exportAuditLog(r *Request) (any, error) {
	q, err := auditQuery(r)
	if err != nil {
		return nil, err
	}
	q.Oldest, q.Limit = true, auditPage
	h := r.Response().Header()
	begun := false
	for {
		entries, err := s.Accounts.Audit(r.Ctx(), q)
		if err != nil && begun { // nobody is to take what has come for all that there is
			s.Log.Error("exporting the audit log failed", "err", err)
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			return nil, err
		}
		if !begun {
			begun = true
			h.Set("Content-Type", "application/x-ndjson")
			h.Set("Cache-Control", "no-store")
			r.Response().WriteHeader(http.StatusOK)
		}
		lines := json.NewEncoder(r.Response())
		for _, e := range entries {
			if lines.Encode(accounts.LineOf(e)) != nil {
				return Done{}, nil // the client went away
			}
		}
		if len(entries) < auditPage {
			return Done{}, nil
		}
		q.After = entries[len(entries)-1].NID
	}
}
