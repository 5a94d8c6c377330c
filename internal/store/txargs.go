package store

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
)

// normalise turns arguments into the few types that the engines know: int64, string, []byte, bool, nil, []int64,
// []string, [][]byte. Named types and pointers (nil is NULL) are accepted; a nil []byte is NULL, a nil list is empty.
func normalise(args []any) ([]any, signature, error) {
	var types signature
	if len(args) > maxArgs {
		return nil, types, fmt.Errorf("%d arguments are more than %d", len(args), maxArgs)
	}
	out := make([]any, len(args))
	for i, arg := range args {
		value, kind, ok := plain(arg)
		if !ok {
			value, kind, ok = reflected(reflect.ValueOf(arg))
		}
		if !ok {
			return nil, types, fmt.Errorf("argument %d: a %T cannot be stored", i+1, arg)
		}
		out[i] = value
		types.set(i, kind)
	}
	return out, types, nil
}

// plain handles the types that need no reflection.
func plain(arg any) (any, argKind, bool) {
	switch v := arg.(type) {
	case nil:
		return nil, argNull, true
	case int64:
		return arg, argInt, true
	case int:
		return int64(v), argInt, true
	case Pos:
		return int64(v), argInt, true
	case RoomNID:
		return int64(v), argInt, true
	case UserNID:
		return int64(v), argInt, true
	case EventNID:
		return int64(v), argInt, true
	case ServerNID:
		return int64(v), argInt, true
	case string:
		return arg, argText, true
	case []byte:
		if v == nil {
			return nil, argBytes, true
		}
		return arg, argBytes, true
	case bool:
		return arg, argBool, true
	case []int64:
		if v == nil {
			v = []int64{}
		}
		return v, argInts, true
	case []string:
		if v == nil {
			v = []string{}
		}
		return v, argTexts, true
	case [][]byte:
		if v == nil {
			v = [][]byte{}
		}
		return v, argBlobs, true
	}
	return nil, 0, false
}

// reflected handles named types, pointers and lists of named types.
func reflected(v reflect.Value) (any, argKind, bool) {
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), argInt, true
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(v.Uint()), argInt, true
	case reflect.String:
		return v.String(), argText, true
	case reflect.Bool:
		return v.Bool(), argBool, true
	case reflect.Pointer:
		if !v.IsNil() {
			if value, kind, ok := plain(v.Elem().Interface()); ok {
				return value, kind, true
			}
			return reflected(v.Elem())
		}
		_, kind, ok := reflected(reflect.Zero(v.Type().Elem()))
		return nil, kind, ok
	case reflect.Slice:
		return reflectedList(v)
	}
	return nil, 0, false
}

func reflectedList(v reflect.Value) (any, argKind, bool) {
	n := v.Len()
	switch elem := v.Type().Elem(); elem.Kind() {
	case reflect.Uint8:
		if v.IsNil() {
			return nil, argBytes, true
		}
		return v.Bytes(), argBytes, true
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		out := make([]int64, n)
		for i := range out {
			out[i] = v.Index(i).Int()
		}
		return out, argInts, true
	case reflect.String:
		out := make([]string, n)
		for i := range out {
			out[i] = v.Index(i).String()
		}
		return out, argTexts, true
	case reflect.Slice:
		if elem.Elem().Kind() != reflect.Uint8 {
			return nil, 0, false
		}
		out := make([][]byte, n)
		for i := range out {
			out[i] = v.Index(i).Bytes()
		}
		return out, argBlobs, true
	}
	return nil, 0, false
}

// listJSON is how a list travels into SQLite: as JSON, bytes in hex.
func listJSON(list any) string {
	out := []byte{'['}
	switch list := list.(type) {
	case []int64:
		for _, v := range list {
			out = append(strconv.AppendInt(out, v, 10), ',')
		}
	case []string:
		for _, v := range list {
			out = append(appendJSON(out, v), ',')
		}
	case [][]byte:
		for _, v := range list {
			out = append(out, '"')
			out = hex.AppendEncode(out, v)
			out = append(out, '"', ',')
		}
	}
	if len(out) > 1 {
		out = out[:len(out)-1]
	}
	return string(append(out, ']'))
}

// appendJSON appends a JSON string. All but quotes, backslashes and control characters goes through unchanged, so that
// the text arrives byte for byte.
func appendJSON(out []byte, s string) []byte {
	const digits = "0123456789abcdef"
	out = append(out, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ':
			out = append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}
