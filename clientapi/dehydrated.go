package clientapi

import (
	"conclave/internal/matrix"
	"conclave/keys"
)

// dehydratedRoutes are dehydrated devices (MSC3814). Messages are asked for by POST in the older form of the proposal, which
// clients still use, and by GET in the present one.
var dehydratedRoutes = []Route{
	msc3814(put, "", "org.matrix.msc3814.v1.put_dehydrated_device", LimitChange, (*Server).putDehydratedDevice),
	msc3814(get, "", "org.matrix.msc3814.v1.get_dehydrated_device", LimitRead, (*Server).getDehydratedDevice),
	msc3814(del, "", "org.matrix.msc3814.v1.delete_dehydrated_device", LimitChange, (*Server).deleteDehydratedDevice),
	msc3814(post, "/:deviceId/events", "org.matrix.msc3814.v1.post_events", LimitRead, (*Server).postDehydratedEvents),
	msc3814(get, "/:deviceId/events", "org.matrix.msc3814.v1.get_events", LimitRead, (*Server).getDehydratedEvents),
}

// msc3814 declares an operation of dehydrated devices.
func msc3814(method, path, id string, limit Limit, handler func(*Server, *Request) (any, error)) Route {
	return Route{
		Method: method, Path: "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device" + path, OperationID: id,
		Auth: Token, Limit: limit, Handler: handler,
	}
}

// putDehydratedDevice is PUT …/dehydrated_device.
func (s *Server) putDehydratedDevice(r *Request) (any, error) {
	var body keys.Dehydration
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := s.Keys.Dehydrate(r.Ctx(), r.owner(), body); err != nil {
		return nil, err
	}
	return map[string]matrix.DeviceID{"device_id": body.DeviceID}, nil
}

// getDehydratedDevice is GET …/dehydrated_device.
func (s *Server) getDehydratedDevice(r *Request) (any, error) {
	return orError(s.Keys.Dehydrated(r.Ctx(), r.owner()))
}

// deleteDehydratedDevice is DELETE …/dehydrated_device. As the proposal has it, it needs no password.
func (s *Server) deleteDehydratedDevice(r *Request) (any, error) {
	id, err := s.Keys.DeleteDehydrated(r.Ctx(), r.owner())
	if err != nil {
		return nil, err
	}
	return map[string]matrix.DeviceID{"device_id": id}, nil
}

// postDehydratedEvents is POST …/dehydrated_device/{device_id}/events. Its end is an answer without events.
func (s *Server) postDehydratedEvents(r *Request) (any, error) {
	var body struct {
		Next string `json:"next_batch"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	answer, _, err := s.Keys.DehydratedEvents(r.Ctx(), r.owner(), matrix.DeviceID(r.Param("deviceId")), body.Next)
	return orError(answer, err)
}

// getDehydratedEvents is GET …/dehydrated_device/{device_id}/events. Its end is an answer without next_batch.
func (s *Server) getDehydratedEvents(r *Request) (any, error) {
	answer, more, err := s.Keys.DehydratedEvents(r.Ctx(), r.owner(), matrix.DeviceID(r.Param("deviceId")), r.QueryParam("from"))
	if err == nil && !more {
		answer.Next = ""
	}
	return orError(answer, err)
}
