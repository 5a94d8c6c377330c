package clientapi

import (
	"errors"
	"maps"
	"slices"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/keys"
	"conclave/rooms"
)

var keyRoutes = []Route{
	op(post, "/keys/upload", "uploadKeys", Token, LimitChange, (*Server).uploadKeys),
	op(post, "/keys/query", "queryKeys", Token, LimitRead, (*Server).queryKeys),
	op(post, "/keys/claim", "claimKeys", Token, LimitRead, (*Server).claimKeys),
	op(get, "/keys/changes", "getKeysChanges", Token, LimitRead, (*Server).getKeysChanges),
	op(post, "/keys/device_signing/upload", "uploadCrossSigningKeys", Token, LimitChange, (*Server).uploadCrossSigningKeys),
	op(post, "/keys/signatures/upload", "uploadCrossSigningSignatures", Token, LimitChange, (*Server).uploadCrossSigningSignatures),
	op(put, "/sendToDevice/:eventType/:txnId", "sendToDevice", Token, LimitSend, (*Server).sendToDevice),
}

// owner is who calls, as the keys domain knows it.
func (r *Request) owner() keys.User { return keys.User{NID: r.Session.User, ID: r.Session.UserID} }

// uploadKeys is POST /keys/upload.
func (s *Server) uploadKeys(r *Request) (any, error) {
	var body keys.Upload
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := r.requireDevice(); err != nil {
		return nil, err
	}
	counts, err := s.Keys.UploadKeys(r.Ctx(), keys.Device{User: r.owner(), NID: r.Session.Device, DeviceID: r.Session.DeviceID}, body)
	if err != nil {
		return nil, err
	}
	return map[string]any{"one_time_key_counts": counts}, nil
}

// queryKeys is POST /keys/query.
func (s *Server) queryKeys(r *Request) (any, error) {
	var body struct {
		Timeout int64      `json:"timeout"` // ms
		Devices keys.Asked `json:"device_keys"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Devices == nil {
		return nil, matrix.MissingParam("device_keys says whose keys are wanted.")
	}
	return orError(s.Keys.Query(r.Ctx(), r.owner(), body.Devices, bounded(body.Timeout)))
}

// claimKeys is POST /keys/claim.
func (s *Server) claimKeys(r *Request) (any, error) {
	var body struct {
		Timeout int64       `json:"timeout"` // ms
		Wanted  keys.Wanted `json:"one_time_keys"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Wanted == nil {
		return nil, matrix.MissingParam("one_time_keys says whose keys are wanted.")
	}
	return orError(s.Keys.Claim(r.Ctx(), body.Wanted, bounded(body.Timeout)))
}

// bounded is a time (ms) from a request; what is out of bounds is the default.
func bounded(n int64) time.Duration {
	if n < 0 || n > time.Hour.Milliseconds() {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// orError makes an answer of a result: nil and an error must not become an empty object.
func orError[T any](answer *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// getKeysChanges is GET /keys/changes.
func (s *Server) getKeysChanges(r *Request) (any, error) {
	from, err := s.Sync.ParseToken(r.QueryParam("from"))
	if err != nil {
		return nil, err
	}
	to, err := s.Sync.ParseToken(r.QueryParam("to"))
	if err != nil {
		return nil, err
	}
	if to.Pos == 0 { // of another generation
		if to.Pos, err = s.DB.StreamBound(r.Ctx()); err != nil {
			return nil, err
		}
	}
	changed, left, err := s.Keys.DeviceListChanges(r.Ctx(), r.Session.User, from.Pos, to.Pos)
	if err != nil {
		return nil, err
	}
	return map[string]any{"changed": orEmpty(changed), "left": orEmpty(left)}, nil
}

func orEmpty(users []matrix.UserID) []matrix.UserID {
	if users == nil {
		return []matrix.UserID{}
	}
	return users
}

// uploadCrossSigningKeys is POST /keys/device_signing/upload. Whoever has a token may set the first keys; replacing them
// takes the user's password too.
func (s *Server) uploadCrossSigningKeys(r *Request) (any, error) {
	var body struct {
		keys.CrossSigning
		Auth *accounts.AuthData `json:"auth"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	err := s.Keys.UploadCrossSigning(r.Ctx(), r.owner(), body.CrossSigning, false)
	if !errors.Is(err, keys.ErrConfirm) {
		return nil, err
	}
	if err := s.confirmed(r, body.Auth); err != nil {
		return nil, err
	}
	return nil, s.Keys.UploadCrossSigning(r.Ctx(), r.owner(), body.CrossSigning, true)
}

// uploadCrossSigningSignatures is POST /keys/signatures/upload.
func (s *Server) uploadCrossSigningSignatures(r *Request) (any, error) {
	var body keys.Signatures
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	failures, err := s.Keys.UploadSignatures(r.Ctx(), r.owner(), body)
	if err != nil {
		return nil, err
	}
	return map[string]any{"failures": failures}, nil
}

// sendToDevice is PUT /sendToDevice/{eventType}/{txnId}.
func (s *Server) sendToDevice(r *Request) (any, error) {
	var body struct {
		Messages keys.Messages `json:"messages"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	typ, txnID := r.Param("eventType"), r.Param("txnId")
	if err := checkName(typ, "event type"); err != nil {
		return nil, err
	}
	if body.Messages == nil {
		return nil, matrix.MissingParam("messages says what is sent to whom.")
	}
	if err := r.maySendToDevices(slices.Collect(maps.Keys(body.Messages))); err != nil {
		return nil, err
	}
	txn := rooms.TxnKey(r.Session.Device, "sendToDevice", "", typ, txnID)
	return nil, s.Keys.SendToDevice(r.Ctx(), r.Session.UserID, txn, typ, body.Messages)
}
