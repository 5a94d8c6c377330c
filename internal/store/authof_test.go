package store

import (
	"slices"
	"testing"

	"conclave/internal/matrix"
)

// TestAuthAtTheBeginning reads auth events out of the beginning of texts, and leaves those alone that it cannot read whole.
func TestAuthAtTheBeginning(t *testing.T) {
	for text, want := range map[string][]matrix.EventID{
		`{"auth_events":[],"content":{}}`:                                           {},
		`{"auth_events":["$a"],"content":{}}`:                                       {"$a"},
		`{"auth_events":["$a","$b:one"],"cont`:                                      {"$a", "$b:one"},
		`{"auth_events":[["$a:one",{"sha256":"x"}],["$b:one",{}]],"c`:               {"$a:one", "$b:one"},
		`{"auth_events":["$a","$b`:                                                  nil,
		`{"auth_events":["$a",`:                                                     nil,
		`{"auth_events":["$a"`:                                                      nil,
		`{"auth_events":[["$a:one",{"sha256":"`:                                     nil,
		`{"auth_events":[["$a:one",{"sha256":"]"}]],"content":{},"depth":1,"x":[]}`: nil,
		`{"auth_events":["$\u0061"]}`:                                               nil,
		`{"age":1,"auth_events":["$a"]}`:                                            nil,
		``:                                                                          nil,
	} {
		var got []matrix.EventID
		if ok := authIn(text, func(id matrix.EventID) { got = append(got, id) }); ok != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", text, got, ok, want)
		}
	}
}
