package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/matrix"
)

// Credentials are what an X-Matrix Authorization header says (Server-Server API, "Request Authentication").
type Credentials struct {
	Origin      matrix.ServerName
	Destination matrix.ServerName // "" if the header names none
	Key         matrix.KeyID
	Signature   []byte
}

const (
	xMatrixScheme  = "X-Matrix"
	maxCredentials = 4096 // bytes of one header
)

// String is the conservative form that the spec asks senders for: one space, lower case, quotes, no blanks. The names
// and the key ID contain nothing that would have to be escaped.
func (c Credentials) String() string {
	return fmt.Sprintf(`%s origin="%s",destination="%s",key="%s",sig="%s"`,
		xMatrixScheme, c.Origin, c.Destination, c.Key, matrix.EncodeBase64(c.Signature))
}

// IsXMatrix reports whether an Authorization header is meant for ParseXMatrix.
func IsXMatrix(header string) bool {
	return len(header) > len(xMatrixScheme) && strings.EqualFold(header[:len(xMatrixScheme)], xMatrixScheme) &&
		header[len(xMatrixScheme)] == ' '
}

// ParseXMatrix reads an Authorization header by RFC 9110 section 11.4: parameters in any order and case, values bare
// or quoted with backslash escapes, blanks around commas, unknown parameters ignored. Colons in bare values are
// allowed, as old servers send them. A parameter given twice is an error.
func ParseXMatrix(header string) (Credentials, error) {
	var c Credentials
	if len(header) > maxCredentials {
		return c, errors.New("the header is too long")
	}
	if !IsXMatrix(header) {
		return c, errors.New("the scheme is not X-Matrix")
	}
	params, err := authParams(strings.TrimLeft(header[len(xMatrixScheme):], " "))
	if err != nil {
		return c, err
	}
	if c.Origin, err = matrix.ParseServerName(params["origin"]); err != nil {
		return c, fmt.Errorf("origin: %w", err)
	}
	if d := params["destination"]; d != "" {
		if c.Destination, err = matrix.ParseServerName(d); err != nil {
			return c, fmt.Errorf("destination: %w", err)
		}
	}
	if c.Key, err = parseKeyID(params["key"]); err != nil {
		return c, err
	}
	sig, ok := params["sig"]
	if !ok {
		sig = params["signature"] // the list of parameters in the spec calls it so
	}
	if c.Signature, err = matrix.DecodeBase64(sig); err != nil || len(c.Signature) != signatureSize {
		return c, errors.New("sig is not an Ed25519 signature in base64")
	}
	return c, nil
}

// authParams reads name=value pairs. Names come out in lower case.
func authParams(s string) (map[string]string, error) {
	params := make(map[string]string, 4)
	for {
		n := tokenEnd(s, false)
		if n == 0 || n == len(s) || s[n] != '=' {
			return nil, errors.New("a parameter is not name=value")
		}
		name := strings.ToLower(s[:n])
		value, rest, err := authValue(s[n+1:])
		if err != nil {
			return nil, err
		}
		if _, twice := params[name]; twice {
			return nil, errors.New("a parameter is given twice")
		}
		params[name] = value
		if rest = strings.TrimLeft(rest, " \t"); rest == "" {
			return params, nil
		}
		if rest[0] != ',' {
			return nil, errors.New("parameters are not separated by commas")
		}
		s = strings.TrimLeft(rest[1:], " \t")
	}
}

// authValue reads a token or a quoted string and returns what follows it.
func authValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		n := tokenEnd(s, true)
		if n == 0 {
			return "", "", errors.New("a parameter has no value")
		}
		return s[:n], s[n:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '"':
			return b.String(), s[i+1:], nil
		case ch == '\\' && i+1 < len(s):
			i++
			if s[i] < ' ' || s[i] == 0x7f {
				return "", "", errors.New("a quoted value holds a control character")
			}
			b.WriteByte(s[i])
		case ch < ' ' && ch != '\t' || ch == 0x7f:
			return "", "", errors.New("a quoted value holds a control character")
		default:
			b.WriteByte(ch)
		}
	}
	return "", "", errors.New("a quoted value does not end")
}

// tokenEnd is the length of the token that s begins with (RFC 9110 section 5.6.2), with colons if they are allowed.
func tokenEnd(s string, colons bool) int {
	for i := range len(s) {
		ch := s[i]
		letter := ch|0x20 >= 'a' && ch|0x20 <= 'z'
		digit := ch >= '0' && ch <= '9'
		if !letter && !digit && strings.IndexByte("!#$%&'*+-.^_`|~", ch) < 0 && (!colons || ch != ':') {
			return i
		}
	}
	return len(s)
}

// parseKeyID checks that a key ID is of the one algorithm there is and that its version fits the grammar.
func parseKeyID(s string) (matrix.KeyID, error) {
	version, ok := strings.CutPrefix(s, "ed25519:")
	if !ok || version == "" || len(s) > 255 {
		return "", errors.New("the key ID is not ed25519:version")
	}
	for i := range len(version) {
		ch := version[i]
		letter := ch|0x20 >= 'a' && ch|0x20 <= 'z'
		if !letter && (ch < '0' || ch > '9') && ch != '_' {
			return "", errors.New("the key ID has a character that it may not have")
		}
	}
	return matrix.KeyID(s), nil
}

// signedRequest is the canonical JSON that a request's signature covers. content is the body, nil if there is none; it
// may hold what canonical JSON forbids (events of old room versions with floats), which is why it is made canonical
// leniently.
func signedRequest(method, uri string, origin, destination matrix.ServerName, content []byte) ([]byte, error) {
	b := append(make([]byte, 0, len(content)+len(uri)+256), '{')
	if content != nil {
		canonical, err := matrix.CanonicalJSON(content)
		if err != nil {
			canonical, err = loosely(content)
		}
		if err != nil {
			return nil, err
		}
		b = append(b, `"content":`...)
		b = append(append(b, canonical...), ',')
	}
	for i, m := range [...][2]string{
		{"destination", string(destination)}, {"method", method}, {"origin", string(origin)}, {"uri", uri},
	} {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(matrix.AppendString(b, m[0]), ':')
		b = matrix.AppendString(b, m[1])
	}
	return append(b, '}'), nil
}

// maxLoose bounds how many values loosely takes apart: nobody has shown yet who sends them, and in memory each is far larger
// than on the wire. Events have thousands at most.
const maxLoose = 500_000

// loosely makes text canonical that the strict reader refuses, as most servers would: of members with one name the last
// counts. It is for signatures of transactions alone, of which one broken item must not spoil the others (threats F16);
// whoever reads a body afterwards reads it strictly.
func loosely(content []byte) ([]byte, error) {
	if bytes.Count(content, []byte{','}) > maxLoose {
		return nil, errors.New("the JSON has too many values")
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON")
	}
	return appendLoosely(make([]byte, 0, len(content)), v), nil
}

func appendLoosely(out []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		out = append(out, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(matrix.AppendString(out, name), ':')
			out = appendLoosely(out, v[name])
		}
		return append(out, '}')
	case []any:
		out = append(out, '[')
		for i, item := range v {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendLoosely(out, item)
		}
		return append(out, ']')
	case string:
		return matrix.AppendString(out, v)
	case json.Number:
		return append(out, v...)
	case bool:
		return strconv.AppendBool(out, v)
	}
	return append(out, "null"...)
}
