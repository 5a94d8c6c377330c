package federation

import (
	"encoding/json"
	"net/http"
	"strings"

	"conclave/internal/matrix"
)

// eventStream writes an answer of members and of lists of events, which may be too long to be built in memory. Nothing is
// sent before the first event, so that an error until then is answered as any other.
type eventStream struct {
	w     http.ResponseWriter
	head  strings.Builder
	begun bool
	list  string // the one that is open, "" for none
	lists map[string]bool
	err   error
}

func newEventStream(w http.ResponseWriter) *eventStream {
	return &eventStream{w: w, lists: map[string]bool{}}
}

// field adds a member before the lists.
func (e *eventStream) field(name string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		e.err = err
		return
	}
	e.head.WriteString(`"` + name + `":`)
	e.head.Write(data)
	e.head.WriteByte(',')
}

// into is a function that writes events to a list. Lists follow one another.
func (e *eventStream) into(list string) func(*matrix.Event) error {
	return func(ev *matrix.Event) error {
		first := e.open(list)
		if !first {
			e.text(",")
		}
		e.bytes(ev.JSON())
		return e.err
	}
}

// open makes a list the one that is written to; first reports whether it was not.
func (e *eventStream) open(list string) (first bool) {
	e.begin()
	if e.list == list {
		return false
	}
	if e.list != "" {
		e.text("],")
	}
	e.text(`"` + list + `":[`)
	e.list, e.lists[list] = list, true
	return true
}

func (e *eventStream) begin() {
	if e.begun {
		return
	}
	e.begun = true
	e.w.Header().Set("Content-Type", "application/json")
	e.w.Header().Set("X-Content-Type-Options", "nosniff")
	e.w.WriteHeader(http.StatusOK)
	e.text("{" + e.head.String())
}

func (e *eventStream) text(s string) { e.bytes([]byte(s)) }

func (e *eventStream) bytes(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

// end closes the answer, with those of the lists that had no events. An answer that broke off stays without its end, so
// that nobody takes it for a whole one.
func (e *eventStream) end(err error, lists ...string) error {
	if err == nil {
		err = e.err
	}
	if err != nil {
		if e.begun {
			panic(http.ErrAbortHandler)
		}
		return err
	}
	for _, list := range lists {
		if !e.lists[list] {
			e.open(list)
		}
	}
	e.text("]}")
	return e.err
}
