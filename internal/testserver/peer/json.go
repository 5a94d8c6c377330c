package peer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
)

// encode is canonical JSON of values made of maps, as far as tests use it: sorted keys, no blanks, no HTML escapes.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("peer: a test's value does not encode to JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// decode keeps numbers as they are written.
func decode(data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func unpadded(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }
