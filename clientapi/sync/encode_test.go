package sync

import (
	"encoding/json"
	"reflect"
	"testing"

	"conclave/internal/matrix"
)

// filled sets everything of a value that package json shows to something.
func filled(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(`a "<&>` + "\u2028é")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{"content":{"body":"<b>"},"type":"m.x"}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			filled(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		filled(key)
		filled(value)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				filled(v.Field(i))
			}
		}
	}
}

// TestResponseIsWrittenAsItsTagsSay compares with package json, for a response with everything in it and for one with next
// to nothing.
func TestResponseIsWrittenAsItsTagsSay(t *testing.T) {
	var full Response
	filled(reflect.ValueOf(&full).Elem())
	bare := Response{Rooms: &roomsAnswer{Join: map[matrix.RoomID]*joinedRoom{"!a": {Timeline: timeline{Events: []json.RawMessage{}}}}}, Fallback: []string{}}
	for what, r := range map[string]*Response{"full": &full, "bare": &bare, "nothing": {}} {
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%s: %v in %s", what, err, got)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: written\n%s\nwant\n%s", what, got, want)
		}
	}
}
