package clientapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// What users report, and how administrators read it: the part of Synapse's administration API for reported events, and the same
// for rooms and users.
var reportRoutes = slices.Concat([]Route{
	op(post, "/rooms/:roomId/report/:eventId", "reportEvent", Token, LimitReport, (*Server).reportEvent),
	op(post, "/rooms/:roomId/report", "reportRoom", Token, LimitReport, (*Server).reportRoom),
	op(post, "/users/:userId/report", "reportUser", Token, LimitReport, (*Server).reportUser),
}, reportLists("event_reports", "Event", store.ReportEvent), reportLists("room_reports", "Room", store.ReportRoom), reportLists("user_reports", "User", store.ReportUser))

// reportLists are the routes by which administrators deal with one kind of reports.
func reportLists(name, id string, kind store.ReportKind) []Route {
	path := "/_synapse/admin/v1/" + name
	return []Route{
		{Method: get, Path: path, OperationID: "im.conclave.list" + id + "Reports", Auth: Admin, Limit: LimitRead,
			Handler: func(s *Server, r *Request) (any, error) { return s.listReports(r, kind) }},
		{Method: get, Path: path + "/:reportId", OperationID: "im.conclave.get" + id + "Report", Auth: Admin, Limit: LimitRead,
			Handler: func(s *Server, r *Request) (any, error) { return s.getReport(r, kind) }},
		{Method: del, Path: path + "/:reportId", OperationID: "im.conclave.delete" + id + "Report", Auth: Admin, Limit: LimitChange,
			Handler: func(s *Server, r *Request) (any, error) { return s.deleteReport(r, kind) }},
	}
}

// Bounds of reports.
const (
	maxReason  = 4096 // bytes
	maxReports = 1000 // of one user, that nobody has dealt with
)

// reason reads the reason of a report. Clients of older versions send a score too, which says nothing.
func (r *Request) reason(required bool) (string, error) {
	var body struct {
		Reason *string `json:"reason"`
	}
	if err := r.Decode(&body); err != nil {
		return "", err
	}
	switch {
	case body.Reason == nil && required:
		return "", matrix.MissingParam("A report has a reason, which may be empty.")
	case body.Reason == nil:
		return "", nil
	case len(*body.Reason) > maxReason:
		return "", matrix.TooLarge("A reason has at most %d bytes.", maxReason)
	}
	return strings.ReplaceAll(*body.Reason, "\x00", ""), nil // which no database takes
}

// report stores what the caller reports.
func (s *Server) report(r *Request, p store.Report) (any, error) {
	nid, err := s.DB.NextNID(store.KindReport)
	if err != nil {
		return nil, err
	}
	p.NID, p.Reporter, p.TS = nid, r.Session.User, time.Now().UnixMilli()
	stored := false
	err = s.DB.Write(r.Ctx(), func(tx *store.Tx) (err error) {
		stored, err = tx.PutReport(p, maxReports)
		return err
	})
	if err == nil && !stored {
		err = matrix.Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "You have reported more than anybody has looked at yet.")
	}
	return empty, err
}

// reportEvent is POST /rooms/{roomId}/report/{eventId}, for whoever is in the room and may see the event. What one may not see and
// what is not there are the same.
func (s *Server) reportEvent(r *Request) (any, error) {
	reason, err := r.reason(false)
	if err != nil {
		return nil, err
	}
	row, err := s.reportable(r)
	var known *matrix.Error
	if errors.As(err, &known) && (known.Code == "M_FORBIDDEN" || known.Code == "M_NOT_FOUND") {
		err = matrix.NotFound("The event was not found or you are not in the room.").With(err)
	}
	if err != nil {
		return nil, err
	}
	return s.report(r, store.Report{
		Kind: store.ReportEvent, Room: row.Event.RoomID(), Event: row.Event.ID(), User: row.Event.Sender(), Reason: reason,
	})
}

// reportable finds the event of the path that the caller, who is in its room, may see.
func (s *Server) reportable(r *Request) (*store.EventRow, error) {
	ref, viewer, id, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.Rooms.RequireJoined(r.Ctx(), ref.NID, r.Session.User); err != nil {
		return nil, err
	}
	return s.Rooms.Visible(r.Ctx(), ref, viewer, id)
}

// reportRoom is POST /rooms/{roomId}/report, for everybody. Whether this server knows the room is not told.
func (s *Server) reportRoom(r *Request) (any, error) {
	reason, err := r.reason(true)
	if err != nil {
		return nil, err
	}
	id, err := matrix.ParseRoomID(r.Param("roomId"))
	if err != nil {
		return nil, matrix.InvalidParam("%.64q is not a room ID.", r.Param("roomId")).With(err)
	}
	return s.report(r, store.Report{Kind: store.ReportRoom, Room: id, Reason: reason})
}

// reportUser is POST /users/{userId}/report, for everybody. Whether this server knows the user is not told.
func (s *Server) reportUser(r *Request) (any, error) {
	reason, err := r.reason(true)
	if err != nil {
		return nil, err
	}
	id, err := matrix.ParseUserID(r.Param("userId"))
	if err != nil {
		return nil, matrix.InvalidParam("%.64q is not a user ID.", r.Param("userId")).With(err)
	}
	return s.report(r, store.Report{Kind: store.ReportUser, User: id, Reason: reason})
}

// listedReport is a report as administrators get it. Of an event, sender is whose it is; of a user, user_reported.
type listedReport struct {
	ID       int64          `json:"id"`
	Received int64          `json:"received_ts"` // ms
	Reporter matrix.UserID  `json:"user_id"`
	Reason   string         `json:"reason"`
	Score    *int           `json:"score"` // no longer in the specification: null
	Room     matrix.RoomID  `json:"room_id,omitempty"`
	Event    matrix.EventID `json:"event_id,omitempty"`
	Sender   matrix.UserID  `json:"sender,omitempty"`
	User     matrix.UserID  `json:"target_user_id,omitempty"`
	Name     *string        `json:"name,omitempty"`            // of the room, if this server knows one
	Alias    *string        `json:"canonical_alias,omitempty"` // likewise

	Text json.RawMessage `json:"event_json,omitempty"` // of a single report: the event as it stands now
}

func listed(p store.Report) listedReport {
	out := listedReport{ID: p.NID, Received: p.TS, Reporter: p.ReporterID, Reason: p.Reason, Room: p.Room, Event: p.Event}
	if p.Kind == store.ReportUser {
		out.User = p.User
	} else {
		out.Sender = p.User
	}
	return out
}

// listReports is GET /_synapse/admin/v1/event_reports and its like: query from, limit (at most 500), dir (b: the newest first),
// and parts of user_id, event_sender_user_id and room_id.
func (s *Server) listReports(r *Request, kind store.ReportKind) (any, error) {
	query := r.Request().URL.Query()
	q := store.ReportQuery{Kind: kind, Reporter: query.Get("user_id"), Reported: query.Get("event_sender_user_id"), Room: query.Get("room_id")}
	switch query.Get("dir") {
	case "", "b":
	case "f":
		q.Oldest = true
	default:
		return nil, matrix.InvalidParam(`dir is "b" or "f".`)
	}
	if max(len(q.Reporter), len(q.Reported), len(q.Room)) > 255 {
		return nil, matrix.InvalidParam("A part of an ID has at most 255 bytes.")
	}
	var err error
	if q.From, err = number(query.Get("from"), 0, 1<<31-1); err != nil {
		return nil, matrix.InvalidParam("from is not the number that an earlier answer gave.")
	}
	if q.Limit, err = number(query.Get("limit"), 100, 500); err != nil || q.Limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 500.")
	}
	reports, total := []listedReport{}, 0
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		reports = reports[:0]
		total, err = tx.Reports(q, func(p store.Report) { reports = append(reports, listed(p)) })
		return err
	})
	if err != nil {
		return nil, err
	}
	names := map[matrix.RoomID][2]*string{}
	for i := range reports {
		if err := s.nameRoom(r, &reports[i], names); err != nil {
			return nil, err
		}
	}
	name := map[store.ReportKind]string{store.ReportEvent: "event_reports", store.ReportRoom: "room_reports", store.ReportUser: "user_reports"}[kind]
	out := map[string]any{name: reports, "total": total}
	if next := q.From + len(reports); next < total && len(reports) > 0 {
		out["next_token"] = next
	}
	return out, nil
}

// nameRoom says what the room of a report is called. One that is not known here is called nothing.
func (s *Server) nameRoom(r *Request, p *listedReport, known map[matrix.RoomID][2]*string) error {
	if p.Room == "" {
		return nil
	}
	names, ok := known[p.Room]
	if !ok {
		ref, err := s.Rooms.Lookup(r.Ctx(), p.Room)
		var missing *matrix.Error
		if errors.As(err, &missing) {
			known[p.Room] = names
			return nil
		}
		if err != nil {
			return err
		}
		state, err := s.Rooms.CurrentState(r.Ctx(), ref.NID)
		if err != nil {
			return err
		}
		rows, err := s.Rooms.StateEvents(r.Ctx(), ref.NID, state, []authrules.StateKey{{Type: "m.room.name"}, {Type: "m.room.canonical_alias"}})
		if err != nil {
			return err
		}
		for i, of := range [][2]string{{"m.room.name", "name"}, {"m.room.canonical_alias", "alias"}} {
			if row := rows[authrules.StateKey{Type: of[0]}]; row != nil {
				names[i] = textOf(row.Event, of[1])
			}
		}
		known[p.Room] = names
	}
	p.Name, p.Alias = names[0], names[1]
	return nil
}

// reportOf reads the report of the path.
func (s *Server) reportOf(r *Request, kind store.ReportKind) (*store.Report, error) {
	nid, err := strconv.ParseInt(r.Param("reportId"), 10, 64)
	if err != nil || nid < 1 {
		return nil, matrix.InvalidParam("%.64q is not the number of a report.", r.Param("reportId"))
	}
	var found *store.Report
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		found, err = tx.Report(kind, nid)
		return err
	})
	if err == nil && found == nil {
		err = matrix.NotFound("There is no such report.")
	}
	return found, err
}

// getReport is GET /_synapse/admin/v1/event_reports/{reportId} and its like.
func (s *Server) getReport(r *Request, kind store.ReportKind) (any, error) {
	p, err := s.reportOf(r, kind)
	if err != nil {
		return nil, err
	}
	out := listed(*p)
	if err := s.nameRoom(r, &out, map[matrix.RoomID][2]*string{}); err != nil || kind != store.ReportEvent {
		return out, err
	}
	ref, err := s.Rooms.Lookup(r.Ctx(), p.Room)
	if err != nil {
		return nil, err
	}
	row, err := s.Rooms.EventInRoom(r.Ctx(), ref.NID, p.Event)
	if err != nil {
		return nil, err
	}
	out.Text = row.Event.JSON()
	return out, nil
}

// deleteReport is DELETE /_synapse/admin/v1/event_reports/{reportId} and its like.
func (s *Server) deleteReport(r *Request, kind store.ReportKind) (any, error) {
	p, err := s.reportOf(r, kind)
	if err != nil {
		return nil, err
	}
	return empty, s.DB.Write(r.Ctx(), func(tx *store.Tx) error {
		_, err := tx.DropReport(kind, p.NID)
		return err
	})
}
