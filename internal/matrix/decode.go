package matrix

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

var errNoObject = errors.New("matrix: not a JSON object")

// Decode reads a typed body: the one decoder at the border. The text is scanned strictly; names of members are matched
// exactly, unlike encoding/json's; unknown members are ignored. Errors are M_NOT_JSON and M_BAD_JSON.
func Decode(data []byte, v any) error {
	if err := CheckJSON(data, Limits{}); err != nil {
		return NotJSON("The body is not valid JSON.").With(err)
	}
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return errors.New("matrix: Decode needs a pointer")
	}
	if err := decode(data, target.Elem()); err != nil {
		return BadJSON("The body does not have the form that was expected.").With(err)
	}
	return nil
}

var (
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	rawMessage  = reflect.TypeFor[json.RawMessage]()
)

// decode fills a value. Structs, and what may hold structs, are walked here, so that names match exactly; what has no
// names inside is left to encoding/json.
func decode(data []byte, v reflect.Value) error {
	data = trim(data)
	if v.Type() == rawMessage {
		v.SetBytes(append([]byte(nil), data...))
		return nil
	}
	if v.CanAddr() && v.Addr().Type().Implements(unmarshaler) {
		return json.Unmarshal(data, v.Addr().Interface())
	}
	null := string(data) == "null"
	switch v.Kind() {
	case reflect.Pointer:
		if null {
			v.SetZero()
			return nil
		}
		fresh := reflect.New(v.Type().Elem())
		if err := decode(data, fresh.Elem()); err != nil {
			return err
		}
		v.Set(fresh)
		return nil
	case reflect.Struct:
		if null {
			return nil
		}
		return decodeStruct(data, v)
	case reflect.Slice:
		if null || v.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		return decodeSlice(data, v)
	case reflect.Map:
		if null {
			break
		}
		return decodeMap(data, v)
	}
	return json.Unmarshal(data, v.Addr().Interface())
}

func trim(data []byte) []byte {
	return bytes.Trim(data, " \t\r\n")
}

func decodeStruct(data []byte, v reflect.Value) error {
	if firstByte(data) != '{' {
		return errNoObject
	}
	t := v.Type()
	for i := range t.NumField() {
		field := t.Field(i)
		if field.Anonymous && field.Type.Kind() == reflect.Struct && field.Tag.Get("json") == "" {
			if err := decodeStruct(data, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		if name == "" {
			name = field.Name
		}
		raw, ok := find(data, name)
		if !ok {
			continue
		}
		if err := decode(raw, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func decodeSlice(data []byte, v reflect.Value) error {
	out := reflect.MakeSlice(v.Type(), 0, 4)
	var failed error
	ok := elements(data, func(raw []byte) bool {
		item := reflect.New(v.Type().Elem()).Elem()
		if failed = decode(raw, item); failed != nil {
			return false
		}
		out = reflect.Append(out, item)
		return true
	})
	if failed != nil {
		return failed
	}
	if !ok {
		return errors.New("matrix: not a JSON array")
	}
	v.Set(out)
	return nil
}

func decodeMap(data []byte, v reflect.Value) error {
	if v.Type().Key().Kind() != reflect.String {
		return errors.New("matrix: maps have text for keys")
	}
	members, err := Members(data)
	if err != nil {
		return err
	}
	out := reflect.MakeMapWithSize(v.Type(), len(members))
	for _, m := range members {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := decode(m.Value, item); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(m.Key).Convert(v.Type().Key()), item)
	}
	v.Set(out)
	return nil
}
