package appservice

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"conclave/internal/matrix"
	"conclave/internal/observe"
)

// Bounds of a registration file: far more than any real one needs.
const (
	maxFile       = 1 << 20
	maxNamespaces = 200  // of one kind
	maxRegex      = 1024 // bytes
	maxToken      = 1024
	maxID         = 255
	maxProtocols  = 100
)

// namespace is a set of names that an application service has to do with.
type namespace struct {
	exclusive bool
	regex     *regexp.Regexp
}

type namespaces []namespace

func (list namespaces) match(name string, exclusive bool) bool {
	return slices.ContainsFunc(list, func(n namespace) bool { return (n.exclusive || !exclusive) && n.regex.MatchString(name) })
}

// file reads one registration file; its errors name the file and the line.
type file struct {
	path   string
	server matrix.ServerName
}

func (f *file) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", f.path, n.Line, fmt.Sprintf(format, args...))
}

// load reads the registration of one application service (application service API, "Registration").
func load(path string, server matrix.ServerName) (*Service, error) {
	raw, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("app_services: cannot read a registration file: %w", err)
	}
	f := &file{path: path, server: server}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: one registration is expected in a file; remove the second document after ---", path)
	}
	return f.service(doc.Content[0])
}

func readFile(path string) ([]byte, error) {
	in, err := os.Open(path) //nolint:gosec // the operator's own configuration names it
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was read
	raw, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return raw, err
}

// keys reads a mapping. Keys with a dot are extensions that others have made; those that are not known here mean nothing.
func (f *file) keys(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) (seen map[string]bool, err error) {
	if n.Kind != yaml.MappingNode {
		return nil, f.errorf(n, "%s must hold keys and values", what)
	}
	seen = map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := known[key.Value]
		switch {
		case seen[key.Value]:
			return nil, f.errorf(key, "the key %q stands here twice; remove one", key.Value)
		case value.Kind == yaml.AliasNode:
			return nil, f.errorf(value, "YAML aliases are not used here; write the value out")
		case !ok && strings.Contains(key.Value, "."):
			continue
		case !ok:
			return nil, f.errorf(key, "unknown key %q in %s", key.Value, what)
		}
		seen[key.Value] = true
		if err := read(value); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// required are the keys that every registration has.
var required = []string{"id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"}

func (f *file) service(n *yaml.Node) (*Service, error) {
	s := &Service{}
	var sender, asToken, hsToken string
	seen, err := f.keys(n, "a registration", map[string]func(*yaml.Node) error{
		"id":                f.text("id", maxID, &s.ID),
		"url":               func(v *yaml.Node) error { return f.url(v, &s.url) },
		"as_token":          f.token("as_token", &asToken),
		"hs_token":          f.token("hs_token", &hsToken),
		"sender_localpart":  f.text("sender_localpart", maxID, &sender),
		"namespaces":        func(v *yaml.Node) error { return f.namespaces(v, s) },
		"rate_limited":      f.flag("rate_limited", &s.RateLimited),
		"protocols":         func(v *yaml.Node) error { return f.protocols(v, &s.Protocols) },
		"receive_ephemeral": f.flag("receive_ephemeral", &s.Ephemeral),
		// What bridges ask for under the names of proposals, beside or instead of the specification's.
		"de.sorunome.msc2409.push_ephemeral": f.flag("de.sorunome.msc2409.push_ephemeral", &s.Ephemeral),
		"org.matrix.msc3202":                 f.flag("org.matrix.msc3202", &s.Encryption),
	})
	if err != nil {
		return nil, err
	}
	for _, key := range required {
		if !seen[key] {
			return nil, f.errorf(n, "the key %q is missing", key)
		}
	}
	if !matrix.ValidLocalpart(sender) || len(sender)+len(f.server)+2 > maxID {
		return nil, f.errorf(n, "sender_localpart %q cannot be the name of a user: small letters, digits and any of . _ = - / + only", sender)
	}
	s.Sender = matrix.UserID("@" + sender + ":" + string(f.server))
	s.asToken, s.hsToken, s.path = hash(asToken), observe.Secret(hsToken), f.path
	return s, nil
}

// text reads a text that must not be empty.
func (f *file) text(key string, most int, into *string) func(*yaml.Node) error {
	return func(v *yaml.Node) error {
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || v.Value == "" || len(v.Value) > most || strings.ContainsRune(v.Value, 0) {
			return f.errorf(v, "%s must be a text of 1 to %d bytes", key, most)
		}
		*into = v.Value
		return nil
	}
}

// token reads a secret, which no error repeats.
func (f *file) token(key string, into *string) func(*yaml.Node) error {
	return func(v *yaml.Node) error {
		ok := v.Kind == yaml.ScalarNode && v.Tag != "!!null" && v.Value != "" && len(v.Value) <= maxToken
		if !ok || strings.ContainsFunc(v.Value, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return f.errorf(v, "%s must be a text of 1 to %d visible ASCII characters", key, maxToken)
		}
		*into = v.Value
		return nil
	}
}

// flag reads true or false; where several keys mean the same, one that is true is enough.
func (f *file) flag(key string, into *bool) func(*yaml.Node) error {
	return func(v *yaml.Node) error {
		var set bool
		if v.Kind != yaml.ScalarNode || v.Tag != "!!bool" || v.Decode(&set) != nil {
			return f.errorf(v, "%s must be true or false", key)
		}
		*into = *into || set
		return nil
	}
}

// url reads the address of an application service; null is one that wants no traffic.
func (f *file) url(v *yaml.Node, into *string) error {
	if v.Kind == yaml.ScalarNode && (v.Tag == "!!null" || v.Value == "") {
		return nil
	}
	u, err := url.Parse(v.Value)
	if v.Kind != yaml.ScalarNode || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return f.errorf(v, "url must be an address such as http://127.0.0.1:9000, without a name, password, query or fragment, or null")
	}
	*into = strings.TrimRight(v.Value, "/")
	return nil
}

func (f *file) protocols(v *yaml.Node, into *[]string) error {
	if v.Tag == "!!null" {
		return nil
	}
	if v.Kind != yaml.SequenceNode || len(v.Content) > maxProtocols {
		return f.errorf(v, "protocols must be a list of at most %d names", maxProtocols)
	}
	for _, item := range v.Content {
		var name string
		if err := f.text("a protocol", maxID, &name)(item); err != nil {
			return err
		}
		*into = append(*into, name)
	}
	return nil
}

func (f *file) namespaces(v *yaml.Node, s *Service) error {
	_, err := f.keys(v, "namespaces", map[string]func(*yaml.Node) error{
		"users":   func(v *yaml.Node) error { return f.list(v, "users", &s.users) },
		"aliases": func(v *yaml.Node) error { return f.list(v, "aliases", &s.aliases) },
		"rooms":   func(v *yaml.Node) error { return f.list(v, "rooms", &s.rooms) },
	})
	return err
}

// list reads the namespaces of one kind.
func (f *file) list(v *yaml.Node, kind string, into *namespaces) error {
	if v.Tag == "!!null" {
		return nil
	}
	if v.Kind != yaml.SequenceNode || len(v.Content) > maxNamespaces {
		return f.errorf(v, "namespaces.%s must be a list of at most %d namespaces", kind, maxNamespaces)
	}
	for _, item := range v.Content {
		var n namespace
		seen, err := f.keys(item, "a namespace", map[string]func(*yaml.Node) error{
			"exclusive": f.flag("exclusive", &n.exclusive),
			"regex":     func(v *yaml.Node) error { return f.regex(v, &n) },
			"group_id":  func(*yaml.Node) error { return nil }, // of the groups that Matrix once had; files still have it
		})
		if err != nil {
			return err
		}
		if !seen["regex"] || !seen["exclusive"] {
			return f.errorf(item, "a namespace has a regex and says whether it is exclusive")
		}
		*into = append(*into, n)
	}
	return nil
}

// regex compiles the expression of a namespace, which holds from the beginning of a name on. Go's expressions need time
// in proportion to the name, whatever they are.
func (f *file) regex(v *yaml.Node, n *namespace) (err error) {
	var text string
	if err := f.text("regex", maxRegex, &text)(v); err != nil {
		return err
	}
	if n.regex, err = regexp.Compile(`^(?:` + text + `)`); err != nil {
		return f.errorf(v, "the regex cannot be used: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}
