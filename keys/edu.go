package keys

import "encoding/json"

// EDU is something that another server is to get of what this package stores.
type EDU struct {
	Type    string
	Content json.RawMessage
}
