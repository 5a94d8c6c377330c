package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"conclave/internal/observe"
)

// maxFileBytes bounds a configuration or secret file: far more than any real one, far less than memory.
const maxFileBytes = 1 << 20

// Load reads the file at path (empty: none), lets the environment (as os.Environ gives it) override it, resolves relative paths and validates.
// An error is one line that says where and what to do.
func Load(path string, environ []string) (*Config, error) {
	c := defaults()
	base := "."
	if path != "" {
		data, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration: %w; make one with: conclave init", err)
		}
		l := loader{config: c, file: path}
		if err := l.yaml(data); err != nil {
			return nil, err
		}
		base = filepath.Dir(path)
	}
	if err := c.environment(environ); err != nil {
		return nil, err
	}
	c.resolve(base)
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// loader reads one YAML file into a configuration.
type loader struct {
	config *Config
	file   string
}

func (l loader) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", l.file, n.Line, fmt.Sprintf(format, args...))
}

func (l loader) yaml(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // an empty file: defaults and the environment
	case err != nil:
		return fmt.Errorf("%s: %s", l.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var more yaml.Node
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: only one YAML document is expected; remove the second one after ---", l.file)
	}
	root := doc.Content[0]
	if isNull(root) {
		return nil
	}
	return l.section(root, reflect.ValueOf(l.config).Elem(), "")
}

// section reads a mapping, key by key.
func (l loader) section(n *yaml.Node, into reflect.Value, path string) error {
	if n.Kind != yaml.MappingNode {
		if path == "" {
			return l.errorf(n, "the file must hold keys and values, e.g. server_name: example.org")
		}
		return l.errorf(n, "%s must hold keys, e.g. %s: {%s: …}", path, path, children(into, "")[0].path)
	}
	known := children(into, path)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if seen[key.Value] {
			return l.errorf(key, "the key %q stands here twice; remove one", key.Value)
		}
		seen[key.Value] = true
		f, fromFile, ok := find(known, key.Value)
		if !ok {
			return l.errorf(key, "%s", unknownKey(known, key.Value, path))
		}
		if seen[f.name()] && seen[f.name()+"_file"] {
			return l.errorf(key, "%s and %s_file exclude each other; keep one", f.path, f.path)
		}
		if err := l.value(f, value, fromFile); err != nil {
			return err
		}
	}
	return nil
}

// find looks up a key, or a secret's key with _file after it.
func find(known []field, key string) (f field, fromFile, ok bool) {
	for _, f := range known {
		if f.name() == key {
			return f, false, true
		}
		if f.isSecret() && f.name()+"_file" == key {
			return f, true, true
		}
	}
	return field{}, false, false
}

func unknownKey(known []field, key, path string) string {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name()
	}
	where := "at the top level"
	if path != "" {
		where = "in " + path
	}
	return fmt.Sprintf("unknown key %q %s; known are %s", key, where, strings.Join(names, ", "))
}

func (l loader) value(f field, n *yaml.Node, fromFile bool) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return l.errorf(n, "YAML anchors and aliases are not used here; write the value out")
	}
	if isNull(n) {
		return nil // "key:" with nothing after it keeps the default
	}
	if f.isSection() {
		return l.section(n, f.value, f.path)
	}
	l.config.origins[f.path] = fmt.Sprintf("%s:%d: ", l.file, n.Line)
	var err error
	switch {
	case f.isList():
		var items []string
		if items, err = l.items(f, n); err == nil {
			err = f.setList(items)
		}
	case n.Kind != yaml.ScalarNode:
		err = fmt.Errorf("%s must be a single value", f.path)
	case fromFile:
		err = f.setFromFile(filepathFrom(filepath.Dir(l.file), n.Value))
	default:
		err = f.setText(n.Value)
	}
	if err != nil {
		return l.errorf(n, "%v", err)
	}
	return nil
}

func (l loader) items(f field, n *yaml.Node) ([]string, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s must be a list, e.g. [a, b]", f.path)
	}
	items := make([]string, len(n.Content))
	for i, item := range n.Content {
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return nil, fmt.Errorf("%s must be a list of single values", f.path)
		}
		items[i] = item.Value
	}
	return items, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// environment applies the CONCLAVE_ variables. A variable that looks like one of a known section but is none becomes a warning, not an error:
// orchestrators set variables of their own after the name of a service.
func (c *Config) environment(environ []string) error {
	set := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, "CONCLAVE_") {
			set[name] = value
		}
	}
	for _, f := range leaves(reflect.ValueOf(c).Elem(), "") {
		if err := c.fromEnv(f, set); err != nil {
			return fmt.Errorf("environment: %w", err)
		}
	}
	for name := range set {
		for _, section := range children(reflect.ValueOf(c).Elem(), "") {
			if section.isSection() && strings.HasPrefix(name, section.env()+"_") {
				c.warnings = append(c.warnings, fmt.Sprintf("the environment variable %s names no key and is ignored", name))
			}
		}
	}
	return nil
}

// fromEnv applies the variables of one key and takes them out of set.
func (c *Config) fromEnv(f field, set map[string]string) error {
	name := f.env()
	value, ok := set[name]
	file, okFile := "", false
	if f.isSecret() {
		file, okFile = set[name+"_FILE"]
	}
	delete(set, name)
	if f.isSecret() {
		delete(set, name+"_FILE")
	}
	switch {
	case ok && okFile:
		return fmt.Errorf("%s and %s_FILE exclude each other; set one", name, name)
	case okFile:
		c.origins[f.path] = name + "_FILE: "
		return f.setFromFile(file)
	case !ok, value == "" && f.value.Kind() != reflect.String && !f.isList():
		return nil // an empty variable is how compose files pass on what nobody set
	}
	c.origins[f.path] = name + ": "
	if !f.isList() {
		return f.setText(value)
	}
	var items []string
	for _, item := range strings.Split(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return f.setList(items)
}

// setFromFile sets a secret to the content of a file, without the line break at its end.
func (f field) setFromFile(path string) error {
	data, err := readFile(path)
	if err != nil {
		return fmt.Errorf("%s_file: %w", f.path, err)
	}
	f.value.Set(reflect.ValueOf(observe.Secret(strings.TrimRight(string(data), "\r\n"))))
	return nil
}

// readFile reads a small file whole.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, nil
}

func filepathFrom(base, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}
