package sync

import (
	"encoding/json"
	"strings"

	"conclave/internal/store"
)

// fieldTree says which fields of an event a client wants: by name, nil for all of what is below.
type fieldTree map[string]fieldTree

// fieldsOf reads a filter's event_fields: paths whose parts are separated by dots, in which a backslash makes a dot or a
// backslash a character like others (client-server API, "Filtering").
func fieldsOf(paths []string) fieldTree {
	tree := fieldTree{}
	for _, path := range paths {
		at, parts := tree, fieldPath(path)
		for i, part := range parts {
			below, known := at[part]
			switch {
			case known && below == nil: // all of it is wanted already
			case i == len(parts)-1:
				at[part] = nil
			case !known:
				below = fieldTree{}
				at[part] = below
			}
			if below == nil {
				break
			}
			at = below
		}
	}
	return tree
}

// fieldPath divides a path into its parts.
func fieldPath(path string) (parts []string) {
	var part strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			part.WriteByte(path[i])
		case c == '.':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}

// pick leaves of a JSON object what is wanted.
func (t fieldTree) pick(raw json.RawMessage) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return raw // no object: there is nothing to choose from
	}
	kept := make(map[string]json.RawMessage, len(t))
	for name, below := range t {
		value, ok := all[name]
		switch {
		case !ok:
		case below == nil:
			kept[name] = value
		case len(value) > 0 && value[0] == '{':
			kept[name] = below.pick(value)
		}
	}
	out, err := json.Marshal(kept)
	if err != nil {
		return raw
	}
	return out
}

// shape brings events into the form that the filter asks for. rows are those of them that are events of a room.
func (f *Filter) shape(events []json.RawMessage, rows []*store.EventRow) []json.RawMessage {
	federation := f.EventFormat == "federation" && len(rows) == len(events)
	if f.fields == nil && !federation {
		return events
	}
	out := make([]json.RawMessage, len(events))
	for i, ev := range events {
		if federation {
			ev = rows[i].Event.JSON()
		}
		if f.fields != nil {
			ev = f.fields.pick(ev)
		}
		out[i] = ev
	}
	return out
}

// shaped is shape for a list of other events.
func (f *Filter) shaped(list *eventList) {
	if list != nil {
		list.Events = f.shape(list.Events, nil)
	}
}
