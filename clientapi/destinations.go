package clientapi

import (
	"strconv"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How other servers are doing, as administrators see it: the part of Synapse's administration API for destinations, with
// members of our own (queue, last success, the last error in words) beside its members.
var destinationRoutes = []Route{
	{Method: get, Path: destinationsPath, OperationID: "im.conclave.destinations", Auth: Admin, Limit: LimitRead, Handler: (*Server).destinations},
	{Method: get, Path: destinationsPath + "/:destination", OperationID: "im.conclave.destination", Auth: Admin, Limit: LimitRead, Handler: (*Server).destination},
	{Method: get, Path: destinationsPath + "/:destination/rooms", OperationID: "im.conclave.destinationRooms", Auth: Admin, Limit: LimitRead, Handler: (*Server).destinationRooms},
	{Method: post, Path: destinationsPath + "/:destination/reset_connection", OperationID: "im.conclave.resetConnection", Auth: Admin, Limit: LimitChange, Handler: (*Server).resetConnection},
}

const (
	destinationsPath = "/_synapse/admin/v1/federation/destinations"

	// maxCounted is how far what waits for a server is counted: beyond 5,000 only the latest events of each room are sent.
	maxCounted = 5000
	// maxCountedInList bounds the work of a page of many servers.
	maxCountedInList = 500
)

// destinationStatus is how one server is doing. Times are in ms.
type destinationStatus struct {
	Destination matrix.ServerName `json:"destination"`
	// Reachable is false from a failure until the server takes something, or speaks to us, again.
	Reachable bool `json:"reachable"`
	// LastSuccess is when it last took a transaction; null if it never has.
	LastSuccess *int64 `json:"last_success_ts"`
	// QueueLength counts events that wait for it; if there are more than are counted, QueueMore is true.
	QueueLength  int  `json:"queue_length"`
	QueueMore    bool `json:"queue_more"`
	ToDevice     int  `json:"to_device_queue_length"` // messages to devices that wait, counted alike
	ToDeviceMore bool `json:"to_device_queue_more"`
	// LastError is what went wrong last, in words; null if nothing does.
	LastError *string `json:"last_error"`
	Failures  int64   `json:"failures"` // in a row

	// As Synapse has them: since when it fails, and how far it has been sent events.
	FailureTS    *int64    `json:"failure_ts"`
	LastOrdering store.Pos `json:"last_successful_stream_ordering"`

	// RetryAt is when it is tried again; null if it does not fail.
	RetryAt *int64 `json:"retry_at_ts"`
	// SetAside is what it would not take although it took everything else, newest first; only of a single destination.
	SetAside []setAside `json:"set_aside,omitempty"`
}

// setAside is something that a server would not take.
type setAside struct {
	TS     int64  `json:"ts"`
	Item   string `json:"item"` // an event's ID or an EDU's type
	Reason string `json:"reason"`
}

// status describes a destination, counting what waits for it up to most.
func status(tx *store.Tx, d store.ListedDestination, bound store.Pos, most int) (destinationStatus, error) {
	out := destinationStatus{Destination: d.Name, Reachable: d.Fails == 0, Failures: d.Fails, LastOrdering: d.At.PDUs}
	if d.LastSuccess != 0 {
		out.LastSuccess = &d.LastSuccess
	}
	if d.Fails > 0 {
		out.LastError, out.FailureTS = &d.Failure, &d.FailingSince
	}
	if d.RetryAt != 0 {
		out.RetryAt = &d.RetryAt
	}
	n, err := tx.CountOutgoing(d.Server, d.At.PDUs, bound, most+1)
	if err != nil {
		return out, err
	}
	out.QueueLength, out.QueueMore = min(n, most), n > most
	if n, err = tx.CountOutgoingMessages(d.Server, d.At.ToDevice, most+1); err != nil {
		return out, err
	}
	out.ToDevice, out.ToDeviceMore = min(n, most), n > most
	return out, nil
}

// destinationOrders are the names by which clients of Synapse's API sort.
var destinationOrders = map[string]store.DestinationOrder{
	"": store.ByName, "destination": store.ByName, "retry_at_ts": store.ByRetry,
	"failure_ts": store.ByFailingSince, "last_success_ts": store.ByLastSuccess, "last_successful_stream_ordering": store.ByLastSuccess,
}

// destinations is GET /_synapse/admin/v1/federation/destinations: query from, limit (at most 500), order_by, dir (f, b)
// and destination, a part of the names that are wanted.
func (s *Server) destinations(r *Request) (any, error) {
	query := r.Request().URL.Query()
	q := store.DestinationQuery{Contains: query.Get("destination"), Down: query.Get("dir") == "b"}
	var known bool
	if q.Order, known = destinationOrders[query.Get("order_by")]; !known {
		return nil, matrix.InvalidParam("%.64q is nothing to sort destinations by.", query.Get("order_by"))
	}
	if len(q.Contains) > 255 {
		return nil, matrix.InvalidParam("A part of a server name has at most 255 bytes.")
	}
	var err error
	if q.From, err = number(query.Get("from"), 0, 1<<31-1); err != nil {
		return nil, matrix.InvalidParam("from is not the number that an earlier answer gave.")
	}
	if q.Limit, err = number(query.Get("limit"), 100, 500); err != nil || q.Limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 500.")
	}
	bound, err := s.DB.StreamBound(r.Ctx())
	if err != nil {
		return nil, err
	}
	out := struct {
		Destinations []destinationStatus `json:"destinations"`
		Total        int                 `json:"total"`
		NextToken    string              `json:"next_token,omitempty"`
	}{}
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) error {
		var found []store.ListedDestination
		if out.Total, err = tx.Destinations(q, func(d store.ListedDestination) { found = append(found, d) }); err != nil {
			return err
		}
		out.Destinations = make([]destinationStatus, len(found))
		for i, d := range found {
			if out.Destinations[i], err = status(tx, d, bound, maxCountedInList); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if next := q.From + len(out.Destinations); next < out.Total && len(out.Destinations) > 0 {
		out.NextToken = strconv.Itoa(next)
	}
	return out, nil
}

// number reads a number of a query; none is the default. More than most counts as most.
func number(text string, otherwise, most int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return min(int(n), most), err
}

// destinationOf finds the destination of the path.
func (r *Request) destinationOf(tx *store.Tx) (store.ListedDestination, error) {
	name := r.Param("destination")
	d, found, err := tx.DestinationNamed(matrix.ServerName(name))
	if err == nil && !found {
		err = matrix.NotFound("Nothing was ever sent to a server named %.255q.", name)
	}
	return d, err
}

// destination is GET /_synapse/admin/v1/federation/destinations/{destination}.
func (s *Server) destination(r *Request) (any, error) {
	bound, err := s.DB.StreamBound(r.Ctx())
	if err != nil {
		return nil, err
	}
	var out destinationStatus
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) error {
		d, err := r.destinationOf(tx)
		if err != nil {
			return err
		}
		if out, err = status(tx, d, bound, maxCounted); err != nil {
			return err
		}
		return tx.SetAsideItems(d.Server, 100, func(a store.SetAside) {
			out.SetAside = append(out.SetAside, setAside{a.TS, a.Item, a.Reason})
		})
	})
	return out, err
}

// destinationRooms is GET /_synapse/admin/v1/federation/destinations/{destination}/rooms: the rooms that are shared with
// a server, in pages by `from`, which is the room after which the page begins.
func (s *Server) destinationRooms(r *Request) (any, error) {
	query := r.Request().URL.Query()
	limit, err := number(query.Get("limit"), 100, 500)
	if err != nil || limit == 0 {
		return nil, matrix.InvalidParam("limit is a number from 1 to 500.")
	}
	type room struct {
		ID    matrix.RoomID `json:"room_id"`
		Users int           `json:"users"` // of that server, joined
	}
	out := struct {
		Rooms     []room `json:"rooms"`
		NextToken string `json:"next_token,omitempty"`
	}{}
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) error {
		d, err := r.destinationOf(tx)
		if err != nil {
			return err
		}
		out.Rooms = []room{}
		return tx.SharedRooms(d.Server, matrix.RoomID(query.Get("from")), limit+1, func(id matrix.RoomID, users int) {
			out.Rooms = append(out.Rooms, room{id, users})
		})
	})
	if err == nil && len(out.Rooms) > limit {
		out.Rooms = out.Rooms[:limit]
		out.NextToken = string(out.Rooms[limit-1].ID)
	}
	return out, err
}

// resetConnection is POST /_synapse/admin/v1/federation/destinations/{destination}/reset_connection: the server is tried
// again at once.
func (s *Server) resetConnection(r *Request) (any, error) {
	var d store.ListedDestination
	err := s.DB.Read(r.Ctx(), func(tx *store.Tx) (err error) {
		d, err = r.destinationOf(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.Reconnect != nil {
		s.Reconnect(d.Name)
	}
	return empty, nil
}
