package federation

import (
	"context"

	"conclave/internal/matrix"
	"conclave/keys"
)

// maxKeysBody is of a question about keys: some 2,000 users.
const maxKeysBody = 1 << 20

var keyRoutes = []Route{
	{Method: "POST", Path: v1 + "/user/keys/query", OperationID: "queryUserEncryptionKeys", Auth: AuthServer, MaxBody: maxKeysBody, Handler: (*Server).queryUserEncryptionKeys},
	{Method: "POST", Path: v1 + "/user/keys/claim", OperationID: "claimUserEncryptionKeys", Auth: AuthServer, MaxBody: maxKeysBody, Handler: (*Server).claimUserEncryptionKeys},
	{Method: "GET", Path: v1 + "/user/devices/{userId}", OperationID: "getUserDevices", Auth: AuthServer, Handler: (*Server).getUserDevices},
}

// keyEDUs are the receivers of EDUs about keys and devices.
var keyEDUs = map[string]func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) error{
	"m.device_list_update": func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) error {
		return s.options.Keys.ReceiveDeviceList(ctx, origin, content)
	},
	"m.signing_key_update": func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) error {
		return s.options.Keys.ReceiveSigningKeys(ctx, origin, content)
	},
	"m.direct_to_device": func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) error {
		return s.options.Keys.ReceiveToDevice(ctx, origin, content)
	},
}

// queryUserEncryptionKeys answers for our own users alone: what we know of others is theirs to tell (threats F19).
func (s *Server) queryUserEncryptionKeys(r *Request) (any, error) {
	var body struct {
		Devices keys.Asked `json:"device_keys"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Devices == nil {
		return nil, matrix.MissingParam("device_keys says whose keys are wanted.")
	}
	found, err := s.options.Keys.QueryLocal(r.Context(), body.Devices)
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (s *Server) claimUserEncryptionKeys(r *Request) (any, error) {
	var body struct {
		Wanted keys.Wanted `json:"one_time_keys"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Wanted == nil {
		return nil, matrix.MissingParam("one_time_keys says whose keys are wanted.")
	}
	claimed, err := s.options.Keys.ClaimLocal(r.Context(), body.Wanted)
	if err != nil {
		return nil, err
	}
	return map[string]any{"one_time_keys": claimed}, nil
}

func (s *Server) getUserDevices(r *Request) (any, error) {
	id, err := matrix.ParseUserID(r.Param("userId"))
	if err != nil {
		return nil, matrix.InvalidParam("%.255q is not a user ID.", r.Param("userId")).With(err)
	}
	answer, err := s.options.Keys.UserDevices(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return answer, nil
}
