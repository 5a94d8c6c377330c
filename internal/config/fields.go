package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"conclave/internal/observe"
)

// field is one key of the configuration: a value, or a section that holds further keys.
type field struct {
	path  string // "registration.mode"
	tag   reflect.StructTag
	value reflect.Value
}

var (
	secretType = reflect.TypeFor[observe.Secret]()
	prefixType = reflect.TypeFor[netip.Prefix]()
)

func (f field) name() string { return f.path[strings.LastIndexByte(f.path, '.')+1:] }

func (f field) isSection() bool {
	return f.value.Kind() == reflect.Struct && f.value.Type() != prefixType
}

func (f field) isSecret() bool { return f.value.Type() == secretType }

// env is the name of the variable that sets the key.
func (f field) env() string {
	return "CONCLAVE_" + strings.ToUpper(strings.ReplaceAll(f.path, ".", "_"))
}

// children returns the keys of a section, in the order of the struct.
func children(section reflect.Value, path string) []field {
	var out []field
	for i := range section.NumField() {
		sf := section.Type().Field(i)
		key, ok := sf.Tag.Lookup("key")
		if !ok {
			continue
		}
		if path != "" {
			key = path + "." + key
		}
		out = append(out, field{path: key, tag: sf.Tag, value: section.Field(i)})
	}
	return out
}

// leaves returns every key below a section that holds a value.
func leaves(section reflect.Value, path string) []field {
	var out []field
	for _, f := range children(section, path) {
		if f.isSection() {
			out = append(out, leaves(f.value, f.path)...)
		} else {
			out = append(out, f)
		}
	}
	return out
}

// defaults returns a configuration in which no key is set by anybody.
func defaults() *Config {
	c := &Config{origins: map[string]string{}}
	for _, f := range leaves(reflect.ValueOf(c).Elem(), "") {
		if text := f.tag.Get("default"); text != "" {
			set := f.setText
			if f.isList() {
				set = func(text string) error { return f.setList(strings.Fields(text)) }
			}
			if err := set(text); err != nil {
				panic(fmt.Sprintf("config: default of %s: %v", f.path, err)) // a wrong struct tag, which any test run finds
			}
		}
	}
	return c
}

// setText sets a value from one text, as it stands in YAML or the environment; lists are set by setList.
func (f field) setText(text string) error {
	switch f.value.Kind() {
	case reflect.String:
		f.value.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%s must be true or false, not %q", f.path, text)
		}
		f.value.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || f.value.OverflowInt(n) {
			return fmt.Errorf("%s must be a whole number, not %q", f.path, text)
		}
		f.value.SetInt(n)
	default:
		return fmt.Errorf("%s must be a list, e.g. [a, b]", f.path)
	}
	return nil
}

// setList sets a list of texts or of CIDRs.
func (f field) setList(items []string) error {
	if f.value.Type().Elem() != prefixType {
		f.value.Set(reflect.ValueOf(items))
		return nil
	}
	prefixes := make([]netip.Prefix, 0, len(items))
	for _, item := range items {
		p, err := netip.ParsePrefix(item)
		if err != nil {
			return fmt.Errorf("%s: %q is not a CIDR; write e.g. 10.0.0.0/8, or 127.0.0.1/32 for one address", f.path, item)
		}
		prefixes = append(prefixes, p.Masked())
	}
	f.value.Set(reflect.ValueOf(prefixes))
	return nil
}

func (f field) isList() bool { return f.value.Kind() == reflect.Slice }

// atDefault reports whether the value is the one nobody would have to write.
func (f field) atDefault() bool {
	if list, ok := f.value.Interface().([]string); ok {
		return slices.Equal(list, strings.Fields(f.tag.Get("default")))
	}
	if f.isList() {
		return f.value.Len() == 0
	}
	return f.text() == f.tag.Get("default") || (f.value.IsZero() && f.tag.Get("default") == "")
}

// text is the scalar's value as YAML text, unquoted.
func (f field) text() string {
	if f.isSecret() {
		return f.value.Interface().(observe.Secret).Reveal()
	}
	return fmt.Sprint(f.value.Interface())
}
