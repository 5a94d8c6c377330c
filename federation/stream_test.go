package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

type collected struct {
	items   []string
	members []string
}

func split(text string) (collected, error) {
	var c collected
	err := splitObject(iotest.OneByteReader(strings.NewReader(text)), []string{"state", "chain"},
		func(name string, raw []byte) error { c.items = append(c.items, name+"="+string(raw)); return nil },
		func(name string, raw []byte) error { c.members = append(c.members, name+"="+string(raw)); return nil })
	return c, err
}

func TestSplitObject(t *testing.T) {
	for text, want := range map[string]collected{
		`{}`:             {},
		` { } `:          {},
		`{"state":[]}`:   {},
		`{"state":[1]}`:  {items: []string{"state=1"}},
		`{"a":1,"b":[]}`: {members: []string{"a=1", "b=[]"}},
		"{\n \"state\" : [ {\"x\": [1, {\"y\": \"]}\\\"\"}]} , \"s\" , null ], \"chain\":[{}],\n\"event\": {\"z\": true} }": {
			items:   []string{`state={"x": [1, {"y": "]}\""}]}`, `state="s"`, `state=null`, `chain={}`},
			members: []string{`event={"z": true}`},
		},
		`{"state":{}}`: {members: []string{"state={}"}},
	} {
		got, err := split(text)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestSplitObjectRefuses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `[]`, `1`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"state":[1,]}`, `{"state":[,1]}`, `{"state":[1`,
		`{"state":[1}`, `{"state":[{]}]}`, `{"a":1}x`, `{"a":1}{}`, `{"a":1,"a":2}`, `{"state":[],"state":[1]}`, `{a:1}`, `{"\u0061":1}`,
		`{"a":{"b":1,"b":2}}`, `{"a":"` + "\x01" + `"}`, `{"a":nul}`,
		`{"state":[` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `]}`,
		`{"state":["` + strings.Repeat("x", maxItemBytes) + `"]}`,
		`{"a":"` + strings.Repeat("x", maxMemberBytes) + `"}`,
		`{` + strings.Repeat(`"x":1,`, 100) + `"y":1}`,
	} {
		if got, err := split(text); err == nil {
			t.Errorf("%.60s: taken as %v", text, got)
		}
	}
}

func TestSplitObjectPassesErrorsOn(t *testing.T) {
	own := errors.New("own")
	none := func(string, []byte) error { return nil }
	err := splitObject(strings.NewReader(`{"state":[1,2]}`), []string{"state"}, func(string, []byte) error { return own }, none)
	if !errors.Is(err, own) {
		t.Errorf("the callee's error became %v", err)
	}
	err = splitObject(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(`{"state":[1,2]}`))), []string{"state"}, none, none)
	if !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("the reader's error became %v", err)
	}
	if err = splitObject(strings.NewReader(`{"state":[1`), []string{"state"}, none, none); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an answer that breaks off is %v", err)
	}
}

// FuzzSplitObject compares with encoding/json: what it takes apart is what is there.
func FuzzSplitObject(f *testing.F) {
	f.Add([]byte(`{"state":[{"a":[1,"x]"]},null],"event":{"b":1}}`))
	f.Add([]byte(`{"state" : [ ] , "chain":[1.5e3,"\"\\"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := map[string][]json.RawMessage{}
		err := splitObject(bytes.NewReader(data), []string{"state"}, func(name string, raw []byte) error {
			got[name] = append(got[name], raw)
			return nil
		}, func(string, []byte) error { return nil })
		var want struct {
			State []json.RawMessage `json:"state"`
		}
		var exact map[string]json.RawMessage
		if err != nil || json.Unmarshal(data, &exact) != nil {
			return
		}
		if exact["state"] == nil || json.Unmarshal(exact["state"], &want.State) != nil {
			return
		}
		if len(want.State) != len(got["state"]) {
			t.Fatalf("%d items, want %d", len(got["state"]), len(want.State))
		}
		for i := range want.State {
			if !bytes.Equal(want.State[i], got["state"][i]) {
				t.Errorf("item %d is %s, want %s", i, got["state"][i], want.State[i])
			}
		}
	})
}
