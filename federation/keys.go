package federation

import (
	"context"

	"conclave/internal/matrix"
)

var keyRoutes = []Route{}

// keyEDUs are the receivers of EDUs about keys and devices.
var keyEDUs = map[string]func(s *Server, ctx context.Context, origin matrix.ServerName, content []byte) error{}
